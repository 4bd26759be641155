//! Journal to outbox: what the application changed, as what has to be sent (docs/sync.md).

use std::collections::HashMap;

use rusqlite::Connection;

pub use super::boot::Boot;
use super::{
    boot::Timeline,
    capture::captured,
    error::SyncError,
    rows::Rows,
    settle::{Touch, needed, settle},
    shape::{Captured, Collation},
};
use crate::store::{
    journal::{self, Noted, SweepReason},
    key::Key,
    outbox::Outbox,
};

/// Journal rows that are held in memory at once. A hundred bytes each, and their keys.
const BATCH: usize = 8_192;

/// Who changed what is in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The application.
    App,
    /// Our landing of remote rows, and the application's triggers that ran with it.
    Landing,
}

/// What a fold did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// Rows of the journal that were worked off.
    pub notes: u64,
    /// Rows of the application that they were about. A row may be counted again in each batch.
    pub rows: u64,
    /// Whether more is left, because `most` was reached.
    pub more: bool,
    /// Whether rows of the journal were missing, so that every table is marked to be swept.
    pub lost: bool,
    /// Tables that could not be read as they were captured, with the reason. They are swept as soon as they can.
    pub unreadable: Vec<(String, String)>,
}

/// Folds the journal, or about the first `most` notes of it, inside the caller's write transaction: afterwards the outbox
/// holds what was in them, and they are gone, but for the newest, whose number is where the journal goes on. Memory does not
/// grow with the journal. `now_ms` is the time on the wall. With an error the transaction is to be rolled back.
pub fn fold(connection: &Connection, boot: &Boot, origin: Origin, now_ms: i64, most: Option<u64>) -> Result<Folded, SyncError> {
    if connection.is_autocommit() {
        return Err(SyncError::NoTransaction { doing: "folding the journal" });
    }
    let mut done = Folded::default();
    let extent = journal::extent(connection)?;
    if extent.is_folded() {
        // What is written from now on has to be told from what was written before the clock was set.
        if Timeline::was_set(connection, boot)? {
            Timeline::open(connection, boot, now_ms)?.close(connection)?;
        }
        return Ok(done);
    }
    let tables: HashMap<u32, Captured> = captured(connection)?.into_iter().map(|t| (t.id, t)).collect();
    if extent.lost_rows() {
        // What was in them is found by comparing, and was not later than what is left; with nothing left, than now.
        let wall_ms = if extent.last > 0 { extent.first_wall_ms } else { now_ms };
        for id in tables.keys() {
            journal::mark_sweep(connection, *id, SweepReason::Journal, wall_ms)?;
        }
        done.lost = true;
    }
    let mut folding = Folding {
        connection,
        collations: tables.iter().map(|(id, table)| (*id, table.collations())).collect(),
        rows: tables.iter().map(|(id, table)| (*id, Some(Rows::new(connection, table)))).collect(),
        outbox: Outbox::open(connection)?,
        timeline: Timeline::open(connection, boot, now_ms)?,
        origin,
        done: &mut done,
    };
    let columns = |table: u32| tables.get(&table).map(|t| t.key.len());
    let room = |notes: u64| usize::try_from(most.map_or(BATCH as u64, |most| most.saturating_sub(notes).min(BATCH as u64))).unwrap_or(BATCH);

    let mut seq = extent.begin();
    while seq < extent.last && room(folding.done.notes) > 0 {
        let mut notes = Vec::new();
        let read = journal::rows_after(connection, (seq, extent.last), room(folding.done.notes), &columns, &mut |note| notes.push(note))?;
        let Some((end, count)) = read else { break };
        folding.batch(notes)?;
        folding.done.notes += count as u64;
        seq = end;
        journal::forget_rows(connection, seq)?;
    }
    let timeline = folding.timeline;
    drop(folding);
    if extent.restarted() && seq >= extent.last {
        journal::go_on(connection, extent.folded + 1)?;
    }
    done.more = !journal::extent(connection)?.is_folded();
    if !done.more {
        timeline.close(connection)?;
    }
    Ok(done)
}

struct Folding<'c, 't, 'd> {
    connection: &'c Connection,
    collations: HashMap<u32, Vec<Collation>>,
    /// By table; none: it could not be read.
    rows: HashMap<u32, Option<Rows<'c, 't>>>,
    outbox: Outbox<'c>,
    timeline: Timeline,
    origin: Origin,
    done: &'d mut Folded,
}

impl Folding<'_, '_, '_> {
    /// Settles every row of a batch once.
    fn batch(&mut self, notes: Vec<Noted>) -> Result<(), SyncError> {
        let mut touched: HashMap<(u32, Key), (Key, Touch, i64)> = HashMap::new();
        for note in notes {
            let stamp = self.timeline.stamp(note.wall_ms, note.seq);
            let Some(collations) = self.collations.get(&note.table) else { continue };
            let place = (note.table, note.key.clone().canonical(collations));
            touched
                .entry(place)
                .and_modify(|(_, touch, _)| touch.add(note.mask, stamp))
                .or_insert_with(|| (note.key, Touch::new(note.mask, stamp), note.wall_ms));
        }
        // Neighbours in the trees one after the other.
        let mut touched: Vec<_> = touched.into_iter().collect();
        touched.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        self.done.rows += touched.len() as u64;
        for ((table, key), (spelled, touch, wall_ms)) in touched {
            self.row(table, &key, &spelled, &touch, wall_ms)?;
        }
        Ok(())
    }

    fn row(&mut self, table: u32, key: &Key, spelled: &Key, touch: &Touch, wall_ms: i64) -> Result<(), SyncError> {
        let Some(Some(rows)) = self.rows.get_mut(&table) else { return Ok(()) };
        match settle_row(rows, &mut self.outbox, table, key, spelled, touch, self.origin) {
            Err(SyncError::Unreadable { table: name, why }) => {
                // The rows and what was recorded of them say it all again, once they can be read.
                journal::mark_sweep(self.connection, table, SweepReason::Unreadable, wall_ms)?;
                self.rows.insert(table, None);
                self.done.unreadable.push((name, why));
                Ok(())
            }
            other => other,
        }
    }
}

/// Looks at one row and writes what becomes of its entry.
fn settle_row(
    rows: &mut Rows<'_, '_>,
    outbox: &mut Outbox<'_>,
    table: u32,
    key: &Key,
    spelled: &Key,
    touch: &Touch,
    origin: Origin,
) -> Result<(), SyncError> {
    let recorded = outbox.recorded(table, key)?;
    let entry = outbox.entry(table, key)?;
    let now = rows.read(spelled, needed(touch, recorded.as_ref(), entry.as_ref()))?;
    let after = settle(touch, recorded.as_ref(), entry.clone(), now.as_ref(), rows.tracked(), origin == Origin::Landing);
    if after != entry {
        outbox.put(table, key, after.as_ref())?;
    }
    Ok(())
}
