//! Reports: every event once, and what they say about each migration of each database, in SQLite.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{OptionalExtension, Transaction};
use whimbrel_shared::{
    ids::{ClientId, DeviceId, Digest, EventId, MigrationName},
    protocol::{clients::MigrationStatus, report::SeedStatus},
    status::{Event, Status},
};

use super::{devices, json, parsed, to_json};
use crate::{
    decide::{
        place,
        seed::{self, Known},
    },
    store::{ClientRef, Refusal, StoreError},
};

pub(super) fn report(tx: &Transaction<'_>, device: DeviceId, reports: Vec<Event>, now_ms: i64) -> Result<Vec<EventId>, StoreError> {
    let apps = devices::apps(tx, device)?;
    let mut touched = BTreeSet::new();
    let mut stored = Vec::with_capacity(reports.len());
    for event in &reports {
        devices::claim(tx, device, &apps, event.client_id, &event.app)?;
        if store_event(tx, event, now_ms)? {
            touched.insert(event.client_id);
        }
        stored.push(event.event_id);
    }
    for client in touched {
        place(tx, client)?;
    }
    devices::within_limit(tx, device)?;
    Ok(stored)
}

pub(super) fn report_flag(
    tx: &Transaction<'_>,
    client: &ClientRef,
    flag: SeedStatus,
    id: EventId,
    now_ms: i64,
) -> Result<Option<EventId>, StoreError> {
    let before = status_of(tx, client.client_id, &flag.migration_name)?;
    let known = tx
        .prepare_cached(
            "SELECT version, revision, digest FROM migration WHERE app = ?1 AND name = ?2
             ORDER BY revision DESC LIMIT 1",
        )?
        .query_row([client.app.as_str(), flag.migration_name.as_str()], |row| {
            Ok(Known { version: row.get(0)?, revision: row.get(1)?, digest: parsed(row, 2)? })
        })
        .optional()?;
    let Some(event) = seed::event(before.as_ref(), known, client.client_id, &client.app, flag, id, now_ms) else {
        return Ok(None);
    };
    store_event(tx, &event, now_ms)?;
    place(tx, client.client_id)?;
    Ok(Some(id))
}

/// Stores an event, unless it is there. Answers whether it is new.
fn store_event(tx: &Transaction<'_>, event: &Event, now_ms: i64) -> Result<bool, StoreError> {
    let body = to_json(event)?;
    let content = Digest::of(body.as_bytes());
    let known: Option<Digest> = tx
        .prepare_cached("SELECT content FROM event WHERE event_id = ?1")?
        .query_row([event.event_id.to_string()], |row| parsed(row, 0))
        .optional()?;
    match known {
        Some(known) if known == content => return Ok(false),
        Some(_) => return Err(Refusal::EventDiffers(event.event_id).into()),
        None => {}
    }
    tx.prepare_cached("INSERT INTO event (event_id, content, client_id, body, received_at_ms) VALUES (?1, ?2, ?3, ?4, ?5)")?.execute((
        event.event_id.to_string(),
        content.to_string(),
        event.client_id.to_string(),
        body,
        now_ms,
    ))?;
    let seq = tx.last_insert_rowid();
    let before = status_of(tx, event.client_id, &event.migration)?;
    let after = place::after(before, event);
    tx.prepare_cached(
        "INSERT INTO client_migration (client_id, name, version, status, detail, seq) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (client_id, name) DO UPDATE SET
           version = excluded.version, status = excluded.status, detail = excluded.detail, seq = excluded.seq",
    )?
    .execute((event.client_id.to_string(), event.migration.as_str(), after.version, after.status.as_str(), to_json(&after)?, seq))?;
    Ok(true)
}

fn status_of(tx: &Transaction<'_>, client: ClientId, name: &MigrationName) -> Result<Option<MigrationStatus>, StoreError> {
    Ok(tx
        .prepare_cached("SELECT detail FROM client_migration WHERE client_id = ?1 AND name = ?2")?
        .query_row([client.to_string().as_str(), name.as_str()], |row| json(row, 0))
        .optional()?)
}

/// Writes down up to which version everything is in place.
fn place(tx: &Transaction<'_>, client: ClientId) -> Result<(), StoreError> {
    let id = client.to_string();
    let reported: u32 = tx.prepare_cached("SELECT reported_version FROM client WHERE client_id = ?1")?.query_row([&id], |row| row.get(0))?;
    let version = place::version(reported, &newer_than_state(tx, client)?);
    tx.prepare_cached("UPDATE client SET version = ?2 WHERE client_id = ?1")?.execute((&id, version))?;
    Ok(())
}

/// Versions in place above a gap: only a seed client makes one.
pub(super) fn ahead(tx: &Transaction<'_>, client: ClientId) -> Result<Vec<u32>, StoreError> {
    let version: u32 = tx.prepare_cached("SELECT version FROM client WHERE client_id = ?1")?.query_row([client.to_string()], |row| row.get(0))?;
    let newer = newer_than_state(tx, client)?;
    let ahead = newer.range(version.saturating_add(1)..);
    Ok(ahead.filter(|(_, status)| status.is_in_place()).map(|(version, _)| *version).collect())
}

/// What reports that arrived after the last state say about published migrations.
fn newer_than_state(tx: &Transaction<'_>, client: ClientId) -> Result<BTreeMap<u32, Status>, StoreError> {
    let mut query = tx.prepare_cached(
        "SELECT p.version, p.status FROM client c JOIN client_migration p ON p.client_id = c.client_id
         WHERE c.client_id = ?1 AND p.seq > c.state_seq AND EXISTS (
           SELECT 1 FROM migration m WHERE m.app = c.app AND m.version = p.version AND m.name = p.name)",
    )?;
    let rows = query.query_map([client.to_string()], |row| Ok((row.get(0)?, status(row, 1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn status(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Status> {
    let word: String = row.get(column)?;
    Status::parse(&word).ok_or_else(|| rusqlite::Error::InvalidColumnType(column, word, rusqlite::types::Type::Text))
}
