//! How the rows that the application touches behind a walk are caught up with, when it touches them without a pause. Pure.
//!
//! A round takes what was noted since the last one; the application gets twice as long, and may note more than the round
//! took. Where that goes on, rounds get longer, up to half of the migration's `max_lock`: the gap after a round has a
//! limit and a round has not, so the application's part becomes smaller until it falls behind. The price is a lock that is
//! held longer than a few milliseconds, at the end of a step, for those who write that much.

use std::time::{Duration, Instant};

use super::size::Size;

/// So many noted rows are left for the transaction that ends a step: a few milliseconds.
const FEW: u32 = 200;
/// Most noted rows of one round, as long as rounds are short.
const AT_ONCE: u32 = 500;
/// So long what is left may stay as it is before rounds get longer. It counts in time, for who hammers also makes us wait.
const PATIENT: Duration = Duration::from_millis(500);
/// What counts as less.
const EIGHTH: f64 = 7.0 / 8.0;
/// So long before they get longer again.
const EACH: Duration = Duration::from_millis(100);
/// The first of the longer ones.
const LONGER: Duration = Duration::from_millis(8);

/// One step's catching up.
#[derive(Debug)]
pub struct CatchUp {
    /// How often rounds have become longer.
    level: u32,
    /// The least that was left after a round.
    least: u64,
    /// When that became less, or rounds became longer.
    since: Option<Instant>,
    longest: Duration,
}

impl CatchUp {
    /// `max_lock`: the longest write lock that the migration allows itself.
    pub fn new(max_lock: Duration) -> Self {
        Self { level: 0, least: u64::MAX, since: None, longest: max_lock / 2 }
    }

    /// Most noted rows of the next round.
    pub fn ask(&self, size: &Size) -> u32 {
        let usual = AT_ONCE.min(size.rows());
        self.hold().map_or(usual, |hold| size.rows_in(hold).max(usual))
    }

    /// A round asked for so many rows and found so many, and so many notes are `left`. Whether the rest may be left for the
    /// transaction that ends the step.
    pub fn is_over(&mut self, asked: u32, found: u64, left: u64, now: Instant) -> bool {
        let vain = now.duration_since(*self.since.get_or_insert(now));
        if left as f64 <= self.least as f64 * EIGHTH {
            // Rounds that help are long enough.
            (self.least, self.since) = (left, Some(now));
        } else if vain >= if self.is_behind() { EACH } else { PATIENT } {
            (self.level, self.since) = (self.level.saturating_add(1), Some(now));
        }
        let few = if self.is_behind() { asked.max(FEW) } else { FEW.min(asked) };
        left == 0 && found < u64::from(few)
    }

    /// Whether the application touches rows faster than short rounds can look at them.
    pub fn is_behind(&self) -> bool {
        self.level > 0
    }

    /// How long a round may be; none for the usual.
    fn hold(&self) -> Option<Duration> {
        let doubled = self.level.checked_sub(1)?;
        Some(LONGER.saturating_mul(2u32.saturating_pow(doubled)).min(self.longest).max(Duration::from_millis(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A device that looks at 50 rows a millisecond, and an application that touches so many in one, in gaps as `gap.rs`
    /// leaves them. Returns the rounds it took, the longest of them, and the rows that were left for the last transaction.
    fn catch_up(touched_a_ms: u64, max_lock: Duration) -> Option<(u32, Duration, u64)> {
        let (mut size, mut catch_up, mut noted, mut longest) = (Size::new(None), CatchUp::new(max_lock), 10_000u64, Duration::ZERO);
        let mut now = Instant::now();
        for round in 1..=400 {
            let asked = catch_up.ask(&size);
            let found = noted.min(u64::from(asked));
            let held = Duration::from_micros(found * 20).max(MS / 10);
            size.took(found, held, Duration::ZERO);
            longest = longest.max(held);
            let gap = (2 * held).min(250 * MS);
            noted -= found;
            now += held + gap;
            let is_over = catch_up.is_over(asked, found, noted, now);
            noted += touched_a_ms * u64::try_from(gap.as_millis()).unwrap();
            if is_over {
                return Some((round, longest, noted));
            }
        }
        None
    }

    #[test]
    fn an_application_that_pauses_now_and_then_never_waits_longer() {
        let (_, longest, left) = catch_up(5, 2_000 * MS).unwrap();
        assert!(longest < 10 * MS && left < u64::from(FEW), "{longest:?}, {left} left");
    }

    #[test]
    fn one_that_hammers_is_caught_up_with_and_no_lock_is_longer_than_it_may_be() {
        for touched_a_ms in [26, 50, 100] {
            let (rounds, longest, left) = catch_up(touched_a_ms, 2_000 * MS).unwrap_or_else(|| panic!("{touched_a_ms} rows a ms: never"));
            let last = Duration::from_micros(left * 20);
            assert!(longest <= 1_100 * MS && last < 2_000 * MS, "{touched_a_ms} rows a ms: {rounds} rounds, {longest:?}, {last:?} at last");
        }
    }

    #[test]
    fn a_short_max_lock_is_kept() {
        let (mut catch_up, mut size) = (CatchUp::new(20 * MS), Size::new(None));
        (0..20).for_each(|_| size.took(u64::from(size.rows()), 2 * MS, Duration::ZERO));
        let now = Instant::now();
        (0..500).for_each(|n| _ = catch_up.is_over(1, 1_000, 1_000, now + n * EACH));
        assert_eq!(catch_up.hold(), Some(10 * MS));
        assert!(catch_up.ask(&size) <= size.rows_in(10 * MS).max(size.rows()));
    }
}
