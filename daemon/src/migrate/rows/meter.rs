//! How fast a row step goes and how long it will take, as `status` and `watch` say it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::table::Table;
use crate::{
    migrate::live::{Rows, Throttle},
    store::checkpoint::Checkpoint,
};

/// The rate is that of the last seconds.
const OVER: Duration = Duration::from_secs(5);
/// Of which each so long is looked at by itself.
const MARK: Duration = Duration::from_millis(50);
/// So many of which the slowest and the fastest do not count: a disk that hesitated once, while little is known yet.
const ENOUGH: usize = 4;
/// Less than this says nothing about what is left: a few chunks, and what the disk did meanwhile.
const TELLING: Duration = Duration::from_millis(100);
/// A chunk that is larger than the one before by this factor is on its way to the size that suits the device.
const GROWING: f64 = 1.2;
/// Chunks that may be on that way: doubled so often, 50 rows are more than any chunk has.
const MOST_GROWING: u32 = 20;

/// Rows a second, over the last seconds.
#[derive(Debug)]
pub struct Meter {
    seen: u64,
    marks: VecDeque<(Instant, u64)>,
    chunks: u32,
    /// Rows of the newest chunk while chunks are growing.
    growing: Option<u64>,
}

impl Meter {
    /// From then on.
    pub fn from(now: Instant) -> Self {
        Self { seen: 0, marks: VecDeque::from([(now, 0)]), chunks: 0, growing: Some(0) }
    }

    /// A chunk of so many rows is committed.
    pub fn saw(&mut self, rows: u64) {
        self.saw_at(rows, Instant::now());
    }

    fn saw_at(&mut self, rows: u64, now: Instant) {
        self.seen += rows;
        self.chunks += 1;
        if let Some(before) = self.growing {
            let grows = rows as f64 > before as f64 * GROWING && self.chunks < MOST_GROWING;
            self.growing = grows.then_some(rows);
            // The first chunks are small and their gaps are not: what they took says nothing about those that follow.
            self.marks = VecDeque::from([(now, self.seen)]);
            return;
        }
        if self.marks.back().is_none_or(|(at, _)| now.duration_since(*at) >= MARK) {
            self.marks.push_back((now, self.seen));
        }
        while self.marks.len() > 2 && now.duration_since(self.marks[0].0) > OVER {
            self.marks.pop_front();
        }
    }

    /// How far the step has come, for whoever watches.
    pub fn rows(&self, table: &Table, at: &Checkpoint, throttle: Option<Throttle>) -> Rows {
        let (rate, left) = self.rate(at.total.saturating_sub(at.examined), Instant::now());
        Rows {
            table: table.name.clone(),
            done: at.examined,
            total: at.total.max(at.examined),
            changed: at.changed,
            skipped: at.skipped,
            failed: at.failed,
            rate: rate as u64,
            left_ms: left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            throttle,
        }
    }

    /// Rows a second, and how long so many more will take, once there is something to tell that from.
    fn rate(&self, left: u64, now: Instant) -> (f64, Option<Duration>) {
        let (since, before) = self.marks[0];
        let length = now.duration_since(since);
        let mut each: Vec<(f64, u64)> =
            self.marks.iter().zip(self.marks.iter().skip(1)).map(|(a, b)| ((b.0 - a.0).as_secs_f64(), b.1 - a.1)).collect();
        each.sort_by(|a, b| (a.1 as f64 / a.0).total_cmp(&(b.1 as f64 / b.0)));
        let odd = if each.len() < ENOUGH { [(0.0, 0); 2] } else { [each[0], each[each.len() - 1]] };
        let counts = odd.iter().fold((length.as_secs_f64(), self.seen - before), |all, odd| (all.0 - odd.0, all.1 - odd.1));
        let rate = counts.1 as f64 / counts.0.max(0.001);
        let telling = self.growing.is_none() && length >= TELLING;
        (rate, telling.then(|| Duration::try_from_secs_f64(left as f64 / rate).ok()).flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Walks with chunks that double up to `largest`, each of 2 ms and a gap of 4.
    fn walk(total: u64, largest: u64, until: impl Fn(u64, Duration) -> bool) -> (Meter, u64, Instant) {
        let begun = Instant::now();
        let (mut meter, mut now, mut done, mut rows) = (Meter::from(begun), begun, 0, 50);
        while !until(done, now.duration_since(begun)) {
            now += 6 * MS;
            done += rows;
            meter.saw_at(rows, now);
            rows = (rows * 2).min(largest);
        }
        (meter, total - done, now)
    }

    #[test]
    fn the_way_to_a_good_size_does_not_count() {
        let total = 150_000;
        let (meter, left, now) = walk(total, 2_000, |done, _| done >= total / 10);
        assert_eq!(meter.rate(left, now).1, None, "{:?}", meter.marks);
        let (meter, left, now) = walk(total, 2_000, |_, took| took > 160 * MS);
        let said = meter.rate(left, now).1.expect("it has seen enough");
        let really = 6 * MS * u32::try_from(left.div_ceil(2_000)).unwrap();
        let off = said.as_secs_f64() / really.as_secs_f64();
        assert!((0.98..1.02).contains(&off), "{said:?} instead of {really:?}");
    }

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let (mut meter, _, mut now) = walk(10_000_000, 2_000, |_, took| took > 20_000 * MS);
        for _ in 0..1_000 {
            now += 6 * MS;
            meter.saw_at(200, now);
        }
        let (rate, left) = meter.rate(100_000, now);
        assert!((30_000.0..40_000.0).contains(&rate), "{rate}");
        assert!(left.is_some_and(|left| left.as_secs() == 2 || left.as_secs() == 3), "{left:?}");
        assert!(meter.marks.len() < 110, "it grows: {}", meter.marks.len());
    }

    #[test]
    fn a_disk_that_hesitates_once_does_not_count() {
        let (mut meter, _, now) = walk(10_000_000, 2_000, |_, took| took > 400 * MS);
        meter.saw_at(2_000, now + 300 * MS);
        let said = meter.rate(1_000_000, now + 300 * MS).1.expect("it has seen enough");
        assert!((2.9..3.2).contains(&said.as_secs_f64()), "{said:?} instead of 3 s");
    }

    #[test]
    fn nothing_is_said_that_nobody_knows() {
        let begun = Instant::now();
        assert_eq!(Meter::from(begun).rate(10, begun + 500 * MS).1, None);
    }
}
