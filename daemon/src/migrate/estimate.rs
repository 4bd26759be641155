//! What a migration will cost, before it runs: rows, time under the write lock, bytes written. From the words of its
//! statements and the sizes of the tables they name; the speeds are those of the reference (2.4: two cores, ext4) as
//! `speed` has found this device to differ. A guess that decides between "now" and "ask first", not a promise.

use std::{collections::BTreeMap, time::Duration};

use rusqlite::Connection;
use whimbrel_shared::{
    manifest::{Mode, Step},
    migration::Migration,
    sql::{Token, tokens},
    status::Operation,
};

use super::speed::Speed;

/// Nanoseconds a row: read and written once (an UPDATE, a copy into a new table).
const WRITE_NS: f64 = 2_000.0;
/// Nanoseconds a row: read, sorted and written into an index.
const INDEX_NS: f64 = 500.0;
/// Row ids that are believed to be rows.
const SMALL_SPAN: u64 = 10_000;
/// Rows that are counted one by one: some tens of milliseconds.
const MOST_COUNTED: u64 = 1_000_000;
/// Rows whose size stands for that of all.
const SAMPLED: u32 = 200;
/// What a table takes with its indexes and half-filled pages, in bytes of its rows.
const WITH_INDEXES: f64 = 1.5;
/// Bytes of a row where nothing better is known.
const ROW_BYTES: u64 = 100;

/// What a migration will cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Rows it touches.
    pub rows: u64,
    /// How long it holds the write lock.
    pub lock: Duration,
    /// The same on the reference's machine.
    pub reference_lock: Duration,
    /// Rows that are gone through in short transactions.
    pub online_rows: u64,
    /// How long it takes in all, beside an application that writes now and then.
    pub took: Duration,
    /// Bytes it writes into the WAL or the journal and the file.
    pub write_bytes: u64,
    /// Bytes that the largest of its indexes is sorted in, in the directory for temporary files; gone when it is made.
    pub sort_bytes: u64,
}

/// Estimates `migration` on the file as it is now. A table that an earlier pending migration will make counts as empty.
pub fn estimate(connection: &Connection, migration: &Migration, operation: Operation, speed: &Speed) -> Estimate {
    let mut sizes = BTreeMap::new();
    let (mut rows, mut online_rows, mut nanos, mut bytes) = (0u64, 0u64, 0f64, 0u64);
    let online = migration.manifest.mode == Mode::Online;
    let mut count = |table: &str| *sizes.entry(table.to_owned()).or_insert_with(|| table_rows(connection, table));
    let steps = match (operation, &migration.down) {
        (Operation::Apply, _) => migration.steps(),
        (Operation::Revert, down) => down.iter().map(|file| Step::Sql { file: file.clone() }).collect(),
    };
    // What is shipped is written, whatever the file's size.
    let mut shipped_bytes = 0;
    let mut sort_bytes = 0u64;
    // So is a table that stands beside the one it replaces.
    let mut beside_bytes = 0u64;
    for step in steps {
        let found = match &step {
            Step::Sql { file } | Step::Verify { file } => {
                works(&tokens(migration.file(file).unwrap_or_default())).into_iter().map(|(table, work)| (count(&table), work, true)).collect()
            }
            Step::Backfill(step) => vec![(count(&step.table), Work::Write, !online)],
            Step::Rebuild(step) => {
                let rows = count(&step.table);
                beside_bytes = beside_bytes.saturating_add(table_bytes(connection, &step.table, rows));
                let indexes = works(&tokens(migration.file(&step.file).unwrap_or_default())).into_iter().map(|(_, work)| (rows, work, !online));
                std::iter::once((rows, Work::Write, !online)).chain(indexes).collect()
            }
            Step::Load(step) => {
                let text = migration.file(&step.file).unwrap_or_default();
                shipped_bytes += 2 * text.len() as u64;
                let cleared = if step.clear_existing { count(&step.into) } else { 0 };
                vec![(text.lines().count() as u64, Work::Write, !online), (cleared, Work::Write, !online)]
            }
        };
        for (size, work, locks) in found {
            let (ns, share) = match work {
                Work::Write => (WRITE_NS, 1.0),
                Work::Index => (INDEX_NS, 0.3),
            };
            rows = rows.saturating_add(size);
            if locks {
                nanos += ns * size as f64;
            } else {
                online_rows = online_rows.saturating_add(size);
            }
            let written = (size as f64 * ROW_BYTES as f64 * share) as u64;
            bytes = bytes.saturating_add(written);
            sort_bytes = if work == Work::Index { sort_bytes.max(written) } else { sort_bytes };
        }
    }
    // No migration writes more than a few times the file.
    let file_bytes = file_bytes(connection);
    let lock = Duration::from_nanos((nanos * speed.lock_factor()) as u64);
    Estimate {
        rows,
        lock,
        reference_lock: Duration::from_nanos(nanos as u64),
        online_rows,
        took: lock + Duration::try_from_secs_f64(online_rows as f64 / speed.rows_per_s()).unwrap_or(Duration::MAX / 2),
        write_bytes: bytes.min(file_bytes.saturating_mul(3)).max(beside_bytes) + shipped_bytes,
        sort_bytes: sort_bytes.min(file_bytes),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Write,
    Index,
}

/// The tables that a script goes through from end to end, and how.
fn works(tokens: &[Token]) -> Vec<(String, Work)> {
    let mut found = Vec::new();
    for statement in tokens.split(|t| *t == Token::Mark(';')) {
        let word = |at: usize, keyword: &str| statement.get(at).is_some_and(|t| t.is(keyword));
        let name_at = |at: usize| -> Option<String> {
            // A schema prefix ("main.t") is no table.
            let at = if statement.get(at + 1) == Some(&Token::Mark('.')) { at + 2 } else { at };
            statement.get(at).map(Token::text)
        };
        let after = |keyword: &str| statement.iter().position(|t| t.is(keyword)).and_then(|at| name_at(at + 1));
        let table = if word(0, "update") {
            let at = if word(1, "or") { 3 } else { 1 };
            name_at(at).map(|t| (t, Work::Write))
        } else if word(0, "delete") || word(0, "insert") || word(0, "replace") || (word(0, "create") && word(1, "table")) {
            // INSERT … SELECT … FROM, CREATE TABLE … AS SELECT … FROM, DELETE FROM: the table that is read.
            after("from").map(|t| (t, Work::Write))
        } else if word(0, "create") && (word(1, "index") || word(1, "unique")) {
            after("on").map(|t| (t, Work::Index))
        } else if word(0, "alter") && word(3, "drop") {
            name_at(2).map(|t| (t, Work::Index))
        } else {
            None
        };
        found.extend(table);
    }
    found
}

/// Rows of a table, about. A small span of row ids is an answer that needs no scan; a large one may be full of holes, so
/// rows are counted, up to [`MOST_COUNTED`]. 0 for a table that is not there.
fn table_rows(connection: &Connection, table: &str) -> u64 {
    let quoted = table.replace('"', "\"\"");
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0)).ok().flatten();
    let span = number(&format!("SELECT max(rowid) - min(rowid) + 1 FROM main.\"{quoted}\"")).and_then(|n| u64::try_from(n).ok());
    if let Some(span) = span.filter(|span| *span <= SMALL_SPAN) {
        return span;
    }
    let counted = number(&format!("SELECT count(*) FROM (SELECT 1 FROM main.\"{quoted}\" LIMIT {MOST_COUNTED})")).unwrap_or(0).unsigned_abs();
    if counted < MOST_COUNTED { counted } else { span.unwrap_or(u64::MAX).min(file_bytes(connection) / ROW_BYTES).max(counted) }
}

/// Bytes of a table with its indexes, about: its rows as large as the first of them, and at most the whole file.
fn table_bytes(connection: &Connection, table: &str, rows: u64) -> u64 {
    let quoted = format!("\"{}\"", table.replace('"', "\"\""));
    let columns: Vec<String> = connection
        .prepare("SELECT name FROM pragma_table_xinfo(?1) WHERE hidden IN (0, 3)")
        .and_then(|mut s| s.query_map([table], |row| row.get::<_, String>(0))?.collect())
        .unwrap_or_default();
    let lengths: Vec<String> = columns.iter().map(|c| format!("ifnull(length(CAST(\"{}\" AS BLOB)), 0) + 2", c.replace('"', "\"\""))).collect();
    let sql = format!("SELECT avg({}) FROM (SELECT * FROM main.{quoted} LIMIT {SAMPLED})", lengths.join(" + "));
    let row_bytes: f64 = connection.query_row(&sql, [], |row| row.get::<_, Option<f64>>(0)).ok().flatten().unwrap_or(0.0);
    ((row_bytes * rows as f64 * WITH_INDEXES) as u64).min(file_bytes(connection))
}

fn file_bytes(connection: &Connection) -> u64 {
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap_or(0);
    number("page_count").saturating_mul(number("page_size")).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_sorted_beside_the_file_and_the_largest_counts() {
        let file = Connection::open_in_memory().unwrap();
        let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) INSERT INTO";
        file.execute_batch(&format!(
            "CREATE TABLE a(x); CREATE TABLE b(x); {rows} a SELECT hex(zeroblob(100)) FROM n; {rows} b SELECT i FROM n WHERE i < 10"
        ))
        .unwrap();
        let of = |sql: &str| {
            let files = BTreeMap::from([("up.sql".to_owned(), sql.to_owned())]);
            let migration = Migration { format: String::new(), name: "m".parse().unwrap(), manifest: Default::default(), down: None, files };
            estimate(&file, &migration, Operation::Apply, &Speed::default()).sort_bytes
        };
        assert_eq!(of("UPDATE a SET x = 1"), 0);
        assert_eq!(of("CREATE INDEX i ON a(x); CREATE INDEX j ON b(x)"), 30 * 1000);
    }

    #[test]
    fn the_tables_that_are_gone_through_are_found() {
        let check = |sql: &str, expected: &[(&str, Work)]| {
            let found = works(&tokens(sql));
            assert_eq!(found.iter().map(|(t, w)| (t.as_str(), *w)).collect::<Vec<_>>(), expected, "{sql}");
        };
        check("UPDATE OR IGNORE main.notes SET a = 1; update b set c=2", &[("notes", Work::Write), ("b", Work::Write)]);
        check("INSERT INTO new_t SELECT * FROM \"T\"; INSERT INTO t VALUES (1)", &[("t", Work::Write)]);
        check(
            "CREATE UNIQUE INDEX IF NOT EXISTS i ON t(a); CREATE TABLE x(a); CREATE TABLE y AS SELECT * FROM t",
            &[("t", Work::Index), ("t", Work::Write)],
        );
        check("ALTER TABLE t DROP COLUMN a; ALTER TABLE t ADD COLUMN b; DROP TABLE t", &[("t", Work::Index)]);
    }
}
