//! How far an online migration has come, and the rows it went on without: `_whimbrel_checkpoint`, `_whimbrel_touched`
//! and `_whimbrel_failed_item` in the managed file.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, params, params_from_iter, types::Value};
use whimbrel_shared::{
    ids::Digest,
    rows::{CodeCount, MOST_ITEM_CHARS, MOST_ITEMS, NamedItem, RowReport},
};

use super::{StoreError, at};

/// Notes that are read for a row that is asked for: reading one costs a fraction of looking at the row again.
const NOTES_A_ROW: i64 = 16;

/// Where an online migration stands between two of its transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Version of the migration.
    pub version: u32,
    /// The revision that runs.
    pub revision: u32,
    /// Its digest.
    pub digest: Digest,
    /// Units that are done.
    pub unit: u32,
    /// How many of them were schema steps.
    pub schemas: u32,
    /// Where the unit after them goes on; none: it has not begun.
    pub position: Option<String>,
    /// Rows that unit has looked at.
    pub examined: u64,
    /// Rows it had to look at when it began, about.
    pub total: u64,
    /// Rows changed by all units so far.
    pub changed: u64,
    /// Rows that needed nothing.
    pub skipped: u64,
    /// Rows that failed and were left.
    pub failed: u64,
    /// When the migration began, in milliseconds since 1970.
    pub started_at_ms: i64,
    /// Whether a person had a `verify` step left out.
    pub verify_skipped: bool,
}

/// A row that was left, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRow {
    /// Version of the migration.
    pub version: u32,
    /// Number of the step.
    pub step: u32,
    /// The row's key, or the line of a shipped file.
    pub item: String,
    /// SQLite's extended result code.
    pub code: i32,
    /// What SQLite said.
    pub message: String,
    /// The row as JSON.
    pub row: Option<String>,
    /// When.
    pub at_ms: i64,
}

/// The checkpoint of the migration that is under way, if one is.
pub fn checkpoint(connection: &Connection) -> Result<Option<Checkpoint>, StoreError> {
    let doing = "reading the checkpoint";
    let found = connection
        .prepare_cached(
            "SELECT version, revision, digest, unit, schemas, position, examined, total, changed, skipped, failed, started_at_ms, verify_skipped FROM main._whimbrel_checkpoint",
        )
        .and_then(|mut s| {
            s.query_row([], |row| {
                let digest: String = row.get(2)?;
                let count = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
                Ok((
                    Checkpoint {
                        version: row.get(0)?,
                        revision: row.get(1)?,
                        digest: Digest::of(b""),
                        unit: row.get(3)?,
                        schemas: row.get(4)?,
                        position: row.get(5)?,
                        examined: count(6)?,
                        total: count(7)?,
                        changed: count(8)?,
                        skipped: count(9)?,
                        failed: count(10)?,
                        started_at_ms: row.get(11)?,
                        verify_skipped: row.get(12)?,
                    },
                    digest,
                ))
            })
            .optional()
        })
        .map_err(at(doing))?;
    found
        .map(|(checkpoint, digest)| {
            let digest = digest
                .parse()
                .map_err(|e: whimbrel_shared::ids::BadId| StoreError::Damaged { what: "_whimbrel_checkpoint", detail: e.to_string() })?;
            Ok(Checkpoint { digest, ..checkpoint })
        })
        .transpose()
}

/// Writes the checkpoint.
pub fn put_checkpoint(connection: &Connection, c: &Checkpoint) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO main._whimbrel_checkpoint (version, revision, digest, unit, schemas, position, examined, total, changed, skipped, failed, started_at_ms, verify_skipped)
             VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13)",
        )
        .and_then(|mut s| {
            s.execute(params![
                c.version,
                c.revision,
                c.digest.to_string(),
                c.unit,
                c.schemas,
                c.position,
                c.examined.cast_signed(),
                c.total.cast_signed(),
                c.changed.cast_signed(),
                c.skipped.cast_signed(),
                c.failed.cast_signed(),
                c.started_at_ms,
                c.verify_skipped
            ])
        })
        .map(|_| ())
        .map_err(at("writing the checkpoint"))
}

/// The migration is over, or undone.
pub fn clear_checkpoint(connection: &Connection) -> Result<(), StoreError> {
    connection.execute_batch("DELETE FROM main._whimbrel_checkpoint; DELETE FROM main._whimbrel_touched").map_err(at("clearing the checkpoint"))
}

/// Rows that the application touched.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Touched {
    /// Their keys, each once, in the order in which they were first touched.
    pub keys: Vec<Vec<Value>>,
    /// The number of the last note that was read.
    pub last: i64,
    /// Notes behind it, about: those of other units are among them.
    pub left: u64,
}

/// What the application touched: at most so many rows, from the oldest note on. A key has `columns` values. A row that is
/// touched again and again has as many notes; some for each row that is asked for are read at a time.
pub fn touched(connection: &Connection, unit: u32, columns: usize, most: u32) -> Result<Touched, StoreError> {
    let doing = "reading what the application touched";
    let list: Vec<_> = (1..=columns).map(|n| format!("k{n}")).collect();
    let sql = format!("SELECT seq, {} FROM main._whimbrel_touched WHERE unit = ?1 ORDER BY seq LIMIT ?2", list.join(", "));
    let mut statement = connection.prepare_cached(&sql).map_err(at(doing))?;
    let notes = i64::from(most) * NOTES_A_ROW;
    let mut rows = statement.query(params![unit, notes.saturating_add(1)]).map_err(at(doing))?;
    let (mut touched, mut seen, mut read) = (Touched::default(), HashSet::new(), 0);
    while let Some(row) = rows.next().map_err(at(doing))? {
        let key: Vec<Value> = (1..=columns).map(|column| row.get(column)).collect::<rusqlite::Result<_>>().map_err(at(doing))?;
        let is_new = seen.insert(bytes(&key));
        if read == notes || is_new && touched.keys.len() as u64 == u64::from(most) {
            touched.left = last_touched(connection)?.saturating_sub(touched.last).unsigned_abs();
            return Ok(touched);
        }
        read += 1;
        touched.last = row.get(0).map_err(at(doing))?;
        if is_new {
            touched.keys.push(key);
        }
    }
    Ok(touched)
}

/// A key as bytes: equal ones are the same row.
fn bytes(key: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in key {
        let (kind, part): (u8, &[u8]) = match value {
            Value::Null => (0, &[]),
            Value::Integer(n) => (1, &n.to_be_bytes()),
            Value::Real(n) => (2, &n.to_bits().to_be_bytes()),
            Value::Text(text) => (3, text.as_bytes()),
            Value::Blob(blob) => (4, blob),
        };
        bytes.push(kind);
        bytes.extend_from_slice(&part.len().to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

/// Number of the newest key that was noted.
pub fn last_touched(connection: &Connection) -> Result<i64, StoreError> {
    connection
        .prepare_cached("SELECT coalesce(max(seq), 0) FROM main._whimbrel_touched")
        .and_then(|mut s| s.query_row([], |row| row.get(0)))
        .map_err(at("reading what the application touched"))
}

/// Forgets the keys of a unit up to a number (`older`), or those after it that our own change noted.
pub fn forget_touched(connection: &Connection, unit: u32, seq: i64, older: bool) -> Result<(), StoreError> {
    let sql = if older {
        "DELETE FROM main._whimbrel_touched WHERE unit = ?1 AND seq <= ?2"
    } else {
        "DELETE FROM main._whimbrel_touched WHERE unit = ?1 AND seq > ?2"
    };
    connection.prepare_cached(sql).and_then(|mut s| s.execute(params![unit, seq])).map(|_| ()).map_err(at("forgetting what the application touched"))
}

/// Keeps a row that was left.
pub fn put_failed(connection: &Connection, revision: u32, row: &FailedRow) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO main._whimbrel_failed_item (version, revision, step, item, code, message, row, at_ms) VALUES (?1,?2,?3,?4,?5,?6,?7,?8)",
        )
        .and_then(|mut s| s.execute(params![row.version, revision, row.step, row.item, row.code, row.message, row.row, row.at_ms]))
        .map(|_| ())
        .map_err(at("keeping a row that failed"))
}

/// Keys of the rows that a step left.
pub fn failed_keys(connection: &Connection, version: u32, step: u32) -> Result<HashSet<String>, StoreError> {
    connection
        .prepare_cached("SELECT item FROM main._whimbrel_failed_item WHERE version = ?1 AND step = ?2")
        .and_then(|mut s| s.query_map(params_from_iter([version, step]), |row| row.get(0))?.collect())
        .map_err(at("reading the rows that failed"))
}

/// Rows that were left, oldest version first, at most `most`, and how many there are.
pub fn failed_rows(connection: &Connection, most: u32) -> Result<(Vec<FailedRow>, u64), StoreError> {
    let doing = "reading the rows that failed";
    let rows = connection
        .prepare_cached("SELECT version, step, item, code, message, row, at_ms FROM main._whimbrel_failed_item ORDER BY version, step, item LIMIT ?1")
        .and_then(|mut s| {
            s.query_map([most], |row| {
                Ok(FailedRow {
                    version: row.get(0)?,
                    step: row.get(1)?,
                    item: row.get(2)?,
                    code: row.get(3)?,
                    message: row.get(4)?,
                    row: row.get(5)?,
                    at_ms: row.get(6)?,
                })
            })?
            .collect::<rusqlite::Result<Vec<_>>>()
        })
        .map_err(at(doing))?;
    let total: i64 = connection.query_row("SELECT count(*) FROM main._whimbrel_failed_item", [], |row| row.get(0)).map_err(at(doing))?;
    Ok((rows, total.unsigned_abs()))
}

/// The steps that left rows, as (version, revision, step, rows), oldest version first.
pub fn failed_steps(connection: &Connection) -> Result<Vec<(u32, u32, u32, u64)>, StoreError> {
    connection
        .prepare_cached(
            "SELECT version, revision, step, count(*) FROM main._whimbrel_failed_item GROUP BY version, revision, step ORDER BY version, step, revision",
        )
        .and_then(|mut s| {
            s.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, i64>(3)?.unsigned_abs())))?.collect()
        })
        .map_err(at("reading the rows that failed"))
}

/// Names of rows that a step left, in order, after one of them; at most `most`.
pub fn failed_after(
    connection: &Connection,
    (version, revision, step): (u32, u32, u32),
    after: Option<&str>,
    most: u32,
) -> Result<Vec<String>, StoreError> {
    connection
        .prepare_cached(
            "SELECT item FROM main._whimbrel_failed_item
             WHERE version = ?1 AND revision = ?2 AND step = ?3 AND (?4 IS NULL OR item > ?4) ORDER BY item LIMIT ?5",
        )
        .and_then(|mut s| s.query_map(params![version, revision, step, after, most], |row| row.get(0))?.collect())
        .map_err(at("reading the rows that failed"))
}

/// Forgets one row that a step left: it is done.
pub fn forget_failed_row(connection: &Connection, version: u32, step: u32, item: &str) -> Result<(), StoreError> {
    connection
        .prepare_cached("DELETE FROM main._whimbrel_failed_item WHERE version = ?1 AND step = ?2 AND item = ?3")
        .and_then(|mut s| s.execute(params![version, step, item]))
        .map(|_| ())
        .map_err(at("forgetting a row that failed"))
}

/// What is to be told of the rows that `version`, or one step of it, left: how many and with which codes; with `values`
/// also the first of them by name. The counts of rows that went well are the caller's.
pub fn report_failed(connection: &Connection, version: u32, step: Option<u32>, values: bool) -> Result<RowReport, StoreError> {
    let doing = "counting the rows that failed";
    let codes: Vec<CodeCount> = connection
        .prepare_cached(
            "SELECT code, count(*) FROM main._whimbrel_failed_item WHERE version = ?1 AND (?2 IS NULL OR step = ?2) GROUP BY code ORDER BY 2 DESC, 1",
        )
        .and_then(|mut s| {
            s.query_map(params![version, step], |row| Ok(CodeCount { code: row.get(0)?, rows: row.get::<_, i64>(1)?.unsigned_abs() }))?.collect()
        })
        .map_err(at(doing))?;
    let cut = |text: String| text.chars().take(MOST_ITEM_CHARS).collect();
    let items = if values {
        connection
            .prepare_cached(
                "SELECT step, item, message FROM main._whimbrel_failed_item WHERE version = ?1 AND (?2 IS NULL OR step = ?2) ORDER BY step, item LIMIT ?3",
            )
            .and_then(|mut s| {
                s.query_map(params![version, step, MOST_ITEMS as i64], |row| {
                    Ok(NamedItem { step: row.get(0)?, key: cut(row.get(1)?), message: cut(row.get(2)?) })
                })?
                .collect()
            })
            .map_err(at(doing))?
    } else {
        Vec::new()
    };
    Ok(RowReport { failed: codes.iter().map(|c| c.rows).sum(), codes, items, ..RowReport::default() })
}

/// Forgets the rows that the steps after `step` left, and says how many there were: they are other steps now.
pub fn forget_failed_after(connection: &Connection, version: u32, step: u32) -> Result<u64, StoreError> {
    connection
        .prepare_cached("DELETE FROM main._whimbrel_failed_item WHERE version = ?1 AND step > ?2")
        .and_then(|mut s| s.execute([version, step]))
        .map(|rows| rows as u64)
        .map_err(at("forgetting the rows that failed"))
}

/// Forgets the rows that a migration left: it was reverted, or they are tried again.
pub fn forget_failed(connection: &Connection, version: u32) -> Result<(), StoreError> {
    connection
        .prepare_cached("DELETE FROM main._whimbrel_failed_item WHERE version = ?1")
        .and_then(|mut s| s.execute([version]))
        .map(|_| ())
        .map_err(at("forgetting the rows that failed"))
}
