use super::number::{DIGITS, FRACTION, NOT_A_NUMBER};
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
    assert_eq!(decimal(max.as_bytes(), 38, 0), Ok(10i128.pow(38) - 1));
    assert_eq!(decimal(format!("{max}9").as_bytes(), 38, 0), Err(DIGITS));
    assert_eq!(decimal("10020030040050060070080090.01".as_bytes(), 38, 2), Ok(1_002_003_004_005_006_007_008_009_001));
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
    for value in [0, -1, 1, 1_767_225_600_000_000, 1_767_225_600_120_000, i64::MAX, i64::MIN, -62_198_755_200_000_001] {
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
