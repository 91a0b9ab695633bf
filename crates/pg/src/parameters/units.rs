//! Values with units: `256MB`, `5min`.
//!
//! Follows `parse_int` and `convert_to_base_unit` in PostgreSQL's
//! `src/backend/utils/misc/guc.c`. Decimal numbers only; octal and hexadecimal ones, which it
//! also takes, are not read.

/// Bytes in a block, the unit of `shared_buffers` and other `GUC_UNIT_BLOCKS` parameters.
pub const BLOCK: u64 = 8192;
/// Bytes in a kibibyte, the unit of `work_mem` and other `GUC_UNIT_KB` parameters.
pub const KIBIBYTE: u64 = 1024;
/// Bytes in a mebibyte, the unit of `max_wal_size` and other `GUC_UNIT_MB` parameters.
pub const MEBIBYTE: u64 = 1 << 20;
/// Microseconds in a millisecond, the unit of `statement_timeout` and its like.
pub const MILLISECOND: u64 = 1_000;
/// Microseconds in a second, the unit of `archive_timeout` and its like.
pub const SECOND: u64 = 1_000_000;
/// Microseconds in a minute, the unit of `log_rotation_age`.
pub const MINUTE: u64 = 60_000_000;

/// A number without unit; none if it is not one.
pub fn parse_integer(text: &str) -> Option<i64> {
    text.trim().parse().ok()
}

/// A number that is not negative, and the unit behind it. The number is in millionths.
fn split(text: &str) -> Option<(u128, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let fits = whole.len() <= 20 && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    if !fits {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction = fraction.bytes().chain(std::iter::repeat(b'0')).take(6);
    let millionths = fraction.fold(0, |sum, digit| sum * 10 + u128::from(digit - b'0'));
    Some((whole * 1_000_000 + millionths, unit.trim_start()))
}

fn scale(millionths: u128, unit: u64) -> Option<u64> {
    u64::try_from((millionths * u128::from(unit) + 500_000) / 1_000_000).ok()
}

/// An amount of memory in bytes. `base` is the parameter's unit in bytes, for a number without
/// one. Units are told by case, as PostgreSQL does.
pub fn parse_memory(text: &str, base: u64) -> Option<u64> {
    let (number, unit) = split(text)?;
    let unit = match unit {
        "" => base,
        "B" => 1,
        "kB" => KIBIBYTE,
        "MB" => MEBIBYTE,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        _ => return None,
    };
    scale(number, unit)
}

/// A time in microseconds. `base` is the parameter's unit in microseconds.
pub fn parse_time(text: &str, base: u64) -> Option<u64> {
    let (number, unit) = split(text)?;
    let unit = match unit {
        "" => base,
        "us" => 1,
        "ms" => MILLISECOND,
        "s" => SECOND,
        "min" => MINUTE,
        "h" => 60 * MINUTE,
        "d" => 24 * 60 * MINUTE,
        _ => return None,
    };
    scale(number, unit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_postgresql_s() {
        assert_eq!(parse_memory("16384", BLOCK), Some(128 << 20));
        assert_eq!(parse_memory("1.5 GB", BLOCK), Some(3 << 29));
        assert_eq!(parse_memory("256MB", BLOCK), Some(256 << 20));
        assert_eq!(parse_memory("0", KIBIBYTE), Some(0));
        assert_eq!(parse_time("5min", SECOND), Some(300_000_000));
        assert_eq!(parse_time("0.5", SECOND), Some(500_000));
        for text in ["", ".", "1mb", "1 M", "-1", "1GBs", "1.2.3MB", "99999999999TB", "١MB"] {
            assert_eq!(parse_memory(text, BLOCK), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn whole_numbers_are_exact(number in 0u64..1 << 20) {
            prop_assert_eq!(parse_memory(&format!("{number}kB"), 1), Some(number * 1024));
            prop_assert_eq!(parse_time(&format!(" {number} ms"), 1), Some(number * 1000));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in "[0-9.]{0,50} ?[kMGTBs]{0,3}|.{0,20}", base: u64) {
            let _ = parse_memory(&text, base);
            let _ = parse_time(&text, base);
        }
    }
}
