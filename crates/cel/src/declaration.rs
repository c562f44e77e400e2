//! What is known of a variable beforehand: its type, what fields it has, and how large it may be.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::types::Type;

/// How items of a list are told apart when lists are compared or joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// By their place.
    Atomic,
    /// By their value.
    Set,
    /// By these fields of theirs.
    Map(Vec<String>),
}

/// The type of a value, and how large it may be.
#[derive(Clone, Debug)]
pub struct Declaration {
    pub(crate) shape: Shape,
    /// Most characters, bytes, items or entries.
    pub(crate) max: Option<u64>,
    /// The least number of bytes of its JSON.
    pub(crate) min_bytes: u64,
}

#[derive(Clone, Debug)]
pub(crate) enum Shape {
    Plain(Type),
    List { items: Arc<Declaration>, kind: ListKind },
    Map { keys: Arc<Declaration>, values: Arc<Declaration> },
    Object(Arc<Fields>),
}

/// The fields of an object type.
#[derive(Clone, Debug)]
pub struct Fields {
    name: String,
    /// By their names in expressions, with their names in JSON.
    known: BTreeMap<String, (String, Arc<Declaration>)>,
    /// By their names in JSON.
    by_json: BTreeMap<String, Arc<Declaration>>,
    /// Whether any other field may be named, too.
    is_open: bool,
}

impl Declaration {
    /// Anything.
    pub fn dynamic() -> Self {
        Self::of(Type::Dyn)
    }

    /// A value of a type without parts, of any size.
    pub fn of(ty: Type) -> Self {
        Self { shape: Shape::Plain(ty), max: None, min_bytes: 1 }
    }

    /// The same with a limit of its size.
    #[must_use]
    pub fn at_most(mut self, max: u64) -> Self {
        self.max = Some(max);
        self
    }

    /// The same with a least number of bytes in JSON.
    #[must_use]
    pub(crate) fn at_least_bytes(mut self, bytes: u64) -> Self {
        self.min_bytes = bytes;
        self
    }

    /// A list.
    pub fn list(items: Declaration, kind: ListKind) -> Self {
        Self { shape: Shape::List { items: Arc::new(items), kind }, max: None, min_bytes: 2 }
    }

    /// A map from strings.
    pub fn map(values: Declaration) -> Self {
        let keys = Arc::new(Self::of(Type::String));
        Self { shape: Shape::Map { keys, values: Arc::new(values) }, max: None, min_bytes: 2 }
    }

    /// An object.
    pub fn object(fields: Fields) -> Self {
        Self { shape: Shape::Object(Arc::new(fields)), max: None, min_bytes: 2 }
    }

    /// What expressions see.
    pub fn ty(&self) -> Type {
        match &self.shape {
            Shape::Plain(ty) => ty.clone(),
            Shape::List { items, .. } => Type::list(items.ty()),
            Shape::Map { keys, values } => Type::map(keys.ty(), values.ty()),
            Shape::Object(fields) => Type::Object(fields.clone()),
        }
    }

    /// The declaration of items of a list or values of a map.
    pub(crate) fn element(&self) -> Option<&Arc<Declaration>> {
        match &self.shape {
            Shape::List { items, .. } => Some(items),
            Shape::Map { values, .. } => Some(values),
            _ => None,
        }
    }

    pub(crate) fn keys(&self) -> Option<&Arc<Declaration>> {
        match &self.shape {
            Shape::Map { keys, .. } => Some(keys),
            _ => None,
        }
    }

    pub(crate) fn fields(&self) -> Option<&Arc<Fields>> {
        match &self.shape {
            Shape::Object(fields) => Some(fields),
            _ => None,
        }
    }

    pub(crate) fn fields_mut(&mut self) -> Option<&mut Fields> {
        match &mut self.shape {
            Shape::Object(fields) => Some(Arc::make_mut(fields)),
            _ => None,
        }
    }

    /// The declaration of a field by its name in JSON.
    pub(crate) fn json_field(&self, name: &str) -> Option<&Declaration> {
        match &self.shape {
            Shape::Map { values, .. } => Some(values),
            Shape::Object(fields) => fields.by_json(name),
            _ => None,
        }
    }
}

impl Fields {
    /// Fields by their names in JSON; those that no expression can name are left out.
    pub fn new(
        name: impl Into<String>,
        fields: impl IntoIterator<Item = (String, Declaration)>,
    ) -> Self {
        let fields = fields.into_iter().filter_map(|(json, declaration)| {
            let escaped = crate::escape(&json)?.into_owned();
            Some((escaped, json, declaration))
        });
        Self::of(name.into(), fields)
    }

    /// Fields with names that are not escaped, as upstream declares its own types.
    pub fn plain(
        name: impl Into<String>,
        fields: impl IntoIterator<Item = (impl AsRef<str>, Declaration)>,
    ) -> Self {
        let fields = fields.into_iter().map(|(name, ty)| {
            let name = name.as_ref();
            (name.to_owned(), name.to_owned(), ty)
        });
        Self::of(name.into(), fields)
    }

    fn of(name: String, fields: impl Iterator<Item = (String, String, Declaration)>) -> Self {
        let (mut known, mut by_json) = (BTreeMap::new(), BTreeMap::new());
        for (escaped, json, declaration) in fields {
            let declaration = Arc::new(declaration);
            by_json.insert(json.clone(), declaration.clone());
            known.insert(escaped, (json, declaration));
        }
        Self { name, known, by_json, is_open: false }
    }

    /// Any fields, of any type.
    pub(crate) fn open(name: impl Into<String>) -> Self {
        Self { name: name.into(), known: BTreeMap::new(), by_json: BTreeMap::new(), is_open: true }
    }

    /// Another field, with a name that is not escaped.
    pub(crate) fn insert(&mut self, name: &str, declaration: Declaration) {
        let declaration = Arc::new(declaration);
        self.by_json.insert(name.to_owned(), declaration.clone());
        self.known.insert(name.to_owned(), (name.to_owned(), declaration));
    }

    /// The name of the type.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn field(&self, name: &str) -> Option<&Arc<Declaration>> {
        self.known.get(name).map(|(_, declaration)| declaration)
    }

    /// The type of a field as expressions name it.
    pub(crate) fn field_type(&self, name: &str) -> Option<Type> {
        match self.field(name) {
            Some(declaration) => Some(declaration.ty()),
            None => self.is_open.then_some(Type::Dyn),
        }
    }

    /// The name in JSON of a field as expressions name it.
    pub(crate) fn json_name(&self, name: &str) -> Option<&str> {
        self.known.get(name).map(|(json, _)| json.as_str())
    }

    fn by_json(&self, name: &str) -> Option<&Declaration> {
        self.by_json.get(name).map(|declaration| &**declaration)
    }
}
