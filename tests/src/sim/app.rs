//! The application beside one file: it writes with its own connection and knows nothing of us. Every value that it writes
//! into `a` and `b` is a token that nobody wrote before.

use std::{collections::BTreeSet, path::Path, time::Duration};

use fastrand::Rng;
use rusqlite::{Connection, types::ValueRef};
use whimbrel::store::managed;
use whimbrel_shared::{sql::quote, value::Value};

use super::schema::{Table, tables};

/// An application's connection.
#[derive(Debug)]
pub struct App {
    /// The connection.
    pub connection: Connection,
    /// The version of the file's schema, which it knows.
    pub version: u32,
}

/// A token where it is: table and column as the simulator calls them, and the row's key.
pub type Place = (&'static str, &'static str, String, u32);

/// What a transaction of the application did.
#[derive(Clone, Debug, Default)]
pub struct Wrote {
    /// Tokens that are in the file since.
    pub appeared: Vec<u32>,
    /// Tokens that are not in it any more.
    pub vanished: Vec<u32>,
    /// Where tokens came to be, and where they are not any more.
    pub places: (Vec<Place>, Vec<Place>),
    /// The statements, for people.
    pub sql: String,
}

/// The number of a token, from whatever form it was stored in.
pub fn token(value: ValueRef<'_>) -> Option<u32> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(n) => u32::try_from(n).ok(),
        ValueRef::Real(r) => Some(r as u32),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => std::str::from_utf8(bytes).ok()?.strip_prefix('t')?.parse().ok(),
    }
}

/// The same of a value on the wire.
pub fn token_of(value: &Value) -> Option<u32> {
    token(match value {
        Value::Null => ValueRef::Null,
        Value::Integer(n) => ValueRef::Integer(*n),
        Value::Real(bits) => ValueRef::Real(f64::from_bits(*bits)),
        Value::Text(bytes) => ValueRef::Text(bytes),
        Value::Blob(bytes) => ValueRef::Blob(bytes),
    })
}

impl App {
    /// Opens a file as an application does.
    pub fn open(path: &Path, recursive: bool) -> Self {
        let connection = Connection::open(path).expect("the file opens");
        connection.busy_timeout(Duration::from_secs(10)).expect("a timeout");
        let pragmas =
            format!("PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA recursive_triggers = {recursive}; PRAGMA synchronous = OFF");
        connection.execute_batch(&pragmas).expect("settings are made");
        let mut app = Self { connection, version: 0 };
        app.look();
        app
    }

    /// Finds out which version the file is at.
    pub fn look(&mut self) {
        let history = managed::history(&self.connection).expect("the history is read");
        self.version = history.iter().filter(|(_, row)| row.status.is_in_place()).map(|(version, _)| *version).max().unwrap_or(0);
    }

    /// Every token that is in the file, where it is.
    pub fn places(&self) -> BTreeSet<Place> {
        let mut found = BTreeSet::new();
        for table in tables(self.version) {
            let key = table.key.iter().map(|k| format!("quote({k})")).collect::<Vec<_>>().join(" || ' ' || ");
            let columns: Vec<&str> = table.holds.iter().map(|c| c.name).collect();
            let mut statement =
                self.connection.prepare_cached(&format!("SELECT {key}, {} FROM {}", columns.join(", "), table.name)).expect("it compiles");
            let mut rows = statement.query([]).expect("it runs");
            while let Some(row) = rows.next().expect("it is read") {
                let key: String = row.get(0).expect("a key");
                let here = |at: usize| Some((table.is, table.holds[at].is, key.clone(), token(row.get_ref(at + 1).expect("a column"))?));
                found.extend((0..columns.len()).filter_map(here));
            }
        }
        found
    }

    /// Tokens that are in the file.
    pub fn tokens(&self) -> BTreeSet<u32> {
        self.places().into_iter().map(|place| place.3).collect()
    }

    /// One transaction of chance. `wall_ms` is what the clock on the wall says; `next` gives tokens.
    pub fn write(&self, rng: &mut Rng, wall_ms: i64, next: &mut u32) -> Wrote {
        let statements: Vec<String> = (0..rng.usize(1..4)).map(|_| self.statement(rng, next)).collect();
        let mut sql = String::new();
        for one in statements {
            if rng.u8(..) < 20 {
                sql += &format!("SAVEPOINT s; {one}; {}; ROLLBACK TO s; RELEASE s;\n", self.statement(rng, next));
            } else {
                sql += &format!("{one};\n");
            }
        }
        self.transaction(&sql, wall_ms)
    }

    /// A statement of chance.
    fn statement(&self, rng: &mut Rng, next: &mut u32) -> String {
        let tables = tables(self.version);
        let table = &tables[rng.usize(0..tables.len())];
        statement(rng, next, &tables, table)
    }

    /// One transaction. What the file refuses is rolled back.
    pub fn transaction(&self, sql: &str, wall_ms: i64) -> Wrote {
        let before = self.places();
        let seq = "SELECT coalesce(max(seq), 0) FROM _whimbrel_journal";
        let last: i64 = self.connection.query_row(seq, [], |row| row.get(0)).expect("the journal is read");
        self.connection.execute_batch("BEGIN IMMEDIATE").expect("nobody holds the lock");
        let done = self.connection.execute_batch(sql);
        match done {
            Ok(()) => {
                // SQLite's own clock is the machine's; here it is the simulated one.
                let clock = "UPDATE _whimbrel_journal SET wall_ms = ?1 WHERE seq > ?2";
                self.connection.execute(clock, [wall_ms, last]).expect("the journal is written");
                match self.connection.execute_batch("COMMIT") {
                    Ok(()) => {}
                    Err(error) if is_refused(&error) => self.connection.execute_batch("ROLLBACK").expect("it is rolled back"),
                    Err(error) => panic!("the application's COMMIT failed: {error}"),
                }
            }
            Err(error) if is_refused(&error) => {
                if !self.connection.is_autocommit() {
                    self.connection.execute_batch("ROLLBACK").expect("it is rolled back");
                }
            }
            Err(error) => panic!("the application's statement failed: {error}\n{sql}"),
        }
        let after = self.places();
        let tokens = |places: &BTreeSet<Place>| places.iter().map(|place| place.3).collect::<BTreeSet<_>>();
        let (were, are) = (tokens(&before), tokens(&after));
        Wrote {
            appeared: are.difference(&were).copied().collect(),
            vanished: were.difference(&are).copied().collect(),
            places: (after.difference(&before).cloned().collect(), before.difference(&after).cloned().collect()),
            sql: sql.to_owned(),
        }
    }
}

/// Whether an application may expect the error, from its own constraints.
fn is_refused(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
}

fn fresh(rng: &mut Rng, next: &mut u32, typed: bool) -> String {
    *next += 1;
    match rng.u8(0..if typed { 4 } else { 8 }) {
        4 => format!("{next}"),
        5 => format!("{next}.5"),
        6 => format!("CAST('t{next}' AS BLOB)"),
        _ => format!("'t{next}'"),
    }
}

/// A new token for each column that holds them.
fn tokens(rng: &mut Rng, next: &mut u32, table: &Table) -> Vec<(&'static str, String)> {
    table.holds.iter().map(|column| (column.name, fresh(rng, next, column.typed))).collect()
}

/// A key of a table, as values of SQL.
fn key(rng: &mut Rng, table: &Table) -> Vec<String> {
    match table.is {
        "doc" => vec![format!("'d{}'", rng.u8(0..6))],
        "part" => vec![format!("'p{}'", rng.u8(0..8))],
        "memo" => vec![format!("'m{}'", rng.u8(0..6))],
        "tally" => vec![format!("'{}'", if rng.bool() { 'x' } else { 'y' }), rng.u8(0..3).to_string()],
        _ => vec![rng.u8(1..7).to_string()],
    }
}

/// Values for what is neither key nor token, by column.
fn others(rng: &mut Rng, tables: &[Table], table: &Table) -> Vec<(&'static str, String)> {
    let mut others = Vec::new();
    if let Some((column, parent)) = table.parent {
        let parent = tables.iter().find(|t| t.is == parent).expect("it is one of ours");
        others.push((column, if rng.u8(..) < 80 { "NULL".to_owned() } else { key(rng, parent).remove(0) }));
    }
    for column in table.unique {
        let value = match *column {
            "code" => format!("'c{}'", rng.u8(0..6)),
            "slot" => rng.u8(0..6).to_string(),
            _ => rng.u8(0..3).to_string(),
        };
        others.push((column, if rng.u8(..) < 100 { "NULL".to_owned() } else { value }));
    }
    others
}

fn at(table: &Table, key: &[String]) -> String {
    table.key.iter().zip(key).map(|(column, value)| format!("{} = {value}", quote(column))).collect::<Vec<_>>().join(" AND ")
}

fn insert(rng: &mut Rng, next: &mut u32, tables: &[Table], table: &Table, word: &str) -> String {
    let mut columns: Vec<(&str, String)> = table.key.iter().copied().zip(key(rng, table)).collect();
    // SQLite gives the number.
    if matches!(table.is, "item" | "line") && rng.bool() {
        columns.clear();
    }
    columns.extend(self::tokens(rng, next, table));
    columns.extend(others(rng, tables, table));
    let names = columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let values = columns.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(", ");
    format!("INSERT {word} INTO {} ({names}) VALUES ({values})", table.name)
}

/// A statement of chance over one of the tables.
fn statement(rng: &mut Rng, next: &mut u32, tables: &[Table], table: &Table) -> String {
    let name = table.name;
    let key_of = key(rng, table);
    let at = at(table, &key_of);
    let is = |(column, value): (&str, String)| format!("{column} = {value}");
    match rng.u8(0..100) {
        0..24 => insert(rng, next, tables, table, ""),
        24..29 => insert(rng, next, tables, table, "OR REPLACE"),
        29..33 => insert(rng, next, tables, table, "OR IGNORE"),
        33..41 => {
            let (target, first) = (table.key.join(", "), table.holds[0].name);
            format!("{} ON CONFLICT({target}) DO UPDATE SET {first} = excluded.{first}", insert(rng, next, tables, table, ""))
        }
        41..72 => {
            let column = table.holds[rng.usize(0..table.holds.len())];
            format!("UPDATE {name} SET {} = {} WHERE {at}", column.name, fresh(rng, next, column.typed))
        }
        72..76 => {
            let set = tokens(rng, next, table).into_iter().map(is).collect::<Vec<_>>().join(", ");
            format!("UPDATE {name} SET {set} WHERE {at}")
        }
        76..82 => {
            let set = others(rng, tables, table).into_iter().map(is).collect::<Vec<_>>().join(", ");
            let word = ["", "OR REPLACE", "OR IGNORE"][rng.usize(0..3)];
            format!("UPDATE {word} {name} SET {set} WHERE {at}")
        }
        82..87 => {
            let to = key(rng, table);
            let set = table.key.iter().zip(&to).map(|(column, value)| format!("{column} = {value}")).collect::<Vec<_>>().join(", ");
            format!("UPDATE {} {name} SET {set} WHERE {at}", if rng.bool() { "OR IGNORE" } else { "OR REPLACE" })
        }
        87..97 => format!("DELETE FROM {name} WHERE {at}"),
        97..98 => format!("DELETE FROM {name}"),
        98..99 => {
            let column = table.holds[table.holds.len() - 1];
            format!("UPDATE {name} SET {} = {}", column.name, fresh(rng, next, column.typed))
        }
        _ => format!("DELETE FROM {name} WHERE {at}; {}", insert(rng, next, tables, table, "")),
    }
}
