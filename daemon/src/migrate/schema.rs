//! Reads a database's schema as fingerprints, and only what changed since it was last read.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use rusqlite::{Connection, Row};
use whimbrel_shared::fingerprint::{self, ColumnFacts, Schema, TableFacts, object_key};

use super::guard::RESERVED;

/// A foreign key as `PRAGMA foreign_key_list` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignKey {
    /// The table it refers to, lower case.
    pub parent: String,
    /// Its columns in the child, in order.
    pub columns: Vec<String>,
}

/// An object as it stands in `sqlite_schema`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Object {
    key: String,
    kind: String,
    table: String,
    sql: String,
    /// The reading that saw it last.
    seen: u64,
}

/// A schema that is read again and again on one connection.
#[derive(Debug, Default)]
pub struct SchemaReader {
    /// By row id in `sqlite_schema`: a row that did not change is recognised without making its key.
    rows: HashMap<i64, Object>,
    /// Row id of each key.
    keys: HashMap<String, i64>,
    /// Foreign keys by child table, lower case.
    foreign_keys: BTreeMap<String, Vec<ForeignKey>>,
    schema: Schema,
    readings: u64,
    /// Highest row id in `sqlite_schema`: what is created gets a higher one.
    last: i64,
    /// `PRAGMA schema_version` at the last reading; it moves with every change of the schema, by anybody.
    cookie: Option<i64>,
}

/// What changed between two readings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Objects that are new or differ.
    pub made: Vec<Made>,
    /// Keys of objects that are gone, with their text.
    pub dropped: Vec<(String, String)>,
    /// Tables whose foreign keys are new or differ, lower case.
    pub foreign_keys: BTreeSet<String>,
    /// Objects with our prefix that changed, appeared or went.
    pub ours: Vec<String>,
}

/// An object that is new or differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Its key in a [`Schema`].
    pub key: String,
    /// Its text.
    pub sql: String,
    /// Whether no object had that key before.
    pub new: bool,
}

impl SchemaReader {
    /// Reads what changed. Objects of SQLite itself are left out; ours are only watched.
    pub fn read(&mut self, connection: &Connection) -> rusqlite::Result<Changes> {
        self.read_from(connection, None)
    }

    /// [`Self::read`] after statements on this connection that only created objects: none that was there is looked at,
    /// so that a migration of a large schema does not cost more than one of a small schema.
    pub fn read_created(&mut self, connection: &Connection) -> rusqlite::Result<Changes> {
        let after = self.cookie.map(|_| self.last);
        self.read_from(connection, after)
    }

    fn read_from(&mut self, connection: &Connection, after: Option<i64>) -> rusqlite::Result<Changes> {
        let cookie: i64 = connection.prepare_cached("PRAGMA main.schema_version")?.query_row([], |row| row.get(0))?;
        if self.cookie == Some(cookie) {
            return Ok(Changes::default());
        }
        let mut changes = Changes::default();
        self.readings += 1;
        let mut differing = Vec::new();
        let mut statement =
            connection.prepare_cached("SELECT rowid, type, name, tbl_name, sql FROM main.sqlite_schema WHERE sql IS NOT NULL AND rowid > ?1")?;
        let mut rows = statement.query([after.unwrap_or(i64::MIN)])?;
        // Anew each time: the row ids of what was dropped are given again.
        self.last = after.unwrap_or(0);
        while let Some(row) = rows.next()? {
            let (id, sql) = (row.get(0)?, row.get_ref(4)?.as_str()?);
            self.last = self.last.max(id);
            let table = row.get_ref(3)?.as_str()?;
            if let Some(object) = self.rows.get_mut(&id)
                && object.sql == sql
                && object.table.eq_ignore_ascii_case(table)
            {
                object.seen = self.readings;
                continue;
            }
            let (kind, name) = (row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?);
            if !name.starts_with("sqlite_") {
                let (key, table) = (object_key(kind, name), table.to_ascii_lowercase());
                differing.push((id, Object { key, kind: kind.to_owned(), table, sql: sql.to_owned(), seen: self.readings }));
            }
        }
        drop(rows);
        drop(statement);

        let gone: Vec<i64> = match after {
            Some(_) => Vec::new(),
            None => self.rows.iter().filter(|(_, o)| o.seen != self.readings).map(|(id, _)| *id).collect(),
        };
        let old: HashMap<String, Object> = gone.iter().filter_map(|id| self.rows.remove(id)).map(|o| (o.key.clone(), o)).collect();
        for key in old.keys() {
            self.keys.remove(key);
        }
        for (id, object) in differing {
            self.keys.insert(object.key.clone(), id);
            if object.key.split_once(' ').is_some_and(|(_, name)| is_ours(name)) {
                if old.get(&object.key).is_none_or(|o| o.sql != object.sql) {
                    changes.ours.push(object.key.clone());
                }
            } else if old.get(&object.key).is_none_or(|o| o.sql != object.sql || o.table != object.table) {
                changes.made.push(Made { key: object.key.clone(), sql: object.sql.clone(), new: !old.contains_key(&object.key) });
            }
            self.rows.insert(id, object);
        }
        for (key, object) in old {
            if self.keys.contains_key(&key) {
                continue;
            }
            if object.kind == "table" {
                self.foreign_keys.remove(&object.table);
            }
            self.schema.0.remove(&key);
            if is_ours(key.split_once(' ').map_or("", |(_, name)| name)) {
                changes.ours.push(key);
            } else {
                changes.dropped.push((key, object.sql));
            }
        }
        for Made { key, .. } in &changes.made {
            let object = &self.rows[&self.keys[key]];
            let is_table = object.kind == "table" && !starts_with_virtual(&object.sql);
            let digest = if is_table {
                let (facts, keys) = table_facts(connection, &object.table, &object.sql)?;
                if self.foreign_keys.get(&object.table).map_or(&[][..], Vec::as_slice) != keys {
                    changes.foreign_keys.insert(object.table.clone());
                }
                self.foreign_keys.insert(object.table.clone(), keys);
                fingerprint::table(&object.sql, &facts)
            } else {
                fingerprint::text_object(&object.sql)
            };
            self.schema.0.insert(key.clone(), digest);
        }
        self.cookie = Some(cookie);
        Ok(changes)
    }

    /// Forgets everything: after a rollback the objects read inside it are not there.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// The schema as last read, the application's own objects included.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Tables whose foreign keys have to be looked at: those that have some and into which rows came (`written`), and those
    /// that refer to a table from which rows went (`removed`). Names in lower case.
    pub fn children_of(&self, written: &dyn Fn(&str) -> bool, removed: &dyn Fn(&str) -> bool) -> Vec<String> {
        self.foreign_keys
            .iter()
            .filter(|(child, keys)| !keys.is_empty() && (written(child) || keys.iter().any(|k| removed(&k.parent))))
            .map(|(child, _)| child.clone())
            .collect()
    }

    /// Foreign keys of a table, by its lower-case name.
    pub fn foreign_keys(&self, table: &str) -> &[ForeignKey] {
        self.foreign_keys.get(table).map_or(&[], Vec::as_slice)
    }

    /// Names of the views, and of the tables and views that have triggers.
    pub fn views_and_triggered(&self) -> (Vec<&str>, HashSet<&str>) {
        let of_kind = |kind: &'static str| {
            self.rows.values().filter(move |o| o.kind == kind && !o.key.contains(super::guard::RESERVED)).map(|o| o.table.as_str())
        };
        (of_kind("view").collect(), of_kind("trigger").collect())
    }
}

/// Whether a name is one of ours.
pub fn is_ours(name: &str) -> bool {
    name.get(..RESERVED.len()).is_some_and(|p| p.eq_ignore_ascii_case(RESERVED))
}

fn starts_with_virtual(sql: &str) -> bool {
    // sqlite_schema keeps the text as "CREATE VIRTUAL TABLE …", whatever the author's spacing.
    sql.get(..14).is_some_and(|s| s.eq_ignore_ascii_case("CREATE VIRTUAL"))
}

fn table_facts(connection: &Connection, table: &str, sql: &str) -> rusqlite::Result<(TableFacts, Vec<ForeignKey>)> {
    let quoted = format!("\"{}\"", table.replace('"', "\"\""));
    let mut facts = TableFacts::default();
    let all = |sql: String, each: &mut dyn FnMut(&Row<'_>) -> rusqlite::Result<()>| -> rusqlite::Result<()> {
        if sql.is_empty() {
            return Ok(());
        }
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            each(row)?;
        }
        Ok(())
    };
    all(format!("PRAGMA main.table_xinfo({quoted})"), &mut |row| {
        facts.columns.push(ColumnFacts {
            name: row.get(1)?,
            decl_type: row.get(2)?,
            not_null: row.get(3)?,
            default: row.get(4)?,
            key: row.get(5)?,
            hidden: row.get(6)?,
        });
        Ok(())
    })?;
    // sqlite_schema keeps the author's words: without the word there is nothing to ask for.
    let says = |word: &str| sql.as_bytes().windows(word.len()).any(|w| w.eq_ignore_ascii_case(word.as_bytes()));

    // Rows come key by key, column by column; the id only groups them.
    let mut keys: BTreeMap<i64, (ForeignKey, Vec<String>, String)> = BTreeMap::new();
    let foreign_keys = if says("REFERENCES") { format!("PRAGMA main.foreign_key_list({quoted})") } else { String::new() };
    all(foreign_keys, &mut |row| {
        let actions = format!("{} {} {}", row.get::<_, String>(5)?, row.get::<_, String>(6)?, row.get::<_, String>(7)?);
        let parent: String = row.get::<_, String>(2)?.to_ascii_lowercase();
        let key = keys.entry(row.get(0)?).or_insert((ForeignKey { parent, columns: Vec::new() }, Vec::new(), actions));
        key.0.columns.push(row.get(3)?);
        key.1.extend(row.get::<_, Option<String>>(4)?);
        Ok(())
    })?;
    facts.foreign_keys =
        keys.values().map(|(k, to, actions)| format!("{} -> {}({}) {actions}", k.columns.join(","), k.parent, to.join(","))).collect();

    let mut constraints = Vec::new();
    let indexes = if says("UNIQUE") || says("PRIMARY") { format!("PRAGMA main.index_list({quoted})") } else { String::new() };
    all(indexes, &mut |row| {
        let (name, origin): (String, String) = (row.get(1)?, row.get(3)?);
        if origin != "c" {
            constraints.push((name, origin));
        }
        Ok(())
    })?;
    for (name, origin) in constraints {
        let mut columns: Vec<String> = Vec::new();
        all(format!("PRAGMA main.index_info(\"{}\")", name.replace('"', "\"\"")), &mut |row| {
            columns.push(row.get::<_, Option<String>>(2)?.unwrap_or_default());
            Ok(())
        })?;
        facts.unique.push(format!("{origin}({})", columns.join(",")));
    }
    Ok((facts, keys.into_values().map(|(k, _, _)| k).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sql: &str) -> Schema {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(sql).unwrap();
        let mut reader = SchemaReader::default();
        reader.read(&connection).unwrap();
        reader.schema().clone()
    }

    #[test]
    fn the_same_structure_has_the_same_fingerprint_however_it_came_about() {
        let created = read(
            "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT NOT NULL DEFAULT 'x' REFERENCES p(id) ON DELETE CASCADE, b INT); CREATE INDEX i ON t(b);",
        );
        let altered = read("create table p (id integer primary key); CREATE TABLE s(id INTEGER PRIMARY KEY); ALTER TABLE s ADD COLUMN aa TEXT NOT NULL DEFAULT 'x' REFERENCES p(id) ON DELETE CASCADE;
            ALTER TABLE s ADD b INT; ALTER TABLE s RENAME COLUMN aa TO \"a\"; ALTER TABLE s RENAME TO t; create index i on \"t\" ( b ) -- c");
        assert_eq!(created.0.get("table t"), altered.0.get("table t"));
        assert_eq!(created.0.get("table p"), altered.0.get("table p"));
        assert_eq!(created.digest(), altered.digest());
    }

    #[test]
    fn what_differs_in_meaning_differs_in_fingerprint() {
        let variants = [
            "CREATE TABLE t(a TEXT)",
            "CREATE TABLE t(a INT)",
            "CREATE TABLE t(a TEXT NOT NULL)",
            "CREATE TABLE t(a TEXT DEFAULT 'b')",
            "CREATE TABLE t(a TEXT PRIMARY KEY)",
            "CREATE TABLE t(a TEXT UNIQUE)",
            "CREATE TABLE t(a TEXT COLLATE NOCASE)",
            "CREATE TABLE t(a TEXT CHECK(a<>''))",
            "CREATE TABLE t(a TEXT) STRICT",
            "CREATE TABLE t(a TEXT PRIMARY KEY) WITHOUT ROWID",
            "CREATE TABLE t(a TEXT, b TEXT)",
            "CREATE TABLE t(a TEXT REFERENCES t(a))",
            "CREATE TABLE t(a TEXT REFERENCES t(a) ON DELETE CASCADE)",
        ];
        let digests: HashSet<_> = variants.iter().map(|sql| read(sql).digest()).collect();
        assert_eq!(digests.len(), variants.len());
    }

    #[test]
    fn a_second_reading_tells_only_what_changed() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE a(x); CREATE TABLE b(x REFERENCES a); CREATE TABLE _whimbrel_meta(k)").unwrap();
        let mut reader = SchemaReader::default();
        assert_eq!(reader.read(&connection).unwrap().made.len(), 2);
        assert_eq!(reader.read(&connection).unwrap(), Changes::default());
        connection.execute_batch("DROP TABLE a; CREATE TABLE c(x)").unwrap();
        let changes = reader.read(&connection).unwrap();
        assert_eq!((changes.made[0].key.as_str(), changes.dropped[0].0.as_str(), changes.ours.len()), ("table c", "table a", 0));
        assert_eq!(reader.children_of(&|_| false, &|t| t == "a"), ["b"]);
        connection.execute_batch("CREATE INDEX i ON _whimbrel_meta(k)").unwrap();
        assert_eq!(reader.read(&connection).unwrap().made[0].key, "index i");
    }
}
