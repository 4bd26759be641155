//! Devices, their databases and what they may do, in SQLite.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{OptionalExtension, Transaction};
use whimbrel_shared::{
    PROTOCOL,
    ids::{AppName, ClientId, DeviceId, Digest, EnrolmentId},
    protocol::{
        poll::{Order, Plan, PollResponse, RepositoryHead, SignedHead},
        state::{DatabaseState, MAX_DATABASES, StateRequest},
    },
};

use super::{json_or_null, natural, parsed, to_json, tokens};
use crate::{
    decide::plan,
    secrets,
    store::{ClientRef, Enrolled, Enrolment, Refusal, StoreError},
};

pub(super) fn enroll(tx: &Transaction<'_>, ask: &Enrolment) -> Result<Enrolled, StoreError> {
    let (token_id, app, uses_left, expires_at_ms, stored) = tx
        .query_row(
            "SELECT id, app, uses_left, expires_at_ms, token_hash FROM enrolment_token
             WHERE token_hash = ?1 AND revoked_at_ms IS NULL",
            [ask.token.to_string()],
            |row| Ok((row.get::<_, i64>(0)?, parsed::<AppName>(row, 1)?, row.get::<_, u32>(2)?, row.get::<_, i64>(3)?, parsed::<Digest>(row, 4)?)),
        )
        .optional()?
        .ok_or(Refusal::UnknownEnrolment)?;
    if !secrets::same(&stored, &ask.token) {
        return Err(Refusal::UnknownEnrolment.into());
    }
    if expires_at_ms <= ask.now_ms {
        return Err(Refusal::EnrolmentExpired.into());
    }
    if let Some((id, content)) = &ask.id
        && let Some((device_id, granted)) = granted(tx, *id)?
    {
        if granted != *content {
            return Err(Refusal::EnrolmentDiffers(*id).into());
        }
        let counts = match &ask.known {
            Some((_, token)) => tokens::holder(tx, token, ask.now_ms)?.is_some_and(|h| h.device_id == device_id && !h.revoked),
            None => false,
        };
        if !counts {
            // The device token went the way of the lost answer, and only its hash is here: the device gets another.
            tokens::replace(tx, device_id, &ask.fresh.1, ask.now_ms)?;
        }
        return Ok(Enrolled { device_id, app, fresh: !counts });
    }
    let mut revoked = false;
    if let Some((known, token)) = &ask.known {
        let holder = tokens::holder(tx, token, ask.now_ms)?.filter(|h| h.device_id == *known);
        revoked = holder.ok_or(Refusal::UnknownDevice(*known))?.revoked;
        if !revoked && apps(tx, *known)?.contains(&app) {
            return Ok(Enrolled { device_id: *known, app, fresh: false });
        }
    }
    if uses_left == 0 {
        return Err(Refusal::EnrolmentUsedUp.into());
    }
    tx.execute("UPDATE enrolment_token SET uses_left = uses_left - 1 WHERE id = ?1", [token_id])?;
    let device_id = match &ask.known {
        Some((known, _)) => *known,
        None => ask.fresh.0,
    };
    if ask.known.is_none() {
        tx.execute(
            "INSERT INTO device (device_id, token_hash, name, daemon_version, labels, enrolled_at_ms, last_seen_ms, token_since_ms)
             VALUES (?1, ?2, ?3, ?4, '{}', ?5, ?5, ?5)",
            (device_id.to_string(), ask.fresh.1.to_string(), &ask.name, &ask.daemon_version, ask.now_ms),
        )?;
    }
    if revoked {
        // The operator's new enrolment token is their word that it is welcome again; its old token stays ended.
        tokens::replace(tx, device_id, &ask.fresh.1, ask.now_ms)?;
    }
    // The token's space, where it is for others to say and not for the device.
    tx.execute(
        "INSERT INTO device_app (device_id, app, space) SELECT ?1, ?2, space FROM enrolment_token WHERE id = ?3
         ON CONFLICT DO NOTHING",
        (device_id.to_string(), app.as_str(), token_id),
    )?;
    if let Some((id, content)) = &ask.id {
        tx.execute(
            "INSERT INTO enrolment (enrolment_id, content, token_id, device_id, granted_at_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
            (id.to_string(), content.to_string(), token_id, device_id.to_string(), ask.now_ms),
        )?;
    }
    Ok(Enrolled { device_id, app, fresh: revoked || ask.known.is_none() })
}

/// The device that a wish was granted to, and the digest of what was asked.
fn granted(tx: &Transaction<'_>, id: EnrolmentId) -> Result<Option<(DeviceId, Digest)>, StoreError> {
    let mut query = tx.prepare_cached("SELECT device_id, content FROM enrolment WHERE enrolment_id = ?1")?;
    Ok(query.query_row([id.to_string()], |row| Ok((parsed(row, 0)?, parsed(row, 1)?))).optional()?)
}

pub(super) fn apps(tx: &Transaction<'_>, device: DeviceId) -> Result<BTreeSet<AppName>, StoreError> {
    let mut query = tx.prepare_cached("SELECT app FROM device_app WHERE device_id = ?1")?;
    let rows = query.query_map([device.to_string()], |row| parsed(row, 0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn clients_of(tx: &Transaction<'_>, device: DeviceId) -> Result<Vec<ClientRef>, StoreError> {
    let mut query = tx.prepare_cached("SELECT client_id, app FROM client WHERE device_id = ?1 ORDER BY client_id")?;
    let rows = query.query_map([device.to_string()], |row| Ok(ClientRef { client_id: parsed(row, 0)?, app: parsed(row, 1)? }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn add_client(tx: &Transaction<'_>, device: DeviceId, fresh: ClientRef) -> Result<ClientRef, StoreError> {
    let there = clients_of(tx, device)?.into_iter().find(|c| c.app == fresh.app);
    match there {
        Some(client) => Ok(client),
        None => {
            insert_client(tx, device, &fresh)?;
            Ok(fresh)
        }
    }
}

pub(super) fn save_seen(tx: &Transaction<'_>, seen: &[(DeviceId, i64)]) -> Result<(), StoreError> {
    let mut update = tx.prepare_cached("UPDATE device SET last_seen_ms = max(last_seen_ms, ?2) WHERE device_id = ?1")?;
    for (device, at_ms) in seen {
        update.execute((device.to_string(), at_ms))?;
    }
    Ok(())
}

pub(super) fn save_state(tx: &Transaction<'_>, device: DeviceId, request: &StateRequest) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE device SET daemon_version = ?2, labels = ?3 WHERE device_id = ?1",
        (device.to_string(), &request.daemon_version, to_json(&request.labels)?),
    )?;
    // The device has its token: an answer that was lost is not given again, or whoever saw the wish could become it.
    tx.prepare_cached("DELETE FROM enrolment WHERE device_id = ?1")?.execute([device.to_string()])?;
    let apps = apps(tx, device)?;
    for database in &request.databases {
        claim(tx, device, &apps, database.client_id, &database.app)?;
        save_database(tx, database)?;
    }
    within_limit(tx, device)
}

fn save_database(tx: &Transaction<'_>, database: &DatabaseState) -> Result<(), StoreError> {
    tx.prepare_cached(
        "UPDATE client SET state = ?2, reported_version = ?3, version = ?3,
                state_seq = (SELECT coalesce(max(seq), 0) FROM event)
         WHERE client_id = ?1",
    )?
    .execute((database.client_id.to_string(), to_json(database)?, database.version))?;
    Ok(())
}

/// Makes sure that `client` is a database of `app` on `device`: makes it when nobody has it.
pub(super) fn claim(tx: &Transaction<'_>, device: DeviceId, apps: &BTreeSet<AppName>, client: ClientId, app: &AppName) -> Result<(), StoreError> {
    if !apps.contains(app) {
        return Err(Refusal::NotEnrolled(app.clone()).into());
    }
    let owner = tx
        .prepare_cached("SELECT device_id, app FROM client WHERE client_id = ?1")?
        .query_row([client.to_string()], |row| Ok((parsed::<DeviceId>(row, 0)?, parsed::<AppName>(row, 1)?)))
        .optional()?;
    match owner {
        Some((of, its_app)) if of == device && its_app == *app => Ok(()),
        Some(_) => Err(Refusal::ClientTaken(client).into()),
        None => {
            let app = app.clone();
            let client_id = client;
            insert_client(tx, device, &ClientRef { client_id, app })
        }
    }
}

fn insert_client(tx: &Transaction<'_>, device: DeviceId, client: &ClientRef) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO client (client_id, device_id, app, reported_version, state_seq, version, plan_seq)
         VALUES (?1, ?2, ?3, 0, 0, 0, 0)",
    )?
    .execute((client.client_id.to_string(), device.to_string(), client.app.as_str()))?;
    Ok(())
}

/// Refuses a deed after which a device has too many databases. Once per deed: counting is not free.
pub(super) fn within_limit(tx: &Transaction<'_>, device: DeviceId) -> Result<(), StoreError> {
    let there: i64 = tx.prepare_cached("SELECT count(*) FROM client WHERE device_id = ?1")?.query_row([device.to_string()], |row| row.get(0))?;
    if there > MAX_DATABASES as i64 {
        return Err(Refusal::TooManyClients.into());
    }
    Ok(())
}

pub(super) fn poll(tx: &Transaction<'_>, token: &Digest, now_ms: i64) -> Result<Option<(DeviceId, PollResponse)>, StoreError> {
    let Some(device) = tokens::device(tx, token, now_ms)? else {
        return Ok(None);
    };
    let mut query = tx.prepare_cached(
        "SELECT c.client_id, c.app, max(a.plan_seq, c.plan_seq), c.plan, a.plan, a.latest
         FROM client c JOIN app a ON a.name = c.app WHERE c.device_id = ?1 ORDER BY c.client_id",
    )?;
    let plans = query.query_map([device.device_id.to_string()], |row| {
        let own: Option<Order> = json_or_null(row, 3)?;
        Ok(Plan {
            client_id: parsed(row, 0)?,
            app: parsed(row, 1)?,
            plan_seq: natural(row, 2)?,
            order: plan::order(own, json_or_null(row, 4)?, row.get(5)?),
        })
    })?;
    let plans = plans.collect::<Result<_, _>>()?;
    let mut repository = BTreeMap::new();
    let mut query = tx.prepare_cached(
        "SELECT targets_version, targets_digest,
                (SELECT max(version) FROM metadata WHERE app = a.name AND role = 'root'),
                (SELECT CAST(body AS TEXT) FROM metadata WHERE app = a.name AND role = 'timestamp' ORDER BY version DESC LIMIT 1)
         FROM app a WHERE name = ?1",
    )?;
    for app in device.apps {
        let head = query.query_row([app.as_str()], |row| {
            // Before the first signed publish there is a root and nothing below it.
            let timestamp: Option<String> = row.get(3)?;
            let signed = timestamp.map(|timestamp| Ok::<_, rusqlite::Error>(SignedHead { root_version: natural(row, 2)?, timestamp })).transpose()?;
            Ok(RepositoryHead { version: natural(row, 0)?, digest: parsed(row, 1)?, signed })
        })?;
        repository.insert(app, head);
    }
    let answer = PollResponse { protocol: PROTOCOL, plans, signed_plans: Vec::new(), repository };
    Ok(Some((device.device_id, answer)))
}
