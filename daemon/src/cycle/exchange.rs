//! What goes to the server and comes from it: reports, the state, the poll, and what is accepted of it. Each function here
//! answers twice: the outer error is ours, the inner one the exchange's.

use std::collections::BTreeSet;

use tokio::time::Instant;
use whimbrel_shared::{
    ids::{AppName, Digest},
    migration::Targets,
    protocol::{
        poll::PollResponse,
        report::MAX_REPORTS,
        state::{DatabaseState, Progress, Severity, StateRequest},
    },
};

use super::{
    Core,
    advance::enrolled,
    sites::{copied, pending, status},
};
use crate::{
    config::Trust,
    migrate::{
        arrived,
        connection::Missing,
        gate::item,
        live::{Phase, Picture},
        work,
    },
    store::{StoreError, settings},
    transport::{
        TransportError,
        server::{Credential, Fresh, Server},
    },
    trust::{self, AcceptError},
};

/// The state goes up at least so often, changed or not.
const STATE_AT_LEAST_MS: i64 = 24 * 3_600_000;

impl Core {
    pub(super) fn connect(&self) -> Result<Option<Server>, StoreError> {
        let store = self.shared.store();
        let Some(url) = self.config.server.clone().map_or_else(|| store.setting(settings::SERVER), |u| Ok(Some(u)))? else { return Ok(None) };
        let credential = store.setting(settings::DEVICE_TOKEN)?.map_or(Credential::None, Credential::Device);
        Ok(Some(Server::new(self.http.clone(), url, credential, self.shared.ambient.clone())))
    }

    /// Reports, says how things are, asks what is allowed, and accepts what is new. The outer error is ours, the inner
    /// one the exchange's.
    pub(super) async fn exchange(&mut self) -> Result<Result<(), TransportError>, StoreError> {
        if let Some(left) = self.server.not_before.map(|at| at.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero()) {
            return Ok(Err(TransportError::AskedToWait { left }));
        }
        self.server.alarms.clear();
        self.look_at_trust()?;
        if !self.server.seed {
            match self.tell().await? {
                Ok(()) => {}
                // No poll, no state: a server that has only the seed's two endpoints?
                Err(error) if error.status() == Some(404) => {}
                Err(error) => return Ok(Err(error)),
            }
        }
        let Some(server) = self.connect()? else {
            self.server.state = "not_enrolled";
            return Ok(Ok(()));
        };
        if !self.server.seed {
            let etag = self.shared.store().setting(settings::POLL_ETAG)?;
            match server.poll(etag.as_deref()).await {
                Ok(Fresh::AsBefore) => {
                    // An accept that failed half-way is tried again although the server has nothing new to say.
                    let kept = self.shared.store().setting(settings::POLL_BODY)?;
                    if let Some(poll) = kept.and_then(|b| serde_json::from_str(&b).ok()) {
                        return self.accept(&server, &poll).await;
                    }
                    return Ok(Ok(()));
                }
                Ok(Fresh::New(poll, etag)) => {
                    let body = serde_json::to_string(&poll).expect("a poll has text keys");
                    self.shared.store().atomically(|store| {
                        for plan in &poll.plans {
                            store.put_plan(plan)?;
                        }
                        store.set_setting(settings::POLL_BODY, Some(&body))?;
                        store.set_setting(settings::POLL_ETAG, etag.as_deref())
                    })?;
                    return self.accept(&server, &poll).await;
                }
                // A server of the seed's kind knows no devices: where one was enrolled, or a poll was ever answered, a 404
                // is somebody in between.
                Err(error) if error.status() == Some(404) && !self.knows_the_server()? => {}
                Err(error) => return Ok(Err(error)),
            }
        }
        if self.config.trust == Trust::Tuf {
            let why = "it has no signed repository, and trust = \"tuf\" takes nothing else".to_owned();
            return Ok(Err(TransportError::NotUnderstood { url: server.url().to_owned(), why }));
        }
        self.seed_exchange(&server).await
    }

    fn knows_the_server(&self) -> Result<bool, StoreError> {
        let store = self.shared.store();
        Ok(store.setting(settings::DEVICE_TOKEN)?.is_some() || store.setting(settings::POLL_BODY)?.is_some() || !store.plans()?.is_empty())
    }

    /// Reports what is not acknowledged, and the state if it changed.
    pub(super) async fn tell(&mut self) -> Result<Result<(), TransportError>, StoreError> {
        let Some(server) = self.connect()? else { return Ok(Ok(())) };
        if self.server.seed {
            return self.seed_tell(&server).await;
        }
        // The state first: it makes the databases known that the reports speak of. Once for each copied file that gets a
        // client id of its own, and once more.
        for _ in 0..=self.sites.len() {
            match self.tell_state(&server).await? {
                Err(error) if is_about_the_content(&error) => {
                    if !self.part(&error).await? {
                        self.refused("state_refused", &error);
                        break;
                    }
                }
                Err(error) => return Ok(Err(error)),
                Ok(()) => break,
            }
        }
        self.tell_reports(&server).await
    }

    /// Says how the databases are, if that changed.
    pub(super) async fn tell_state(&mut self, server: &Server) -> Result<Result<(), TransportError>, StoreError> {
        let now_ms = self.shared.ambient.now_ms();
        let apps = self.shared.store().setting(settings::APPS)?;
        let mut state = self.state();
        // A database of an app that this device is not enrolled for would have the others refused along with it.
        state.databases.retain(|d| enrolled(apps.as_deref(), &d.app));
        let digest = Digest::of(&serde_json::to_vec(&state).expect("a state has text keys")).to_string();
        let (last, sent_ms) = {
            let store = self.shared.store();
            (store.setting(settings::STATE_DIGEST)?, store.setting(settings::STATE_SENT_MS)?.and_then(|t| t.parse::<i64>().ok()).unwrap_or(0))
        };
        let due = last.as_deref() != Some(&digest) || now_ms.abs_diff(sent_ms) > STATE_AT_LEAST_MS.unsigned_abs();
        if due && !state.databases.is_empty() {
            if let Err(error) = server.state(&state).await {
                return Ok(Err(error));
            }
            arrived::accepted(&self.shared, state.databases.iter().map(|d| d.client_id))?;
            let store = self.shared.store();
            store.set_setting(settings::STATE_DIGEST, Some(&digest))?;
            store.set_setting(settings::STATE_SENT_MS, Some(&now_ms.to_string()))?;
        }
        Ok(Ok(()))
    }

    /// Gives the file that a refusal names a client id of its own, where it was copied here from another device. False
    /// where the refusal names none, or that file was not: a server's mistake must not cost a file its name.
    async fn part(&mut self, refusal: &TransportError) -> Result<bool, StoreError> {
        let Some(client) = refusal.client_taken() else { return Ok(false) };
        let Some((path, site)) = self.sites.iter().find(|(_, s)| s.looked.as_ref().is_some_and(|l| l.identity.client_id == client)) else {
            return Ok(false);
        };
        let (path, site) = (path.clone(), site.site.clone());
        let chain = self.chain(&site.rule.app.clone())?;
        let shared = self.shared.clone();
        let parting = move || match arrived::part(&shared, &site, client) {
            Ok(Some(_)) => Some(work::look(&shared, &site, &chain, Missing::Refuse)),
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(database.path = %site.path.display(), "the copied file cannot get a client id of its own yet: {error}");
                None
            }
        };
        match tokio::task::spawn_blocking(parting).await.expect("parting does not panic") {
            Some(Ok(looked)) => {
                let copied = copied(&self.shared, &looked)?;
                let state = self.sites.get_mut(&path).expect("it was found");
                state.health.extend(copied);
                state.looked = Some(looked);
            }
            Some(Err(why)) => {
                let state = self.sites.get_mut(&path).expect("it was found");
                // Not to be told under the old name: its next look gives it the new one.
                state.looked = None;
                state.health.push(why);
            }
            None => return Ok(false),
        }
        Ok(true)
    }

    /// Sends what is not acknowledged.
    async fn tell_reports(&mut self, server: &Server) -> Result<Result<(), TransportError>, StoreError> {
        let mut most = MAX_REPORTS;
        loop {
            let reports = self.shared.store().unsent(most)?;
            let Some(first) = reports.first().map(|r| r.event_id) else { return Ok(Ok(())) };
            let asked: BTreeSet<_> = reports.iter().map(|r| r.event_id).collect();
            match server.report(reports).await {
                // One of them, or all of them together: smaller bites find out which.
                Err(error) if is_about_the_content(&error) && most > 1 => most = (asked.len() / 2).max(1),
                Err(error) if is_about_the_content(&error) => {
                    self.shared.store().set_aside(first)?;
                    self.refused("report_refused", &error);
                    most = MAX_REPORTS;
                }
                Err(error) => return Ok(Err(error)),
                Ok(answer) => {
                    // Only what was asked, and only what is named: an answer clears nothing else.
                    let named: Vec<_> = answer.acknowledged.into_iter().filter(|id| asked.contains(id)).collect();
                    if named.is_empty() {
                        let why = "it acknowledged none of the reports it was sent".to_owned();
                        return Ok(Err(TransportError::NotUnderstood { url: server.url().to_owned(), why }));
                    }
                    self.shared.store().atomically(|store| store.acknowledge(&named))?;
                }
            }
        }
    }

    /// The server took the request and not what it says. It is kept here, and shown.
    fn refused(&mut self, code: &str, error: &TransportError) {
        tracing::error!("{error}");
        if !self.server.alarms.iter().any(|a| a.code == code) {
            self.server.alarms.push(item(code, Severity::Error, error.to_string(), error.remedy()));
        }
    }

    /// The state that goes up.
    fn state(&self) -> StateRequest {
        let databases = self
            .sites
            .iter()
            .filter_map(|(path, state)| {
                let looked = state.looked.as_ref()?;
                let mut health = state.told.clone();
                health.dedup_by(|a, b| a.code == b.code);
                let values = self.shared.policy.report_values;
                for item in &mut health {
                    // What stands still says why, with the failure's own words.
                    let failures = looked.history.values().filter_map(|row| row.failure.as_ref());
                    item.message = failures.fold(std::mem::take(&mut item.message), |text, failure| failure.without_item(&text, values));
                }
                Some(DatabaseState {
                    client_id: looked.identity.client_id,
                    app: looked.identity.app.clone(),
                    file_name: path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
                    epoch: looked.identity.epoch,
                    version: looked.position,
                    head: looked.history.get(&looked.position).map(|r| r.digest),
                    fingerprint: looked.fingerprint,
                    pending: pending(state),
                    status: status(state),
                    app_version: state.app_version.clone(),
                    app_sqlite: state.site.rule.app_sqlite.clone(),
                    health,
                    progress: progress(&state.site.live.picture()),
                })
            })
            .collect();
        StateRequest { daemon_version: env!("CARGO_PKG_VERSION").to_owned(), labels: self.config.labels.clone(), databases }
    }

    /// Accepts what the server's repository has and we have not. An offer that contradicts what was accepted is an alarm.
    async fn accept(&mut self, server: &Server, poll: &PollResponse) -> Result<Result<(), TransportError>, StoreError> {
        match self.config.trust {
            Trust::Tuf => self.accept_signed(server, poll).await,
            Trust::None => self.accept_unsigned(server, poll).await,
        }
    }

    async fn accept_unsigned(&mut self, server: &Server, poll: &PollResponse) -> Result<Result<(), TransportError>, StoreError> {
        let mut first_error = Ok(());
        for (app, head) in &poll.repository {
            let setting = settings::targets(app);
            if self.shared.store().setting(&setting)?.as_deref() == Some(&head.digest.to_string()) {
                continue;
            }
            let taken = match server.targets(app).await {
                Ok(Some((_, digest))) if digest != head.digest => Err(Refusal::Exchange(TransportError::NotUnderstood {
                    url: server.url().to_owned(),
                    why: format!("the targets of {app} are not those that the poll named (an old copy on the way?)"),
                })),
                Ok(Some((offered, _))) => self.take(server, app, &offered).await?,
                Ok(None) => continue,
                Err(error) => Err(Refusal::Exchange(error)),
            };
            // One app's trouble does not keep the others waiting.
            match taken {
                Ok(()) => self.shared.store().set_setting(&setting, Some(&head.digest.to_string()))?,
                Err(Refusal::Exchange(error)) => first_error = first_error.and(Err(error)),
                Err(Refusal::Alarm(error)) => self.alarm(app, &error),
            }
        }
        Ok(first_error)
    }

    async fn take(&mut self, server: &Server, app: &AppName, offered: &Targets) -> Result<Result<(), Refusal>, StoreError> {
        let accepted = self.shared.store().entries(app)?;
        let new = match trust::judge(&accepted, offered) {
            Ok(new) => new,
            Err(error) => return Ok(Err(Refusal::Alarm(error.into()))),
        };
        for entry in new {
            let body = match server.target(app, &entry).await {
                Ok(body) => body,
                Err(error) => return Ok(Err(Refusal::Exchange(error))),
            };
            // One by one and in order: what arrived stays, however long the rest takes.
            let kept = trust::accept(&mut self.shared.store(), app, &[(entry, body.to_vec())], self.shared.ambient.now_ms());
            self.chains.remove(app);
            match kept {
                Ok(()) => {}
                Err(AcceptError::Store(error)) => return Err(error),
                Err(error) => return Ok(Err(Refusal::Alarm(error))),
            }
        }
        Ok(Ok(()))
    }

    pub(super) fn alarm(&mut self, app: &AppName, error: &AcceptError) {
        tracing::error!(app = %app, "{error}");
        self.server.alarms.push(item("repository", Severity::Error, format!("{app}: {error}"), error.remedy()));
    }

    pub(super) fn note(&mut self, exchange: &Result<(), TransportError>) {
        let enrolled = self.server.state != "not_enrolled";
        match exchange {
            Ok(()) if enrolled => {
                if self.server.failures > 0 {
                    tracing::info!("the server answers again");
                }
                (self.server.failures, self.server.not_before) = (0, None);
                self.server.last_exchange_ms = Some(self.shared.ambient.now_ms());
                (self.server.error, self.server.remedy, self.server.state) = (None, None, "online");
            }
            Ok(()) | Err(TransportError::AskedToWait { .. }) => {}
            Err(error) => {
                if let Some(asked) = error.retry_after() {
                    let pause = crate::wake::pace::pause(0, self.shared.ambient.chance(), Some(asked));
                    self.server.not_before = Some(Instant::now() + pause);
                }
                self.server.failures = self.server.failures.saturating_add(1);
                let refused = matches!(error, TransportError::Refused { status: 400..=499, .. });
                if self.server.failures == 1 {
                    tracing::warn!("{error}");
                } else {
                    tracing::debug!("{error}");
                }
                self.server.state = if refused { "refused" } else { "offline" };
                (self.server.error, self.server.remedy) = (Some(error.to_string()), Some(error.remedy()));
            }
        }
    }
}

/// Whether a refusal is about what was said, and not about who said it or when.
fn is_about_the_content(error: &TransportError) -> bool {
    matches!(error.status(), Some(400 | 409 | 413 | 422))
}

/// Why an app's targets were not taken in.
enum Refusal {
    /// They could not be fetched.
    Exchange(TransportError),
    /// They are not right.
    Alarm(AcceptError),
}

/// How far a row step has come, for the server.
fn progress(picture: &Picture) -> Option<Progress> {
    let (Phase::Running { name, .. }, Some(rows)) = (&picture.phase, &picture.rows) else { return None };
    Some(Progress {
        migration: name.clone(),
        step: u32::try_from(picture.step).unwrap_or(u32::MAX),
        steps: u32::try_from(picture.steps).unwrap_or(u32::MAX),
        done: rows.done,
        total: rows.total,
        failed: rows.failed,
        rate: rows.rate,
        left_ms: rows.left_ms,
    })
}
