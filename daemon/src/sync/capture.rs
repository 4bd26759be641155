//! Our triggers in the file: installed, removed, looked after.

use rusqlite::Connection;
use whimbrel_shared::{columns::ColumnMap, ids::Digest, sql::quote};

use super::{
    classify::{Class, Judged, classify},
    error::{SyncError, sqlite},
    shape::{Captured, Mode},
    triggers::{PREFIX, Trigger, triggers},
};
use crate::store::journal::{self, CapturedRow, SweepReason};

/// A table whose rows are exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its id in the map.
    pub table: u32,
    /// What its triggers note.
    pub mode: Mode,
}

/// Captures exactly the tables `wanted` from now on, as they are in the file, by the ids of `map`. Inside the caller's write
/// transaction, with the journal folded before a change of the schema. Returns the judgement on each; tables that are
/// unsupported, and those not in `map`, are not captured.
///
/// A table that was captured before keeps what is known of it. One that was not is marked to be swept: none of its rows
/// is known to the server.
pub fn install(connection: &Connection, map: &ColumnMap, wanted: &[Wanted], now_ms: i64) -> Result<Vec<Judged>, SyncError> {
    if connection.is_autocommit() {
        return Err(SyncError::NoTransaction { doing: "installing the triggers of capture" });
    }
    if wanted.is_empty() && !journal::is_there(connection)? {
        return Ok(Vec::new());
    }
    journal::make(connection)?;
    remove(connection)?;
    let before = journal::captured(connection)?;
    let mut judged = Vec::new();
    for Wanted { table, mode } in wanted {
        let Some(columns) = map.table_by_id(*table) else { continue };
        let judgement = classify(connection, columns, *mode)?;
        if let Some(captured) = &judgement.captured {
            create(connection, captured)?;
            if !before.iter().any(|row| row.table == captured.id) {
                journal::mark_sweep(connection, captured.id, SweepReason::New, now_ms)?;
            }
        }
        judged.push(judgement);
    }
    let kept = |row: &&CapturedRow| judged.iter().any(|j| j.table == row.table && j.class != Class::Unsupported);
    for row in before.iter().filter(|row| !kept(row)) {
        journal::forget_captured(connection, row.table)?;
    }
    Ok(judged)
}

/// Removes every trigger of ours from the application's tables. What is known of the rows stays, and so does what is in the
/// journal: fold it first, where the schema is about to change.
pub fn remove(connection: &Connection) -> Result<(), SyncError> {
    for trigger in present(connection)? {
        drop_trigger(connection, &trigger.name)?;
    }
    Ok(())
}

/// How a table's capture was found not to be what was installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The table's id; none: it is one of our own.
    pub table: Option<u32>,
    /// Its name, as it was captured.
    pub name: String,
    /// In a few words, for a person.
    pub what: String,
}

/// What [`check`] saw last, so that a file whose schema did not change costs one look at its header.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    schema_version: Option<i64>,
}

/// Compares our triggers with what was installed, by the digest of their texts; only reads. A table is in the answer until
/// it is repaired; empty: all is well, or nothing is captured.
pub fn check(connection: &Connection, seen: &mut Seen) -> Result<Vec<Lost>, SyncError> {
    let doing = "looking after the triggers";
    let version: i64 = connection.query_row("PRAGMA main.schema_version", [], |row| row.get(0)).map_err(sqlite(doing))?;
    if seen.schema_version == Some(version) {
        return Ok(Vec::new());
    }
    let lost = compare(connection)?;
    seen.schema_version = lost.is_empty().then_some(version);
    Ok(lost)
}

/// Installs again what [`check`] found, and marks these tables to be swept: what was written meanwhile was not noted.
/// Inside the caller's write transaction.
pub fn repair(connection: &Connection, map: &ColumnMap, wanted: &[Wanted], now_ms: i64) -> Result<Vec<Judged>, SyncError> {
    let lost = compare(connection)?;
    if lost.is_empty() {
        return Ok(Vec::new());
    }
    let whole = journal::is_whole(connection)?;
    let judged = install(connection, map, wanted, now_ms)?;
    for judgement in judged.iter().filter(|j| j.captured.is_some()) {
        if !whole || lost.iter().any(|l| l.table == Some(judgement.table)) {
            journal::mark_sweep(connection, judgement.table, SweepReason::Triggers, now_ms)?;
        }
    }
    Ok(judged)
}

/// The captured tables, by id. A shape that a later whimbrel wrote is an error.
pub fn captured(connection: &Connection) -> Result<Vec<Captured>, SyncError> {
    journal::captured(connection)?
        .into_iter()
        .map(|row| serde_json::from_str(&row.shape).map_err(|e| SyncError::BadShape { table: row.table, why: e.to_string() }))
        .collect()
}

fn create(connection: &Connection, captured: &Captured) -> Result<(), SyncError> {
    let made = triggers(captured);
    for trigger in &made {
        connection.execute_batch(&trigger.sql).map_err(sqlite("installing a trigger of capture"))?;
    }
    let shape = serde_json::to_string(captured).expect("our own types have text keys");
    journal::put_captured(connection, &CapturedRow { table: captured.id, shape, triggers: digest(&made) })?;
    Ok(())
}

fn drop_trigger(connection: &Connection, name: &str) -> Result<(), SyncError> {
    connection.execute_batch(&format!("DROP TRIGGER main.{}", quote(name))).map_err(sqlite("removing a trigger of capture"))
}

/// Our triggers as they stand in the file.
fn present(connection: &Connection) -> Result<Vec<Trigger>, SyncError> {
    // In a LIKE pattern the underscore stands for any character.
    let pattern = format!("{}%", PREFIX.replace('_', "\\_"));
    connection
        .prepare_cached("SELECT name, sql FROM main.sqlite_schema WHERE type = 'trigger' AND name LIKE ?1 ESCAPE '\\' ORDER BY name")
        .and_then(|mut s| s.query_map([pattern], |row| Ok(Trigger { name: row.get(0)?, sql: row.get(1)? }))?.collect::<rusqlite::Result<_>>())
        .map_err(sqlite("looking for the triggers of capture"))
}

/// Of the triggers in the order of their names.
fn digest(triggers: &[Trigger]) -> String {
    let mut sorted: Vec<_> = triggers.iter().collect();
    sorted.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let texts: String = sorted.iter().map(|t| format!("{}\n", t.sql)).collect();
    Digest::of(texts.as_bytes()).to_string()
}

fn compare(connection: &Connection) -> Result<Vec<Lost>, SyncError> {
    if !journal::is_there(connection)? && present(connection)?.is_empty() {
        return Ok(Vec::new());
    }
    if !journal::is_whole(connection)? {
        // Without them the application's writes fail in the triggers.
        let what = "a table or trigger that capture needs is gone, and the application's writes may fail until it is back".to_owned();
        return Ok(vec![Lost { table: None, name: "_whimbrel_journal".to_owned(), what }]);
    }
    let present = present(connection)?;
    let mut lost = Vec::new();
    for row in journal::captured(connection)? {
        let prefix = format!("{PREFIX}{}_", row.table);
        let own: Vec<_> = present.iter().filter(|t| t.name.starts_with(&prefix)).cloned().collect();
        if digest(&own) == row.triggers {
            continue;
        }
        let captured: Captured = serde_json::from_str(&row.shape).map_err(|e| SyncError::BadShape { table: row.table, why: e.to_string() })?;
        let expected = triggers(&captured);
        let gone = expected.iter().filter(|t| !own.iter().any(|o| o.name == t.name)).count();
        let altered = expected.iter().filter(|t| own.iter().any(|o| o.name == t.name && o.sql != t.sql)).count();
        let what = format!("{gone} of {} triggers gone, {altered} altered", expected.len());
        lost.push(Lost { table: Some(row.table), name: captured.name, what });
    }
    Ok(lost)
}
