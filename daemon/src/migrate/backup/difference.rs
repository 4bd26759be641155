//! What a database holds that a backup of it does not: the rows that going back would lose.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags};

use crate::store::private::open_database;

/// Longest that rows are counted: a person waits for the answer.
const LONGEST: Duration = Duration::from_secs(5);
/// Most tables that are named.
const NAMED: usize = 10;

/// The rows in `live` that `backup` does not have as they are, in words: `3 rows of notes, 1 row of tags`. Tables are compared
/// over the columns that both have; rows that are the same in all of them count once. Reads only, without a lock
/// that an application would notice in WAL mode.
pub(super) fn lost(live: &Path, backup: &Path) -> String {
    match count(live, backup) {
        Ok(tables) if tables.is_empty() => "no row that whimbrel can see, in any table that was compared".to_owned(),
        Ok(tables) => {
            let mut words: Vec<String> =
                tables.iter().take(NAMED).map(|(t, n)| format!("{n} {} of {t}", if *n == 1 { "row" } else { "rows" })).collect();
            if tables.len() > NAMED {
                words.push(format!("rows of {} more tables", tables.len() - NAMED));
            }
            words.join(", ")
        }
        Err(_) => format!("rows that could not be counted within {LONGEST:?}"),
    }
}

/// Per table, how many rows; tables with none are left out.
fn count(live: &Path, backup: &Path) -> rusqlite::Result<Vec<(String, u64)>> {
    let mut connection = open_database(live, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let begun = Instant::now();
    connection.progress_handler(
        10_000,
        Some(move || {
            crate::ambient::pulse();
            begun.elapsed() > LONGEST
        }),
    )?;
    connection.execute("ATTACH ?1 AS backup", [backup.to_string_lossy()])?;
    let mut statement = connection.prepare(
        "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND rootpage > 0 AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         AND name NOT LIKE '\\_whimbrel\\_%' ESCAPE '\\' ORDER BY name",
    )?;
    let tables: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut found = Vec::new();
    for table in tables {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let columns = common(&connection, &table)?.iter().map(|c| quoted(c)).collect::<Vec<_>>().join(", ");
        let name = quoted(&table);
        let sql = match columns.as_str() {
            "" => format!("SELECT count(*) FROM main.{name}"),
            all => format!("SELECT count(*) FROM (SELECT {all} FROM main.{name} EXCEPT SELECT {all} FROM backup.{name})"),
        };
        let rows = connection.query_row(&sql, [], |row| row.get::<_, i64>(0))?.unsigned_abs();
        if rows > 0 {
            found.push((table, rows));
        }
    }
    Ok(found)
}

/// Columns that a table has on both sides; none where the backup has no such table.
fn common(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE hidden = 0
         INTERSECT SELECT name FROM pragma_table_xinfo(?1, 'backup') WHERE hidden = 0",
    )?;
    statement.query_map([table], |row| row.get(0))?.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_lost_is_counted_table_by_table() {
        let dir = tempfile::tempdir().unwrap();
        let [live, backup] = ["live.db", "backup.db"].map(|name| dir.path().join(name));
        let sql = "CREATE TABLE notes(id INTEGER PRIMARY KEY, body); INSERT INTO notes VALUES (1, 'a'), (2, 'b'), (3, 'c'); CREATE TABLE same(x)";
        for path in [&live, &backup] {
            Connection::open(path).unwrap().execute_batch(sql).unwrap();
        }
        assert!(lost(&live, &backup).starts_with("no row"));
        let app = Connection::open(&live).unwrap();
        app.execute_batch("INSERT INTO notes VALUES (4, 'd'); UPDATE notes SET body = 'B' WHERE id = 2; ALTER TABLE notes ADD COLUMN n").unwrap();
        app.execute_batch("CREATE TABLE new(x); INSERT INTO new VALUES (1); DELETE FROM notes WHERE id = 1").unwrap();
        assert_eq!(lost(&live, &backup), "1 row of new, 2 rows of notes");
    }
}
