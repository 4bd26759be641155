//! Leaving room for the application between our transactions (invariant 9, DESIGN 8.6). SQLite's lock has no queue: who
//! waits for it sleeps up to 100 ms and looks again, so one transaction right after the other starves it for as long as
//! the chain is, and its busy timeout runs out.

use std::time::{Duration, Instant};

use super::{
    connection::{Managed, data_version},
    error::ApplyError,
};

/// Longer than any sleep of SQLite's own busy handler (100 ms, `sqliteDefaultBusyCallback`): whoever waits gets in.
const SURE: Duration = Duration::from_millis(110);

/// Most that is held without a gap of [`SURE`] length when nobody seems to be there. One who waits cannot be seen.
const UNSEEN: Duration = Duration::from_millis(400);

/// So long after its last commit the application counts as writing.
const WRITES_ON: Duration = Duration::from_secs(2);

/// The first gap, in which a busy application shows itself.
const FIRST: Duration = Duration::from_millis(2);

/// Less than this is not worth a look: an application does not notice it.
const LEAST: Duration = Duration::from_millis(5);

/// Longest gap, and so what a foreign writer can cost us after each transaction.
const LONGEST: Duration = Duration::from_millis(250);

/// The gap after a chunk when nobody seems to be there, as a share of what was held: so small that it costs little, so
/// large that who comes finds it soon.
const IDLE_SHARE: f64 = 0.1;
/// What [`UNSEEN`] is for chunks.
const UNSEEN_CHUNKS: Duration = Duration::from_secs(2);
/// The shortest gap after a chunk while the application writes.
const SHORTEST: Duration = Duration::from_millis(1);

/// What has been seen of the application on one connection, and what it is owed.
#[derive(Debug, Default)]
pub struct Gap {
    /// Whether many short transactions follow each other.
    chunks: bool,
    data_version: Option<i64>,
    wrote: Option<Instant>,
    held_without: Duration,
    /// What was held since the last look.
    owed: Duration,
}

impl Gap {
    /// For many short transactions, of which each alone hurts nobody.
    pub fn for_chunks() -> Self {
        Self { chunks: true, ..Self::default() }
    }

    /// Sleeps as long as is right after the write lock was held for `held`. No transaction may be open. Returns whether
    /// it was for an application that writes.
    pub fn leave(&mut self, managed: &Managed, held: Duration) -> Result<bool, ApplyError> {
        self.owed += held;
        if !self.chunks && self.data_version.is_some() && self.owed < LEAST {
            return Ok(false);
        }
        let held = std::mem::take(&mut self.owed);
        let data_version = data_version(&managed.connection)?;
        managed.patience.over();
        let moved = self.data_version.replace(data_version).map(|before| before != data_version);
        let gap = self.after(held, moved, Instant::now());
        if !gap.is_zero() {
            crate::ambient::pulse();
            std::thread::sleep(gap);
        }
        Ok(self.wrote.is_some_and(|wrote| wrote.elapsed() < WRITES_ON))
    }

    /// How long the gap is. `moved`: whether somebody else has committed since the last time; none for the first.
    fn after(&mut self, held: Duration, moved: Option<bool>, now: Instant) -> Duration {
        if moved == Some(true) {
            self.wrote = Some(now);
        }
        self.held_without += held;
        let (unseen, idle, shortest) = match self.chunks {
            true => (UNSEEN_CHUNKS, held.mul_f64(IDLE_SHARE), SHORTEST),
            false => (UNSEEN, Duration::ZERO, Duration::ZERO),
        };
        let gap = match self.wrote {
            Some(wrote) if now.duration_since(wrote) < WRITES_ON => (2 * held).clamp(shortest, LONGEST),
            _ if moved.is_none() => (2 * held).clamp(FIRST, LONGEST),
            _ if self.held_without >= unseen => SURE,
            _ => idle,
        };
        if gap >= SURE {
            self.held_without = Duration::ZERO;
        }
        gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_writing_application_gets_twice_what_we_held() {
        let (mut gap, now) = (Gap::default(), Instant::now());
        assert_eq!(gap.after(MS, None, now), FIRST);
        assert_eq!(gap.after(3 * MS, Some(true), now), 6 * MS);
        assert_eq!(gap.after(3 * MS, Some(false), now + WRITES_ON / 2), 6 * MS, "it may be waiting");
        assert_eq!(gap.after(3 * MS, Some(false), now + WRITES_ON), Duration::ZERO);
        assert_eq!(gap.after(9_000 * MS, Some(true), now + WRITES_ON), LONGEST);
    }

    #[test]
    fn one_that_waits_unseen_gets_in_sooner_or_later() {
        let (mut gap, now) = (Gap::default(), Instant::now());
        let gaps: Vec<_> = (0..1_000).map(|_| gap.after(MS, Some(false), now)).collect();
        assert_eq!(gaps.iter().filter(|g| **g == SURE).count(), 2);
        assert!(gaps.iter().all(|g| [SURE, Duration::ZERO].contains(g)));
    }

    #[test]
    fn the_file_is_left_alone_for_as_long_as_a_writing_application_is_owed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.db");
        let app = rusqlite::Connection::open(&path).unwrap();
        app.execute_batch("PRAGMA journal_mode = wal; CREATE TABLE t(x)").unwrap();
        let file = Managed::open(&path, crate::migrate::connection::Missing::Refuse, MS, Default::default()).unwrap();
        for mut gap in [Gap::for_chunks(), Gap::default()] {
            gap.leave(&file, MS).unwrap();
            app.execute_batch("INSERT INTO t VALUES (1)").unwrap();
            let begun = Instant::now();
            assert!(gap.leave(&file, 20 * MS).unwrap(), "it was seen to write");
            assert!(begun.elapsed() >= 40 * MS, "{:?}", begun.elapsed());
        }
    }
}
