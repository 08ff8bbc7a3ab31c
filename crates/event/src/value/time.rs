//! Points in time and days: RFC 3339 and back, over the proleptic Gregorian calendar.

use super::Fault;
use super::number::{plain_integer, scaled};

const MICROS_PER_DAY: i64 = 86_400_000_000;

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
fn civil_from_days(days: i64) -> (i64, i64, i64) {
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
