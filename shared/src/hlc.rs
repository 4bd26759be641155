//! When an edit was made, so that any two can be put in order: a hybrid logical clock. Pure.
//!
//! Wall time where clocks agree, a counter where they do not move or one went back, and the client's id where even that is
//! equal (Kulkarni, Demirbas and others, "Logical Physical Clocks", 2014). An edit that saw another is always later than
//! it, because a clock advances past every clock that it lands.

use std::fmt;

use serde::{Deserialize, Serialize, de};

use crate::ids::ClientId;

/// Bits of the counter: 65,536 edits within one millisecond, after which the time itself moves on.
const COUNTER_BITS: u32 = 16;
/// Largest wall time, in milliseconds since 1970: in the year 6429, and a clock is positive in every integer type.
pub const MAX_WALL_MS: u64 = (1 << 47) - 1;
/// How far ahead of its own time a server keeps a clock, in milliseconds. What is further ahead is a clock that is wrong,
/// and would win over everybody until that time comes.
pub const MAX_AHEAD_MS: u64 = 60_000;

/// One moment of one client. On the wire and in stores it is one number: 47 bits of milliseconds, 16 bits of counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Clock(u64);

impl Clock {
    /// Before every edit.
    pub const ZERO: Self = Self(0);

    /// The first moment of a millisecond. A time before 1970 or after [`MAX_WALL_MS`] counts as that bound.
    pub fn at_ms(wall_ms: i64) -> Self {
        Self(u64::try_from(wall_ms).unwrap_or(0).min(MAX_WALL_MS) << COUNTER_BITS)
    }

    /// From the number that [`Clock::bits`] gave; none where no clock has it.
    pub fn from_bits(bits: u64) -> Option<Self> {
        (bits >> COUNTER_BITS <= MAX_WALL_MS).then_some(Self(bits))
    }

    /// The number.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Its milliseconds since 1970.
    pub fn wall_ms(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// Its place within the millisecond.
    pub fn counter(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    /// The clock of an edit made at `wall_ms` by one whose newest clock, its own or landed, is `self`: later than `self`,
    /// and at that wall time unless `self` is there or beyond. At the end of time it stays where it is.
    #[must_use]
    pub fn next(self, wall_ms: i64) -> Self {
        let after = Self((self.0 + 1).min(MAX_WALL_MS << COUNTER_BITS | 0xffff));
        after.max(Self::at_ms(wall_ms))
    }

    /// What a server whose time is `now_ms` keeps of it: itself, or the server's time where it is more than
    /// [`MAX_AHEAD_MS`] ahead.
    #[must_use]
    pub fn bounded(self, now_ms: i64) -> Self {
        let now = Self::at_ms(now_ms);
        if self.wall_ms() > now.wall_ms() + MAX_AHEAD_MS { now } else { self }
    }
}

impl<'de> Deserialize<'de> for Clock {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let bits = u64::deserialize(d)?;
        Self::from_bits(bits).ok_or_else(|| de::Error::custom(format!("{bits} is no clock: its time is after the year 6429")))
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.wall_ms(), self.counter())
    }
}

/// A clock and whose it is: no two edits have the same, unless one client made both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// When.
    pub clock: Clock,
    /// Who: decides where the clocks are equal.
    pub client: ClientId,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn clocks() -> impl Strategy<Value = Clock> {
        let wall = prop_oneof![0..=MAX_WALL_MS, 1_000_000u64..1_000_010, Just(MAX_WALL_MS)];
        (wall, prop_oneof![any::<u16>(), 0u16..3, Just(u16::MAX)])
            .prop_map(|(wall, counter)| Clock::from_bits(wall << 16 | u64::from(counter)).unwrap())
    }

    #[test]
    fn a_counter_that_is_full_moves_the_time_on() {
        let full = Clock::from_bits(7 << 16 | 0xffff).unwrap();
        assert_eq!(full.next(3), Clock::at_ms(8));
        assert_eq!((Clock::at_ms(-5), Clock::at_ms(i64::MAX).wall_ms()), (Clock::ZERO, MAX_WALL_MS));
        assert_eq!(Clock::from_bits(u64::MAX), None);
        assert!(serde_json::from_str::<Clock>("18446744073709551615").is_err());
    }

    #[test]
    fn what_is_a_minute_ahead_is_kept_and_what_is_more_gets_the_servers_time() {
        let now_ms = 1_000_000;
        let edge = Clock::at_ms(now_ms + MAX_AHEAD_MS as i64).next(0);
        assert_eq!(edge.bounded(now_ms), edge);
        assert_eq!(Clock::at_ms(now_ms + MAX_AHEAD_MS as i64 + 1).bounded(now_ms), Clock::at_ms(now_ms));
        let ten_years = 315_360_000_000;
        assert_eq!(Clock::at_ms(now_ms + ten_years).bounded(now_ms), Clock::at_ms(now_ms));
        assert_eq!(Clock::ZERO.bounded(now_ms), Clock::ZERO, "a clock behind its time harms nobody");
    }

    proptest! {
        #[test]
        fn the_next_is_later_and_never_behind_the_wall(last in clocks(), wall_ms in 0..(1i64 << 46)) {
            prop_assume!(last.bits() < (MAX_WALL_MS << 16 | 0xffff));
            let next = last.next(wall_ms);
            prop_assert!(next > last);
            prop_assert!(next.wall_ms() >= wall_ms as u64);
            // No further ahead than it has to be.
            prop_assert!(next == Clock::at_ms(wall_ms) || next.bits() == last.bits() + 1);
        }

        #[test]
        fn time_and_counter_order_clocks_and_survive_the_wire(a in clocks(), b in clocks()) {
            prop_assert_eq!(a.cmp(&b), (a.wall_ms(), a.counter()).cmp(&(b.wall_ms(), b.counter())));
            prop_assert_eq!(Clock::from_bits(a.bits()), Some(a));
            prop_assert_eq!(serde_json::from_str::<Clock>(&serde_json::to_string(&a).unwrap()).unwrap(), a);
        }

        #[test]
        fn bounding_keeps_or_lowers_and_twice_is_once(clock in clocks(), now_ms in 0..(1i64 << 46)) {
            let once = clock.bounded(now_ms);
            prop_assert!(once <= clock);
            prop_assert_eq!(once.bounded(now_ms), once);
            prop_assert!(once.wall_ms() <= now_ms as u64 + MAX_AHEAD_MS);
        }

        #[test]
        fn who_saw_an_edit_is_later_than_it(walls in prop::collection::vec((0usize..3, 0i64..50), 1..60)) {
            // Three clients with clocks of their own; each lands what the one before it wrote.
            let mut newest = Clock::ZERO;
            for (client, wall_ms) in walls {
                let stamp = Stamp { clock: newest.next(wall_ms), client: ClientId::from_dice(client as u128) };
                prop_assert!(stamp.clock > newest);
                newest = stamp.clock;
            }
        }
    }
}
