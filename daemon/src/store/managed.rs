//! Our tables in a managed file (`schema/database/`). Every function runs inside the caller's transaction, so that a
//! promise is one transaction.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use whimbrel_shared::{
    ids::{AppName, ClientId, Digest, EventId, MigrationName},
    status::{AskedBy, Event, Failure, Operation, Status},
};

use super::{
    StoreError, at, journal,
    words::{parse, word},
};

/// Our schema in a managed file, by number.
const SCHEMA: [&str; 1] = [include_str!("../../schema/database/001_init.sql")];

/// Who a file is. Kept in the file, and compared with what the daemon remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    /// The database.
    pub client_id: ClientId,
    /// Its app.
    pub app: AppName,
    /// How often it went back, from 1.
    pub epoch: u32,
    /// Device number of the file when it was last written by us.
    pub device: u64,
    /// Inode of the file then.
    pub inode: u64,
}

/// One migration's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationRow {
    /// Its place in the chain.
    pub version: u32,
    /// The revision that ran last.
    pub revision: u32,
    /// Its name.
    pub name: MigrationName,
    /// Digest of the bytes that ran last.
    pub digest: Digest,
    /// Where it stands.
    pub status: Status,
    /// How often it was begun.
    pub attempts: u32,
    /// When it was last begun.
    pub started_at_ms: Option<i64>,
    /// When it was completed.
    pub completed_at_ms: Option<i64>,
    /// Why it failed.
    pub failure: Option<Failure>,
}

/// What is being run: written before, cleared with the last of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Which way.
    pub operation: Operation,
    /// First version of the run.
    pub from: u32,
    /// Last version of the run.
    pub to: u32,
    /// The version that is not yet committed.
    pub next: u32,
    /// Who asked.
    pub by: AskedBy,
    /// When the run began.
    pub started_at_ms: i64,
}

/// Whether the file has our tables, and whether this binary may use them.
pub fn is_prepared(connection: &Connection) -> Result<bool, StoreError> {
    let there: bool = connection
        .query_row("SELECT count(*) FROM main.sqlite_schema WHERE name = '_whimbrel_meta'", [], |row| row.get(0))
        .map_err(at("looking for whimbrel's tables"))?;
    if !there {
        return Ok(false);
    }
    let found: u32 = meta(connection, "schema")?.unwrap_or(0);
    let known = SCHEMA.len() as u32;
    if found > known {
        return Err(StoreError::TooNew { what: "the database file".to_owned(), found, known });
    }
    Ok(found == known)
}

/// Makes or upgrades our tables. The caller holds the write lock.
pub fn prepare(connection: &Connection, identity: &FileIdentity) -> Result<(), StoreError> {
    let there: bool = connection
        .query_row("SELECT count(*) FROM main.sqlite_schema WHERE name = '_whimbrel_meta'", [], |row| row.get(0))
        .map_err(at("looking for whimbrel's tables"))?;
    let found: usize = if there { meta::<u32>(connection, "schema")?.unwrap_or(0) as usize } else { 0 };
    for sql in &SCHEMA[found.min(SCHEMA.len())..] {
        connection.execute_batch(sql).map_err(at("making whimbrel's tables"))?;
    }
    set_meta(connection, "schema", SCHEMA.len() as u32)?;
    if !there {
        set_identity(connection, identity)?;
    }
    Ok(())
}

/// Who the file says it is.
pub fn identity(connection: &Connection) -> Result<FileIdentity, StoreError> {
    let need = |what: &'static str| StoreError::Damaged { what: "_whimbrel_meta", detail: format!("{what} is missing") };
    let text = |key: &'static str| meta::<String>(connection, key)?.ok_or_else(|| need(key));
    let number = |key: &'static str| meta::<i64>(connection, key)?.ok_or_else(|| need(key));
    let bad = |e: whimbrel_shared::ids::BadId| StoreError::Damaged { what: "_whimbrel_meta", detail: e.to_string() };
    Ok(FileIdentity {
        client_id: text("client_id")?.parse().map_err(bad)?,
        app: text("app")?.parse().map_err(bad)?,
        epoch: u32::try_from(number("epoch")?).unwrap_or(1),
        device: number("device")?.cast_unsigned(),
        inode: number("inode")?.cast_unsigned(),
    })
}

/// Writes who the file is.
pub fn set_identity(connection: &Connection, identity: &FileIdentity) -> Result<(), StoreError> {
    let before: Option<String> = meta(connection, "client_id")?;
    if before.is_some_and(|id| id != identity.client_id.to_string()) && journal::is_there(connection)? {
        inherit(connection)?;
    }
    set_meta(connection, "client_id", identity.client_id.to_string())?;
    set_meta(connection, "app", identity.app.as_str())?;
    set_meta(connection, "epoch", identity.epoch)?;
    set_meta(connection, "device", identity.device.cast_signed())?;
    set_meta(connection, "inode", identity.inode.cast_signed())
}

/// Edits up to this number were made before the file was copied from another database's, and when that was noticed, in
/// milliseconds since 1970. None: it was not.
pub fn inherited(connection: &Connection) -> Result<Option<(i64, i64)>, StoreError> {
    Ok(meta(connection, "inherited_seq")?.zip(meta(connection, "inherited_ms")?))
}

/// The file is a copy: whoever it was copied from has its edits too, and will send them.
fn inherit(connection: &Connection) -> Result<(), StoreError> {
    set_meta(connection, "inherited_seq", journal::extent(connection)?.last)?;
    let now_ms: i64 = connection
        .query_row("SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)", [], |row| row.get(0))
        .map_err(at("reading the time"))?;
    set_meta(connection, "inherited_ms", now_ms)
}

/// What a backup says of itself, in the backup; in a managed file, the sign that it was restored from one and that nobody has
/// looked at it since.
pub fn backup_mark(connection: &Connection) -> Result<Option<String>, StoreError> {
    meta(connection, "backup")
}

/// Writes the mark of a backup; none takes it away.
pub fn set_backup_mark(connection: &Connection, mark: Option<&str>) -> Result<(), StoreError> {
    match mark {
        Some(mark) => set_meta(connection, "backup", mark),
        None => connection
            .execute("DELETE FROM main._whimbrel_meta WHERE key = 'backup'", [])
            .map(|_| ())
            .map_err(at("writing whimbrel's own settings in the file")),
    }
}

fn meta<T: rusqlite::types::FromSql>(connection: &Connection, key: &str) -> Result<Option<T>, StoreError> {
    connection
        .prepare_cached("SELECT value FROM main._whimbrel_meta WHERE key = ?1")
        .and_then(|mut s| s.query_row([key], |row| row.get(0)).optional())
        .map_err(at("reading whimbrel's own settings in the file"))
}

fn set_meta(connection: &Connection, key: &str, value: impl rusqlite::ToSql) -> Result<(), StoreError> {
    connection
        .execute("INSERT OR REPLACE INTO main._whimbrel_meta (key, value) VALUES (?1, ?2)", params![key, value])
        .map(|_| ())
        .map_err(at("writing whimbrel's own settings in the file"))
}

/// What a file was taken over as: kept in the file, until it is taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// What said so: a tool's name, `schema` or `person`.
    pub by: String,
    /// Everything up to it was in place then.
    pub version: u32,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// How the file differed from that version, where a person accepted it.
    #[serde(default)]
    pub drift: Vec<String>,
}

/// What the file was taken over as; none where its history began with us.
pub fn adopted(connection: &Connection) -> Result<Option<Adopted>, StoreError> {
    let text: Option<String> = meta(connection, "adopted")?;
    let bad = |e: serde_json::Error| StoreError::Damaged { what: "_whimbrel_meta", detail: e.to_string() };
    text.map(|text| serde_json::from_str(&text).map_err(bad)).transpose()
}

/// Keeps it, or forgets it.
pub fn set_adopted(connection: &Connection, adopted: Option<&Adopted>) -> Result<(), StoreError> {
    match adopted {
        Some(adopted) => set_meta(connection, "adopted", serde_json::to_string(adopted).expect("our own types have text keys")),
        None => connection
            .execute("DELETE FROM main._whimbrel_meta WHERE key = 'adopted'", [])
            .map(|_| ())
            .map_err(at("writing whimbrel's own settings in the file")),
    }
}

/// Every migration that was ever begun here, by version.
pub fn history(connection: &Connection) -> Result<BTreeMap<u32, MigrationRow>, StoreError> {
    let mut rows = Vec::new();
    let mut statement = connection
        .prepare_cached(
            "SELECT version, revision, name, digest, status, attempts, started_at_ms, completed_at_ms, failure FROM main._whimbrel_migration",
        )
        .map_err(at("reading the history"))?;
    let mut query = statement.query([]).map_err(at("reading the history"))?;
    while let Some(row) = query.next().map_err(at("reading the history"))? {
        rows.push(migration_row(row)?);
    }
    Ok(rows.into_iter().map(|row| (row.version, row)).collect())
}

/// One migration's row.
pub fn migration(connection: &Connection, version: u32) -> Result<Option<MigrationRow>, StoreError> {
    let mut statement = connection
        .prepare_cached(
            "SELECT version, revision, name, digest, status, attempts, started_at_ms, completed_at_ms, failure FROM main._whimbrel_migration WHERE version = ?1",
        )
        .map_err(at("reading the history"))?;
    let mut rows = statement.query([version]).map_err(at("reading the history"))?;
    rows.next().map_err(at("reading the history"))?.map(migration_row).transpose()
}

/// Forgets a migration that was never run here.
pub fn remove_migration(connection: &Connection, version: u32) -> Result<(), StoreError> {
    connection.execute("DELETE FROM main._whimbrel_migration WHERE version = ?1", [version]).map(|_| ()).map_err(at("writing the history"))
}

fn migration_row(row: &Row<'_>) -> Result<MigrationRow, StoreError> {
    let bad = |e: whimbrel_shared::ids::BadId| StoreError::Damaged { what: "_whimbrel_migration", detail: e.to_string() };
    let get = || -> rusqlite::Result<_> {
        Ok((
            (row.get(0)?, row.get(1)?, row.get::<_, String>(2)?, row.get::<_, String>(3)?, row.get::<_, String>(4)?),
            (row.get(5)?, row.get(6)?, row.get(7)?, row.get::<_, Option<String>>(8)?),
        ))
    };
    let ((version, revision, name, digest, status), (attempts, started_at_ms, completed_at_ms, failure)) =
        get().map_err(at("reading the history"))?;
    Ok(MigrationRow {
        version,
        revision,
        name: name.parse().map_err(bad)?,
        digest: digest.parse().map_err(bad)?,
        status: parse("_whimbrel_migration", &status)?,
        attempts,
        started_at_ms,
        completed_at_ms,
        failure: failure.map(|f| parse("_whimbrel_migration", &f)).transpose()?,
    })
}

/// Writes a migration's row.
pub fn put_migration(connection: &Connection, row: &MigrationRow) -> Result<(), StoreError> {
    let mut statement = connection
        .prepare_cached(
            "INSERT OR REPLACE INTO main._whimbrel_migration
             (version, revision, name, digest, status, attempts, started_at_ms, completed_at_ms, failure, error) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)",
        )
        .map_err(at("writing the history"))?;
    statement
        .execute(params![
            row.version,
            row.revision,
            row.name.as_str(),
            row.digest.to_string(),
            row.status.as_str(),
            row.attempts,
            row.started_at_ms,
            row.completed_at_ms,
            row.failure.as_ref().map(word),
            row.failure.as_ref().map(|f| f.message.as_str()),
        ])
        .map(|_| ())
        .map_err(at("writing the history"))
}

/// Appends a fact. It is a report from the moment it is committed.
pub fn append_event(connection: &Connection, event: &Event) -> Result<(), StoreError> {
    let mut statement = connection
        .prepare_cached(
            "INSERT INTO main._whimbrel_event (event_id, kind, operation, migration, version, revision, digest, status, attempt, asked_by, at_ms,
             took_ms, failure, error, fingerprint, rows, verify_skipped) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17)",
        )
        .map_err(at("writing an event"))?;
    statement
        .execute(params![
            event.event_id.to_string(),
            event.kind.as_str(),
            word(&event.operation),
            event.migration.as_str(),
            event.version,
            event.revision,
            event.digest.to_string(),
            event.status.as_str(),
            event.attempt,
            word(&event.by),
            event.at_ms,
            event.took_ms.map(u64::cast_signed),
            event.failure.as_ref().map(word),
            event.failure.as_ref().map(|f| f.message.as_str()),
            event.fingerprint.map(|f| f.to_string()),
            event.rows.as_ref().map(word),
            event.verify_skipped,
        ])
        .map(|_| ())
        .map_err(at("writing an event"))
}

/// Whether the event with this number has this id: if not, the file is not the one that was read last.
pub fn event_is(connection: &Connection, seq: i64, event_id: &str) -> Result<bool, StoreError> {
    connection
        .query_row("SELECT count(*) FROM main._whimbrel_event WHERE seq = ?1 AND event_id = ?2", params![seq, event_id], |row| row.get(0))
        .map_err(at("reading events"))
}

/// Number and id of the newest event.
pub fn last_event(connection: &Connection) -> Result<Option<(i64, String)>, StoreError> {
    connection
        .query_row("SELECT seq, event_id FROM main._whimbrel_event ORDER BY seq DESC LIMIT 1", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .map_err(at("reading events"))
}

/// Id of the event with this number.
pub fn event_at(connection: &Connection, seq: i64) -> Result<Option<String>, StoreError> {
    connection.query_row("SELECT event_id FROM main._whimbrel_event WHERE seq = ?1", [seq], |row| row.get(0)).optional().map_err(at("reading events"))
}

/// Up to `limit` events after `seq`, with their numbers.
pub fn events_after(connection: &Connection, identity: &FileIdentity, seq: i64, limit: u32) -> Result<Vec<(i64, Event)>, StoreError> {
    let bad = |e: whimbrel_shared::ids::BadId| StoreError::Damaged { what: "_whimbrel_event", detail: e.to_string() };
    let text = |row: &Row<'_>, column: usize| row.get::<_, String>(column).map_err(at("reading events"));
    let mut statement = connection
        .prepare_cached(
            "SELECT seq, event_id, kind, operation, migration, version, revision, digest, status, attempt, asked_by, at_ms, took_ms, failure, fingerprint,
             rows, verify_skipped FROM main._whimbrel_event WHERE seq > ?1 ORDER BY seq LIMIT ?2",
        )
        .map_err(at("reading events"))?;
    let mut rows = statement.query(params![seq, limit]).map_err(at("reading events"))?;
    let mut events = Vec::new();
    while let Some(row) = rows.next().map_err(at("reading events"))? {
        let numbers = || -> rusqlite::Result<_> {
            Ok((
                row.get(0)?,
                row.get(5)?,
                row.get(6)?,
                row.get(9)?,
                row.get(11)?,
                row.get::<_, Option<i64>>(12)?,
                row.get::<_, Option<String>>(13)?,
                row.get::<_, Option<String>>(14)?,
                row.get::<_, Option<String>>(15)?,
                row.get(16)?,
            ))
        };
        let (seq, version, revision, attempt, at_ms, took_ms, failure, fingerprint, rows_json, verify_skipped) =
            numbers().map_err(at("reading events"))?;
        let event_id: EventId = text(row, 1)?.parse().map_err(bad)?;
        events.push((
            seq,
            Event {
                event_id,
                client_id: identity.client_id,
                app: identity.app.clone(),
                kind: parse("_whimbrel_event", &text(row, 2)?)?,
                operation: parse("_whimbrel_event", &text(row, 3)?)?,
                migration: text(row, 4)?.parse().map_err(bad)?,
                version,
                revision,
                digest: text(row, 7)?.parse().map_err(bad)?,
                status: parse("_whimbrel_event", &text(row, 8)?)?,
                attempt,
                by: parse("_whimbrel_event", &text(row, 10)?)?,
                at_ms,
                took_ms: took_ms.map(i64::cast_unsigned),
                failure: failure.map(|f| parse("_whimbrel_event", &f)).transpose()?,
                fingerprint: fingerprint.map(|f| f.parse().map_err(bad)).transpose()?,
                rows: rows_json.map(|r| parse("_whimbrel_event", &r)).transpose()?,
                verify_skipped,
            },
        ));
    }
    Ok(events)
}

/// What is being run, or was when somebody died.
pub fn intent(connection: &Connection) -> Result<Option<Intent>, StoreError> {
    let row = connection
        .prepare_cached("SELECT operation, from_version, to_version, next_version, asked_by, started_at_ms FROM main._whimbrel_intent")
        .and_then(|mut s| {
            s.query_row([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get::<_, String>(4)?, row.get(5)?)))
                .optional()
        })
        .map_err(at("reading the intent"))?;
    row.map(|(operation, from, to, next, by, started_at_ms)| {
        Ok(Intent { operation: parse("_whimbrel_intent", &operation)?, from, to, next, by: parse("_whimbrel_intent", &by)?, started_at_ms })
    })
    .transpose()
}

/// Writes what is about to run.
pub fn put_intent(connection: &Connection, intent: &Intent) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO main._whimbrel_intent (one, operation, from_version, to_version, next_version, asked_by, started_at_ms)
             VALUES (1,?1,?2,?3,?4,?5,?6)",
        )
        .and_then(|mut s| s.execute(params![word(&intent.operation), intent.from, intent.to, intent.next, word(&intent.by), intent.started_at_ms]))
        .map(|_| ())
        .map_err(at("writing the intent"))
}

/// `version` is done, and `next` comes next, or the run is over. `false`: the intent stood elsewhere, and is as it was.
pub fn advance_intent(connection: &Connection, operation: Operation, version: u32, next: Option<u32>) -> Result<bool, StoreError> {
    let changed = match next {
        Some(next) => connection
            .prepare_cached("UPDATE main._whimbrel_intent SET next_version = ?3 WHERE operation = ?1 AND next_version = ?2")
            .and_then(|mut s| s.execute(params![word(&operation), version, next])),
        None => connection
            .prepare_cached("DELETE FROM main._whimbrel_intent WHERE operation = ?1 AND next_version = ?2")
            .and_then(|mut s| s.execute(params![word(&operation), version])),
    };
    changed.map(|rows| rows == 1).map_err(at("writing the intent"))
}

/// The run is over.
pub fn clear_intent(connection: &Connection) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM main._whimbrel_intent").and_then(|mut s| s.execute([])).map(|_| ()).map_err(at("clearing the intent"))
}

/// Crashes in a row of one version, without progress.
pub fn crashes(connection: &Connection, version: u32) -> Result<u32, StoreError> {
    connection
        .prepare_cached("SELECT count FROM main._whimbrel_crash WHERE version = ?1")
        .and_then(|mut s| s.query_row([version], |row| row.get(0)).optional())
        .map(Option::unwrap_or_default)
        .map_err(at("reading crashes"))
}

/// One more crash of `version`; none clears the count of every version.
pub fn count_crash(connection: &Connection, version: Option<u32>) -> Result<(), StoreError> {
    match version {
        Some(version) => connection
            .execute(
                "INSERT OR REPLACE INTO main._whimbrel_crash (version, count)
                 VALUES (?1, 1 + coalesce((SELECT count FROM main._whimbrel_crash WHERE version = ?1), 0))",
                [version],
            )
            .map(|_| ()),
        None => connection.prepare_cached("DELETE FROM main._whimbrel_crash").and_then(|mut s| s.execute([])).map(|_| ()),
    }
    .map_err(at("writing crashes"))
}
