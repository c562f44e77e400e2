//! Types of expressions.

use std::fmt;
use std::sync::Arc;

use crate::declaration::Fields;

/// The type of an expression.
#[derive(Clone, Debug)]
pub enum Type {
    /// Anything; only known when it runs.
    Dyn,
    /// An expression with a mistake; it is not reported again.
    Error,
    /// `null`.
    Null,
    /// `bool`.
    Bool,
    /// `int`.
    Int,
    /// `uint`.
    Uint,
    /// `double`.
    Double,
    /// `string`.
    String,
    /// `bytes`.
    Bytes,
    /// `google.protobuf.Timestamp`.
    Timestamp,
    /// `google.protobuf.Duration`.
    Duration,
    /// A list.
    List(Arc<Type>),
    /// A map.
    Map(Arc<Type>, Arc<Type>),
    /// `optional_type`.
    Optional(Arc<Type>),
    /// The type of a type.
    Type(Arc<Type>),
    /// A type of a library, such as `kubernetes.Quantity`.
    Opaque(&'static str),
    /// Something with declared fields.
    Object(Arc<Fields>),
    /// A parameter of a function's declaration.
    Parameter(u8),
    /// To be found out.
    Variable(u32),
}

impl Type {
    /// A list of these.
    pub fn list(item: Type) -> Self {
        Self::List(Arc::new(item))
    }

    /// A map from and to these.
    pub fn map(key: Type, value: Type) -> Self {
        Self::Map(Arc::new(key), Arc::new(value))
    }

    /// An optional one of these.
    pub fn optional(inner: Type) -> Self {
        Self::Optional(Arc::new(inner))
    }

    pub(crate) fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn | Self::Error)
    }

    /// Whether both are the same, parameters included.
    pub fn is_exactly(&self, other: &Type) -> bool {
        match (self, other) {
            (Self::List(a), Self::List(b))
            | (Self::Optional(a), Self::Optional(b))
            | (Self::Type(a), Self::Type(b)) => a.is_exactly(b),
            (Self::Map(a, b), Self::Map(c, d)) => a.is_exactly(c) && b.is_exactly(d),
            (Self::Opaque(a), Self::Opaque(b)) => a == b,
            (Self::Object(a), Self::Object(b)) => a.name() == b.name(),
            (Self::Parameter(a), Self::Parameter(b)) => a == b,
            (Self::Variable(a), Self::Variable(b)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }

    /// Whether it has at most so many parts.
    pub(crate) fn is_within(&self, size: usize) -> bool {
        fn walk(ty: &Type, left: &mut usize) -> bool {
            let Some(rest) = left.checked_sub(1) else { return false };
            *left = rest;
            match ty {
                Type::List(a) | Type::Optional(a) | Type::Type(a) => walk(a, left),
                Type::Map(a, b) => walk(a, left) && walk(b, left),
                _ => true,
            }
        }
        walk(self, &mut { size })
    }

    /// The name as mistakes of the checker have it, where some types have shorter ones.
    pub(crate) fn short_name(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Timestamp => "timestamp".to_owned(),
            Self::Duration => "duration".to_owned(),
            Self::List(item) => format!("list({})", item.short_name()),
            Self::Map(key, value) => format!("map({}, {})", key.short_name(), value.short_name()),
            Self::Optional(inner) => format!("optional_type({})", inner.short_name()),
            Self::Type(inner) => format!("type({})", inner.short_name()),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dyn | Self::Variable(_) => "dyn",
            Self::Error => "!error!",
            Self::Null => "null_type",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::Duration => "google.protobuf.Duration",
            Self::List(item) => return write!(f, "list({item})"),
            Self::Map(key, value) => return write!(f, "map({key}, {value})"),
            Self::Optional(inner) => return write!(f, "optional_type({inner})"),
            Self::Type(inner) => return write!(f, "type({inner})"),
            Self::Opaque(name) => name,
            Self::Object(fields) => fields.name(),
            Self::Parameter(at) => return write!(f, "{}", char::from(b'A' + at)),
        })
    }
}
