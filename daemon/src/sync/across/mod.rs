//! Edits that are not sent yet across a migration, inside the migration's own transaction (DESIGN 8.5, docs/sync.md): the
//! journal is folded under the old schema, values that lose their place are archived, our triggers go; the steps run; what
//! waits and what is known of rows follows to its new columns, tables and keys, and triggers for the new schema come.
//! What the steps wrote is no edit: nobody noted it, and what was recorded of the rows they wrote is recorded anew.

mod chunk;
mod keys;
mod leave;
pub mod passage;
mod present;
mod rewritten;

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use whimbrel_shared::{columns::ColumnMap, lens::Place, manifest::DropPolicy, synced::SyncedTables};

pub use self::{
    chunk::Chunk,
    leave::{Waiting, waiting},
    passage::{Passage, Reach, Way},
};
use super::{
    capture::{self, Wanted},
    classify::Judged,
    error::SyncError,
    fold::{Boot, Origin, fold},
    shape::{Captured, Mode},
    sweep::sweep_some,
};
use crate::store::{
    archive, carried,
    journal::{self, SweepReason},
    key::Key,
    outbox::{Outbox, Recorded},
};

/// Keys that are held in memory at once.
const AT_ONCE: usize = 1_000;

/// What has to be known of a file between the two ends of a passage. It holds nothing open: where the transaction is
/// rolled back, it is of no further use.
#[derive(Debug)]
pub struct Begun {
    /// The tables as they were captured.
    tables: Vec<Captured>,
    /// The newest entry of the archive before anything of this passage.
    archived: i64,
    /// Where the rows of each table lay in the file.
    roots: BTreeMap<u32, i64>,
    /// The keys of the passage that were filled in, by their place.
    keys: BTreeSet<usize>,
    boot_ms: i64,
}

/// Says whether SQL that holds an expression of the migration's may be compiled: the migration's guard.
pub type Vet<'v> = dyn Fn(&str) -> Result<(), String> + 'v;

/// Begins the passage, in front of the steps, inside the migration's write transaction. `None`: the file captures nothing,
/// and nothing has to be done at its end. Fails with [`SyncError::Unsent`] where edits have to be waited for.
pub fn begin(connection: &Connection, passage: &Passage, boot: &Boot, now_ms: i64, vet: &Vet<'_>) -> Result<Option<Begun>, SyncError> {
    if connection.is_autocommit() {
        return Err(SyncError::NoTransaction { doing: "carrying edits across a migration" });
    }
    if !journal::is_there(connection)? {
        return Ok(None);
    }
    fold(connection, boot, Origin::App, now_ms, None)?;
    let tables = capture::captured(connection)?;
    // What a sweep would have found is looked for before it is gone.
    let leaving: BTreeSet<u32> = tables.iter().filter(|t| leave::leaves(passage, t)).map(|t| t.id).collect();
    let now = |at: &journal::Sweep| at.why != SweepReason::New || leaving.contains(&at.table);
    while sweep_some(connection, AT_ONCE, &now)?.more {}

    let waits = leave::blocked(connection, passage, &tables)?;
    if waits.total > 0 {
        return Err(SyncError::Unsent { rows: waits.rows, total: waits.total });
    }
    let archived = archive::last(connection)?;
    leave::archive(connection, passage, &tables, now_ms)?;
    let keys = keys::begin(connection, passage, &tables, vet, now_ms)?;
    let roots = rewritten::roots(connection, &tables)?;
    capture::remove(connection)?;
    Ok(Some(Begun { tables, archived, roots, keys, boot_ms: now_ms }))
}

/// What a step left behind, for [`end`].
#[derive(Debug)]
pub struct Left<'a> {
    /// Whether the whole migration is done, or only a step of it.
    pub whole: bool,
    /// Tables into which, or from which, the steps wrote rows; lower case.
    pub written: &'a BTreeSet<String>,
    /// Whether a table that was made anew has the rows of the old one, copied: then its values are as they were, unless it
    /// is among the written.
    pub copied: bool,
    /// How tables are captured, where none was before.
    pub mode: Mode,
}

/// Ends the passage, behind the steps, inside the same transaction: what waits follows to its new places, and the tables
/// of the new version are captured. Returns the judgement on each.
pub fn end(connection: &Connection, passage: &Passage, begun: &Begun, left: &Left<'_>, vet: &Vet<'_>) -> Result<Vec<Judged>, SyncError> {
    let now = present::now(connection, passage)?;
    let reach = if left.whole { Reach::Whole } else { Reach::Partly(&now) };
    let now_ms = begun.boot_ms;
    let keyed = keys::after(connection, passage, begun, reach, vet)?;
    for table in &begun.tables {
        if concerns(passage, table) {
            carry_table(connection, passage, table, reach)?;
        }
    }
    for (way, rekey) in passage.keys.iter().enumerate().filter(|(_, k)| k.from != k.into) {
        let source_goes = matches!(reach, Reach::Whole) || passage.end(rekey.from, reach).is_some();
        if passage.way == Way::Up && begun.keys.contains(&way) && source_goes {
            carried::record_parts(connection, rekey.from, rekey.into, number(way))?;
        }
    }
    for way in keyed {
        keys::follow(connection, passage, begun, way)?;
    }
    if !passage.keys.is_empty() {
        carried::drop_keys(connection)?;
    }
    for table in &begun.tables {
        if passage.end(table.id, reach).is_some() && passage.synced_after.table(table.id).is_none() {
            carried::forget_table(connection, table.id)?;
        }
    }
    if let Reach::Partly(now) = reach {
        leave::take_back(connection, begun, now)?;
    }
    let mode = begun.tables.first().map_or(left.mode, |table| table.mode);
    let judged = match reach {
        Reach::Whole => capture::install(connection, &passage.after, &wanted(&passage.synced_after, &passage.after, mode), now_ms)?,
        Reach::Partly(now) => capture::install(connection, now, &wanted(&passage.synced_before, now, mode), now_ms)?,
    };
    rewritten::record_anew(connection, passage, begun, left, now_ms)?;
    if left.whole {
        carried::walk(connection, passage.from, passage.way == Way::Up)?;
    }
    Ok(judged)
}

/// The tables of a version whose edits are captured: those that send rows. A table that is only pulled has no triggers; it
/// is classified for landing all the same.
pub fn wanted(synced: &SyncedTables, map: &ColumnMap, mode: Mode) -> Vec<Wanted> {
    let sends = |id: &u32| passage::sends(synced, *id) && map.table_by_id(*id).is_some();
    synced.0.keys().copied().filter(sends).map(|table| Wanted { table, mode }).collect()
}

/// Whether anything of a table's edits changes its place.
fn concerns(passage: &Passage, table: &Captured) -> bool {
    let moves = |id: u32| {
        let column = Place { table: table.id, column: id };
        passage.places(column, Reach::Whole) != [column]
    };
    passage.end(table.id, Reach::Whole).is_some() || passage.keys.iter().any(|k| k.from == table.id && k.into != table.id) || ids(table).any(moves)
}

/// Ids of all columns of a captured table.
fn ids(table: &Captured) -> impl Iterator<Item = u32> + '_ {
    table.columns.iter().map(|c| c.id).chain(table.key.iter().map(|k| k.id))
}

fn carry_table(connection: &Connection, passage: &Passage, table: &Captured, reach: Reach<'_>) -> Result<(), SyncError> {
    let mut outbox = Outbox::open(connection)?;
    let mut after: Option<Key> = None;
    loop {
        let keys = carried::waiting_after(connection, table.id, after.as_ref(), table.key.len(), AT_ONCE)?;
        for key in &keys {
            let Some(entry) = outbox.entry(table.id, key)? else { continue };
            let becomes = passage.carried(table.id, &entry, reach);
            if becomes.stays.as_ref() != Some(&entry) {
                outbox.put(table.id, key, becomes.stays.as_ref())?;
            }
            for (into, part) in becomes.parts {
                let way = passage.keys.iter().position(|k| k.from == table.id && k.into == into).expect("a part has a key");
                // A row that is gone has no part whose key could be told, and then it has none at the server either.
                let Some(new) = carried::new_key(connection, number(way), key, passage.keys[way].values.len())? else { continue };
                let recorded = match outbox.recorded(into, &new)? {
                    // The server has the row, and so its part.
                    None if passage.way == Way::Up => {
                        let of_row = outbox.recorded(table.id, key)?;
                        of_row.map(|recorded| Recorded { hashes: Vec::new(), ..recorded })
                    }
                    known => known,
                };
                let there = outbox.entry(into, &new)?;
                let joined = passage::joined(there, part, recorded.as_ref());
                outbox.put(into, &new, joined.as_ref())?;
            }
        }
        if keys.len() < AT_ONCE {
            return Ok(());
        }
        after = keys.into_iter().last();
    }
}

fn number(way: usize) -> u32 {
    u32::try_from(way).expect("a migration has few tables")
}

/// What becomes of a value that has no place.
fn fate(passage: &Passage, table: u32, column: u32) -> Option<DropPolicy> {
    let column = Place { table, column };
    passage.places(column, Reach::Whole).is_empty().then(|| passage.fate(column))
}
