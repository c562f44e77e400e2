//! Declarations from the tables of built-in kinds.

use schema::{Kind, ListType, Type as Table};

use crate::declaration::{Declaration, Fields, ListKind};
use crate::types::Type;

impl Declaration {
    /// What a table says of an object. A type within itself is not declared further.
    pub fn from_table(table: &Table) -> Self {
        object(table, &mut Vec::new())
    }
}

fn object(table: &Table, around: &mut Vec<String>) -> Declaration {
    if around.iter().any(|path| *path == *table.path) {
        return Declaration::dynamic();
    }
    around.push(table.path.to_string());
    let fields: Vec<(String, Declaration)> = table
        .fields()
        .iter()
        .map(|field| (field.name.to_string(), value(&field.kind, field.list_type.as_ref(), around)))
        .collect();
    around.pop();
    Declaration::object(Fields::new(table.name(), fields))
}

fn value(kind: &Kind, list_type: Option<&ListType>, around: &mut Vec<String>) -> Declaration {
    Declaration::of(match kind {
        Kind::String | Kind::Duration => Type::String,
        Kind::Bool => Type::Bool,
        Kind::Int32 | Kind::Int64 => Type::Int,
        Kind::Float64 => Type::Double,
        Kind::Bytes => Type::Bytes,
        Kind::Time | Kind::MicroTime => Type::Timestamp,
        Kind::Struct(table) => return object(table.get(), around),
        Kind::List(item) => {
            let kind = match list_type {
                Some(ListType::Set) => ListKind::Set,
                Some(ListType::Map(keys)) => {
                    ListKind::Map(keys.iter().map(ToString::to_string).collect())
                }
                _ => ListKind::Atomic,
            };
            return Declaration::list(value(item, None, around), kind);
        }
        Kind::WrappedStrings => {
            return Declaration::list(Declaration::of(Type::String), ListKind::Atomic);
        }
        Kind::Map(values) => return Declaration::map(value(values, None, around)),
        // Numbers or texts, and what is not looked into.
        _ => Type::Dyn,
    })
}

#[cfg(test)]
mod tests {
    use crate::{Declaration, Environment};

    #[test]
    fn mistakes_about_built_in_kinds_are_found() {
        let table = schema::registry().type_named("apps/v1.Deployment").unwrap();
        let environment = Environment::new().with("object", Declaration::from_table(table));
        let first = |text: &str| {
            let found = environment.compile(text).map_err(|why| why.to_string());
            found.err().and_then(|why| why.lines().next().map(str::to_owned)).unwrap_or_default()
        };
        assert_eq!(first("object.spec.replicas <= 5 && has(object.metadata.labels.app)"), "");
        assert_eq!(first("object.spec.template.spec.containers.all(c, c.image != '')"), "");
        assert_eq!(first("object.spec.replica"), "ERROR: <input>:1:12: undefined field 'replica'");
        assert_eq!(
            first("object.spec.replicas == '1'"),
            "ERROR: <input>:1:22: found no matching overload for '_==_' applied to '(int, string)'"
        );
    }
}
