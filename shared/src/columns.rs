//! Who a table and a column are, whatever they are called: ids that `publish` gives once and signs per version. Pure.
//!
//! A map holds the tables of a chain at one version, with their columns. Rows travel by these ids, so that an edit made
//! under the old name of a column still finds it (DESIGN 5). Server and device read maps; only `publish` makes them.

use serde::{Deserialize, Serialize};

/// Most tables in one map.
pub const MAX_TABLES: usize = 10_000;
/// Most columns in one table: SQLite's own limit at its largest.
pub const MAX_COLUMNS: usize = 32_767;
/// Longest name of a table or column, in bytes. SQLite has no limit; a row page and a trigger have.
pub const MAX_NAME_BYTES: usize = 512;
/// Largest id. Ids are given one by one, so this is never reached; it keeps them positive in every integer type.
pub const MAX_ID: u32 = i32::MAX as u32;

/// The ids of all tables and columns at one version, sorted by id.
///
/// Not in it: views, virtual tables and their shadow tables, generated columns (nothing can be written there), tables
/// whose names begin with `sqlite_` or `_whimbrel_`, and whatever the application made by itself.
///
/// Reading one from outside (`Deserialize`) checks it as [`ColumnMap::check`] does. Its form is compact and the same
/// bytes each time: `[[1,"notes",[[1,"id"],[2,"title"]]]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<RawTable>", into = "Vec<RawTable>")]
pub struct ColumnMap {
    /// The tables, by ascending id.
    pub tables: Vec<TableColumns>,
}

/// One table and its columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawTable", into = "RawTable")]
pub struct TableColumns {
    /// Unique in the app and never given again, also after the table is dropped. From 1.
    pub id: u32,
    /// What it is called at this version, as the schema spells it.
    pub name: String,
    /// Its columns, by ascending id. Never empty.
    pub columns: Vec<Column>,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Unique in its table and never given again there, also after the column is dropped. From 1.
    pub id: u32,
    /// What it is called at this version, as the schema spells it.
    pub name: String,
}

type RawColumn = (u32, String);
type RawTable = (u32, String, Vec<RawColumn>);

/// Why a map from outside is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadColumns {
    /// Over [`MAX_TABLES`] or [`MAX_COLUMNS`].
    #[error("{place} has {count} {what}; at most {most} are read")]
    TooMany {
        /// "the column map", or the table.
        place: String,
        /// "tables" or "columns".
        what: &'static str,
        /// How many.
        count: usize,
        /// The limit.
        most: usize,
    },
    /// A table without columns.
    #[error("{place} has no columns; a table has at least one")]
    Empty {
        /// The table.
        place: String,
    },
    /// An id outside 1 ..= [`MAX_ID`].
    #[error("{place} has id {id}; ids are from 1 to {MAX_ID}")]
    IdOutOfRange {
        /// The table or column.
        place: String,
        /// Its id.
        id: u32,
    },
    /// Ids that do not ascend: out of order, or one given twice.
    #[error("{place} has id {id} and follows id {after}; ids ascend and none stands twice")]
    NotAscending {
        /// The table or column.
        place: String,
        /// Its id.
        id: u32,
        /// The one before.
        after: u32,
    },
    /// One name (without regard to ASCII case, as SQLite compares) for two.
    #[error("{place} has the name of another {what}, id {other}")]
    NameTwice {
        /// The table or column.
        place: String,
        /// "table" or "column".
        what: &'static str,
        /// The id that has the name already.
        other: u32,
    },
    /// A name that no table or column of an application can have.
    #[error("{place} has a name that cannot be: {why}")]
    BadName {
        /// The table or column, its name cut short.
        place: String,
        /// What is wrong.
        why: &'static str,
    },
}

impl ColumnMap {
    /// The table of that name, without regard to ASCII case, as SQLite compares names.
    pub fn table(&self, name: &str) -> Option<&TableColumns> {
        self.tables.iter().find(|t| t.name.eq_ignore_ascii_case(name))
    }

    /// The table with that id.
    pub fn table_by_id(&self, id: u32) -> Option<&TableColumns> {
        self.tables.binary_search_by_key(&id, |t| t.id).ok().map(|at| &self.tables[at])
    }

    /// Whether this is a map that `publish` could have made: ids in range, ascending and unique, names unique and possible,
    /// counts within the limits. The error names the first table or column that is wrong.
    pub fn check(&self) -> Result<(), BadColumns> {
        let place = "the column map".to_owned();
        within(place, "tables", self.tables.len(), MAX_TABLES)?;
        check_entries("table", |name| format!("table {name:?}"), self.tables.iter().map(|t| (t.id, t.name.as_str())))?;
        for table in &self.tables {
            table.check()?;
        }
        Ok(())
    }
}

/// Checks one table by itself, its id and name too.
pub(crate) fn check_table(table: &TableColumns) -> Result<(), BadColumns> {
    check_entries("table", |name| format!("table {name:?}"), std::iter::once((table.id, table.name.as_str())))?;
    table.check()
}

impl TableColumns {
    /// The column of that name, without regard to ASCII case.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name.eq_ignore_ascii_case(name))
    }

    /// The column with that id.
    pub fn column_by_id(&self, id: u32) -> Option<&Column> {
        self.columns.binary_search_by_key(&id, |c| c.id).ok().map(|at| &self.columns[at])
    }

    fn check(&self) -> Result<(), BadColumns> {
        let place = format!("table {:?}", short(&self.name));
        if reserved(&self.name) {
            return Err(BadColumns::BadName { place, why: "sqlite_ and _whimbrel_ are reserved" });
        }
        if self.columns.is_empty() {
            return Err(BadColumns::Empty { place });
        }
        within(place, "columns", self.columns.len(), MAX_COLUMNS)?;
        let named = |name: &str| format!("column {:?} of table {:?}", name, short(&self.name));
        check_entries("column", named, self.columns.iter().map(|c| (c.id, c.name.as_str())))
    }
}

/// Whether a table of this name is SQLite's or ours, and so in no map.
pub fn reserved(table: &str) -> bool {
    let lower = table.to_ascii_lowercase();
    lower.starts_with("sqlite_") || lower.starts_with("_whimbrel_")
}

fn within(place: String, what: &'static str, count: usize, most: usize) -> Result<(), BadColumns> {
    if count > most { Err(BadColumns::TooMany { place, what, count, most }) } else { Ok(()) }
}

fn check_entries<'a>(what: &'static str, place: impl Fn(&str) -> String, entries: impl Iterator<Item = (u32, &'a str)>) -> Result<(), BadColumns> {
    let mut after = 0;
    let mut names = std::collections::BTreeMap::new();
    for (id, name) in entries {
        let place = place(&short(name));
        if id == 0 || id > MAX_ID {
            return Err(BadColumns::IdOutOfRange { place, id });
        }
        if id <= after {
            return Err(BadColumns::NotAscending { place, id, after });
        }
        after = id;
        if name.is_empty() || name.contains('\0') {
            return Err(BadColumns::BadName { place, why: "it is empty or has a zero byte" });
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(BadColumns::BadName { place, why: "it is longer than 512 bytes" });
        }
        if let Some(other) = names.insert(name.to_ascii_lowercase(), id) {
            return Err(BadColumns::NameTwice { place, what, other });
        }
    }
    Ok(())
}

/// A name as an error shows it: whole in all sensible cases.
fn short(name: &str) -> String {
    name.chars().take(80).collect()
}

impl From<TableColumns> for RawTable {
    fn from(table: TableColumns) -> Self {
        (table.id, table.name, table.columns.into_iter().map(|c| (c.id, c.name)).collect())
    }
}

impl From<ColumnMap> for Vec<RawTable> {
    fn from(map: ColumnMap) -> Self {
        map.tables.into_iter().map(RawTable::from).collect()
    }
}

fn table_of((id, name, columns): RawTable) -> TableColumns {
    TableColumns { id, name, columns: columns.into_iter().map(|(id, name)| Column { id, name }).collect() }
}

impl TryFrom<RawTable> for TableColumns {
    type Error = BadColumns;
    fn try_from(raw: RawTable) -> Result<Self, BadColumns> {
        let table = table_of(raw);
        check_table(&table)?;
        Ok(table)
    }
}

impl TryFrom<Vec<RawTable>> for ColumnMap {
    type Error = BadColumns;
    fn try_from(raw: Vec<RawTable>) -> Result<Self, BadColumns> {
        let map = Self { tables: raw.into_iter().map(table_of).collect() };
        map.check()?;
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<ColumnMap, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn a_map_is_written_compactly_and_read_back() {
        let json = r#"[[1,"Notes",[[1,"id"],[4,"Title"]]],[7,"tags",[[2,"id"]]]]"#;
        let map = read(json).unwrap();
        assert_eq!(serde_json::to_string(&map).unwrap(), json);
        assert_eq!(map.table("NOTES").unwrap().id, 1);
        assert_eq!(map.table("notes").unwrap().column("title").unwrap().id, 4);
        assert_eq!(map.table_by_id(7).unwrap().column_by_id(2).unwrap().name, "id");
        assert!(map.table("no").is_none() && map.table_by_id(2).is_none());
        assert!(map.table("tags").unwrap().column("no").is_none() && map.table("tags").unwrap().column_by_id(1).is_none());
    }

    #[test]
    fn a_map_that_no_publisher_makes_is_refused_with_the_place() {
        let check = |json: &str, word: &str| {
            let error = read(json).unwrap_err();
            assert!(error.contains(word), "{json}: {error}");
        };
        check(r#"[[0,"a",[[1,"x"]]]]"#, "table \"a\" has id 0");
        check(r#"[[2147483648,"a",[[1,"x"]]]]"#, "2147483648");
        check(r#"[[2,"a",[[1,"x"]]],[1,"b",[[1,"x"]]]]"#, "table \"b\" has id 1 and follows id 2");
        check(r#"[[1,"a",[[1,"x"]]],[1,"b",[[1,"x"]]]]"#, "none stands twice");
        check(r#"[[1,"a",[[1,"x"]]],[2,"A",[[1,"x"]]]]"#, "name of another table, id 1");
        check(r#"[[1,"a",[]]]"#, "no columns");
        check(r#"[[1,"a",[[1,"x"],[2,"X"]]]]"#, "column \"X\" of table \"a\" has the name of another column, id 1");
        check(r#"[[1,"a",[[2,"x"],[2,"y"]]]]"#, "column \"y\"");
        check(r#"[[1,"",[[1,"x"]]]]"#, "empty");
        check(r#"[[1,"sqlite_sequence",[[1,"name"]]]]"#, "reserved");
        check(r#"[[1,"_Whimbrel_j",[[1,"name"]]]]"#, "reserved");
        check(&format!(r#"[[1,"{}",[[1,"x"]]]]"#, "a".repeat(513)), "longer than 512");
        let wide: Vec<String> = (1..=MAX_COLUMNS + 1).map(|i| format!("[{i},\"c{i}\"]")).collect();
        check(&format!(r#"[[1,"a",[{}]]]"#, wide.join(",")), "32768 columns");
        let many: Vec<String> = (1..=MAX_TABLES + 1).map(|i| format!("[{i},\"t{i}\",[[1,\"x\"]]]")).collect();
        check(&format!("[{}]", many.join(",")), "10001 tables");
        check(r#"[[-1,"a",[[1,"x"]]]]"#, "invalid value");
    }
}
