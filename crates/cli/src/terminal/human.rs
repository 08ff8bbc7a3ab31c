//! Numbers as people read them.

/// `1234567` as `1,234,567`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Events per second: exact enough to compare, short enough to stand still.
pub(crate) fn rate(per_s: f64) -> String {
    if !per_s.is_finite() || per_s <= 0.0 {
        return "0".into();
    }
    if per_s < 9.95 { format!("{per_s:.1}") } else { count(per_s.round() as u64) }
}

/// Bytes in the unit that leaves at most four digits.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// Seconds as `0.42 s`, `12.3 s`, `2m 05s`, `3h 07m`, `4d 02h`.
pub(crate) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "-".into();
    }
    let whole = seconds as u64;
    match whole {
        0..=9 => format!("{seconds:.2} s"),
        10..=59 => format!("{seconds:.1} s"),
        60..=3599 => format!("{}m {:02}s", whole / 60, whole % 60),
        3600..=86_399 => format!("{}h {:02}m", whole / 3600, whole % 3600 / 60),
        _ => format!("{}d {:02}h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// Milliseconds with as many digits as mean something.
pub(crate) fn millis(ms: f64) -> String {
    match ms {
        ms if !ms.is_finite() => "-".into(),
        ms if ms < 10.0 => format!("{ms:.1}"),
        ms => count(ms.round() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([count(0), count(999), count(1000), count(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([rate(0.0), rate(0.25), rate(9.96), rate(20_004.4)], ["0", "0.2", "10", "20,004"]);
        assert_eq!(
            [bytes(10), bytes(1536), bytes(64 << 20), bytes(u64::MAX)],
            ["10 B", "1.5 KiB", "64 MiB", "16384 PiB"]
        );
        assert_eq!([duration(0.4), duration(12.34), duration(125.0)], ["0.40 s", "12.3 s", "2m 05s"]);
        assert_eq!([duration(11_220.0), duration(360_000.0)], ["3h 07m", "4d 04h"]);
        assert_eq!([millis(0.25), millis(12.6)], ["0.2", "13"]);
    }
}
