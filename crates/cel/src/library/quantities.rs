//! Quantities.

use std::cmp::Ordering;

use meta::{Quantity, QuantityFormat};

use super::{OpaqueValue, no_overload, only_text};
use crate::error::{EvaluationError, Outcome};
use crate::functions::Library;
use crate::value::Value;

pub(crate) static LIBRARY: Library = Library {
    declarations: "
        string_to_quantity: quantity(string) -> quantity
        is_quantity_string: isQuantity(string) -> bool
        quantity_sign: <quantity>.sign() -> int
        quantity_is_greater_than: <quantity>.isGreaterThan(quantity) -> bool
        quantity_is_less_than: <quantity>.isLessThan(quantity) -> bool
        quantity_compare_to: <quantity>.compareTo(quantity) -> int
        quantity_get_float: <quantity>.asApproximateFloat() -> double
        quantity_get_int: <quantity>.asInteger() -> int
        quantity_is_integer: <quantity>.isInteger() -> bool
        quantity_add: <quantity>.add(quantity) -> quantity
        quantity_add_int: <quantity>.add(int) -> quantity
        quantity_sub: <quantity>.sub(quantity) -> quantity
        quantity_sub_int: <quantity>.sub(int) -> quantity
    ",
    functions: &[
        ("quantity", quantity),
        ("isQuantity", |args| Ok(Value::Bool(only_text(args)?.parse::<Quantity>().is_ok()))),
        ("sign", |args| Ok(Value::Int(i64::from(one(args)?.signum())))),
        ("isGreaterThan", |args| Ok(Value::Bool(compare(args)?.is_gt()))),
        ("isLessThan", |args| Ok(Value::Bool(compare(args)?.is_lt()))),
        ("compareTo", |args| Ok(Value::Int(compare(args)? as i64))),
        ("asApproximateFloat", |args| Ok(Value::Double(one(args)?.as_f64()))),
        ("isInteger", |args| Ok(Value::Bool(one(args)?.is_whole()))),
        ("asInteger", integer),
        ("add", |args| combine(args, |a, b| a + b)),
        ("sub", |args| combine(args, |a, b| a - b)),
    ],
};

fn quantity<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match only_text(args)?.parse() {
        Ok(quantity) => Ok(Value::opaque(OpaqueValue::Quantity(quantity))),
        Err(why) => Err(EvaluationError::failed(why.to_string())),
    }
}

fn of(value: Option<&Value<'_>>) -> Outcome<Quantity> {
    match value {
        Some(Value::Opaque(value)) => match &**value {
            OpaqueValue::Quantity(quantity) => Ok(*quantity),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

fn one(args: &[Value<'_>]) -> Outcome<Quantity> {
    of(args.first())
}

/// The order of two quantities or two versions.
fn compare(args: &[Value<'_>]) -> Outcome<Ordering> {
    if let [Value::Opaque(a), Value::Opaque(b)] = args
        && let (OpaqueValue::Semver(a), OpaqueValue::Semver(b)) = (&**a, &**b)
    {
        return Ok(a.compare(b));
    }
    Ok(of(args.first())?.cmp(&of(args.get(1))?))
}

fn integer<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let quantity = one(args)?;
    if quantity.is_whole() {
        Ok(Value::Int(quantity.value()))
    } else {
        Err(EvaluationError::failed("cannot convert value to integer"))
    }
}

fn combine<'a>(args: &[Value<'a>], with: fn(Quantity, Quantity) -> Quantity) -> Outcome<Value<'a>> {
    let other = match args.get(1) {
        Some(Value::Int(value)) => Quantity::new(*value, QuantityFormat::DecimalSi),
        other => of(other)?,
    };
    Ok(Value::opaque(OpaqueValue::Quantity(with(one(args)?, other))))
}
