//! What a migration means for edits that are not sent yet, up or down: where each one goes on, or what becomes of it. Pure.
//!
//! A dirty column that is still there stays dirty: ids do not change with names. One that goes is carried to where its
//! value goes on, with its base, its stamp and whether it was sent, or it is archived, discarded or waited for. Nothing
//! here makes an edit of what a migration computed: a new column is dirty only where its source was.

use std::collections::{BTreeMap, BTreeSet};

use whimbrel_shared::{
    carry::TableCarry,
    columns::ColumnMap,
    lens::Place,
    manifest::{Direction, DropPolicy},
    row_schema::RowSchema,
    sql::quote,
    synced::{SyncChange, SyncedTables},
};

use crate::{
    store::outbox::{Deed, Edit, Entry, Recorded, Sent},
    sync::{settle::Flat, shape::Collation},
};

/// Which way a passage goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To a later version.
    Up,
    /// To an earlier one.
    Down,
}

/// The passage of a file from one version to its neighbour, as far as unsent edits are concerned.
#[derive(Clone, Debug)]
pub struct Passage {
    /// The version that it leaves.
    pub from: u32,
    /// Which way.
    pub way: Way,
    /// Tables and columns of the version that it leaves.
    pub before: ColumnMap,
    /// Tables and columns of the version that it comes to.
    pub after: ColumnMap,
    /// Which tables exchange rows in the version that it leaves.
    pub synced_before: SyncedTables,
    /// The same in the one that it comes to.
    pub synced_after: SyncedTables,
    /// Where values go on in another column.
    moves: BTreeMap<Place, BTreeSet<Place>>,
    /// What becomes of edits of columns that go on nowhere.
    fates: BTreeMap<Place, DropPolicy>,
    /// Tables that exchange rows no more, and what becomes of their edits.
    ends: BTreeMap<u32, DropPolicy>,
    /// How rows get new keys.
    pub keys: Vec<Rekey>,
}

/// How rows of one table get the keys of another, or new ones of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rekey {
    /// The table that has the rows.
    pub from: u32,
    /// The table in which they, or parts of them, are afterwards.
    pub into: u32,
    /// Expressions over a row, for each column of the new key in its order.
    pub values: Vec<String>,
    /// How the new key's columns are compared.
    pub collations: Vec<Collation>,
    /// Whether the expressions are over the row as it is afterwards, and give the key that it had: the way down.
    pub backwards: bool,
}

/// How far a migration is when edits are carried over.
#[derive(Clone, Copy, Debug)]
pub enum Reach<'a> {
    /// All of it is done.
    Whole,
    /// The file now has what this map says, and more is to come: what is still there stays where it is.
    Partly(&'a ColumnMap),
}

/// What becomes of one row's entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// What still waits of the row itself.
    pub stays: Option<Entry>,
    /// What waits of its parts in other tables.
    pub parts: Vec<(u32, Entry)>,
}

impl Passage {
    /// Between neighbours of a chain: `lower` and `upper` are what it knows of rows at them, `carries` and `sync` what the
    /// upper one does. `None`: one of them exchanges no rows at all.
    pub fn new(way: Way, version: u32, lower: &RowSchema, upper: &RowSchema, carries: &[TableCarry], sync: &SyncChange) -> Option<Self> {
        let (low, high) = (lower.map().ok()?, upper.map().ok()?);
        let (before, after, synced_before, synced_after) = match way {
            Way::Up => (low, high, lower.synced().clone(), upper.synced().clone()),
            Way::Down => (high, low, upper.synced().clone(), lower.synced().clone()),
        };
        let from = if way == Way::Up { version - 1 } else { version };
        let nothing = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (moves, fates, ends) = nothing;
        let mut passage = Self { from, way, before, after, synced_before, synced_after, moves, fates, ends, keys: Vec::new() };
        passage.ends(carries, sync);
        for carry in carries {
            passage.carry(carry);
        }
        Some(passage)
    }

    /// Whether rows of a table are sent from here on.
    pub fn is_sent(&self, table: u32) -> bool {
        sends(&self.synced_after, table) && self.after.table_by_id(table).is_some()
    }

    /// Where an edit of a column goes on. Empty: nowhere, and [`Self::fate`] says what becomes of it.
    pub fn places(&self, column: Place, reach: Reach<'_>) -> Vec<Place> {
        let is_there = |place: Place| self.is_sent(place.table) && has(&self.after, place);
        let moves = self.moves.get(&column).into_iter().flatten().copied().filter(|place| is_there(*place));
        let mut places: Vec<Place> = match reach {
            Reach::Partly(now) if has(now, column) => return vec![column],
            Reach::Partly(_) | Reach::Whole => std::iter::once(column).filter(|c| is_there(*c)).chain(moves).collect(),
        };
        // A part whose key cannot be told is no place.
        places.retain(|place| place.table == column.table || self.keys.iter().any(|k| k.from == column.table && k.into == place.table));
        places
    }

    /// What becomes of an edit of a column that goes on nowhere.
    pub fn fate(&self, column: Place) -> DropPolicy {
        let table = self.ends.get(&column.table).copied();
        table.or_else(|| self.fates.get(&column).copied()).unwrap_or(DropPolicy::Archive)
    }

    /// Whether the table's edits end here, and how; none: it goes on.
    pub fn end(&self, table: u32, reach: Reach<'_>) -> Option<DropPolicy> {
        let still = matches!(reach, Reach::Partly(now) if now.table_by_id(table).is_some());
        self.ends.get(&table).copied().filter(|_| !still)
    }

    /// What becomes of an entry of `table`.
    pub fn carried(&self, table: u32, entry: &Entry, reach: Reach<'_>) -> Carried {
        let ends = self.end(table, reach).is_some();
        let others: BTreeSet<u32> = self.keys.iter().filter(|k| k.from == table && k.into != table).map(|k| k.into).collect();
        if entry.deed == Deed::Delete {
            let part = |into: &u32| match self.way {
                // The row was taken apart, and its parts are gone with it.
                Way::Up => Some((*into, entry.clone())),
                // The row is whole again, and what this part of it had is gone.
                Way::Down => {
                    let columns = self.moves.iter().filter(|(from, _)| from.table == table).flat_map(|(_, to)| to);
                    let columns: BTreeSet<u32> = columns.filter(|to| to.table == *into && has(&self.after, **to)).map(|to| to.column).collect();
                    let edit = Edit { columns: columns.into_iter().collect(), ..entry.edits[0].clone() };
                    (!edit.columns.is_empty()).then(|| (*into, Entry { deed: Deed::Edit, edits: vec![edit] }))
                }
            };
            let gone = |into: &&u32| matches!(reach, Reach::Whole) || ends && self.is_sent(**into);
            return Carried { stays: (!ends).then(|| entry.clone()), parts: others.iter().filter(gone).filter_map(part).collect() };
        }
        let mut columns: BTreeMap<u32, Vec<(u32, Edit)>> = BTreeMap::new();
        for edit in &entry.edits {
            for column in &edit.columns {
                for place in self.places(Place { table, column: *column }, reach) {
                    columns.entry(place.table).or_default().push((place.column, Edit { columns: Vec::new(), ..edit.clone() }));
                }
            }
        }
        let mut stays = columns.remove(&table).map(|c| Entry { deed: entry.deed, edits: merged(c) });
        if stays.is_none() && !ends && entry.deed == Deed::Insert {
            // The row is still to be sent, if only its key is left.
            let last = entry.edits.iter().max_by_key(|e| e.stamp.seq).expect("an entry has an edit");
            stays = Some(Entry { deed: Deed::Insert, edits: vec![Edit { columns: Vec::new(), ..last.clone() }] });
        }
        let parts = columns.into_iter().map(|(table, c)| (table, Entry { deed: entry.deed, edits: merged(c) })).collect();
        Carried { stays: stays.filter(|_| !ends), parts }
    }

    fn ends(&mut self, carries: &[TableCarry], sync: &SyncChange) {
        let sent = self.synced_before.0.keys().copied().filter(|id| sends(&self.synced_before, *id) && !self.is_sent(*id));
        for table in sent.collect::<Vec<_>>() {
            let said = sync.stopped.iter().find(|(id, _)| *id == table).map(|(_, policy)| *policy);
            let gone = carries.iter().find(|c| c.table == table).and_then(|c| c.gone);
            let policy = said.or(gone).filter(|_| self.way == Way::Up).unwrap_or(DropPolicy::Archive);
            self.ends.insert(table, policy);
        }
    }

    fn carry(&mut self, carry: &TableCarry) {
        let table = carry.table;
        for one in &carry.moves {
            let (low, high) = (Place { table, column: one.from }, Place { table: one.table, column: one.column });
            let (from, to) = if self.way == Way::Up { (low, high) } else { (high, low) };
            self.moves.entry(from).or_default().insert(to);
        }
        if self.way == Way::Up {
            self.fates.extend(carry.drops.iter().map(|(column, policy)| (Place { table, column: *column }, *policy)));
        }
        let by_id = |expressions: &[(u32, String)], column: u32| expressions.iter().find(|(id, _)| *id == column).map(|(_, e)| e.clone());
        if !carry.key.is_empty() {
            // Over the row of the lower version, with the names of there, in the order of the upper one's key.
            let (lower, upper) = self.sides();
            let name = |id: u32| lower.0.table_by_id(table).and_then(|t| t.column_by_id(id)).map(|c| quote(&c.name));
            let key = upper.1.table(table).map(|s| s.key.clone()).unwrap_or_default();
            let values: Option<Vec<String>> = key.iter().map(|k| by_id(&carry.key, k.0).or_else(|| name(k.0))).collect();
            let collations = self.synced_after.table(table).map(|s| s.key.iter().map(|k| collation(k.1)).collect());
            if let (Some(values), Some(collations)) = (values.filter(|v| !v.is_empty()), collations) {
                self.keys.push(Rekey { from: table, into: table, values, collations, backwards: self.way == Way::Down });
            }
        }
        for part in &carry.into {
            let (from, into) = if self.way == Way::Up { (table, part.table) } else { (part.table, table) };
            let pair = |(to, from): &(u32, u32)| if self.way == Way::Up { (*to, *from) } else { (*from, *to) };
            let pairs: Vec<(u32, u32)> = part.key.iter().map(pair).collect();
            let Some(target) = self.synced_after.table(into) else { continue };
            let name = |id: u32| self.before.table_by_id(from).and_then(|t| t.column_by_id(id)).map(|c| quote(&c.name));
            let value = |key: u32| pairs.iter().find(|(to, _)| *to == key).and_then(|(_, from)| name(*from));
            if let Some(values) = target.key.iter().map(|k| value(k.0)).collect::<Option<Vec<_>>>() {
                let collations = target.key.iter().map(|k| collation(k.1)).collect();
                self.keys.push(Rekey { from, into, values, collations, backwards: false });
            }
        }
    }

    /// Map and settings of the lower version, and of the upper one.
    fn sides(&self) -> ((&ColumnMap, &SyncedTables), (&ColumnMap, &SyncedTables)) {
        let (before, after) = ((&self.before, &self.synced_before), (&self.after, &self.synced_after));
        if self.way == Way::Up { (before, after) } else { (after, before) }
    }
}

/// A part of a row's entry joins what waits of its target already. `recorded`: what the server has of the target.
pub fn joined(there: Option<Entry>, part: Entry, recorded: Option<&Recorded>) -> Option<Entry> {
    let known = recorded.map(|r| r.version);
    match (&there, part.deed) {
        (Some(Entry { deed: Deed::Delete, .. }), _) => return there,
        // What was never sent of a row that nobody knows of vanishes with it.
        (_, Deed::Delete) => return (known.is_some() || part.was_sent() || there.as_ref().is_some_and(Entry::was_sent)).then_some(part),
        (_, Deed::Insert | Deed::Edit) => {}
    }
    let deed = match (&there, known) {
        (Some(there), _) => there.deed,
        (None, Some(_)) => Deed::Edit,
        (None, None) => Deed::Insert,
    };
    // Of a row that the server has, what was made with it has a base.
    let new = part.deed == Deed::Insert;
    let based = |(id, edit): (u32, Edit)| match deed {
        Deed::Edit if new => (id, Edit { base: edit.base.or(known), ..edit }),
        Deed::Edit => (id, edit),
        Deed::Insert | Deed::Delete => (id, Edit { base: None, ..edit }),
    };
    let whole = part.edits.iter().all(|e| e.columns.is_empty()).then(|| part.edits.clone());
    let columns: Vec<_> = Flat::of(there.map(|t| t.edits).unwrap_or_default()).0.into_iter().chain(Flat::of(part.edits).0).map(based).collect();
    let edits = merged(columns);
    match (edits.is_empty(), whole) {
        (false, _) => Some(Entry { deed, edits }),
        (true, Some(edits)) if deed == Deed::Insert => Some(Entry { deed, edits }),
        (true, _) => None,
    }
}

/// Edits by column; where several come to one, it has the latest stamp, the oldest base, and was sent if one was.
fn merged(mut columns: Vec<(u32, Edit)>) -> Vec<Edit> {
    columns.sort_by_key(|(id, edit)| (*id, edit.stamp.seq));
    let mut out: Vec<(u32, Edit)> = Vec::new();
    for (id, edit) in columns {
        match out.last_mut().filter(|(last, _)| *last == id) {
            Some((_, before)) => {
                let sent = match (before.sent, edit.sent) {
                    (a, b) if a == b => a,
                    (Sent::Never, Sent::Never) => Sent::Never,
                    (Sent::Never | Sent::As(_) | Sent::EditedSince, _) => Sent::EditedSince,
                };
                *before = Edit { base: before.base.min(edit.base), sent, derived: before.derived && edit.derived, ..edit };
            }
            None => out.push((id, edit)),
        }
    }
    Flat(out).into_edits()
}

pub(super) fn sends(synced: &SyncedTables, table: u32) -> bool {
    synced.table(table).is_some_and(|s| matches!(s.direction, Direction::Both | Direction::Push))
}

fn has(map: &ColumnMap, place: Place) -> bool {
    map.table_by_id(place.table).is_some_and(|t| t.column_by_id(place.column).is_some())
}

/// The same collation, as our own tables write it.
pub fn collation(signed: whimbrel_shared::synced::Collation) -> Collation {
    use whimbrel_shared::synced::Collation as Signed;
    match signed {
        Signed::Binary => Collation::Binary,
        Signed::Nocase => Collation::NoCase,
        Signed::Rtrim => Collation::RTrim,
    }
}

#[cfg(test)]
mod tests {
    use whimbrel_shared::{ledger::ColumnChange, manifest::Manifest};

    use super::*;
    use crate::store::outbox::Stamp;

    /// From `a(1 id, 2 x, 3 y, 4 z)` to the map `after`, as `carry` says; all tables go both ways.
    fn passage(way: Way, after: &str, carry: &str) -> Passage {
        let map = |json: &str| -> ColumnMap { serde_json::from_str(json).unwrap() };
        let (low, high) = (map(r#"[[1,"a",[[1,"id"],[2,"x"],[3,"y"],[4,"z"]]]]"#), map(after));
        let rows = |map: &ColumnMap| {
            let synced = |id: u32| format!(r#"{{"table":{id},"direction":"both","conflict":"merge","key":[[1,"binary"]]}}"#);
            let tables: Vec<String> = map.tables.iter().map(|t| synced(t.id)).collect();
            let sync: SyncChange = serde_json::from_str(&format!(r#"{{"tables":[{}]}}"#, tables.join(","))).unwrap();
            let change: ColumnChange = serde_json::from_str(&format!(r#"{{"made":{}}}"#, serde_json::to_string(map).unwrap())).unwrap();
            let mut rows = RowSchema::default();
            rows.advance(1, Some(&change), &sync).unwrap();
            rows
        };
        let carries = whimbrel_shared::carry::by_id(&low, &high, &ColumnChange::default(), &Manifest::parse(carry).unwrap().carry).unwrap();
        Passage::new(way, 2, &rows(&low), &rows(&high), &carries, &SyncChange::default()).unwrap()
    }

    fn edit(seq: i64, base: Option<u64>, sent: Sent, columns: &[u32]) -> Edit {
        Edit { base, stamp: Stamp { wall_ms: seq * 10, boot: 1, seq }, sent, derived: false, columns: columns.to_vec() }
    }

    fn entry(deed: Deed, edits: &[Edit]) -> Entry {
        Entry { deed, edits: edits.to_vec() }
    }

    const SPLIT: &str = r#"[[1,"a",[[1,"id"],[3,"y"],[5,"p"],[6,"q"]]]]"#;
    const MERGED: &str = r#"[[1,"a",[[1,"id"],[4,"z"],[7,"m"]]]]"#;
    const PARTS: &str = r#"[[1,"a",[[1,"id"],[2,"x"],[4,"z"]]],[2,"b",[[1,"a"],[2,"y"]]]]"#;

    #[test]
    fn an_edit_goes_on_in_every_place_of_its_value_and_nowhere_else() {
        let split = passage(Way::Up, SPLIT, "[[carry]]\ntable='a'\nsplit={x=['p','q']}\ndrop={z='discard'}");
        let before = entry(Deed::Edit, &[edit(3, Some(7), Sent::As(9), &[2]), edit(4, Some(8), Sent::Never, &[3, 4])]);
        let after = entry(Deed::Edit, &[edit(4, Some(8), Sent::Never, &[3]), edit(3, Some(7), Sent::As(9), &[5, 6])]);
        assert_eq!(split.carried(1, &before, Reach::Whole), Carried { stays: Some(after), parts: Vec::new() });
        assert_eq!(split.fate(Place { table: 1, column: 4 }), DropPolicy::Discard);
        // What a step left where it was stays there.
        assert_eq!(split.carried(1, &before, Reach::Partly(&split.before)).stays, Some(before));
        let only = entry(Deed::Edit, &[edit(3, Some(7), Sent::Never, &[4])]);
        assert_eq!(split.carried(1, &only, Reach::Whole), Carried::default());
        let new = entry(Deed::Insert, &[edit(3, None, Sent::Never, &[4])]);
        assert_eq!(split.carried(1, &new, Reach::Whole).stays, Some(entry(Deed::Insert, &[edit(3, None, Sent::Never, &[])])));
    }

    #[test]
    fn where_edits_become_one_it_has_the_latest_stamp_the_oldest_base_and_was_sent_if_one_was() {
        let merge = passage(Way::Up, MERGED, "[[carry]]\ntable='a'\nmerge={m=['x','y']}");
        let check = |x: Edit, y: Edit, m: Edit| {
            let carried = merge.carried(1, &entry(Deed::Edit, &[x, y]), Reach::Whole);
            assert_eq!(carried.stays, Some(entry(Deed::Edit, &[m])));
        };
        check(edit(5, Some(9), Sent::Never, &[2]), edit(4, Some(3), Sent::Never, &[3]), edit(5, Some(3), Sent::Never, &[7]));
        check(edit(4, Some(3), Sent::As(1), &[2]), edit(5, Some(9), Sent::Never, &[3]), edit(5, Some(3), Sent::EditedSince, &[7]));
        check(edit(4, None, Sent::As(1), &[2]), edit(5, Some(9), Sent::As(1), &[3]), edit(5, None, Sent::As(1), &[7]));
        // Back down, one edit is one of each source.
        let back = passage(Way::Down, MERGED, "[[carry]]\ntable='a'\nmerge={m=['x','y']}");
        let down = back.carried(1, &entry(Deed::Edit, &[edit(5, Some(3), Sent::Never, &[4, 7])]), Reach::Whole);
        assert_eq!(down.stays, Some(entry(Deed::Edit, &[edit(5, Some(3), Sent::Never, &[2, 3, 4])])));
    }

    #[test]
    fn a_part_takes_its_edits_along_and_a_deletion_is_one_of_both() {
        let carry = "[[carry]]\ntable='a'\n[carry.into.b]\nkey={a='id'}\ncolumns={y='y'}";
        let (up, down) = (passage(Way::Up, PARTS, carry), passage(Way::Down, PARTS, carry));
        let x = edit(1, Some(5), Sent::Never, &[2]);
        let carried = up.carried(1, &entry(Deed::Edit, &[x.clone(), edit(2, Some(6), Sent::Never, &[3])]), Reach::Whole);
        assert_eq!(
            (carried.stays, carried.parts),
            (Some(entry(Deed::Edit, &[x])), vec![(2, entry(Deed::Edit, &[edit(2, Some(6), Sent::Never, &[2])]))])
        );
        let gone = entry(Deed::Delete, &[edit(3, Some(6), Sent::Never, &[])]);
        assert_eq!(up.carried(1, &gone, Reach::Whole), Carried { stays: Some(gone.clone()), parts: vec![(2, gone.clone())] });
        // Below, what was in the part is in the row: NULL now.
        assert_eq!(down.carried(2, &gone, Reach::Whole).parts, [(1, entry(Deed::Edit, &[edit(3, Some(6), Sent::Never, &[3])]))]);
        // A part whose key is not said has no place.
        let unsaid = passage(Way::Up, PARTS, "[[carry]]\ntable='a'\n");
        assert_eq!(unsaid.places(Place { table: 1, column: 3 }, Reach::Whole), []);
    }

    #[test]
    fn what_joins_an_entry_that_is_there_is_part_of_it() {
        let known = Recorded { version: 4, ..Recorded::default() };
        let part = entry(Deed::Insert, &[edit(2, None, Sent::Never, &[3])]);
        assert_eq!(joined(None, part.clone(), Some(&known)), Some(entry(Deed::Edit, &[edit(2, Some(4), Sent::Never, &[3])])));
        assert_eq!(joined(None, part.clone(), None), Some(part.clone()));
        let there = entry(Deed::Insert, &[edit(1, None, Sent::Never, &[2])]);
        assert_eq!(joined(Some(there), part.clone(), None).unwrap().edits.len(), 2);
        let gone = entry(Deed::Delete, &[edit(9, Some(4), Sent::Never, &[])]);
        assert_eq!(joined(Some(gone.clone()), part.clone(), Some(&known)), Some(gone.clone()));
        assert_eq!((joined(None, gone.clone(), None), joined(Some(part), gone.clone(), Some(&known))), (None, Some(gone)));
    }

    #[test]
    fn a_table_that_goes_ends_and_a_new_key_is_computed_in_the_order_of_the_key() {
        let gone = passage(Way::Up, r#"[[2,"b",[[1,"id"]]]]"#, "[[carry]]\ntable='a'\ngone='block'");
        assert_eq!((gone.end(1, Reach::Whole), gone.end(1, Reach::Partly(&gone.before))), (Some(DropPolicy::Block), None));
        assert_eq!(gone.carried(1, &entry(Deed::Edit, &[edit(1, Some(1), Sent::Never, &[2])]), Reach::Whole), Carried::default());
        let key = passage(Way::Up, r#"[[1,"a",[[1,"id"],[2,"x"],[3,"y"],[4,"z"]]]]"#, "[[carry]]\ntable='a'\nkey={id='x || y'}");
        let values: Vec<_> = key.keys.iter().map(|k| (k.from, k.into, k.values.clone(), k.backwards)).collect();
        assert_eq!(values, [(1, 1, vec!["x || y".to_owned()], false)]);
        assert!(passage(Way::Down, r#"[[1,"a",[[1,"id"],[2,"x"],[3,"y"],[4,"z"]]]]"#, "[[carry]]\ntable='a'\nkey={id='x || y'}").keys[0].backwards);
    }
}
