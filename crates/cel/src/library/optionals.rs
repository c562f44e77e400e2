//! Something or nothing.

use super::no_overload;
use crate::error::{EvaluationError, Outcome};
use crate::functions::Library;
use crate::value::Value;

pub(crate) static LIBRARY: Library = Library {
    declarations: "
        optional_of: optional.of(A) -> optional(A)
        optional_ofNonZeroValue: optional.ofNonZeroValue(A) -> optional(A)
        optional_none: optional.none() -> optional(A)
        optional_value: <optional(A)>.value() -> A
        optional_hasValue: <optional(A)>.hasValue() -> bool
        optional_or_optional: <optional(A)>.or(optional(A)) -> optional(A)
        optional_orValue_value: <optional(A)>.orValue(A) -> A
        optional_unwrap: optional.unwrap(list(optional(A))) -> list(A)
        optional_unwrapOpt: <list(optional(A))>.unwrapOpt() -> list(A)
        list_first: <list(A)>.first() -> optional(A)
        list_last: <list(A)>.last() -> optional(A)
    ",
    functions: &[
        ("optional.of", |args| match args {
            [value] => Ok(Value::some(value.clone())),
            _ => no_overload(),
        }),
        ("optional.ofNonZeroValue", |args| match args {
            [value] if is_zero(value) => Ok(Value::Optional(None)),
            [value] => Ok(Value::some(value.clone())),
            _ => no_overload(),
        }),
        ("optional.none", |_| Ok(Value::Optional(None))),
        ("value", value),
        ("hasValue", |args| match args {
            [Value::Optional(inner)] => Ok(Value::Bool(inner.is_some())),
            _ => no_overload(),
        }),
        ("or", |args| match args {
            [Value::Optional(None), other] => Ok(other.clone()),
            [value @ Value::Optional(_), _] => Ok(value.clone()),
            _ => no_overload(),
        }),
        ("orValue", |args| match args {
            [Value::Optional(None), other] => Ok(other.clone()),
            [Value::Optional(Some(inner)), _] => Ok((**inner).clone()),
            _ => no_overload(),
        }),
        ("optional.unwrap", unwrap),
        ("unwrapOpt", unwrap),
        ("first", |args| end(args, |_| 0)),
        ("last", |args| end(args, |len| len.wrapping_sub(1))),
    ],
};

fn value<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::Optional(Some(inner))] => Ok((**inner).clone()),
        [Value::Optional(None)] => Err(EvaluationError::failed("optional.none() dereference")),
        _ => no_overload(),
    }
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Int(value) | Value::Duration(value) => *value == 0,
        Value::Uint(value) => *value == 0,
        Value::Double(value) => *value == 0.0,
        Value::Optional(inner) => inner.is_none(),
        Value::Object(made) => made.fields.is_empty(),
        Value::Opaque(_) => false,
        other => other.size() == Some(0),
    }
}

fn unwrap<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let items = args.first().and_then(Value::items).ok_or(EvaluationError::NoSuchOverload)?;
    let mut out = Vec::new();
    for item in items {
        match item {
            Value::Optional(Some(inner)) => out.push((*inner).clone()),
            Value::Optional(None) => {}
            _ => return no_overload(),
        }
    }
    Ok(Value::list(out))
}

fn end<'a>(args: &[Value<'a>], at: fn(usize) -> usize) -> Outcome<Value<'a>> {
    let [list] = args else { return no_overload() };
    let len = list.items().ok_or(EvaluationError::NoSuchOverload)?.size_hint().0;
    Ok(list.item(at(len)).map_or(Value::Optional(None), Value::some))
}
