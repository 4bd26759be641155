//! Signed documents, in SQLite.

use rusqlite::{OptionalExtension, Transaction};
use whimbrel_shared::{ids::AppName, tuf::Role};

use super::{keys, natural, parsed, repository};
use crate::store::{
    Refusal, StoreError,
    signed::{Kept, Mark, Repository, Signing},
};

/// How many versions of what is signed anew are kept. A device that reads the timestamp of one fetches the rest within minutes.
const KEPT: i64 = 8;

/// One document: of a version, or the newest.
pub(super) fn metadata(tx: &Transaction<'_>, app: &AppName, role: Role, version: Option<u64>) -> Result<Option<Kept>, StoreError> {
    let version = version.map(|v| i64::try_from(v).unwrap_or(i64::MAX));
    let mut query = tx.prepare_cached(
        "SELECT version, expires_at_ms, body FROM metadata
         WHERE app = ?1 AND role = ?2 AND (?3 IS NULL OR version = ?3) ORDER BY version DESC LIMIT 1",
    )?;
    let found = query.query_row((app.as_str(), role.word(), version), |row| {
        Ok(Kept { role, version: natural(row, 0)?, expires_at_ms: row.get(1)?, bytes: row.get(2)? })
    });
    Ok(found.optional()?)
}

pub(super) fn repository(tx: &Transaction<'_>, app: &AppName) -> Result<Option<Repository>, StoreError> {
    let newest = |role| metadata(tx, app, role, None);
    let Some(root) = newest(Role::Root)? else {
        return Ok(None);
    };
    Ok(Some(Repository { root, targets: newest(Role::Targets)?, snapshot: newest(Role::Snapshot)?, timestamp: newest(Role::Timestamp)? }))
}

/// Apps that have a root.
pub(super) fn signed_apps(tx: &Transaction<'_>) -> Result<Vec<AppName>, StoreError> {
    let mut query = tx.prepare_cached("SELECT DISTINCT app FROM metadata WHERE role = 'root' ORDER BY app")?;
    let apps = query.query_map([], |row| parsed(row, 0))?;
    Ok(apps.collect::<Result<_, _>>()?)
}

pub(super) fn save(tx: &Transaction<'_>, signing: &Signing) -> Result<(), StoreError> {
    let app = &signing.app;
    repository::ensure_app(tx, app)?;
    let found = repository(tx, app)?.map_or(Mark::default(), |r| r.mark());
    if found != signing.decided_on {
        return Err(Refusal::PublishRace(app.clone()).into());
    }
    for file in &signing.files {
        tx.prepare_cached("INSERT INTO metadata (app, role, version, expires_at_ms, body) VALUES (?1, ?2, ?3, ?4, ?5)")?.execute((
            app.as_str(),
            file.role.word(),
            i64::try_from(file.version).unwrap_or(i64::MAX),
            file.expires_at_ms,
            &file.bytes,
        ))?;
        if file.role != Role::Root {
            tx.prepare_cached(
                "DELETE FROM metadata WHERE app = ?1 AND role = ?2 AND version <=
                   (SELECT version FROM metadata WHERE app = ?1 AND role = ?2 ORDER BY version DESC LIMIT 1 OFFSET ?3)",
            )?
            .execute((app.as_str(), file.role.word(), KEPT))?;
        }
    }
    match &signing.by {
        Some((actor, action)) => {
            let names: Vec<String> = signing.files.iter().map(|f| format!("{} {}", f.role.word(), f.version)).collect();
            keys::note(tx, signing.now_ms, actor, action, &format!("{app}: {}", names.join(", ")))
        }
        None => Ok(()),
    }
}
