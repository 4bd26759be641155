//! How fast this device has been, so that the next estimate is this device's (DESIGN 8.2). Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::estimate::Estimate;

/// Runs that are remembered: enough that one busy hour does not decide, few enough that a new disk shows soon.
const REMEMBERED: usize = 8;
/// How much slower than the reference's machine a device may be of which nothing is known.
const UNKNOWN_LOCK: f64 = 2.0;
/// What a lock may take longer than the longest that was seen: too small an estimate disturbs somebody, too large a one asks.
const MARGIN: f64 = 1.25;
/// Rows a second of an online step beside an application, where nothing is known: a tenth of what two cores do.
const UNKNOWN_ROWS_PER_S: f64 = 20_000.0;
/// Shorter runs say more about their syncs than about their rows.
const TELLING_ROWS: u64 = 5_000;
/// A device is not believed to be further than this from what is known.
const SANE: std::ops::RangeInclusive<f64> = 0.05..=200.0;

/// What was seen of a device. Bounded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Speed {
    /// Time under the write lock ÷ what the reference's machine takes, newest last.
    locks: Vec<f64>,
    /// Rows a second of online migrations, gaps and all, newest last.
    rows_per_s: Vec<f64>,
}

impl Speed {
    /// As it was kept. What cannot be read is forgotten: an estimate is no promise.
    pub fn from_text(text: Option<&str>) -> Self {
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// As it is kept.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("numbers have a text")
    }

    /// Time under the write lock ÷ what the reference's machine takes: the longest of the runs that are remembered, and more.
    pub fn lock_factor(&self) -> f64 {
        self.locks.iter().copied().reduce(f64::max).map_or(UNKNOWN_LOCK, |longest| longest * MARGIN)
    }

    /// Rows a second of an online migration: the middle of the runs that are remembered.
    pub fn rows_per_s(&self) -> f64 {
        let mut seen = self.rows_per_s.clone();
        seen.sort_by(f64::total_cmp);
        seen.get(seen.len() / 2).copied().unwrap_or(UNKNOWN_ROWS_PER_S)
    }

    /// Remembers what a run of one migration came to: how long it held the write lock at most, and how long it took. Returns
    /// whether it said anything.
    pub fn saw(&mut self, estimate: &Estimate, longest_hold: Duration, took: Duration) -> bool {
        let push = |seen: &mut Vec<f64>, value: f64| {
            if value.is_finite() && value > 0.0 {
                seen.push(value);
                let forgotten = seen.len().saturating_sub(REMEMBERED);
                seen.drain(..forgotten);
            }
        };
        if estimate.rows < TELLING_ROWS {
            return false;
        }
        if estimate.online_rows == 0 {
            let factor = longest_hold.as_secs_f64() / estimate.reference_lock.as_secs_f64();
            push(&mut self.locks, factor.clamp(*SANE.start(), *SANE.end()));
        } else {
            push(&mut self.rows_per_s, estimate.online_rows as f64 / took.as_secs_f64());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn atomic(rows: u64, reference_lock: Duration) -> Estimate {
        Estimate { rows, reference_lock, ..Estimate::default() }
    }

    #[test]
    fn a_slow_device_is_believed_and_forgiven() {
        let mut speed = Speed::default();
        assert_eq!((speed.lock_factor(), speed.rows_per_s()), (UNKNOWN_LOCK, UNKNOWN_ROWS_PER_S));
        assert!(speed.saw(&atomic(100_000, 200 * MS), 1_600 * MS, 1_700 * MS));
        assert_eq!(speed.lock_factor(), 10.0);
        for _ in 0..REMEMBERED {
            speed.saw(&atomic(100_000, 200 * MS), 100 * MS, 110 * MS);
        }
        assert_eq!(speed.lock_factor(), 0.625, "what was long ago is forgotten");
        assert_eq!(Speed::from_text(Some(&speed.to_text())), speed);
        assert_eq!(Speed::from_text(Some("{")), Speed::default());
    }

    #[test]
    fn what_says_nothing_about_rows_is_not_remembered() {
        let mut speed = Speed::default();
        assert!(!speed.saw(&atomic(10, MS), 5_000 * MS, 5_000 * MS));
        speed.saw(&atomic(100_000, Duration::ZERO), 100 * MS, 100 * MS);
        assert!(speed.lock_factor() <= SANE.end() * MARGIN);
        let online = Estimate { rows: 90_000, online_rows: 90_000, ..Estimate::default() };
        for seconds in [3, 1, 9] {
            speed.saw(&online, 20 * MS, Duration::from_secs(seconds));
        }
        assert_eq!(speed.rows_per_s(), 30_000.0, "the middle one");
    }
}
