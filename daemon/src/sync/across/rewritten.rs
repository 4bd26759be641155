//! Rows that a migration's steps wrote, whose values are not what was recorded of them: the server comes to the same by the
//! same steps, so it is no edit, and what is recorded follows. What is dirty stays so.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension};

use super::{AT_ONCE, Begun, Left, Passage, Way, leave};
use crate::{
    store::{
        archive,
        key::Key,
        outbox::{Deed, Entry, Outbox, Recorded, known_after},
    },
    sync::{
        capture,
        error::{SyncError, sqlite},
        rows::{Columns, Hashes, Rows},
        shape::Captured,
    },
};

/// The root page of each table: a table that was made anew has another.
pub(super) fn roots(connection: &Connection, tables: &[Captured]) -> Result<BTreeMap<u32, i64>, SyncError> {
    let mut found = BTreeMap::new();
    for table in tables {
        if let Some(root) = root(connection, &table.name)? {
            found.insert(table.id, root);
        }
    }
    Ok(found)
}

fn root(connection: &Connection, table: &str) -> Result<Option<i64>, SyncError> {
    connection
        .prepare_cached("SELECT rootpage FROM main.sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE")
        .and_then(|mut s| s.query_row([table], |row| row.get(0)).optional())
        .map_err(sqlite("looking where a table lies"))
}

/// Records anew what the steps wrote. The tables are captured again, and every edit from before them is in the outbox.
pub(super) fn record_anew(connection: &Connection, passage: &Passage, begun: &Begun, left: &Left<'_>, now_ms: i64) -> Result<(), SyncError> {
    for table in capture::captured(connection)? {
        let Some(before) = begun.tables.iter().find(|t| t.id == table.id) else { continue };
        let moved = root(connection, &table.name)? != begun.roots.get(&table.id).copied();
        let names = [&before.name, &table.name].map(|name| name.to_ascii_lowercase());
        let written = moved && !left.copied || names.iter().any(|name| left.written.contains(name));
        // On the way down ids come back that were recorded long ago, and others go whose next values are others.
        let strange = passage.way == Way::Down && before.tracked().iter().map(|c| c.0).ne(table.tracked().iter().map(|c| c.0));
        if written || strange {
            anew(connection, passage, before, &table, written, now_ms)?;
        }
    }
    Ok(())
}

fn anew(connection: &Connection, passage: &Passage, before: &Captured, table: &Captured, written: bool, now_ms: i64) -> Result<(), SyncError> {
    let (mut outbox, mut rows) = (Outbox::open(connection)?, Rows::new(connection, table));
    let both = |id: u32| before.tracked().iter().any(|c| c.0 == id) && table.tracked().iter().any(|c| c.0 == id);
    let mut after: Option<Key> = None;
    loop {
        let keys = known_after(connection, table.id, after.as_ref(), table.key.len(), AT_ONCE)?;
        for key in &keys {
            if passage.way == Way::Down
                && let Some(known) = outbox.recorded(table.id, key)?
            {
                let kept = Recorded { hashes: known.hashes.iter().copied().filter(|(id, _)| both(*id)).collect(), ..known.clone() };
                if kept != known {
                    outbox.record(table.id, key, Some(&kept))?;
                }
            }
            if written {
                let now = rows.read(key, Columns::All)?;
                if now.is_none() {
                    gone(connection, passage, before, &mut outbox, key, now_ms)?;
                }
                record(&mut outbox, table.id, key, now.as_ref())?;
            }
        }
        if keys.len() < AT_ONCE {
            return Ok(());
        }
        after = keys.into_iter().last();
    }
}

/// The steps took away a row that has edits: that they were there is all that is left of them.
fn gone(connection: &Connection, passage: &Passage, before: &Captured, outbox: &mut Outbox<'_>, key: &Key, now_ms: i64) -> Result<(), SyncError> {
    let Some(Entry { deed: Deed::Insert | Deed::Edit, edits }) = outbox.entry(before.id, key)? else { return Ok(()) };
    for edit in &edits {
        for id in &edit.columns {
            let column = Some((*id, leave::name(before, *id).to_owned()));
            archive::put(connection, &leave::of(passage, before, key, (column, None), edit, "the migration took the row away", now_ms))?;
        }
    }
    Ok(outbox.put(before.id, key, None)?)
}

/// What the server is known to have of one row follows what the row holds `now`, but for the columns that are dirty, and
/// for those of which nothing is known.
pub(super) fn record(outbox: &mut Outbox<'_>, table: u32, key: &Key, now: Option<&Hashes>) -> Result<(), SyncError> {
    let Some(known) = outbox.recorded(table, key)? else { return Ok(()) };
    let entry = outbox.entry(table, key)?;
    let anew = match (now, &entry) {
        // The application deleted it, and says so to the server.
        (_, Some(Entry { deed: Deed::Delete, .. })) => return Ok(()),
        // The server did.
        (None, _) if known.gone => return Ok(()),
        (None, _) => None,
        (Some(now), entry) => {
            let dirty = |id: u32| entry.iter().flat_map(|e| &e.edits).any(|e| e.columns.contains(&id));
            let value = |id: u32| now.binary_search_by_key(&id, |(id, _)| *id).ok().map(|at| now[at].1).filter(|_| !dirty(id));
            Some(Recorded { hashes: known.hashes.iter().map(|(id, hash)| (*id, value(*id).unwrap_or(*hash))).collect(), ..known.clone() })
        }
    };
    if anew.as_ref() != Some(&known) {
        outbox.record(table, key, anew.as_ref())?;
    }
    Ok(())
}
