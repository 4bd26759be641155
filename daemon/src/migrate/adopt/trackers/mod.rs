//! Reads the trackers of other tools. Nothing here writes: a foreign tracker is read, never changed.

mod lists;
mod numbers;
mod seed;
mod states;
#[cfg(test)]
mod tests;

use rusqlite::{Connection, types::Value};
use whimbrel_shared::migration::MAX_CHAIN;

use super::{
    past::{Past, Tool},
    recognise::{Table, recognise},
};

/// Columns that no tracker has: those behind them are not looked at.
const MOST_COLUMNS: i64 = 24;
/// Most rows that are read of a tracker: ten times the longest chain, for those that write a row for every up and down.
const MOST_ROWS: usize = 10 * MAX_CHAIN;
/// Longest text that is taken from another tool's table, in characters: no name is longer, and messages show it.
const LONGEST_TEXT: usize = 500;

/// Every tracker of a file, those with a table of their own first. `PRAGMA user_version` counts where it is not 0.
pub(super) fn read(connection: &Connection) -> rusqlite::Result<Vec<Past>> {
    let tables = tables(connection)?;
    let mut pasts = Vec::new();
    for (tool, table) in recognise(&tables) {
        let source = Source { connection, tables: &tables, table };
        pasts.push(match tool {
            Tool::Refinery => lists::refinery(&source)?,
            Tool::Diesel => lists::diesel(&source)?,
            Tool::Dbmate | Tool::Rails => lists::versions(&source, tool)?,
            Tool::SqlMigrate => lists::sql_migrate(&source)?,
            Tool::Alembic => lists::alembic(&source)?,
            Tool::Django => lists::django(&source)?,
            Tool::TypeOrm => lists::typeorm(&source)?,
            Tool::Drizzle => lists::drizzle(&source)?,
            Tool::Grdb => lists::grdb(&source)?,
            Tool::Sqlx => states::sqlx(&source)?,
            Tool::GolangMigrate => states::golang_migrate(&source)?,
            Tool::Goose => states::goose(&source)?,
            Tool::Flyway => states::flyway(&source)?,
            Tool::Liquibase => states::liquibase(&source)?,
            Tool::Prisma => states::prisma(&source)?,
            Tool::Knex => states::knex(&source)?,
            Tool::Kysely => states::kysely(&source)?,
            Tool::EfCore => states::ef_core(&source)?,
            Tool::Atlas => states::atlas(&source)?,
            Tool::Yoyo => states::yoyo(&source)?,
            Tool::Room => numbers::room(&source)?,
            Tool::Seed => seed::read(&source)?,
            // It has no table, so no table is recognised as its.
            Tool::UserVersion => continue,
        });
    }
    if !pasts.iter().any(|p| p.tool == Tool::Room) {
        pasts.extend(numbers::user_version(connection)?);
    }
    Ok(pasts)
}

fn tables(connection: &Connection) -> rusqlite::Result<Vec<Table>> {
    let mut statement = connection.prepare(
        "SELECT t.name, lower(c.name) FROM main.sqlite_schema AS t JOIN pragma_table_info(t.name) AS c
         WHERE t.type = 'table' AND t.sql NOT LIKE 'CREATE VIRTUAL%' AND c.cid < ?1 ORDER BY t.name, c.cid",
    )?;
    let mut rows = statement.query([MOST_COLUMNS])?;
    let mut tables: Vec<Table> = Vec::new();
    while let Some(row) = rows.next()? {
        let (name, column): (String, String) = (row.get(0)?, row.get(1)?);
        match tables.last_mut().filter(|t| t.name == name) {
            Some(table) => table.columns.push(column),
            None => tables.push(Table { name, columns: vec![column] }),
        }
    }
    Ok(tables)
}

/// A tracker's table, and what lies beside it.
struct Source<'a> {
    connection: &'a Connection,
    tables: &'a [Table],
    table: &'a str,
}

impl Source<'_> {
    fn past(&self, tool: Tool) -> Past {
        Past::new(tool, self.table)
    }

    fn has(&self, table: &str) -> Option<&str> {
        self.tables.iter().find(|t| t.name.eq_ignore_ascii_case(table)).map(|t| t.name.as_str())
    }

    fn has_column(&self, column: &str) -> bool {
        self.tables.iter().any(|t| t.name == self.table && t.columns.iter().any(|c| c == column))
    }

    /// `SELECT columns FROM` the tracker's table, `rest`. Values as text, however the tool's driver stored them.
    fn rows<const N: usize>(&self, columns: [&str; N], rest: &str) -> rusqlite::Result<Vec<[Option<String>; N]>> {
        self.rows_of(self.table, columns, rest)
    }

    fn rows_of<const N: usize>(&self, table: &str, columns: [&str; N], rest: &str) -> rusqlite::Result<Vec<[Option<String>; N]>> {
        let quoted = columns.map(|c| if c == "rowid" { c.to_owned() } else { format!("\"{c}\"") }).join(", ");
        let sql = format!("SELECT {quoted} FROM main.\"{}\" {rest}", table.replace('"', "\"\""));
        let mut statement = self.connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()?.filter(|_| found.len() < MOST_ROWS) {
            let mut values = [const { None }; N];
            for (index, value) in values.iter_mut().enumerate() {
                *value = text(row.get(index)?);
            }
            found.push(values);
        }
        Ok(found)
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Integer(n) => Some(n.to_string()),
        // A whole number that a driver stored as a float is still that number.
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
        Value::Real(x) if x.fract() == 0.0 && x.abs() < 1e15 => Some((x as i64).to_string()),
        Value::Real(x) => Some(x.to_string()),
        Value::Text(t) => Some(t.chars().take(LONGEST_TEXT).collect()),
        Value::Blob(b) => Some(String::from_utf8_lossy(&b).chars().take(LONGEST_TEXT).collect()),
    }
}

/// Whether a tool's flag is set: 1, and what drivers without booleans write.
fn is_true(value: Option<&String>) -> bool {
    value.is_some_and(|v| matches!(v.to_ascii_lowercase().as_str(), "1" | "t" | "true" | "y" | "yes"))
}

/// The file's name without its directory and its extensions.
fn stem(path: &str) -> &str {
    let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
    const EXTENSIONS: [&str; 10] = ["sql", "js", "ts", "mjs", "cjs", "mts", "cts", "py", "xml", "yaml"];
    match name.rsplit_once('.') {
        Some((stem, extension)) if EXTENSIONS.contains(&extension) => stem,
        _ => name,
    }
}
