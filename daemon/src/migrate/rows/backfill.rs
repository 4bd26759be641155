//! One `backfill` step: an UPDATE that walks a table by ranges of its key. What still matches `where` still needs it, so
//! a part that is run twice does nothing the second time.

use rusqlite::{params_from_iter, types::Value};
use whimbrel_shared::manifest::Backfill;

use super::{Chunk, FailedItem, Part, SHOWN_ROW_BYTES, check_fragment, keep_or_stop, prepare, row_error, table};
use crate::migrate::{
    connection::Managed,
    error::{ApplyError, sqlite},
    rows::table::{Key, Table},
};

/// A backfill, ready to run.
#[derive(Debug)]
pub struct Backfilling {
    step: Backfill,
    /// Whose rows it changes.
    pub table: Table,
    /// For errors.
    place: String,
}

impl Backfilling {
    /// Looks at the table and at the step's expressions. `place` names the step in errors.
    pub fn new(managed: &Managed, step: &Backfill, place: String) -> Result<Self, ApplyError> {
        let bad = |why: String| ApplyError::BadStep { place: place.clone(), why };
        check_fragment(&step.set).map_err(|why| bad(format!("`set`: {why}")))?;
        check_fragment(&step.filter).map_err(|why| bad(format!("`where`: {why}")))?;
        let table = Table::read(&managed.connection, &step.table)?.ok_or_else(|| bad(format!("there is no table {}", step.table)))?;
        if table.key.is_empty() || table.key.len() > table::MOST_KEY_COLUMNS {
            return Err(bad(format!("{} has no key that its rows can be walked along", table.name)));
        }
        Ok(Self { step: step.clone(), table, place })
    }

    /// Runs the UPDATE over the next `part.rows` rows.
    pub fn chunk(&mut self, managed: &Managed, part: &Part<'_>) -> Result<Chunk, ApplyError> {
        let after = part.position.map(table::key_from_text).transpose().map_err(|why| ApplyError::BadStep { place: self.place.clone(), why })?;
        // An empty table was gone through before it had its first row.
        let after = after.filter(|key| !key.is_empty());
        let (last, examined) = self.table.bound(&managed.connection, after.as_ref(), part.rows)?;
        let keys: Vec<Value> = after.iter().chain(&last).flatten().cloned().collect();
        let range = self.table.range(after.is_some(), last.is_some());

        let mut chunk = Chunk {
            position: last.as_ref().or(after.as_ref()).map(table::key_text).unwrap_or_else(|| "[]".to_owned()),
            examined,
            end: last.is_none(),
            ..Chunk::default()
        };
        match self.update(managed, &range, &keys)? {
            Ok(changed) => chunk.changed = changed,
            Err(error) => {
                row_error(managed, &self.place, error)?;
                self.one_by_one(managed, &range, &keys, part, &mut chunk)?;
            }
        }
        self.check_done(managed, &range, &keys, part, &chunk)?;
        chunk.skipped = examined.saturating_sub(chunk.changed + chunk.failed.len() as u64);
        Ok(chunk)
    }

    /// Runs the UPDATE on the rows with these keys: those that the application touched behind the walk.
    pub fn touched(&mut self, managed: &Managed, keys: &[Key], part: &Part<'_>) -> Result<Chunk, ApplyError> {
        let mut chunk = Chunk { examined: keys.len() as u64, end: true, ..Chunk::default() };
        let only = self.table.compare("=", 1);
        for key in keys {
            self.one(managed, &only, key, part, &mut chunk)?;
            self.check_done(managed, &only, key, part, &chunk)?;
        }
        Ok(chunk)
    }

    fn update(&self, managed: &Managed, range: &str, keys: &[Value]) -> Result<rusqlite::Result<u64>, ApplyError> {
        let sql = format!("UPDATE {} SET {}\n WHERE {range} AND ({}\n)", self.table.quoted, self.step.set, self.step.filter);
        Ok(prepare(managed, &self.place, &sql)?.execute(params_from_iter(keys)).map(|n| n as u64))
    }

    /// The range again, row by row, because one of them failed.
    fn one_by_one(&self, managed: &Managed, range: &str, keys: &[Value], part: &Part<'_>, chunk: &mut Chunk) -> Result<(), ApplyError> {
        let sql = format!("SELECT {} FROM {} WHERE {range} AND ({}\n)", self.table.key_list(), self.table.quoted, self.step.filter);
        let rows: Vec<Key> = managed
            .connection
            .prepare_cached(&sql)
            .and_then(|mut s| s.query_map(params_from_iter(keys), |row| self.table.key_of(row))?.collect())
            .map_err(sqlite("finding the rows that still match"))?;
        let only = self.table.compare("=", 1);
        rows.iter().try_for_each(|key| self.one(managed, &only, key, part, chunk))
    }

    fn one(&self, managed: &Managed, only: &str, key: &Key, part: &Part<'_>, chunk: &mut Chunk) -> Result<(), ApplyError> {
        let text = table::key_text(key);
        if part.failed.contains(&text) {
            return Ok(());
        }
        crate::ambient::pulse();
        match self.update(managed, only, key)? {
            Ok(changed) => chunk.changed += changed,
            Err(error) => {
                let (code, message) = row_error(managed, &self.place, error)?;
                let row = self.table.show(&managed.connection, key, SHOWN_ROW_BYTES).map_err(sqlite("reading the row that failed"))?;
                keep_or_stop(self.step.on_error, &self.place, FailedItem { key: text, code, message, row }, chunk)?;
            }
        }
        Ok(())
    }

    /// A row that matches right after its own change would be changed for ever.
    fn check_done(&self, managed: &Managed, range: &str, keys: &[Value], part: &Part<'_>, chunk: &Chunk) -> Result<(), ApplyError> {
        if chunk.changed == 0 {
            return Ok(());
        }
        // Failed ones match on; more of them than that is one too many.
        let known = part.failed.len() + chunk.failed.len();
        let sql = format!(
            "SELECT {} FROM {} WHERE {range} AND ({}\n) LIMIT {}",
            self.table.key_list(),
            self.table.quoted,
            self.step.filter,
            known.saturating_add(1)
        );
        let mut statement = managed.connection.prepare_cached(&sql).map_err(sqlite("checking the rows"))?;
        let mut rows = statement.query(params_from_iter(keys)).map_err(sqlite("checking the rows"))?;
        while let Some(row) = rows.next().map_err(sqlite("checking the rows"))? {
            let key = table::key_text(&self.table.key_of(row).map_err(sqlite("checking the rows"))?);
            if !part.failed.contains(&key) && !chunk.failed.iter().any(|item| item.key == key) {
                return Err(ApplyError::NotIdempotent { place: self.place.clone(), key });
            }
        }
        Ok(())
    }
}
