//! A row's values between two versions of a chain. Pure. Values travel by column id; what a column is called, and whether
//! it is there at all, is a version's business. Nothing is computed here: a value that another version has in another form
//! says so, and is left to who can run the migration's own steps.

use crate::{
    carry::{Move, TableCarry},
    columns::ColumnMap,
    manifest::DropPolicy,
    synced::SyncedTables,
};

/// One version of a chain, as rows see it.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The version.
    pub version: u32,
    /// Its tables and columns.
    pub map: &'a ColumnMap,
    /// Which of them exchange rows, and how.
    pub synced: &'a SyncedTables,
}

/// The way from one version to another, up or down.
#[derive(Clone, Debug)]
pub struct Lens<'a> {
    from: At<'a>,
    to: At<'a>,
    /// What each version in between did, the lowest first: those after the lower version, up to the higher one.
    between: &'a [Vec<TableCarry>],
}

/// A row on the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lensed<'a, V> {
    /// It has a place there.
    Row {
        /// What its table is called there.
        table: &'a str,
        /// Its values by the names of there.
        values: Vec<(&'a str, V)>,
        /// Values that have no column there.
        left: Vec<Left<V>>,
        /// Ids of the columns of there that the row's own version does not have: absent, which is not NULL. They get their
        /// default, or what the migration's steps compute.
        absent: Vec<u32>,
    },
    /// Its table is not there: it is gone by then, or not yet made. Parts of it may have moved.
    NoTable {
        /// Every value, with where it went.
        left: Vec<Left<V>>,
    },
    /// What the older side writes of this table cannot be told in the newer one's terms, or the reverse.
    TooOld {
        /// The oldest version that can.
        min_schema: u32,
    },
}

/// A value without a column on the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left<V> {
    /// Its column's id in the version that it comes from.
    pub column: u32,
    /// The value.
    pub value: V,
    /// Why.
    pub why: Why,
}

/// Why a value has no column on the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The column went, and its unsent values as this says.
    Dropped(DropPolicy),
    /// It goes on in other columns, as something else: split, merged, filled anew, moved. Only those that are there.
    Moved(Vec<Place>),
    /// The column came later.
    NotYet,
    /// No version in between knows the column.
    Unknown,
}

/// A column by ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Id of the table.
    pub table: u32,
    /// Id of the column.
    pub column: u32,
}

impl<'a> Lens<'a> {
    /// The way from `from` to `to`. `between`: what each version after the lower of the two did, up to the higher one, in
    /// ascending order ([`crate::carry::by_id`]).
    ///
    /// # Panics
    /// Where `between` has not exactly one entry for each of those versions.
    pub fn new(from: At<'a>, to: At<'a>, between: &'a [Vec<TableCarry>]) -> Self {
        assert_eq!(between.len(), from.version.abs_diff(to.version) as usize, "one entry for each version in between");
        Self { from, to, between }
    }

    /// Brings one row, or a part of one, over: `table` and the values' columns by their ids at `from`. No value is lost: each
    /// comes back under a name, or in `left`, in the order in which they came.
    pub fn row<V>(&self, table: u32, values: impl IntoIterator<Item = (u32, V)>) -> Lensed<'a, V> {
        let least = [self.from, self.to].iter().filter_map(|at| at.synced.table(table)).map(|s| s.min_schema).max().unwrap_or(0);
        if self.from.version.min(self.to.version) < least && self.from.version != self.to.version {
            return Lensed::TooOld { min_schema: least };
        }
        let there = self.to.map.table_by_id(table);
        let (mut named, mut left) = (Vec::new(), Vec::new());
        for (column, value) in values {
            match there.and_then(|t| t.column_by_id(column)) {
                Some(column) => named.push((column.name.as_str(), value)),
                None => left.push(Left { column, value, why: self.why(Place { table, column }) }),
            }
        }
        let Some(there) = there else { return Lensed::NoTable { left } };
        let here = self.from.map.table_by_id(table);
        let absent = there.columns.iter().map(|c| c.id).filter(|id| here.and_then(|t| t.column_by_id(*id)).is_none()).collect();
        Lensed::Row { table: &there.name, values: named, left, absent }
    }

    /// Where the value of a column went that the other side has not got.
    fn why(&self, column: Place) -> Why {
        let known = |at: &At<'_>, place: &Place| at.map.table_by_id(place.table).is_some_and(|t| t.column_by_id(place.column).is_some());
        if !known(&self.from, &column) {
            return Why::Unknown;
        }
        let up = self.from.version < self.to.version;
        let mut places = vec![column];
        let mut dropped = None;
        let mut moved = false;
        let steps: Box<dyn Iterator<Item = &Vec<TableCarry>>> = if up { Box::new(self.between.iter()) } else { Box::new(self.between.iter().rev()) };
        for tables in steps {
            let mut next = Vec::new();
            for place in places {
                let ends: Vec<Place> = if up { forward(tables, place) } else { back(tables, place) };
                if ends.is_empty() {
                    dropped = dropped.or_else(|| fate(tables, place).filter(|_| up));
                    next.push(place);
                } else {
                    moved = true;
                    next.extend(ends);
                }
            }
            next.sort_unstable();
            next.dedup();
            places = next;
        }
        places.retain(|place| known(&self.to, place));
        match (places.is_empty(), dropped) {
            (false, _) if moved => Why::Moved(places),
            (_, Some(policy)) => Why::Dropped(policy),
            (_, None) if up => Why::Unknown,
            (_, None) => Why::NotYet,
        }
    }
}

fn forward(tables: &[TableCarry], place: Place) -> Vec<Place> {
    let moves = tables.iter().filter(|t| t.table == place.table).flat_map(|t| &t.moves);
    moves.filter(|m| m.from == place.column).map(|m| Place { table: m.table, column: m.column }).collect()
}

fn back(tables: &[TableCarry], place: Place) -> Vec<Place> {
    let into = |m: &&Move| m.table == place.table && m.column == place.column;
    tables.iter().flat_map(|t| t.moves.iter().filter(into).map(|m| Place { table: t.table, column: m.from })).collect()
}

fn fate(tables: &[TableCarry], place: Place) -> Option<DropPolicy> {
    let table = tables.iter().find(|t| t.table == place.table)?;
    table.gone.or_else(|| table.drops.iter().find(|(column, _)| *column == place.column).map(|(_, policy)| *policy))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        carry::by_id,
        ledger::{ColumnChange, Ledger, Same, Shape},
        manifest::Manifest,
    };

    /// Four versions: as made; first renamed and name split; street moved to a table of its own, zip dropped; the table
    /// renamed, and edits before version 4 cannot be taken.
    struct Story {
        maps: Vec<ColumnMap>,
        synced: Vec<SyncedTables>,
        carries: Vec<Vec<TableCarry>>,
    }

    fn story() -> Story {
        let map = |json: &str| -> ColumnMap { serde_json::from_str(json).unwrap() };
        let maps = vec![
            map(r#"[[1,"person",[[1,"id"],[2,"first"],[3,"name"],[4,"street"],[5,"zip"]]]]"#),
            map(r#"[[1,"person",[[1,"id"],[2,"given"],[4,"street"],[5,"zip"],[6,"family"],[7,"suffix"]]]]"#),
            map(r#"[[1,"person",[[1,"id"],[2,"given"],[6,"family"],[7,"suffix"]]],[2,"place",[[1,"person"],[2,"road"]]]]"#),
            map(r#"[[1,"people",[[1,"id"],[2,"given"],[6,"family"],[7,"suffix"]]],[2,"place",[[1,"person"],[2,"road"]]]]"#),
        ];
        let manifests = [
            "[[carry]]\ntable='person'\nrename={first='given'}\nsplit={name=['family','suffix']}\n",
            "[[carry]]\ntable='person'\ndrop={zip='discard'}\n[carry.into.place]\nkey={person='id'}\ncolumns={street='road'}\n",
            "[[carry]]\ntable='person'\nto='people'\n",
        ];
        let carries = manifests
            .iter()
            .zip(maps.windows(2))
            .map(|(toml, pair)| by_id(&pair[0], &pair[1], &ColumnChange::default(), &Manifest::parse(toml).unwrap().carry).unwrap())
            .collect();
        let synced = (1..=4).map(|version: u32| {
            let min = if version == 4 { r#","min_schema":4"# } else { "" };
            let change = format!(r#"{{"tables":[{{"table":1,"direction":"both","conflict":"merge","key":[[1,"binary"]]{min}}}]}}"#);
            let mut synced = SyncedTables::default();
            synced.apply(&serde_json::from_str(&change).unwrap(), |id| maps[version as usize - 1].table_by_id(id)).unwrap();
            synced
        });
        let synced = synced.collect();
        Story { maps, synced, carries }
    }

    impl Story {
        fn lens(&self, from: u32, to: u32) -> Lens<'_> {
            let at = |version: u32| At { version, map: &self.maps[version as usize - 1], synced: &self.synced[version as usize - 1] };
            let (low, high) = (from.min(to) as usize, from.max(to) as usize);
            Lens::new(at(from), at(to), &self.carries[low - 1..high - 1])
        }
    }

    fn left(column: u32, value: &'static str, why: Why) -> Left<&'static str> {
        Left { column, value, why }
    }

    #[test]
    fn a_row_goes_up_by_the_names_of_there_and_what_has_none_says_where_it_went() {
        let story = story();
        let place = |table: u32, column: u32| Place { table, column };
        assert_eq!(
            story.lens(1, 3).row(1, [(1, "1"), (2, "Ada"), (3, "King jr"), (4, "Road 1"), (5, "123"), (9, "?")]),
            Lensed::Row {
                table: "person",
                values: vec![("id", "1"), ("given", "Ada")],
                left: vec![
                    left(3, "King jr", Why::Moved(vec![place(1, 6), place(1, 7)])),
                    left(4, "Road 1", Why::Moved(vec![place(2, 2)])),
                    left(5, "123", Why::Dropped(DropPolicy::Discard)),
                    left(9, "?", Why::Unknown),
                ],
                absent: vec![6, 7],
            }
        );
    }

    #[test]
    fn a_row_goes_down_by_the_names_of_there_and_what_came_later_is_left() {
        let story = story();
        assert_eq!(
            story.lens(2, 1).row(1, [(2, "Ada"), (6, "King")]),
            Lensed::Row {
                table: "person",
                values: vec![("first", "Ada")],
                left: vec![left(6, "King", Why::Moved(vec![Place { table: 1, column: 3 }]))],
                absent: vec![3],
            }
        );
        let down = story.lens(3, 1).row(2, [(1, "1"), (2, "Road 1")]);
        assert_eq!(
            down,
            Lensed::NoTable { left: vec![left(1, "1", Why::NotYet), left(2, "Road 1", Why::Moved(vec![Place { table: 1, column: 4 }]))] }
        );
    }

    #[test]
    fn what_cannot_be_told_in_the_other_versions_terms_says_so() {
        let story = story();
        assert_eq!(story.lens(3, 4).row(1, [(2, "Ada")]), Lensed::TooOld { min_schema: 4 });
        assert_eq!(story.lens(4, 2).row(1, [(2, "Ada")]), Lensed::TooOld { min_schema: 4 });
        assert!(matches!(story.lens(4, 4).row(1, [(2, "Ada")]), Lensed::Row { table: "people", .. }));
        // Only that table's rows.
        assert!(matches!(story.lens(3, 4).row(2, [(2, "Road 1")]), Lensed::Row { table: "place", .. }));
    }

    proptest! {
        #[test]
        fn no_value_is_lost_and_what_stays_comes_back_as_it_was(
            chain in prop::collection::vec((prop::sample::subsequence(vec!["a", "b", "c", "d", "e"], 1..=5), 0usize..5, 0usize..5), 2..8),
            ends in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        ) {
            let mut ledger = Ledger::default();
            let (mut maps, mut carries) = (Vec::new(), Vec::new());
            for (columns, from, to) in &chain {
                let before = ledger.map();
                let shape = Shape { name: "t".to_owned(), columns: columns.iter().map(|c| (*c).to_owned()).collect(), key: Vec::new() };
                // Sometimes one column goes on under another name.
                let old = before.tables.first().and_then(|t| t.columns.get(*from)).map(|c| c.id);
                let mut same = Same::default();
                if let (Some(id), Some(name)) = (old, columns.get(*to)) {
                    same.columns.insert(("t".to_owned(), (*name).to_owned()), Some(id));
                }
                let change = ledger.next(&[shape], &same).unwrap();
                ledger.apply(&change).unwrap();
                carries.push(by_id(&before, &ledger.map(), &change, &[]).unwrap());
                maps.push(ledger.map());
            }
            let synced = SyncedTables::default();
            let at = |index: usize| At { version: u32::try_from(index + 1).unwrap(), map: &maps[index], synced: &synced };
            let (a, b) = (ends.0.index(maps.len()), ends.1.index(maps.len()));
            let between = &carries[a.min(b) + 1..=a.max(b)];
            let row: Vec<(u32, String)> = maps[a].tables[0].columns.iter().map(|c| (c.id, c.name.clone())).collect();
            let Lensed::Row { values, left, absent, .. } = Lens::new(at(a), at(b), between).row(1, row.clone()) else { panic!("the table stays") };
            prop_assert_eq!(values.len() + left.len(), row.len());
            prop_assert_eq!(values.len() + absent.len(), maps[b].tables[0].columns.len());
            let right = |l: &Left<String>| if a < b { matches!(l.why, Why::Dropped(_)) } else { l.why == Why::NotYet };
            prop_assert!(left.iter().all(right));
            let there: Vec<(u32, String)> = values.into_iter().map(|(name, v)| (maps[b].tables[0].column(name).unwrap().id, v)).collect();
            let stayed = there.len();
            let Lensed::Row { values, left, .. } = Lens::new(at(b), at(a), between).row(1, there) else { panic!("the table stays") };
            prop_assert_eq!((values.len(), left.len()), (stayed, 0));
            // The value is the name that the column had here.
            prop_assert!(values.iter().all(|(name, value)| name == value));
        }
    }
}
