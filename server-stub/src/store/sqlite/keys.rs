//! API keys, enrolment tokens and the audit, in SQLite.

use rusqlite::{OptionalExtension, Transaction};
use whimbrel_shared::ids::Digest;

use super::{parsed, repository};
use crate::{
    secrets::{self, Scope},
    store::{AuditEntry, AuditResponse, Key, KeyInfo, NewKey, NewToken, Page, Refusal, StoreError, TokenInfo},
};

/// Who did what came by no API key.
const COMMAND_LINE: &str = "command line";

pub(super) fn create_key(tx: &Transaction<'_>, key: &NewKey) -> Result<(), StoreError> {
    let made = tx.execute(
        "INSERT INTO api_key (name, key_hash, scope, created_at_ms) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (name) DO NOTHING",
        (&key.name, key.hash.to_string(), key.scope.as_str(), key.now_ms),
    )?;
    if made == 0 {
        return Err(Refusal::NameTaken(key.name.clone()).into());
    }
    let detail = format!("{} ({})", key.name, key.scope.as_str());
    note(tx, key.now_ms, COMMAND_LINE, "key.create", &detail)
}

pub(super) fn keys(tx: &Transaction<'_>) -> Result<Vec<KeyInfo>, StoreError> {
    let mut query = tx.prepare("SELECT name, scope, created_at_ms, revoked_at_ms FROM api_key ORDER BY name")?;
    let rows = query
        .query_map([], |row| Ok(KeyInfo { name: row.get(0)?, scope: scope(row, 1)?, created_at_ms: row.get(2)?, revoked_at_ms: row.get(3)? }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn revoke_key(tx: &Transaction<'_>, name: &str, now_ms: i64) -> Result<(), StoreError> {
    let found = tx.execute("UPDATE api_key SET revoked_at_ms = coalesce(revoked_at_ms, ?2) WHERE name = ?1", (name, now_ms))?;
    if found == 0 {
        return Err(nothing("key", name));
    }
    note(tx, now_ms, COMMAND_LINE, "key.revoke", name)
}

pub(super) fn key(tx: &Transaction<'_>, hash: &Digest) -> Result<Option<Key>, StoreError> {
    let found = tx
        .prepare_cached("SELECT name, scope, key_hash FROM api_key WHERE key_hash = ?1 AND revoked_at_ms IS NULL")?
        .query_row([hash.to_string()], |row| {
            let key = Key { name: row.get(0)?, scope: scope(row, 1)? };
            Ok((key, parsed::<Digest>(row, 2)?))
        })
        .optional()?;
    Ok(found.filter(|(_, stored)| secrets::same(stored, hash)).map(|(key, _)| key))
}

pub(super) fn create_token(tx: &Transaction<'_>, token: &NewToken) -> Result<i64, StoreError> {
    repository::ensure_app(tx, &token.app)?;
    tx.execute(
        "INSERT INTO enrolment_token (token_hash, app, space, uses_left, created_at_ms, expires_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        (token.hash.to_string(), token.app.as_str(), token.space.as_str(), token.uses, token.now_ms, token.expires_at_ms),
    )?;
    let id = tx.last_insert_rowid();
    let detail = format!("{id} for {} ({} uses)", token.app, token.uses);
    note(tx, token.now_ms, COMMAND_LINE, "token.create", &detail)?;
    Ok(id)
}

pub(super) fn tokens(tx: &Transaction<'_>) -> Result<Vec<TokenInfo>, StoreError> {
    let mut query = tx.prepare("SELECT id, app, space, uses_left, created_at_ms, expires_at_ms, revoked_at_ms FROM enrolment_token ORDER BY id")?;
    let rows = query.query_map([], |row| {
        Ok(TokenInfo {
            id: row.get(0)?,
            app: parsed(row, 1)?,
            space: parsed(row, 2)?,
            uses_left: row.get(3)?,
            created_at_ms: row.get(4)?,
            expires_at_ms: row.get(5)?,
            revoked_at_ms: row.get(6)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn revoke_token(tx: &Transaction<'_>, id: i64, now_ms: i64) -> Result<(), StoreError> {
    let found = tx.execute("UPDATE enrolment_token SET revoked_at_ms = coalesce(revoked_at_ms, ?2) WHERE id = ?1", (id, now_ms))?;
    if found == 0 {
        return Err(nothing("token", &id.to_string()));
    }
    note(tx, now_ms, COMMAND_LINE, "token.revoke", &id.to_string())
}

/// Writes one line of the audit, in the transaction of what it tells.
pub(super) fn note(tx: &Transaction<'_>, at_ms: i64, actor: &str, action: &str, detail: &str) -> Result<(), StoreError> {
    tx.execute("INSERT INTO audit (at_ms, actor, action, detail) VALUES (?1, ?2, ?3, ?4)", (at_ms, actor, action, detail))?;
    Ok(())
}

pub(super) fn audit(tx: &Transaction<'_>, page: Page) -> Result<AuditResponse, StoreError> {
    let mut query = tx.prepare_cached("SELECT seq, at_ms, actor, action, detail FROM audit WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2")?;
    let rows = query.query_map((page.before.unwrap_or(i64::MAX), page.limit), |row| {
        Ok(AuditEntry { seq: row.get(0)?, at_ms: row.get(1)?, actor: row.get(2)?, action: row.get(3)?, detail: row.get(4)? })
    })?;
    let entries: Vec<AuditEntry> = rows.collect::<Result<_, _>>()?;
    let full = entries.len() >= page.limit as usize;
    let next = entries.last().filter(|_| full).map(|e| e.seq);
    Ok(AuditResponse { entries, next })
}

fn scope(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Scope> {
    let word: String = row.get(column)?;
    Scope::parse(&word).ok_or_else(|| rusqlite::Error::InvalidColumnType(column, word, rusqlite::types::Type::Text))
}

fn nothing(what: &'static str, which: &str) -> StoreError {
    Refusal::Nothing { what, which: which.to_owned() }.into()
}
