//! What a database of one version may push, and what it can be told. Pure.

use std::collections::BTreeMap;

use whimbrel_shared::{
    change::{Change, Edit},
    columns::{ColumnMap, TableColumns},
    manifest::Direction,
    migration::Targets,
    protocol::push::{Answer, Reason},
    row_schema::{NoIds, RowSchema},
    synced::{KeyColumn, Synced, SyncedTables},
    value::Value,
};

/// The ids and settings of rows at one version of a chain.
#[derive(Debug)]
pub(crate) struct RowsAt {
    /// The version.
    pub(crate) version: u32,
    /// Its tables and columns.
    pub(crate) map: ColumnMap,
    synced: SyncedTables,
}

/// What a change is judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    /// The newest word on the table: an older client's edits meet those of newer ones.
    pub(crate) table: &'a Synced,
    /// Whether the change names every column that its version has, so that a row can be made of it.
    pub(crate) whole: bool,
}

impl RowsAt {
    /// At that version of a published chain.
    pub(crate) fn of(targets: &Targets, version: u32) -> Result<Self, NoIds> {
        let mut schema = RowSchema::default();
        for entry in targets.chain() {
            let link = &entry.custom;
            if link.revision == 1 && link.version <= version {
                // Publishing refused what cannot be passed; a chain of before that has no ids.
                schema.pass(link).map_err(|_| NoIds { version: link.version })?;
            }
        }
        Ok(Self { version, map: schema.map()?, synced: schema.synced().clone() })
    }

    /// Judges the shape of a change that a database of this version pushes; `latest` is the newest version. The answer
    /// where nothing of it can be taken.
    pub(crate) fn take<'a>(&'a self, change: &Change, latest: &'a Self) -> Result<Rules<'a>, Answer> {
        let impossible = |why: String| Err(Answer::Rejected(Reason::Impossible { why }));
        if let Err(why) = change.check() {
            return impossible(why.to_string());
        }
        let (Some(columns), Some(own)) = (self.map.table_by_id(change.table), self.synced.table(change.table)) else {
            return impossible(format!("version {} exchanges no rows of a table {}", self.version, change.table));
        };
        let table = latest.synced.table(change.table).unwrap_or(own);
        if own.direction == Direction::Pull || table.direction == Direction::Pull {
            return impossible(format!("rows of {} only come from the server", columns.name));
        }
        if change.key.len() != own.key.len() {
            return impossible(format!("the key of {} has {} columns, and this one {}", columns.name, own.key.len(), change.key.len()));
        }
        let cells = match &change.edit {
            Edit::Present { cells, .. } => cells.as_slice(),
            Edit::Deleted { .. } => &[],
        };
        let in_key = |id: u32| own.key.iter().any(|k| k.0 == id);
        if let Some(cell) = cells.iter().find(|c| in_key(c.column) || columns.column_by_id(c.column).is_none()) {
            return impossible(format!("{} has no column {} beside its key at version {}", columns.name, cell.column, self.version));
        }
        if self.version < table.min_schema {
            return Err(Answer::Held { min_schema: table.min_schema });
        }
        if table.key != own.key {
            return Err(Answer::Held { min_schema: latest.version });
        }
        Ok(Rules { table, whole: cells.len() + own.key.len() == columns.columns.len() })
    }

    /// How the newest word on a table, else this version's, compares its keys; none where neither exchanges its rows.
    pub(crate) fn key<'a>(&'a self, table: u32, latest: &'a Self) -> Option<&'a [KeyColumn]> {
        latest.synced.table(table).or_else(|| self.synced.table(table)).map(|synced| synced.key.as_slice())
    }

    /// What this version can be told, beyond what `since` could; `latest` is the newest version.
    pub(crate) fn shown(&self, since: Option<&Self>, latest: &Self) -> Shown {
        let mut shown = Shown::default();
        for synced in self.synced.0.values().filter(|s| s.direction != Direction::Push) {
            let Some(columns) = self.map.table_by_id(synced.table) else { continue };
            if !self.told(synced.table, latest) {
                shown.withheld.push(synced.table);
                continue;
            }
            let before = since.filter(|since| since.lands(synced.table) && since.told(synced.table, latest));
            let before = before.and_then(|since| since.map.table_by_id(synced.table));
            let new = |id: u32| before.is_none_or(|before| before.column_by_id(id).is_none());
            let beside_key =
                |t: &TableColumns| t.columns.iter().map(|c| c.id).filter(|id| !synced.key.iter().any(|k| k.0 == *id)).collect::<Vec<_>>();
            let ids: Vec<u32> = beside_key(columns).into_iter().filter(|id| new(*id)).collect();
            if before.is_none() || !ids.is_empty() {
                shown.tables.insert(synced.table, ShownTable { columns: ids, every_row: before.is_none() });
            }
        }
        shown
    }

    fn lands(&self, table: u32) -> bool {
        self.synced.table(table).is_some_and(|s| s.direction != Direction::Push)
    }

    fn told(&self, table: u32, latest: &Self) -> bool {
        latest.synced.table(table).is_none_or(|s| self.version >= s.min_schema)
    }
}

/// Tables with the columns beside their keys, by ascending id.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// By table id.
    pub(crate) tables: BTreeMap<u32, ShownTable>,
    /// Tables that cannot be told of at this version.
    pub(crate) withheld: Vec<u32>,
}

/// What is told of one table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ShownTable {
    /// Columns beside the key, by ascending id.
    pub(crate) columns: Vec<u32>,
    /// Whether every row is told, or only those with a value in one of the columns.
    pub(crate) every_row: bool,
}

/// The bytes that are equal where two keys or sets of values are: as SQLite compares them in that index.
pub(crate) fn index_bytes<'v>(columns: &[KeyColumn], values: impl Iterator<Item = &'v Value>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (column, value) in columns.iter().zip(values) {
        value.index_bytes(column.1, &mut bytes);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use whimbrel_shared::{change::Cell, hlc::Clock};

    use super::*;

    fn at(version: u32, map: &str, synced: &str) -> RowsAt {
        let map: ColumnMap = serde_json::from_str(map).unwrap();
        let mut tables = SyncedTables::default();
        let change = serde_json::from_str(&format!(r#"{{"tables":{synced}}}"#)).unwrap();
        tables.apply(&change, |id| map.table_by_id(id)).unwrap();
        RowsAt { version, map, synced: tables }
    }

    fn settings(table: u32, rest: &str) -> String {
        format!(r#"{{"table":{table},"direction":"both","conflict":"merge","key":[[1,"binary"]]{rest}}}"#)
    }

    fn first() -> RowsAt {
        at(1, r#"[[1,"note",[[1,"id"],[2,"title"]]],[2,"tag",[[1,"id"],[2,"name"]]]]"#, &format!("[{},{}]", settings(1, ""), settings(2, "")))
    }

    fn second() -> RowsAt {
        let map = r#"[[1,"note",[[1,"id"],[2,"head"],[3,"body"]]],[2,"tag",[[1,"id"],[2,"name"]]],[3,"link",[[1,"id"]]]]"#;
        at(2, map, &format!("[{},{},{}]", settings(1, ""), settings(2, r#","min_schema":2"#), settings(3, "")))
    }

    fn change(table: u32, columns: &[u32]) -> Change {
        let cells = columns.iter().map(|c| Cell { column: *c, value: Value::Null, base: 0, clock: Clock::ZERO }).collect();
        Change { table, key: vec![Value::Integer(1)], edit: Edit::Present { seen: 0, cells } }
    }

    #[test]
    fn a_change_is_taken_by_the_columns_of_its_version_and_the_newest_word_on_its_table() {
        let (one, two) = (first(), second());
        let whole = |from: &RowsAt, change: &Change| from.take(change, &two).map(|r| r.whole);
        assert_eq!(whole(&one, &change(1, &[2])), Ok(true));
        assert_eq!(whole(&two, &change(1, &[2])), Ok(false));
        assert_eq!(whole(&two, &change(1, &[2, 3])), Ok(true));
        assert_eq!(whole(&two, &change(3, &[])), Ok(true));
        assert_eq!(whole(&one, &change(2, &[2])), Err(Answer::Held { min_schema: 2 }));
        let refused = |from: &RowsAt, change: &Change| match from.take(change, &two) {
            Err(Answer::Rejected(Reason::Impossible { why })) => why,
            other => panic!("{other:?}"),
        };
        assert!(refused(&one, &change(1, &[3])).contains("note has no column 3"));
        assert!(refused(&one, &change(1, &[1])).contains("no column 1 beside its key"));
        assert!(refused(&one, &change(3, &[])).contains("no rows of a table 3"));
        assert!(refused(&one, &Change { key: vec![Value::Null], ..change(1, &[2]) }).contains("NULL"));
        assert!(refused(&one, &Change { key: vec![Value::Integer(1); 2], ..change(1, &[2]) }).contains("1 columns, and this one 2"));
    }

    #[test]
    fn a_key_that_changed_waits_for_the_version_that_knows_it() {
        let other = at(2, r#"[[1,"note",[[1,"id"],[2,"title"]]]]"#, r#"[{"table":1,"direction":"both","conflict":"merge","key":[[2,"binary"]]}]"#);
        assert_eq!(first().take(&change(1, &[2]), &other).unwrap_err(), Answer::Held { min_schema: 2 });
    }

    #[test]
    fn a_version_is_told_what_it_knows_and_one_that_moved_what_is_new_to_it() {
        let (one, two) = (first(), second());
        let shown = |tables: &[(u32, &[u32], bool)], withheld: &[u32]| Shown {
            tables: tables.iter().map(|(t, c, every_row)| (*t, ShownTable { columns: c.to_vec(), every_row: *every_row })).collect(),
            withheld: withheld.to_vec(),
        };
        assert_eq!(one.shown(None, &two), shown(&[(1, &[2], true)], &[2]));
        assert_eq!(two.shown(None, &two), shown(&[(1, &[2, 3], true), (2, &[2], true), (3, &[], true)], &[]));
        assert_eq!(two.shown(Some(&one), &two), shown(&[(1, &[3], false), (2, &[2], true), (3, &[], true)], &[]));
        assert_eq!(two.shown(Some(&two), &two), shown(&[], &[]));
    }
}
