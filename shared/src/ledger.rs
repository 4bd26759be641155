//! How ids are given, version by version, and never twice. Pure.
//!
//! A chain signs what each version changes, so that a chain of n versions stays linear in size; a ledger is the changes
//! one on top of the other, and the highest id that was ever given, which dropping does not lower.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::columns::{BadColumns, Column, ColumnMap, MAX_TABLES, TableColumns, check_table};

/// What one version does to the map: tables made or changed, whole, and tables dropped. Both by ascending id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnChange {
    /// Tables that are new, or have another name or other columns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made: Vec<TableColumns>,
    /// Ids of the tables that go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<u32>,
    /// Columns that a backfill fills anew, and that have another id from here on: what was written under the old one is
    /// another value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub renewed: Vec<Renewed>,
}

/// A column that has another id from one version on. `[table, from, to]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "(u32, u32, u32)", into = "(u32, u32, u32)")]
pub struct Renewed {
    /// Id of the table.
    pub table: u32,
    /// Its id before.
    pub from: u32,
    /// Its id from here on.
    pub to: u32,
}

impl From<(u32, u32, u32)> for Renewed {
    fn from((table, from, to): (u32, u32, u32)) -> Self {
        Self { table, from, to }
    }
}

impl From<Renewed> for (u32, u32, u32) {
    fn from(renewed: Renewed) -> Self {
        (renewed.table, renewed.from, renewed.to)
    }
}

/// Why a change does not follow what is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadChange {
    /// The map after it would be none.
    #[error(transparent)]
    Map(#[from] BadColumns),
    /// A table is dropped that is not there.
    #[error("it drops the table with id {id}, and there is none")]
    NoSuchTable {
        /// Its id.
        id: u32,
    },
    /// An id is given a second time.
    #[error("it gives {place} id {id}, and ids up to {last} were given before; an id is never given again")]
    Reused {
        /// The table or column.
        place: String,
        /// Its id.
        id: u32,
        /// The highest that was given.
        last: u32,
    },
    /// A column is said to be filled anew that is not.
    #[error("it says that column {from} of table {table} becomes {to}, and that is not what it does")]
    NotRenewed {
        /// Id of the table.
        table: u32,
        /// Id before.
        from: u32,
        /// Id after.
        to: u32,
    },
    /// Not in order, or a table both made and dropped.
    #[error("its table ids do not ascend at {id}, or it is named twice")]
    Order {
        /// Where.
        id: u32,
    },
}

/// A table as the schema has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Its name.
    pub name: String,
    /// Its columns in order, without those that are generated.
    pub columns: Vec<String>,
    /// The columns of its declared primary key, in the key's order; none where it has none.
    pub key: Vec<String>,
}

/// Who is who, where names do not say it. Keys are names after the version, in ASCII lower case; a value is the id that
/// the table or column had before, none for one that is new although its name is old.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Same {
    /// Tables.
    pub tables: BTreeMap<String, Option<u32>>,
    /// Columns, by table and name.
    pub columns: BTreeMap<(String, String), Option<u32>>,
    /// Columns, by table and name, that are who they were and are filled anew.
    pub renewed: BTreeSet<(String, String)>,
}

/// The map at one version, with the marks below which no id is given again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    tables: BTreeMap<u32, TableColumns>,
    /// Names in ASCII lower case.
    names: BTreeMap<String, u32>,
    last_table: u32,
    /// By table that is there. A dropped one needs none: its own id does not come back.
    last_column: BTreeMap<u32, u32>,
}

impl Ledger {
    /// The map.
    pub fn map(&self) -> ColumnMap {
        ColumnMap { tables: self.tables.values().cloned().collect() }
    }

    /// The table with that id.
    pub fn table(&self, id: u32) -> Option<&TableColumns> {
        self.tables.get(&id)
    }

    /// The highest table id that was ever given; 0 before the first.
    pub fn last_table(&self) -> u32 {
        self.last_table
    }

    /// The highest id that a column of this table was ever given; none where there is no such table now.
    pub fn last_column(&self, table: u32) -> Option<u32> {
        self.last_column.get(&table).copied()
    }

    /// Moves past one version. Refuses what `publish` never makes: an id given again, a name for two, a table dropped that
    /// is not there. After an error the ledger is of no further use.
    pub fn apply(&mut self, change: &ColumnChange) -> Result<(), BadChange> {
        ascending(change.made.iter().map(|t| t.id))?;
        ascending(change.dropped.iter().copied())?;
        for Renewed { table, from, to } in change.renewed.iter().copied() {
            let made = change.made.iter().find(|t| t.id == table);
            let was = self.tables.get(&table).is_some_and(|t| t.column_by_id(from).is_some() && t.column_by_id(to).is_none());
            if !was || !made.is_some_and(|t| t.column_by_id(from).is_none() && t.column_by_id(to).is_some()) {
                return Err(BadChange::NotRenewed { table, from, to });
            }
        }
        for id in &change.dropped {
            let table = self.tables.remove(id).ok_or(BadChange::NoSuchTable { id: *id })?;
            self.names.remove(&table.name.to_ascii_lowercase());
            self.last_column.remove(id);
        }
        // All old names go first: two tables may have exchanged theirs.
        for table in &change.made {
            if change.dropped.binary_search(&table.id).is_ok() {
                return Err(BadChange::Order { id: table.id });
            }
            if let Some(old) = self.tables.get(&table.id) {
                self.names.remove(&old.name.to_ascii_lowercase());
            }
        }
        for table in &change.made {
            check_table(table)?;
            let place = || format!("table {:?}", table.name);
            let old = self.tables.get(&table.id);
            if old.is_none() && table.id <= self.last_table {
                return Err(BadChange::Reused { place: place(), id: table.id, last: self.last_table });
            }
            let last = self.last_column.get(&table.id).copied().unwrap_or(0);
            let again = table.columns.iter().find(|c| c.id <= last && old.is_some_and(|old| old.column_by_id(c.id).is_none()));
            if let Some(column) = again {
                return Err(BadChange::Reused { place: format!("column {:?} of {}", column.name, place()), id: column.id, last });
            }
            if let Some(other) = self.names.insert(table.name.to_ascii_lowercase(), table.id) {
                return Err(BadColumns::NameTwice { place: place(), what: "table", other }.into());
            }
            let highest = table.columns.last().map_or(0, |c| c.id);
            self.last_column.insert(table.id, last.max(highest));
            self.last_table = self.last_table.max(table.id);
            self.tables.insert(table.id, table.clone());
        }
        if self.tables.len() > MAX_TABLES {
            let (place, count) = ("the column map".to_owned(), self.tables.len());
            return Err(BadColumns::TooMany { place, what: "tables", count, most: MAX_TABLES }.into());
        }
        Ok(())
    }

    /// What a version that leaves the tables `after` does to the map. A table or column is who `same` says; else who has
    /// had its name, unless `same` says that this one is called otherwise now; else it is new, and gets the next id. The same
    /// arguments always give the same ids, in whatever order the tables stand. Fails where a name or count is over the
    /// limits of a map, or `same` gives one id to two.
    pub fn next(&self, after: &[Shape], same: &Same) -> Result<ColumnChange, BadChange> {
        let mut shapes: Vec<(String, &Shape)> = after.iter().map(|s| (s.name.to_ascii_lowercase(), s)).collect();
        shapes.sort_by(|a, b| a.0.cmp(&b.0));
        let claimed: Vec<u32> = same.tables.iter().filter(|(name, _)| shapes.iter().any(|(n, _)| n == *name)).filter_map(|(_, id)| *id).collect();
        let mut last_table = self.last_table;
        let mut tables: BTreeMap<u32, TableColumns> = BTreeMap::new();
        let mut renewed = Vec::new();
        for (name, shape) in shapes {
            let by_name = || self.names.get(&name).copied().filter(|id| !claimed.contains(id));
            let old = same.tables.get(&name).copied().unwrap_or_else(by_name).and_then(|id| self.tables.get(&id));
            let id = old.map_or_else(|| next_id(&mut last_table), |old| old.id);
            let table = TableColumns { id, name: shape.name.clone(), columns: self.columns(old, &name, shape, same, &mut renewed) };
            if let Some(twin) = tables.insert(id, table) {
                return Err(BadColumns::NotAscending { place: format!("table {:?}", twin.name), id, after: id }.into());
            }
        }
        let dropped = self.tables.keys().filter(|id| !tables.contains_key(id)).copied().collect();
        tables.retain(|id, table| self.tables.get(id) != Some(table));
        renewed.sort_unstable();
        let change = ColumnChange { made: tables.into_values().collect(), dropped, renewed };
        self.clone().apply(&change)?;
        Ok(change)
    }

    fn columns(&self, old: Option<&TableColumns>, table: &str, shape: &Shape, same: &Same, renewed: &mut Vec<Renewed>) -> Vec<Column> {
        let mut last = old.and_then(|old| self.last_column(old.id)).unwrap_or(0);
        let key = |name: &str| (table.to_owned(), name.to_ascii_lowercase());
        let claimed: Vec<u32> = shape.columns.iter().filter_map(|name| same.columns.get(&key(name)).copied().flatten()).collect();
        let mut columns: Vec<Column> = shape
            .columns
            .iter()
            .map(|name| {
                let by_name = || old?.column(name).map(|c| c.id).filter(|id| !claimed.contains(id));
                // Who has no old table has no old column either.
                let known = old.and_then(|_| same.columns.get(&key(name)).copied().unwrap_or_else(by_name));
                let anew = known.zip(old).filter(|_| same.renewed.contains(&key(name)));
                let id = known.filter(|_| anew.is_none()).unwrap_or_else(|| next_id(&mut last));
                renewed.extend(anew.map(|(from, old)| Renewed { table: old.id, from, to: id }));
                Column { id, name: name.clone() }
            })
            .collect();
        columns.sort_by_key(|c| c.id);
        columns
    }
}

fn next_id(last: &mut u32) -> u32 {
    *last = last.saturating_add(1);
    *last
}

fn ascending(ids: impl Iterator<Item = u32>) -> Result<(), BadChange> {
    let mut last = 0;
    for id in ids {
        if id <= last {
            return Err(BadChange::Order { id });
        }
        last = id;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn shape(name: &str, columns: &[&str]) -> Shape {
        Shape { name: name.to_owned(), columns: columns.iter().map(|c| (*c).to_owned()).collect(), key: Vec::new() }
    }

    fn step(ledger: &Ledger, after: &[Shape], same: &Same) -> Ledger {
        let mut next = ledger.clone();
        next.apply(&ledger.next(after, same).unwrap()).unwrap();
        next
    }

    /// `table: column=id …` of every table, for reading.
    fn said(ledger: &Ledger) -> Vec<String> {
        let columns = |t: &TableColumns| t.columns.iter().map(|c| format!(" {}={}", c.name, c.id)).collect::<String>();
        ledger.map().tables.iter().map(|t| format!("{}#{}:{}", t.name, t.id, columns(t))).collect()
    }

    #[test]
    fn a_name_keeps_its_id_and_a_new_name_gets_a_new_one() {
        let one = step(&Ledger::default(), &[shape("b", &["id", "x"]), shape("a", &["id"])], &Same::default());
        assert_eq!(said(&one), ["a#1: id=1", "b#2: id=1 x=2"]);
        let gone = step(&one, &[shape("B", &["ID"])], &Same::default());
        assert_eq!(said(&gone), ["B#2: ID=1"]);
        let again = step(&gone, &[shape("a", &["id"]), shape("b", &["id", "x"])], &Same::default());
        assert_eq!(said(&again), ["b#2: id=1 x=3", "a#3: id=1"]);
        assert!(again.next(&[shape("b", &["x", "id"]), shape("a", &["id"])], &Same::default()).unwrap() == ColumnChange::default());
    }

    #[test]
    fn what_is_renamed_keeps_its_id_and_leaves_its_name_free() {
        let one = step(&Ledger::default(), &[shape("person", &["first", "last"])], &Same::default());
        let same = Same {
            tables: BTreeMap::from([("people".to_owned(), Some(1))]),
            columns: BTreeMap::from([(("people".to_owned(), "given".to_owned()), Some(1))]),
            ..Same::default()
        };
        let two = step(&one, &[shape("people", &["given", "last", "first"]), shape("person", &["first"])], &same);
        assert_eq!(said(&two), ["people#1: given=1 last=2 first=3", "person#2: first=1"]);
        let swap = Same { tables: BTreeMap::from([("people".to_owned(), Some(2)), ("person".to_owned(), Some(1))]), ..Same::default() };
        let swapped = step(&two, &[shape("person", &["given", "last", "first"]), shape("people", &["first"])], &swap);
        assert_eq!(said(&swapped), ["person#1: given=1 last=2 first=3", "people#2: first=1"]);
        let fresh = Same { columns: BTreeMap::from([(("people".to_owned(), "first".to_owned()), None)]), ..Same::default() };
        assert_eq!(said(&step(&swapped, &[shape("people", &["first"])], &fresh)), ["people#2: first=2"]);
    }

    #[test]
    fn a_column_that_is_filled_anew_gets_another_id_and_both_are_told() {
        let one = step(&Ledger::default(), &[shape("notes", &["id", "title"])], &Same::default());
        let renewed = BTreeSet::from([("notes".to_owned(), "title".to_owned()), ("notes".to_owned(), "slug".to_owned())]);
        let same = Same { renewed, ..Same::default() };
        let change = one.next(&[shape("notes", &["id", "Title", "slug"])], &same).unwrap();
        assert_eq!(serde_json::to_string(&change).unwrap(), r#"{"made":[[1,"notes",[[1,"id"],[3,"Title"],[4,"slug"]]]],"renewed":[[1,2,3]]}"#);
    }

    #[test]
    fn a_change_that_gives_an_id_again_is_refused() {
        let one = step(&Ledger::default(), &[shape("a", &["x", "y"]), shape("b", &["x"])], &Same::default());
        let less = step(&one, &[shape("a", &["x"])], &Same::default());
        let refused = |json: &str| {
            let change: ColumnChange = serde_json::from_str(json).unwrap();
            less.clone().apply(&change).unwrap_err().to_string()
        };
        assert!(refused(r#"{"made":[[2,"b",[[1,"x"]]]]}"#).contains("table \"b\" id 2, and ids up to 2 were given"));
        assert!(refused(r#"{"made":[[1,"a",[[1,"x"],[2,"z"]]]]}"#).contains("column \"z\" of table \"a\" id 2"));
        assert!(refused(r#"{"made":[[3,"A",[[1,"x"]]]]}"#).contains("name of another table"));
        assert!(refused(r#"{"renewed":[[1,1,3]]}"#).contains("becomes 3, and that is not what it does"));
        assert!(refused(r#"{"dropped":[2]}"#).contains("there is none"));
        assert!(refused(r#"{"made":[[1,"a",[[1,"x"]]]],"dropped":[1]}"#).contains("named twice"));
        assert!(refused(r#"{"made":[[4,"c",[[1,"x"]]],[3,"d",[[1,"x"]]]]}"#).contains("ascend"));
        assert!(serde_json::from_str::<ColumnChange>(r#"{"more":[]}"#).is_err());
        let twice = Same { tables: BTreeMap::from([("a".to_owned(), Some(1)), ("b".to_owned(), Some(1))]), ..Same::default() };
        assert!(less.next(&[shape("a", &["x"]), shape("b", &["x"])], &twice).is_err());
    }

    /// Schemas of a few tables and columns whose names come and go.
    fn schema() -> impl Strategy<Value = Vec<Shape>> {
        let columns = prop::sample::subsequence(vec!["a", "b", "c", "d"], 1..=4).prop_shuffle();
        let table = (prop::sample::select(vec!["t", "u", "v"]), columns);
        prop::collection::vec(table, 0..4).prop_map(|tables| {
            let named: BTreeMap<&str, Vec<&str>> = tables.into_iter().collect();
            named.into_iter().map(|(name, columns)| shape(name, &columns)).collect()
        })
    }

    /// What happens to names between two schemas: each new one may be any old one, or none.
    fn same(before: &ColumnMap, after: &[Shape], dice: &[u8]) -> Same {
        let mut dice = dice.iter().copied().cycle();
        let mut throw = |n: usize| usize::from(dice.next().unwrap_or(0)) % n.max(1);
        let mut same = Same::default();
        let mut free: Vec<&TableColumns> = before.tables.iter().collect();
        for shape in after {
            let name = shape.name.to_ascii_lowercase();
            match throw(4) {
                0 if !free.is_empty() => {
                    let old = free.remove(throw(free.len()));
                    let mut columns: Vec<u32> = old.columns.iter().map(|c| c.id).collect();
                    for column in &shape.columns {
                        if throw(3) == 0 && !columns.is_empty() {
                            same.columns.insert((name.clone(), column.clone()), Some(columns.remove(throw(columns.len()))));
                        }
                    }
                    same.tables.insert(name, Some(old.id));
                }
                1 => {
                    same.tables.insert(name, None);
                }
                _ => {}
            }
        }
        same
    }

    proptest! {
        #[test]
        fn ids_are_never_given_again_and_names_are_the_schemas(chain in prop::collection::vec((schema(), prop::collection::vec(any::<u8>(), 8)), 1..12)) {
            let mut ledger = Ledger::default();
            let mut changes: Vec<ColumnChange> = Vec::new();
            let mut gone_tables: BTreeSet<u32> = BTreeSet::new();
            let mut gone_columns: BTreeSet<(u32, u32)> = BTreeSet::new();
            for (after, dice) in chain {
                let before = ledger.map();
                let same = same(&before, &after, &dice);
                let change = ledger.next(&after, &same).unwrap();
                let mut shuffled = after.clone();
                shuffled.reverse();
                prop_assert_eq!(&ledger.next(&shuffled, &same).unwrap(), &change);
                ledger.apply(&change).unwrap();
                let now = ledger.map();
                now.check().unwrap();
                // Names are the schema's, each once.
                let names = |t: &str, c: &[String]| { let mut c = c.to_vec(); c.sort(); (t.to_owned(), c) };
                let mut wanted: Vec<_> = after.iter().map(|s| names(&s.name, &s.columns)).collect();
                let mut found: Vec<_> = now.tables.iter().map(|t| names(&t.name, &t.columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>())).collect();
                wanted.sort();
                found.sort();
                prop_assert_eq!(wanted, found);
                // What is gone stays gone.
                for table in &now.tables {
                    prop_assert!(!gone_tables.contains(&table.id));
                    prop_assert!(table.columns.iter().all(|c| !gone_columns.contains(&(table.id, c.id))));
                }
                for table in &before.tables {
                    match now.table_by_id(table.id) {
                        None => { gone_tables.insert(table.id); }
                        Some(t) => gone_columns.extend(table.columns.iter().filter(|c| t.column_by_id(c.id).is_none()).map(|c| (t.id, c.id))),
                    }
                }
                changes.push(change);
                // Read from the changes alone, it is the same: a file that went down stands at a version whose map is known.
                let mut again = Ledger::default();
                for change in &changes {
                    let text = serde_json::to_string(change).unwrap();
                    again.apply(&serde_json::from_str(&text).unwrap()).unwrap();
                }
                prop_assert_eq!(&again, &ledger);
            }
        }
    }
}
