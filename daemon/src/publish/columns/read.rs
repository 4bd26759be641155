//! The tables of a schema as ids and keys need them: SQLite's own pragmas, one query each.

use std::collections::BTreeMap;

use rusqlite::Connection;
use whimbrel_shared::{
    columns::{TableColumns, reserved},
    ledger::Shape,
    synced::{Collation, Constraints, KeyColumn},
};

use super::{Note, Others, id_of};

/// Tables with rows of their own, and what else has a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// In the order of their names.
    pub shapes: Vec<Shape>,
    /// Keys and indexes, by table in ASCII lower case.
    keys: BTreeMap<String, Keys>,
    /// Views, virtual tables and what those keep their rows in.
    pub others: Others,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Keys {
    /// Whether SQLite assigns the key.
    assigned: bool,
    /// Columns of the key that may be NULL.
    nullable: Vec<String>,
    /// UNIQUE indexes and constraints, the primary key's among them.
    unique: Vec<Index>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Index {
    name: String,
    is_key: bool,
    is_partial: bool,
    /// Column and collation; no column for an expression.
    columns: Vec<(Option<String>, String)>,
}

/// Reads them.
pub(in crate::publish) fn read(connection: &Connection) -> rusqlite::Result<Tables> {
    let mut tables = Tables::default();
    let mut without_rowid = BTreeMap::new();
    let mut statement = connection.prepare("SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main' ORDER BY name COLLATE NOCASE")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (name, kind, wr): (String, String, bool) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let lower = name.to_ascii_lowercase();
        if reserved(&name) {
            continue;
        }
        match kind.as_str() {
            "table" => {
                without_rowid.insert(lower, wr);
                tables.shapes.push(Shape { name, ..Shape::default() });
            }
            "view" => _ = tables.others.insert(lower, "view"),
            "virtual" => _ = tables.others.insert(lower, "virtual table"),
            _ => _ = tables.others.insert(lower, "part of a virtual table"),
        }
    }
    let place: BTreeMap<String, usize> = tables.shapes.iter().enumerate().map(|(at, s)| (s.name.to_ascii_lowercase(), at)).collect();
    let mut keys: BTreeMap<String, Vec<(i64, String, bool)>> = BTreeMap::new();
    let mut statement = connection.prepare(
        "SELECT t.name, c.name, c.pk, c.hidden, c.\"notnull\" FROM pragma_table_list AS t, pragma_table_xinfo(t.name) AS c
         WHERE t.schema = 'main' AND t.type = 'table' ORDER BY t.name, c.cid",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (table, column, pk, hidden, not_null): (String, String, i64, i64, bool) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
        let lower = table.to_ascii_lowercase();
        let Some(shape) = place.get(&lower).and_then(|at| tables.shapes.get_mut(*at)) else { continue };
        if pk > 0 {
            keys.entry(lower).or_default().push((pk, column.clone(), not_null));
        }
        if hidden == 0 {
            shape.columns.push(column);
        }
    }
    let mut indexes = indexes(connection)?;
    for (table, mut key) in keys {
        key.sort();
        let unique = indexes.remove(&table).unwrap_or_default();
        let rowid = !without_rowid.get(&table).copied().unwrap_or_default();
        // A key of a rowid table that needs no index is the row id, which SQLite fills in by itself.
        let assigned = rowid && key.len() == 1 && !unique.iter().any(|i| i.is_key);
        let nullable = key.iter().filter(|(_, _, not_null)| rowid && !assigned && !not_null).map(|(_, c, _)| c.clone()).collect();
        if let Some(shape) = place.get(&table).and_then(|at| tables.shapes.get_mut(*at)) {
            shape.key = key.into_iter().map(|(_, column, _)| column).collect();
        }
        tables.keys.insert(table, Keys { assigned, nullable, unique });
    }
    for (table, unique) in indexes {
        tables.keys.insert(table, Keys { unique, ..Keys::default() });
    }
    Ok(tables)
}

/// UNIQUE indexes by table, in the order of their names.
fn indexes(connection: &Connection) -> rusqlite::Result<BTreeMap<String, Vec<Index>>> {
    let mut found: BTreeMap<String, Vec<Index>> = BTreeMap::new();
    let mut statement = connection.prepare(
        "SELECT t.name, i.name, i.origin = 'pk', i.partial, x.name, x.coll
         FROM pragma_table_list AS t, pragma_index_list(t.name) AS i, pragma_index_xinfo(i.name) AS x
         WHERE t.schema = 'main' AND t.type = 'table' AND i.\"unique\" AND x.key ORDER BY t.name, i.name, x.seqno",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (table, name): (String, String) = (row.get(0)?, row.get(1)?);
        let of_table = found.entry(table.to_ascii_lowercase()).or_default();
        if of_table.last().is_none_or(|last| last.name != name) {
            of_table.push(Index { name, is_key: row.get(2)?, is_partial: row.get(3)?, columns: Vec::new() });
        }
        if let Some(index) = of_table.last_mut() {
            index.columns.push((row.get(4)?, row.get::<_, Option<String>>(5)?.unwrap_or_default()));
        }
    }
    Ok(found)
}

fn collation(name: &str) -> Option<Collation> {
    match name.to_ascii_uppercase().as_str() {
        "BINARY" | "" => Some(Collation::Binary),
        "NOCASE" => Some(Collation::Nocase),
        "RTRIM" => Some(Collation::Rtrim),
        _ => None,
    }
}

impl Index {
    /// By ids; the reason where it cannot be told in ids.
    fn by_id(&self, table: &TableColumns) -> Result<Vec<KeyColumn>, &'static str> {
        if self.is_partial {
            return Err("it is partial");
        }
        self.columns
            .iter()
            .map(|(column, coll)| {
                let column = column.as_ref().ok_or("it is over an expression")?;
                let id = id_of(table, column).ok_or("it is over a generated column")?;
                Ok(KeyColumn(id, collation(coll).ok_or("it has a collation that only the application knows")?))
            })
            .collect()
    }
}

impl Tables {
    /// Keys and unique sets of these tables, by id.
    pub(super) fn constraints<'t>(&self, tables: impl Iterator<Item = &'t TableColumns>) -> BTreeMap<u32, Constraints> {
        tables.filter_map(|table| Some((table.id, self.constraints_of(table)?))).collect()
    }

    fn constraints_of(&self, table: &TableColumns) -> Option<Constraints> {
        let shape = self.shapes.iter().find(|s| s.name.eq_ignore_ascii_case(&table.name))?;
        let nothing = Keys::default();
        let keys = self.keys.get(&table.name.to_ascii_lowercase()).unwrap_or(&nothing);
        let index = keys.unique.iter().find(|i| i.is_key);
        let key = shape.key.iter().map(|column| {
            // The row id has no index, and compares as numbers do.
            let of = |i: &Index| i.columns.iter().find(|(c, _)| c.as_ref() == Some(column)).map(|(_, coll)| coll.clone());
            let coll = index.and_then(of).unwrap_or_default();
            id_of(table, column).zip(collation(&coll)).map(|(id, coll)| KeyColumn(id, coll)).ok_or_else(|| column.clone())
        });
        let mut unique: Vec<Vec<KeyColumn>> = keys.unique.iter().filter(|i| !i.is_key).filter_map(|i| i.by_id(table).ok()).collect();
        // An index may be called otherwise, or be there twice: neither is a change.
        unique.sort_by_key(|set| set.iter().map(|c| c.0).collect::<Vec<_>>());
        unique.dedup();
        Some(Constraints { key: key.collect(), assigned: keys.assigned, unique })
    }

    /// What a person should know of a table that exchanges rows.
    pub(super) fn remarks(&self, table: &TableColumns, notes: &mut Vec<Note>) {
        let Some(keys) = self.keys.get(&table.name.to_ascii_lowercase()) else { return };
        for index in keys.unique.iter().filter(|i| !i.is_key) {
            if let Err(why) = index.by_id(table) {
                notes.push(Note::NotAtServer(table.name.clone(), index.name.clone(), why));
            }
        }
        notes.extend(keys.nullable.iter().map(|column| Note::NullableKey(table.name.clone(), column.clone())));
    }
}

#[cfg(test)]
mod tests {
    use whimbrel_shared::{
        columns::ColumnMap,
        ledger::{Ledger, Same},
    };

    use super::*;

    fn tables(sql: &str) -> Tables {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(sql).unwrap();
        read(&connection).unwrap()
    }

    fn map(tables: &Tables) -> ColumnMap {
        let mut ledger = Ledger::default();
        ledger.apply(&ledger.next(&tables.shapes, &Same::default()).unwrap()).unwrap();
        ledger.map()
    }

    #[test]
    fn only_what_has_rows_that_can_be_written_is_in_a_map() {
        let found = tables(
            "CREATE TABLE B(id INTEGER PRIMARY KEY, x, g AS (x+1), s AS (x) STORED); CREATE TABLE a(k PRIMARY KEY) WITHOUT ROWID;
             CREATE VIEW v AS SELECT 1; CREATE VIRTUAL TABLE f USING fts5(t); CREATE TABLE _whimbrel_meta(x);
             CREATE TABLE q(i INTEGER PRIMARY KEY AUTOINCREMENT);",
        );
        let said = |t: &TableColumns| format!("{}:{}", t.name, t.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(","));
        assert_eq!(map(&found).tables.iter().map(said).collect::<Vec<_>>(), ["a:k", "B:id,x", "q:i"]);
        assert_eq!((found.others["v"], found.others["f"], found.others["f_data"]), ("view", "virtual table", "part of a virtual table"));
    }

    #[test]
    fn keys_and_unique_sets_are_read_with_their_collations() {
        let check = |sql: &str, assigned: bool, key: &[Result<KeyColumn, String>], unique: &[&[KeyColumn]]| {
            let found = tables(sql);
            let map = map(&found);
            let one = &found.constraints(map.tables.iter())[&map.table("t").unwrap().id];
            assert_eq!((one.assigned, one.key.as_slice()), (assigned, key), "{sql}");
            assert_eq!(one.unique, unique, "{sql}");
        };
        let b = |id: u32| KeyColumn(id, Collation::Binary);
        let n = |id: u32| KeyColumn(id, Collation::Nocase);
        check("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", true, &[Ok(b(1))], &[]);
        check("CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a UNIQUE)", true, &[Ok(b(1))], &[&[b(2)]]);
        // These are no row ids.
        check("CREATE TABLE t(id INTEGER PRIMARY KEY DESC, a)", false, &[Ok(b(1))], &[]);
        check("CREATE TABLE t(id INT PRIMARY KEY, a)", false, &[Ok(b(1))], &[]);
        check("CREATE TABLE t(id INTEGER PRIMARY KEY, a) WITHOUT ROWID", false, &[Ok(b(1))], &[]);
        check("CREATE TABLE t(a, b COLLATE NOCASE, PRIMARY KEY(b, a))", false, &[Ok(n(2)), Ok(b(1))], &[]);
        check(
            "CREATE TABLE t(a, b, c COLLATE nocase, UNIQUE(c, b)); CREATE UNIQUE INDEX i ON t(b COLLATE NOCASE)",
            false,
            &[],
            &[&[n(2)], &[n(3), b(2)]],
        );
        check(
            "CREATE TABLE t(a, b); CREATE UNIQUE INDEX i ON t(a) WHERE b; CREATE UNIQUE INDEX j ON t(a+1); CREATE INDEX k ON t(a)",
            false,
            &[],
            &[],
        );
        let found = tables("CREATE TABLE t(a PRIMARY KEY, b NOT NULL); CREATE UNIQUE INDEX i ON t(a) WHERE b; CREATE UNIQUE INDEX j ON t(a+1)");
        let mut notes = Vec::new();
        found.remarks(&map(&found).tables[0], &mut notes);
        let at_server = |index: &str, why| Note::NotAtServer("t".to_owned(), index.to_owned(), why);
        assert_eq!(
            notes,
            [at_server("i", "it is partial"), at_server("j", "it is over an expression"), Note::NullableKey("t".to_owned(), "a".to_owned())]
        );
    }
}
