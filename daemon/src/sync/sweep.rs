//! Compares a table's rows with what was recorded of them, where the journal does not tell: a table that was not captured
//! before, triggers that were lost, a journal past its bound, UNIQUE indexes without a probe.
//!
//! A sweep goes in chunks, each in a transaction of the caller's, and remembers how far it has come. What the application
//! writes meanwhile is in the journal, so nothing is missed behind the sweep.

use rusqlite::Connection;

use super::{
    capture::captured,
    error::SyncError,
    rows::{Columns, Rows},
    settle::{Touch, settle},
    shape::Captured,
};
use crate::store::{
    journal::{self, Phase, Sweep, SweepReason},
    key::Key,
    outbox::{Outbox, Stamp, known_after},
};

/// What a chunk of a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Rows that were compared.
    pub compared: u64,
    /// Rows whose outbox entry was made, changed or removed.
    pub found: u64,
    /// Whether more is left to sweep that can be read.
    pub more: bool,
    /// Tables that cannot be read yet, with the reason.
    pub unreadable: Vec<(String, String)>,
}

/// Marks the tables that have a UNIQUE index without a probe: rows that it killed are found by comparing. A sweep that is under
/// way begins again, as they may lie behind it.
pub fn mark_routine(connection: &Connection, now_ms: i64) -> Result<u32, SyncError> {
    let mut marked = 0;
    let under_way = journal::sweeps(connection, &|_| None)?;
    for table in captured(connection)?.iter().filter(|t| !t.unprobed.is_empty()) {
        match under_way.iter().find(|s| s.table == table.id) {
            None => journal::mark_sweep(connection, table.id, SweepReason::Routine, now_ms)?,
            // Its reason stays: it may look for more than this one would.
            Some(_) => journal::advance_sweep(connection, table.id, Phase::Present, None)?,
        }
        marked += 1;
    }
    Ok(marked)
}

/// Compares up to `most` rows of the tables that are marked, inside the caller's write transaction. Best after a fold in the
/// same transaction: what the journal tells has better stamps. With an error the transaction is to be rolled back.
pub fn sweep(connection: &Connection, most: usize) -> Result<Swept, SyncError> {
    sweep_some(connection, most, &|_| true)
}

/// [`sweep`], of those marked tables that `which` takes.
pub fn sweep_some(connection: &Connection, most: usize, which: &dyn Fn(&Sweep) -> bool) -> Result<Swept, SyncError> {
    if connection.is_autocommit() {
        return Err(SyncError::NoTransaction { doing: "comparing rows with what was recorded" });
    }
    let mut done = Swept::default();
    let tables = captured(connection)?;
    let columns = |id: u32| tables.iter().find(|t| t.id == id).map(|t| t.key.len());
    let seq = journal::extent(connection)?.last;
    let mut left = most;
    for mut at in journal::sweeps(connection, &columns)?.into_iter().filter(which) {
        let Some(table) = tables.iter().find(|t| t.id == at.table) else {
            journal::end_sweep(connection, at.table)?;
            continue;
        };
        match sweep_table(connection, table, &mut at, seq, &mut left, &mut done) {
            Ok(true) => {}
            Ok(false) => {
                done.more = true;
                break;
            }
            Err(SyncError::Unreadable { table, why }) => done.unreadable.push((table, why)),
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Whether the table is done.
fn sweep_table(connection: &Connection, table: &Captured, at: &mut Sweep, seq: i64, left: &mut usize, done: &mut Swept) -> Result<bool, SyncError> {
    let stamp = Stamp { wall_ms: at.wall_ms, boot: 0, seq };
    // Elsewhere every edit was noted, so that a column of which nothing is recorded has what a migration gave it.
    let missed = matches!(at.why, SweepReason::Triggers | SweepReason::Journal | SweepReason::Unreadable);
    let touch = Touch::swept(stamp, missed);
    let (mut outbox, mut rows) = (Outbox::open(connection)?, Rows::new(connection, table));
    let collations = table.collations();
    loop {
        if *left == 0 {
            return Ok(false);
        }
        let (asked, last, count) = match at.phase {
            Phase::Present => {
                let found = rows.after(at.after.as_ref(), *left)?;
                for (spelled, now) in &found {
                    let key = spelled.clone().canonical(&collations);
                    let recorded = outbox.recorded(table.id, &key)?;
                    let entry = outbox.entry(table.id, &key)?;
                    let after = settle(&touch, recorded.as_ref(), entry.clone(), Some(now), rows.tracked(), false);
                    if after != entry {
                        outbox.put(table.id, &key, after.as_ref())?;
                        done.found += 1;
                    }
                }
                (*left, found.last().map(|(key, _)| key.clone()), found.len())
            }
            Phase::Recorded => {
                let found = known_after(connection, table.id, at.after.as_ref(), table.key.len(), *left)?;
                for key in &found {
                    if rows.read(key, Columns::Presence)?.is_none() {
                        let recorded = outbox.recorded(table.id, key)?;
                        let entry = outbox.entry(table.id, key)?;
                        let after = settle(&touch, recorded.as_ref(), entry.clone(), None, rows.tracked(), false);
                        if after != entry {
                            outbox.put(table.id, key, after.as_ref())?;
                            done.found += 1;
                        }
                    }
                }
                (*left, found.last().cloned(), found.len())
            }
        };
        done.compared += count as u64;
        *left -= count;
        if count == asked {
            at.after = last;
            journal::advance_sweep(connection, table.id, at.phase, at.after.as_ref())?;
            continue;
        }
        match at.phase {
            Phase::Present => {
                (at.phase, at.after) = (Phase::Recorded, None::<Key>);
                journal::advance_sweep(connection, table.id, at.phase, None)?;
            }
            Phase::Recorded => {
                journal::end_sweep(connection, table.id)?;
                return Ok(true);
            }
        }
    }
}
