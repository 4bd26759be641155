//! The side table takes the table's place: in `sqlite_schema` the two, their indexes and nothing else get other names.
//!
//! ALTER TABLE knows no way to give an index another name, so one that was built beside the table could not take the name
//! it needs, and building it in the swap would hold the lock for as long as the table is large. What is written is the
//! text that SQLite itself keeps for such an object, and no page but those of `sqlite_schema` changes: the edit that
//! <https://sqlite.org/lang_altertable.html> allows for (section 7).

use rusqlite::{OptionalExtension, config::DbConfig};

use super::{
    Rebuilding, judge,
    shape::{Shape, Text, objects},
    take_away,
};
use crate::{
    migrate::{
        connection::Managed,
        error::{ApplyError, sqlite},
        guard::Touched,
        rows::{is_the_rows_own, table::quote},
    },
    store::code_of,
};

impl Rebuilding {
    /// Makes the side table and its indexes, empty, and watches the table for `unit`. Inside the open transaction, with the
    /// guard off. What an earlier try left is taken away.
    pub fn begin(&self, managed: &Managed, number: usize, unit: Option<u32>) -> Result<(), ApplyError> {
        take_away(managed, Some(number))?;
        for text in &self.shape.made {
            managed.connection.execute_batch(&text.ours_sql).map_err(|error| self.does_not_fit(managed, text, error))?;
        }
        unit.map_or(Ok(()), |unit| self.shape.watch(managed, unit))
    }

    /// Puts the side table in the place of the table, which is put aside with its rows. Inside the open transaction, with
    /// foreign keys and the guard off. Says what was touched by it.
    pub fn swap(&self, managed: &Managed) -> Result<Touched, ApplyError> {
        let shape = &self.shape;
        let children = judge::children(managed, shape)?;
        let connection = &managed.connection;
        let doing = "putting the new table in its place";
        for (kind, name, _) in objects(connection, &shape.table.name).map_err(sqlite(doing))? {
            if kind == "trigger" {
                connection.execute_batch(&format!("DROP TRIGGER main.{}", quote(&name))).map_err(sqlite(doing))?;
            }
        }
        let late = self.indexes_that_came_late(managed)?;
        shape.rename(managed).map_err(sqlite(doing))?.map_err(ApplyError::Moved)?;
        let connection = &managed.connection;
        for text in late {
            connection.execute_batch(&text.sql).map_err(|error| self.does_not_fit(managed, text, error))?;
        }
        shape.sequence(managed).map_err(sqlite(doing))?;
        for trigger in &shape.triggers {
            connection.execute_batch(trigger).map_err(sqlite("making a trigger again"))?;
        }
        if let Some(children) = &children {
            judge::orphans(managed, children)?;
        }
        Ok(Touched { dropped: shape.drop.clone(), schema: true, altered: true, ..Touched::default() })
    }

    /// From now on what is put aside is no obstacle to the application.
    pub fn watch_aside(&self, managed: &Managed, unit: u32) -> Result<(), ApplyError> {
        self.shape.watch_aside(managed, unit)
    }

    /// Indexes that the application made or changed since the side table was. Those that it dropped go.
    fn indexes_that_came_late(&self, managed: &Managed) -> Result<Vec<&Text>, ApplyError> {
        let doing = "comparing indexes";
        let beside = objects(&managed.connection, &self.shape.side).map_err(sqlite(doing))?;
        let indexes = || self.shape.made.iter().filter(|text| text.kind == "index");
        for (kind, name, sql) in &beside {
            if kind == "index" && !indexes().any(|text| text.ours == *name && text.ours_sql == *sql) {
                managed.connection.execute_batch(&format!("DROP INDEX main.{}", quote(name))).map_err(sqlite(doing))?;
            }
        }
        Ok(indexes().filter(|text| !beside.iter().any(|(_, name, sql)| text.ours == *name && text.ours_sql == *sql)).collect())
    }

    /// What SQLite says of a text is the author's to mend; what it says of the disk passes away.
    fn does_not_fit(&self, managed: &Managed, text: &Text, error: rusqlite::Error) -> ApplyError {
        if !is_the_rows_own(code_of(&error)) || managed.connection.is_autocommit() {
            return sqlite("making the new table")(error);
        }
        ApplyError::BadStep { place: self.place.clone(), why: format!("the {} {} cannot be made: {error}", text.kind, text.name) }
    }
}

impl Shape {
    /// Writes the names. `Err` in words where the schema is not what was read.
    fn rename(&self, managed: &Managed) -> rusqlite::Result<Result<(), String>> {
        let connection = &managed.connection;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, true)?;
        let renamed = self.write_names(managed).and_then(|renamed| {
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, false)?;
            // No statement about the schema ran, so nobody would look at it again: neither other connections nor this one.
            let version: i64 = connection.pragma_query_value(None, "schema_version", |row| row.get(0))?;
            connection.pragma_update(None, "schema_version", version.wrapping_add(1))?;
            connection.execute_batch("PRAGMA writable_schema = RESET")?;
            Ok(renamed)
        });
        // Also after a failure: the connection is used again.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        renamed
    }

    fn write_names(&self, managed: &Managed) -> rusqlite::Result<Result<(), String>> {
        let aside = self.put_aside.iter().map(|text| (text, &text.name, &text.ours, &text.ours_sql, &self.table.name, &self.aside));
        let there = objects(&managed.connection, &self.side)?;
        let beside = self.made.iter().filter(|text| there.iter().any(|(_, name, _)| *name == text.ours));
        let into_place = beside.map(|text| (text, &text.ours, &text.name, &text.sql, &self.side, &self.name));
        for (text, from, to, sql, table, new_table) in aside.chain(into_place) {
            let rows = managed.connection.execute(
                "UPDATE main.sqlite_schema SET name = ?1, tbl_name = ?2, sql = ?3 WHERE type = ?4 AND name = ?5 AND tbl_name = ?6 COLLATE NOCASE",
                (to, new_table, sql, &text.kind, from, table),
            )?;
            if rows != 1 {
                return Ok(Err(format!("the {} {from} is not there", text.kind)));
            }
            if text.kind == "table" {
                // The indexes of its constraints, which have no text: they are known by the table's name and a number.
                managed.connection.execute(
                    "UPDATE main.sqlite_schema SET name = 'sqlite_autoindex_' || ?1 || substr(name, length('sqlite_autoindex_' || ?2) + 1), tbl_name = ?1
                     WHERE type = 'index' AND tbl_name = ?2 COLLATE NOCASE AND sql IS NULL",
                    (new_table, table),
                )?;
            }
        }
        Ok(Ok(()))
    }

    /// Row ids that were given are not given again.
    fn sequence(&self, managed: &Managed) -> rusqlite::Result<()> {
        let connection = &managed.connection;
        let there: bool = connection.query_row("SELECT count(*) > 0 FROM main.sqlite_schema WHERE name = 'sqlite_sequence'", [], |row| row.get(0))?;
        if !there {
            return Ok(());
        }
        let both = "FROM main.sqlite_sequence WHERE name = ?1 COLLATE NOCASE OR name = ?2";
        let last: Option<i64> =
            connection.query_row(&format!("SELECT max(seq) {both}"), (&self.table.name, &self.side), |row| row.get(0)).optional()?.flatten();
        connection.execute(&format!("DELETE {both}"), (&self.table.name, &self.side))?;
        if let Some(last) = last.filter(|_| self.autoincrement) {
            connection.execute("INSERT INTO main.sqlite_sequence(name, seq) VALUES (?1, ?2)", (&self.name, last))?;
        }
        Ok(())
    }
}
