//! What a managed file holds apart from Whimbrel's own tables, as one digest.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, types::ValueRef};
use whimbrel_shared::ids::Digest;

/// Digest over the schema and every row, without what is named `_whimbrel_*`. Two files with the same content have the
/// same digest, whatever their pages look like.
pub fn content_hash(path: &Path) -> Digest {
    let file = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).expect("the file opens");
    file.busy_timeout(std::time::Duration::from_secs(10)).expect("a timeout can be set");
    let file = file.unchecked_transaction().expect("a read transaction begins");
    content(&file)
}

/// As [`content_hash`], on an open connection.
pub fn content(file: &Connection) -> Digest {
    digest(file, "lower(tbl_name) NOT LIKE '\\_whimbrel\\_%' ESCAPE '\\'")
}

/// As [`content`], Whimbrel's own tables included.
pub fn everything(file: &Connection) -> Digest {
    digest(file, "true")
}

fn digest(file: &Connection, which: &str) -> Digest {
    let mut all = Vec::new();
    let mut statement = file
        .prepare(&format!("SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema WHERE {which} ORDER BY 1, 2"))
        .expect("the schema is read");
    let objects: Vec<[String; 4]> = statement
        .query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))
        .and_then(Iterator::collect)
        .expect("the schema is read");
    for object in &objects {
        for field in object {
            put(&mut all, field.as_bytes());
        }
        // A shadow table's rows belong to its virtual table; both are hashed, which does no harm.
        if object[0] == "table" {
            rows(file, &object[1], &mut all);
        }
    }
    let version: i64 = file.pragma_query_value(None, "user_version", |row| row.get(0)).expect("user_version is read");
    put(&mut all, &version.to_le_bytes());
    Digest::of(&all)
}

fn rows(file: &Connection, table: &str, all: &mut Vec<u8>) {
    let mut statement = file.prepare(&format!("SELECT * FROM main.\"{}\"", table.replace('"', "\"\""))).expect("a table is read");
    let columns = statement.column_count();
    let mut digests = Vec::new();
    let mut found = statement.query([]).expect("a table is read");
    while let Some(row) = found.next().expect("a row is read") {
        let mut bytes = Vec::new();
        for column in 0..columns {
            match row.get_ref(column).expect("a column is read") {
                ValueRef::Null => bytes.push(0),
                ValueRef::Integer(n) => put(&mut bytes, &[&[1], &n.to_le_bytes()[..]].concat()),
                ValueRef::Real(x) => put(&mut bytes, &[&[2], &x.to_bits().to_le_bytes()[..]].concat()),
                ValueRef::Text(t) => put(&mut bytes, &[&[3], t].concat()),
                ValueRef::Blob(b) => put(&mut bytes, &[&[4], b].concat()),
            }
        }
        digests.push(*Digest::of(&bytes).as_bytes());
    }
    digests.sort_unstable();
    put(all, &digests.concat());
}

fn put(all: &mut Vec<u8>, bytes: &[u8]) {
    all.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    all.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(sql: &str) -> Digest {
        let file = Connection::open_in_memory().unwrap();
        file.execute_batch(sql).unwrap();
        content(&file)
    }

    #[test]
    fn any_difference_in_rows_or_schema_shows_and_our_own_tables_do_not() {
        let base = "CREATE TABLE t(a, b); INSERT INTO t VALUES (1, 'x'), (2, NULL);";
        let same = [
            "CREATE TABLE t(a, b); INSERT INTO t VALUES (2, NULL), (1, 'x');",
            "CREATE TABLE t(a, b); INSERT INTO t VALUES (1, 'x'), (2, NULL); CREATE TABLE _whimbrel_x(y); CREATE INDEX _i ON _whimbrel_x(y);",
        ];
        let others = [
            "CREATE TABLE t(a, b); INSERT INTO t VALUES (1, 'x'), (2, NULL), (2, NULL);",
            "CREATE TABLE t(a, b); INSERT INTO t VALUES (1, 'x'), (2, '');",
            "CREATE TABLE t(a, b); INSERT INTO t VALUES ('1', 'x'), (2, NULL);",
            "CREATE TABLE t(a, b, c); INSERT INTO t VALUES (1, 'x', NULL), (2, NULL, NULL);",
            "CREATE TABLE t(a, b); INSERT INTO t VALUES (1, 'x'), (2, NULL); CREATE INDEX i ON t(a);",
            "CREATE TABLE t(a, b); INSERT INTO t VALUES (1, 'x'), (2, NULL); PRAGMA user_version = 3;",
            "CREATE TABLE t(a, b); INSERT INTO t VALUES (1, 'x'), (2, NULL); CREATE TABLE xwhimbrel_t(a);",
        ];
        for sql in same {
            assert_eq!(made(sql), made(base), "{sql}");
        }
        let whole = |sql: &str| {
            let file = Connection::open_in_memory().unwrap();
            file.execute_batch(sql).unwrap();
            everything(&file)
        };
        assert_eq!(whole(same[0]), whole(base));
        assert_ne!(whole(same[1]), whole(base));
        for sql in others {
            assert_ne!(made(sql), made(base), "{sql}");
        }
    }
}
