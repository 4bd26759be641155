//! Whose a device token is, how a device takes another, and how an operator ends them all, in SQLite.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, Transaction};
use whimbrel_shared::ids::{AppName, DeviceId, Digest};

use super::{devices, keys, parsed};
use crate::{
    secrets,
    store::{Device, DeviceInfo, DevicesPage, DevicesResponse, Refusal, Rotation, StoreError},
};

/// Whose a token is.
pub(super) struct Holder {
    pub(super) device_id: DeviceId,
    /// Whether it is the one that counts, and not the one before it.
    pub(super) current: bool,
    /// Whether an operator ended it.
    pub(super) revoked: bool,
}

/// Who has a token that counts at `now_ms`, or has been revoked.
pub(super) fn holder(tx: &Transaction<'_>, token: &Digest, now_ms: i64) -> Result<Option<Holder>, StoreError> {
    let found = tx
        .prepare_cached(
            "SELECT device_id, 1, revoked_at_ms IS NOT NULL, token_hash FROM device WHERE token_hash = ?1
             UNION ALL
             SELECT device_id, 0, revoked_at_ms IS NOT NULL, previous_hash FROM device WHERE previous_hash = ?1 AND previous_until_ms > ?2 LIMIT 1",
        )?
        .query_row((token.to_string(), now_ms), |row| {
            let holder = Holder { device_id: parsed(row, 0)?, current: row.get(1)?, revoked: row.get(2)? };
            Ok((holder, parsed::<Digest>(row, 3)?))
        })
        .optional()?;
    Ok(found.filter(|(_, stored)| secrets::same(stored, token)).map(|(holder, _)| holder))
}

pub(super) fn device(tx: &Transaction<'_>, token: &Digest, now_ms: i64) -> Result<Option<Device>, StoreError> {
    match holder(tx, token, now_ms)? {
        None => Ok(None),
        Some(Holder { revoked: true, .. }) => Err(Refusal::DeviceRevoked.into()),
        Some(Holder { device_id, .. }) => Ok(Some(Device { device_id, apps: devices::apps(tx, device_id)? })),
    }
}

pub(super) fn rotate(tx: &Transaction<'_>, ask: &Rotation) -> Result<Option<DeviceId>, StoreError> {
    let Some(holder) = holder(tx, &ask.token, ask.now_ms)? else { return Ok(None) };
    let device_id = holder.device_id;
    if holder.revoked {
        return Err(Refusal::DeviceRevoked.into());
    }
    let (current, taken) = tx.query_row(
        "SELECT (SELECT token_hash FROM device WHERE device_id = ?1), EXISTS (SELECT 1 FROM device WHERE token_hash = ?2 OR previous_hash = ?2)",
        (device_id.to_string(), ask.next.to_string()),
        |row| Ok((parsed::<Digest>(row, 0)?, row.get::<_, bool>(1)?)),
    )?;
    if secrets::same(&current, &ask.next) {
        // Its answer was lost.
        return Ok(Some(device_id));
    }
    if !holder.current || taken {
        return Err(Refusal::TokenReplaced(device_id).into());
    }
    tx.execute(
        "UPDATE device SET token_hash = ?2, token_since_ms = ?3, previous_hash = ?4, previous_until_ms = ?5 WHERE device_id = ?1",
        (device_id.to_string(), ask.next.to_string(), ask.now_ms, ask.token.to_string(), ask.now_ms.saturating_add(ask.grace_ms)),
    )?;
    Ok(Some(device_id))
}

/// Gives a device a token that nothing else counts beside; one that was revoked is welcome again.
pub(super) fn replace(tx: &Transaction<'_>, device: DeviceId, token: &Digest, now_ms: i64) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE device SET token_hash = ?2, token_since_ms = ?3, previous_hash = NULL, previous_until_ms = NULL, revoked_at_ms = NULL
         WHERE device_id = ?1",
        (device.to_string(), token.to_string(), now_ms),
    )?;
    Ok(())
}

pub(super) fn revoke(tx: &Transaction<'_>, device: DeviceId, by: &str, now_ms: i64) -> Result<(), StoreError> {
    let found = tx.execute("UPDATE device SET revoked_at_ms = coalesce(revoked_at_ms, ?2) WHERE device_id = ?1", (device.to_string(), now_ms))?;
    if found == 0 {
        return Err(Refusal::Nothing { what: "device", which: device.to_string() }.into());
    }
    // An answer that was lost is not given again to a device that is not welcome.
    tx.execute("DELETE FROM enrolment WHERE device_id = ?1", [device.to_string()])?;
    keys::note(tx, now_ms, by, "device.revoke", &device.to_string())
}

pub(super) fn list(tx: &Transaction<'_>, page: &DevicesPage) -> Result<DevicesResponse, StoreError> {
    let mut query = tx.prepare_cached(
        "SELECT device_id, name, daemon_version, enrolled_at_ms, last_seen_ms, token_since_ms, revoked_at_ms
         FROM device WHERE device_id > ?1 ORDER BY device_id LIMIT ?2",
    )?;
    let after = page.after.map(|id| id.to_string()).unwrap_or_default();
    let rows = query.query_map((after, page.limit), |row| {
        Ok(DeviceInfo {
            device_id: parsed(row, 0)?,
            name: row.get(1)?,
            apps: BTreeSet::<AppName>::new(),
            daemon_version: row.get(2)?,
            enrolled_at_ms: row.get(3)?,
            last_seen_ms: row.get(4)?,
            token_since_ms: row.get(5)?,
            revoked_at_ms: row.get(6)?,
        })
    })?;
    let mut devices: Vec<DeviceInfo> = rows.collect::<Result<_, _>>()?;
    for device in &mut devices {
        device.apps = devices::apps(tx, device.device_id)?;
    }
    let full = devices.len() >= page.limit as usize;
    let next = devices.last().filter(|_| full).map(|d| d.device_id);
    Ok(DevicesResponse { devices, next })
}
