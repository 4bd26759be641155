//! What a table of the file is: its columns, key, UNIQUE indexes and triggers, as SQLite tells them.

use rusqlite::{Connection, OptionalExtension, Row};
use whimbrel_shared::columns::reserved;

/// A table, or what has the name of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its name as it is written.
    pub name: String,
    /// `table`, `view`, `virtual` or `shadow`.
    pub kind: String,
    /// Whether its columns have strict types.
    pub strict: bool,
    /// Whether it has no row ids.
    pub without_row_id: bool,
    /// Its columns, hidden and generated ones too.
    pub columns: Vec<ColumnFacts>,
    /// The declared primary key, in its order: places in `columns`, and the collation of the index.
    pub key: Vec<(usize, String)>,
    /// Whether the key is the row id.
    pub row_id: bool,
    /// UNIQUE indexes but for that of the primary key.
    pub unique: Vec<UniqueFacts>,
    /// Names of the application's own triggers on it.
    pub triggers: Vec<String>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnFacts {
    /// Its name.
    pub name: String,
    /// Its declared type, maybe empty.
    pub decl_type: String,
    /// Whether it is NOT NULL.
    pub not_null: bool,
    /// Whether it is generated, or hidden in a virtual table: nothing can be written there.
    pub hidden: bool,
    /// Its collation.
    pub collation: String,
}

/// A UNIQUE index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueFacts {
    /// Its name.
    pub name: String,
    /// Its terms: the column, none where it is an expression; and the collation.
    pub terms: Vec<(Option<String>, String)>,
    /// Whether it has a condition.
    pub partial: bool,
    /// Its text, where it was made by CREATE INDEX.
    pub sql: Option<String>,
}

impl Facts {
    /// Reads what is called `name` in the file. `None`: nothing is.
    pub fn read(connection: &Connection, name: &str) -> rusqlite::Result<Option<Self>> {
        let found = connection
            .prepare("SELECT name, type, wr, strict FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE")?
            .query_row([name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .optional()?;
        let Some((name, kind, without_row_id, strict)) = found else { return Ok(None) };
        let mut facts = Self {
            name,
            kind,
            strict,
            without_row_id,
            columns: Vec::new(),
            key: Vec::new(),
            row_id: false,
            unique: Vec::new(),
            triggers: Vec::new(),
        };
        if facts.kind == "table" {
            facts.read_table(connection)?;
        }
        Ok(Some(facts))
    }

    fn read_table(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut places = Vec::new();
        let columns: Vec<(String, String, bool, i64, i64)> =
            all(connection, "SELECT name, type, \"notnull\", pk, hidden FROM pragma_table_xinfo(?1, 'main') ORDER BY cid", &self.name, |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
            })?;
        for (at, (name, decl_type, not_null, key, hidden)) in columns.into_iter().enumerate() {
            let (_, collation, ..) = connection.column_metadata(Some("main"), self.name.as_str(), name.as_str())?;
            let collation = collation.map_or_else(|| "BINARY".to_owned(), |c| c.to_string_lossy().into_owned());
            if key > 0 {
                places.push((key, at));
            }
            self.columns.push(ColumnFacts { name, decl_type, not_null, hidden: hidden != 0, collation });
        }
        places.sort_unstable();

        let mut of_key = None;
        let indexes: Vec<(String, String, bool)> = all(
            connection,
            "SELECT name, origin, partial FROM pragma_index_list(?1, 'main') WHERE \"unique\" ORDER BY seq DESC",
            &self.name,
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        for (name, origin, partial) in indexes {
            let terms: Vec<(Option<String>, String)> =
                all(connection, "SELECT name, coll FROM pragma_index_xinfo(?1, 'main') WHERE key ORDER BY seqno", &name, |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
            if origin == "pk" {
                of_key = Some(terms);
                continue;
            }
            let sql = connection
                .query_row("SELECT sql FROM main.sqlite_schema WHERE type = 'index' AND name = ?1", [&name], |row| row.get(0))
                .optional()?
                .flatten();
            self.unique.push(UniqueFacts { name, terms, partial, sql });
        }
        // Without an index of its own the key is the row id: INTEGER PRIMARY KEY.
        self.row_id = !places.is_empty() && of_key.is_none() && !self.without_row_id;
        let collation_of = |at: usize| {
            let own = |(name, _): &&(Option<String>, String)| name.as_ref().is_some_and(|n| n.eq_ignore_ascii_case(&self.columns[at].name));
            of_key.as_ref().and_then(|terms| terms.iter().find(own)).map_or_else(|| "BINARY".to_owned(), |(_, collation)| collation.clone())
        };
        self.key = places.into_iter().map(|(_, at)| (at, collation_of(at))).collect();

        self.triggers = all(
            connection,
            "SELECT name FROM main.sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE ORDER BY rowid",
            &self.name,
            |row| row.get(0),
        )?;
        self.triggers.retain(|name: &String| !reserved(name));
        Ok(())
    }

    /// Whether a column keeps 1 and 1.0 apart (<https://sqlite.org/datatype3.html>, 3.1: affinity BLOB; in a STRICT table: ANY).
    pub fn is_untyped(&self, column: &ColumnFacts) -> bool {
        let upper = column.decl_type.to_ascii_uppercase();
        if self.strict {
            return upper == "ANY" || upper == "BLOB";
        }
        let says = |word: &str| upper.contains(word);
        let typed = ["INT", "CHAR", "CLOB", "TEXT"].iter().any(|w| says(w));
        upper.is_empty() || says("BLOB") && !typed
    }
}

fn all<T>(connection: &Connection, sql: &str, name: &str, each: impl FnMut(&Row<'_>) -> rusqlite::Result<T>) -> rusqlite::Result<Vec<T>> {
    connection.prepare_cached(sql)?.query_map([name], each)?.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sql: &str) -> Facts {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(sql).unwrap();
        Facts::read(&connection, "T").unwrap().unwrap()
    }

    #[test]
    fn a_table_is_read_as_sqlite_sees_it() {
        let facts = read(
            "CREATE TABLE t(a TEXT COLLATE NOCASE, b, c INT NOT NULL, g AS (c + 1), e TEXT UNIQUE, PRIMARY KEY(c, a COLLATE RTRIM));
             CREATE UNIQUE INDEX i ON t(lower(e), b) WHERE c > 1;
             CREATE TRIGGER own AFTER INSERT ON t BEGIN SELECT 1; END; CREATE TRIGGER _whimbrel_x AFTER INSERT ON t BEGIN SELECT 1; END",
        );
        assert_eq!(facts.key, [(2, "BINARY".to_owned()), (0, "RTRIM".to_owned())]);
        assert!(!facts.row_id && facts.columns[3].hidden && facts.columns[0].collation == "NOCASE");
        assert_eq!(facts.triggers, ["own"]);
        assert_eq!(
            facts.unique.iter().map(|u| (u.terms.len(), u.partial, u.sql.is_some())).collect::<Vec<_>>(),
            [(1, false, false), (2, true, true)]
        );
        assert!(read("CREATE TABLE t(id INTEGER PRIMARY KEY)").row_id);
        assert!(!read("CREATE TABLE t(id INTEGER PRIMARY KEY DESC)").row_id);
        assert!(!read("CREATE TABLE t(id INTEGER PRIMARY KEY) WITHOUT ROWID").row_id);
        assert!(read("CREATE TABLE t(id)").key.is_empty());
        assert_eq!(read("CREATE VIEW t AS SELECT 1").kind, "view");
    }

    #[test]
    fn untyped_is_what_really_keeps_one_and_one_point_zero_apart() {
        let types = ["", "INT", "TEXT", "BLOB", "REAL", "NUMERIC", "ANY", "DOUBLE PRECISION", "BLOBINT", "TINYBLOB", "STRING", "FLOATING POINT"];
        let check = |columns: &str, options: &str, names: usize| {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch(&format!("CREATE TABLE t({columns}) {options}")).unwrap();
            let facts = Facts::read(&connection, "t").unwrap().unwrap();
            for at in 0..names {
                let column = &facts.columns[at];
                let kept: bool = connection
                    .execute("DELETE FROM t", [])
                    .and_then(|_| connection.execute(&format!("INSERT INTO t(\"{0}\") VALUES (1), (1.0)", column.name), []))
                    .and_then(|_| {
                        connection.query_row(&format!("SELECT count(DISTINCT typeof(\"{}\")) = 2 FROM t", column.name), [], |row| row.get(0))
                    })
                    // A STRICT table refuses one of them.
                    .unwrap_or(false);
                assert_eq!(facts.is_untyped(column) && (column.decl_type != "BLOB" || options.is_empty()), kept, "{:?} {options}", column.decl_type);
            }
        };
        let columns: Vec<_> = types.iter().enumerate().map(|(n, t)| format!("c{n} {t}")).collect();
        check(&columns.join(", "), "", types.len());
        check("a ANY, b BLOB, c INT, d REAL, e TEXT", "STRICT", 5);
    }
}
