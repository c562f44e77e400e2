//! Operators, sizes and conversions of the language.

use std::cmp::Ordering;

use super::{OpaqueValue, no_overload, strings, time};
use crate::error::{EvaluationError, Outcome};
use crate::functions::Library;
use crate::operate;
use crate::value::Value;

pub(crate) static LIBRARY: Library = Library {
    declarations: "
        conditional: _?_:_(bool, A, A) -> A
        logical_and: _&&_(bool, bool) -> bool
        logical_or: _||_(bool, bool) -> bool
        logical_not: !_(bool) -> bool
        equals: _==_(A, A) -> bool
        not_equals: _!=_(A, A) -> bool
        add_int64: _+_(int, int) -> int
        add_uint64: _+_(uint, uint) -> uint
        add_double: _+_(double, double) -> double
        add_string: _+_(string, string) -> string
        add_bytes: _+_(bytes, bytes) -> bytes
        add_list: _+_(list(A), list(A)) -> list(A)
        add_timestamp_duration: _+_(timestamp, duration) -> timestamp
        add_duration_timestamp: _+_(duration, timestamp) -> timestamp
        add_duration_duration: _+_(duration, duration) -> duration
        subtract_int64: _-_(int, int) -> int
        subtract_uint64: _-_(uint, uint) -> uint
        subtract_double: _-_(double, double) -> double
        subtract_timestamp_timestamp: _-_(timestamp, timestamp) -> duration
        subtract_timestamp_duration: _-_(timestamp, duration) -> timestamp
        subtract_duration_duration: _-_(duration, duration) -> duration
        multiply_int64: _*_(int, int) -> int
        multiply_uint64: _*_(uint, uint) -> uint
        multiply_double: _*_(double, double) -> double
        divide_int64: _/_(int, int) -> int
        divide_uint64: _/_(uint, uint) -> uint
        divide_double: _/_(double, double) -> double
        modulo_int64: _%_(int, int) -> int
        modulo_uint64: _%_(uint, uint) -> uint
        negate_int64: -_(int) -> int
        negate_double: -_(double) -> double
        negate_duration: -_(duration) -> duration
        index_list: _[_](list(A), int) -> A
        index_map: _[_](map(A, B), A) -> B
        optional_list_index_int: _[_](optional(list(A)), int) -> optional(A)
        optional_map_index_value: _[_](optional(map(A, B)), A) -> optional(B)
        list_optindex_optional_int: _[?_](list(A), int) -> optional(A)
        optional_list_optindex_optional_int: _[?_](optional(list(A)), int) -> optional(A)
        map_optindex_optional_value: _[?_](map(A, B), A) -> optional(B)
        optional_map_optindex_optional_value: _[?_](optional(map(A, B)), A) -> optional(B)
        in_list: @in(A, list(A)) -> bool
        in_map: @in(A, map(A, B)) -> bool
        size_string: size(string) -> int
        size_bytes: size(bytes) -> int
        size_list: size(list(A)) -> int
        size_map: size(map(A, B)) -> int
        string_size: <string>.size() -> int
        bytes_size: <bytes>.size() -> int
        list_size: <list(A)>.size() -> int
        map_size: <map(A, B)>.size() -> int
        type: type(A) -> type(A)
        to_dyn: dyn(A) -> dyn
        bool_to_bool: bool(bool) -> bool
        string_to_bool: bool(string) -> bool
        bytes_to_bytes: bytes(bytes) -> bytes
        string_to_bytes: bytes(string) -> bytes
        double_to_double: double(double) -> double
        int64_to_double: double(int) -> double
        uint64_to_double: double(uint) -> double
        string_to_double: double(string) -> double
        int64_to_int64: int(int) -> int
        double_to_int64: int(double) -> int
        uint64_to_int64: int(uint) -> int
        duration_to_int64: int(duration) -> int
        timestamp_to_int64: int(timestamp) -> int
        string_to_int64: int(string) -> int
        uint64_to_uint64: uint(uint) -> uint
        double_to_uint64: uint(double) -> uint
        int64_to_uint64: uint(int) -> uint
        string_to_uint64: uint(string) -> uint
        string_to_string: string(string) -> string
        bool_to_string: string(bool) -> string
        bytes_to_string: string(bytes) -> string
        double_to_string: string(double) -> string
        int64_to_string: string(int) -> string
        uint64_to_string: string(uint) -> string
        duration_to_string: string(duration) -> string
        timestamp_to_string: string(timestamp) -> string
        ip_to_string: string(ip) -> string
        cidr_to_string: string(cidr) -> string
    ",
    functions: &[
        ("!_", operate::not),
        ("-_", operate::negate),
        ("_+_", operate::add),
        ("_-_", operate::subtract),
        ("_*_", operate::multiply),
        ("_/_", operate::divide),
        ("_%_", operate::remainder),
        ("_[_]", operate::index),
        ("_[?_]", operate::optional_index),
        ("@in", operate::contained),
        ("_==_", |args| equals(args, true)),
        ("_!=_", |args| equals(args, false)),
        ("_<_", |args| compare(args, Ordering::is_lt)),
        ("_<=_", |args| compare(args, Ordering::is_le)),
        ("_>_", |args| compare(args, Ordering::is_gt)),
        ("_>=_", |args| compare(args, Ordering::is_ge)),
        ("size", size),
        ("type", type_of),
        ("dyn", |args| args.first().cloned().ok_or(EvaluationError::NoSuchOverload)),
        ("bool", to_bool),
        ("bytes", to_bytes),
        ("double", to_double),
        ("int", to_int),
        ("uint", to_uint),
        ("string", to_string),
    ],
};

fn equals<'a>(args: &[Value<'a>], wanted: bool) -> Outcome<Value<'a>> {
    match args {
        [a, b] => Ok(Value::Bool(a.equals(b) == wanted)),
        _ => no_overload(),
    }
}

fn compare<'a>(args: &[Value<'a>], fits: fn(Ordering) -> bool) -> Outcome<Value<'a>> {
    match args {
        [a, b] => Ok(Value::Bool(a.order(b)?.is_some_and(fits))),
        _ => no_overload(),
    }
}

fn size<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::Opaque(_)] => no_overload(),
        [value] => {
            let size = value.size().ok_or(EvaluationError::NoSuchOverload)?;
            Ok(Value::Int(i64::try_from(size).unwrap_or(i64::MAX)))
        }
        _ => no_overload(),
    }
}

fn type_of<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [value] => Ok(Value::Type(value.type_name())),
        _ => no_overload(),
    }
}

fn unconvertible<T>(from: &Value<'_>, to: &str) -> Outcome<T> {
    let from = from.type_name();
    Err(EvaluationError::failed(format!("type conversion error from '{from}' to '{to}'")))
}

fn to_bool<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::Bool(value)] => Ok(Value::Bool(*value)),
        [value @ Value::String(text)] => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => unconvertible(value, "bool"),
        },
        _ => no_overload(),
    }
}

fn to_bytes<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::Bytes(bytes)] => Ok(Value::Bytes(bytes.clone())),
        [Value::String(text)] => Ok(Value::Bytes(text.as_bytes().into())),
        _ => no_overload(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "what the conversion is")]
fn to_double<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::Double(value)] => Ok(Value::Double(*value)),
        [Value::Int(value)] => Ok(Value::Double(*value as f64)),
        [Value::Uint(value)] => Ok(Value::Double(*value as f64)),
        [value @ Value::String(text)] => match text.parse() {
            Ok(number) => Ok(Value::Double(number)),
            Err(_) => unconvertible(value, "double"),
        },
        _ => no_overload(),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
fn to_int<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let overflow = EvaluationError::IntegerOverflow;
    match args {
        [Value::Int(value)] => Ok(Value::Int(*value)),
        [Value::Uint(value)] => i64::try_from(*value).map(Value::Int).map_err(|_| overflow),
        [Value::Double(value)] => {
            let fits =
                *value > -9_223_372_036_854_775_808.0 && *value < 9_223_372_036_854_775_808.0;
            if fits { Ok(Value::Int(*value as i64)) } else { Err(overflow) }
        }
        [Value::Duration(nanos)] => Ok(Value::Int(*nanos)),
        [Value::Timestamp(at)] => Ok(Value::Int(at.as_second())),
        [value @ Value::String(text)] => match text.parse() {
            Ok(number) => Ok(Value::Int(number)),
            Err(_) => unconvertible(value, "int"),
        },
        _ => no_overload(),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
fn to_uint<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let overflow = EvaluationError::UnsignedOverflow;
    match args {
        [Value::Uint(value)] => Ok(Value::Uint(*value)),
        [Value::Int(value)] => u64::try_from(*value).map(Value::Uint).map_err(|_| overflow),
        [Value::Double(value)] => {
            let fits = *value >= 0.0 && *value < 18_446_744_073_709_551_616.0;
            if fits { Ok(Value::Uint(*value as u64)) } else { Err(overflow) }
        }
        [value @ Value::String(text)] => match text.parse() {
            Ok(number) => Ok(Value::Uint(number)),
            Err(_) => unconvertible(value, "uint"),
        },
        _ => no_overload(),
    }
}

fn to_string<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let text = match args {
        [Value::String(text)] => return Ok(Value::String(text.clone())),
        [Value::Bool(value)] => value.to_string(),
        [Value::Int(value)] => value.to_string(),
        [Value::Uint(value)] => value.to_string(),
        [Value::Double(value)] => strings::double(*value),
        [Value::Duration(nanos)] => time::print_duration(*nanos),
        [Value::Timestamp(at)] => time::print_timestamp(*at),
        [Value::Bytes(bytes)] => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => {
                let text = "invalid UTF-8 in bytes, cannot convert to string";
                return Err(EvaluationError::failed(text));
            }
        },
        [Value::Opaque(value)] => match &**value {
            OpaqueValue::Ip(ip) => ip.to_string(),
            OpaqueValue::Cidr(cidr) => cidr.to_string(),
            _ => return no_overload(),
        },
        _ => return no_overload(),
    };
    Ok(Value::string(text))
}
