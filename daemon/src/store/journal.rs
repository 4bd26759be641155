//! The journal that the triggers write (`_whimbrel_journal`), what is captured, and the tables that have to be swept.
//! Every function runs inside the caller's transaction.

use rusqlite::{Connection, params, params_from_iter, types::ValueRef};

use super::{
    StoreError, at,
    key::{Key, KeyValue},
};

/// The mask of "the row with this key may be gone".
pub const SUSPECT: i64 = -2;

/// Our tables for sync. May run again: what is there stays.
const SCHEMA: &str = include_str!("../../schema/database/sync.sql");

/// Rows of a journal that nobody folds, at most: older ones are dropped by `_whimbrel_journal_bound` in `sync.sql`.
pub const MOST_ROWS: u64 = 262_144;
/// Rows by which it may be passed between two looks.
const SLACK: u64 = 512;

/// Most bytes that a journal nobody folds takes in the file when its keys have `key_bytes` bytes each: a bound, whatever the
/// number of writes. Rows come at the end of their tree, so its pages are full; the tenth on top is for what a page cannot
/// fill.
pub fn most_bytes(key_bytes: u64) -> u64 {
    // Row id 9, header 11, table 4, mask 8, time 6, and the row's place in its page 2.
    (MOST_ROWS + SLACK) * (40 + key_bytes) * 11 / 10
}

/// One row of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Its place in the order of all changes.
    pub seq: i64,
    /// The table's id.
    pub table: u32,
    /// The key as it was written.
    pub key: Key,
    /// Bits of the columns that changed; 0: they are not known; [`SUSPECT`].
    pub mask: i64,
    /// The application's clock then, in milliseconds since 1970.
    pub wall_ms: i64,
}

/// How far the journal goes and how far it was folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Number of the oldest row; 0: there is none.
    pub first: i64,
    /// Number of the newest row; 0: there is none.
    pub last: i64,
    /// Number of the last one that was folded.
    pub folded: i64,
    /// Time of the oldest row.
    pub first_wall_ms: i64,
}

impl Extent {
    /// Whether nothing waits to be folded, and nothing was lost.
    pub fn is_folded(&self) -> bool {
        self.last == self.folded && !self.lost_rows()
    }

    /// Where the fold begins: after this number.
    pub fn begin(&self) -> i64 {
        if self.restarted() { 0 } else { self.folded }
    }

    /// Whether rows are missing that were not folded: the journal reached its bound, or somebody emptied it. We never do:
    /// the last row that was folded stays until there is a newer one.
    pub fn lost_rows(&self) -> bool {
        self.restarted() || self.first > self.folded + 1
    }

    /// Whether its numbers began anew.
    pub fn restarted(&self) -> bool {
        self.first < self.folded
    }
}

/// How far the journal goes. Cheap: a few looks at ends of trees.
pub fn extent(connection: &Connection) -> Result<Extent, StoreError> {
    connection
        .prepare_cached(
            "SELECT coalesce((SELECT min(seq) FROM main._whimbrel_journal), 0), coalesce((SELECT max(seq) FROM main._whimbrel_journal), 0),
             coalesce((SELECT max(seq) FROM main._whimbrel_folded), 0),
             coalesce((SELECT wall_ms FROM main._whimbrel_journal ORDER BY seq LIMIT 1), 0)",
        )
        .and_then(|mut s| {
            s.query_row([], |row| Ok(Extent { first: row.get(0)?, last: row.get(1)?, folded: row.get(2)?, first_wall_ms: row.get(3)? }))
        })
        .map_err(at("reading the journal"))
}

/// Makes the tables and the trigger that capture needs, or what somebody dropped of them; what is there stays. A file that
/// exchanges no rows has none of them. The caller holds the write lock.
pub fn make(connection: &Connection) -> Result<(), StoreError> {
    connection.execute_batch(SCHEMA).map_err(at("making whimbrel's tables for sync"))
}

/// Whether rows of this file were ever captured.
pub fn is_there(connection: &Connection) -> Result<bool, StoreError> {
    connection
        .query_row("SELECT count(*) FROM main.sqlite_schema WHERE name = '_whimbrel_captured'", [], |row| row.get(0))
        .map_err(at("looking for whimbrel's tables"))
}

/// Rows in the journal.
pub fn size(connection: &Connection) -> Result<u64, StoreError> {
    connection
        .query_row("SELECT count(*) FROM main._whimbrel_journal", [], |row| row.get::<_, i64>(0))
        .map(i64::unsigned_abs)
        .map_err(at("counting the journal"))
}

/// Up to `most` rows after `seq` and up to `last`, each to `each`, in order. Returns the number of the last one, if there
/// was one. `columns`: how many columns the key of a table has; rows of tables it does not know, and rows whose key has a
/// NULL, are passed over.
pub fn rows_after(
    connection: &Connection,
    (seq, last): (i64, i64),
    most: usize,
    columns: &dyn Fn(u32) -> Option<usize>,
    each: &mut dyn FnMut(Noted),
) -> Result<Option<(i64, usize)>, StoreError> {
    let doing = "reading the journal";
    let mut statement = connection
        .prepare_cached(
            "SELECT seq, tab, mask, wall_ms, k1, k2, k3, k4 FROM main._whimbrel_journal WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3",
        )
        .map_err(at(doing))?;
    let mut rows = statement.query(params![seq, last, most as i64]).map_err(at(doing))?;
    let (mut end, mut count) = (None, 0);
    while let Some(row) = rows.next().map_err(at(doing))? {
        let read = || -> rusqlite::Result<_> {
            let (seq, table): (i64, u32) = (row.get(0)?, row.get(1)?);
            let key = match columns(table) {
                Some(columns) => Key::read(row, 4, columns)?,
                None => None,
            };
            let (mask, wall_ms) = (row.get(2)?, row.get(3)?);
            Ok((seq, key.map(|key| Noted { seq, table, key, mask, wall_ms })))
        };
        let (seq, noted) = read().map_err(at(doing))?;
        count += 1;
        end = Some((seq, count));
        if let Some(noted) = noted {
            each(noted);
        }
    }
    Ok(end)
}

/// The rows up to `seq` were folded: they go, but for the newest of all. Its number is where the next one goes on.
pub fn forget_rows(connection: &Connection, seq: i64) -> Result<(), StoreError> {
    let doing = "forgetting the journal that was folded";
    connection
        .prepare_cached("DELETE FROM main._whimbrel_journal WHERE seq <= ?1 AND seq < (SELECT max(seq) FROM main._whimbrel_journal)")
        .and_then(|mut s| s.execute([seq]))
        .and_then(|_| connection.prepare_cached("INSERT OR REPLACE INTO main._whimbrel_folded (one, seq) VALUES (1, ?1)")?.execute([seq]))
        .map(|_| ())
        .map_err(at(doing))
}

/// Takes back what was noted after `seq`, in the transaction in which it was noted. `seq` was the newest then, and stays.
pub fn take_back(connection: &Connection, seq: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached("DELETE FROM main._whimbrel_journal WHERE seq > ?1")
        .and_then(|mut s| s.execute([seq]))
        .map(|_| ())
        .map_err(at("taking back what was noted"))
}

/// A journal whose numbers began anew, and that was folded whole, goes on after `seq`, so that numbers only grow.
pub fn go_on(connection: &Connection, seq: i64) -> Result<(), StoreError> {
    connection
        .execute("INSERT INTO main._whimbrel_journal (seq, tab, mask, wall_ms) VALUES (?1, 0, 0, 0)", [seq])
        .map_err(at("writing the journal"))?;
    forget_rows(connection, seq)
}

/// Why a table is swept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepReason {
    /// It was not captured before: what is in it is not known to the server.
    New,
    /// Its triggers were lost or altered for a while.
    Triggers,
    /// Rows of the journal were lost: nobody folded it for so long that its bound was reached, or somebody emptied it.
    Journal,
    /// It could not be read when its part of the journal was folded.
    Unreadable,
    /// What its triggers cannot see is looked for from time to time.
    Routine,
    /// Somebody asked for it.
    Asked,
}

impl SweepReason {
    const ALL: [(Self, &str); 6] = [
        (Self::New, "new"),
        (Self::Triggers, "triggers"),
        (Self::Journal, "journal"),
        (Self::Unreadable, "unreadable"),
        (Self::Routine, "routine"),
        (Self::Asked, "asked"),
    ];

    /// One word.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(reason, _)| *reason == self).map_or("asked", |(_, word)| word)
    }
}

/// A table that has to be swept, and how far that has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// The table's id.
    pub table: u32,
    /// Why.
    pub why: SweepReason,
    /// When that was noticed: the stamp of what is found.
    pub wall_ms: i64,
    /// Which rows are looked at.
    pub phase: Phase,
    /// The key after which it goes on.
    pub after: Option<Key>,
}

/// Which rows a sweep looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Those that are in the table.
    Present,
    /// Those that were recorded.
    Recorded,
}

/// Marks a table; a sweep of it that is under way begins anew, as the change may lie behind it.
pub fn mark_sweep(connection: &Connection, table: u32, why: SweepReason, wall_ms: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO main._whimbrel_sweep (tab, why, wall_ms, phase) VALUES (?1, ?2, ?3, 1)")
        .and_then(|mut s| s.execute(params![table, why.as_str(), wall_ms]))
        .map(|_| ())
        .map_err(at("marking a table to be swept"))
}

/// Tables that have to be swept.
pub fn sweeps(connection: &Connection, columns: &dyn Fn(u32) -> Option<usize>) -> Result<Vec<Sweep>, StoreError> {
    let doing = "reading what has to be swept";
    let mut statement =
        connection.prepare_cached("SELECT tab, why, wall_ms, phase, k1, k2, k3, k4 FROM main._whimbrel_sweep ORDER BY tab").map_err(at(doing))?;
    let mut rows = statement.query([]).map_err(at(doing))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(at(doing))? {
        let read = || -> rusqlite::Result<_> {
            let (table, why): (u32, String) = (row.get(0)?, row.get(1)?);
            let why = SweepReason::ALL.iter().find(|(_, word)| *word == why).map_or(SweepReason::Asked, |(reason, _)| *reason);
            let phase = if row.get::<_, i64>(3)? == 2 { Phase::Recorded } else { Phase::Present };
            let after = if row.get_ref(4)? == ValueRef::Null { None } else { Key::read(row, 4, columns(table).unwrap_or(1))? };
            Ok(Sweep { table, why, wall_ms: row.get(2)?, phase, after })
        };
        found.push(read().map_err(at(doing))?);
    }
    Ok(found)
}

/// How far a sweep has come.
pub fn advance_sweep(connection: &Connection, table: u32, phase: Phase, after: Option<&Key>) -> Result<(), StoreError> {
    let phase = match phase {
        Phase::Present => 1,
        Phase::Recorded => 2,
    };
    let value = |at: usize| after.and_then(|key| key.0.get(at));
    connection
        .prepare_cached("UPDATE main._whimbrel_sweep SET phase = ?2, k1 = ?3, k2 = ?4, k3 = ?5, k4 = ?6 WHERE tab = ?1")
        .and_then(|mut s| s.execute(params![table, phase, value(0), value(1), value(2), value(3)]))
        .map(|_| ())
        .map_err(at("writing how far a sweep has come"))
}

/// A table was swept, or is not captured any more.
pub fn end_sweep(connection: &Connection, table: u32) -> Result<(), StoreError> {
    connection
        .prepare_cached("DELETE FROM main._whimbrel_sweep WHERE tab = ?1")
        .and_then(|mut s| s.execute([table]))
        .map(|_| ())
        .map_err(at("ending a sweep"))
}

/// A captured table: what its triggers were written for, as text, and the digest of their texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedRow {
    /// The table's id.
    pub table: u32,
    /// Its key and columns.
    pub shape: String,
    /// Digest of the texts.
    pub triggers: String,
}

/// Every captured table, by id.
pub fn captured(connection: &Connection) -> Result<Vec<CapturedRow>, StoreError> {
    connection
        .prepare_cached("SELECT tab, shape, triggers FROM main._whimbrel_captured ORDER BY tab")
        .and_then(|mut s| {
            s.query_map([], |row| Ok(CapturedRow { table: row.get(0)?, shape: row.get(1)?, triggers: row.get(2)? }))?.collect::<rusqlite::Result<_>>()
        })
        .map_err(at("reading what is captured"))
}

/// Writes what a table's triggers were written for.
pub fn put_captured(connection: &Connection, row: &CapturedRow) -> Result<(), StoreError> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO main._whimbrel_captured (tab, shape, triggers) VALUES (?1, ?2, ?3)")
        .and_then(|mut s| s.execute(params![row.table, row.shape, row.triggers]))
        .map(|_| ())
        .map_err(at("writing what is captured"))
}

/// A table is captured no more; what waits of it goes with it.
pub fn forget_captured(connection: &Connection, table: u32) -> Result<(), StoreError> {
    connection
        .prepare_cached("DELETE FROM main._whimbrel_captured WHERE tab = ?1")
        .and_then(|mut s| s.execute([table]))
        .map_err(at("forgetting what is captured"))?;
    end_sweep(connection, table)
}

/// Whether what the triggers need is whole: the journal, its keys, and what bounds it.
pub fn is_whole(connection: &Connection) -> Result<bool, StoreError> {
    const NEEDED: [&str; 18] = [
        "_whimbrel_journal",
        "_whimbrel_journal_bound",
        "_whimbrel_folded",
        "_whimbrel_sweep",
        "_whimbrel_captured",
        "_whimbrel_row",
        "_whimbrel_outbox",
        "_whimbrel_boot",
        "_whimbrel_exchange",
        "_whimbrel_push",
        "_whimbrel_clock",
        "_whimbrel_quarantine",
        "_whimbrel_conflict",
        "_whimbrel_archive",
        "_whimbrel_name",
        "_whimbrel_sync",
        "_whimbrel_conflicts",
        "_whimbrel_waiting",
    ];
    let marks = vec!["?"; NEEDED.len()].join(", ");
    let found: usize = connection
        .query_row(&format!("SELECT count(*) FROM main.sqlite_schema WHERE name IN ({marks})"), params_from_iter(NEEDED), |row| {
            row.get::<_, i64>(0).map(|n| usize::try_from(n).unwrap_or(0))
        })
        .map_err(at("looking for whimbrel's tables"))?;
    Ok(found == NEEDED.len())
}

/// Parameters of a key in our own tables, after the table's id.
pub(super) fn key_parameters<'k>(table: &'k u32, key: &'k Key) -> [&'k dyn rusqlite::ToSql; 5] {
    let column = |at: usize| -> &'k KeyValue { key.column(at) };
    [table, column(0), column(1), column(2), column(3)]
}
