//! Which tables and columns of two neighbouring versions the file has, half-way between them.

use std::collections::BTreeSet;

use rusqlite::Connection;
use whimbrel_shared::columns::{Column, ColumnMap, TableColumns};

use super::Passage;
use crate::sync::{
    error::{SyncError, sqlite},
    table::Facts,
};

/// The map of what is there now: each table and column of either version that the file has, under the name that it has.
/// Where both its names are taken, it has the one of before, and a name belongs to one only.
pub(super) fn now(connection: &Connection, passage: &Passage) -> Result<ColumnMap, SyncError> {
    let (before, after) = (&passage.before, &passage.after);
    let mut map = ColumnMap::default();
    let mut taken = BTreeSet::new();
    for id in union(before.tables.iter().map(|t| t.id), after.tables.iter().map(|t| t.id)) {
        let (old, new) = (before.table_by_id(id), after.table_by_id(id));
        for name in [old, new].into_iter().flatten().map(|t| &t.name) {
            if taken.contains(&name.to_ascii_lowercase()) {
                continue;
            }
            let facts = Facts::read(connection, name).map_err(sqlite("reading the shape of a table"))?;
            let Some(facts) = facts.filter(|f| f.kind == "table") else { continue };
            // Another table may have had that name before.
            if old.is_some_and(|old| old.name != *name) && before.table(name).is_some_and(|t| t.id != id && after.table_by_id(t.id).is_none()) {
                continue;
            }
            taken.insert(name.to_ascii_lowercase());
            map.tables.push(TableColumns { id, name: facts.name.clone(), columns: columns(&facts, old, new) });
            break;
        }
    }
    map.tables.retain(|t| !t.columns.is_empty());
    Ok(map)
}

fn columns(facts: &Facts, old: Option<&TableColumns>, new: Option<&TableColumns>) -> Vec<Column> {
    let ids = |of: Option<&TableColumns>| of.into_iter().flat_map(|t| t.columns.iter().map(|c| c.id)).collect::<Vec<_>>();
    let name_in = |of: Option<&TableColumns>, id: u32| of.and_then(|t| t.column_by_id(id)).map(|c| c.name.clone());
    let there = |name: &String| facts.columns.iter().any(|c| !c.hidden && c.name.eq_ignore_ascii_case(name));
    // With all the names of one version it is that version: two columns may have exchanged theirs.
    let whole = |of: Option<&TableColumns>| of.is_some_and(|t| t.columns.iter().all(|c| there(&c.name)) && t.columns.len() == visible(facts));
    if let Some(table) = [old, new].into_iter().find(|of| whole(*of)).flatten().filter(|_| !(whole(old) && whole(new))) {
        return table.columns.clone();
    }
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut columns = Vec::new();
    for id in union(ids(old).into_iter(), ids(new).into_iter()) {
        let names = [name_in(old, id), name_in(new, id)];
        if let Some(name) = names.into_iter().flatten().find(|n| there(n) && !taken.contains(&n.to_ascii_lowercase())) {
            taken.insert(name.to_ascii_lowercase());
            columns.push(Column { id, name });
        }
    }
    columns
}

fn visible(facts: &Facts) -> usize {
    facts.columns.iter().filter(|c| !c.hidden).count()
}

fn union(a: impl Iterator<Item = u32>, b: impl Iterator<Item = u32>) -> BTreeSet<u32> {
    a.chain(b).collect()
}
