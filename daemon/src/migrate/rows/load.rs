//! One `load` step: rows shipped with the migration, put in by key. What it does to a row that is there already is the
//! step's strategy; each of them leaves a row that was loaded before as it is, so a part may be run twice.

use std::{collections::BTreeSet, sync::Arc};

use rusqlite::{OptionalExtension, params_from_iter, types::Value};
use serde::{Deserialize, Serialize};
use whimbrel_shared::manifest::{Load, LoadConflict};

use super::{
    Chunk, FailedItem, Part, keep_or_stop, prepare,
    records::{self, Form, Place, Record},
    row_error,
    table::{Table, from_json, quote, to_json},
};
use crate::migrate::{
    connection::Managed,
    error::{ApplyError, sqlite},
};

/// Rows that are read at a time when some are looked for.
const READ_AT_ONCE: u32 = 1_000;

/// A load, ready to run.
#[derive(Debug)]
pub struct Loading {
    step: Load,
    /// Where the rows go.
    pub table: Table,
    text: String,
    form: Form,
    place: String,
}

/// Where a load stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Position {
    #[serde(flatten)]
    place: Place,
    /// With `since`: the largest value of `newest` when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<serde_json::Value>,
}

impl Loading {
    /// Looks at the table and the file. `place` names the step in errors.
    pub fn new(managed: &Managed, step: &Load, text: &str, place: String) -> Result<Self, ApplyError> {
        let bad = |why: String| ApplyError::BadStep { place: place.clone(), why };
        let form = Form::of(&step.file).ok_or_else(|| bad(format!("{} is neither .ndjson nor .csv", step.file)))?;
        let table = Table::read(&managed.connection, &step.into)?.ok_or_else(|| bad(format!("there is no table {}", step.into)))?;
        Ok(Self { step: step.clone(), table, text: text.to_owned(), form, place })
    }

    /// Rows of the file.
    pub fn total(&self) -> u64 {
        records::count(self.form, &self.text)
    }

    /// Puts in the next `part.rows` rows.
    pub fn chunk(&mut self, managed: &Managed, part: &Part<'_>) -> Result<Chunk, ApplyError> {
        let place = self.place.clone();
        let bad = |why: String| ApplyError::BadStep { place: place.clone(), why };
        let mut position: Position = match part.position {
            Some(text) => serde_json::from_str(text).map_err(|e| bad(e.to_string()))?,
            None => Position { place: Place::default(), since: self.newest_there(managed)? },
        };
        let (rows, next) =
            records::read(self.form, &self.text, position.place, part.rows).map_err(|why| bad(format!("{}: {why}", self.step.file)))?;
        let since = position.since.clone().map(from_json).transpose().map_err(bad)?;
        let wanted = |record: &Record| !since.as_ref().is_some_and(|since| self.is_old(record, since));
        let new: Vec<&Record> = rows.iter().filter(|record| wanted(record)).collect();
        let mut chunk = self.put(managed, &new)?;
        (chunk.examined, chunk.end) = (rows.len() as u64, rows.is_empty());
        position.place = next;
        chunk.skipped = chunk.examined.saturating_sub(chunk.changed + chunk.failed.len() as u64);
        chunk.position = serde_json::to_string(&position).map_err(|e| bad(e.to_string()))?;
        Ok(chunk)
    }

    /// The rows of the file that stand at these lines.
    pub fn named(&self, lines: &BTreeSet<u64>) -> Result<Vec<Record>, ApplyError> {
        let bad = |why: String| ApplyError::BadStep { place: self.place.clone(), why: format!("{}: {why}", self.step.file) };
        let (mut found, mut place) = (Vec::new(), Place::default());
        while found.len() < lines.len() {
            let (rows, next) = records::read(self.form, &self.text, place, READ_AT_ONCE).map_err(bad)?;
            if rows.is_empty() {
                break;
            }
            found.extend(rows.into_iter().filter(|record| lines.contains(&record.line)));
            place = next;
        }
        Ok(found)
    }

    /// Puts these rows in. They are named by the file and their lines.
    pub fn put(&self, managed: &Managed, rows: &[&Record]) -> Result<Chunk, ApplyError> {
        let mut chunk = Chunk { examined: rows.len() as u64, end: true, ..Chunk::default() };
        // As a rule all rows have the same columns, and share one statement.
        for same in rows.chunk_by(|a, b| Arc::ptr_eq(&a.columns, &b.columns) || a.columns == b.columns) {
            let sql = self.upsert(&same[0].columns);
            let mut statement = prepare(managed, &self.place, &sql)?;
            for record in same {
                match statement.execute(params_from_iter(&record.values)) {
                    // 0 when it left what was there.
                    Ok(changed) => chunk.changed += changed as u64,
                    Err(error) => {
                        let (code, message) = row_error(managed, &self.place, error)?;
                        let values = record.cells().map(|(column, value)| (column.to_owned(), to_json(value))).collect();
                        let row = Some(serde_json::Value::Object(values).to_string());
                        let item = FailedItem { key: format!("{}:{}", self.step.file, record.line), code, message, row };
                        keep_or_stop(self.step.on_error, &self.place, item, &mut chunk)?;
                    }
                }
            }
        }
        chunk.skipped = chunk.examined.saturating_sub(chunk.changed + chunk.failed.len() as u64);
        Ok(chunk)
    }

    fn newest_there(&self, managed: &Managed) -> Result<Option<serde_json::Value>, ApplyError> {
        let Some(column) = self.step.newest.as_ref().filter(|_| self.step.since) else { return Ok(None) };
        let sql = format!("SELECT max({}) FROM {}", quote(column), self.table.quoted);
        let found: Option<Value> = managed.connection.query_row(&sql, [], |row| row.get(0)).optional().map_err(sqlite("looking what was loaded"))?;
        Ok(found.filter(|value| *value != Value::Null).map(|value| to_json(&value)))
    }

    fn is_old(&self, record: &Record, since: &Value) -> bool {
        let newest = self.step.newest.as_deref().unwrap_or_default();
        let value = record.cells().find(|(column, _)| column.eq_ignore_ascii_case(newest)).map(|(_, value)| value);
        match (value, since) {
            (Some(Value::Integer(a)), Value::Integer(b)) => a <= b,
            (Some(Value::Real(a)), Value::Real(b)) => a <= b,
            (Some(Value::Integer(a)), Value::Real(b)) => *a as f64 <= *b,
            (Some(Value::Real(a)), Value::Integer(b)) => *a <= *b as f64,
            (Some(Value::Text(a)), Value::Text(b)) => a <= b,
            // What cannot be compared is loaded: its key decides then.
            _ => false,
        }
    }

    /// The statement for rows with these columns, by the step's strategy.
    fn upsert(&self, names: &[String]) -> String {
        let columns: Vec<String> = names.iter().map(|column| quote(column)).collect();
        let parameters: Vec<String> = (1..=columns.len()).map(|n| format!("?{n}")).collect();
        let key: Vec<String> = self.step.key.iter().map(|column| quote(column)).collect();
        let is_key = |column: &str| self.step.key.iter().any(|k| k.eq_ignore_ascii_case(column));
        let others: Vec<String> = names.iter().filter(|c| !is_key(c)).map(|c| quote(c)).collect();
        let set = |value: &dyn Fn(&str) -> String| others.iter().map(|c| format!("{c} = {}", value(c))).collect::<Vec<_>>().join(", ");
        // A row that would not change is not written: nothing fires, nothing is sent.
        let differs = others.iter().map(|c| format!("t.{c} IS NOT excluded.{c}")).collect::<Vec<_>>().join(" OR ");
        let gaps = others.iter().map(|c| format!("(t.{c} IS NULL AND excluded.{c} IS NOT NULL)")).collect::<Vec<_>>().join(" OR ");
        let newest = quote(self.step.newest.as_deref().unwrap_or_default());
        let excluded = |c: &str| format!("excluded.{c}");
        let then = match self.step.conflict {
            _ if others.is_empty() => "NOTHING".to_owned(),
            LoadConflict::Skip => "NOTHING".to_owned(),
            LoadConflict::Replace => format!("UPDATE SET {} WHERE {differs}", set(&excluded)),
            LoadConflict::Merge => format!("UPDATE SET {} WHERE {gaps}", set(&|c| format!("coalesce(t.{c}, excluded.{c})"))),
            LoadConflict::KeepNewest => format!("UPDATE SET {} WHERE t.{newest} IS NULL OR excluded.{newest} > t.{newest}", set(&excluded)),
            LoadConflict::KeepOldest => format!("UPDATE SET {} WHERE t.{newest} IS NULL OR excluded.{newest} < t.{newest}", set(&excluded)),
        };
        format!(
            "INSERT INTO {} AS t ({}) VALUES ({}) ON CONFLICT ({}) DO {then}",
            self.table.quoted,
            columns.join(", "),
            parameters.join(", "),
            key.join(", ")
        )
    }
}

/// Emptying a table: before rows are loaded into it, or because another one has its place.
#[derive(Debug)]
pub struct Clearing {
    /// Which.
    pub table: Table,
    place: String,
    /// Whose name that is, where it is ours.
    lent: Vec<String>,
}

impl Clearing {
    /// Looks at the table.
    pub fn new(managed: &Managed, table: &str, place: String) -> Result<Self, ApplyError> {
        match Table::read(&managed.connection, table)? {
            Some(table) => Ok(Self { table, place, lent: Vec::new() }),
            None => Err(ApplyError::BadStep { place, why: format!("there is no table {table}") }),
        }
    }

    /// Looks at a table of ours.
    pub fn of_ours(managed: &Managed, table: &str, place: String) -> Result<Self, ApplyError> {
        Self::new(managed, table, place).map(|clearing| Self { lent: vec![table.to_owned()], ..clearing })
    }

    /// Names of ours that its statements may touch.
    pub fn lent(&self) -> &[String] {
        &self.lent
    }

    /// Deletes the next `part.rows` rows.
    pub fn chunk(&mut self, managed: &Managed, part: &Part<'_>) -> Result<Chunk, ApplyError> {
        let (table, key) = (&self.table.quoted, self.table.key_list());
        let sql = format!("DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} LIMIT ?1)");
        let deleted = managed.connection.prepare_cached(&sql).and_then(|mut s| s.execute([part.rows]));
        match deleted {
            // Rows of ours are nobody's news.
            Ok(rows) => {
                let (examined, changed) = (rows as u64, if self.lent.is_empty() { rows as u64 } else { 0 });
                Ok(Chunk { position: "[]".to_owned(), examined, changed, end: rows == 0, ..Chunk::default() })
            }
            Err(error) => {
                let (code, message) = row_error(managed, &self.place, error)?;
                Err(ApplyError::Row { place: self.place.clone(), key: None, code, message })
            }
        }
    }
}
