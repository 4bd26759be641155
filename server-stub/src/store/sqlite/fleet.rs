//! What operators read, and the plans they set, in SQLite.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, Row, Transaction};
use whimbrel_shared::{
    ids::{AppName, ClientId},
    protocol::{
        clients::{ClientDetail, ClientSummary, ClientsResponse, MigrationStatus, PlanRequest, PublishedMigration},
        poll::Order,
        state::DatabaseState,
    },
    status::{Event, Status},
};

use super::{json, json_or_null, keys, parsed, reports, to_json};
use crate::{
    decide::plan as decide,
    store::{ClientPlan, ClientsPage, HistoryResponse, Page, PlanResponse, Refusal, StoreError},
};

/// How much history a database's own page shows.
const DETAIL_EVENTS: u32 = 50;
/// How many databases' own plans are listed with their app's.
const LISTED_PLANS: u32 = 500;

const SUMMARY: &str = "SELECT c.client_id, c.app, c.version, c.state, c.plan, a.plan, a.latest,
         d.device_id, d.name, d.last_seen_ms,
         EXISTS (SELECT 1 FROM client_migration p
                 WHERE p.client_id = c.client_id AND p.status = 'failed' AND p.version > c.version)
    FROM client c JOIN app a ON a.name = c.app JOIN device d ON d.device_id = c.device_id";

pub(super) fn clients(tx: &Transaction<'_>, page: &ClientsPage) -> Result<ClientsResponse, StoreError> {
    let after = page.after.map(|id| id.to_string()).unwrap_or_default();
    let app = page.app.as_ref().map(AppName::as_str);
    let mut query = tx.prepare_cached(&format!(
        "{SUMMARY} WHERE c.client_id > ?1 AND (?2 IS NULL OR c.app = ?2) AND (NOT ?3 OR c.version < a.latest)
         ORDER BY c.client_id LIMIT ?4"
    ))?;
    let rows = query.query_map((after, app, page.outdated, page.limit), summary)?;
    let mut clients = Vec::new();
    for row in rows {
        clients.push(with_pending(tx, row?)?);
    }
    let full = clients.len() >= page.limit as usize;
    let next = clients.last().filter(|_| full).map(|c| c.state.client_id);
    Ok(ClientsResponse { clients, next })
}

pub(super) fn client(tx: &Transaction<'_>, id: ClientId) -> Result<Option<ClientDetail>, StoreError> {
    let found = tx.prepare_cached(&format!("{SUMMARY} WHERE c.client_id = ?1"))?.query_row([id.to_string()], summary).optional()?;
    let Some(found) = found else { return Ok(None) };
    let mut query = tx.prepare_cached("SELECT detail FROM client_migration WHERE client_id = ?1 ORDER BY version, name")?;
    let migrations = query.query_map([id.to_string()], |row| json::<MigrationStatus>(row, 0))?.collect::<Result<_, _>>()?;
    let page = Page { before: None, limit: DETAIL_EVENTS };
    Ok(Some(ClientDetail { client: with_pending(tx, found)?, migrations, history: history(tx, id, page)?.map_or_else(Vec::new, |h| h.events) }))
}

pub(super) fn history(tx: &Transaction<'_>, id: ClientId, page: Page) -> Result<Option<HistoryResponse>, StoreError> {
    let known = tx.prepare_cached("SELECT 1 FROM client WHERE client_id = ?1")?.exists([id.to_string()])?;
    if !known {
        return Ok(None);
    }
    let mut query = tx.prepare_cached("SELECT seq, body FROM event WHERE client_id = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3")?;
    let rows =
        query.query_map((id.to_string(), page.before.unwrap_or(i64::MAX), page.limit), |row| Ok((row.get::<_, i64>(0)?, json::<Event>(row, 1)?)))?;
    let rows: Vec<(i64, Event)> = rows.collect::<Result<_, _>>()?;
    let full = rows.len() >= page.limit as usize;
    let next = rows.last().filter(|_| full).map(|(seq, _)| *seq);
    let events = rows.into_iter().map(|(_, event)| event).collect();
    Ok(Some(HistoryResponse { events, next }))
}

pub(super) fn migrations(tx: &Transaction<'_>, app: &AppName) -> Result<Option<Vec<PublishedMigration>>, StoreError> {
    if app_plan(tx, app)?.is_none() {
        return Ok(None);
    }
    let at = counts(tx, app, "SELECT version, count(*) FROM client WHERE app = ?1 GROUP BY version")?;
    let ahead = counts(
        tx,
        app,
        "SELECT p.version, count(*) FROM client_migration p JOIN client c ON c.client_id = p.client_id
         WHERE c.app = ?1 AND p.status IN ('completed', 'skipped') AND p.version > c.version AND p.seq > c.state_seq
         GROUP BY p.version",
    )?;
    let failed = counts(
        tx,
        app,
        "SELECT p.version, count(*) FROM client_migration p JOIN client c ON c.client_id = p.client_id
         WHERE c.app = ?1 AND p.status = 'failed' AND p.version > c.version GROUP BY p.version",
    )?;
    let mut query = tx.prepare_cached(
        "SELECT name, version, revision, digest, published_at_ms, published_by FROM migration
         WHERE app = ?1 ORDER BY version, revision",
    )?;
    let rows = query.query_map([app.as_str()], |row| {
        let version: u32 = row.get(1)?;
        let count = |map: &BTreeMap<u32, u32>| map.get(&version).copied().unwrap_or_default();
        Ok(PublishedMigration {
            app: app.clone(),
            name: parsed(row, 0)?,
            version,
            revision: row.get(2)?,
            digest: parsed(row, 3)?,
            published_at_ms: row.get(4)?,
            published_by: row.get(5)?,
            completed: at.range(version..).map(|(_, n)| *n).sum::<u32>() + count(&ahead),
            failed: count(&failed),
        })
    })?;
    Ok(Some(rows.collect::<Result<_, _>>()?))
}

pub(super) fn set_plan(tx: &Transaction<'_>, request: &PlanRequest, by: &str, now_ms: i64) -> Result<PlanResponse, StoreError> {
    let app = &request.app;
    let (app_order, latest) = app_plan(tx, app)?.ok_or_else(|| Refusal::NoApp(app.clone()))?;
    if let Some(version) = request.order.map(decide::named).filter(|v| *v > latest) {
        return Err(Refusal::BeyondLatest { version, latest }.into());
    }
    let order = request.order.as_ref().map(to_json).transpose()?;
    let (was, whose) = match request.client_id {
        None => (app_order, app.to_string()),
        Some(id) => {
            let was = tx
                .query_row("SELECT plan FROM client WHERE client_id = ?1 AND app = ?2", [id.to_string().as_str(), app.as_str()], |row| {
                    json_or_null(row, 0)
                })
                .optional()?
                .ok_or(Refusal::NoClient(id))?;
            (was, format!("{app}, database {id}"))
        }
    };
    if was != request.order {
        let seq = next_plan_seq(tx, app, now_ms)?;
        match request.client_id {
            None => tx.execute("UPDATE app SET plan = ?2, plan_seq = ?3 WHERE name = ?1", (app.as_str(), &order, seq))?,
            Some(id) => tx.execute("UPDATE client SET plan = ?2, plan_seq = ?3 WHERE client_id = ?1", (id.to_string(), &order, seq))?,
        };
        let detail = format!("{whose}: {}", order.as_deref().unwrap_or("none"));
        keys::note(tx, now_ms, by, "plan", &detail)?;
    }
    plan(tx, app)?.ok_or_else(|| Refusal::NoApp(app.clone()).into())
}

/// What the next change of a plan is numbered: higher than every plan of the app so far, and by the clock, so that a store that was restored
/// from a backup does not give numbers again that devices have seen.
pub(super) fn next_plan_seq(tx: &Transaction<'_>, app: &AppName, now_ms: i64) -> Result<i64, StoreError> {
    let last: i64 = tx
        .prepare_cached("SELECT max(plan_seq, (SELECT coalesce(max(plan_seq), 0) FROM client WHERE app = ?1)) FROM app WHERE name = ?1")?
        .query_row([app.as_str()], |row| row.get(0))?;
    Ok(last.saturating_add(1).max(now_ms / 1000))
}

pub(super) fn plan(tx: &Transaction<'_>, app: &AppName) -> Result<Option<PlanResponse>, StoreError> {
    let Some((order, latest)) = app_plan(tx, app)? else {
        return Ok(None);
    };
    let mut query = tx.prepare_cached("SELECT client_id, plan FROM client WHERE app = ?1 AND plan IS NOT NULL ORDER BY client_id LIMIT ?2")?;
    let rows = query.query_map((app.as_str(), LISTED_PLANS), |row| Ok(ClientPlan { client_id: parsed(row, 0)?, order: json(row, 1)? }))?;
    Ok(Some(PlanResponse {
        app: app.clone(),
        latest,
        order: decide::order(None, order, latest),
        pinned: order.is_some(),
        clients: rows.collect::<Result<_, _>>()?,
    }))
}

fn app_plan(tx: &Transaction<'_>, app: &AppName) -> Result<Option<(Option<Order>, u32)>, StoreError> {
    Ok(tx
        .prepare_cached("SELECT plan, latest FROM app WHERE name = ?1")?
        .query_row([app.as_str()], |row| Ok((json_or_null(row, 0)?, row.get(1)?)))
        .optional()?)
}

fn counts(tx: &Transaction<'_>, app: &AppName, sql: &str) -> Result<BTreeMap<u32, u32>, StoreError> {
    let mut query = tx.prepare_cached(sql)?;
    let rows = query.query_map([app.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A row of [`SUMMARY`]. `pending` is still to be filled in.
fn summary(row: &Row<'_>) -> rusqlite::Result<ClientSummary> {
    let version = row.get(2)?;
    let latest = row.get(6)?;
    let own: Option<Order> = json_or_null(row, 4)?;
    let failed: bool = row.get(10)?;
    let state = match json_or_null::<DatabaseState>(row, 3)? {
        // A report may be newer than the state.
        Some(state) => DatabaseState { version, ..state },
        None => DatabaseState {
            client_id: parsed(row, 0)?,
            app: parsed(row, 1)?,
            file_name: String::new(),
            epoch: 1,
            version,
            head: None,
            fingerprint: None,
            pending: 0,
            status: match (failed, version < latest) {
                (true, _) => Status::Failed,
                (false, true) => Status::Pending,
                (false, false) => Status::Completed,
            },
            app_version: None,
            app_sqlite: None,
            health: Vec::new(),
            progress: None,
        },
    };
    Ok(ClientSummary {
        device_id: parsed(row, 7)?,
        device_name: row.get(8)?,
        last_seen_ms: row.get(9)?,
        order: decide::order(own, json_or_null(row, 5)?, latest),
        latest,
        pending: 0,
        state,
    })
}

fn with_pending(tx: &Transaction<'_>, mut client: ClientSummary) -> Result<ClientSummary, StoreError> {
    let ahead = reports::ahead(tx, client.state.client_id)?;
    client.pending = decide::pending(client.order, client.latest, client.state.version, &ahead);
    Ok(client)
}
