//! Column ids and the settings of rows, version by version: what a rehearsal found of a migration, and what follows from it
//! for whatever was published before. The rules are `shared`'s; here are the facts they need.

pub mod own_row;
pub(super) mod read;
pub(super) mod seen;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use whimbrel_shared::{
    carry::{self, CarryError},
    columns::{Column, ColumnMap, TableColumns},
    ledger::{BadChange, ColumnChange, Same},
    lift::{self, Lift},
    manifest::{Carry, DropPolicy, Manifest, MinSchema, Step},
    row_schema::RowSchema,
    synced::{self, SyncChange, SyncError},
};

use self::{own_row::Filled, read::Tables};

/// What a rehearsal found out about one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The tables that it leaves. Shared with the versions beside it that do not change them.
    pub tables: Arc<Tables>,
    /// What its statements were seen to do to names.
    pub seen: carry::Seen,
    /// What its backfills fill.
    pub filled: Vec<Filled>,
    /// Expressions of `carry.key` that depend on more than their row: table, column and what SQLite said.
    pub bad_keys: Vec<(String, String, String)>,
}

/// What is wrong with a version's ids or settings of rows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A `[[carry]]` does not fit, or is needed.
    #[error(transparent)]
    Carry(#[from] CarryError),
    /// A `[sync.TABLE]` cannot be.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// A backfill, or a key's expression, of a table that exchanges rows depends on more than its row.
    #[error("{table} exchanges rows, and {what} cannot be computed again at the server: {why}")]
    NotOwnRow {
        /// The table.
        table: String,
        /// "its backfill", or the key's expression.
        what: String,
        /// What SQLite said.
        why: String,
    },
    /// A backfill changes keys.
    #[error("{table} exchanges rows, and its backfill changes {column}, by which they are told apart")]
    KeyFilled {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// Nothing can bring rows of older versions over.
    #[error("{table} exchanges rows, and nothing says how a row that an older version sends gets its {columns}")]
    NoWayUp {
        /// The table.
        table: String,
        /// The columns.
        columns: String,
    },
    /// A column that has the name of another one before or after, where a backfill names it.
    #[error("{table} exchanges rows, and its backfill names columns whose names change hands in the same migration")]
    Unclear {
        /// The table.
        table: String,
    },
    /// The ids cannot be given.
    #[error("ids cannot be given: {why}")]
    Ids {
        /// Why.
        why: String,
    },
    /// The chain has no ids at an earlier version.
    #[error("{why}")]
    NoIds {
        /// Why.
        why: String,
    },
}

impl Problem {
    /// What can be done.
    pub fn remedy(&self) -> String {
        match self {
            Self::Carry(error) => error.remedy(),
            Self::Sync(error) => error.remedy(),
            Self::NotOwnRow { .. } => "compute from the row's own columns only, with functions that always give the same".to_owned(),
            Self::KeyFilled { .. } => "let a `key` of its [[carry]] say how an old key becomes a new one".to_owned(),
            Self::NoWayUp { table, .. } => {
                format!("fill them in a `backfill` step, which is repeated for such rows; or say min_schema = \"this\" in [sync.{table}]")
            }
            Self::Unclear { .. } => "rename in one migration, and fill in the next".to_owned(),
            Self::Ids { .. } => "give the table or column a shorter or another name".to_owned(),
            Self::NoIds { .. } => "take [sync] out, or publish the chain anew under another app's name".to_owned(),
        }
    }
}

/// What a version does to ids and to the settings of rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// To ids; none where the chain has none before it.
    pub columns: Option<ColumnChange>,
    /// To settings.
    pub sync: SyncChange,
    /// How its backfills are repeated for rows of older versions.
    pub lifts: Vec<Lift>,
}

/// What is true of a version, though nobody has to do anything about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A column gets another id because a backfill fills it: table, column.
    Renewed(String, String),
    /// An index whose uniqueness only the device can see to: table, index, why.
    NotAtServer(String, String, &'static str),
    /// A key column that may be NULL: table, column.
    NullableKey(String, String),
}

impl Found {
    /// Decides what `version`, with this `manifest`, does after `before`. The same facts always give the same ids.
    pub fn decide(&self, before: &RowSchema, version: u32, manifest: &Manifest) -> Result<(Rows, Vec<Note>), Vec<Problem>> {
        let ledger = match before.ledger() {
            Ok(ledger) => ledger,
            Err(_) if manifest.sync.is_empty() => return Ok((Rows::default(), Vec::new())),
            Err(error) => return Err(vec![Problem::NoIds { why: error.to_string() }]),
        };
        let map = ledger.map();
        let key_of = |id: u32| before.synced().table(id).map(|s| s.key.iter().map(|c| c.0).collect::<Vec<u32>>());
        let there = carry::Before { map: &map, synced: &key_of };
        let wrong = |errors: Vec<CarryError>| errors.into_iter().map(Problem::from).collect::<Vec<_>>();
        let mut same = carry::same(there, &self.tables.shapes, &manifest.carry, &self.seen).map_err(wrong)?;
        let (mut problems, mut notes) = (Vec::new(), Vec::new());

        // Who is who, before anything is filled anew.
        let wrong_ids = |e: BadChange| vec![Problem::Ids { why: e.to_string() }];
        let give = |same: &Same| {
            let change = ledger.next(&self.tables.shapes, same).map_err(wrong_ids)?;
            let mut now = ledger.clone();
            now.apply(&change).map_err(wrong_ids)?;
            Ok::<_, Vec<Problem>>((change, now.map()))
        };
        let (mut change, mut after) = give(&same)?;
        self.fill(&map, &after, before, version, manifest, &mut same, &mut problems, &mut notes);
        if !same.renewed.is_empty() {
            (change, after) = give(&same)?;
        }
        problems.extend(self.ways_up(&map, &after, before, version, manifest));
        let lifts = self.lifts(&map, &after, before, &change, manifest, &mut problems);
        let gone = |id: u32| {
            let name = map.table_by_id(id).map(|t| t.name.as_str()).unwrap_or_default();
            said(&manifest.carry, name).and_then(|c| c.gone).unwrap_or(DropPolicy::Archive)
        };
        let asked = |t: &TableColumns| before.synced().table(t.id).is_some() || manifest.sync.keys().any(|name| name.eq_ignore_ascii_case(&t.name));
        let constraints = self.tables.constraints(after.tables.iter().filter(|t| asked(t)));
        match synced::next(before.synced(), version, &after, &manifest.sync, &gone, &constraints, &self.tables.others) {
            Ok(sync) if problems.is_empty() => {
                for table in &sync.tables {
                    let Some(columns) = after.table_by_id(table.table) else { continue };
                    self.tables.remarks(columns, &mut notes);
                }
                Ok((Rows { columns: Some(change), sync, lifts }, notes))
            }
            Ok(_) => Err(problems),
            Err(errors) => Err(problems.into_iter().chain(errors.into_iter().map(Problem::from)).collect()),
        }
    }

    /// What backfills and key expressions do to tables that exchange rows.
    #[expect(clippy::too_many_arguments, reason = "one pass over the facts, with one list for each kind of result")]
    fn fill(
        &self,
        map: &ColumnMap,
        after: &ColumnMap,
        before: &RowSchema,
        version: u32,
        manifest: &Manifest,
        same: &mut Same,
        problems: &mut Vec<Problem>,
        notes: &mut Vec<Note>,
    ) {
        for filled in &self.filled {
            // By its name at the time of the step, which may be the one before a rename or the one after it.
            let Some(table) = after.table(&filled.table).or_else(|| map.table(&filled.table)) else { continue };
            let (Some(settings), Some(now)) = (before.synced().table(table.id), after.table_by_id(table.id)) else { continue };
            for why in &filled.refused {
                problems.push(Problem::NotOwnRow { table: now.name.clone(), what: "its backfill".to_owned(), why: why.clone() });
            }
            let old = map.table_by_id(table.id);
            // A column too may have had another name at the time of the step.
            let by_old_name = |name: &String| old.and_then(|t| t.column(name)).and_then(|c| now.column_by_id(c.id));
            let targets: BTreeMap<u32, &Column> =
                filled.columns.iter().flat_map(|name| [now.column(name), by_old_name(name)]).flatten().map(|c| (c.id, c)).collect();
            for column in targets.into_values() {
                // One that is new here is nobody's older value.
                if old.and_then(|t| t.column_by_id(column.id)).is_none() {
                    continue;
                }
                if settings.key.iter().any(|k| k.0 == column.id) {
                    problems.push(Problem::KeyFilled { table: now.name.clone(), column: column.name.clone() });
                } else if !from_here_on(manifest, &now.name, version) {
                    same.renewed.insert((now.name.to_ascii_lowercase(), column.name.to_ascii_lowercase()));
                    notes.push(Note::Renewed(now.name.clone(), column.name.clone()));
                }
            }
        }
        for (table, column, why) in &self.bad_keys {
            if map.table(table).is_some_and(|t| before.synced().table(t.id).is_some()) {
                let what = format!("the expression of its new key column {column}");
                problems.push(Problem::NotOwnRow { table: table.clone(), what, why: why.clone() });
            }
        }
    }

    /// Columns that a split or merge leaves for rows of older versions to get from nowhere, and keys that they do not have.
    fn ways_up(&self, map: &ColumnMap, after: &ColumnMap, before: &RowSchema, version: u32, manifest: &Manifest) -> Vec<Problem> {
        let mut problems = Vec::new();
        for carry in &manifest.carry {
            let Some(old) = map.table(&carry.table).filter(|t| before.synced().table(t.id).is_some()) else { continue };
            let Some(now) = after.table_by_id(old.id) else { continue };
            if from_here_on(manifest, &now.name, version) {
                continue;
            }
            let filled: BTreeSet<String> = self.filled_columns(&[&old.name, &now.name]);
            let targets = carry.split.values().flatten().chain(carry.merge.keys());
            let mut lacking: Vec<&str> = targets.filter(|c| !filled.contains(&c.to_ascii_lowercase())).map(String::as_str).collect();
            // A row that is deleted there is known here by a key that nothing computes any more.
            lacking.extend(carry.key.keys().map(String::as_str));
            // A backfill writes its own table only.
            lacking.extend(carry.into.iter().filter(|(_, part)| !part.columns.is_empty()).map(|(table, _)| table.as_str()));
            if !lacking.is_empty() {
                problems.push(Problem::NoWayUp { table: now.name.clone(), columns: lacking.join(", ") });
            }
        }
        problems
    }

    /// How each backfill of a table whose rows were exchanged before is repeated for one row.
    fn lifts(
        &self,
        map: &ColumnMap,
        after: &ColumnMap,
        before: &RowSchema,
        change: &ColumnChange,
        manifest: &Manifest,
        problems: &mut Vec<Problem>,
    ) -> Vec<Lift> {
        let steps = (1..).zip(&manifest.step).filter(|(_, step)| matches!(step, Step::Backfill(_)));
        let mut lifts = Vec::new();
        for ((step, _), filled) in steps.zip(&self.filled) {
            let Some(table) = after.table(&filled.table).or_else(|| map.table(&filled.table)) else { continue };
            let (Some(old), Some(new)) = (map.table_by_id(table.id), after.table_by_id(table.id)) else { continue };
            if before.synced().table(table.id).is_none() || !filled.refused.is_empty() {
                continue;
            }
            match lift::columns_at(&filled.names, old, new, &change.renewed) {
                Some(columns) => lifts.push(Lift { step, table: table.id, create: filled.create.clone(), columns }),
                None => problems.push(Problem::Unclear { table: new.name.clone() }),
            }
        }
        lifts
    }

    fn filled_columns(&self, tables: &[&str]) -> BTreeSet<String> {
        let of = |filled: &&Filled| tables.iter().any(|t| t.eq_ignore_ascii_case(&filled.table));
        self.filled.iter().filter(of).flat_map(|f| f.columns.iter().map(|c| c.to_ascii_lowercase())).collect()
    }

    /// The ids by names alone, for going on after a problem was told.
    pub fn by_name(&self, before: &RowSchema) -> Rows {
        let columns = before.ledger().ok().and_then(|ledger| ledger.next(&self.tables.shapes, &Same::default()).ok());
        let still = |id: u32| columns.as_ref().is_none_or(|c| !c.dropped.contains(&id) && !c.made.iter().any(|t| t.id == id));
        let stopped = before.synced().0.keys().filter(|id| !still(**id)).map(|id| (*id, DropPolicy::Archive)).collect();
        let sync = SyncChange { tables: Vec::new(), stopped };
        Rows { sync: if columns.is_some() { sync } else { SyncChange::default() }, columns, lifts: Vec::new() }
    }
}

/// Whether this version says of the table that older versions' edits of it cannot be taken.
fn from_here_on(manifest: &Manifest, table: &str, version: u32) -> bool {
    let sync = manifest.sync.iter().find(|(name, _)| name.eq_ignore_ascii_case(table)).map(|(_, sync)| sync);
    match sync.and_then(|s| s.min_schema) {
        Some(MinSchema::This) => true,
        Some(MinSchema::Version(least)) => least == version,
        None => false,
    }
}

fn said<'c>(carry: &'c [Carry], table: &str) -> Option<&'c Carry> {
    carry.iter().find(|c| c.table.eq_ignore_ascii_case(table))
}

/// Names of a table's columns by id, for whoever has a list of ids.
pub(super) fn id_of(table: &TableColumns, column: &str) -> Option<u32> {
    table.column(column).map(|c| c.id)
}

/// Kinds of things that are no tables with rows of their own, by name in ASCII lower case.
pub(super) type Others = BTreeMap<String, &'static str>;
