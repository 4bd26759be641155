//! Conflicts with both sides, and changes that are kept and not written, in SQLite.

use rusqlite::Transaction;
use whimbrel_shared::{
    ids::ClientId,
    protocol::conflicts::{ConflictsResponse, Kept, KeptColumn, KeptConflict, KeptKind},
    resolve::{Conflict, ConflictKind},
};

use super::{json, parsed, spaces::Schemas, to_json};
use crate::store::{Refusal, StoreError, rows::ConflictsPage};

pub(super) fn kind(kind: ConflictKind) -> KeptKind {
    match kind {
        ConflictKind::Edits => KeptKind::Edits,
        ConflictKind::EditOfDeleted => KeptKind::EditOfDeleted,
        ConflictKind::DeletionOfEdited => KeptKind::DeletionOfEdited,
        ConflictKind::KeyTaken => KeptKind::KeyTaken,
    }
}

pub(super) fn columns(conflict: &Conflict) -> Vec<KeptColumn> {
    let column =
        |c: &whimbrel_shared::resolve::Contested| KeptColumn { column: c.column, arrived: c.arrived.clone(), there: c.there.clone(), taken: c.taken };
    conflict.columns.iter().map(column).collect()
}

/// Keeps what one push leaves behind.
pub(super) struct Keeper<'t> {
    tx: &'t Transaction<'t>,
    space: i64,
    client: String,
    now_ms: i64,
    /// Whether this client has anything open: mostly not, and then no row needs to be looked for.
    open: bool,
}

impl<'t> Keeper<'t> {
    pub(super) fn new(tx: &'t Transaction<'t>, space: i64, client: ClientId, now_ms: i64) -> Result<Self, StoreError> {
        let client = client.to_string();
        let open = tx.prepare_cached("SELECT 1 FROM kept_change WHERE client_id = ?1 AND open = 1 LIMIT 1")?.exists([&client])?;
        Ok(Self { tx, space, client, now_ms, open })
    }

    /// Keeps it. What waits for the client stands once per row, as it came last.
    pub(super) fn keep(&mut self, index: &[u8], kept: &Kept) -> Result<(), StoreError> {
        if kept.kind.is_open() {
            self.settle(kept.table, index)?;
            self.open = true;
        }
        self.tx
            .prepare_cached(
                "INSERT INTO kept_change (space_id, client_id, table_id, key, kind, open, detail, at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute((self.space, &self.client, kept.table, index, kept.kind.as_str(), kept.kind.is_open(), to_json(kept)?, self.now_ms))?;
        Ok(())
    }

    /// The client's row was written: nothing of it waits any more.
    pub(super) fn settle(&self, table: u32, index: &[u8]) -> Result<(), StoreError> {
        if self.open {
            self.tx
                .prepare_cached("DELETE FROM kept_change WHERE client_id = ?1 AND open = 1 AND space_id = ?2 AND table_id = ?3 AND key = ?4")?
                .execute((&self.client, self.space, table, index))?;
        }
        Ok(())
    }
}

pub(super) fn list(tx: &Transaction<'_>, schemas: &Schemas, page: &ConflictsPage) -> Result<ConflictsResponse, StoreError> {
    let known = tx.prepare_cached("SELECT 1 FROM app WHERE name = ?1")?.exists([page.app.as_str()])?;
    if !known {
        return Err(Refusal::NoApp(page.app.clone()).into());
    }
    let latest = schemas.at(tx, &page.app, 0).ok().map(|(latest, _)| latest);
    let mut query = tx.prepare_cached(
        "SELECT k.id, s.name, k.client_id, k.at_ms, k.open, k.detail FROM kept_change k JOIN space s ON s.id = k.space_id
         WHERE s.app = ?1 AND k.id < ?2 AND (NOT ?3 OR k.open = 1) ORDER BY k.id DESC LIMIT ?4",
    )?;
    let rows = query.query_map((page.app.as_str(), page.before.unwrap_or(i64::MAX), page.open, page.limit), |row| {
        let detail: Kept = json(row, 5)?;
        let table_name = latest.as_ref().and_then(|at| at.map.table_by_id(detail.table)).map(|t| t.name.clone());
        Ok(KeptConflict {
            id: row.get(0)?,
            space: parsed(row, 1)?,
            client_id: parsed(row, 2)?,
            at_ms: row.get(3)?,
            open: row.get(4)?,
            table_name,
            detail,
        })
    })?;
    let conflicts: Vec<KeptConflict> = rows.collect::<Result<_, _>>()?;
    let full = conflicts.len() >= page.limit as usize;
    let next = conflicts.last().filter(|_| full).map(|c| c.id);
    Ok(ConflictsResponse { conflicts, next })
}

/// Forgets deletions, answers of pushes and decided conflicts that are older than `before_ms`, and moves each space's
/// horizon over the deletions. What is open stays. Answers how many deletions were forgotten.
pub(super) fn forget(tx: &Transaction<'_>, before_ms: i64) -> Result<u64, StoreError> {
    tx.execute(
        "UPDATE space SET horizon = max(horizon, coalesce(
           (SELECT max(r.version) FROM synced_row r WHERE r.space_id = space.id AND r.deleted_at_ms < ?1), 0))",
        [before_ms],
    )?;
    let forgotten = tx.execute("DELETE FROM synced_row WHERE deleted_at_ms < ?1", [before_ms])?;
    tx.execute("DELETE FROM push WHERE at_ms < ?1", [before_ms])?;
    tx.execute("DELETE FROM kept_change WHERE at_ms < ?1 AND open = 0", [before_ms])?;
    Ok(forgotten as u64)
}
