//! The number or time stamp at the front of a migration's name. Pure.

use chrono::{NaiveDate, NaiveDateTime};

/// Most digits of a number: what fits in 128 bits.
const MAX_DIGITS: usize = 38;

/// The number that `stem` begins with, and what follows its separator: `0002_add` gives 2 and `add`. `None` without
/// digits, without a separator after them, or with more digits than any tool writes.
pub(super) fn number(stem: &str) -> Option<(u128, &str)> {
    let digits = stem.bytes().take_while(u8::is_ascii_digit).count();
    let rest = &stem[digits..];
    if digits == 0 || digits > MAX_DIGITS || !rest.is_empty() && !rest.starts_with(['_', '-', '.', ' ']) {
        return None;
    }
    Some((stem[..digits].parse().ok()?, rest.get(1..).unwrap_or_default()))
}

/// Like [`number`], for stamps with dashes: `2018-01-13-205510_create` gives 20180113205510 and `create`.
pub(super) fn dashed_number(stem: &str) -> Option<(u128, &str)> {
    let stamp_end = stem.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(stem.len());
    let stamp = stem[..stamp_end].trim_end_matches('-');
    let digits: String = stamp.chars().filter(char::is_ascii_digit).collect();
    // Fewer digits than a date: the dash is a separator, as in `01-name`.
    if !stamp.contains('-') || digits.len() < 8 || digits.len() > MAX_DIGITS {
        return number(stem);
    }
    Some((digits.parse().ok()?, stem[stamp.len()..].trim_start_matches(['_', '-', '.', ' '])))
}

/// A stamp as a number that compares like its digits as text: diesel and Prisma sort `20240313` after `20240306170000`,
/// and projects have both. Counters, with their leading zeros, stay what they are.
pub(super) fn aligned(number: u128) -> u128 {
    const DATE: u128 = 10_000_000;
    const FULL: u128 = 10_000_000_000_000_000;
    let mut aligned = number;
    while (DATE..FULL).contains(&aligned) {
        aligned *= 10;
    }
    aligned
}

/// Whether a stem begins with a full time stamp, as generators write it.
pub(super) fn is_stamp(stem: &str) -> bool {
    let digits = stem.bytes().take_while(|b| b.is_ascii_digit() || *b == b'-').filter(u8::is_ascii_digit).count();
    digits >= 10
}

/// Milliseconds since 1970 that a name carries: `20240131120000_x`, `2024-01-31-120000_x`, `1500360784_x` (seconds),
/// `1700000000000-X` and TypeORM's `X1700000000000`.
pub(super) fn timestamp_ms(name: &str) -> Option<i64> {
    let front: String = name.bytes().take_while(|b| b.is_ascii_digit() || *b == b'-').filter(u8::is_ascii_digit).map(char::from).collect();
    let back = &name[name.trim_end_matches(|c: char| c.is_ascii_digit()).len()..];
    if let Some(ms) = stamp_ms(&front) {
        Some(ms)
    } else if back.len() == 13 {
        stamp_ms(back)
    } else {
        None
    }
}

fn stamp_ms(digits: &str) -> Option<i64> {
    // 2001 to 2100: what a tool can have written.
    const SENSIBLE: std::ops::Range<i64> = 978_307_200_000..4_102_444_800_000;
    let ms = match digits.len() {
        8 => NaiveDate::parse_from_str(digits, "%Y%m%d").ok()?.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis(),
        10 => digits.parse::<i64>().ok()?.checked_mul(1000)?,
        12 => NaiveDateTime::parse_from_str(digits, "%Y%m%d%H%M").ok()?.and_utc().timestamp_millis(),
        13 => digits.parse().ok()?,
        14 | 17 => {
            let seconds = NaiveDateTime::parse_from_str(&digits[..14], "%Y%m%d%H%M%S").ok()?.and_utc().timestamp_millis();
            seconds + digits[14..].parse::<i64>().unwrap_or(0)
        }
        _ => return None,
    };
    SENSIBLE.contains(&ms).then_some(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_with_what_follows_them() {
        for (stem, want) in [
            ("0002_add", Some((2, "add"))),
            ("10-x", Some((10, "x"))),
            ("7", Some((7, ""))),
            ("001.init", Some((1, "init"))),
            ("2nd", None),
            ("name", None),
            ("", None),
            ("999999999999999999999999999999999999999999_x", None),
        ] {
            assert_eq!(number(stem), want, "{stem}");
        }
        for (stem, want) in [
            ("2018-01-13-205510_create", Some((20180113205510, "create"))),
            ("00000000000000_setup", Some((0, "setup"))),
            ("01-name", Some((1, "name"))),
            ("2018-01-13", Some((20180113, ""))),
        ] {
            assert_eq!(dashed_number(stem), want, "{stem}");
        }
    }

    #[test]
    fn stamps_of_different_lengths_compare_like_text_and_counters_like_numbers() {
        let aligned = |stem: &str| aligned(dashed_number(stem).unwrap().0);
        assert!(aligned("2024-03-06-170000_a") < aligned("2024-03-13_170000_b"));
        assert!(aligned("2024-03-13_170000_b") < aligned("2024-06-05-131359_c"));
        assert!(aligned("2_a") < aligned("10_b") && aligned("10_b") < aligned("20240101_c"));
        assert!(aligned("00000000000000_setup") < aligned("2018-01-13-205510_a"));
    }

    #[test]
    fn a_time_in_a_name_is_found_and_other_numbers_are_not_taken_for_one() {
        for (name, want) in [
            ("20240131120000_x", Some(1_706_702_400_000)),
            ("2024-01-31-120000_x", Some(1_706_702_400_000)),
            ("20240131_x", Some(1_706_659_200_000)),
            ("202401311200_x", Some(1_706_702_400_000)),
            ("1500360784_x", Some(1_500_360_784_000)),
            ("1700000000000-Init", Some(1_700_000_000_000)),
            ("Init1700000000000", Some(1_700_000_000_000)),
            ("00000000000000_setup", None),
            ("20241399999999_x", None),
            ("0001_init", None),
            ("0001_v2", None),
        ] {
            assert_eq!(timestamp_ms(name), want, "{name}");
        }
    }
}
