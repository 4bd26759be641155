//! What waits in the outbox, as the changes of a push: values as they are in the rows now, bases as they were, and clocks
//! that are fixed from here on.

use std::collections::HashSet;

use rusqlite::Connection;
use whimbrel_shared::{
    change::{Cell, Change, Edit, MAX_PAGE_BYTES, MAX_PAGE_CELLS, MAX_PAGE_ROWS},
    hlc::Clock,
    manifest::Keys,
};

use super::{
    clock::{self, Clocks},
    error::SyncError,
    shape::Captured,
    tables::Tables,
    values::{Values, Whole, spelling, told},
};
use crate::store::{
    conflict::{self, Conflict, Detail, Kind},
    journal,
    key::Key,
    managed,
    outbox::{self, Deed, Entry, Outbox, Place, Recorded, Sent},
    quarantine,
};

/// What still fits into a push.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    rows: usize,
    cells: usize,
    bytes: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { rows: MAX_PAGE_ROWS, cells: MAX_PAGE_CELLS, bytes: MAX_PAGE_BYTES }
    }
}

impl Room {
    /// Whether nothing more fits.
    pub fn is_full(&self) -> bool {
        self.rows == 0
    }

    /// Whether it fits; then it is taken off.
    fn take(&mut self, change: &Change) -> bool {
        let cells = match &change.edit {
            Edit::Present { cells, .. } => cells.len(),
            Edit::Deleted { .. } => 0,
        };
        let bytes = change.size_bytes();
        if self.rows == 0 || cells > self.cells || bytes > self.bytes {
            return false;
        }
        *self = Self { rows: self.rows - 1, cells: self.cells - cells, bytes: self.bytes - bytes };
        true
    }
}

/// A row as it was when it was taken: what its answer is settled by, where nobody wrote to the file since.
#[derive(Clone, Debug)]
pub struct Was {
    /// Its key.
    pub key: Key,
    /// Its values; none: it was gone.
    pub row: Option<Whole>,
    /// What was known of it at the server.
    pub recorded: Option<Recorded>,
    /// What waited of it, with the clocks that were sent.
    pub entry: Entry,
}

/// What was taken from the outbox.
#[derive(Debug, Default)]
pub struct Taken {
    /// The changes, in the order of their last edits.
    pub changes: Vec<Change>,
    /// The row of each.
    pub was: Vec<Was>,
    /// The last row that was looked at: the next one goes on after it.
    pub last: Option<Place>,
    /// Whether rows after it may wait.
    pub more: bool,
}

/// Takes up to `most` rows that wait after a place into a push, inside the caller's write transaction and after a fold in the
/// same one: each edit has its clock now, in the outbox too. Rows that wait for a decision are passed over; one that cannot
/// be sent at all becomes an open conflict. It ends before a row that is in the push already (`there`) and was edited since: a
/// push has one answer for a row. With an error the transaction is to be rolled back.
pub fn take(
    connection: &Connection,
    tables: &Tables,
    clocks: &mut Clocks,
    after: Option<&Place>,
    there: &HashSet<(u32, Key)>,
    most: usize,
    room: &mut Room,
    now_ms: i64,
) -> Result<Taken, SyncError> {
    let pending = outbox::pending(connection, after, most, &|id| tables.key_columns(id))?;
    let mut taken = Taken { more: pending.len() == most, ..Taken::default() };
    let mut taking = Taking {
        connection,
        outbox: Outbox::open(connection)?,
        open: conflict::any_open(connection)?,
        inherited: inherited(connection, now_ms)?,
        values: None,
        now_ms,
    };
    for (place, mut entry) in pending {
        if !there.is_empty() && there.contains(&(place.table, place.key.clone())) {
            taken.more = true;
            break;
        }
        let Some(shape) = tables.get(place.table).and_then(|t| t.sends()) else {
            taken.last = Some(place);
            continue;
        };
        if taking.waits_for_original(tables, &place, &entry)? {
            taken.last = Some(place);
            continue;
        }
        if taking.open && conflict::blocks(connection, place.table, &place.key, place.seq)? {
            taken.last = Some(place);
            continue;
        }
        if let Some((change, row, recorded)) = taking.change(shape, &place, &mut entry, clocks)? {
            if !room.take(&change) {
                taken.more = true;
                break;
            }
            taking.outbox.mark(place.table, &place.key, &entry)?;
            taken.changes.push(change);
            taken.was.push(Was { key: place.key.clone(), row, recorded, entry });
        }
        taken.last = Some(place);
    }
    if !taken.changes.is_empty() {
        clock::advance(connection, journal::extent(connection)?.last, clocks.newest())?;
    }
    Ok(taken)
}

/// The lowest number of a series. An edit of a row that the file knows, and of which it has seen nothing in what numbers count in now,
/// is an edit: only a row that is new has seen nothing.
const KNOWN: u64 = 1;

/// A change, the row as it is, and what is recorded of it.
type TakenRow = (Change, Option<Whole>, Option<Recorded>);

struct Taking<'c, 't> {
    connection: &'c Connection,
    outbox: Outbox<'c>,
    /// Whether any row waits for a decision.
    open: bool,
    /// The last edit that another database has too, and will send.
    inherited: Option<i64>,
    /// Of the table that was asked for last: neighbours in the outbox are often of one.
    values: Option<(u32, Values<'c, 't>)>,
    now_ms: i64,
}

/// So long a copied file waits for its original to send the new rows that both have. Then it sends them itself.
const ORIGINAL_MS: i64 = 30 * 24 * 3_600_000;

/// Up to which number edits are another database's too, where they are waited for.
fn inherited(connection: &Connection, now_ms: i64) -> Result<Option<i64>, SyncError> {
    Ok(managed::inherited(connection)?.filter(|(_, at_ms)| now_ms - at_ms < ORIGINAL_MS).map(|(seq, _)| seq))
}

impl<'t> Taking<'_, 't> {
    /// Whether a row was new when the file was copied from another's: its original sends it, and sent twice it would be two rows.
    /// Once a row has come under its key, it is known whether it is that one.
    fn waits_for_original(&self, tables: &Tables, place: &Place, entry: &Entry) -> Result<bool, SyncError> {
        let both = entry.deed == Deed::Insert && self.inherited.is_some_and(|seq| entry.seq() <= seq);
        let global = tables.get(place.table).is_some_and(|t| t.rules.keys == Some(Keys::Global));
        Ok(both && !global && quarantine::get(self.connection, place.table, &place.key)?.is_none())
    }

    /// The change of one row, with the row and what is recorded of it; none where there is nothing to say of it now. `entry`
    /// gets its clocks.
    fn change(&mut self, shape: &'t Captured, place: &Place, entry: &mut Entry, clocks: &mut Clocks) -> Result<Option<TakenRow>, SyncError> {
        let row = match self.row(shape, &place.key) {
            // The table is swept once it can be read again; its edits wait for that.
            Err(SyncError::Unreadable { .. }) => return Ok(None),
            other => other?,
        };
        // Of a row that was made here the server has nothing.
        let recorded = if entry.deed == Deed::Insert { None } else { self.outbox.recorded(place.table, &place.key)? };
        let change = match (entry.deed, &row) {
            (Deed::Delete, None) => {
                let clock = fix(entry, clocks);
                let base = entry.edits.iter().filter_map(|e| e.base).min().unwrap_or(0);
                Change { table: place.table, key: told(&place.key), edit: Edit::Deleted { base, clock } }
            }
            (Deed::Insert | Deed::Edit, Some(row)) => {
                let clock = fix(entry, clocks);
                let seen = recorded.as_ref().filter(|_| entry.deed == Deed::Edit).map_or(0, |r| r.version.max(KNOWN));
                let cells = cells(shape, entry, recorded.as_ref(), row, clock, seen);
                if cells.is_empty() && seen != 0 {
                    self.respelled(shape, place, recorded.as_ref(), row)?;
                    return Ok(None);
                }
                Change { table: place.table, key: row.key.clone(), edit: Edit::Present { seen, cells } }
            }
            // The journal has not caught up with it: a sweep is under way.
            (Deed::Delete, Some(_)) | (Deed::Insert | Deed::Edit, None) => return Ok(None),
        };
        if let Err(why) = change.check() {
            let detail = Detail { why: Some(why.to_string()), key: change.key, ..Detail::default() };
            let (table, key) = (place.table, place.key.clone());
            conflict::put(
                self.connection,
                &Conflict { id: 0, table, key, kind: Kind::Impossible, open: true, seq: place.seq, at_ms: self.now_ms, detail },
            )?;
            return Ok(None);
        }
        Ok(Some((change, row, recorded)))
    }

    /// Only the key is spelled otherwise than before: to the server that is the same key, so there is nothing to say.
    fn respelled(&mut self, shape: &Captured, place: &Place, recorded: Option<&Recorded>, row: &Whole) -> Result<(), SyncError> {
        let Some(mut recorded) = recorded.cloned() else { return Ok(()) };
        recorded.note(spelling(shape, &row.key));
        self.outbox.record(place.table, &place.key, Some(&recorded))?;
        Ok(self.outbox.put(place.table, &place.key, None)?)
    }

    fn row(&mut self, shape: &'t Captured, key: &Key) -> Result<Option<Whole>, SyncError> {
        if self.values.as_ref().is_none_or(|(id, _)| *id != shape.id) {
            self.values = Some((shape.id, Values::open(self.connection, shape)?));
        }
        self.values.as_mut().expect("it was put there").1.read(key)
    }
}

/// Gives each edit of a row its clock, in the order in which they were made. Returns the latest.
fn fix(entry: &mut Entry, clocks: &mut Clocks) -> Clock {
    entry.edits.sort_by_key(|edit| edit.stamp.seq);
    let mut latest = Clock::ZERO;
    for edit in &mut entry.edits {
        let clock = match edit.sent {
            Sent::As(bits) => Clock::from_bits(bits).unwrap_or_default(),
            Sent::Never | Sent::EditedSince => clocks.of(&edit.stamp),
        };
        edit.sent = Sent::As(clock.bits());
        latest = latest.max(clock);
    }
    latest
}

/// The columns that are sent: those that were edited; of a row that the server has not, all.
fn cells(shape: &Captured, entry: &Entry, recorded: Option<&Recorded>, row: &Whole, latest: Clock, seen: u64) -> Vec<Cell> {
    let whole = entry.deed == Deed::Insert || recorded.is_none_or(|r| r.gone);
    let cell = |column: u32| -> Option<Cell> {
        let edit = entry.edits.iter().find(|edit| edit.columns.contains(&column));
        if edit.is_none() && !whole {
            return None;
        }
        let clock = edit.map_or(latest, |edit| match edit.sent {
            Sent::As(bits) => Clock::from_bits(bits).unwrap_or_default(),
            Sent::Never | Sent::EditedSince => latest,
        });
        let base = edit.and_then(|e| e.base).unwrap_or(if edit.is_some() { 0 } else { seen }).min(seen);
        Some(Cell { column, value: row.cell(column)?.clone(), base, clock })
    };
    shape.columns.iter().filter_map(|column| cell(column.id)).collect()
}
