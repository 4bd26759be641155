//! How long until the next try. Pure: clock and dice are arguments.

use std::time::Duration;

/// First pause after a failure.
const FIRST: Duration = Duration::from_secs(5);
/// Longest pause after failures.
const LONGEST: Duration = Duration::from_secs(3600);
/// Longest `Retry-After` that is obeyed: a server that says more is wrong, or somebody else's.
const LONGEST_ASKED: Duration = Duration::from_secs(24 * 3600);
/// Part of the polling interval over which a fleet's polls are spread, and its cap.
const SPREAD: f64 = 0.1;
const LONGEST_SPREAD: Duration = Duration::from_secs(60);
/// Shortest spread pause between two cycles, however often somebody rings.
pub const SHORTEST: Duration = Duration::from_millis(200);

/// How long to wait after `failures` failed tries in a row. `dice` is in 0.0..1.0. `asked` is the server's
/// `Retry-After`, and wins over everything.
pub fn pause(failures: u32, dice: f64, asked: Option<Duration>) -> Duration {
    if let Some(asked) = asked {
        // Never earlier than asked; a little later, so that those who were sent away together do not return together.
        let asked = asked.min(LONGEST_ASKED);
        return asked + asked.mul_f64(SPREAD * dice).min(LONGEST_SPREAD);
    }
    let full = FIRST.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST);
    // Full jitter: a fleet that failed together must not return together. Never at once.
    full.mul_f64(dice).max(SHORTEST)
}

/// How long after the schedule rang a device polls, when polls are `interval` apart.
pub fn spread(interval: Duration, dice: f64) -> Duration {
    interval.mul_f64(SPREAD).min(LONGEST_SPREAD).mul_f64(dice)
}

/// The plain deadline beside the schedule: `until_next` to its next ring, and time for the spread and for it to be late.
pub fn deadline(until_next: Duration, interval: Duration) -> Duration {
    until_next.min(interval.saturating_mul(2)) + spread(interval, 1.0) + Duration::from_secs(5)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour() {
        let full = |failures| pause(failures, 1.0, None).as_secs();
        assert_eq!([1, 2, 3, 4].map(full), [5, 10, 20, 40]);
        assert_eq!(full(1000), 3600);
        assert_eq!(pause(5, 0.0, None), SHORTEST);
    }

    proptest! {
        #[test]
        fn what_the_server_asks_wins(failures in 0u32..100, dice in 0.0f64..1.0, asked in 0u64..1_000_000) {
            let asked = Duration::from_secs(asked);
            let got = pause(failures, dice, Some(asked));
            prop_assert!(got >= asked.min(LONGEST_ASKED) && got <= LONGEST_ASKED + LONGEST_SPREAD);
        }

        #[test]
        fn a_deadline_comes_even_if_the_clock_says_next_year(until in 0u64..400 * 86_400, interval in 1u64..86_400, dice in 0.0f64..1.0) {
            let interval = Duration::from_secs(interval);
            prop_assert!(deadline(Duration::from_secs(until), interval) <= interval * 2 + LONGEST_SPREAD + Duration::from_secs(5));
            prop_assert!(spread(interval, dice) <= LONGEST_SPREAD);
        }
    }

    /// 24 virtual hours of a fleet of one: how often it polls, online and off.
    #[test]
    fn a_day_online_is_288_polls_and_a_day_offline_is_few() {
        let interval = Duration::from_secs(300);
        let mut dice = fastrand::Rng::with_seed(7);
        let (mut at, mut polls) = (Duration::ZERO, 0);
        while at < Duration::from_secs(86_400) {
            polls += 1;
            let next = interval.saturating_mul(u32::try_from(at.as_secs() / 300).unwrap() + 1);
            at = next + spread(interval, dice.f64());
        }
        assert!((286..=290).contains(&polls), "{polls}");

        let (mut at, mut tries) = (Duration::ZERO, 0);
        while at < Duration::from_secs(86_400) {
            tries += 1;
            at += pause(tries, dice.f64(), None);
        }
        assert!((35..=100).contains(&tries), "{tries}");
    }
}
