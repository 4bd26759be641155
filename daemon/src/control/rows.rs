//! What the socket tells of rows that wait for somebody: conflicts, and the quarantine. Both are read from the files when
//! they are asked for, by the names of the version in place, and stay on this machine.

use std::path::PathBuf;

use whimbrel_shared::{columns::ColumnMap, remedy::here};

use super::{
    protocol::{ConflictColumn, ConflictView, DatabaseView, MAX_LINE_BYTES, PersonOrder, Reply, Selector, WaitingColumn, WaitingView},
    server::{Desk, View},
};
use crate::replicate::by_hand::{self, Refusal, Rows};

/// Bytes of values in one answer. Beside it a line has room for what surrounds them and for JSON's escapes.
const MOST_VALUE_BYTES: usize = MAX_LINE_BYTES / 8;

/// Whether an order that can only be about one database is about one.
pub(super) fn is_of_one(order: &PersonOrder, chosen: &[DatabaseView]) -> Result<(), Reply> {
    let what = match order {
        PersonOrder::Decide { .. } => "a decision",
        PersonOrder::DropWaiting { .. } => "a row",
        PersonOrder::Detach { .. } => "a detach",
        PersonOrder::Apply { .. }
        | PersonOrder::Retry
        | PersonOrder::RetryItems
        | PersonOrder::Revert { .. }
        | PersonOrder::Hold { .. }
        | PersonOrder::Release
        | PersonOrder::Adopt { .. }
        | PersonOrder::GiveBack
        | PersonOrder::Cycle
        | PersonOrder::Exchange { .. }
        | PersonOrder::RetryWaiting
        | PersonOrder::Backup
        | PersonOrder::Restore { .. } => return Ok(()),
    };
    if chosen.len() == 1 {
        return Ok(());
    }
    let message = format!("{what} is of one database, and {} are meant", chosen.len());
    Err(Reply::Refused { message, remedy: here("name the database: `whimbrel status` lists them") })
}

impl Desk {
    /// Conflicts, newest first: as many as are asked for and fit into an answer; the total is of all.
    pub(super) fn conflicts(&self, database: &Selector, id: Option<i64>, all: bool, limit: u32) -> Reply {
        let views = match self.views_of(database) {
            Ok(views) => views,
            Err(refusal) => return refusal,
        };
        let (mut found, mut total, mut bytes) = (Vec::new(), 0, 0);
        for (path, view) in views {
            let room = limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
            let (map, rows, of_all) = match read(&view, |rows| rows.conflicts(id, all, room)) {
                Ok(Some(read)) => read,
                Ok(None) => continue,
                Err(refusal) => return refused(&path, refusal),
            };
            total += of_all;
            for it in rows {
                let values = it.detail.columns.iter().flat_map(|c| c.arrived.iter().chain(&c.there));
                bytes += values.map(whimbrel_shared::value::Value::size_bytes).sum::<usize>();
                if bytes > MOST_VALUE_BYTES && !found.is_empty() {
                    break;
                }
                found.push(conflict(path.clone(), it, &map));
            }
        }
        match id {
            Some(id) if found.is_empty() => Reply::Refused {
                message: format!("no conflict has the number {id}"),
                remedy: here("`whimbrel conflicts list --all` shows them with their numbers"),
            },
            Some(_) | None => Reply::Conflicts { conflicts: found, total },
        }
    }

    /// Rows in quarantine: as many as are asked for and fit into an answer; the total is of all.
    pub(super) fn quarantine(&self, database: &Selector, limit: u32) -> Reply {
        let views = match self.views_of(database) {
            Ok(views) => views,
            Err(refusal) => return refusal,
        };
        let (mut found, mut total, mut bytes) = (Vec::new(), 0, 0);
        for (path, view) in views {
            let room = limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
            let (map, rows, of_all) = match read(&view, |rows| rows.waiting(room)) {
                Ok(Some(read)) => read,
                Ok(None) => continue,
                Err(refusal) => return refused(&path, refusal),
            };
            total += of_all;
            for it in rows {
                bytes += it.row.size_bytes();
                if bytes > MOST_VALUE_BYTES && !found.is_empty() {
                    break;
                }
                let table = it.row.table;
                let values = it.row.values.map(|values| {
                    values.into_iter().map(|(column, value)| WaitingColumn { column: column_name(&map, table, column), value }).collect()
                });
                found.push(WaitingView {
                    database: path.clone(),
                    table: table_name(&map, table),
                    key: it.row.key,
                    version: it.row.version,
                    values,
                    code: it.code.as_str().to_owned(),
                    why: it.why,
                    at_ms: it.at_ms,
                    tries: it.tries,
                });
            }
        }
        Reply::Quarantine { rows: found, total }
    }
}

/// What is read of one file; none where it exchanges no rows.
fn read<T>(view: &View, what: impl FnOnce(&Rows) -> Result<(Vec<T>, u64), Refusal>) -> Result<Option<(ColumnMap, Vec<T>, u64)>, Refusal> {
    let Some(rows) = by_hand::Rows::open(&view.site, &view.looked, &view.chain)? else { return Ok(None) };
    let (found, total) = what(&rows)?;
    Ok(Some((rows.map, found, total)))
}

fn refused(path: &std::path::Path, Refusal { message, remedy, .. }: Refusal) -> Reply {
    Reply::Refused { message: format!("{}: {message}", path.display()), remedy }
}

fn conflict(database: PathBuf, it: by_hand::Conflict, map: &ColumnMap) -> ConflictView {
    let choices = if it.is_over() { Vec::new() } else { crate::sync::decide::Choice::of(it.kind) };
    let key = it.key();
    let columns = it.detail.columns.into_iter();
    let columns = columns.map(|c| ConflictColumn { column: column_name(map, it.table, c.column), mine: c.arrived, theirs: c.there }).collect();
    ConflictView {
        database,
        id: it.id,
        table: table_name(map, it.table),
        key,
        kind: it.kind.as_str().to_owned(),
        open: it.open,
        at_ms: it.at_ms,
        columns,
        other_key: it.detail.other_key,
        why: it.detail.why,
        min_schema: it.detail.min_schema,
        decided: it.detail.decided,
        choices,
    }
}

fn table_name(map: &ColumnMap, id: u32) -> String {
    map.table_by_id(id).map_or_else(|| format!("table {id}"), |t| t.name.clone())
}

fn column_name(map: &ColumnMap, table: u32, id: u32) -> String {
    let column = map.table_by_id(table).and_then(|t| t.columns.iter().find(|c| c.id == id));
    column.map_or_else(|| format!("column {id}"), |c| c.name.clone())
}
