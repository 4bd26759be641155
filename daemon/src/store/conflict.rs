//! What met another's edit (`_whimbrel_conflict`), with both sides. Every function runs inside the caller's transaction.
//! Keys are canonical ([`Key::canonical`]).

use rusqlite::{Connection, params, params_from_iter, types::ToSqlOutput};
use serde::{Deserialize, Serialize};
use whimbrel_shared::{protocol::conflicts::KeptColumn, value::Value};

use super::{StoreError, at, journal::key_parameters, key::Key};

/// What met what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An edit from here met one of another, and the other's stands.
    Edits,
    /// An edit from here met a deletion, and the row is deleted.
    EditOfDeleted,
    /// A deletion from here met an edit, and the row is there again.
    DeletionOfEdited,
    /// A new row from here has the key of another row.
    KeyTaken,
    /// A row from here has values that are another row's alone.
    UniqueTaken,
    /// The server cannot take it as it is.
    Impossible,
    /// The server waits for a newer version of the schema.
    Held,
}

impl Kind {
    const ALL: [(Self, &str); 7] = [
        (Self::Edits, "edits"),
        (Self::EditOfDeleted, "edit_of_deleted"),
        (Self::DeletionOfEdited, "deletion_of_edited"),
        (Self::KeyTaken, "key_taken"),
        (Self::UniqueTaken, "unique_taken"),
        (Self::Impossible, "impossible"),
        (Self::Held, "held"),
    ];

    /// One word.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("edits", |(_, word)| word)
    }

    fn named(word: &str) -> Self {
        Self::ALL.iter().find(|(_, w)| *w == word).map_or(Self::Edits, |(kind, _)| *kind)
    }

    /// Whether nothing of it was taken, so that it waits for somebody to decide.
    pub fn is_open(self) -> bool {
        matches!(self, Self::KeyTaken | Self::UniqueTaken | Self::Impossible | Self::Held)
    }
}

/// Both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// Column by column: what was sent from here, and what stands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<KeptColumn>,
    /// The row's key as it is spelled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<Value>,
    /// The other row's key, where a unique set was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_key: Option<Vec<Value>>,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The oldest version of the schema that the server takes it from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_schema: Option<u32>,
    /// What was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<String>,
}

/// A conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Its number in this file; 0 for one that is not written yet.
    pub id: i64,
    /// The table's id.
    pub table: u32,
    /// The row's key.
    pub key: Key,
    /// What met what.
    pub kind: Kind,
    /// Whether the row's edits wait for it.
    pub open: bool,
    /// The row's last edit then.
    pub seq: i64,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// Both sides.
    pub detail: Detail,
}

impl Conflict {
    /// Whether there is nothing to decide any more.
    pub fn is_over(&self) -> bool {
        self.detail.decided.is_some() || self.kind.is_open() && !self.open
    }

    /// The row's key, as it was spelled where that is known.
    pub fn key(&self) -> Vec<Value> {
        if self.detail.key.is_empty() { self.key.values() } else { self.detail.key.clone() }
    }
}

const PLACE: &str = "tab = ?1 AND k1 = ?2 AND k2 = ?3 AND k3 = ?4 AND k4 = ?5";

/// Writes a conflict. An open one takes the place of the row's open ones.
pub fn put(connection: &Connection, it: &Conflict) -> Result<i64, StoreError> {
    let doing = "writing a conflict";
    if it.open {
        connection
            .prepare_cached(&format!("DELETE FROM main._whimbrel_conflict WHERE {PLACE} AND open"))
            .and_then(|mut s| s.execute(&key_parameters(&it.table, &it.key)[..]))
            .map_err(at(doing))?;
    }
    let [table, k1, k2, k3, k4] = key_parameters(&it.table, &it.key);
    let detail = serde_json::to_string(&it.detail).expect("our own types have text keys");
    connection
        .prepare_cached(
            "INSERT INTO main._whimbrel_conflict (tab, k1, k2, k3, k4, kind, open, seq, at_ms, detail)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )
        .and_then(|mut s| s.insert(params![table, k1, k2, k3, k4, it.kind.as_str(), it.open, it.seq, it.at_ms, detail]))
        .map_err(at(doing))
}

/// Whether a row's edits, the last with number `seq`, wait for a decision.
pub fn blocks(connection: &Connection, table: u32, key: &Key, seq: i64) -> Result<bool, StoreError> {
    let [table, k1, k2, k3, k4] = key_parameters(&table, key);
    connection
        .prepare_cached(&format!("SELECT 1 FROM main._whimbrel_conflict WHERE {PLACE} AND open AND seq >= ?6"))
        .and_then(|mut s| s.exists(params![table, k1, k2, k3, k4, seq]))
        .map_err(at("reading the conflicts"))
}

/// A row's open conflicts are over: it was accepted, is gone, or somebody decided.
pub fn close(connection: &Connection, table: u32, key: &Key) -> Result<(), StoreError> {
    connection
        .prepare_cached(&format!("UPDATE main._whimbrel_conflict SET open = 0 WHERE {PLACE} AND open"))
        .and_then(|mut s| s.execute(&key_parameters(&table, key)[..]))
        .map(|_| ())
        .map_err(at("closing a conflict"))
}

/// Rows that waited for a version of the schema up to `schema` are sent again.
pub fn release_held(connection: &Connection, schema: u32) -> Result<(), StoreError> {
    let held: Vec<i64> = some(connection, "WHERE open AND kind = 'held'", &[], &|_| Some(1))?
        .into_iter()
        .filter(|c| c.detail.min_schema.is_none_or(|min| min <= schema))
        .map(|c| c.id)
        .collect();
    for id in held {
        connection.execute("UPDATE main._whimbrel_conflict SET open = 0 WHERE id = ?1", [id]).map_err(at("closing a conflict"))?;
    }
    Ok(())
}

/// Open and all conflicts, as numbers.
pub fn count(connection: &Connection) -> Result<(u64, u64), StoreError> {
    connection
        .prepare_cached("SELECT coalesce(sum(open), 0), count(*) FROM main._whimbrel_conflict")
        .and_then(|mut s| s.query_row([], |row| Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs()))))
        .map_err(at("counting the conflicts"))
}

/// Whether any row waits for a decision. Cheap.
pub fn any_open(connection: &Connection) -> Result<bool, StoreError> {
    connection.prepare_cached("SELECT 1 FROM main._whimbrel_conflict WHERE open").and_then(|mut s| s.exists([])).map_err(at("reading the conflicts"))
}

/// Up to `most` conflicts, the newest first, of those before number `before`; with `open`, only those that wait. `columns`:
/// how many columns the key of a table has, 1 where it is not known any more.
pub fn list(
    connection: &Connection,
    open: bool,
    before: Option<i64>,
    most: u32,
    columns: &dyn Fn(u32) -> Option<usize>,
) -> Result<Vec<Conflict>, StoreError> {
    let only = if open { "AND open" } else { "" };
    some(connection, &format!("WHERE id < ?1 {only} ORDER BY id DESC LIMIT ?2"), &[before.unwrap_or(i64::MAX), most.into()], columns)
}

/// One conflict.
pub fn get(connection: &Connection, id: i64, columns: &dyn Fn(u32) -> Option<usize>) -> Result<Option<Conflict>, StoreError> {
    Ok(some(connection, "WHERE id = ?1", &[id], columns)?.pop())
}

/// What was decided of a conflict; it is open no more.
pub fn decide(connection: &Connection, it: &Conflict, decided: &str) -> Result<(), StoreError> {
    let detail = Detail { decided: Some(decided.to_owned()), ..it.detail.clone() };
    let detail = serde_json::to_string(&detail).expect("our own types have text keys");
    connection
        .execute("UPDATE main._whimbrel_conflict SET open = 0, detail = ?2 WHERE id = ?1", params![it.id, detail])
        .map(|_| ())
        .map_err(at("closing a conflict"))
}

/// Forgets those that are over and older than `before_ms`.
pub fn forget(connection: &Connection, before_ms: i64) -> Result<usize, StoreError> {
    connection
        .prepare_cached("DELETE FROM main._whimbrel_conflict WHERE NOT open AND at_ms < ?1")
        .and_then(|mut s| s.execute([before_ms]))
        .map_err(at("forgetting old conflicts"))
}

fn some(connection: &Connection, which: &str, given: &[i64], columns: &dyn Fn(u32) -> Option<usize>) -> Result<Vec<Conflict>, StoreError> {
    let doing = "reading the conflicts";
    let sql = format!("SELECT id, tab, kind, open, seq, at_ms, detail, k1, k2, k3, k4 FROM main._whimbrel_conflict {which}");
    let mut statement = connection.prepare_cached(&sql).map_err(at(doing))?;
    let mut rows = statement.query(params_from_iter(given.iter().map(|n| ToSqlOutput::from(*n)))).map_err(at(doing))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(at(doing))? {
        let read = || -> rusqlite::Result<_> {
            let (table, kind): (u32, String) = (row.get(1)?, row.get(2)?);
            let key = Key::read(row, 7, columns(table).unwrap_or(1))?;
            Ok((row.get(0)?, table, kind, row.get(3)?, row.get(4)?, row.get(5)?, row.get::<_, String>(6)?, key))
        };
        let (id, table, kind, open, seq, at_ms, detail, key) = read().map_err(at(doing))?;
        let damaged = |detail: String| StoreError::Damaged { what: "_whimbrel_conflict", detail };
        let key = key.ok_or_else(|| damaged("a key has a NULL".to_owned()))?;
        let detail = serde_json::from_str(&detail).map_err(|e| damaged(e.to_string()))?;
        found.push(Conflict { id, table, key, kind: Kind::named(&kind), open, seq, at_ms, detail });
    }
    Ok(found)
}
