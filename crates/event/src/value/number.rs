//! Numbers: exact decimals and integers from their digits, doubles, and back to text.

use super::Fault;

pub(super) const NOT_A_NUMBER: Fault = Fault::Form("it is not a number");
pub(super) const DIGITS: Fault = Fault::Range("it has too many digits in front of the point");
pub(super) const FRACTION: Fault = Fault::Range("it has more digits behind the point than the type keeps");

/// The powers of ten that a decimal can be scaled by.
const POWERS: [i128; 39] = {
    let mut powers = [1i128; 39];
    let mut i = 1;
    while i < 39 {
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, within bounds")]
        {
            powers[i] = powers[i - 1] * 10;
        }
        i += 1;
    }
    powers
};

fn power(exponent: i64) -> Option<i128> {
    usize::try_from(exponent).ok().and_then(|e| POWERS.get(e).copied())
}

/// A number in JSON's notation, taken apart: its value is `digits * 10^exponent`, and the last digit is not zero.
struct Number {
    negative: bool,
    digits: u128,
    exponent: i64,
}

/// The digits that always fit a `u64`.
const SHORT: usize = 18;

fn number(text: &[u8]) -> Result<Number, Fault> {
    let (negative, mut rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mut digits = 0u128;
    let (mut zeros, mut fraction, mut count) = (0u32, 0i64, 0usize);
    let mut short = 0u64;
    let (mut point, mut any) = (false, false);
    while let Some((byte, tail)) = rest.split_first() {
        match byte {
            b'0'..=b'9' => {
                any = true;
                fraction += i64::from(point);
                let digit = u64::from(byte - b'0');
                if count < SHORT && zeros == 0 && digit != 0 {
                    short = short * 10 + digit;
                    count += 1;
                    digits = u128::from(short);
                } else if digit == 0 {
                    zeros += u32::from(digits != 0);
                } else {
                    let shift = power(i64::from(zeros) + 1).ok_or(DIGITS)?;
                    digits = digits.checked_mul(shift.unsigned_abs()).ok_or(DIGITS)?;
                    digits = digits.checked_add(u128::from(digit)).ok_or(DIGITS)?;
                    count += zeros as usize + 1;
                    zeros = 0;
                    short = u64::try_from(digits).unwrap_or(0);
                }
            }
            b'.' if !point && any => point = true,
            b'e' | b'E' if any => {
                let exponent = exponent(tail)?;
                return Ok(Number { negative, digits, exponent: i64::from(zeros) - fraction + exponent });
            }
            _ => return Err(NOT_A_NUMBER),
        }
        rest = tail;
    }
    if !any {
        return Err(NOT_A_NUMBER);
    }
    Ok(Number { negative, digits, exponent: i64::from(zeros) - fraction })
}

fn exponent(text: &[u8]) -> Result<i64, Fault> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() {
        return Err(NOT_A_NUMBER);
    }
    let mut value = 0i64;
    for byte in digits {
        if !byte.is_ascii_digit() {
            return Err(NOT_A_NUMBER);
        }
        // Saturated far beyond any decimal: the check of the range tells the rest.
        value = (value * 10 + i64::from(byte - b'0')).min(1_000_000_000);
    }
    Ok(if negative { -value } else { value })
}

/// An exact decimal of `precision` digits, `scale` of them behind the point, as its unscaled integer. Zeros behind
/// the scale are no loss; other digits are an error.
pub(crate) fn decimal(text: &[u8], precision: u8, scale: u8) -> Result<i128, Fault> {
    scaled(text, precision, scale, false)
}

/// As [`decimal`]; with `truncate`, digits behind the scale are cut off.
pub(super) fn scaled(text: &[u8], precision: u8, scale: u8, truncate: bool) -> Result<i128, Fault> {
    let number = number(text)?;
    if number.digits == 0 {
        return Ok(0);
    }
    let shift = number.exponent + i64::from(scale);
    let digits = i128::try_from(number.digits).map_err(|_| DIGITS)?;
    let value = if shift >= 0 {
        power(shift).and_then(|p| digits.checked_mul(p)).ok_or(DIGITS)?
    } else if truncate {
        power(-shift).map_or(0, |p| digits / p)
    } else {
        return Err(FRACTION);
    };
    if power(i64::from(precision)).is_some_and(|limit| value >= limit) {
        return Err(DIGITS);
    }
    Ok(if number.negative { -value } else { value })
}

/// A 64-bit integer. `1.0` and `1e3` are integers, `1.5` is not.
pub(crate) fn bigint(text: &[u8]) -> Result<i64, Fault> {
    if text.len() <= SHORT
        && let Some(value) = plain_integer(text)
    {
        return Ok(value);
    }
    match decimal(text, 38, 0) {
        Ok(value) => i64::try_from(value).map_err(|_| Fault::Range("it is outside -2^63 to 2^63 - 1")),
        Err(FRACTION) => Err(Fault::Form("it is not an integer")),
        Err(DIGITS) => Err(Fault::Range("it is outside -2^63 to 2^63 - 1")),
        Err(fault) => Err(fault),
    }
}

/// A 32-bit integer, as [`bigint`].
pub(crate) fn int(text: &[u8]) -> Result<i32, Fault> {
    const RANGE: Fault = Fault::Range("it is outside -2147483648 to 2147483647");
    match bigint(text) {
        Ok(value) => i32::try_from(value).map_err(|_| RANGE),
        Err(Fault::Range(_)) => Err(RANGE),
        Err(fault) => Err(fault),
    }
}

/// A short integer without point or exponent.
pub(super) fn plain_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value = 0i64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(if negative { -value } else { value })
}

/// The nearest 64-bit floating point number; one that is too large is an error.
pub(crate) fn double(text: &[u8]) -> Result<f64, Fault> {
    // JSON's notation only: Rust also reads `inf` and `NaN`.
    if !text.last().is_some_and(u8::is_ascii_digit) {
        return Err(NOT_A_NUMBER);
    }
    let value = std::str::from_utf8(text).ok().and_then(|t| t.parse::<f64>().ok()).ok_or(NOT_A_NUMBER)?;
    if value.is_finite() { Ok(value) } else { Err(Fault::Range("it is too large for a double")) }
}

/// Appends a decimal with all digits of its scale, as `-12.50`.
pub(crate) fn write_decimal(value: i128, scale: u8, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    let magnitude = value.unsigned_abs();
    let mut buffer = itoa::Buffer::new();
    // A `u128` takes four times as long to print, and most decimals are short.
    let digits = match u64::try_from(magnitude) {
        Ok(short) => buffer.format(short),
        Err(_) => buffer.format(magnitude),
    };
    let scale = usize::from(scale);
    match digits.len().checked_sub(scale).filter(|front| *front > 0) {
        Some(front) => {
            let (front, back) = digits.split_at_checked(front).unwrap_or((digits, ""));
            out.extend_from_slice(front.as_bytes());
            if scale > 0 {
                out.push(b'.');
                out.extend_from_slice(back.as_bytes());
            }
        }
        None => {
            out.extend_from_slice(b"0.");
            out.extend(std::iter::repeat_n(b'0', scale - digits.len()));
            out.extend_from_slice(digits.as_bytes());
        }
    }
}

/// Appends the shortest text that reads back as `value`; `false` where JSON has no text for it (NaN, infinity).
pub(crate) fn write_double(value: f64, out: &mut Vec<u8>) -> bool {
    if value.is_finite() {
        out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
    }
    value.is_finite()
}
