//! How many rows a chunk takes, so that the write lock is held for about 2 ms (reference 2.8). Pure.

use std::time::Duration;

/// What a chunk's work aims at.
const TARGET: Duration = Duration::from_millis(2);
/// A disk whose COMMIT takes long gets chunks whose work takes as long, up to this: the hold stays under 20 ms.
const LONGEST: Duration = Duration::from_millis(4);
/// Rows of the first chunk.
const FIRST: f64 = 50.0;
/// What a chunk may grow by at a time.
const GROWTH: f64 = 2.0;
/// Weight of the newest measurement.
const NEWEST: f64 = 0.3;

/// Finds the size from what the last chunks took.
#[derive(Clone, Debug)]
pub struct Size {
    aim: Duration,
    rows: f64,
    rows_a_second: Option<f64>,
    cap: Option<u32>,
    fixed: bool,
}

impl Size {
    /// `cap`: the publisher's `batch`.
    pub fn new(cap: Option<u32>) -> Self {
        Self { aim: TARGET, rows: FIRST, rows_a_second: None, cap, fixed: false }
    }

    /// What a chunk's work aims at from now on, where that is not about 2 ms.
    pub fn aim_at(&mut self, aim: Duration) {
        self.aim = aim;
    }

    /// Always as many, however long they take.
    pub fn fixed(rows: u32) -> Self {
        Self { aim: TARGET, rows: rows.into(), rows_a_second: None, cap: None, fixed: true }
    }

    /// Rows of the next chunk.
    pub fn rows(&self) -> u32 {
        (self.rows as u32).clamp(1, self.cap.unwrap_or(u32::MAX).max(1))
    }

    /// Rows that fit into `time`, going by the last chunks; whatever the publisher's `batch` is.
    pub fn rows_in(&self, time: Duration) -> u32 {
        self.rows_a_second.map_or(0, |rate| (rate * time.as_secs_f64()) as u32)
    }

    /// A chunk of `rows` took `work`, and its COMMIT `commit`.
    pub fn took(&mut self, rows: u64, work: Duration, commit: Duration) {
        if rows == 0 || self.fixed {
            return;
        }
        let rate = rows as f64 / work.as_secs_f64().max(1e-6);
        let known = self.rows_a_second.map_or(rate, |known| known + NEWEST * (rate - known));
        // One slow chunk counts at once: the application waits for it.
        let known = known.min(rate * 2.0);
        self.rows_a_second = Some(known);
        let aim = commit.clamp(self.aim, self.aim.max(LONGEST)).as_secs_f64();
        self.rows = (known * aim).clamp(1.0, self.rows * GROWTH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a device takes: a fixed time and one for each row.
    fn settle(fixed_us: u64, row_us: f64, commit_ms: u64) -> (u32, Duration) {
        let mut size = Size::new(None);
        let mut work = Duration::ZERO;
        for _ in 0..40 {
            let rows = u64::from(size.rows());
            work = Duration::from_micros(fixed_us + (rows as f64 * row_us) as u64);
            size.took(rows, work, Duration::from_millis(commit_ms));
        }
        (size.rows(), work)
    }

    #[test]
    fn the_work_settles_at_about_two_milliseconds() {
        for row_us in [0.5, 5.0, 50.0] {
            let (rows, work) = settle(20, row_us, 0);
            assert!(work > TARGET / 2 && work < TARGET * 2, "{rows} rows of {row_us} µs take {work:?}");
        }
        assert_eq!(settle(20, 1e6, 0).0, 1, "a row that takes a second is alone");
    }

    #[test]
    fn a_slow_disk_gets_larger_chunks_and_no_hold_over_twenty_milliseconds() {
        let (_, work) = settle(20, 5.0, 6);
        assert!(work > Duration::from_millis(3) && work + Duration::from_millis(6) < Duration::from_millis(20), "{work:?}");
    }

    #[test]
    fn the_publishers_batch_is_a_cap() {
        let mut size = Size::new(Some(100));
        for _ in 0..20 {
            size.took(u64::from(size.rows()), Duration::from_micros(10), Duration::ZERO);
        }
        assert_eq!(size.rows(), 100);
    }
}
