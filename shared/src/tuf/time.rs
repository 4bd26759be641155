//! When a document expires: whole seconds, UTC, written as the specification has it. Pure.

use std::{fmt, str::FromStr};

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A moment in whole seconds: `2030-01-01T00:00:00Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Time(DateTime<Utc>);

/// What a moment looks like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no moment in UTC such as \"2030-01-01T00:00:00Z\"")]
pub struct BadTime(String);

const FORM: &str = "%Y-%m-%dT%H:%M:%SZ";

impl Time {
    /// From milliseconds since 1970. What no calendar has becomes its end.
    pub fn from_ms(ms: i64) -> Self {
        Self(DateTime::from_timestamp(ms.div_euclid(1000), 0).unwrap_or(DateTime::<Utc>::MAX_UTC))
    }

    /// Milliseconds since 1970.
    pub fn as_ms(self) -> i64 {
        self.0.timestamp_millis()
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.format(FORM).fmt(f)
    }
}

impl FromStr for Time {
    type Err = BadTime;
    fn from_str(text: &str) -> Result<Self, BadTime> {
        let bad = |_| BadTime(text.chars().take(40).collect());
        NaiveDateTime::parse_from_str(text, FORM).map(|naive| Self(naive.and_utc())).map_err(bad)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_reads_back_what_it_wrote_and_parts_of_a_second_are_cut() {
        let check = |ms, text: &str| {
            assert_eq!(Time::from_ms(ms).to_string(), text);
            assert_eq!(text.parse::<Time>().unwrap().as_ms(), ms.div_euclid(1000) * 1000);
        };
        check(0, "1970-01-01T00:00:00Z");
        check(1_893_456_000_999, "2030-01-01T00:00:00Z");
        check(951_782_400_000, "2000-02-29T00:00:00Z");
        for bad in ["2030-01-01", "2030-02-30T00:00:00Z", "2030-01-01T00:00:00+01:00", ""] {
            assert!(bad.parse::<Time>().is_err(), "{bad}");
        }
    }
}
