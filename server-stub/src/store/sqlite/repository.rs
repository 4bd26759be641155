//! Published migrations and the targets metadata, in SQLite.

use rusqlite::{OptionalExtension, Transaction};
use whimbrel_shared::{
    ids::{AppName, ClientId, Digest, MigrationName},
    migration::SeedMigration,
    protocol::{poll::Order, publish::SeedQueries},
};

use super::{fleet, json, json_or_null, keys, metadata, natural, parsed, reports, to_json};
use crate::{
    decide::{plan, publish as chain},
    store::{Publication, Refusal, StoreError},
};

/// Most migrations, and most bytes of them, in one answer to a seed client. It asks again when it has done those.
const PENDING: usize = 500;
const PENDING_BYTES: usize = 16 * 1024 * 1024;

/// Makes an app that has published nothing, if it is not there.
pub(super) fn ensure_app(tx: &Transaction<'_>, app: &AppName) -> Result<(), StoreError> {
    let bytes = chain::bytes(&chain::nothing_published(app));
    tx.execute(
        "INSERT INTO app (name, targets, targets_version, targets_digest, latest, plan_seq)
         VALUES (?1, ?2, 0, ?3, 0, 1) ON CONFLICT (name) DO NOTHING",
        (app.as_str(), &bytes, Digest::of(&bytes).to_string()),
    )?;
    Ok(())
}

pub(super) fn targets(tx: &Transaction<'_>, app: &AppName) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(tx.prepare_cached("SELECT targets FROM app WHERE name = ?1")?.query_row([app.as_str()], |row| row.get(0)).optional()?)
}

pub(super) fn target(tx: &Transaction<'_>, app: &AppName, path: &str) -> Result<Option<(Digest, Vec<u8>)>, StoreError> {
    Ok(tx
        .prepare_cached("SELECT digest, body FROM migration WHERE app = ?1 AND path = ?2")?
        .query_row([app.as_str(), path], |row| Ok((parsed(row, 0)?, row.get(1)?)))
        .optional()?)
}

pub(super) fn publish(tx: &Transaction<'_>, publication: &Publication) -> Result<(), StoreError> {
    let app = &publication.targets.app;
    ensure_app(tx, app)?;
    let version = tx.query_row("SELECT targets_version FROM app WHERE name = ?1", [app.as_str()], |row| natural(row, 0))?;
    if version != publication.decided_on {
        return Err(Refusal::PublishRace(app.clone()).into());
    }
    for link in &publication.links {
        let place = &link.target.custom;
        tx.execute(
            "INSERT INTO migration (app, name, version, revision, path, digest, body, seed, published_at_ms, published_by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            (
                app.as_str(),
                place.name.as_str(),
                place.version,
                place.revision,
                link.target.path(),
                link.target.digest().to_string(),
                link.body.as_bytes(),
                to_json(&link.seed)?,
                publication.now_ms,
                &publication.by,
            ),
        )?;
    }
    let bytes = chain::bytes(&publication.targets);
    let plan_seq = fleet::next_plan_seq(tx, app, publication.now_ms)?;
    tx.execute(
        "UPDATE app SET targets = ?2, targets_version = ?3, targets_digest = ?4, latest = ?5, plan_seq = ?6 WHERE name = ?1",
        (
            app.as_str(),
            &bytes,
            i64::try_from(publication.targets.version).unwrap_or(i64::MAX),
            Digest::of(&bytes).to_string(),
            publication.latest,
            plan_seq,
        ),
    )?;
    if let Some(signing) = &publication.signing {
        metadata::save(tx, signing)?;
    }
    let names: Vec<String> = publication.links.iter().map(|l| l.target.path()).collect();
    let detail = format!("{app}: {}", names.join(", "));
    keys::note(tx, publication.now_ms, &publication.by, "publish", &detail)
}

pub(super) fn pending(tx: &Transaction<'_>, client: ClientId) -> Result<Vec<SeedMigration>, StoreError> {
    let (app, version, latest, order) = tx
        .prepare_cached(
            "SELECT c.app, c.version, a.latest, c.plan, a.plan FROM client c JOIN app a ON a.name = c.app
             WHERE c.client_id = ?1",
        )?
        .query_row([client.to_string()], |row| {
            let latest = row.get(2)?;
            let own: Option<Order> = json_or_null(row, 3)?;
            let order = plan::order(own, json_or_null(row, 4)?, latest);
            let app: AppName = parsed(row, 0)?;
            Ok((app, row.get::<_, u32>(1)?, latest, order))
        })?;
    let ahead = reports::ahead(tx, client)?;
    // The newest revision stands for its version: a client that has not completed it takes that one.
    let mut query = tx.prepare_cached(
        "SELECT m.version, m.name, m.seed FROM migration m
         WHERE m.app = ?1 AND m.version > ?2 AND m.version <= ?3
           AND m.revision = (SELECT max(r.revision) FROM migration r WHERE r.app = m.app AND r.version = m.version)
         ORDER BY m.version",
    )?;
    let rows = query.query_map((app.as_str(), version, plan::allowed(order, latest)), |row| {
        let name: MigrationName = parsed(row, 1)?;
        let seed: SeedQueries = json(row, 2)?;
        Ok((row.get::<_, u32>(0)?, name, seed))
    })?;
    let mut answer = Vec::new();
    let mut bytes = 0usize;
    for row in rows {
        let (version, migration_name, seed) = row?;
        if ahead.contains(&version) {
            continue;
        }
        let queries = seed.up_queries.iter().chain(&seed.down_queries);
        bytes = bytes.saturating_add(queries.map(String::len).sum());
        if !answer.is_empty() && (answer.len() >= PENDING || bytes > PENDING_BYTES) {
            break;
        }
        answer.push(SeedMigration {
            timestamp: seed.timestamp,
            migration_name,
            up_queries: seed.up_queries,
            down_queries: seed.down_queries,
            client_applied: false,
        });
    }
    Ok(answer)
}
