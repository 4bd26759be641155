//! Conflicts with both sides, and changes that are kept and not written, in SQLite.

use rusqlite::Transaction;
use whimbrel_shared::{
    ids::ClientId,
    protocol::conflicts::{ConflictsResponse, Kept, KeptColumn, KeptConflict, KeptKind},
    resolve::{Conflict, ConflictKind, State},
    value::Value,
};

use super::{json, parsed, spaces::Schemas, to_json};
use crate::{
    lift::Unsaid,
    store::{
        Refusal, StoreError,
        rows::{ConflictsPage, Forget},
    },
};

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

/// A column that a row does not get, and which row.
pub(super) struct UnsaidOf {
    pub(super) space: i64,
    /// Whose row it was at first.
    pub(super) client: ClientId,
    pub(super) table: u32,
    /// Its key in the index.
    pub(super) index: Vec<u8>,
    pub(super) key: Vec<Value>,
    pub(super) unsaid: Unsaid,
}

/// Keeps them for a person, each once.
pub(super) fn note_unsaid(tx: &Transaction<'_>, all: &[UnsaidOf], now_ms: i64) -> Result<(), StoreError> {
    for one in all {
        let mut known =
            tx.prepare_cached("SELECT detail FROM kept_change WHERE space_id = ?1 AND table_id = ?2 AND key = ?3 AND kind = 'not_lifted'")?;
        let known: Vec<Kept> = known.query_map((one.space, one.table, &one.index), |row| json(row, 0))?.collect::<Result<_, _>>()?;
        if known.iter().any(|kept| kept.schema == one.unsaid.version) {
            continue;
        }
        let column = |id: &u32| KeptColumn { column: *id, arrived: None, there: None, taken: false };
        let kept = Kept {
            kind: KeptKind::NotLifted,
            table: one.table,
            key: one.key.clone(),
            schema: one.unsaid.version,
            strategy: None,
            columns: one.unsaid.columns.iter().map(column).collect(),
            other_key: None,
            change: None,
            why: Some(one.unsaid.why.clone()),
        };
        insert(tx, one.space, &one.client.to_string(), &one.index, &kept, now_ms)?;
    }
    Ok(())
}

fn insert(tx: &Transaction<'_>, space: i64, client: &str, index: &[u8], kept: &Kept, now_ms: i64) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO kept_change (space_id, client_id, table_id, key, kind, open, detail, at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute((space, client, kept.table, index, kept.kind.as_str(), kept.kind.is_open(), to_json(kept)?, now_ms))?;
    Ok(())
}

/// Keeps what one push leaves behind.
pub(super) struct Keeper<'t> {
    tx: &'t Transaction<'t>,
    space: i64,
    client: String,
    now_ms: i64,
    /// Whether this client has anything open: mostly not, and then no row needs to be looked for.
    open: bool,
    /// Whether any row of the space lacks a column that could not be computed.
    unsaid: bool,
}

impl<'t> Keeper<'t> {
    pub(super) fn new(tx: &'t Transaction<'t>, space: i64, client: ClientId, now_ms: i64) -> Result<Self, StoreError> {
        let client = client.to_string();
        let open = tx.prepare_cached("SELECT 1 FROM kept_change WHERE client_id = ?1 AND open = 1 LIMIT 1")?.exists([&client])?;
        let unsaid = tx.prepare_cached("SELECT 1 FROM kept_change WHERE space_id = ?1 AND kind = 'not_lifted' LIMIT 1")?.exists([space])?;
        Ok(Self { tx, space, client, now_ms, open, unsaid })
    }

    /// Keeps it. What waits for the client stands once per row, as it came last.
    pub(super) fn keep(&mut self, index: &[u8], kept: &Kept) -> Result<(), StoreError> {
        if kept.kind.is_open() {
            self.settle(kept.table, index)?;
            self.open = true;
        }
        insert(self.tx, self.space, &self.client, index, kept, self.now_ms)
    }

    /// Keeps for a person what a row does not get.
    pub(super) fn keep_unsaid(&mut self, all: &[UnsaidOf]) -> Result<(), StoreError> {
        self.unsaid |= !all.is_empty();
        note_unsaid(self.tx, all, self.now_ms)
    }

    /// The row is now `after`, as number `number` of the space: what was missing and is written by that is missing no more.
    pub(super) fn settle_unsaid(&self, table: u32, index: &[u8], after: &State, number: u64) -> Result<(), StoreError> {
        if !self.unsaid {
            return Ok(());
        }
        let mut query = self
            .tx
            .prepare_cached("SELECT id, detail FROM kept_change WHERE space_id = ?1 AND table_id = ?2 AND key = ?3 AND kind = 'not_lifted'")?;
        let known: Vec<(i64, Kept)> =
            query.query_map((self.space, table, index), |row| Ok((row.get(0)?, json(row, 1)?)))?.collect::<Result<_, _>>()?;
        let written = |column: u32| after.cells().iter().any(|held| held.column == column && held.version == number);
        for (id, kept) in known {
            if after.is_deleted() || (!kept.columns.is_empty() && kept.columns.iter().all(|c| written(c.column))) {
                self.tx.prepare_cached("DELETE FROM kept_change WHERE id = ?1")?.execute([id])?;
            }
        }
        Ok(())
    }

    /// The client's row was written: nothing of it waits any more.
    pub(super) fn settle(&self, table: u32, index: &[u8]) -> Result<(), StoreError> {
        if self.open {
            self.tx
                .prepare_cached("DELETE FROM kept_change WHERE client_id = ?1 AND open = 1 AND space_id = ?2 AND table_id = ?3 AND key = ?4 AND kind <> 'not_lifted'")?
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

/// Forgets deletions, answers of pushes and decided conflicts that are older than they are kept, and moves each space's
/// horizon over the deletions. What is open stays. Answers how many deletions were forgotten.
pub(super) fn forget(tx: &Transaction<'_>, before: Forget) -> Result<u64, StoreError> {
    tx.execute(
        "UPDATE space SET horizon = max(horizon, coalesce(
           (SELECT max(r.version) FROM synced_row r WHERE r.space_id = space.id AND r.deleted_at_ms < ?1), 0))",
        [before.deleted_ms],
    )?;
    let forgotten = tx.execute("DELETE FROM synced_row WHERE deleted_at_ms < ?1", [before.deleted_ms])?;
    tx.execute("DELETE FROM push WHERE at_ms < ?1", [before.answers_ms])?;
    tx.execute("DELETE FROM kept_change WHERE at_ms < ?1 AND open = 0", [before.conflicts_ms])?;
    Ok(forgotten as u64)
}
