//! What the creator of an object owns, written without a set of fields in between.
//!
//! The same as comparing the object with nothing, for the write that happens most: one walk, and
//! `FieldsV1` comes out of it.

use serde_json::{Map, Value};

use crate::compare::{group, is_zero, prints_anything};
use crate::fields_v1::{write_element, write_field};
use crate::set::FieldSet;
use crate::shape::{Atom, ListShape, MapShape, Relation, Shape};

/// The fields of a new working form as `FieldsV1`, without those of a set and what is below them;
/// `None` when there are none.
pub(crate) fn fields_of_new(shape: Shape<'_>, object: &Value, except: &FieldSet) -> Option<String> {
    let mut out = Vec::with_capacity(1024);
    // An object that is empty is there before it is created.
    let is_any = write(shape, Some(object), false, except, &mut out);
    if is_any { String::from_utf8(out).ok() } else { None }
}

/// Writes what is set in a value, absent when Go prints it all the same. `is_new` when it was not
/// there before; otherwise nothing is written, and false returned, if there is nothing to write.
fn write(
    shape: Shape<'_>,
    value: Option<&Value>,
    is_new: bool,
    except: &FieldSet,
    out: &mut Vec<u8>,
) -> bool {
    match shape.atom(value) {
        Atom::List(list) if !matches!(list.relation, Relation::Atomic) => {
            let items = value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            if !items.is_empty() {
                return Branch::begin(is_new, out).items(list, items);
            }
        }
        Atom::Map(map) if !map.is_atomic => {
            let members = value.and_then(Value::as_object);
            let is_empty = members.is_none_or(Map::is_empty);
            if !is_empty || map.table().is_some_and(prints_anything) {
                return Branch::begin(is_new, out).members(map, members, except);
            }
        }
        _ => {}
    }
    let is_set = is_new || value.is_some_and(|value| !is_zero(value));
    if is_set {
        out.extend_from_slice(b"{}");
    }
    is_set
}

/// A branch that is being written.
struct Branch<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
    is_new: bool,
    is_any: bool,
}

impl<'o> Branch<'o> {
    fn begin(is_new: bool, out: &'o mut Vec<u8>) -> Self {
        let start = out.len();
        out.push(b'{');
        Self { out, start, is_new, is_any: false }
    }

    fn items(mut self, list: ListShape<'_>, items: &[Value]) -> bool {
        for (element, items) in group(list, items) {
            self.entry(
                |out| write_element(&element, out),
                |out| match items.as_slice() {
                    [item] => write(list.item, Some(item), true, &FieldSet::default(), out),
                    // Those that cannot be told apart are owned together.
                    _ => {
                        out.extend_from_slice(b"{}");
                        true
                    }
                },
            );
        }
        self.end()
    }

    fn members(
        mut self,
        shape: MapShape<'_>,
        members: Option<&Map<String, Value>>,
        except: &FieldSet,
    ) -> bool {
        let none = FieldSet::default();
        let mut member = |name: &str, value: Option<&Value>| {
            let below = match except.is_empty() {
                true => None,
                false => except.branch_of_field(name),
            };
            let Some((inner, field)) = shape.find(name) else { return };
            let is_printed = value.is_some_and(|value| field.is_none_or(|f| f.prints(value)));
            let is_zero = !is_printed && field.is_some_and(schema::Field::is_always_printed);
            if below.is_some_and(|below| below.is_member) || !(is_printed || is_zero) {
                return;
            }
            // Zeros of a struct that was there were there too.
            let was_there = !self.is_new && field.is_some_and(schema::Field::is_always_printed);
            let value = value.filter(|_| is_printed);
            let below = below.map_or(&none, |below| &below.below);
            self.entry(
                |out| write_field(name, out),
                |out| write(inner, value, !was_there, below, out),
            );
        };
        let mut zeros =
            shape.table().map(|ty| ty.always_printed()).into_iter().flatten().peekable();
        for (name, value) in members.into_iter().flatten() {
            while let Some(zero) = zeros.next_if(|zero| *zero.name < **name) {
                member(&zero.name, None);
            }
            zeros.next_if(|zero| zero.name == *name);
            member(name, Some(value));
        }
        zeros.for_each(|zero| member(&zero.name, None));
        self.end()
    }

    /// One step, taken back if there is nothing below it.
    fn entry(&mut self, step: impl FnOnce(&mut Vec<u8>), below: impl FnOnce(&mut Vec<u8>) -> bool) {
        let start = self.out.len();
        if self.is_any {
            self.out.push(b',');
        } else if self.is_new {
            self.out.extend_from_slice(b"\".\":{},");
        }
        step(self.out);
        self.out.push(b':');
        if below(self.out) {
            self.is_any = true;
        } else {
            self.out.truncate(start);
        }
    }

    fn end(self) -> bool {
        if self.is_any || self.is_new {
            self.out.push(b'}');
            return true;
        }
        self.out.truncate(self.start);
        false
    }
}
