//! What a push's answer means for the file: what was sent and is still the same is known to the server, what stands against
//! it lands, and what nobody can decide here waits for a person (docs/rows.md has the table).

use std::borrow::Cow;

use rusqlite::Connection;
use whimbrel_shared::{
    change::{Change, Edit as Sending, Row},
    hlc::Clock,
    manifest::Keys,
    protocol::{
        conflicts::KeptColumn,
        push::{Answer, Answered, Reason},
    },
    value::Value,
};

use super::{
    clock,
    error::SyncError,
    fold::{Boot, Origin, fold},
    land::{Lander, Told},
    push::Was,
    renumber,
    shape::Captured,
    tables::{Exchanged, Tables},
    values::{Whole, canonical, recorded_hash, spelling},
};
use crate::store::{
    conflict::{self, Conflict, Detail, Kind},
    exchange::{self, Exchange},
    journal,
    key::Key,
    outbox::{Deed, Edit, Entry, Recorded, Sent},
    quarantine,
};

/// What became of the changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Accepted as they were sent.
    pub accepted: u64,
    /// In which something of another stands.
    pub merged: u64,
    /// That wait for somebody to decide.
    pub open: u64,
    /// To which the answer came too late, or that the server had no room for: they are sent again.
    pub again: u64,
    /// Rows that got another key.
    pub renumbered: u64,
}

impl Settled {
    /// Whether all of them were accepted as they were sent, so that nothing landed.
    pub fn are_plain(&self) -> bool {
        self.merged + self.open + self.again + self.renumbered == 0
    }
}

/// What the answers of one push have in common.
#[derive(Clone, Copy, Debug)]
pub struct Of {
    /// The version of its first change.
    pub first: u64,
    /// The latest clock of what stands against it.
    pub newest: Clock,
    /// Whether the file knows everything that it wrote itself before. Else nothing that is accepted makes a row known.
    pub sure: bool,
}

/// Settles some of the answers to a push, inside the caller's write transaction. The journal
/// is folded first: what was edited since stays unsent. `was`: their rows as they were taken, where nobody wrote to the file
/// since, and these answers are all that changes anything. With an error the transaction is to be rolled back.
pub fn settle(
    connection: &Connection,
    tables: &Tables,
    answered: &[Answered<'_>],
    was: Option<&[Was]>,
    of: Of,
    stands: &mut Exchange,
    boot: &Boot,
    now_ms: i64,
) -> Result<Settled, SyncError> {
    fold(connection, boot, Origin::App, now_ms, None)?;
    let mut settling = Settling {
        connection,
        tables,
        lander: Lander::open(connection, tables, now_ms)?,
        first: of.first,
        sure: of.sure,
        open: conflict::any_open(connection)?,
        now_ms,
        done: Settled::default(),
        renumber: Vec::new(),
    };
    for (at, one) in answered.iter().enumerate() {
        // What one lands may change another's row.
        let was = was.filter(|_| settling.done.are_plain()).map(|was| &was[at]);
        settling.one(one, was)?;
    }
    let Settling { lander, done: mut settled, renumber, .. } = settling;
    lander.finish(boot, of.newest, stands)?;
    for (table, key) in renumber {
        // Rows of the application move, so triggers are seen to there.
        settled.renumbered += u64::from(renumber::renumber(connection, tables, table, &key, boot, now_ms, stands)?);
    }
    // Also where nothing of it landed: what stands against a push was seen.
    if of.newest > Clock::ZERO {
        clock::advance(connection, journal::extent(connection)?.last, of.newest)?;
    }
    exchange::write(connection, stands)?;
    Ok(settled)
}

struct Settling<'c, 't> {
    connection: &'c Connection,
    tables: &'t Tables,
    lander: Lander<'c, 't>,
    first: u64,
    /// Whether the file knows everything that it wrote itself. Else nothing that is accepted makes a row known: it is told again.
    sure: bool,
    /// Whether any row waited for a decision before.
    open: bool,
    now_ms: i64,
    done: Settled,
    /// Rows that get another key once all answers are in.
    renumber: Vec<(u32, Key)>,
}

impl Settling<'_, '_> {
    fn one(&mut self, answered: &Answered<'_>, was: Option<&Was>) -> Result<(), SyncError> {
        let change = answered.change;
        let tables = self.tables;
        let Some(table) = tables.get(change.table) else { return Ok(()) };
        let Some(shape) = table.shape.as_ref() else { return Ok(()) };
        let key = was.map(|was| was.key.clone());
        let Some(key) = key.or_else(|| canonical(&change.key, &table.collations)) else { return Ok(()) };
        let recorded = match was {
            Some(was) => was.recorded.clone(),
            None => self.lander.outbox.recorded(change.table, &key)?,
        };
        // Nothing waits where nothing did, until something of another stands.
        let may_wait = self.lander.quarantine || self.done.merged > 0;
        let waiting = if may_wait { quarantine::get(self.connection, change.table, &key)? } else { None };
        let seen = recorded.as_ref().map_or(0, |r| r.version).max(waiting.as_ref().map_or(0, |w| w.row.version));
        // It came late: what others did after it is here already, and what it says is no more.
        if seen >= self.first {
            self.done.again += 1;
            return Ok(());
        }
        let (entry, now) = match was {
            Some(was) => (Some(was.entry.clone()), was.row.as_ref().map(Cow::Borrowed)),
            None => (self.lander.outbox.entry(change.table, &key)?, self.lander.writer(shape).read(&key)?.map(Cow::Owned)),
        };
        let mut row = Answering { shape, change, key, row: now, recorded, seq: entry.as_ref().map_or(0, Entry::seq), entry };
        match answered.answer {
            None if self.sure => {
                self.done.accepted += 1;
                row.clear();
                row.know(answered.version.unwrap_or(0), &[]);
                self.settled(row, waiting.is_some(), false)
            }
            None | Some(Answer::Behind) => {
                self.done.accepted += 1;
                row.clear();
                row.took();
                // What others wrote may be older than where the file will stand when it gets there: to the server that would be told.
                self.lander.again = true;
                self.settled(row, false, waiting.is_some())
            }
            Some(Answer::Merged { version, stands }) => self.merged(row, version.filter(|_| self.sure), stands.as_deref(), waiting.is_some()),
            Some(Answer::SendWhole { seen }) => {
                self.done.again += 1;
                row.send_whole(*seen);
                self.write(&row)
            }
            Some(Answer::KeyTaken) if table.rules.keys == Some(Keys::Renumber) && renumber::can(shape) => {
                self.renumber.push((change.table, row.key));
                Ok(())
            }
            Some(Answer::KeyTaken) => self.open(row, Kind::KeyTaken, Detail::default()),
            Some(Answer::Rejected(Reason::UniqueTaken { columns, key })) => {
                let mine = |id: &u32| KeptColumn { column: *id, arrived: row.sent(*id).cloned(), there: None, taken: false };
                let detail = Detail { columns: columns.iter().map(mine).collect(), other_key: Some(key.clone()), ..Detail::default() };
                self.open(row, Kind::UniqueTaken, detail)
            }
            Some(Answer::Rejected(Reason::Impossible { why })) => {
                self.open(row, Kind::Impossible, Detail { why: Some(why.clone()), ..Detail::default() })
            }
            Some(Answer::Held { min_schema }) => self.open(row, Kind::Held, Detail { min_schema: Some(*min_schema), ..Detail::default() }),
            Some(Answer::Later) => {
                self.done.again += 1;
                Ok(())
            }
        }
    }

    /// Something of it lost.
    fn merged(&mut self, mut row: Answering<'_>, version: Option<u64>, stands: Option<&[(u32, Value)]>, waits: bool) -> Result<(), SyncError> {
        self.done.merged += 1;
        let shape = row.shape;
        let deletion = matches!(row.change.edit, Sending::Deleted { .. });
        // Whether the row is still gone here, by the deletion that lost.
        let undone = deletion && row.entry.as_ref().is_some_and(|e| e.deed == Deed::Delete) && row.row.is_none();
        let lost = row.lost(stands);
        let kind = match (deletion, stands) {
            (true, _) => Kind::DeletionOfEdited,
            (false, None) => Kind::EditOfDeleted,
            (false, Some(_)) => Kind::Edits,
        };
        row.clear();
        let detail = Detail { columns: lost, ..Detail::default() };
        self.keep(&row, kind, false, detail)?;
        if self.tables.get(shape.id).is_none_or(|t| Exchanged::lands(t).is_none()) {
            return self.settled(row, false, waits);
        }
        // What stands lands like any row of the server: what is in its way here is asked, and what cannot land now waits.
        let before = row.recorded.as_ref().map_or(0, |r| r.version);
        let told = version.unwrap_or(before + 1);
        let values = stands.map(<[_]>::to_vec);
        let stood = Row { table: shape.id, key: row.change.key.clone(), version: told, clock: Clock::ZERO, values };
        match stands {
            Some(_) if undone => row.recorded = None,
            Some(stands) => {
                row.know(if version.is_some() { told - 1 } else { before }, &[]);
                row.forget(stands);
            }
            None => {
                let known = row.recorded.take().unwrap_or_default();
                row.recorded = Some(Recorded { version: told - 1, gone: false, untold: false, ..known });
            }
        }
        let key = row.key.clone();
        self.lander.again |= version.is_none();
        if waits && version.is_none() {
            // The row waits here as a whole, and what this tells of it is a part.
            return self.settled(row, false, true);
        }
        self.settled(row, waits, false)?;
        match self.lander.row(&stood, &key, Told::Changes, true)? {
            Ok(()) if version.is_some() => {}
            landed => {
                // The row as a whole comes with the next pull, or waits here: the file knows no more of it than before.
                if let Some(known) = self.lander.outbox.recorded(shape.id, &key)? {
                    self.lander.outbox.record(shape.id, &key, Some(&Recorded { version: before, ..known }))?;
                }
                if let Err(refused) = landed {
                    self.lander.wait(stood, key, refused)?;
                }
            }
        }
        Ok(())
    }

    /// The row's edits wait.
    fn open(&mut self, row: Answering<'_>, kind: Kind, detail: Detail) -> Result<(), SyncError> {
        self.done.open += 1;
        // It was edited since it was sent: that edit is sent first.
        if row.entry.is_some() {
            self.keep(&row, kind, true, detail)?;
        }
        Ok(())
    }

    fn keep(&self, row: &Answering<'_>, kind: Kind, open: bool, detail: Detail) -> Result<(), SyncError> {
        // What was edited after it was sent is no part of it.
        let seq = if open && !row.is_as_sent() { row.seq - 1 } else { row.seq };
        let detail = Detail { key: row.change.key.clone(), ..detail };
        let (table, key) = (row.shape.id, row.key.clone());
        conflict::put(self.connection, &Conflict { id: 0, table, key, kind, open, seq, at_ms: self.now_ms, detail })?;
        Ok(())
    }

    /// Writes what is known now. `forget`: what waited under the key is older than that. `land`: it can land.
    fn settled(&mut self, row: Answering<'_>, forget: bool, land: bool) -> Result<(), SyncError> {
        self.write(&row)?;
        if self.open || self.done.open > 0 {
            conflict::close(self.connection, row.shape.id, &row.key)?;
        }
        if forget {
            quarantine::remove(self.connection, row.shape.id, &row.key)?;
        }
        if land {
            self.lander.land_waiting(row.shape.id, &row.key)?;
        }
        Ok(())
    }

    fn write(&mut self, row: &Answering<'_>) -> Result<(), SyncError> {
        self.lander.outbox.put(row.shape.id, &row.key, row.entry.as_ref())?;
        Ok(self.lander.outbox.record(row.shape.id, &row.key, row.recorded.as_ref())?)
    }
}

/// A row that was sent, and what is known of it.
struct Answering<'a> {
    shape: &'a Captured,
    change: &'a Change,
    key: Key,
    /// As it is now.
    row: Option<Cow<'a, Whole>>,
    recorded: Option<Recorded>,
    /// What waits of it.
    entry: Option<Entry>,
    /// The number of its last edit, before anything was cleared.
    seq: i64,
}

impl Answering<'_> {
    /// The value of a column that was sent.
    fn sent(&self, column: u32) -> Option<&Value> {
        match &self.change.edit {
            Sending::Present { cells, .. } => cells.iter().find(|c| c.column == column).map(|c| &c.value),
            Sending::Deleted { .. } => None,
        }
    }

    /// Whether nothing was edited since it was sent.
    fn is_as_sent(&self) -> bool {
        self.entry.as_ref().is_some_and(|e| e.edits.iter().all(|e| matches!(e.sent, Sent::As(_))))
    }

    /// Takes off what still is as it was sent.
    fn clear(&mut self) {
        let Some(mut entry) = self.entry.take() else { return };
        match &self.change.edit {
            Sending::Deleted { clock, .. } => {
                if entry.deed == Deed::Delete && entry.edits.iter().any(|e| e.sent == Sent::As(clock.bits())) {
                    return;
                }
            }
            Sending::Present { .. } if entry.deed == Deed::Delete => {}
            Sending::Present { .. } => {
                let same = |id: u32| self.sent(id).is_some_and(|sent| self.row.as_ref().and_then(|r| r.cell(id)) == Some(sent));
                let keys: Vec<u32> = self.shape.key.iter().map(|k| k.id).collect();
                let was_empty = entry.edits.iter().all(|e| e.columns.is_empty());
                for edit in &mut entry.edits {
                    // Written again since, the same value is a later write. How the key is spelled went with it.
                    let as_sent = matches!(edit.sent, Sent::As(_));
                    edit.columns.retain(|id| !(keys.contains(id) || as_sent && same(*id)));
                }
                entry.edits.retain(|e| !e.columns.is_empty());
                if entry.edits.is_empty() && (!was_empty || self.row.is_some()) {
                    return;
                }
                // The server has the row now: what is left is an edit of it.
                if entry.deed == Deed::Insert {
                    entry.deed = Deed::Edit;
                }
            }
        }
        self.entry = Some(entry);
    }

    /// The server has the row as it was sent, in this version, with `stands` where something else stands.
    fn know(&mut self, version: u64, stands: &[(u32, Value)]) {
        match &self.change.edit {
            Sending::Deleted { .. } if stands.is_empty() => {
                self.recorded = Some(Recorded { version, hashes: Vec::new(), gone: true, untold: false });
            }
            edit => {
                let mut recorded = self.recorded.take().filter(|r| !r.gone).unwrap_or_default();
                (recorded.version, recorded.untold) = (version, false);
                if let Sending::Present { cells, .. } = edit {
                    recorded.note(cells.iter().map(|c| (c.column, recorded_hash(&c.value))));
                    recorded.note(spelling(self.shape, &self.change.key));
                }
                recorded.note(stands.iter().map(|(id, value)| (*id, recorded_hash(value))));
                self.recorded = Some(recorded);
            }
        }
    }

    /// The server has what was sent, whatever else it has: where another value comes, that is a change. Where nothing was recorded, as
    /// of a new row, it is known from now on that there is something to delete.
    fn took(&mut self) {
        match (&self.change.edit, &mut self.recorded) {
            (Sending::Present { cells, .. }, recorded) => {
                let version = recorded.as_ref().map_or(0, |r| r.version);
                let mut now = recorded.take().filter(|r| !r.gone).unwrap_or(Recorded { version, ..Recorded::default() });
                now.note(cells.iter().map(|c| (c.column, recorded_hash(&c.value))));
                *recorded = Some(now);
            }
            // A row that comes after it is made anew, and not changed where it is not any more.
            (Sending::Deleted { .. }, Some(recorded)) => (recorded.gone, recorded.hashes) = (true, Vec::new()),
            (Sending::Deleted { .. }, None) => {}
        }
    }

    /// What is recorded of these columns does not count.
    fn forget(&mut self, columns: &[(u32, Value)]) {
        if let Some(recorded) = &mut self.recorded {
            recorded.hashes.retain(|(id, _)| !columns.iter().any(|(other, _)| other == id));
        }
    }

    /// The server forgot all of the row but that it was deleted: every column is sent, over that deletion.
    fn send_whole(&mut self, seen: u64) {
        self.recorded = Some(Recorded { version: seen, hashes: Vec::new(), gone: true, untold: false });
        if self.row.is_none() {
            return;
        }
        let clock = self.change.clock();
        let Some(entry) = &mut self.entry else { return };
        entry.deed = Deed::Edit;
        let stamp = entry.edits.iter().map(|e| e.stamp).max_by_key(|s| s.seq);
        let named: Vec<u32> = entry.edits.iter().flat_map(|e| e.columns.clone()).collect();
        for edit in &mut entry.edits {
            edit.base = Some(seen);
        }
        let rest: Vec<u32> = self.shape.columns.iter().map(|c| c.id).filter(|id| !named.contains(id)).collect();
        if let Some(stamp) = stamp.filter(|_| !rest.is_empty()) {
            entry.edits.push(Edit { base: Some(seen), stamp, sent: Sent::As(clock.bits()), derived: false, columns: rest });
        }
    }

    /// Both sides of what was sent and does not stand.
    fn lost(&self, stands: Option<&[(u32, Value)]>) -> Vec<KeptColumn> {
        match (&self.change.edit, stands) {
            (Sending::Deleted { .. }, stands) => stands
                .unwrap_or_default()
                .iter()
                .map(|(id, value)| KeptColumn { column: *id, arrived: None, there: Some(value.clone()), taken: false })
                .collect(),
            // The row goes here too: all of it is kept, so that it can be made again as it was.
            (Sending::Present { cells, .. }, None) => {
                let sent = || cells.iter().map(|c| (c.column, c.value.clone())).collect();
                let whole = self.row.as_ref().map_or_else(sent, |row| row.cells.clone());
                whole.into_iter().map(|(column, value)| KeptColumn { column, arrived: Some(value), there: None, taken: false }).collect()
            }
            (Sending::Present { .. }, Some(stands)) => stands
                .iter()
                .filter_map(|(id, value)| {
                    let arrived = self.sent(*id).filter(|sent| *sent != value)?;
                    Some(KeptColumn { column: *id, arrived: Some(arrived.clone()), there: Some(value.clone()), taken: false })
                })
                .collect(),
        }
    }
}
