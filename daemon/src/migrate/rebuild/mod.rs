//! One `rebuild` step: a table gets another shape. A side table is made, rows are copied into it range by range, and the
//! two change places in one short transaction (DESIGN 8.6).
//!
//! Each row of the side table is the *image* of one row as it is now. Triggers take an image away in the same statement
//! in which the application changes or deletes its row, and note the key; what is noted is copied again behind the walk,
//! the last of it in the transaction of the swap. So the side table never holds what is no longer true, and no foreign
//! key of it stands in the application's way.

mod facts;
mod judge;
pub mod shape;
mod swap;
mod watch;

use rusqlite::{params_from_iter, types::Value};
use whimbrel_shared::{manifest::Rebuild, migration::Migration};

use self::shape::Shape;
use super::{
    connection::Managed,
    error::{ApplyError, sqlite},
    rows::{
        Chunk, Part, prepare, row_error,
        table::{self, Key, Table, quote},
    },
};

/// The position of a walk that came to its end. Rows that appear behind it are noted by the triggers.
const WALKED: &str = "walked";

/// Begins of the names of our tables beside the application's. The number of the step follows.
const SIDE: &str = "_whimbrel_side_";
const ASIDE: &str = "_whimbrel_aside_";

/// The table that a step's rows are copied into.
pub fn side(step: usize) -> String {
    format!("{SIDE}{step}")
}

/// The table that was replaced, until it is empty.
pub fn aside(step: usize) -> String {
    format!("{ASIDE}{step}")
}

/// A rebuild, ready to run.
#[derive(Debug)]
pub struct Rebuilding {
    /// What becomes what.
    pub shape: Shape,
    /// Names of ours that its statements may touch.
    lent: [String; 1],
    place: String,
    copy: String,
}

impl Rebuilding {
    /// Looks at the table as it is and at what it is to be. `place` names the step in errors.
    pub fn new(managed: &Managed, step: &Rebuild, number: usize, migration: &Migration, place: String) -> Result<Self, ApplyError> {
        let shape = Shape::read(managed, step, number, migration, &place)?;
        let list = |of: &dyn Fn(&(String, String)) -> String| shape.columns.iter().map(of).collect::<Vec<_>>().join(", ");
        let copy = format!(
            "INSERT INTO main.{} ({}) SELECT {} FROM {}",
            quote(&shape.side),
            list(&|(column, _)| column.clone()),
            list(&|(_, value)| format!("{value}\n")),
            shape.table.quoted
        );
        Ok(Self { lent: [shape.side.clone()], shape, place, copy })
    }

    /// Names of ours that its statements may touch.
    pub fn lent(&self) -> &[String] {
        &self.lent
    }

    /// Copies the next `part.rows` rows.
    pub fn chunk(&mut self, managed: &Managed, part: &Part<'_>) -> Result<Chunk, ApplyError> {
        if part.position == Some(WALKED) {
            return Ok(Chunk { position: WALKED.to_owned(), end: true, ..Chunk::default() });
        }
        let after = part.position.map(table::key_from_text).transpose().map_err(|why| ApplyError::BadStep { place: self.place.clone(), why })?;
        let (last, examined) = self.shape.table.bound(&managed.connection, after.as_ref(), part.rows)?;
        let keys: Vec<Value> = after.iter().chain(&last).flatten().cloned().collect();
        let range = self.shape.table.range(after.is_some(), last.is_some());
        let changed = match self.copy(managed, &range, &keys)? {
            Ok(rows) => rows,
            Err(error) => return Err(self.blame(managed, &range, &keys, error)?),
        };
        judge::new_keys(managed, &self.shape, &range, &keys)?;
        Ok(Chunk {
            position: last.as_ref().map_or_else(|| WALKED.to_owned(), table::key_text),
            examined,
            changed,
            end: last.is_none(),
            ..Chunk::default()
        })
    }

    /// Copies the rows with these keys, which the application touched behind the walk, where they are there and have no
    /// image.
    pub fn touched(&mut self, managed: &Managed, keys: &[Key]) -> Result<Chunk, ApplyError> {
        let only = self.shape.table.compare("=", 1);
        let missing =
            format!("{only} AND NOT EXISTS (SELECT 1 FROM main.{} AS _image WHERE {})", quote(&self.shape.side), self.shape.is_image("_image"));
        for key in keys {
            crate::ambient::pulse();
            if let Err(error) = self.copy(managed, &missing, key)? {
                return Err(self.failed(managed, key, error)?);
            }
            judge::new_keys(managed, &self.shape, &only, key)?;
        }
        Ok(Chunk { examined: keys.len() as u64, end: true, ..Chunk::default() })
    }

    fn copy(&self, managed: &Managed, condition: &str, keys: &[Value]) -> Result<rusqlite::Result<u64>, ApplyError> {
        let mut statement = prepare(managed, &self.place, &format!("{} WHERE {condition}", self.copy))?;
        Ok(statement.execute(params_from_iter(keys)).map(|rows| rows as u64))
    }

    /// Finds the row of a range that cannot be copied. What was copied of the range on the way is rolled back with it.
    fn blame(&self, managed: &Managed, range: &str, keys: &[Value], error: rusqlite::Error) -> Result<ApplyError, ApplyError> {
        let (code, message) = row_error(managed, &self.place, error)?;
        let table = &self.shape.table;
        let sql = format!("SELECT {0} FROM {1} WHERE {range} ORDER BY {0}", table.key_list(), table.quoted);
        let rows: Vec<Key> = managed
            .connection
            .prepare_cached(&sql)
            .and_then(|mut s| s.query_map(params_from_iter(keys), |row| table.key_of(row))?.collect())
            .map_err(sqlite("finding the row that failed"))?;
        let only = table.compare("=", 1);
        for key in &rows {
            if let Err(error) = self.copy(managed, &only, key)? {
                return self.failed(managed, key, error);
            }
        }
        Ok(ApplyError::Row { place: self.place.clone(), key: None, code, message })
    }

    fn failed(&self, managed: &Managed, key: &Key, error: rusqlite::Error) -> Result<ApplyError, ApplyError> {
        let (code, message) = row_error(managed, &self.place, error)?;
        Ok(ApplyError::Row { place: self.place.clone(), key: Some(table::key_text(key)), code, message: self.in_its_name(message) })
    }

    /// SQLite's message with the table's own name in place of the side table's.
    fn in_its_name(&self, message: String) -> String {
        message.replace(&self.shape.side, &self.shape.name)
    }
}

/// Takes away what rebuilds left beside the application's tables: of one step, or of all. Inside the open transaction.
pub fn take_away(managed: &Managed, step: Option<usize>) -> Result<(), ApplyError> {
    let doing = "taking a side table away";
    let names = match step {
        Some(step) => vec![side(step), aside(step)],
        None => managed
            .connection
            .prepare(
                "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND (substr(name, 1, length(?1)) = ?1 OR substr(name, 1, length(?2)) = ?2)",
            )
            .and_then(|mut s| s.query_map((SIDE, ASIDE), |row| row.get(0))?.collect())
            .map_err(sqlite(doing))?,
    };
    names.iter().try_for_each(|name| managed.connection.execute_batch(&format!("DROP TABLE IF EXISTS main.{}", quote(name)))).map_err(sqlite(doing))
}

/// The table as a part of the step that is being worked on shows it.
impl Rebuilding {
    /// The table that is rebuilt.
    pub fn table(&self) -> &Table {
        &self.shape.table
    }
}
