//! Rows of the server that cannot land yet (`_whimbrel_quarantine`), each with its reason. Every function runs inside the
//! caller's transaction. Keys are canonical ([`Key::canonical`]).

use rusqlite::{Connection, OptionalExtension, params};
use whimbrel_shared::change::Row;

use super::{StoreError, at, journal::key_parameters, key::Key};

/// Why a row cannot land.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// A row was made here under its key and the server was not asked yet whether it is the same.
    Undecided,
    /// Another row here has its values of a UNIQUE index.
    Unique,
    /// It refers to a row that is not here.
    ParentMissing,
    /// It is deleted, and rows here refer to it.
    HasChildren,
    /// A CHECK, NOT NULL, a type or a trigger of the file refuses it.
    Refused,
    /// Rows of its table cannot be written by whimbrel.
    CannotWrite,
    /// A row was renumbered or decided, and this one is under its old key.
    KeyTaken,
}

impl Code {
    const ALL: [(Self, &str); 7] = [
        (Self::Undecided, "undecided"),
        (Self::Unique, "unique"),
        (Self::ParentMissing, "parent_missing"),
        (Self::HasChildren, "has_children"),
        (Self::Refused, "refused"),
        (Self::CannotWrite, "cannot_write"),
        (Self::KeyTaken, "key_taken"),
    ];

    /// One word.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(code, _)| *code == self).map_or("refused", |(_, word)| word)
    }

    fn named(word: &str) -> Self {
        Self::ALL.iter().find(|(_, w)| *w == word).map_or(Self::Refused, |(code, _)| *code)
    }
}

/// A row that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its key, as our own tables have it.
    pub key: Key,
    /// The row as the server told it.
    pub row: Row,
    /// Why, as a word.
    pub code: Code,
    /// Why, for a person.
    pub why: String,
    /// Since when, in milliseconds since 1970.
    pub at_ms: i64,
    /// How often it was tried.
    pub tries: u32,
}

const COLUMNS: &str = "row, code, why, at_ms, tries";

fn read(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<(String, Code, String, i64, u32)> {
    let code: String = row.get(first + 1)?;
    Ok((row.get(first)?, Code::named(&code), row.get(first + 2)?, row.get(first + 3)?, row.get(first + 4)?))
}

fn waiting(key: Key, (row, code, why, at_ms, tries): (String, Code, String, i64, u32)) -> Result<Waiting, StoreError> {
    let row = serde_json::from_str(&row).map_err(|e| StoreError::Damaged { what: "_whimbrel_quarantine", detail: e.to_string() })?;
    Ok(Waiting { key, row, code, why, at_ms, tries })
}

/// Writes a row that cannot land, in place of an older one with its key.
pub fn put(connection: &Connection, it: &Waiting) -> Result<(), StoreError> {
    let [table, k1, k2, k3, k4] = key_parameters(&it.row.table, &it.key);
    let row = serde_json::to_string(&it.row).expect("a row has text keys");
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO main._whimbrel_quarantine (tab, k1, k2, k3, k4, version, row, code, why, at_ms, tries)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )
        .and_then(|mut s| s.execute(params![table, k1, k2, k3, k4, it.row.version.cast_signed(), row, it.code.as_str(), it.why, it.at_ms, it.tries]))
        .map(|_| ())
        .map_err(at("writing the quarantine"))
}

/// The row that waits under a key.
pub fn get(connection: &Connection, table: u32, key: &Key) -> Result<Option<Waiting>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM main._whimbrel_quarantine WHERE tab = ?1 AND k1 = ?2 AND k2 = ?3 AND k3 = ?4 AND k4 = ?5");
    let found = connection
        .prepare_cached(&sql)
        .and_then(|mut s| s.query_row(&key_parameters(&table, key)[..], |row| read(row, 0)).optional())
        .map_err(at("reading the quarantine"))?;
    found.map(|found| waiting(key.clone(), found)).transpose()
}

/// It landed, or is not wanted any more.
pub fn remove(connection: &Connection, table: u32, key: &Key) -> Result<(), StoreError> {
    connection
        .prepare_cached("DELETE FROM main._whimbrel_quarantine WHERE tab = ?1 AND k1 = ?2 AND k2 = ?3 AND k3 = ?4 AND k4 = ?5")
        .and_then(|mut s| s.execute(&key_parameters(&table, key)[..]))
        .map(|_| ())
        .map_err(at("writing the quarantine"))
}

/// How many rows wait.
pub fn count(connection: &Connection) -> Result<u64, StoreError> {
    connection
        .prepare_cached("SELECT count(*) FROM main._whimbrel_quarantine")
        .and_then(|mut s| s.query_row([], |row| row.get::<_, i64>(0)))
        .map(i64::unsigned_abs)
        .map_err(at("counting the quarantine"))
}

/// Whether a row waits for a push to say whose its key is.
pub fn any_undecided(connection: &Connection) -> Result<bool, StoreError> {
    connection
        .prepare_cached("SELECT 1 FROM main._whimbrel_quarantine WHERE code = 'undecided'")
        .and_then(|mut s| s.exists([]))
        .map_err(at("reading the quarantine"))
}

/// Up to `most` rows that wait, those that were tried least first. `columns`: how many columns the key of a table has; rows
/// of tables that it does not know are passed over.
pub fn list(connection: &Connection, most: usize, columns: &dyn Fn(u32) -> Option<usize>) -> Result<Vec<Waiting>, StoreError> {
    let doing = "reading the quarantine";
    let sql = format!("SELECT tab, k1, k2, k3, k4, {COLUMNS} FROM main._whimbrel_quarantine ORDER BY tries, version LIMIT ?1");
    let mut statement = connection.prepare_cached(&sql).map_err(at(doing))?;
    let mut rows = statement.query([most as i64]).map_err(at(doing))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(at(doing))? {
        let table: u32 = row.get(0).map_err(at(doing))?;
        let Some(columns) = columns(table) else { continue };
        let Some(key) = Key::read(row, 1, columns).map_err(at(doing))? else { continue };
        found.push(waiting(key, read(row, 5).map_err(at(doing))?)?);
    }
    Ok(found)
}

/// Every row that waits, in the order of our own table, with its reason; also of tables that are not exchanged any more.
pub fn each(connection: &Connection, look: &mut dyn FnMut(&Row, Code, &str)) -> Result<(), StoreError> {
    let doing = "reading the quarantine";
    let mut statement = connection.prepare("SELECT row, code, why FROM main._whimbrel_quarantine").map_err(at(doing))?;
    let mut rows = statement.query([]).map_err(at(doing))?;
    while let Some(found) = rows.next().map_err(at(doing))? {
        let read = || -> rusqlite::Result<(String, String, String)> { Ok((found.get(0)?, found.get(1)?, found.get(2)?)) };
        let (row, code, why) = read().map_err(at(doing))?;
        let row = serde_json::from_str(&row).map_err(|e| StoreError::Damaged { what: "_whimbrel_quarantine", detail: e.to_string() })?;
        look(&row, Code::named(&code), &why);
    }
    Ok(())
}
