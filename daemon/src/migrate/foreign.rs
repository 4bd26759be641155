//! Foreign-key violations: those that were there before are tolerated, new ones are refused and named (DESIGN 8.5).

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension};

use super::{rows::table::quote, schema::SchemaReader};

/// Violations as a multiset. A violation is known by its tables and the values that refer to nothing, not by its row id: a
/// rebuild copies rows under new ids. In a table without row ids only their number is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations {
    counts: HashMap<String, usize>,
}

/// One violation in words, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewViolation(pub String);

impl Violations {
    /// All violations of `tables`, or of every table.
    pub fn read(connection: &Connection, schema: &SchemaReader, tables: Option<&[String]>) -> rusqlite::Result<(Self, Vec<(String, NewViolation)>)> {
        let (mut found, mut named) = (Self::default(), Vec::new());
        let everything = schema.children_of(&|_| true, &|_| true);
        for table in tables.unwrap_or(&everything) {
            match found.read_table(connection, schema, table, &mut named) {
                Ok(()) => {}
                // A key whose parent columns are not unique cannot be checked, nor enforced: SQLite refuses both.
                Err(error) if error.to_string().contains("foreign key mismatch") => {}
                Err(error) => return Err(error),
            }
        }
        Ok((found, named))
    }

    fn read_table(
        &mut self,
        connection: &Connection,
        schema: &SchemaReader,
        table: &str,
        named: &mut Vec<(String, NewViolation)>,
    ) -> rusqlite::Result<()> {
        let mut statement = connection.prepare(&format!("PRAGMA main.foreign_key_check({})", quote(table)))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (child, row_id, parent, index): (String, Option<i64>, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            let values = match row_id {
                Some(id) => values(connection, schema, &child, id, &parent, index)?,
                None => String::new(),
            };
            let key = format!("{child}\u{1f}{parent}\u{1f}").to_ascii_lowercase() + &values;
            let shown = row_id.map_or_else(String::new, |id| format!(" row {id}"));
            *self.counts.entry(key.clone()).or_default() += 1;
            named.push((key, NewViolation(format!("{child}{shown} refers to a row of {parent} that is not there"))));
        }
        Ok(())
    }

    /// The violations of `after` that are not among these.
    pub fn new_in(&self, after: Vec<(String, NewViolation)>) -> Vec<NewViolation> {
        let mut left = self.counts.clone();
        after
            .into_iter()
            .filter_map(|(key, violation)| match left.get_mut(&key) {
                Some(count) if *count > 0 => {
                    *count -= 1;
                    None
                }
                Some(_) | None => Some(violation),
            })
            .collect()
    }
}

/// The values of the foreign key's columns, as text that tells types apart.
fn values(connection: &Connection, schema: &SchemaReader, child: &str, row_id: i64, parent: &str, index: i64) -> rusqlite::Result<String> {
    let keys = schema.foreign_keys(&child.to_ascii_lowercase());
    let Some(key) = usize::try_from(index).ok().and_then(|i| keys.get(i)).or_else(|| keys.iter().find(|k| k.parent == parent.to_ascii_lowercase()))
    else {
        return Ok(String::new());
    };
    // A column may be called like the row id; then another of its names stands for it.
    let columns: Vec<String> = connection
        .prepare("SELECT name FROM pragma_table_xinfo(?1)")
        .and_then(|mut s| s.query_map([child], |row| row.get(0))?.collect::<rusqlite::Result<_>>())?;
    let free = |name: &&str| !columns.iter().any(|c| c.eq_ignore_ascii_case(name));
    let Some(row_name) = ["_rowid_", "rowid", "oid"].into_iter().find(free) else { return Ok(String::new()) };
    let quoted: Vec<_> = key.columns.iter().map(|c| format!("quote({})", quote(c))).collect();
    let sql = format!("SELECT {} FROM main.{} WHERE {row_name} = ?1", quoted.join(" || ',' || "), quote(child));
    let values: Option<String> = connection.query_row(&sql, [row_id], |row| row.get(0)).optional()?;
    Ok(format!("{}={}", key.columns.join(","), values.unwrap_or_default()))
}
