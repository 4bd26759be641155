//! Lengths of time as people write them: `500ms`, `2s`, `10m`, `3h`, `7d`. Pure.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time in a manifest or a configuration. Whole milliseconds, at most 10 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

/// What a length of time looks like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a length of time: write a number and a unit, like \"500ms\", \"2s\", \"10m\", \"3h\" or \"7d\"")]
pub struct BadSpan(String);

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const LONGEST_MS: u64 = 3_650 * 86_400_000;

impl Span {
    /// From milliseconds.
    pub const fn from_millis(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }

    /// As the standard library has it.
    pub const fn get(self) -> Duration {
        self.0
    }

    /// In milliseconds.
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl FromStr for Span {
    type Err = BadSpan;
    fn from_str(text: &str) -> Result<Self, BadSpan> {
        let bad = || BadSpan(text.chars().take(40).collect());
        let trimmed = text.trim();
        let at = trimmed.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (number, unit) = trimmed.split_at(at);
        let factor = UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(bad)?.1;
        let ms = number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(bad)?;
        if ms > LONGEST_MS { Err(bad()) } else { Ok(Self::from_millis(ms)) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.as_millis();
        let (unit, factor) = UNITS.iter().rev().find(|(_, factor)| ms >= *factor && ms.is_multiple_of(*factor)).unwrap_or(&UNITS[0]);
        write!(f, "{}{unit}", ms / factor)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_reads_back_as_written() {
        for text in ["0ms", "500ms", "2s", "90s", "10m", "3h", "7d"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string().parse::<Span>(), text.parse::<Span>());
        }
        assert_eq!("2s".parse::<Span>().unwrap().to_string(), "2s");
        for bad in ["", "2", "s", "2 weeks", "-1s", "99999999999999999999s", "4000d"] {
            assert!(bad.parse::<Span>().is_err(), "{bad:?}");
        }
    }
}
