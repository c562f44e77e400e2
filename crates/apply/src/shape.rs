//! What the tables say about merging: which values are whole, which lists have keys.

use schema::{Field, Kind, ListType, Text, Type};
use serde_json::{Map, Value};

use crate::element::Element;

/// The type of a value, as far as ownership is concerned.
#[derive(Clone, Copy)]
pub(crate) struct Shape<'s> {
    form: Form<'s>,
    list: Option<&'s ListType>,
    is_atomic: bool,
    /// Not atomic, although the struct is.
    is_granular: bool,
}

#[derive(Clone, Copy)]
enum Form<'s> {
    Struct(&'s Type),
    Kind(&'s Kind),
    /// No table: whatever it is, with maps that merge and lists that do not.
    Deduced,
    /// No table: whatever it is, as a whole.
    Untyped,
}

/// How a value is to be treated.
#[derive(Clone, Copy)]
pub(crate) enum Atom<'s> {
    Scalar(Scalar),
    List(ListShape<'s>),
    Map(MapShape<'s>),
}

impl Atom<'_> {
    /// Whether two values of one type are of one sort; others cannot be merged member by member.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// What a scalar must be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    String,
    Number,
    Bool,
    Any,
}

#[derive(Clone, Copy)]
pub(crate) struct ListShape<'s> {
    pub(crate) relation: Relation<'s>,
    pub(crate) item: Shape<'s>,
}

/// What tells the items of a list apart.
#[derive(Clone, Copy)]
pub(crate) enum Relation<'s> {
    /// Nothing: the list is one value.
    Atomic,
    /// Their values.
    Set,
    /// Some of their fields.
    Keyed(&'s [Text]),
}

#[derive(Clone, Copy)]
pub(crate) struct MapShape<'s> {
    pub(crate) is_atomic: bool,
    members: Members<'s>,
}

#[derive(Clone, Copy)]
enum Members<'s> {
    Struct(&'s Type),
    All(Shape<'s>),
}

impl<'s> Shape<'s> {
    pub(crate) const DEDUCED: Self = Self::new(Form::Deduced, false);
    const UNTYPED: Self = Self::new(Form::Untyped, true);

    const fn new(form: Form<'s>, is_atomic: bool) -> Self {
        Self { form, list: None, is_atomic, is_granular: false }
    }

    pub(crate) fn of(ty: &'s Type) -> Self {
        Self::new(Form::Struct(ty), false)
    }

    pub(crate) fn of_field(field: &'s Field) -> Self {
        Self {
            form: Form::Kind(&field.kind),
            list: field.list_type.as_ref(),
            is_atomic: field.atomic,
            is_granular: field.granular,
        }
    }

    fn of_kind(kind: &'s Kind) -> Self {
        Self::new(Form::Kind(kind), false)
    }

    /// How to treat a value of this type; without a table that depends on the value.
    pub(crate) fn atom(self, value: Option<&Value>) -> Atom<'s> {
        let kind = match self.form {
            Form::Struct(ty) => return self.structure(ty),
            Form::Kind(Kind::Struct(ty)) => return self.structure(ty.get()),
            Form::Kind(Kind::Marked(field)) => return Shape::of_field(field).atom(value),
            Form::Kind(Kind::Deduced) => return Shape::DEDUCED.without_table(value),
            Form::Kind(kind) => kind,
            Form::Deduced | Form::Untyped => return self.without_table(value),
        };
        match kind {
            Kind::String | Kind::Bytes | Kind::Duration => Atom::Scalar(Scalar::String),
            Kind::Bool => Atom::Scalar(Scalar::Bool),
            Kind::Int32 | Kind::Int64 | Kind::Float64 => Atom::Scalar(Scalar::Number),
            Kind::Quantity | Kind::Time | Kind::MicroTime | Kind::IntOrString => {
                Atom::Scalar(Scalar::Any)
            }
            Kind::List(item) => Atom::List(ListShape {
                relation: match self.list {
                    None | Some(ListType::Atomic) => Relation::Atomic,
                    Some(ListType::Set) => Relation::Set,
                    Some(ListType::Map(keys)) => Relation::Keyed(keys),
                },
                item: Shape::of_kind(item),
            }),
            Kind::WrappedStrings => Atom::List(ListShape {
                relation: Relation::Atomic,
                item: Shape::of_kind(&Kind::String),
            }),
            Kind::Map(item) => Atom::Map(MapShape {
                is_atomic: self.is_atomic,
                members: Members::All(Shape::of_kind(item)),
            }),
            _ => Shape::UNTYPED.without_table(value),
        }
    }

    fn structure(self, ty: &'s Type) -> Atom<'s> {
        let is_atomic = self.is_atomic || (ty.atomic && !self.is_granular);
        Atom::Map(MapShape { is_atomic, members: Members::Struct(ty) })
    }

    fn without_table(self, value: Option<&Value>) -> Atom<'s> {
        match value {
            Some(Value::Bool(_) | Value::Number(_) | Value::String(_)) => Atom::Scalar(Scalar::Any),
            Some(Value::Array(_)) => {
                Atom::List(ListShape { relation: Relation::Atomic, item: Shape::UNTYPED })
            }
            _ => Atom::Map(MapShape { is_atomic: self.is_atomic, members: Members::All(self) }),
        }
    }

    /// The table, if the value is a struct.
    pub(crate) fn table(self) -> Option<&'s Type> {
        match self.form {
            Form::Struct(ty) => Some(ty),
            Form::Kind(Kind::Struct(ty)) => Some(ty.get()),
            Form::Kind(Kind::Marked(field)) => Shape::of_field(field).table(),
            _ => None,
        }
    }
}

impl<'s> MapShape<'s> {
    /// The type of a member; `None` when there is no such field.
    pub(crate) fn member(self, name: &str) -> Option<Shape<'s>> {
        self.find(name).map(|(shape, _)| shape)
    }

    /// The type of a member, and its field if it has one.
    pub(crate) fn find(self, name: &str) -> Option<(Shape<'s>, Option<&'s Field>)> {
        match self.members {
            Members::All(item) => Some((item, None)),
            Members::Struct(ty) => match ty.field(name) {
                Some(field) => Some((Shape::of_field(field), Some(field))),
                None => ty.preserve_unknown.then_some((Shape::DEDUCED, None)),
            },
        }
    }

    /// Whether the member is a field of a struct; keys of maps are owned themselves, fields are not.
    pub(crate) fn is_named(self, name: &str) -> bool {
        self.table().is_some_and(|ty| ty.field(name).is_some())
    }

    pub(crate) fn table(self) -> Option<&'s Type> {
        match self.members {
            Members::Struct(ty) => Some(ty),
            Members::All(_) => None,
        }
    }
}

impl<'s> ListShape<'s> {
    /// What tells an item from the others.
    ///
    /// # Errors
    /// Upstream's words for an item that cannot be told.
    pub(crate) fn element(self, at: usize, item: &Value) -> Result<Element, String> {
        match self.relation {
            Relation::Atomic => Ok(Element::Index(i64::try_from(at).unwrap_or(i64::MAX))),
            Relation::Keyed(keys) => self.key(keys, item),
            Relation::Set => match item {
                Value::Object(_) => {
                    Err("associative list without keys has an element that's a map type".to_owned())
                }
                Value::Array(_) => {
                    Err("not supported: associative list with lists as elements".to_owned())
                }
                Value::Null => {
                    Err("associative list without keys has an element that's an explicit null"
                        .to_owned())
                }
                scalar => Ok(Element::Value(scalar.clone())),
            },
        }
    }

    fn key(self, keys: &'s [Text], item: &Value) -> Result<Element, String> {
        let map = match item {
            Value::Object(map) => map,
            Value::Null => {
                return Err("associative list with keys may not have a null element".to_owned());
            }
            _ => return Err("associative list with keys may not have non-map elements".to_owned()),
        };
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.push((key.clone(), self.key_value(key, map)?));
        }
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Element::Key(found.into()))
    }

    /// A key that is not given has its default, which for what Go always prints is zero.
    fn key_value(self, key: &str, item: &Map<String, Value>) -> Result<Value, String> {
        if let Some(value) = item.get(key) {
            return Ok(value.clone());
        }
        let field = self.item.table().and_then(|ty| ty.field(key));
        let default = field.and_then(|field| match &field.default {
            Some(text) => serde_json::from_str(text).ok(),
            None if field.pointer => None,
            None => field.printed_zero(),
        });
        default.ok_or_else(|| {
            format!(
                "associative list with keys has an element that omits key field {key:?} (and \
                 doesn't have default value)"
            )
        })
    }
}
