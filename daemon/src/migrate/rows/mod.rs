//! Steps that change rows a bounded part at a time: `backfill`, `load` and `rebuild`. A part is done inside a transaction that
//! somebody else opened, so the same code serves one large transaction (mode atomic), many short ones (mode online), a
//! rehearsal and a private copy.

pub mod backfill;
pub mod catch_up;
pub mod load;
pub mod meter;
pub mod records;
pub mod size;
pub mod table;

use std::collections::HashSet;

use whimbrel_shared::manifest::OnError;

use super::{connection::Managed, error::ApplyError, rebuild::Rebuilding};

/// Longest copy of a row that is kept with its error.
const SHOWN_ROW_BYTES: usize = 16 * 1024;

/// A row that could not be changed or loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedItem {
    /// Which row: its key as a JSON array, or the line of a shipped file.
    pub key: String,
    /// SQLite's extended result code.
    pub code: i32,
    /// What SQLite said.
    pub message: String,
    /// The row as it stands, or as it was shipped, as JSON.
    pub row: Option<String>,
}

/// What a part did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Where the next part begins; opaque, for the same step.
    pub position: String,
    /// Rows looked at.
    pub examined: u64,
    /// Rows changed, inserted or deleted.
    pub changed: u64,
    /// Rows that needed nothing.
    pub skipped: u64,
    /// Rows that failed, where the step collects them.
    pub failed: Vec<FailedItem>,
    /// Whether that was the last part.
    pub end: bool,
}

/// What a part is run with.
#[derive(Debug)]
pub struct Part<'a> {
    /// Where it begins; none for the first.
    pub position: Option<&'a str>,
    /// Most rows.
    pub rows: u32,
    /// Keys that failed before: they are not tried again.
    pub failed: &'a HashSet<String>,
}

/// A row step, ready to run.
#[derive(Debug)]
pub enum RowStep {
    /// Changes rows of a table.
    Backfill(backfill::Backfilling),
    /// Empties a table.
    Clear(load::Clearing),
    /// Loads shipped rows.
    Load(load::Loading),
    /// Copies rows into a table of another shape.
    Rebuild(Box<Rebuilding>),
}

impl RowStep {
    /// Runs one part in the open transaction, under the guard. After an error the transaction holds rubbish, or is gone.
    pub fn chunk(&mut self, managed: &Managed, part: &Part<'_>) -> Result<Chunk, ApplyError> {
        match self {
            Self::Backfill(step) => step.chunk(managed, part),
            Self::Clear(step) => step.chunk(managed, part),
            Self::Load(step) => step.chunk(managed, part),
            Self::Rebuild(step) => step.chunk(managed, part),
        }
    }

    /// Names of ours that its statements may touch.
    pub fn lent(&self) -> &[String] {
        match self {
            Self::Backfill(_) | Self::Load(_) => &[],
            Self::Clear(step) => step.lent(),
            Self::Rebuild(step) => step.lent(),
        }
    }

    /// The table whose rows it changes.
    pub fn table(&self) -> &table::Table {
        match self {
            Self::Backfill(step) => &step.table,
            Self::Clear(step) => &step.table,
            Self::Load(step) => &step.table,
            Self::Rebuild(step) => step.table(),
        }
    }

    /// About how many rows it will look at. Reads the table.
    pub fn total(&self, managed: &Managed) -> u64 {
        let rows = |table: &table::Table| {
            let sql = format!("SELECT count(*) FROM {}", table.quoted);
            managed.connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).map_or(0, i64::unsigned_abs)
        };
        match self {
            Self::Backfill(step) => rows(&step.table),
            Self::Clear(step) => rows(&step.table),
            Self::Load(step) => step.total(),
            Self::Rebuild(step) => rows(step.table()),
        }
    }
}

/// Whether an error is one row's own (or one statement's): the others may fare better.
pub(super) fn is_the_rows_own(code: i32) -> bool {
    use rusqlite::ffi::{SQLITE_CONSTRAINT, SQLITE_ERROR, SQLITE_MISMATCH, SQLITE_TOOBIG};
    [SQLITE_CONSTRAINT, SQLITE_ERROR, SQLITE_MISMATCH, SQLITE_TOOBIG].contains(&(code & 0xff))
}

/// Compiles a row step's statement. What does not compile is no row's fault.
pub(super) fn prepare<'m>(managed: &'m Managed, place: &str, sql: &str) -> Result<rusqlite::CachedStatement<'m>, ApplyError> {
    // What reading the table's shape was denied and did without (`pragma_table_list` compiles every view) is not its fault.
    managed.guard.take_denied();
    managed.connection.prepare_cached(sql).map_err(|error| match row_error(managed, place, error) {
        Ok((_, why)) => ApplyError::BadStep { place: place.to_owned(), why },
        Err(error) => error,
    })
}

/// Judges what a row step's statement said. `Ok`: the row's own failure, to be kept or to stop for.
pub(super) fn row_error(managed: &Managed, place: &str, error: rusqlite::Error) -> Result<(i32, String), ApplyError> {
    if let Some(denied) = managed.guard.take_denied() {
        let why = match denied {
            super::guard::Denied::Refused(why) => why,
            super::guard::Denied::Instruction(_) => "it controls the engine".to_owned(),
        };
        return Err(ApplyError::BadStep { place: place.to_owned(), why });
    }
    let code = crate::store::code_of(&error);
    let message = match &error {
        rusqlite::Error::SqliteFailure(_, Some(message)) | rusqlite::Error::SqlInputError { msg: message, .. } => message.clone(),
        other => other.to_string(),
    };
    // An error may have ended the transaction, and what came after it would run alone.
    if is_the_rows_own(code) && managed.connection.is_autocommit() {
        return Err(ApplyError::Row { place: place.to_owned(), key: None, code, message });
    }
    if is_the_rows_own(code) { Ok((code, message)) } else { Err(super::error::sqlite("changing rows")(error)) }
}

/// Keeps a failed row, or stops for it.
fn keep_or_stop(on_error: OnError, place: &str, item: FailedItem, chunk: &mut Chunk) -> Result<(), ApplyError> {
    match on_error {
        OnError::Stop => Err(ApplyError::Row { place: place.to_owned(), key: Some(item.key), code: item.code, message: item.message }),
        OnError::Collect => {
            chunk.failed.push(item);
            Ok(())
        }
    }
}

/// Whether `fragment` stays inside the parentheses that are put around it, so that a range can be added to it.
pub fn check_fragment(fragment: &str) -> Result<(), String> {
    use whimbrel_shared::sql::{Token, tokens};
    let mut depth = 0i32;
    let tokens = tokens(fragment);
    if tokens.is_empty() {
        return Err("it is empty".to_owned());
    }
    for token in tokens {
        match token {
            Token::Mark('(') => depth += 1,
            Token::Mark(')') => depth -= 1,
            Token::Mark(';') => return Err("it has a semicolon: it is a part of one statement".to_owned()),
            _ => {}
        }
        if depth < 0 {
            break;
        }
    }
    if depth == 0 { Ok(()) } else { Err("its parentheses do not match".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_cannot_leave_its_parentheses() {
        assert!(check_fragment("slug IS NULL AND title <> ')'").is_ok());
        for bad in ["", "1) OR (1", "1; DROP TABLE t", "((1)", "-- all\n"] {
            assert!(check_fragment(bad).is_err(), "{bad}");
        }
    }
}
