//! What a person decides: of a conflict, and of a row in quarantine. What is given up on the way goes to the archive.
//!
//! Everything runs inside the caller's write transaction, with foreign keys off. The journal is folded first, so that what
//! the application wrote is known. What cannot be decided so leaves the file as it was.

use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use whimbrel_shared::{
    change::Row,
    hlc::Clock,
    remedy::{Remedy, here, wait},
    value::Value,
};

use super::{
    error::{SyncError, sqlite},
    fold::{Boot, Origin, fold},
    land::{Lander, Told, land},
    renumber,
    shape::Captured,
    tables::{Exchanged, Tables},
    values::{Whole, kept, recorded_hash, spelling, told},
    writer::Writer,
};
use crate::store::{
    archive::{self, Archived},
    conflict::{self, Conflict, Kind},
    exchange,
    key::Key,
    outbox::{Deed, Entry, Outbox, Recorded, Sent},
    quarantine::{self, Code},
};

/// What a person wants of a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// What was written here.
    Mine,
    /// What the server has.
    Theirs,
    /// Both: the row from here gets another key.
    Renumber,
    /// To be sent once more as it is.
    Retry,
}

impl Choice {
    const ALL: [(Self, &str); 4] = [(Self::Mine, "mine"), (Self::Theirs, "theirs"), (Self::Renumber, "renumber"), (Self::Retry, "retry")];

    /// One word, as the command line has it after `--`.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(choice, _)| *choice == self).map_or("retry", |(_, word)| word)
    }

    /// Those that decide a conflict of this kind.
    pub fn of(kind: Kind) -> Vec<Self> {
        Self::ALL.iter().map(|(choice, _)| *choice).filter(|choice| act(kind, *choice).is_some()).collect()
    }
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// The values that lost are written into the row.
    WriteAgain,
    /// The row is made with them.
    MakeAgain,
    /// The row is deleted.
    DeleteAgain,
    /// What stands stays.
    LetStand,
    /// The new row from here becomes an edit of the row that has its key.
    MakeEdit,
    /// The new row from here gets another key.
    Renumber,
    /// What is unsent of the row is given up.
    GiveUp,
    /// It is sent once more.
    SendAgain,
}

fn act(kind: Kind, choice: Choice) -> Option<Act> {
    match (kind, choice) {
        (Kind::Edits, Choice::Mine) => Some(Act::WriteAgain),
        (Kind::EditOfDeleted, Choice::Mine) => Some(Act::MakeAgain),
        (Kind::DeletionOfEdited, Choice::Mine) => Some(Act::DeleteAgain),
        (Kind::Edits | Kind::EditOfDeleted | Kind::DeletionOfEdited, Choice::Theirs) => Some(Act::LetStand),
        (Kind::KeyTaken, Choice::Mine) => Some(Act::MakeEdit),
        (Kind::KeyTaken, Choice::Renumber) => Some(Act::Renumber),
        (Kind::KeyTaken | Kind::UniqueTaken | Kind::Impossible | Kind::Held, Choice::Theirs) => Some(Act::GiveUp),
        (Kind::UniqueTaken | Kind::Impossible | Kind::Held, Choice::Retry) => Some(Act::SendAgain),
        (Kind::Edits | Kind::EditOfDeleted | Kind::DeletionOfEdited, Choice::Renumber | Choice::Retry)
        | (Kind::KeyTaken, Choice::Retry)
        | (Kind::UniqueTaken | Kind::Impossible | Kind::Held, Choice::Mine | Choice::Renumber) => None,
    }
}

/// Why it cannot be decided so. The file is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undecidable {
    /// There is no such conflict.
    #[error("no conflict has the number {0}")]
    NoConflict(i64),
    /// It is over.
    #[error("conflict {id} is over: {how}")]
    Over {
        /// Its number.
        id: i64,
        /// What became of it.
        how: String,
    },
    /// The choice means nothing for this kind.
    #[error("--{} decides nothing where the conflict is of the kind {}", choice.as_str(), kind.as_str())]
    NotFor {
        /// What was chosen.
        choice: Choice,
        /// What met what.
        kind: Kind,
    },
    /// The table exchanges no rows at this version.
    #[error("the table exchanges no rows at this version of the schema")]
    NoTable,
    /// There is no such row any more.
    #[error("the row {0} is not in the file any more")]
    RowGone(String),
    /// There is one again.
    #[error("a row {0} is in the file again")]
    RowBack(String),
    /// The other's row has not come yet.
    #[error("the other row with the key {0} is not here yet")]
    NotHere(String),
    /// Its key is no single number.
    #[error("rows of {0} cannot get another key: it is not one number")]
    NoNumber(String),
    /// The largest number is taken.
    #[error("{0} has no free key left")]
    NoFreeKey(String),
    /// Rows refer to it.
    #[error("rows of {0} refer to it")]
    Referred(String),
    /// The file does not take it.
    #[error("the file does not take it: {0}")]
    Refused(String),
    /// Nothing waits under the key.
    #[error("no row {0} waits in quarantine")]
    NotWaiting(String),
    /// A push decides it first.
    #[error("a row {0} was made here too, and the next exchange says whether they are one")]
    Unasked(String),
}

impl Undecidable {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::NoConflict(_) => here("`whimbrel conflicts list --all` shows them with their numbers"),
            Self::Over { .. } => here("nothing to decide; to change the row, edit it in the application"),
            Self::NotFor { kind, .. } => {
                let may: Vec<String> = Choice::of(*kind).into_iter().map(|c| format!("--{}", c.as_str())).collect();
                here(format!("use {}", may.join(" or ")))
            }
            Self::NoTable => here("what was written of it is in _whimbrel_archive"),
            Self::RowGone(_) => here("--theirs leaves it so; or make the row again in the application"),
            Self::RowBack(_) => here("--theirs leaves it as it is; or edit it in the application"),
            Self::NotHere(_) => here("run `whimbrel sync`, then decide again"),
            Self::NoNumber(_) | Self::NoFreeKey(_) => here("give the row another key in the application, or use --mine or --theirs"),
            Self::Referred(_) => here("delete or change those in the application first"),
            Self::Refused(_) => here("change the row in the application"),
            Self::NotWaiting(_) => here("`whimbrel quarantine list` shows what does"),
            Self::Unasked(_) => wait("it is asked with the next exchange; `whimbrel conflicts list` shows it if a person has to decide"),
        }
    }
}

type Outcome = Result<String, Undecidable>;

/// The file in which something is decided.
#[derive(Debug)]
pub struct Deciding<'a> {
    /// In the caller's write transaction.
    pub connection: &'a Connection,
    /// The tables at the version that the file has completed.
    pub tables: &'a Tables,
    /// That version.
    pub version: u32,
    /// This boot of the machine.
    pub boot: &'a Boot,
    /// The time on the wall.
    pub now_ms: i64,
}

impl<'a> Deciding<'a> {
    /// Decides a conflict. Returns what was done, in words.
    pub fn resolve(&self, id: i64, choice: Choice) -> Result<Outcome, SyncError> {
        fold(self.connection, self.boot, Origin::App, self.now_ms, None)?;
        let Some(it) = conflict::get(self.connection, id, &|table| self.tables.key_columns(table))? else {
            return Ok(Err(Undecidable::NoConflict(id)));
        };
        if let Some(how) = &it.detail.decided {
            // Asked twice, as after a crash: the answer is the same.
            let same = how.strip_prefix(choice.as_str()).and_then(|rest| rest.strip_prefix(": "));
            return Ok(same.map(str::to_owned).ok_or_else(|| Undecidable::Over { id, how: how.clone() }));
        }
        if it.is_over() {
            return Ok(Err(Undecidable::Over { id, how: "the row was accepted since, or is gone".to_owned() }));
        }
        let Some(act) = act(it.kind, choice) else { return Ok(Err(Undecidable::NotFor { choice, kind: it.kind })) };
        let Some(table) = self.tables.get(it.table) else { return Ok(Err(Undecidable::NoTable)) };
        let Some(shape) = table.shape.as_ref() else { return Ok(Err(Undecidable::NoTable)) };
        self.whole(|| {
            let words = match act {
                Act::WriteAgain => self.write_again(shape, &it)?,
                Act::MakeAgain => self.make_again(shape, &it)?,
                Act::DeleteAgain => self.delete_again(shape, &it)?,
                Act::LetStand => self.let_stand(shape, &it)?,
                Act::MakeEdit => self.make_edit(shape, &it)?,
                Act::Renumber => self.renumber(shape, &it)?,
                Act::GiveUp => self.give_up(table, shape, &it)?,
                Act::SendAgain => Ok("it is sent again with the next exchange".to_owned()),
            };
            if let Ok(words) = &words {
                conflict::decide(self.connection, &it, &format!("{}: {words}", choice.as_str()))?;
            }
            Ok(words)
        })
    }

    /// Tries the rows in quarantine again. Returns how many landed, and how many wait still.
    pub fn retry_waiting(&self) -> Result<(u64, u64), SyncError> {
        let before = quarantine::count(self.connection)?;
        self.land_what_can()?;
        let left = quarantine::count(self.connection)?;
        Ok((before.saturating_sub(left), left))
    }

    /// Does without a row that waits in quarantine, until the server has another version of it. Returns what is lost here.
    pub fn drop_waiting(&self, table: u32, key: &Key) -> Result<Outcome, SyncError> {
        fold(self.connection, self.boot, Origin::App, self.now_ms, None)?;
        let Some(waiting) = quarantine::get(self.connection, table, key)? else { return Ok(Err(Undecidable::NotWaiting(shown(key)))) };
        let mut outbox = Outbox::open(self.connection)?;
        let entry = outbox.entry(table, key)?;
        if matches!(waiting.code, Code::Undecided | Code::KeyTaken) && entry.is_some() {
            return Ok(Err(Undecidable::Unasked(shown(key))));
        }
        self.whole(|| {
            let (version, wall_ms) = (waiting.row.version, wall_ms(&waiting.row));
            let name = self.tables.get(table).and_then(|t| t.shape.as_ref());
            for (column, value) in waiting.row.values.iter().flatten() {
                let column = (*column, name.map_or("", |shape| name_of(shape, *column)).to_owned());
                let why = format!("dropped from quarantine; the server has it in version {version}");
                self.archive((table, name.map_or("", |s| s.name.as_str())), &waiting.row.key, Some(column), Some(value), wall_ms, &why)?;
            }
            let recorded = match outbox.recorded(table, key)?.filter(|r| !r.gone) {
                // The row stays here as it is; it is known that the server went on.
                Some(recorded) => Recorded { version, untold: false, ..recorded },
                None => Recorded { version, hashes: Vec::new(), gone: true, untold: false },
            };
            outbox.record(table, key, Some(&recorded))?;
            quarantine::remove(self.connection, table, key)?;
            let lost = match &waiting.row.values {
                Some(values) if recorded.gone => format!("its {} values are not in this file", values.len()),
                Some(values) => format!("the row stays here as it is, without the {} values of the server", values.len()),
                None => "the row stays here, and is deleted at the server".to_owned(),
            };
            Ok(Ok(format!("{lost}; they are in _whimbrel_archive, and the row comes again when it changes at the server")))
        })
    }

    /// All of it or, where it cannot be decided so, nothing. What is possible now lands.
    fn whole(&self, work: impl FnOnce() -> Result<Outcome, SyncError>) -> Result<Outcome, SyncError> {
        self.connection.execute_batch("SAVEPOINT whimbrel_decide").map_err(sqlite("setting a savepoint"))?;
        let outcome = work()?;
        let end = if outcome.is_ok() { "RELEASE whimbrel_decide" } else { "ROLLBACK TO whimbrel_decide; RELEASE whimbrel_decide" };
        self.connection.execute_batch(end).map_err(sqlite("ending a savepoint"))?;
        if outcome.is_ok() {
            self.land_what_can()?;
        }
        Ok(outcome)
    }

    /// Folds what was written, and tries what waits in quarantine.
    fn land_what_can(&self) -> Result<(), SyncError> {
        let mut stands = exchange::read(self.connection)?;
        land(self.connection, self.tables, &[], Told::Changes, &mut stands, self.boot, self.now_ms).map(|_| ())
    }

    /// As the application would: triggers run, and it is an edit like any other.
    fn write_again(&self, shape: &'a Captured, it: &Conflict) -> Result<Outcome, SyncError> {
        let mut writer = Writer::new(self.connection, shape);
        let Some(row) = writer.read(&it.key)? else { return Ok(Err(Undecidable::RowGone(shown(&it.key)))) };
        let mut cells = Vec::new();
        for column in &it.detail.columns {
            let (Some(mine), Some(now)) = (&column.arrived, row.cell(column.column)) else { continue };
            if mine == now {
                continue;
            }
            // What stands is the server's. Anything else was written here since, and would be gone.
            if column.there.as_ref() != Some(now) {
                self.archive_cell(shape, &row.key, (column.column, now), self.now_ms, "another value was decided for in a conflict")?;
            }
            cells.push((column.column, mine));
        }
        cells.sort_by_key(|(id, _)| *id);
        if cells.is_empty() {
            return Ok(Ok("the row has these values already".to_owned()));
        }
        Ok(match writer.update(&it.key, None, &cells)? {
            Ok(true) => Ok(format!("written into the row again: {}", names(shape, cells.iter().map(|(id, _)| *id)))),
            Ok(false) => Err(Undecidable::RowGone(shown(&it.key))),
            Err(refused) => Err(Undecidable::Refused(refused.why)),
        })
    }

    fn make_again(&self, shape: &'a Captured, it: &Conflict) -> Result<Outcome, SyncError> {
        let mut writer = Writer::new(self.connection, shape);
        if writer.read(&it.key)?.is_some() {
            return Ok(Err(Undecidable::RowBack(shown(&it.key))));
        }
        let known = |id: u32| shape.columns.iter().any(|c| c.id == id);
        let mut cells: Vec<(u32, &Value)> =
            it.detail.columns.iter().filter_map(|c| Some((c.column, c.arrived.as_ref()?))).filter(|(id, _)| known(*id)).collect();
        cells.sort_by_key(|(id, _)| *id);
        let key = it.key();
        let missing: Vec<u32> = shape.columns.iter().map(|c| c.id).filter(|id| !cells.iter().any(|(known, _)| known == id)).collect();
        Ok(match writer.insert(&key, &cells)? {
            Ok(()) if missing.is_empty() => Ok("the row is made again".to_owned()),
            Ok(()) => Ok(format!("the row is made again; {} had no value in the conflict and got their defaults", names(shape, missing.into_iter()))),
            Err(refused) => Err(Undecidable::Refused(refused.why)),
        })
    }

    fn delete_again(&self, shape: &'a Captured, it: &Conflict) -> Result<Outcome, SyncError> {
        let mut writer = Writer::new(self.connection, shape);
        let Some(row) = writer.read(&it.key)? else { return Ok(Ok("the row is gone already".to_owned())) };
        if let Some(by) = self.referred(shape, &it.key)? {
            return Ok(Err(Undecidable::Referred(by)));
        }
        self.archive_row(shape, &row, self.now_ms, "the row was deleted again, as decided in a conflict")?;
        Ok(match writer.delete(&it.key)? {
            Ok(()) => Ok("the row is deleted again; what it held is in _whimbrel_archive".to_owned()),
            Err(refused) => Err(Undecidable::Refused(refused.why)),
        })
    }

    fn let_stand(&self, shape: &'a Captured, it: &Conflict) -> Result<Outcome, SyncError> {
        let why = "what the server has was decided for in a conflict";
        let key = it.key();
        if it.kind == Kind::DeletionOfEdited {
            self.archive((shape.id, &shape.name), &key, None, None, it.at_ms, why)?;
            return Ok(Ok("the row stays".to_owned()));
        }
        for column in &it.detail.columns {
            if let Some(mine) = &column.arrived {
                self.archive_cell(shape, &key, (column.column, mine), it.at_ms, why)?;
            }
        }
        Ok(Ok("what the server has stays; what was written here is in _whimbrel_archive".to_owned()))
    }

    /// One key is one thing after all: what is different here is an edit that saw the other row.
    fn make_edit(&self, shape: &'a Captured, it: &Conflict) -> Result<Outcome, SyncError> {
        let Some(waiting) = quarantine::get(self.connection, it.table, &it.key)? else { return Ok(Err(Undecidable::NotHere(shown(&it.key)))) };
        let mut outbox = Outbox::open(self.connection)?;
        let entry = outbox.entry(it.table, &it.key)?.filter(|e| e.deed == Deed::Insert);
        let (Some(entry), Some(row)) = (entry, Writer::new(self.connection, shape).read(&it.key)?) else {
            return Ok(Err(Undecidable::RowGone(shown(&it.key))));
        };
        let at_ms = wall_ms(&waiting.row);
        let Row { version, values, key, .. } = waiting.row;
        let gone = values.is_none();
        let mut recorded = Recorded { version, hashes: Vec::new(), gone, untold: false };
        if let Some(values) = &values {
            recorded.note(values.iter().map(|(id, value)| (*id, recorded_hash(value))).chain(spelling(shape, &key)));
        }
        let spelled: Vec<(u32, u64)> = spelling(shape, &row.key).collect();
        let here = |id: u32| row.cell(id).map(recorded_hash).or_else(|| spelled.iter().find(|(k, _)| *k == id).map(|(_, hash)| *hash));
        let differs = |id: &u32| gone || recorded.hash(*id) != here(*id);
        let mut edits = entry.edits;
        for edit in &mut edits {
            edit.columns.retain(differs);
            // It was sent as another row; as an edit it has a clock of its own.
            (edit.base, edit.sent) = (Some(version), Sent::EditedSince);
        }
        edits.retain(|e| !e.columns.is_empty());
        for (id, theirs) in values.iter().flatten().filter(|(id, _)| differs(id)) {
            self.archive_cell(shape, &key, (*id, theirs), at_ms, "the row from here was decided for in a conflict about its key")?;
        }
        let changed = names(shape, edits.iter().flat_map(|e| e.columns.iter().copied()));
        outbox.put(it.table, &it.key, (!edits.is_empty()).then_some(Entry { deed: Deed::Edit, edits }).as_ref())?;
        outbox.record(it.table, &it.key, Some(&recorded))?;
        quarantine::remove(self.connection, it.table, &it.key)?;
        Ok(Ok(if changed.is_empty() {
            "both rows are the same".to_owned()
        } else {
            format!("the row from here is an edit of the other; its own stay: {changed}")
        }))
    }

    fn renumber(&self, shape: &'a Captured, it: &Conflict) -> Result<Outcome, SyncError> {
        if !renumber::can(shape) {
            return Ok(Err(Undecidable::NoNumber(shape.name.clone())));
        }
        if Writer::new(self.connection, shape).read(&it.key)?.is_none() {
            return Ok(Err(Undecidable::RowGone(shown(&it.key))));
        }
        let mut stands = exchange::read(self.connection)?;
        let free = renumber::to_free_key(self.connection, self.tables, shape, &it.key, self.boot, self.now_ms, &mut stands)?;
        exchange::write(self.connection, &stands)?;
        Ok(free.map(renumber::has_now).ok_or_else(|| Undecidable::NoFreeKey(shape.name.clone())))
    }

    /// What is unsent goes to the archive, and the row becomes what the server has.
    fn give_up(&self, table: &'a Exchanged, shape: &'a Captured, it: &Conflict) -> Result<Outcome, SyncError> {
        let why = "it was not sent, and what the server has was decided for in a conflict";
        let mut lander = Lander::open(self.connection, self.tables, self.now_ms)?;
        let mut stands = exchange::read(self.connection)?;
        let row = lander.writer(shape).read(&it.key)?;
        let recorded = lander.outbox.recorded(it.table, &it.key)?;
        let Some(entry) = lander.outbox.entry(it.table, &it.key)? else { return Ok(Ok("nothing of it is unsent any more".to_owned())) };
        let waits = quarantine::get(self.connection, it.table, &it.key)?;
        lander.outbox.put(it.table, &it.key, None)?;
        let words = match (recorded.filter(|r| !r.gone), entry.deed) {
            // The server never had it, or has it no more.
            (None, deed) => {
                if let Some(row) = &row {
                    let replaced = waits.as_ref().is_some_and(|w| w.row.values.is_some());
                    if let Some(by) = self.referred(shape, &it.key)?.filter(|_| !replaced) {
                        return Ok(Err(Undecidable::Referred(by)));
                    }
                    self.archive_row(shape, row, entry.edits.iter().map(|e| e.stamp.wall_ms).max().unwrap_or(self.now_ms), why)?;
                    lander.with_echo(shape)?;
                    if let Err(refused) = lander.writer(shape).delete(&it.key)? {
                        return Ok(Err(Undecidable::Refused(refused.why)));
                    }
                }
                if deed == Deed::Insert {
                    lander.outbox.record(it.table, &it.key, None)?;
                }
                lander.land_waiting(it.table, &it.key)?;
                "the row from here is given up; it is in _whimbrel_archive"
            }
            (Some(mut recorded), deed) => {
                let dirty: Vec<u32> = entry.edits.iter().flat_map(|e| e.columns.iter().copied()).collect();
                let key = row.as_ref().map_or_else(|| told(&it.key), |r| r.key.clone());
                for edit in &entry.edits {
                    for id in &edit.columns {
                        if let Some(value) = row.as_ref().and_then(|r| r.cell(*id)) {
                            self.archive_cell(shape, &key, (*id, value), edit.stamp.wall_ms, why)?;
                        }
                    }
                    if deed == Deed::Delete {
                        self.archive((shape.id, &shape.name), &key, None, None, edit.stamp.wall_ms, why)?;
                    }
                }
                if table.lands().is_some() {
                    // What is not known of it differs from what is told, so it is written when it is told again.
                    recorded.hashes.retain(|(id, _)| deed != Deed::Delete && !dirty.contains(id));
                    let before = recorded.version.saturating_sub(1);
                    recorded.version = before;
                    lander.outbox.record(it.table, &it.key, Some(&recorded))?;
                    if waits.is_some() {
                        lander.land_waiting(it.table, &it.key)?;
                    } else {
                        (stands.cursor, stands.tell_again) = (stands.cursor.min(before), true);
                    }
                    "what was written here is given up and in _whimbrel_archive; the row is told anew with the next exchange"
                } else {
                    recorded.note(row.iter().flat_map(|r| &r.cells).map(|(id, value)| (*id, recorded_hash(value))));
                    lander.outbox.record(it.table, &it.key, Some(&recorded))?;
                    "it is not sent; rows of this table only go up, so the row here stays as it is"
                }
            }
        };
        lander.finish(self.boot, Clock::ZERO, &mut stands)?;
        exchange::write(self.connection, &stands)?;
        Ok(Ok(words.to_owned()))
    }

    /// A table with rows that refer to this one.
    fn referred(&self, shape: &Captured, key: &Key) -> Result<Option<String>, SyncError> {
        for foreign in self.tables.foreign.iter().filter(|f| f.parent.0 == Some(shape.id)) {
            if foreign.is_referred_to(self.connection, shape, key)? {
                return Ok(Some(foreign.child.1.clone()));
            }
        }
        Ok(None)
    }

    fn archive_row(&self, shape: &Captured, row: &Whole, wall_ms: i64, why: &str) -> Result<(), SyncError> {
        self.archive((shape.id, &shape.name), &row.key, None, None, wall_ms, why)?;
        row.cells.iter().try_for_each(|(id, value)| self.archive_cell(shape, &row.key, (*id, value), wall_ms, why))
    }

    fn archive_cell(&self, shape: &Captured, key: &[Value], (column, value): (u32, &Value), wall_ms: i64, why: &str) -> Result<(), SyncError> {
        self.archive((shape.id, &shape.name), key, Some((column, name_of(shape, column).to_owned())), Some(value), wall_ms, why)
    }

    fn archive(
        &self,
        (id, name): (u32, &str),
        key: &[Value],
        column: Option<(u32, String)>,
        value: Option<&Value>,
        wall_ms: i64,
        why: &str,
    ) -> Result<(), SyncError> {
        let key = serde_json::to_string(key).expect("values have a JSON form");
        let (value, why) = (value.and_then(kept), why.to_owned());
        let one = Archived { at_ms: self.now_ms, version: self.version, why, table: (id, name.to_owned()), key, column, value, wall_ms };
        Ok(archive::put(self.connection, &one)?)
    }
}

fn name_of(shape: &Captured, column: u32) -> &str {
    let data = shape.columns.iter().find(|c| c.id == column).map(|c| c.name.as_str());
    data.or_else(|| shape.key.iter().find(|k| k.id == column).map(|k| k.name.as_str())).unwrap_or("")
}

fn names(shape: &Captured, columns: impl Iterator<Item = u32>) -> String {
    columns.map(|id| name_of(shape, id).to_owned()).collect::<Vec<_>>().join(", ")
}

/// When the newest of it was written, as its writers' clocks say.
fn wall_ms(row: &Row) -> i64 {
    i64::try_from(row.clock.wall_ms()).unwrap_or(i64::MAX)
}

fn shown(key: &Key) -> String {
    super::land::shown(key)
}
