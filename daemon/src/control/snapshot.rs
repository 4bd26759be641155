//! The picture that `status` and `watch` show: made from the loop's values, never from the databases.

use crate::{
    control::protocol::{DaemonView, DatabaseView, MigrationView, STATUS_SCHEMA, ServerView, Snapshot},
    cycle::{Core, pending, status},
    migrate::gate::item,
    store::{StoreError, settings},
};
use whimbrel_shared::{
    address::{Way, way},
    protocol::state::{HealthItem, Severity},
    remedy::here,
    status::Status,
};

/// Makes it. `next_poll_ms` is when the loop looks again at the latest.
pub fn snapshot(core: &Core, daemon: DaemonView, next_poll_ms: Option<i64>) -> Result<Snapshot, StoreError> {
    let store = core.shared.store();
    let (url, device_id) = (store.setting(settings::SERVER)?, store.setting(settings::DEVICE_ID)?);
    let (reports_unsent, accepted_ms) = (store.count_unsent()?, store.newest_accepted_ms()?);
    let mut databases = Vec::new();
    for (path, state) in &core.sites {
        let looked = state.looked.as_ref();
        let chain = core.known_chain(&state.site.rule.app);
        let mut migrations: Vec<MigrationView> = Vec::new();
        for entry in (1..=chain.latest()).filter_map(|version| chain.newest(version)) {
            let row = looked.and_then(|l| l.history.get(&entry.custom.version));
            let view = MigrationView {
                version: entry.custom.version,
                name: entry.custom.name.clone(),
                status: row.map_or(Status::Pending, |r| r.status),
                attempts: row.map_or(0, |r| r.attempts),
                completed_at_ms: row.and_then(|r| r.completed_at_ms),
            };
            migrations.push(view);
        }
        databases.push(DatabaseView {
            path: path.clone(),
            app: state.site.rule.app.clone(),
            client_id: looked.map(|l| l.identity.client_id),
            epoch: looked.map_or(1, |l| l.identity.epoch),
            version: looked.map_or(0, |l| l.position),
            latest: state.latest,
            order: state.order,
            pending: pending(state),
            status: status(state),
            now: state.site.live.picture(),
            waiting_ms: None,
            half_done: looked.and_then(|l| l.half_done.clone()),
            failure: state.stopped.clone(),
            next_try_ms: state.next_try_ms,
            app_version: state.app_version.clone(),
            no_rows: looked.and_then(|l| chain.without_ids(l.position)).map(|why| why.to_string()),
            rows: looked.and_then(|l| l.standing.clone()).map(|standing| state.rows.view(standing)),
            health: state.health.clone(),
            migrations,
        });
    }
    let url = core.config.server.clone().or(url);
    let health = device_health(core, url.as_deref(), accepted_ms);
    Ok(Snapshot {
        schema: STATUS_SCHEMA.to_owned(),
        daemon,
        server: ServerView {
            url,
            device_id: device_id.and_then(|d| d.parse().ok()),
            state: core.server.state.to_owned(),
            trust: core.config.trust.as_str().to_owned(),
            last_exchange_ms: core.server.last_exchange_ms,
            failures: core.server.failures,
            next_poll_ms,
            reports_unsent,
            error: core.server.error.clone(),
            remedy: core.server.remedy.clone(),
        },
        databases,
        health,
    })
}

/// What concerns the whole device.
fn device_health(core: &Core, url: Option<&str>, accepted_ms: Option<i64>) -> Vec<HealthItem> {
    let mut health = core.server.alarms.clone();
    health.extend(core.server.trust.values().flatten().cloned());
    match core.config.trust {
        crate::config::Trust::Tuf => health.extend(core.clock_suspect(accepted_ms)),
        crate::config::Trust::None => health.push(item(
            "trust_none",
            Severity::Warning,
            "trust = \"none\": whatever the server says is run",
            here("use it only where the server and the way to it are yours"),
        )),
    }
    if let Some(url) = url.filter(|url| way(url) == Ok(Way::Plain)) {
        health.push(item(
            "insecure_transport",
            Severity::Warning,
            format!("{url} is plain http to another machine: everybody on the way can read and change what is sent, the device's token too"),
            here("give the server a certificate and use its https:// address; then remove `insecure_http` and enrol again"),
        ));
    }
    if core.server.state == "not_enrolled" {
        health.push(item(
            "not_enrolled",
            Severity::Warning,
            "the device is not enrolled",
            here("`whimbrel enroll URL --token TOKEN`, with a token from the operator"),
        ));
    }
    if core.lacks_ca_store() && url.is_some_and(|url| url.starts_with("https://")) {
        health.push(item(
            "no_ca_store",
            Severity::Warning,
            "the system has no certificates that can be read: the server's is judged by those that came with this whimbrel",
            here("install the system's certificates (the package ca-certificates), or name `ca_file` in the configuration; then reload whimbrel"),
        ));
    }
    if core.server.seed {
        health.push(item(
            "seed_server",
            Severity::Info,
            "the server has only the seed's two endpoints",
            here("nothing to do; rollouts and plans need a whimbrel server"),
        ));
    }
    health
}
