//! The small languages inside scalars: durations, sizes, rates.

use std::time::Duration;

/// Reads `30s`, `200ms`, `5m`, `1h`, `30d`, or several in a row (`1h30m`).
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const HELP: &str = "write a number and a unit: ms, s, m, h, d (for example `30s`, `1h30m`)";
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(HELP.into());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(|| format!("`{text}` has no unit; {HELP}"))?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let number: u64 = number.parse().map_err(|_| HELP.to_owned())?;
        let millis = match unit.trim() {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            _ => return Err(HELP.into()),
        };
        let part = number.checked_mul(millis).ok_or("too long")?;
        total = total.checked_add(Duration::from_millis(part)).ok_or("too long")?;
        rest = tail;
    }
    // Ten thousand years: what is longer is a slip, and sums of it would overflow.
    if total > Duration::from_secs(10_000 * 366 * 86_400) {
        return Err("too long".into());
    }
    Ok(total)
}

/// Reads `64MiB`, `1GiB`, `512KiB`, `10MB`, `4096` (bytes).
pub(crate) fn size(text: &str) -> Result<u64, String> {
    const HELP: &str = "write a number and a unit: B, KiB, MiB, GiB, TiB, or KB, MB, GB, TB (for example `64MiB`)";
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| HELP.to_owned())?;
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(HELP.into()),
    };
    number.checked_mul(factor).ok_or_else(|| "too large".into())
}

/// Reads a share: `1.5%` or `0.015`.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    const HELP: &str = "write a share such as `1.5%` or `0.015`";
    let text = text.trim();
    let (number, factor) = text.strip_suffix('%').map_or((text, 1.0), |n| (n.trim_end(), 0.01));
    let value = number.parse::<f64>().map_err(|_| HELP.to_owned())? * factor;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(HELP.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_sizes_and_shares_are_read_or_explained() {
        assert_eq!(duration("30s").unwrap(), Duration::from_secs(30));
        assert_eq!(duration("1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(duration("200ms").unwrap(), Duration::from_millis(200));
        for bad in ["", "30", "s", "-1s", "1y", "99999999999999999999s", "18446744073709551615d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(size("64MiB").unwrap(), 64 << 20);
        assert_eq!(size("10 MB").unwrap(), 10_000_000);
        assert_eq!(size("4096").unwrap(), 4096);
        for bad in ["", "MiB", "64Mib", "-1", "99999999TiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!(share("1.5%").unwrap(), 0.015);
        assert!(share("150%").is_err());
    }
}
