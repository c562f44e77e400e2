//! The table of one API type.
//!
//! Built-in tables are parsed from `generated/types.txt` when they are first used; tables of custom
//! resources are made at run time with [`Type::new`]. In the file, columns are separated by tabs:
//!
//! ```text
//! T  package.Name  group  version  flags (a: atomic)  protobuf message
//! json name  flags  protobuf number  kind  Go type  [P=strategy K=key L=type:keys M=type D=default E=enum]
//! E  package.Name  value|value
//! ```
//!
//! Field flags: `p` pointer, `o` omitempty, `z` omitzero, `?` optional, `!` required. A number such
//! as `2.5` is field 5 of the message in field 2 (a struct that Go embeds); 0 is not in protobuf.
//! Kinds: `s` string, `b` bool, `i` int32, `l` int64, `d` double, `y` bytes, `q` quantity, `t`
//! time, `m` micro time, `D` duration, `o` int or string, `R` raw extension, `J` any JSON, `F`
//! managed fields, `B` `A` `S` schema or bool, array, string array, `V` a list of strings wrapped in
//! a message, `@name` a struct, `[` list of, `{` map of.

use std::borrow::Cow;
use std::sync::Arc;

use crate::registry::registry;

/// Text that is borrowed in built-in tables and owned in those made at run time.
pub type Text = Cow<'static, str>;

/// What shape a value has on the wire.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A string.
    String,
    /// A boolean.
    Bool,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// A double.
    Float64,
    /// Bytes: base64 in JSON.
    Bytes,
    /// `resource.Quantity`.
    Quantity,
    /// `metav1.Time`: RFC 3339 in seconds.
    Time,
    /// `metav1.MicroTime`: RFC 3339 with six decimals.
    MicroTime,
    /// `metav1.Duration`, such as `1h0m0s`.
    Duration,
    /// `intstr.IntOrString`.
    IntOrString,
    /// `runtime.RawExtension`: an embedded object, not looked into.
    RawExtension,
    /// Any JSON.
    Json,
    /// `metav1.FieldsV1`: in the working form a string, the text of its JSON.
    FieldsV1,
    /// A schema or a boolean, in `CustomResourceDefinition`.
    SchemaOrBool(TypeRef),
    /// A schema or a list of them.
    SchemaOrArray(TypeRef),
    /// A schema or a list of strings.
    SchemaOrStrings(TypeRef),
    /// A list of strings with a protobuf message of its own.
    WrappedStrings,
    /// A struct with a table of its own.
    Struct(TypeRef),
    /// A list.
    List(Box<Kind>),
    /// A map from strings.
    Map(Box<Kind>),
    /// An item of a list or map with a list type, or the like, of its own: what a field says of its
    /// value, said of an item. Only in tables made at run time.
    Marked(Arc<Field>),
    /// Whatever it is, merged member by member if it is a map. Only in tables made at run time.
    Deduced,
}

/// A reference to a table; references may be circular.
#[derive(Clone, Debug)]
pub enum TypeRef {
    /// A built-in table, by its place in the registry.
    Builtin(usize),
    /// A table made at run time.
    Owned(Arc<Type>),
}

impl TypeRef {
    /// The table.
    pub fn get(&self) -> &Type {
        match self {
            TypeRef::Builtin(index) => registry().at(*index),
            TypeRef::Owned(owned) => owned,
        }
    }
}

/// How server-side apply merges a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListType {
    /// As a whole.
    Atomic,
    /// As a set of scalars.
    Set,
    /// As a map with these keys.
    Map(Vec<Text>),
}

/// One field of a [`Type`].
#[derive(Clone, Debug)]
pub struct Field {
    /// Name in JSON.
    pub name: Text,
    /// Shape of the value.
    pub kind: Kind,
    /// Whether Go holds a pointer, so that zero and absent differ.
    pub pointer: bool,
    /// Whether an empty value is not printed.
    pub omit_empty: bool,
    /// Whether a zero struct is not printed.
    pub omit_zero: bool,
    /// Marked optional.
    pub optional: bool,
    /// Marked required.
    pub required: bool,
    /// Protobuf number, 0 when the field is not in protobuf.
    pub number: u32,
    /// Protobuf numbers of the messages around it that JSON flattens.
    pub within: Box<[u32]>,
    /// The Go type, for error messages.
    pub go_type: Text,
    /// `merge`, `replace`, `retainKeys`, comma separated; empty when unset.
    pub patch_strategy: Text,
    /// Key by which strategic merge patch matches list items; empty when unset.
    pub patch_merge_key: Text,
    /// List type for server-side apply.
    pub list_type: Option<ListType>,
    /// Whether a map or struct is replaced as a whole by server-side apply.
    pub atomic: bool,
    /// Whether it is not, although its type is.
    pub granular: bool,
    /// Default from the marker, as JSON.
    pub default: Option<Text>,
    /// The named string that has all values of this field, or of its items; empty when it may have
    /// others.
    pub values: Text,
    /// Whether null is a value like others, and not absence. Only in tables made at run time.
    pub nullable: bool,
}

impl Field {
    /// A plain optional field, as custom resources have them; adjust what differs.
    pub fn new(name: impl Into<Text>, kind: Kind) -> Self {
        Self {
            name: name.into(),
            kind,
            pointer: true,
            omit_empty: true,
            omit_zero: false,
            optional: true,
            required: false,
            number: 0,
            within: Box::default(),
            go_type: Text::Borrowed(""),
            patch_strategy: Text::Borrowed(""),
            patch_merge_key: Text::Borrowed(""),
            list_type: None,
            atomic: false,
            granular: false,
            default: None,
            values: Text::Borrowed(""),
            nullable: false,
        }
    }

    /// Whether strategic merge patch merges the list or map instead of replacing it.
    pub fn merges(&self) -> bool {
        self.patch_strategy.split(',').any(|word| word == "merge")
    }

    /// Whether strategic merge patch clears the members it does not name.
    pub fn retains_keys(&self) -> bool {
        self.patch_strategy.split(',').any(|word| word == "retainKeys")
    }
}

/// The table of one struct.
#[derive(Clone, Debug)]
pub struct Type {
    /// Go's package and name, such as `core/v1.Pod`.
    pub path: Text,
    /// API group.
    pub group: Text,
    /// API version.
    pub version: Text,
    /// Full name of the protobuf message; empty when there is none.
    pub message: Text,
    /// Replaced as a whole by server-side apply.
    pub atomic: bool,
    /// Whether fields without a table entry are kept as they are.
    pub preserve_unknown: bool,
    fields: Vec<Field>,
    /// Places of fields by a hash of their names; see [`slot`].
    slots: Box<[u16]>,
    by_number: Vec<u16>,
    always_printed: Vec<u16>,
    always_printed_places: Vec<u16>,
    embedded: Vec<Box<[u32]>>,
}

impl Type {
    /// A table made at run time.
    pub fn new(path: impl Into<Text>, fields: Vec<Field>) -> Self {
        let ordinal = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
        let mut by_name: Vec<u16> = (0..fields.len()).map(ordinal).collect();
        by_name.sort_by(|a, b| fields[usize::from(*a)].name.cmp(&fields[usize::from(*b)].name));
        let slots = slots(&fields);
        let always_printed: Vec<u16> = by_name
            .iter()
            .copied()
            .filter(|at| fields[usize::from(*at)].is_always_printed())
            .collect();
        let mut always_printed_places = always_printed.clone();
        always_printed_places.sort_unstable();
        let mut by_number: Vec<u16> =
            (0..fields.len()).filter(|at| fields[*at].number != 0).map(ordinal).collect();
        by_number.sort_by_cached_key(|at| {
            let field = &fields[usize::from(*at)];
            let mut path = field.within.to_vec();
            path.push(field.number);
            path
        });
        let mut embedded: Vec<Box<[u32]>> = fields
            .iter()
            .filter(|field| field.number != 0)
            .flat_map(|field| (1..=field.within.len()).map(|len| field.within[..len].into()))
            .collect();
        embedded.sort();
        embedded.dedup();
        Self {
            path: path.into(),
            group: Text::Borrowed(""),
            version: Text::Borrowed(""),
            message: Text::Borrowed(""),
            atomic: false,
            preserve_unknown: false,
            fields,
            slots,
            by_number,
            always_printed,
            always_printed_places,
            embedded,
        }
    }

    /// The name without its package.
    pub fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or(&self.path)
    }

    /// The fields in the order in which they are printed.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// A field by its JSON name; the case must match.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.position(name).map(|at| &self.fields[at])
    }

    /// The place of a field in [`Type::fields`].
    pub fn position(&self, name: &str) -> Option<usize> {
        let mask = self.slots.len() - 1;
        let mut at = slot(name) & mask;
        loop {
            let found = usize::from(self.slots[at]);
            if *self.fields.get(found)?.name == *name {
                return Some(found);
            }
            at = (at + 1) & mask;
        }
    }

    /// Whether the struct is an object with a kind of its own.
    pub fn has_type_meta(&self) -> bool {
        let head = self.fields.get(..2).unwrap_or_default();
        head.iter().map(|field| (&*field.name, field.number)).eq([("kind", 0), ("apiVersion", 0)])
    }

    /// Fields that are printed even when they are absent, by name.
    pub fn always_printed(&self) -> impl Iterator<Item = &Field> {
        self.always_printed.iter().map(|at| &self.fields[usize::from(*at)])
    }

    /// The places of those fields, ascending.
    pub(crate) fn always_printed_places(&self) -> impl Iterator<Item = usize> {
        self.always_printed_places.iter().map(|at| usize::from(*at))
    }

    /// Fields in the order of their protobuf numbers.
    pub(crate) fn by_number(&self) -> impl Iterator<Item = &Field> {
        self.by_number.iter().map(|at| &self.fields[usize::from(*at)])
    }

    /// Paths of messages that JSON flattens.
    pub(crate) fn embedded(&self) -> &[Box<[u32]>] {
        &self.embedded
    }

    /// Parses a block of `types.txt`. The file is made by the project and checked by tests, so
    /// what does not parse is left out rather than reported.
    pub(crate) fn parse(block: &'static str, lookup: &dyn Fn(&str) -> Option<usize>) -> Self {
        let (head, rest) = block.split_once('\n').unwrap_or((block, ""));
        let mut columns = head.split('\t').skip(1);
        let mut next = || Text::Borrowed(columns.next().unwrap_or(""));
        let (path, group, version, flags, message) = (next(), next(), next(), next(), next());
        let fields = rest.lines().filter_map(|line| parse_field(line, lookup)).collect();
        Self { group, version, message, atomic: flags.contains('a'), ..Self::new(path, fields) }
    }
}

/// Where the search for a name begins. Every object is looked up field by field several times on
/// its way, so this must be cheap rather than good.
fn slot(name: &str) -> usize {
    let bytes = name.as_bytes();
    let byte = |at: usize| bytes.get(at).map_or(0, |byte| usize::from(*byte));
    let last = bytes.len().wrapping_sub(1);
    byte(0) + byte(bytes.len() / 2) * 37 + byte(last) * 11 + bytes.len() * 101
}

/// At least half of the slots stay empty, so that every search ends, and soon.
fn slots(fields: &[Field]) -> Box<[u16]> {
    let mut slots = vec![u16::MAX; (2 * fields.len() + 1).next_power_of_two()];
    let mask = slots.len() - 1;
    for (position, field) in fields.iter().enumerate().take(usize::from(u16::MAX)) {
        let mut at = slot(&field.name) & mask;
        while slots[at] != u16::MAX {
            at = (at + 1) & mask;
        }
        slots[at] = u16::try_from(position).unwrap_or(u16::MAX);
    }
    slots.into()
}

fn parse_field(line: &'static str, lookup: &dyn Fn(&str) -> Option<usize>) -> Option<Field> {
    let mut columns = line.split('\t');
    let name = columns.next()?;
    let flags = columns.next()?;
    let numbers: Vec<u32> = columns.next()?.split('.').filter_map(|n| n.parse().ok()).collect();
    let (number, within) = numbers.split_last()?;
    let kind = parse_kind(columns.next()?, lookup)?;
    let mut field = Field {
        pointer: flags.contains('p'),
        omit_empty: flags.contains('o'),
        omit_zero: flags.contains('z'),
        optional: flags.contains('?'),
        required: flags.contains('!'),
        number: *number,
        within: within.into(),
        go_type: Text::Borrowed(columns.next()?),
        ..Field::new(name, kind)
    };
    for extra in columns {
        let (key, value) = extra.split_once('=')?;
        match key {
            "P" => field.patch_strategy = Text::Borrowed(value),
            "K" => field.patch_merge_key = Text::Borrowed(value),
            "M" => {
                field.atomic = value == "atomic";
                field.granular = value == "granular";
            }
            "E" => field.values = Text::Borrowed(value),
            "D" => field.default = Some(Text::Borrowed(value)),
            "L" => field.list_type = parse_list_type(value),
            _ => {}
        }
    }
    Some(field)
}

fn parse_list_type(text: &'static str) -> Option<ListType> {
    let (name, keys) = text.split_once(':')?;
    match name {
        "atomic" => Some(ListType::Atomic),
        "set" => Some(ListType::Set),
        "map" => Some(ListType::Map(keys.split(',').map(Text::Borrowed).collect())),
        _ => None,
    }
}

fn parse_kind(text: &'static str, lookup: &dyn Fn(&str) -> Option<usize>) -> Option<Kind> {
    let schema = || lookup("apiextensions/v1.JSONSchemaProps").map(TypeRef::Builtin);
    let rest = text.get(1..)?;
    Some(match text.as_bytes()[0] {
        b's' => Kind::String,
        b'b' => Kind::Bool,
        b'i' => Kind::Int32,
        b'l' => Kind::Int64,
        b'd' => Kind::Float64,
        b'y' => Kind::Bytes,
        b'q' => Kind::Quantity,
        b't' => Kind::Time,
        b'm' => Kind::MicroTime,
        b'D' => Kind::Duration,
        b'o' => Kind::IntOrString,
        b'R' => Kind::RawExtension,
        b'J' => Kind::Json,
        b'F' => Kind::FieldsV1,
        b'B' => Kind::SchemaOrBool(schema()?),
        b'A' => Kind::SchemaOrArray(schema()?),
        b'S' => Kind::SchemaOrStrings(schema()?),
        b'V' => Kind::WrappedStrings,
        b'@' => Kind::Struct(TypeRef::Builtin(lookup(rest)?)),
        b'[' => Kind::List(Box::new(parse_kind(rest, lookup)?)),
        b'{' => Kind::Map(Box::new(parse_kind(rest, lookup)?)),
        _ => return None,
    })
}
