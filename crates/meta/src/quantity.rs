//! `resource.Quantity`: an exact decimal with a suffix.
//!
//! Held as nanos in 128 bits, which covers the range upstream guarantees (±2⁶³−1 with nine
//! decimals); what is larger is cut to it. Equality and order ignore the format.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;
/// The largest whole number a quantity may have.
const MAX: i128 = i64::MAX as i128 * NANO;

/// Which family of suffixes a quantity is printed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum QuantityFormat {
    /// `1e3`.
    DecimalExponent,
    /// `1Ki`.
    BinarySi,
    /// `1k`, `1m`.
    #[default]
    DecimalSi,
}

/// An exact number with a suffix, such as `500m` or `1Gi`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: QuantityFormat,
}

/// A text is not a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not of the form number and suffix.
    #[error(
        "quantities must match the regular expression \
         '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    /// The number cannot be read.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// There is no such suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// A whole number.
    pub fn new(value: i64, format: QuantityFormat) -> Self {
        Self { nanos: i128::from(value) * NANO, format }
    }

    /// A number of thousandths.
    pub fn from_milli(value: i64) -> Self {
        Self { nanos: i128::from(value) * (NANO / 1000), format: QuantityFormat::DecimalSi }
    }

    /// The format it is printed in.
    pub fn format(&self) -> QuantityFormat {
        self.format
    }

    /// The whole number, fractions rounded away from zero.
    pub fn value(&self) -> i64 {
        saturate(round_away(self.nanos, NANO))
    }

    /// Thousandths, smaller fractions rounded away from zero.
    pub fn milli_value(&self) -> i64 {
        saturate(round_away(self.nanos, NANO / 1000))
    }

    /// The same rounded away from zero to thousandths.
    #[must_use]
    pub fn rounded_to_milli(self) -> Self {
        let unit = NANO / 1000;
        Self { nanos: round_away(self.nanos, unit) * unit, format: self.format }
    }

    /// Whether it has no fraction.
    pub fn is_whole(&self) -> bool {
        self.nanos % NANO == 0
    }

    /// Whether it has no fraction finer than thousandths.
    pub fn is_milli(&self) -> bool {
        self.nanos % (NANO / 1000) == 0
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// −1, 0 or 1.
    pub fn signum(&self) -> i32 {
        match self.nanos.cmp(&0) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }
    }

    /// The nearest double.
    #[expect(clippy::cast_precision_loss, reason = "the caller asks for an approximation")]
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANO as f64
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Self;

    /// Keeps the format of the left side unless that is zero, as upstream does.
    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos), format }
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_sub(other.nanos), format }
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::default(), Add::add)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        // Below 1024 a binary suffix would only round.
        if self.format == QuantityFormat::BinarySi && self.nanos.abs() >= 1024 * NANO {
            return self.print_binary(f);
        }
        let (mut number, mut exponent) = (self.nanos, -9);
        while number % 1000 == 0 {
            number /= 1000;
            exponent += 3;
        }
        if self.format == QuantityFormat::DecimalExponent {
            return match exponent {
                0 => write!(f, "{number}"),
                _ => write!(f, "{number}e{exponent}"),
            };
        }
        // There is no suffix above exa.
        while exponent > 18 {
            number *= 1000;
            exponent -= 3;
        }
        let suffix = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        let at = usize::try_from(exponent / 3 + 3).unwrap_or(3);
        write!(f, "{number}{}", suffix[at])
    }
}

impl Quantity {
    fn print_binary(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut number = round_away(self.nanos, NANO);
        let mut exponent = 0;
        while number % 1024 == 0 && exponent < 6 {
            number /= 1024;
            exponent += 1;
        }
        write!(f, "{number}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][exponent])
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, unsigned) = match text.as_bytes().first() {
            None => return Err(QuantityError::Format),
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
        };
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let whole_len = digits(unsigned);
        let (whole, rest) = unsigned.split_at(whole_len);
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(after) => after.split_at(digits(after)),
            None => ("", rest),
        };
        check_suffix_form(suffix)?;
        if whole.is_empty() && fraction.is_empty() {
            return Err(QuantityError::Numeric);
        }
        let (base, exponent, format) = parse_suffix(suffix).ok_or(QuantityError::Suffix)?;
        let nanos = scale(whole, fraction, base, exponent);
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format })
    }
}

fn check_suffix_form(suffix: &str) -> Result<(), QuantityError> {
    let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let number = letters.strip_prefix(['-', '+']).unwrap_or(letters);
    if number.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(())
    } else {
        Err(QuantityError::Format)
    }
}

fn parse_suffix(suffix: &str) -> Option<(i128, i32, QuantityFormat)> {
    let decimal = |exponent| Some((10, exponent, QuantityFormat::DecimalSi));
    let binary = |exponent| Some((2, exponent, QuantityFormat::BinarySi));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            Some((10, exponent, QuantityFormat::DecimalExponent))
        }
    }
}

/// `whole.fraction × base^exponent` in nanos, rounded up, cut to the largest allowed number.
fn scale(whole: &str, fraction: &str, base: i128, exponent: i32) -> i128 {
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return 0;
    }
    // Decimals beyond these cannot be told apart after rounding up; keep one to round by.
    let mut shift = 9 - i32::try_from(fraction.len()).unwrap_or(i32::MAX);
    let mut factor = 1;
    if base == 10 {
        shift = shift.saturating_add(exponent);
    } else {
        factor = 1_i128 << exponent;
    }
    let kept = &digits[..digits.len().min(30)];
    let mut cut = i32::try_from(digits.len() - kept.len()).unwrap_or(i32::MAX);
    let mut number: i128 = kept.parse().unwrap_or(i128::MAX);
    if digits[kept.len()..].bytes().any(|byte| byte != b'0') && cut > 0 {
        number = number * 10 + 1;
        cut -= 1;
    }
    shift = shift.saturating_add(cut);
    let Some(mut number) = number.checked_mul(factor) else { return MAX };
    if shift >= 0 {
        let power = u32::try_from(shift).ok().and_then(|shift| 10_i128.checked_pow(shift));
        return power.and_then(|power| number.checked_mul(power)).map_or(MAX, |n| n.min(MAX));
    }
    match u32::try_from(-i64::from(shift)).ok().and_then(|shift| 10_i128.checked_pow(shift)) {
        Some(power) => number = round_away(number, power),
        None => number = 1,
    }
    number.min(MAX)
}

fn round_away(number: i128, unit: i128) -> i128 {
    let quotient = number / unit;
    match number % unit {
        0 => quotient,
        rest => quotient + rest.signum(),
    }
}

fn saturate(number: i128) -> i64 {
    i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_print_in_canonical_form() {
        for (text, expected) in [
            ("0", "0"),
            ("0Gi", "0"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            ("0.1", "100m"),
            ("100k", "100k"),
            ("1000k", "1M"),
            ("1.5Gi", "1536Mi"),
            ("0.5Mi", "512Ki"),
            ("1Ki", "1Ki"),
            ("512Mi", "512Mi"),
            ("1024Mi", "1Gi"),
            ("1e3", "1e3"),
            ("12E6", "12e6"),
            ("1e0", "1"),
            ("100", "100"),
            ("1000", "1k"),
            ("-1.5k", "-1500"),
            ("+5", "5"),
            ("0.0000000001", "1n"),
            ("512.5", "512500m"),
            ("1Ei", "1Ei"),
            (".5", "500m"),
            ("5.", "5"),
        ] {
            let quantity: Quantity = text.parse().unwrap();
            assert_eq!(quantity.to_string(), expected, "{text}");
            let again: Quantity = expected.parse().unwrap();
            assert_eq!(again, quantity, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for (text, error) in [
            ("", QuantityError::Format),
            ("abc", QuantityError::Format),
            ("1 Gi", QuantityError::Format),
            ("1.2.3", QuantityError::Format),
            ("1mm", QuantityError::Suffix),
            ("1kI", QuantityError::Format),
            ("-", QuantityError::Numeric),
        ] {
            assert_eq!(text.parse::<Quantity>().unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn values_round_up() {
        let quantity: Quantity = "1500m".parse().unwrap();
        assert_eq!((quantity.value(), quantity.milli_value()), (2, 1500));
        let tiny: Quantity = "1u".parse().unwrap();
        assert_eq!((tiny.value(), tiny.milli_value()), (1, 1));
        assert_eq!(tiny.rounded_to_milli().to_string(), "1m");
    }

    #[test]
    fn sums_keep_the_first_format() {
        let sum: Quantity = ["1Gi", "1G"].iter().map(|t| t.parse::<Quantity>().unwrap()).sum();
        assert_eq!(sum.to_string(), "2073741824");
    }
}
