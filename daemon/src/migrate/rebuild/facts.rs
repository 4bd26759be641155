//! What SQLite says about one table: its columns, what is unique in it, and what it refers to.

use rusqlite::{Connection, OptionalExtension, Row};

use crate::migrate::rows::table::quote;

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: String,
    /// Whether it is computed, and cannot be written.
    pub(super) generated: bool,
}

/// Columns that are unique together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unique {
    /// Each with its collation; an expression has no name.
    pub(super) columns: Vec<(Option<String>, String)>,
    /// The text of the index, where it is one by itself.
    pub(super) sql: Option<String>,
    /// Whether only rows that match a condition are in it.
    pub(super) partial: bool,
}

/// A foreign key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) parent: String,
    pub(super) from: Vec<String>,
    /// Empty: the parent's primary key.
    pub(super) to: Vec<String>,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) columns: Vec<Column>,
    pub(super) has_rowid: bool,
    /// The column that is another name of the row id.
    pub(super) alias: Option<String>,
    pub(super) primary: Vec<String>,
    pub(super) unique: Vec<Unique>,
    pub(super) references: Vec<Reference>,
}

impl Facts {
    /// Reads those of `table` in the main database.
    pub(super) fn read(connection: &Connection, table: &str) -> rusqlite::Result<Self> {
        let all = |sql: &str, each: &mut dyn FnMut(&Row<'_>) -> rusqlite::Result<()>| -> rusqlite::Result<()> {
            let mut statement = connection.prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                each(row)?;
            }
            Ok(())
        };
        let name = quote(table);
        let without: bool = connection.query_row(
            "SELECT wr FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name = ?1 COLLATE NOCASE",
            [table],
            |row| row.get(0),
        )?;
        let mut facts =
            Self { columns: Vec::new(), has_rowid: !without, alias: None, primary: Vec::new(), unique: Vec::new(), references: Vec::new() };
        let mut primary: Vec<(i64, String)> = Vec::new();
        all(&format!("PRAGMA main.table_xinfo({name})"), &mut |row| {
            let (column, kind, place, hidden): (String, String, i64, i64) = (row.get(1)?, row.get(2)?, row.get(5)?, row.get(6)?);
            if place > 0 {
                primary.push((place, column.clone()));
            }
            facts.columns.push(Column { name: column, kind, generated: hidden != 0 });
            Ok(())
        })?;
        primary.sort();
        facts.primary = primary.into_iter().map(|(_, column)| column).collect();

        let mut indexes: Vec<(String, String, bool)> = Vec::new();
        all(&format!("PRAGMA main.index_list({name})"), &mut |row| {
            if row.get(2)? {
                indexes.push((row.get(1)?, row.get(3)?, row.get(4)?));
            }
            Ok(())
        })?;
        // The one primary key that has no index of its own is the row id.
        if facts.has_rowid && facts.primary.len() == 1 && !indexes.iter().any(|(_, origin, _)| origin == "pk") {
            facts.alias = facts.primary.first().cloned();
            facts.unique.push(Unique { columns: vec![(facts.alias.clone(), "BINARY".to_owned())], sql: None, partial: false });
        }
        for (index, _, partial) in indexes {
            let mut columns = Vec::new();
            all(&format!("PRAGMA main.index_xinfo({})", quote(&index)), &mut |row| {
                if row.get(5)? {
                    columns.push((row.get(2)?, row.get(4)?));
                }
                Ok(())
            })?;
            let text = "SELECT sql FROM main.sqlite_schema WHERE type = 'index' AND name = ?1";
            let sql = connection.query_row(text, [&index], |row| row.get(0)).optional()?.flatten();
            facts.unique.push(Unique { columns, sql, partial });
        }
        let mut ids: Vec<i64> = Vec::new();
        all(&format!("PRAGMA main.foreign_key_list({name})"), &mut |row| {
            let (id, parent, from, to): (i64, String, String, Option<String>) = (row.get(0)?, row.get(2)?, row.get(3)?, row.get(4)?);
            if ids.last() != Some(&id) {
                ids.push(id);
                facts.references.push(Reference { parent, from: Vec::new(), to: Vec::new() });
            }
            if let Some(reference) = facts.references.last_mut() {
                reference.from.push(from);
                reference.to.extend(to);
            }
            Ok(())
        })?;
        Ok(facts)
    }

    /// A column by name.
    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name))
    }
}
