//! Which boot an edit belongs to, and when it was by one clock: clocks are set while machines run, and the journal has only
//! what the wall said.

use rusqlite::Connection;

use super::error::SyncError;
pub use crate::ambient::Boot;
use crate::store::{
    boot::{self, BootRow},
    outbox::Stamp,
};

/// A clock that moved by less since the last fold was not set: it drifts, and is steered by the network.
const SET_MS: u64 = 1_000;

/// Puts what the wall said into the time of one clock.
#[derive(Clone, Copy, Debug)]
pub struct Timeline {
    row: BootRow,
    /// When the boot began, by the clock as it is.
    began_ms: i64,
    /// Now, since the machine started.
    now_ms: i64,
}

impl Timeline {
    /// Of this boot, at `now_ms` on the wall. Notes the boot in the file if it is new there.
    pub fn open(connection: &Connection, at: &Boot, now_ms: i64) -> Result<Self, SyncError> {
        let row = match boot::boot(connection, &at.id)? {
            Some(row) => row,
            None => boot::begin(connection, &at.id, at.began_ms)?,
        };
        Ok(Self { row, began_ms: at.began_ms, now_ms: now_ms - at.began_ms })
    }

    /// Whether the clock was set since this file was last folded: that has to be noted before anything else is written.
    pub fn was_set(connection: &Connection, at: &Boot) -> Result<bool, SyncError> {
        Ok(boot::boot(connection, &at.id)?.is_some_and(|row| is_set(row.last_ms, at.began_ms)))
    }

    /// The stamp of an edit at `wall_ms`: of this boot, in its time, or of an older one, as the wall said.
    pub fn stamp(&self, wall_ms: i64, seq: i64) -> Stamp {
        let as_now = wall_ms - self.began_ms;
        let as_before = wall_ms - self.row.last_ms;
        // Between the last fold and now: where both are possible, it was written before the clock was set.
        let between = (self.row.folded_ms - SET_MS as i64)..=(self.now_ms + SET_MS as i64);
        let since = if is_set(self.row.last_ms, self.began_ms) && between.contains(&as_before) { as_before } else { as_now };
        if since < 0 { Stamp { wall_ms, boot: 0, seq } } else { Stamp { wall_ms: self.row.began_ms + since, boot: self.row.number, seq } }
    }

    /// Everything up to now was folded.
    pub fn close(self, connection: &Connection) -> Result<(), SyncError> {
        Ok(boot::put(connection, &BootRow { last_ms: self.began_ms, folded_ms: self.now_ms, ..self.row })?)
    }
}

fn is_set(before_ms: i64, now_ms: i64) -> bool {
    before_ms.abs_diff(now_ms) > SET_MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::journal;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn a_clock_that_is_set_back_or_ahead_changes_no_edits_time() {
        let connection = Connection::open_in_memory().unwrap();
        journal::make(&connection).unwrap();
        let boot = |began_ms| Boot { id: "b".to_owned(), began_ms };
        // It started at 100 h by its clock; folded 1 h later.
        Timeline::open(&connection, &boot(100 * HOUR), 101 * HOUR).unwrap().close(&connection).unwrap();
        assert!(!Timeline::was_set(&connection, &boot(100 * HOUR + 900)).unwrap());
        // Set ten years ahead meanwhile: one edit 2 h after the start by the old clock, one 3 h after it by the new one.
        let ahead = 100 * HOUR + 10 * 365 * 24 * HOUR;
        assert!(Timeline::was_set(&connection, &boot(ahead)).unwrap());
        let line = Timeline::open(&connection, &boot(ahead), ahead + 4 * HOUR).unwrap();
        assert_eq!(line.stamp(102 * HOUR, 1), Stamp { wall_ms: 102 * HOUR, boot: 1, seq: 1 });
        assert_eq!(line.stamp(ahead + 3 * HOUR, 2), Stamp { wall_ms: 103 * HOUR, boot: 1, seq: 2 });
        line.close(&connection).unwrap();
        // And back again.
        let line = Timeline::open(&connection, &boot(100 * HOUR), 106 * HOUR).unwrap();
        assert_eq!(line.stamp(ahead + 5 * HOUR, 3), Stamp { wall_ms: 105 * HOUR, boot: 1, seq: 3 });
        assert_eq!(line.stamp(105 * HOUR + 1, 4), Stamp { wall_ms: 105 * HOUR + 1, boot: 1, seq: 4 });
        // Older than the boot: of which one is not known.
        assert_eq!(line.stamp(99 * HOUR, 5), Stamp { wall_ms: 99 * HOUR, boot: 0, seq: 5 });
    }

    #[test]
    fn the_machine_tells_its_boot() {
        let (a, b) = (Boot::of_machine(1_000_000_000), Boot::of_machine(1_000_000_000));
        assert_eq!(a.id, b.id);
        assert!(a.began_ms.abs_diff(b.began_ms) < 60_000 && a.began_ms < 1_000_000_000);
    }
}
