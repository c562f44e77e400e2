//! Arithmetic.

use jiff::Timestamp;

use crate::error::{EvaluationError, Outcome};
use crate::value::{Text, Value, compare};

/// The integer that a double is exactly.
pub(crate) fn whole(value: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and is compared below")]
    let int = value as i64;
    #[expect(clippy::cast_precision_loss, reason = "only exact ones are equal")]
    let is_same = int as f64 == value && int != i64::MAX;
    is_same.then_some(int)
}

pub(crate) fn add<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let [a, b] = args else { return Err(EvaluationError::NoSuchOverload) };
    Ok(match (a, b) {
        (Value::Int(a), Value::Int(b)) => {
            Value::Int(a.checked_add(*b).ok_or(EvaluationError::IntegerOverflow)?)
        }
        (Value::Uint(a), Value::Uint(b)) => {
            Value::Uint(a.checked_add(*b).ok_or(EvaluationError::UnsignedOverflow)?)
        }
        (Value::Double(a), Value::Double(b)) => Value::Double(a + b),
        (Value::String(a), Value::String(b)) => Value::String(joined(a, b)),
        (Value::Bytes(a), Value::Bytes(b)) => Value::Bytes([&**a, &**b].concat().into()),
        (Value::Duration(a), Value::Duration(b)) => {
            Value::Duration(a.checked_add(*b).ok_or(EvaluationError::DurationOverflow)?)
        }
        (Value::Timestamp(at), Value::Duration(by))
        | (Value::Duration(by), Value::Timestamp(at)) => {
            Value::Timestamp(moved(*at, i128::from(*by))?)
        }
        _ => compare::concatenate(a, b).ok_or(EvaluationError::NoSuchOverload)?,
    })
}

fn joined<'a>(a: &Text<'_>, b: &Text<'_>) -> Text<'a> {
    let mut text = String::with_capacity(a.len() + b.len());
    text.push_str(a);
    text.push_str(b);
    Text::Shared(text.into())
}

/// A time that CEL has: years 1 to 9999.
fn moved(at: Timestamp, by: i128) -> Outcome<Timestamp> {
    let nanos = at.as_nanosecond().checked_add(by);
    let moved = nanos.and_then(|nanos| Timestamp::from_nanosecond(nanos).ok());
    moved.filter(|at| in_range(*at)).ok_or(EvaluationError::TimestampOverflow)
}

pub(crate) fn in_range(at: Timestamp) -> bool {
    (-62_135_596_800..=253_402_300_799).contains(&at.as_second())
}

pub(crate) fn subtract<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let [a, b] = args else { return Err(EvaluationError::NoSuchOverload) };
    Ok(match (a, b) {
        (Value::Int(a), Value::Int(b)) => {
            Value::Int(a.checked_sub(*b).ok_or(EvaluationError::IntegerOverflow)?)
        }
        (Value::Uint(a), Value::Uint(b)) => {
            Value::Uint(a.checked_sub(*b).ok_or(EvaluationError::UnsignedOverflow)?)
        }
        (Value::Double(a), Value::Double(b)) => Value::Double(a - b),
        (Value::Duration(a), Value::Duration(b)) => {
            Value::Duration(a.checked_sub(*b).ok_or(EvaluationError::DurationOverflow)?)
        }
        (Value::Timestamp(at), Value::Duration(by)) => {
            Value::Timestamp(moved(*at, -i128::from(*by))?)
        }
        (Value::Timestamp(a), Value::Timestamp(b)) => {
            let nanos = a.as_nanosecond() - b.as_nanosecond();
            Value::Duration(i64::try_from(nanos).map_err(|_| EvaluationError::DurationOverflow)?)
        }
        _ => return Err(EvaluationError::NoSuchOverload),
    })
}

pub(crate) fn multiply<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(match args {
        [Value::Int(a), Value::Int(b)] => {
            Value::Int(a.checked_mul(*b).ok_or(EvaluationError::IntegerOverflow)?)
        }
        [Value::Uint(a), Value::Uint(b)] => {
            Value::Uint(a.checked_mul(*b).ok_or(EvaluationError::UnsignedOverflow)?)
        }
        [Value::Double(a), Value::Double(b)] => Value::Double(a * b),
        _ => return Err(EvaluationError::NoSuchOverload),
    })
}

pub(crate) fn divide<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => {
            return Err(EvaluationError::DivisionByZero);
        }
        [Value::Int(a), Value::Int(b)] => {
            Value::Int(a.checked_div(*b).ok_or(EvaluationError::IntegerOverflow)?)
        }
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(a / b),
        [Value::Double(a), Value::Double(b)] => Value::Double(a / b),
        _ => return Err(EvaluationError::NoSuchOverload),
    })
}

pub(crate) fn remainder<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => {
            return Err(EvaluationError::ModulusByZero);
        }
        [Value::Int(a), Value::Int(b)] => {
            Value::Int(a.checked_rem(*b).ok_or(EvaluationError::IntegerOverflow)?)
        }
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(a % b),
        _ => return Err(EvaluationError::NoSuchOverload),
    })
}

pub(crate) fn negate<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(match args {
        [Value::Int(a)] => Value::Int(a.checked_neg().ok_or(EvaluationError::IntegerOverflow)?),
        [Value::Double(a)] => Value::Double(-a),
        [Value::Duration(a)] => {
            Value::Duration(a.checked_neg().ok_or(EvaluationError::DurationOverflow)?)
        }
        _ => return Err(EvaluationError::NoSuchOverload),
    })
}

pub(crate) fn not<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::Bool(value)] => Ok(Value::Bool(!value)),
        _ => Err(EvaluationError::NoSuchOverload),
    }
}

/// `list[at]` and `map[key]`.
pub(crate) fn index<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let [operand, at] = args else { return Err(EvaluationError::NoSuchOverload) };
    if let Value::Optional(inner) = operand {
        let found = match inner {
            Some(inner) => lookup(inner, at)?,
            None => None,
        };
        return Ok(found.map_or(Value::Optional(None), Value::some));
    }
    match lookup(operand, at)? {
        Some(value) => Ok(value),
        None => Err(match (operand.items(), position(at)) {
            (Some(_), Some(at)) => EvaluationError::IndexOutOfBounds(at),
            _ => EvaluationError::NoSuchKey(crate::library::strings::plain(at).into()),
        }),
    }
}

/// `list[?at]` and `map[?key]`.
pub(crate) fn optional_index<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let [operand, at] = args else { return Err(EvaluationError::NoSuchOverload) };
    let found = match operand {
        Value::Optional(None) => None,
        Value::Optional(Some(inner)) => lookup(inner, at)?,
        other => lookup(other, at)?,
    };
    Ok(found.map_or(Value::Optional(None), Value::some))
}

fn position(at: &Value<'_>) -> Option<i64> {
    match at {
        Value::Int(at) => Some(*at),
        Value::Uint(at) => i64::try_from(*at).ok(),
        Value::Double(at) => whole(*at),
        _ => None,
    }
}

fn lookup<'a>(operand: &Value<'a>, at: &Value<'_>) -> Outcome<Option<Value<'a>>> {
    match operand {
        Value::List(_) | Value::JsonList(..) => {
            let at = position(at).ok_or(EvaluationError::NoSuchOverload)?;
            Ok(usize::try_from(at).ok().and_then(|at| operand.item(at)))
        }
        Value::JsonMap(_, Some(declared)) if declared.fields().is_some() => match at {
            Value::String(name) => operand.field(&(&**name).into()),
            _ => Err(EvaluationError::NoSuchOverload),
        },
        _ => operand.entry(at),
    }
}

/// `item in list` and `key in map`.
pub(crate) fn contained<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let [item, container] = args else { return Err(EvaluationError::NoSuchOverload) };
    if let Some(mut items) = container.items() {
        return Ok(Value::Bool(items.any(|other| other.equals(item))));
    }
    Ok(Value::Bool(lookup(container, item)?.is_some()))
}
