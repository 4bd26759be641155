//! Rows of the server on their way into the file. A landing is one transaction: the journal is folded first, so that what
//! the application wrote is known; then rows land or go to quarantine, each with its reason, and the cursor moves with them.

use std::collections::{BTreeSet, HashMap};

use rusqlite::Connection;
use whimbrel_shared::{change::Row, hlc::Clock, manifest::Keys, value::Value};

use super::{
    clock,
    echo::Landing,
    error::{SyncError, sqlite},
    fold::{Boot, Origin, fold},
    foreign::ForeignKey,
    shape::{Captured, Echo, KeyColumn},
    tables::{Exchanged, Tables},
    values::{canonical, recorded_hash, spelled, spelling, told},
    writer::{Refused, Writer},
};
use crate::store::{
    exchange::{self, Exchange},
    journal,
    key::Key,
    managed,
    outbox::{self, Deed, Edit, Entry, Outbox, Recorded, Sent, Stamp},
    quarantine::{self, Code, Waiting},
};

/// Rows in quarantine that are tried again in one landing.
const RETRIED: usize = 500;
/// Rows that were not told, in one transaction.
const UNTOLD: usize = 500;
/// Most rows that are tried together because each is in the other's way.
const TOGETHER: usize = 200;

/// What a landing did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Landed {
    /// Rows that were written, or deleted.
    pub rows: u64,
    /// Rows that went to quarantine.
    pub quarantined: u64,
    /// Rows that left it.
    pub released: u64,
}

/// Which rows are told.
#[derive(Clone, Copy, Debug)]
pub enum Told<'a> {
    /// What changed in the space.
    Changes,
    /// What this version of the schema knows and an older one did not: new columns, and every row of these tables.
    New(&'a BTreeSet<u32>),
}

/// Lands `rows`, which come in the order of their versions, and writes `stands`. Inside the caller's write transaction, with
/// foreign keys off. Rows that wait in quarantine are tried again. With an error the transaction is to be rolled back.
pub fn land(
    connection: &Connection,
    tables: &Tables,
    rows: &[Row],
    told: Told<'_>,
    stands: &mut Exchange,
    boot: &Boot,
    now_ms: i64,
) -> Result<Landed, SyncError> {
    fold(connection, boot, Origin::App, now_ms, None)?;
    let mut lander = Lander::open(connection, tables, now_ms)?;
    let newest = rows.iter().map(|r| r.clock).max().unwrap_or_default();
    let mut waits = lander.all(rows, told)?;
    lander.done.quarantined = waits.len() as u64;
    if lander.quarantine && (lander.done.rows > 0 || rows.is_empty()) {
        lander.retry(&mut waits)?;
    }
    lander.together(&mut waits)?;
    let done = lander.end(waits, boot, newest, stands)?;
    exchange::write(connection, stands)?;
    Ok(done)
}

/// A row that cannot land yet.
struct Waits<'r> {
    row: std::borrow::Cow<'r, Row>,
    key: Key,
    refused: Refused,
    /// If it was in quarantine before.
    before: Option<Before>,
}

/// How a row is in quarantine.
struct Before {
    /// When it came.
    at_ms: i64,
    /// How often it was tried.
    tries: u32,
    /// What was said of it, where that is not written again.
    said: Option<(Code, String)>,
}

/// Lands rows one by one.
pub(super) struct Lander<'c, 't> {
    connection: &'c Connection,
    tables: &'t Tables,
    pub(super) outbox: Outbox<'c>,
    writers: HashMap<u32, Writer<'c, 't>>,
    echo: Option<(Echo, Landing<'c>)>,
    /// Whether anything waits to be sent.
    unsent: bool,
    /// Whether anything is in quarantine.
    pub(super) quarantine: bool,
    /// Whether the application's triggers ran.
    rewrote: bool,
    /// Whether something landed under which an own answer may lie.
    pub(super) again: bool,
    now_ms: i64,
    pub(super) done: Landed,
}

fn refuse(code: Code, why: impl Into<String>) -> Result<Result<(), Refused>, SyncError> {
    Ok(Err(Refused { code, why: why.into(), key: false }))
}

impl<'c, 't> Lander<'c, 't> {
    /// Ready, in the caller's write transaction and with the journal folded.
    pub(super) fn open(connection: &'c Connection, tables: &'t Tables, now_ms: i64) -> Result<Self, SyncError> {
        if connection.is_autocommit() {
            return Err(SyncError::NoTransaction { doing: "landing rows" });
        }
        Ok(Self {
            connection,
            tables,
            outbox: Outbox::open(connection)?,
            writers: HashMap::new(),
            echo: None,
            unsent: !outbox::is_empty(connection)?,
            quarantine: quarantine::count(connection)? > 0,
            rewrote: false,
            again: false,
            now_ms,
            done: Landed::default(),
        })
    }

    /// Lands what can, parents before those who refer to them, deletions last. The rest comes back.
    fn all<'r>(&mut self, rows: &'r [Row], told: Told<'_>) -> Result<Vec<Waits<'r>>, SyncError> {
        let mut left: Vec<&'r Row> = rows.iter().collect();
        // Only where some of them refer to others the order matters.
        left.sort_by_key(|row| (row.values.is_none(), self.rank(row)));
        let mut waits = Vec::new();
        loop {
            let (before, mut again) = (left.len(), Vec::new());
            for row in left {
                let Some(key) = self.key(row) else {
                    waits.push(self.without_key(row));
                    continue;
                };
                match self.row(row, &key, told, true)? {
                    Ok(()) => {}
                    Err(refused) if matches!(refused.code, Code::ParentMissing | Code::HasChildren | Code::Unique) => {
                        again.push((row, key, refused));
                    }
                    Err(refused) => waits.push(Waits { row: std::borrow::Cow::Borrowed(row), key, refused, before: None }),
                }
            }
            if again.is_empty() || again.len() == before {
                let kept = |(row, key, refused)| Waits { row: std::borrow::Cow::Borrowed(row), key, refused, before: None };
                waits.extend(again.into_iter().map(kept));
                return Ok(waits);
            }
            left = again.into_iter().map(|(row, ..)| row).collect();
        }
    }

    /// Where rows of one table go one after the other, statements stay ready; triggers are switched seldom.
    fn rank(&self, row: &Row) -> (bool, u32) {
        let rewrite = self.tables.get(row.table).and_then(|t| t.shape.as_ref()).is_some_and(|s| s.echo == Echo::Rewrite);
        (rewrite, row.table)
    }

    fn key(&self, row: &Row) -> Option<Key> {
        match self.tables.get(row.table) {
            Some(table) => canonical(&row.key, &table.collations),
            None => spelled(&row.key),
        }
    }

    fn without_key<'r>(&self, row: &'r Row) -> Waits<'r> {
        let refused = Refused { code: Code::Refused, why: "its key is none that the table can have".to_owned(), key: false };
        let key = Key(vec![crate::store::key::KeyValue::Integer(row.version.cast_signed())]);
        Waits { row: std::borrow::Cow::Borrowed(row), key, refused, before: None }
    }

    /// Tries rows of the quarantine again.
    fn retry(&mut self, waits: &mut Vec<Waits<'_>>) -> Result<(), SyncError> {
        let mut left = quarantine::list(self.connection, RETRIED, &|id| self.tables.key_columns(id))?;
        left.retain(|w| !waits.iter().any(|new| new.row.table == w.row.table && new.key == w.key));
        let all = left.len() < RETRIED;
        loop {
            let (before, mut again) = (left.len(), Vec::new());
            for waiting in left {
                match self.row(&waiting.row, &waiting.key, Told::Changes, true)? {
                    Ok(()) => {
                        quarantine::remove(self.connection, waiting.row.table, &waiting.key)?;
                        self.done.released += 1;
                    }
                    Err(refused) => again.push((refused, waiting)),
                }
            }
            if again.is_empty() || again.len() == before {
                waits.extend(again.into_iter().map(|(refused, w)| Waits {
                    // Where all are tried every time nobody has to count, and what waits on and on is not written each time.
                    before: Some(Before { at_ms: w.at_ms, tries: w.tries, said: all.then_some((w.code, w.why)) }),
                    refused,
                    key: w.key,
                    row: std::borrow::Cow::Owned(w.row),
                }));
                return Ok(());
            }
            left = again.into_iter().map(|(_, waiting)| waiting).collect();
        }
    }

    /// Rows that are in each other's way (two that swap a unique value, two that refer to each other) land together: all of
    /// them are taken out, then put in, and what they refer to is looked at in the end. What does not fit even so stays out.
    fn together(&mut self, waits: &mut Vec<Waits<'_>>) -> Result<(), SyncError> {
        let may = |w: &Waits<'_>| w.row.values.is_some() && matches!(w.refused.code, Code::Unique | Code::ParentMissing);
        let mut chosen: Vec<usize> = (0..waits.len()).filter(|at| may(&waits[*at])).take(TOGETHER).collect();
        while chosen.len() > 1 {
            self.connection.execute_batch("SAVEPOINT whimbrel_together").map_err(sqlite("setting a savepoint"))?;
            let done = self.done.clone();
            let mut failed = Vec::new();
            for at in &chosen {
                self.take_out(&waits[*at])?;
            }
            for at in &chosen {
                let Waits { row, key, .. } = &waits[*at];
                if let Err(refused) = self.row(row, key, Told::Changes, false)? {
                    failed.push((*at, refused));
                }
            }
            if failed.is_empty() {
                for at in &chosen {
                    let Waits { row, .. } = &waits[*at];
                    if let Some(name) = self.dangles(row)? {
                        failed.push((*at, Refused { code: Code::ParentMissing, why: missing(&name), key: false }));
                    }
                }
            }
            if failed.is_empty() {
                self.connection.execute_batch("RELEASE whimbrel_together").map_err(sqlite("releasing a savepoint"))?;
                for at in chosen.iter().rev() {
                    let landed = waits.remove(*at);
                    if landed.before.is_some() {
                        quarantine::remove(self.connection, landed.row.table, &landed.key)?;
                        self.done.released += 1;
                    }
                }
                return Ok(());
            }
            self.connection.execute_batch("ROLLBACK TO whimbrel_together; RELEASE whimbrel_together").map_err(sqlite("going back to a savepoint"))?;
            self.done = done;
            for (at, refused) in failed {
                waits[at].refused = refused;
                chosen.retain(|other| *other != at);
            }
        }
        Ok(())
    }

    /// Takes a row that is to be replaced out of the way, if nothing of it is unsent.
    fn take_out(&mut self, waits: &Waits<'_>) -> Result<(), SyncError> {
        let table = waits.row.table;
        if self.outbox.entry(table, &waits.key)?.is_some() {
            return Ok(());
        }
        let tables = self.tables;
        let Some(shape) = tables.get(table).and_then(Exchanged::lands) else { return Ok(()) };
        let values: BTreeSet<u32> = waits.row.values.iter().flatten().map(|(id, _)| *id).collect();
        // What the server does not tell of the row would be lost.
        let whole = shape.columns.iter().all(|c| values.contains(&c.id)) && !self.has_more_columns(shape)?;
        if whole {
            self.with_echo(shape)?;
            if self.writer(shape).delete(&waits.key)?.is_ok() {
                self.outbox.record(table, &waits.key, None)?;
            }
        }
        Ok(())
    }

    /// Whether the table has columns that no version of the chain knows.
    fn has_more_columns(&self, shape: &Captured) -> Result<bool, SyncError> {
        let doing = "reading the shape of a table";
        let columns: i64 = self
            .connection
            .prepare_cached("SELECT count(*) FROM pragma_table_xinfo(?1, 'main') WHERE hidden = 0")
            .and_then(|mut s| s.query_row([&shape.name], |row| row.get(0)))
            .map_err(sqlite(doing))?;
        Ok(columns != (shape.key.len() + shape.columns.len()) as i64)
    }

    /// One row. `Err`: why it cannot land now; then nothing of it was written. `judged`: it waits where it refers to a row
    /// that is not there.
    pub(super) fn row(&mut self, row: &Row, key: &Key, told: Told<'_>, judged: bool) -> Result<Result<(), Refused>, SyncError> {
        let tables = self.tables;
        let Some(table) = tables.get(row.table) else {
            return refuse(Code::CannotWrite, "no rows of its table are exchanged at this version");
        };
        let recorded = self.outbox.recorded(row.table, key)?;
        if let Told::New(tables) = told {
            match &recorded {
                None if !tables.contains(&row.table) => return Ok(Ok(())),
                Some(_) => return self.columns(table, row, key, recorded),
                None => {}
            }
        }
        if let Some(known) = recorded.as_ref().filter(|r| row.version <= r.version) {
            if known.untold {
                let known = Recorded { untold: false, ..known.clone() };
                self.outbox.record(row.table, key, Some(&known))?;
                // It may have been told last before the file had all of its columns.
                return self.columns(table, row, key, Some(known));
            }
            return Ok(Ok(()));
        }
        let mut entry = if self.unsent { self.outbox.entry(row.table, key)? } else { None };
        let Some(shape) = table.lands() else {
            return refuse(Code::CannotWrite, "whimbrel cannot write rows of its table in this file");
        };
        let global = table.rules.keys == Some(Keys::Global);
        if recorded.is_none()
            // An edit of a row of which nothing is recorded yet: the server took the row, and tells it now.
            && let Some(entry) = entry.as_ref().filter(|e| e.deed == Deed::Delete || e.deed == Deed::Insert && !global)
        {
            if let Some(values) = self.original(shape, row, key, entry)? {
                let mut same = Recorded { version: row.version, ..Recorded::default() };
                same.note(values.iter().map(|(id, value)| (*id, recorded_hash(value))).chain(spelling(shape, &row.key)));
                self.outbox.put(row.table, key, None)?;
                self.outbox.record(row.table, key, Some(&same))?;
                quarantine::remove(self.connection, row.table, key)?;
                return Ok(Ok(()));
            }
            return refuse(Code::Undecided, "a row was made here under its key; the next push says whether they are one");
        }
        if let (Some(known), Some(entry)) = (&recorded, entry.as_mut().filter(|e| e.deletes_unseen())) {
            let values = row.values.as_deref().unwrap_or_default();
            if row.values.is_some() && (known.gone || values.iter().any(|(id, value)| known.hash(*id) != Some(recorded_hash(value)))) {
                return refuse(Code::Undecided, "a row of its key was deleted here; the next push says whether it is this one");
            }
            // It is told as it was when it was deleted.
            entry.edits.iter_mut().for_each(|edit| edit.base = Some(row.version));
            self.outbox.put(row.table, key, Some(entry))?;
        }
        let written = match &row.values {
            None => self.deleted(shape, row, key, entry.as_ref())?,
            Some(values) => self.present(shape, row, values, key, recorded.as_ref(), entry.as_ref(), judged)?,
        };
        if let Err(refused) = written {
            return Ok(Err(refused));
        }
        if let Some(Entry { deed: Deed::Insert, edits }) = entry.filter(|_| row.values.is_some()) {
            // One key is one thing here: what was made is an edit of what there is.
            self.outbox.put(row.table, key, Some(&Entry { deed: Deed::Edit, edits }))?;
        }
        let recorded = match &row.values {
            None => Recorded { version: row.version, hashes: Vec::new(), gone: true, untold: false },
            Some(values) => {
                let mut now = Recorded { version: row.version, gone: false, untold: false, ..recorded.filter(|r| !r.gone).unwrap_or_default() };
                now.note(values.iter().map(|(id, value)| (*id, recorded_hash(value))).chain(spelling(shape, &row.key)));
                now
            }
        };
        self.outbox.record(row.table, key, Some(&recorded))?;
        if self.quarantine {
            quarantine::remove(self.connection, row.table, key)?;
        }
        self.done.rows += 1;
        Ok(Ok(()))
    }

    /// The values of a row that was new here when the file was copied, and that its original has sent: it is the same one where
    /// nothing differs.
    fn original<'r>(&mut self, shape: &'t Captured, row: &'r Row, key: &Key, entry: &Entry) -> Result<Option<&'r [(u32, Value)]>, SyncError> {
        let inherited = managed::inherited(self.connection)?.is_some_and(|(seq, _)| entry.deed == Deed::Insert && entry.seq() <= seq);
        let (true, Some(values)) = (inherited, &row.values) else { return Ok(None) };
        let Some(here) = self.writer(shape).read(key)? else { return Ok(None) };
        let same = values.len() == here.cells.len() && values.iter().all(|(id, value)| here.cell(*id) == Some(value));
        Ok(same.then_some(values))
    }

    /// Columns that the file did not have when it landed the row.
    fn columns(&mut self, table: &'t Exchanged, row: &Row, key: &Key, recorded: Option<Recorded>) -> Result<Result<(), Refused>, SyncError> {
        let (Some(shape), Some(values), Some(mut recorded)) = (table.lands(), &row.values, recorded.filter(|r| !r.gone)) else { return Ok(Ok(())) };
        let entry = if self.unsent { self.outbox.entry(row.table, key)? } else { None };
        if entry.as_ref().is_some_and(|e| e.deed == Deed::Delete) {
            return Ok(Ok(()));
        }
        let dirty = |id: u32| entry.iter().flat_map(|e| &e.edits).any(|e| e.columns.contains(&id));
        let news: Vec<(u32, &Value)> = values.iter().filter(|(id, _)| recorded.hash(*id).is_none()).map(|(id, value)| (*id, value)).collect();
        let written: Vec<_> = news.iter().filter(|(id, _)| !dirty(*id)).copied().collect();
        if !written.is_empty() {
            self.with_echo(shape)?;
            if let Err(refused) = self.writer(shape).update(key, None, &written)? {
                return Ok(Err(refused));
            }
            self.done.rows += 1;
        }
        recorded.note(news.iter().map(|(id, value)| (*id, recorded_hash(value))));
        self.outbox.record(row.table, key, Some(&recorded))?;
        Ok(Ok(()))
    }

    /// The server deleted it.
    fn deleted(&mut self, shape: &'t Captured, row: &Row, key: &Key, entry: Option<&Entry>) -> Result<Result<(), Refused>, SyncError> {
        if entry.is_some() {
            // What was edited here meanwhile is for the server to decide, with the next push.
            return Ok(Ok(()));
        }
        for foreign in self.tables.foreign.iter().filter(|f| f.parent.0 == Some(row.table)) {
            if foreign.is_referred_to(self.connection, shape, key)? {
                return refuse(Code::HasChildren, format!("it was deleted, and rows of {} here still refer to it", foreign.child.1));
            }
        }
        self.with_echo(shape)?;
        self.writer(shape).delete(key)
    }

    fn present(
        &mut self,
        shape: &'t Captured,
        row: &Row,
        values: &[(u32, Value)],
        key: &Key,
        recorded: Option<&Recorded>,
        entry: Option<&Entry>,
        judged: bool,
    ) -> Result<Result<(), Refused>, SyncError> {
        if entry.is_some_and(|e| e.deed == Deed::Delete) {
            return Ok(Ok(()));
        }
        if judged && let Some(name) = self.dangles(row)? {
            return refuse(Code::ParentMissing, missing(&name));
        }
        self.with_echo(shape)?;
        let known = |id: u32| shape.columns.binary_search_by_key(&id, |c| c.id).is_ok();
        let dirty = |id: u32| entry.iter().flat_map(|e| &e.edits).any(|e| e.columns.contains(&id));
        let all = || values.iter().filter(|(id, _)| known(*id)).map(|(id, value)| (*id, value));
        let there = recorded.is_some_and(|r| !r.gone) || entry.is_some();
        if !there {
            match self.writer(shape).insert(&row.key, &all().collect::<Vec<_>>())? {
                Ok(()) => return Ok(Ok(())),
                // It is here and was never told of: its own push was answered, and this is the row.
                Err(refused) if refused.key => {}
                Err(refused) => return Ok(Err(refused)),
            }
        }
        let changed = |id: u32, value: &Value| recorded.and_then(|r| r.hash(id)) != Some(recorded_hash(value));
        let cells: Vec<_> = all().filter(|(id, value)| !dirty(*id) && changed(*id, value)).collect();
        let respelled = spelling(shape, &row.key).any(|(id, hash)| !dirty(id) && recorded.and_then(|r| r.hash(id)) != Some(hash));
        if cells.is_empty() && !respelled {
            return Ok(Ok(()));
        }
        match self.writer(shape).update(key, respelled.then_some(row.key.as_slice()), &cells)? {
            Ok(true) => Ok(Ok(())),
            // The file lost it and nobody noticed: it comes back whole.
            Ok(false) => self.writer(shape).insert(&row.key, &all().collect::<Vec<_>>()),
            Err(refused) => Ok(Err(refused)),
        }
    }

    /// The name of a table in which the row refers to a row that is not there. One that was made here under that key is another, until
    /// a push has said otherwise: it may get another key.
    fn dangles(&mut self, row: &Row) -> Result<Option<String>, SyncError> {
        let (Some(values), Some(shape)) = (&row.values, self.tables.get(row.table).and_then(|t| t.shape.as_ref())) else { return Ok(None) };
        let of = |name: &str| {
            if let Some(at) = shape.key.iter().position(|k| k.name.eq_ignore_ascii_case(name)) {
                return row.key.get(at);
            }
            let column = shape.columns.iter().find(|c| c.name.eq_ignore_ascii_case(name))?;
            values.iter().find(|(id, _)| *id == column.id).map(|(_, value)| value)
        };
        let tables = self.tables;
        for foreign in tables.foreign.iter().filter(|f| f.child.0 == Some(row.table)) {
            // A row may refer to itself.
            let itself = foreign.parent.0 == Some(row.table) && foreign.columns.iter().zip(&foreign.refers_to).all(|(from, to)| of(from) == of(to));
            if !itself && (foreign.dangles(self.connection, of)? || self.is_made_here(foreign, of)?) {
                return Ok(Some(foreign.parent.1.clone()));
            }
        }
        Ok(None)
    }

    /// Whether a row that has these values by column name refers by key to one that was made here, in a table in which one key may be
    /// two rows.
    fn is_made_here<'v>(&mut self, foreign: &ForeignKey, of: impl Fn(&str) -> Option<&'v Value>) -> Result<bool, SyncError> {
        let tables = self.tables;
        let parent = foreign.parent.0.and_then(|id| tables.get(id)).filter(|t| self.unsent && t.rules.keys != Some(Keys::Global));
        let Some((parent, shape)) = parent.and_then(|t| Some((t, t.shape.as_ref()?))) else { return Ok(false) };
        let value = |key: &KeyColumn| {
            let at = foreign.refers_to.iter().position(|name| name.eq_ignore_ascii_case(&key.name))?;
            of(&foreign.columns[at]).cloned()
        };
        let Some(told) = shape.key.iter().map(value).collect::<Option<Vec<_>>>() else { return Ok(false) };
        let Some(key) = canonical(&told, &parent.collations) else { return Ok(false) };
        Ok(self.outbox.entry(shape.id, &key)?.is_some_and(|e| e.deed == Deed::Insert))
    }

    /// The time of an edit that is made of what is known now: later than every clock that the file knows.
    pub(super) fn stamp(&self) -> Result<Stamp, SyncError> {
        Ok(Stamp { wall_ms: self.now_ms, boot: 0, seq: journal::extent(self.connection)?.last + 1 })
    }

    pub(super) fn writer(&mut self, shape: &'t Captured) -> &mut Writer<'c, 't> {
        self.writers.entry(shape.id).or_insert_with(|| Writer::new(self.connection, shape))
    }

    /// From here on, what is written to this table is landing.
    pub(super) fn with_echo(&mut self, shape: &Captured) -> Result<(), SyncError> {
        if self.echo.as_ref().is_none_or(|(echo, _)| *echo != shape.echo) {
            self.echo = None;
            self.echo = Some((shape.echo, Landing::begin(self.connection, shape.echo)?));
        }
        self.rewrote |= shape.echo == Echo::Rewrite;
        Ok(())
    }

    /// Lands what waited under a key, once it is known whose it is. What it says may be older than an own answer: then
    /// everything is told again.
    pub(super) fn land_waiting(&mut self, table: u32, key: &Key) -> Result<(), SyncError> {
        let Some(waiting) = quarantine::get(self.connection, table, key)? else { return Ok(()) };
        self.again = true;
        self.unsent = true;
        match self.row(&waiting.row, key, Told::Changes, true)? {
            Ok(()) => {
                quarantine::remove(self.connection, table, key)?;
                self.done.released += 1;
                Ok(())
            }
            Err(refused) => Ok(quarantine::put(
                self.connection,
                &Waiting { code: refused.code, why: refused.why, tries: waiting.tries.saturating_add(1), ..waiting },
            )?),
        }
    }

    /// A row that cannot land waits.
    pub(super) fn wait(&mut self, row: Row, key: Key, refused: Refused) -> Result<(), SyncError> {
        self.quarantine = true;
        self.done.quarantined += 1;
        Ok(quarantine::put(self.connection, &Waiting { key, row, code: refused.code, why: refused.why, at_ms: self.now_ms, tries: 0 })?)
    }

    /// Writes the quarantine, notes what the application's triggers made of what landed, and moves the clock.
    fn end(self, waits: Vec<Waits<'_>>, boot: &Boot, newest: Clock, stands: &mut Exchange) -> Result<Landed, SyncError> {
        for Waits { row, key, refused, before } in waits {
            let said = before.as_ref().and_then(|b| b.said.as_ref());
            if said.is_some_and(|(code, why)| *code == refused.code && *why == refused.why) {
                continue;
            }
            let (at_ms, tries) = before.map_or((self.now_ms, 0), |b| (b.at_ms, b.tries.saturating_add(1)));
            let row = row.into_owned();
            quarantine::put(self.connection, &Waiting { key, row, code: refused.code, why: refused.why, at_ms, tries })?;
        }
        self.finish(boot, newest, stands)
    }

    /// The same with nothing that waits.
    pub(super) fn finish(self, boot: &Boot, newest: Clock, stands: &mut Exchange) -> Result<Landed, SyncError> {
        let Self { connection, echo, rewrote, again, now_ms, done, .. } = self;
        drop(echo);
        stands.tell_again |= again;
        if rewrote {
            fold(connection, boot, Origin::Landing, now_ms, None)?;
        }
        if newest > Clock::ZERO {
            clock::advance(connection, journal::extent(connection)?.last, newest)?;
        }
        Ok(done)
    }
}

/// After everything was told anew: up to some rows that were known to the server and were not told. They are deleted there,
/// where versions count as before (`same_series`), and go here too; where the server forgot them, they are new. Inside the
/// caller's write transaction. Returns whether there may be more.
pub fn remove_untold(connection: &Connection, tables: &Tables, same_series: bool, boot: &Boot, now_ms: i64) -> Result<bool, SyncError> {
    fold(connection, boot, Origin::App, now_ms, None)?;
    let mut lander = Lander::open(connection, tables, now_ms)?;
    let stamp = lander.stamp()?;
    let mut stands = exchange::read(connection)?;
    let mut left = UNTOLD;
    for (id, table) in tables.iter() {
        let keys = outbox::untold(connection, id, table.collations.len(), left)?;
        left -= keys.len();
        for key in keys {
            let (Some(recorded), entry) = (lander.outbox.recorded(id, &key)?, lander.outbox.entry(id, &key)?) else { continue };
            let after = match (entry, table.shape.as_ref()) {
                // Gone on both sides.
                (Some(Entry { deed: Deed::Delete, .. }), _) => None,
                (Some(entry), _) => Some(Entry { deed: Deed::Insert, ..entry }),
                (None, _) if recorded.gone => None,
                (None, Some(shape)) if same_series => {
                    let row = Row { table: id, key: told(&key), version: recorded.version + 1, clock: Clock::ZERO, values: None };
                    if let Err(refused) = lander.deleted(shape, &row, &key, None)? {
                        let (code, why) = (refused.code, refused.why);
                        // What is known of it stays: told anew once more, it would be nobody's.
                        quarantine::put(connection, &Waiting { key, row, code, why, at_ms: now_ms, tries: 0 })?;
                        continue;
                    }
                    None
                }
                (None, Some(shape)) => {
                    let columns = shape.columns.iter().map(|c| c.id).collect();
                    let edit = Edit { base: None, stamp, sent: Sent::Never, derived: false, columns };
                    lander.writer(shape).read(&key)?.is_some().then(|| Entry { deed: Deed::Insert, edits: vec![edit] })
                }
                (None, None) => None,
            };
            lander.outbox.put(id, &key, after.as_ref())?;
            lander.outbox.record(id, &key, None)?;
        }
        if left == 0 {
            break;
        }
    }
    lander.finish(boot, Clock::ZERO, &mut stands)?;
    if left > 0 {
        (stands.anew, stands.was) = (false, None);
    }
    exchange::write(connection, &stands)?;
    Ok(left == 0)
}

fn missing(parent: &str) -> String {
    format!("it refers to a row of {parent} that is not here")
}

/// A key for people: `7`, or `a, 7`.
pub fn shown(key: &Key) -> String {
    told(key).iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(", ")
}
