//! Which tables exchange rows at a version, and how: what manifests said so far, with the keys and unique sets that the
//! schema has, signed per version. Pure. Tables and columns are known by their ids here, so a rename changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    columns::{ColumnMap, TableColumns},
    manifest::{Direction, DropPolicy, Keys, MinSchema, SyncConflict, SyncTable},
    near::did_you_mean,
};

/// Most columns of a key by which rows are exchanged.
pub const MAX_KEY_COLUMNS: usize = 4;
/// Most unique sets of one table.
pub const MAX_UNIQUE_SETS: usize = 64;

/// How SQLite compares a column in a key or a unique set. A collation of the application's own cannot be evaluated
/// elsewhere, and stands in no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Collation {
    /// Byte by byte.
    Binary,
    /// Without regard to ASCII case.
    Nocase,
    /// Without regard to spaces at the end.
    Rtrim,
}

/// A column of a key or unique set: its id, and how it compares. `[2,"nocase"]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyColumn(pub u32, pub Collation);

/// How one table exchanges rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Synced {
    /// Id of the table.
    pub table: u32,
    /// Which way rows go.
    pub direction: Direction,
    /// Who wins a concurrent edit.
    pub conflict: SyncConflict,
    /// How keys made on two devices are kept apart; never none where SQLite assigns them and rows go both ways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Keys>,
    /// The oldest version whose edits can still be taken; 0: any.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub min_schema: u32,
    /// The declared primary key, in its order: 1 to [`MAX_KEY_COLUMNS`] columns.
    pub key: Vec<KeyColumn>,
    /// What else has to be unique in a space: whole columns only. Partial indexes and those over expressions are not in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unique: Vec<Vec<KeyColumn>>,
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// What one version does to the tables that exchange rows. Both lists by ascending table id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyncChange {
    /// Tables that begin to, or do it otherwise than before; whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<Synced>,
    /// Tables that do it no more, and what becomes of their unsent edits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stopped: Vec<(u32, DropPolicy)>,
}

impl SyncChange {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.stopped.is_empty()
    }
}

/// The tables that exchange rows at one version, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncedTables(pub BTreeMap<u32, Synced>);

/// Why a change from outside cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSync {
    /// A table or column id that the map has not got, or one twice.
    #[error("rows of table {table} cannot be exchanged: {why}")]
    Table {
        /// Id of the table.
        table: u32,
        /// What is wrong.
        why: String,
    },
}

impl SyncedTables {
    /// Moves past one version, whose map has the tables that `table` finds by id. Refuses what `publish` never makes: tables or columns that are not in the
    /// map, keys that are too long or empty, a table that goes and is not stopped, an older `min_schema` than before. After
    /// an error it is of no further use.
    pub fn apply<'m>(&mut self, change: &SyncChange, table: impl Fn(u32) -> Option<&'m TableColumns>) -> Result<(), BadSync> {
        let bad = |table: u32, why: &str| Err(BadSync::Table { table, why: why.to_owned() });
        for (at, (id, _)) in change.stopped.iter().enumerate() {
            if self.0.remove(id).is_none() || change.stopped[..at].iter().any(|(t, _)| t >= id) {
                return bad(*id, "it is stopped, and did not exchange any or is named twice");
            }
        }
        for (at, synced) in change.tables.iter().enumerate() {
            if change.tables[..at].iter().any(|t| t.table >= synced.table) || change.stopped.iter().any(|(t, _)| *t == synced.table) {
                return bad(synced.table, "it is named twice or out of order");
            }
            if !(1..=MAX_KEY_COLUMNS).contains(&synced.key.len()) || synced.unique.len() > MAX_UNIQUE_SETS {
                return bad(synced.table, "its key has no column or more than 4, or it has more than 64 unique sets");
            }
            if self.0.get(&synced.table).is_some_and(|old| old.min_schema > synced.min_schema) {
                return bad(synced.table, "its min_schema went back");
            }
            self.0.insert(synced.table, synced.clone());
        }
        for synced in self.0.values() {
            let Some(columns) = table(synced.table) else { return bad(synced.table, "there is no such table") };
            for set in std::iter::once(&synced.key).chain(&synced.unique) {
                let known = |at: usize, id: u32| columns.column_by_id(id).is_some() && set[..at].iter().all(|c| c.0 != id);
                if set.is_empty() || !set.iter().enumerate().all(|(at, column)| known(at, column.0)) {
                    return bad(synced.table, "a key or unique set is empty, or names a column twice or one that is not there");
                }
            }
        }
        Ok(())
    }

    /// The setting of a table.
    pub fn table(&self, id: u32) -> Option<&Synced> {
        self.0.get(&id)
    }
}

/// What the schema says of a table that may exchange rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Constraints {
    /// The declared primary key, by id; a column in it that cannot be a part (generated, or of a collation that only the
    /// application has) by name instead.
    pub key: Vec<Result<KeyColumn, String>>,
    /// Whether SQLite assigns the key by itself: one INTEGER PRIMARY KEY column.
    pub assigned: bool,
    /// What else is unique, over whole columns that compare everywhere alike.
    pub unique: Vec<Vec<KeyColumn>>,
}

/// Why a `[sync.TABLE]` cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyncError {
    /// No such table.
    #[error("[sync.{table}] is said of a table that is not there{near}")]
    NoTable {
        /// As it was said.
        table: String,
        /// ` (did you mean …?)`, or nothing.
        near: String,
    },
    /// It is there and is no table of rows.
    #[error("[sync.{table}] is said of a {kind}, which has no rows of its own")]
    NoRows {
        /// As it was said.
        table: String,
        /// What it is.
        kind: &'static str,
    },
    /// No declared primary key.
    #[error("{table} has no declared primary key, so its rows cannot be told apart")]
    NoKey {
        /// The table.
        table: String,
    },
    /// A key with too many columns.
    #[error("the primary key of {table} has {columns} columns; rows are exchanged by at most 4")]
    LongKey {
        /// The table.
        table: String,
        /// How many.
        columns: usize,
    },
    /// A key column that only the application can compare, or that nobody can write.
    #[error("{column} in the primary key of {table} is generated, or has a collation that only the application knows")]
    BadKey {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// Keys that SQLite assigns, both ways, and no word about it.
    #[error("SQLite assigns the keys of {table}, so two devices give one number to different rows")]
    Assigned {
        /// The table.
        table: String,
    },
    /// A `min_schema` of a version that is not there yet.
    #[error("[sync.{table}] has min_schema = {said}, and this is version {version}")]
    Ahead {
        /// The table.
        table: String,
        /// As it was said.
        said: u32,
        /// The version.
        version: u32,
    },
    /// A `min_schema` before the one that holds.
    #[error("[sync.{table}] has min_schema = {said}, and it was {before}: what could not be taken then cannot be taken now")]
    Lower {
        /// The table.
        table: String,
        /// As it was said.
        said: u32,
        /// What holds.
        before: u32,
    },
    /// Two entries for one table.
    #[error("[sync.{table}] stands twice, in different spelling")]
    Twice {
        /// The table.
        table: String,
    },
    /// `stop` for a table that exchanges none.
    #[error("[sync.{table}] stops what has not begun")]
    NotSynced {
        /// The table.
        table: String,
    },
    /// `stop` beside another key.
    #[error("[sync.{table}] has `stop` beside other keys")]
    StopAndMore {
        /// The table.
        table: String,
    },
}

impl SyncError {
    /// What can be done.
    pub fn remedy(&self) -> String {
        match self {
            Self::NoTable { .. } => "correct the name in migration.toml".to_owned(),
            Self::NoRows { .. } => "name the table whose rows it shows, or take the entry away".to_owned(),
            Self::NoKey { .. } => "give it a primary key".to_owned(),
            Self::LongKey { .. } => "give it a key of its own, such as a UUID, and make the columns UNIQUE".to_owned(),
            Self::BadKey { .. } => "use a stored column with one of SQLite's own collations".to_owned(),
            Self::Assigned { table } => {
                format!("use a UUID or a natural key, or say in [sync.{table}] what happens then: keys = \"renumber\" (or \"global\")")
            }
            Self::Ahead { .. } => "say min_schema = \"this\"".to_owned(),
            Self::Lower { .. } => "take it away: the larger one stays".to_owned(),
            Self::Twice { .. } => "make one entry of the two".to_owned(),
            Self::NotSynced { .. } => "take the entry away".to_owned(),
            Self::StopAndMore { .. } => "leave only `stop`: there is nothing else to say of a table that exchanges no rows".to_owned(),
        }
    }
}

/// What `version`, which leaves the tables `after`, does to the tables that exchange rows. `said`: its manifest; `gone`: what
/// becomes of the unsent edits of a table that it drops; `constraints` by table id; `others`: views and virtual tables, by
/// name in ASCII lower case, with what they are. All that is wrong is in the error.
pub fn next(
    before: &SyncedTables,
    version: u32,
    after: &ColumnMap,
    said: &BTreeMap<String, SyncTable>,
    gone: &dyn Fn(u32) -> DropPolicy,
    constraints: &BTreeMap<u32, Constraints>,
    others: &BTreeMap<String, &'static str>,
) -> Result<SyncChange, Vec<SyncError>> {
    let mut errors = Vec::new();
    let mut named = BTreeSet::new();
    let mut change = SyncChange::default();
    let mut now: BTreeMap<u32, SyncTable> = before.0.keys().map(|id| (*id, SyncTable::default())).collect();
    for (name, sync) in said {
        let Some(table) = after.table(name) else {
            let lower = name.to_ascii_lowercase();
            errors.push(match others.get(&lower) {
                Some(kind) => SyncError::NoRows { table: name.clone(), kind },
                None => SyncError::NoTable { table: name.clone(), near: did_you_mean(name, after.tables.iter().map(|t| t.name.as_str())) },
            });
            continue;
        };
        if !named.insert(table.id) {
            errors.push(SyncError::Twice { table: table.name.clone() });
        }
        now.insert(table.id, sync.clone());
    }
    for (id, sync) in now {
        let old = before.table(id);
        let Some(table) = after.table_by_id(id) else {
            change.stopped.push((id, gone(id)));
            continue;
        };
        if let Some(policy) = sync.stop {
            if (SyncTable { stop: None, ..sync }) != SyncTable::default() {
                errors.push(SyncError::StopAndMore { table: table.name.clone() });
            } else if old.is_none() {
                errors.push(SyncError::NotSynced { table: table.name.clone() });
            } else {
                change.stopped.push((id, policy));
            }
            continue;
        }
        let empty = Constraints::default();
        match settle(&table.name, id, version, old, &sync, constraints.get(&id).unwrap_or(&empty)) {
            Ok(synced) if old == Some(&synced) => {}
            Ok(synced) => change.tables.push(synced),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(change) } else { Err(errors) }
}

fn settle(name: &str, id: u32, version: u32, old: Option<&Synced>, said: &SyncTable, found: &Constraints) -> Result<Synced, SyncError> {
    let table = || name.to_owned();
    if found.key.is_empty() {
        return Err(SyncError::NoKey { table: table() });
    }
    if found.key.len() > MAX_KEY_COLUMNS {
        return Err(SyncError::LongKey { table: table(), columns: found.key.len() });
    }
    let key = found.key.iter().cloned().collect::<Result<Vec<_>, _>>().map_err(|column| SyncError::BadKey { table: table(), column })?;
    let before = old.map_or(0, |old| old.min_schema);
    let min_schema = match said.min_schema {
        None => before,
        Some(MinSchema::This) => version,
        Some(MinSchema::Version(said)) if said > version => return Err(SyncError::Ahead { table: table(), said, version }),
        Some(MinSchema::Version(said)) if said < before => return Err(SyncError::Lower { table: table(), said, before }),
        Some(MinSchema::Version(said)) => said,
    };
    let direction = said.direction.or(old.map(|o| o.direction)).unwrap_or_default();
    let keys = said.keys.or(old.and_then(|o| o.keys));
    if direction == Direction::Both && found.assigned && keys.is_none() {
        return Err(SyncError::Assigned { table: table() });
    }
    Ok(Synced {
        table: id,
        direction,
        conflict: said.conflict.or(old.map(|o| o.conflict)).unwrap_or_default(),
        keys,
        min_schema,
        key,
        unique: found.unique.iter().take(MAX_UNIQUE_SETS).cloned().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> ColumnMap {
        serde_json::from_str(r#"[[1,"notes",[[1,"id"],[2,"slug"]]],[2,"tags",[[1,"id"]]],[3,"log",[[1,"x"]]]]"#).unwrap()
    }

    fn key(columns: &[u32]) -> Vec<Result<KeyColumn, String>> {
        columns.iter().map(|c| Ok(KeyColumn(*c, Collation::Binary))).collect()
    }

    fn constraints() -> BTreeMap<u32, Constraints> {
        let unique = vec![vec![KeyColumn(2, Collation::Nocase)]];
        BTreeMap::from([
            (1, Constraints { key: key(&[1]), assigned: true, unique }),
            (2, Constraints { key: key(&[1]), ..Constraints::default() }),
            (3, Constraints::default()),
        ])
    }

    fn say(before: &SyncedTables, version: u32, toml: &str) -> Result<SyncedTables, String> {
        let said = crate::manifest::Manifest::parse(toml).unwrap().sync;
        let others = BTreeMap::from([("recent".to_owned(), "view")]);
        let change = next(before, version, &map(), &said, &|_| DropPolicy::Archive, &constraints(), &others)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
        let text = serde_json::to_string(&change).unwrap();
        let mut now = before.clone();
        let map = map();
        now.apply(&serde_json::from_str(&text).unwrap(), |id| map.table_by_id(id)).unwrap();
        Ok(now)
    }

    #[test]
    fn what_is_not_said_again_stays_until_it_is() {
        let none = SyncedTables::default();
        let one = say(&none, 1, "[sync.notes]\ndirection = 'push'\nconflict = 'merge'\n[sync.Tags]\n").unwrap();
        let notes = one.table(1).unwrap();
        assert_eq!((notes.direction, notes.conflict, notes.keys, notes.min_schema), (Direction::Push, SyncConflict::Merge, None, 0));
        assert_eq!(notes.unique, [[KeyColumn(2, Collation::Nocase)]]);
        assert_eq!(say(&one, 2, "").unwrap(), one);
        let three = say(&one, 3, "[sync.notes]\nmin_schema = 'this'\n").unwrap();
        let notes = three.table(1).unwrap();
        assert_eq!((notes.direction, notes.conflict, notes.min_schema), (Direction::Push, SyncConflict::Merge, 3));
        let four = say(&three, 4, "[sync.notes]\nstop = 'block'\n").unwrap();
        assert!(four.table(1).is_none() && four.table(2).is_some());
    }

    #[test]
    fn what_cannot_exchange_rows_is_refused_with_the_reason() {
        let none = SyncedTables::default();
        let one = say(&none, 4, "[sync.notes]\ndirection = 'pull'\nmin_schema = 3\n").unwrap();
        let refused = |before: &SyncedTables, toml: &str, word: &str| {
            let error = say(before, 5, toml).unwrap_err();
            assert!(error.contains(word), "{toml}: {error}");
        };
        refused(&none, "[sync.note]\n", "not there (did you mean notes?)");
        refused(&none, "[sync.recent]\n", "said of a view");
        refused(&none, "[sync.log]\n", "log has no declared primary key");
        refused(&none, "[sync.notes]\n", "SQLite assigns the keys of notes");
        refused(&one, "[sync.notes]\ndirection = 'both'\n", "SQLite assigns");
        refused(&one, "[sync.notes]\nmin_schema = 6\n", "this is version 5");
        refused(&one, "[sync.notes]\nmin_schema = 2\n", "it was 3");
        refused(&none, "[sync.tags]\nstop = 'archive'\n", "stops what has not begun");
        refused(&one, "[sync.notes]\nstop = 'archive'\nkeys = 'global'\n", "`stop` beside other keys");
        refused(&none, "[sync.tags]\n[sync.Tags]\n", "[sync.tags] stands twice");
        say(&none, 5, "[sync.notes]\nkeys = 'global'\n").unwrap();
        for (key, word) in [(key(&[1, 2, 3, 4, 5]), "has 5 columns"), (vec![Err("slug".to_owned())], "slug in the primary key")] {
            let found = Constraints { key, ..Constraints::default() };
            let error = settle("notes", 1, 1, None, &SyncTable::default(), &found).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn a_change_from_outside_that_cannot_be_is_refused() {
        let one = say(&SyncedTables::default(), 2, "[sync.notes]\ndirection = 'pull'\nmin_schema = 2\n").unwrap();
        let check = |json: &str, word: &str| {
            let change: SyncChange = serde_json::from_str(json).unwrap();
            let map = map();
            let error = one.clone().apply(&change, |id| map.table_by_id(id)).unwrap_err().to_string();
            assert!(error.contains(word), "{json}: {error}");
        };
        let table = |id: u32, rest: &str| format!(r#"{{"table":{id},"direction":"both","conflict":"merge",{rest}}}"#);
        check(r#"{"stopped":[[2,"archive"]]}"#, "did not exchange any");
        check(r#"{"stopped":[[1,"archive"],[1,"archive"]]}"#, "named twice");
        check(&format!(r#"{{"tables":[{}]}}"#, table(9, r#""key":[[1,"binary"]]"#)), "no such table");
        check(&format!(r#"{{"tables":[{}]}}"#, table(2, r#""key":[]"#)), "no column or more than 4");
        check(&format!(r#"{{"tables":[{}]}}"#, table(2, r#""key":[[7,"binary"]]"#)), "not there");
        check(&format!(r#"{{"tables":[{}]}}"#, table(2, r#""key":[[1,"binary"]],"unique":[[[1,"rtrim"],[1,"binary"]]]"#)), "twice");
        check(&format!(r#"{{"tables":[{}]}}"#, table(1, r#""key":[[1,"binary"]]"#)), "went back");
        assert!(serde_json::from_str::<SyncChange>(&format!(r#"{{"tables":[{}]}}"#, table(1, r#""key":[[1,"german"]]"#))).is_err());
        let mut gone = one.clone();
        let fewer: ColumnMap = serde_json::from_str(r#"[[2,"tags",[[1,"id"]]]]"#).unwrap();
        assert!(gone.apply(&SyncChange::default(), |id| fewer.table_by_id(id)).unwrap_err().to_string().contains("no such table"));
    }
}
