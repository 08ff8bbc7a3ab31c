//! Parsers of single values, shared by JSON and CSV: the same text means the same value in both.
//!
//! Every parser takes the bytes of one number or one text and is exact: what does not fit is an error, never a
//! rounded or wrapped value. The one exception is said in [`timestamp`].

use crate::column_type::ColumnType;

/// Why a text is not a value of a column's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The value's kind or form is not that of the type.
    Form(&'static str),
    /// The value lies outside the type's range.
    Range(&'static str),
}

const NOT_A_NUMBER: Fault = Fault::Form("it is not a number");
const DIGITS: Fault = Fault::Range("it has too many digits in front of the point");
const FRACTION: Fault = Fault::Range("it has more digits behind the point than the type keeps");
const MICROS_PER_DAY: i64 = 86_400_000_000;

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

fn scaled(text: &[u8], precision: u8, scale: u8, truncate: bool) -> Result<i128, Fault> {
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

fn plain_integer(text: &[u8]) -> Option<i64> {
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

/// Microseconds since 1970 from an RFC 3339 text with any offset, or from epoch milliseconds (an exact decimal).
///
/// Digits finer than a microsecond are cut off, not refused: clocks that report nanoseconds are common, and no
/// source can be asked to stop.
pub(crate) fn timestamp_micros(milliseconds: &[u8]) -> Result<i64, Fault> {
    let value = scaled(milliseconds, 38, 3, true)?;
    i64::try_from(value).map_err(|_| Fault::Range("it is outside the years that a timestamp reaches"))
}

/// See [`timestamp_micros`]: the same from RFC 3339 text such as `2026-01-31T23:59:59.5+01:00`. A year outside 0 to
/// 9999 has a sign and four to six digits.
pub(crate) fn timestamp(text: &[u8]) -> Result<i64, Fault> {
    const FORM: Fault = Fault::Form("a timestamp is written as 2026-01-31T23:59:59Z, with any offset");
    const OFFSET: Fault = Fault::Form("it lacks an offset such as Z or +01:00");
    const RANGE: Fault = Fault::Range("it is outside the years that a timestamp reaches");
    let (days, rest) = date_prefix(text).ok_or(FORM)?;
    let [b'T' | b't' | b' ', h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = rest else {
        return Err(FORM);
    };
    let (hour, minute, second) = (two(*h1, *h2), two(*m1, *m2), two(*s1, *s2));
    let (Some(hour), Some(minute), Some(second)) = (hour, minute, second) else {
        return Err(FORM);
    };
    // A leap second counts as the first of the next minute, as in POSIX time.
    if hour > 23 || minute > 59 || second > 60 {
        return Err(Fault::Range("there is no such time of day"));
    }
    let (fraction, rest) = match rest {
        [b'.', rest @ ..] => fraction_micros(rest).ok_or(FORM)?,
        _ => (0, rest),
    };
    let offset = match rest {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (Some(h), Some(m)) = (two(*h1, *h2), two(*m1, *m2)) else { return Err(FORM) };
            if h > 23 || m > 59 {
                return Err(Fault::Range("there is no such offset"));
            }
            let minutes = h * 60 + m;
            if *sign == b'-' { -minutes } else { minutes }
        }
        [] => return Err(OFFSET),
        _ => return Err(FORM),
    };
    let of_day = ((hour * 60 + minute - offset) * 60 + second) * 1_000_000 + fraction;
    // The two parts may overflow one after the other although their sum does not.
    i64::try_from(i128::from(days) * i128::from(MICROS_PER_DAY) + i128::from(of_day)).map_err(|_| RANGE)
}

/// Days since 1970 from `YYYY-MM-DD`; a year outside 0 to 9999 has a sign and more digits.
pub(crate) fn date(text: &[u8]) -> Result<i32, Fault> {
    match date_prefix(text) {
        Some((days, [])) => {
            i32::try_from(days).map_err(|_| Fault::Range("it is outside the years that a date reaches"))
        }
        _ => Err(Fault::Form("a date is written as 2026-01-31 and must exist")),
    }
}

fn two(a: u8, b: u8) -> Option<i64> {
    let (a, b) = (a.wrapping_sub(b'0'), b.wrapping_sub(b'0'));
    (a <= 9 && b <= 9).then(|| i64::from(a) * 10 + i64::from(b))
}

/// Up to six digits count, all are read.
fn fraction_micros(text: &[u8]) -> Option<(i64, &[u8])> {
    let len = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(len).filter(|(d, _)| !d.is_empty())?;
    let micros = (0..6).fold(0i64, |sum, i| sum * 10 + i64::from(digits.get(i).map_or(0, |d| d - b'0')));
    Some((micros, rest))
}

fn date_prefix(text: &[u8]) -> Option<(i64, &[u8])> {
    let (year, rest) = match text {
        [sign @ (b'+' | b'-'), rest @ ..] => {
            let len = rest.iter().position(|b| !b.is_ascii_digit())?;
            let (digits, rest) = rest.split_at_checked(len).filter(|_| (4..=7).contains(&len))?;
            let year = plain_integer(digits)?;
            (if *sign == b'-' { -year } else { year }, rest)
        }
        [a, b, c, d, rest @ ..] => (two(*a, *b)? * 100 + two(*c, *d)?, rest),
        _ => return None,
    };
    let [b'-', m1, m2, b'-', d1, d2, rest @ ..] = rest else { return None };
    let (month, day) = (two(*m1, *m2)?, two(*d1, *d2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => return None,
    };
    (1..=last).contains(&day).then(|| (days_from_civil(year, month, day), rest))
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date
/// algorithms": years start in March, eras of 400 years).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The reverse of [`days_from_civil`]: (year, month, day).
pub(crate) fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = (shifted + 2) % 12 + 1;
    (year_of_era + era * 400 + i64::from(month <= 2), month, of_year - (153 * shifted + 2) / 5 + 1)
}

/// Appends `YYYY-MM-DD`.
pub(crate) fn write_date(days: i64, out: &mut Vec<u8>) {
    let (year, month, day) = civil_from_days(days);
    if (0..=9999).contains(&year) {
        write_two(year / 100, out);
        write_two(year % 100, out);
    } else {
        out.push(if year < 0 { b'-' } else { b'+' });
        let year = year.abs();
        out.extend_from_slice(if year < 1000 { b"0000".get(year.to_string().len()..).unwrap_or(b"") } else { b"" });
        out.extend_from_slice(itoa::Buffer::new().format(year).as_bytes());
    }
    out.push(b'-');
    write_two(month, out);
    out.push(b'-');
    write_two(day, out);
}

/// Appends RFC 3339 in UTC with `Z`; milliseconds or microseconds only where they are not zero.
pub(crate) fn write_timestamp(micros: i64, out: &mut Vec<u8>) {
    write_date(micros.div_euclid(MICROS_PER_DAY), out);
    let of_day = micros.rem_euclid(MICROS_PER_DAY);
    let (seconds, fraction) = (of_day / 1_000_000, of_day % 1_000_000);
    out.push(b'T');
    write_two(seconds / 3600, out);
    out.push(b':');
    write_two(seconds / 60 % 60, out);
    out.push(b':');
    write_two(seconds % 60, out);
    if fraction != 0 {
        out.push(b'.');
        write_two(fraction / 10_000, out);
        let rest = fraction % 10_000;
        out.push(b'0' + (rest / 1000) as u8);
        if rest % 1000 != 0 {
            write_two(rest / 10 % 100, out);
            out.push(b'0' + (rest % 10) as u8);
        }
    }
    out.push(b'Z');
}

fn write_two(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'0' + (value / 10 % 10) as u8, b'0' + (value % 10) as u8]);
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

/// The longest part of a value that a message quotes, in bytes.
const QUOTED_BYTES_MAX: usize = 40;

/// The start of a value for an error message: printable, at most [`QUOTED_BYTES_MAX`] bytes and a mark.
pub(crate) fn quoted(text: &[u8]) -> String {
    let head = text.get(..QUOTED_BYTES_MAX).unwrap_or(text);
    let mut shown: String =
        String::from_utf8_lossy(head).chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    if head.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// The words for a type in an error message: its text, cut where a struct is long.
pub(crate) fn type_name(kind: &ColumnType) -> String {
    quoted(kind.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_is_exact_or_refused() {
        for (text, expect) in [
            ("12.34", Ok(1234)),
            ("-0.5", Ok(-50)),
            ("1e3", Ok(100_000)),
            ("1.5E-1", Ok(15)),
            ("0.1200000", Ok(12)),
            ("0", Ok(0)),
            ("-0.00", Ok(0)),
            ("0e999999999999", Ok(0)),
            ("99999.99", Ok(9_999_999)),
            ("100000", Err(DIGITS)),
            ("1e400", Err(DIGITS)),
            ("0.001", Err(FRACTION)),
            ("1e-400", Err(FRACTION)),
            ("", Err(NOT_A_NUMBER)),
            ("-", Err(NOT_A_NUMBER)),
            (".5", Err(NOT_A_NUMBER)),
            ("1e", Err(NOT_A_NUMBER)),
            ("1..2", Err(NOT_A_NUMBER)),
            ("1 ", Err(NOT_A_NUMBER)),
            ("NaN", Err(NOT_A_NUMBER)),
        ] {
            assert_eq!(decimal(text.as_bytes(), 7, 2), expect, "{text}");
        }
        let max = "9".repeat(38);
        assert_eq!(decimal(max.as_bytes(), 38, 0), Ok(POWERS[38 - 1] * 10 - 1));
        assert_eq!(decimal(format!("{max}9").as_bytes(), 38, 0), Err(DIGITS));
        assert_eq!(
            decimal("10020030040050060070080090.01".as_bytes(), 38, 2),
            Ok(1_002_003_004_005_006_007_008_009_001)
        );
        assert_eq!(decimal(format!("1{}", "0".repeat(60)).as_bytes(), 38, 0), Err(DIGITS));
        assert_eq!(decimal(format!("0.{}1", "0".repeat(37)).as_bytes(), 38, 38), Ok(1));
    }

    #[test]
    fn an_integer_never_wraps() {
        assert_eq!(int(b"2147483647"), Ok(i32::MAX));
        assert_eq!(int(b"-2147483648.0"), Ok(i32::MIN));
        assert!(matches!(int(b"2147483648"), Err(Fault::Range(_))));
        assert_eq!(bigint(b"-9223372036854775808"), Ok(i64::MIN));
        assert!(matches!(bigint(b"9223372036854775808"), Err(Fault::Range(_))));
        assert!(matches!(bigint(b"1.5"), Err(Fault::Form(_))));
        assert!(matches!(int(b"1e99"), Err(Fault::Range(_))));
        assert_eq!(int(b"1.20e1"), Ok(12));
    }

    #[test]
    fn a_timestamp_reads_any_offset_and_cuts_nanoseconds() {
        let base = 1_767_225_600_000_000; // 2026-01-01T00:00:00Z
        for (text, expect) in [
            ("2026-01-01T00:00:00Z", base),
            ("2026-01-01t01:30:00.5+01:30", base + 500_000),
            ("2025-12-31 19:00:00.123456789-05:00", base + 123_456),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000_000),
            ("1969-12-31T23:59:59.999999Z", -1),
            ("0000-02-29T00:00:00Z", -62_162_121_600_000_000),
        ] {
            assert_eq!(timestamp(text.as_bytes()), Ok(expect), "{text}");
        }
        for bad in [
            "2026-01-01T00:00:00",
            "2026-02-29T00:00:00Z",
            "2026-01-01",
            "2026-01-01T24:00:00Z",
            "x",
            "",
            "2026-01-01T00:00:00.Z",
            "2026-13-01T00:00:00Z",
            "+99999-01-01",
            "+999999-01-01T00:00:00Z",
        ] {
            assert!(timestamp(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(timestamp_micros(b"1767225600000.25"), Ok(base + 250));
        assert_eq!(timestamp_micros(b"-1"), Ok(-1000));
        assert!(timestamp_micros(b"1e30").is_err());
    }

    #[test]
    fn calendar_texts_read_back() {
        for value in
            [0, -1, 1, 1_767_225_600_000_000, 1_767_225_600_120_000, i64::MAX, i64::MIN, -62_198_755_200_000_001]
        {
            let mut text = Vec::new();
            write_timestamp(value, &mut text);
            assert_eq!(timestamp(&text), Ok(value), "{}", String::from_utf8_lossy(&text));
        }
        for days in [0, -1, 20_000, i32::MAX, i32::MIN, -719_529, 2_932_897] {
            let mut text = Vec::new();
            write_date(days.into(), &mut text);
            assert_eq!(date(&text), Ok(days), "{}", String::from_utf8_lossy(&text));
        }
    }
}
