//! When an edit was made, as the server counts time: computed when it is sent, with what is known of clocks then, and fixed
//! by that (docs/sync.md, "Clocks").

use std::collections::HashMap;

use rusqlite::Connection;
use whimbrel_shared::hlc::Clock;

use super::{
    boot::Boot,
    error::{SyncError, sqlite},
};
use crate::store::{
    boot::{self, BootRow},
    exchange,
    outbox::Stamp,
};

/// A difference to the server's time that is not written again.
const SAME_MS: u64 = 200;

/// What the server's clock said while this machine's wall said `wall_ms`: all stamps of this boot are corrected by it.
/// Inside the caller's write transaction.
pub fn note_server_time(connection: &Connection, at: &Boot, server_ms: i64, wall_ms: i64) -> Result<(), SyncError> {
    let row = match boot::boot(connection, &at.id)? {
        Some(row) => row,
        None => boot::begin(connection, &at.id, at.began_ms)?,
    };
    Ok(boot::put(connection, &BootRow { server_ms: Some(server_ms - (wall_ms - at.began_ms)), ..row })?)
}

/// Whether the server's time is known for this boot.
pub fn knows_server_time(connection: &Connection, at: &Boot) -> Result<bool, SyncError> {
    Ok(boot::boot(connection, &at.id)?.is_some_and(|row| row.server_ms.is_some()))
}

/// Whether what is known of the server's time is off by more than is worth a write.
pub fn is_off(connection: &Connection, at: &Boot, server_ms: i64, wall_ms: i64) -> Result<bool, SyncError> {
    let began = server_ms - (wall_ms - at.began_ms);
    Ok(boot::boot(connection, &at.id)?.and_then(|row| row.server_ms).is_none_or(|known| known.abs_diff(began) > SAME_MS))
}

/// Gives edits their clocks.
#[derive(Debug)]
pub struct Clocks {
    /// The newest clock known after an edit's number, ascending.
    known: Vec<(i64, Clock)>,
    /// By number of the boot: what is added to a stamp's time.
    offsets: HashMap<u32, i64>,
    /// For edits older than every boot that is known.
    offset: i64,
    /// The last edit that got one.
    last: (i64, Clock),
    newest: Clock,
}

impl Clocks {
    /// As the file knows them.
    pub fn open(connection: &Connection, at: &Boot) -> Result<Self, SyncError> {
        let doing = "reading the newest clocks";
        let known = connection
            .prepare_cached("SELECT seq, newest FROM main._whimbrel_clock ORDER BY seq")
            .and_then(|mut s| {
                s.query_map([], |row| Ok((row.get(0)?, Clock::from_bits(row.get::<_, i64>(1)?.cast_unsigned()).unwrap_or_default())))?.collect()
            })
            .map_err(sqlite(doing))?;
        let mut offsets = HashMap::new();
        let mut offset = 0;
        for row in boot::all(connection)? {
            let Some(server_ms) = row.server_ms else { continue };
            offsets.insert(row.number, server_ms - row.began_ms);
            offset = server_ms - row.began_ms;
        }
        if let Some(BootRow { server_ms: Some(server_ms), .. }) = boot::boot(connection, &at.id)? {
            offset = server_ms - at.began_ms;
        }
        Ok(Self { known, offsets, offset, last: (i64::MIN, Clock::ZERO), newest: Clock::ZERO })
    }

    /// The clock of an edit: later than everything that was known before it, and at its own time by the server's clock where
    /// that is so already. Edits are asked for in the order of their numbers as far as can be.
    pub fn of(&mut self, stamp: &Stamp) -> Clock {
        let before = self.known.partition_point(|(seq, _)| *seq < stamp.seq);
        let mut floor = before.checked_sub(1).map_or(Clock::ZERO, |at| self.known[at].1);
        if self.last.0 <= stamp.seq {
            floor = floor.max(self.last.1);
        }
        let offset = self.offsets.get(&stamp.boot).copied().unwrap_or(self.offset);
        let clock = floor.next(stamp.wall_ms.saturating_add(offset));
        if self.last.0 <= stamp.seq {
            self.last = (stamp.seq, clock);
        }
        self.newest = self.newest.max(clock);
        clock
    }

    /// The newest that was given.
    pub fn newest(&self) -> Clock {
        self.newest
    }
}

/// What landed or was stamped with clocks up to `newest`: edits after number `seq` are later.
pub(super) fn advance(connection: &Connection, seq: i64, newest: Clock) -> Result<(), SyncError> {
    let oldest = crate::store::outbox::oldest(connection)?;
    Ok(exchange::advance_clock(connection, seq, newest, oldest)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::journal;

    const YEAR: i64 = 365 * 24 * 3_600_000;

    fn file() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        journal::make(&connection).unwrap();
        connection
    }

    #[test]
    fn ten_years_off_are_corrected_for_every_edit_of_the_boot_and_for_older_ones() {
        for skew in [10 * YEAR, -10 * YEAR] {
            let connection = file();
            let server_began = 20 * YEAR;
            let at = Boot { id: "now".to_owned(), began_ms: server_began + skew };
            assert!(!knows_server_time(&connection, &at).unwrap());
            note_server_time(&connection, &at, server_began + 5_000, at.began_ms + 5_000).unwrap();
            assert!(knows_server_time(&connection, &at).unwrap());
            let mut clocks = Clocks::open(&connection, &at).unwrap();
            let of = |clocks: &mut Clocks, boot, wall_ms, seq| clocks.of(&Stamp { wall_ms, boot, seq }).wall_ms() as i64;
            assert_eq!(of(&mut clocks, 0, at.began_ms - 7, 3), server_began - 7);
            assert_eq!(of(&mut clocks, 1, at.began_ms + 1_000, 4), server_began + 1_000);
        }
    }

    #[test]
    fn an_edit_is_later_than_what_its_file_knew_and_not_than_what_landed_after_it() {
        let connection = file();
        let at = Boot { id: "now".to_owned(), began_ms: 0 };
        note_server_time(&connection, &at, 10, 10).unwrap();
        exchange::advance_clock(&connection, 5, Clock::at_ms(1_000), Some(3)).unwrap();
        let mut clocks = Clocks::open(&connection, &at).unwrap();
        let mut of = |seq, wall_ms| clocks.of(&Stamp { wall_ms, boot: 1, seq });
        assert_eq!(of(4, 100), Clock::at_ms(100));
        assert_eq!(of(4, 100), Clock::at_ms(100).next(0));
        assert_eq!(of(6, 200), Clock::at_ms(1_000).next(0));
        // The wall went back; the order of the edits did not.
        assert_eq!(of(7, 150), Clock::at_ms(1_000).next(0).next(0));
        assert_eq!(of(8, 2_000), Clock::at_ms(2_000));
        // One that had to wait: it is not later for that.
        assert_eq!(of(2, 50), Clock::at_ms(50));
        assert_eq!(clocks.newest(), Clock::at_ms(2_000));
    }
}
