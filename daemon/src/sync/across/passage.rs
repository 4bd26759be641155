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
    // Of a row that the server has, an edit has a base.
    let based =
        |(id, edit): (u32, Edit)| (id, if deed == Deed::Edit { Edit { base: edit.base.or(known), ..edit } } else { Edit { base: None, ..edit } });
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
