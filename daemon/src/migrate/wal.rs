//! Keeps the write-ahead log small and on the disk while many transactions follow each other. Both are done in the gap
//! after our own COMMIT: none of the application's commits has to pay for what we wrote or waits for our disk, and no
//! reader is in the way of anything (reference 2.8).

use std::time::{Duration, Instant};

use rusqlite::{Connection, ffi};

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

/// One file's log, whose COMMITs do not sync it: that is left to [`Wal::sync`].
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

    /// Makes what was committed survive a loss of power, and says how long that took. Nobody holds a lock meanwhile. What
    /// comes after a COMMIT must come after this. A disk that fails to is an error; what was committed may be lost then.
    pub fn sync(&self, file: &Managed) -> Result<Duration, ApplyError> {
        let begun = Instant::now();
        if self.on {
            sync_log(&file.connection).map_err(sqlite("syncing the write-ahead log"))?;
        }
        Ok(begun.elapsed())
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

/// Syncs the log through the connection's own handle of it, and so through its VFS
/// (`SQLITE_FCNTL_JOURNAL_POINTER`, <https://sqlite.org/c3ref/c_fcntl_begin_atomic_write.html>).
fn sync_log(connection: &Connection) -> Result<(), rusqlite::Error> {
    let mut log: *mut ffi::sqlite3_file = std::ptr::null_mut();
    // SAFETY: the connection is open, and this operation writes one pointer. It is null or points to a file of the
    // connection that stays open as long as the borrow; a file without methods is not open.
    let code = unsafe {
        let code = ffi::sqlite3_file_control(connection.handle(), c"main".as_ptr(), ffi::SQLITE_FCNTL_JOURNAL_POINTER, (&raw mut log).cast());
        match log.as_ref().and_then(|log| log.pMethods.as_ref()).and_then(|methods| methods.xSync) {
            Some(sync) if code == ffi::SQLITE_OK => sync(log, ffi::SQLITE_SYNC_NORMAL),
            // No transaction was in it yet.
            _ => code,
        }
    };
    if code == ffi::SQLITE_OK { Ok(()) } else { Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)) }
}
