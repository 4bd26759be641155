//! Keeps the write-ahead log small while many transactions follow each other. Checkpoints are PASSIVE and come in the
//! gap after our own COMMIT: none of the application's commits has to pay for what we wrote, and no reader is in the way
//! of anything (reference 2.8).

use std::time::{Duration, Instant};

use super::{
    connection::{JournalMode, Managed},
    error::{ApplyError, sqlite},
    live::Throttle,
};

/// Between two checkpoints.
const APART: Duration = Duration::from_millis(25);
/// Frames in the log above which it is waited until readers let it be emptied.
const LIMIT_BYTES: i64 = 16 * 1024 * 1024;
/// Longest look for the reader to go before the work goes on as slowly.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// One file's log.
#[derive(Debug)]
pub struct Wal {
    on: bool,
    page_bytes: i64,
    last: Instant,
}

impl Wal {
    /// For a connection on which SQLite's own checkpoints, which come inside COMMIT, are switched off.
    pub fn new(file: &Managed) -> Result<Self, ApplyError> {
        let on = file.journal_mode == JournalMode::Wal;
        let page_bytes = file.connection.pragma_query_value(None, "page_size", |row| row.get(0)).map_err(sqlite("reading the page size"))?;
        Ok(Self { on, page_bytes, last: Instant::now() })
    }

    /// Empties the log as far as its readers let it, and waits while it is too long and they do not. `waiting` is told
    /// each time it waits. Returns whether it had to.
    pub fn keep_small(&mut self, file: &Managed, mut waiting: impl FnMut()) -> Result<Option<Throttle>, ApplyError> {
        if !self.on || self.last.elapsed() < APART {
            return Ok(None);
        }
        let mut throttle = None;
        loop {
            let (log, moved): (i64, i64) = file
                .connection
                .query_row("PRAGMA main.wal_checkpoint(PASSIVE)", [], |row| Ok((row.get(1)?, row.get(2)?)))
                .map_err(sqlite("emptying the write-ahead log"))?;
            self.last = Instant::now();
            if moved >= log || log.saturating_mul(self.page_bytes) < LIMIT_BYTES || file.guard.halt().no_more() {
                return Ok(throttle);
            }
            throttle = Some(Throttle::Wal);
            waiting();
            crate::ambient::pulse();
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}
