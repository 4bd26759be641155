//! One write transaction on a file that an application uses too: waited for, committed, or rolled back whole (DESIGN 8.8).

use std::time::{Duration, Instant};

use rusqlite::{ErrorCode, config::DbConfig};

use super::{
    connection::{JournalMode, Managed},
    error::{ApplyError, sqlite},
};

/// How long a COMMIT may keep new readers out in rollback-journal mode: its pending lock refuses them all.
const COMMIT_PATIENCE: Duration = Duration::from_secs(1);

/// Pause between two looks whether the last reader has gone. Each look holds the pending lock for microseconds.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How a transaction is to be run.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How long the application is waited for, in all.
    pub wait: Duration,
    /// Whether foreign keys act.
    pub foreign_keys: bool,
    /// Whether a cancel keeps it from beginning. What records a cancel must not be stopped by it.
    pub stoppable: bool,
}

impl Terms {
    /// For small writes of our own: waits up to `wait`.
    pub fn ours(wait: Duration) -> Self {
        Self { wait, foreign_keys: false, stoppable: true }
    }
}

/// Runs `work` in one transaction and commits it. `work` may run more than once: each time but the last has been rolled
/// back. Returns what it returned, and how long the write lock was held in the end.
pub fn write<T>(
    managed: &mut Managed,
    terms: Terms,
    mut work: impl FnMut(&mut Managed) -> Result<T, ApplyError>,
) -> Result<(T, Duration), ApplyError> {
    let mut value = None;
    let held = run(managed, terms, &mut |managed| {
        value = Some(work(managed)?);
        Ok(())
    })?;
    Ok((value.expect("what is committed was worked through"), held))
}

/// [`write`], once for every kind of work: compiled for each, it was four kilobytes every time.
fn run(managed: &mut Managed, terms: Terms, work: &mut dyn FnMut(&mut Managed) -> Result<(), ApplyError>) -> Result<Duration, ApplyError> {
    let begun = Instant::now();
    // After a COMMIT that a reader kept waiting: begin only when there is no reader.
    let mut alone = false;
    loop {
        let left = terms.wait.saturating_sub(begun.elapsed());
        let gave_up = || ApplyError::Busy { waited: begun.elapsed(), limit: terms.wait };
        if terms.stoppable && managed.guard.halt().no_more() {
            return Err(ApplyError::Cancelled);
        }
        // Inside a transaction the pragma would be a silent no-op.
        managed.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, terms.foreign_keys).map_err(sqlite("switching foreign keys"))?;

        managed.patience.set_stoppable(terms.stoppable);
        managed.patience.set_limit(if alone { Duration::ZERO } else { left });
        match managed.connection.execute_batch(if alone { "BEGIN EXCLUSIVE" } else { "BEGIN IMMEDIATE" }) {
            Ok(()) => {}
            Err(error) if is_busy(&error) => {
                if terms.stoppable && managed.guard.halt().no_more() {
                    return Err(ApplyError::Cancelled);
                }
                if !alone || left.is_zero() {
                    managed.patience.over();
                    return Err(gave_up());
                }
                crate::ambient::pulse();
                std::thread::sleep(LOOK_AGAIN);
                continue;
            }
            Err(error) => return Err(sqlite("beginning a transaction")(error)),
        }
        managed.patience.over();
        let locked = Instant::now();
        // A spill in the middle of the work holds the pending lock too.
        managed.patience.set_limit(match managed.journal_mode {
            JournalMode::Wal => left,
            JournalMode::Rollback => COMMIT_PATIENCE,
        });

        match work(managed) {
            Ok(()) => {}
            // A spill into the file met a reader: the same as a COMMIT that does.
            Err(error) if error.is_busy() && !alone && managed.journal_mode == JournalMode::Rollback => {
                roll_back(managed);
                alone = true;
                continue;
            }
            Err(error) => {
                roll_back(managed);
                return Err(error);
            }
        }
        // An interrupt or a full disk may have ended the transaction; what came after it would have run alone.
        if managed.connection.is_autocommit() {
            roll_back(managed);
            return Err(ApplyError::LostTransaction);
        }
        match managed.connection.execute_batch("COMMIT") {
            Ok(()) => {
                managed.patience.over();
                return Ok(locked.elapsed());
            }
            Err(error) if is_busy(&error) => {
                roll_back(managed);
                managed.patience.over();
                if terms.wait.saturating_sub(begun.elapsed()).is_zero() {
                    return Err(ApplyError::CommitBusy { waited: begun.elapsed() });
                }
                alone = true;
            }
            Err(error) => {
                roll_back(managed);
                return Err(sqlite("committing")(error));
            }
        }
    }
}

/// Rolls back what is open, and forgets what was read inside it.
fn roll_back(managed: &mut Managed) {
    if !managed.connection.is_autocommit() {
        // What brought us here says more than a failing rollback would; SQLite ends the transaction either way.
        let _ = managed.connection.execute_batch("ROLLBACK");
    }
    managed.schema.forget();
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}
