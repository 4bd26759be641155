//! Running what is to be run, `parallel` databases at a time.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use whimbrel_shared::{
    ids::AppName,
    protocol::{
        poll::Order,
        state::{HealthItem, Severity},
    },
    remedy::{here, wait},
    status::FailureClass,
};

use super::{Core, requests::Open, sites::pending};
use crate::{
    control::protocol::{MigrationFailure, PersonOrder},
    migrate::{
        chain::Chain,
        connection::Missing,
        gate::{Known, held, item, transient_pause},
        plan::Wish,
        work::{self, Advanced, Looked, Task},
    },
    store::{StoreError, settings},
    wake::cron,
};

/// Between two words to the server about rows that are gone through.
const TELL_PROGRESS: Duration = Duration::from_secs(5);

impl Core {
    /// Runs what is to be run, `parallel` databases at a time. One that fails does not hold up the others.
    pub(super) async fn advance(&mut self, requests: &[Open], forced: bool) -> Result<(), StoreError> {
        let holds = self.shared.store().holds(self.shared.ambient.now_ms())?;
        let apps = self.shared.store().setting(settings::APPS)?;
        let mut jobs = JoinSet::new();
        let limit = Arc::new(Semaphore::new(self.config.parallel));
        for path in self.sites.keys().cloned().collect::<Vec<_>>() {
            let chain = self.chain(&self.sites[&path].site.rule.app.clone())?;
            let wanted: Vec<&PersonOrder> = requests.iter().filter(|r| self.selects(&r.database, &path)).map(|r| &r.order).collect();
            let window = self.window();
            let app_sqlite = {
                let rule = &self.sites[&path].site.rule;
                self.shared.store().setting(&settings::app_sqlite(&rule.app))?.or_else(|| rule.app_sqlite.clone())
            };
            let state = self.sites.get_mut(&path).expect("its own key");
            let Some(looked) = state.looked.clone().filter(|_| !state.not_adopted) else { continue };
            if let Some(Order::ApplyUpTo { version }) = state.order
                && version > chain.latest()
            {
                let message = format!("the plan goes up to version {version}, and only {} could be fetched so far", chain.latest());
                state.health.push(item("not_fetched", Severity::Warning, message, wait("it is fetched again at the next poll")));
            }
            if !enrolled(apps.as_deref(), &state.site.rule.app) {
                let app = &state.site.rule.app;
                let remedy = here("`whimbrel enroll URL --token TOKEN`, with a token of that app from the operator");
                state.health.push(item("not_enrolled", Severity::Warning, format!("the device is not enrolled for the app {app}"), remedy));
            }
            let skip_verify = wanted.iter().any(|o| matches!(o, PersonOrder::Apply { skip_verify: true, .. }));
            // Who leaves a check out has seen it fail.
            let retry = skip_verify || wanted.contains(&&PersonOrder::Retry);
            let wish = match wanted.iter().rev().find_map(|o| wish(o, &chain, &looked)) {
                Some(Ok(wish)) => Some(wish),
                Some(Err(why)) => {
                    state.health.push(why);
                    continue;
                }
                None => None,
            };
            if wanted.is_empty() && !forced && state.next_try.is_some_and(|at| at > Instant::now()) {
                if let Some(stopped) = &state.stopped {
                    state.health.push(item(
                        &stopped.failure.code,
                        Severity::Warning,
                        stopped.failure.message.clone(),
                        stopped.failure.remedy.clone(),
                    ));
                }
                continue;
            }
            let known = Known {
                window_open: window.map(|w| w.0),
                window_opens_ms: window.and_then(|w| w.1),
                hold: holds.get(&looked.identity.client_id).copied(),
                app_version: state.app_version.clone(),
                app_sqlite,
                free_bytes: crate::migrate::files::free_bytes(&path),
                temp: crate::migrate::files::temp_room(&path),
                by_person: wanted.iter().any(|o| matches!(o, PersonOrder::Apply { .. } | PersonOrder::Revert { .. })),
            };
            let task = Task { order: state.order, wish, retry, skip_verify, known };
            let (shared, site, limit) = (self.shared.clone(), state.site.clone(), limit.clone());
            jobs.spawn(async move {
                let _permit = limit.acquire_owned().await.expect("the semaphore is never closed");
                let done = tokio::task::spawn_blocking(move || {
                    let advanced = work::advance(&shared, &site, &looked, &chain, &task);
                    // Only what ran changed anything worth another look.
                    let again = (!advanced.ran.done.is_empty() || advanced.ran.stopped.is_some() || task.retry)
                        .then(|| work::look(&shared, &site, &chain, Missing::Refuse));
                    (advanced, again)
                });
                (path, done.await.expect("applying does not panic"))
            });
        }
        loop {
            tokio::select! {
                done = jobs.join_next() => {
                    let Some(done) = done else { return Ok(()) };
                    let (path, (advanced, again)) = done.expect("applying does not panic");
                    self.take_in(&path, advanced, again);
                }
                () = tokio::time::sleep(TELL_PROGRESS) => self.tell_progress().await?,
            }
        }
    }

    /// Says how far the rows have come, while they are gone through. Where nobody hears it, the next exchange says it.
    async fn tell_progress(&mut self) -> Result<(), StoreError> {
        let moves = self.sites.values().any(|state| state.site.live.picture().rows.is_some());
        if moves
            && !self.server.seed
            && let Some(server) = self.connect()?
        {
            let told = self.stoppable(async |core: &mut Self| core.tell_state(&server).await).await?;
            if let Err(error) = told {
                tracing::debug!(%error, "could not say how far the rows have come");
            }
        }
        Ok(())
    }

    /// A hold shows as long as it keeps something back, also right after a person's own revert.
    pub(super) fn show_holds(&mut self) -> Result<(), StoreError> {
        let holds = self.shared.store().holds(self.shared.ambient.now_ms())?;
        for state in self.sites.values_mut() {
            let Some(hold) = state.looked.as_ref().and_then(|l| holds.get(&l.identity.client_id)) else { continue };
            if pending(state) > 0 && !state.health.iter().any(|h| h.code == "held") {
                state.health.push(held(*hold));
            }
        }
        Ok(())
    }

    /// What became of one database.
    fn take_in(&mut self, path: &PathBuf, advanced: Advanced, again: Option<Result<Looked, HealthItem>>) {
        let (now_ms, dice) = (self.shared.ambient.now_ms(), self.shared.ambient.chance());
        let state = self.sites.get_mut(path).expect("it was worked on");
        let Advanced { ran, health } = advanced;
        state.ran = u32::try_from(ran.done.len()).unwrap_or(u32::MAX);
        if ran.stopped.as_ref().is_some_and(|s| s.disk_full) {
            crate::store::ballast::free(&self.shared.state_dir);
        }
        match again {
            Some(Ok(looked)) => state.looked = Some(looked),
            Some(Err(why)) => state.health.push(why),
            None => {}
        }
        if !ran.done.is_empty() {
            let position = state.looked.as_ref().map_or(0, |l| l.position);
            tracing::info!(
                database.path = %path.display(), migrations = ran.done.len(), commits = ran.commits,
                longest_hold_ms = ran.longest_hold.as_millis(), "at version {position} now"
            );
        }
        state.health.extend(health);
        let stopped = ran.stopped.map(|s| MigrationFailure { migration: s.name, version: s.version, failure: s.failure });
        let cancelled = stopped.as_ref().is_some_and(|s| s.failure.code == "cancelled");
        match stopped {
            Some(stopped) if !cancelled => {
                let transient = stopped.failure.class == FailureClass::Transient;
                let name = stopped.migration.as_ref().map_or_else(String::new, ToString::to_string);
                if transient {
                    state.failures += 1;
                    let pause = transient_pause(state.failures, dice);
                    state.next_try = Some(Instant::now() + pause);
                    state.next_try_ms = Some(now_ms + i64::try_from(pause.as_millis()).unwrap_or(i64::MAX));
                    tracing::warn!(database.path = %path.display(), migration.name = %name, "{}; tried again in {pause:.0?}", stopped.failure.message);
                } else {
                    tracing::error!(database.path = %path.display(), migration.name = %name, "{}", stopped.failure.message);
                }
                if !state.health.iter().any(|h| h.code == stopped.failure.code) {
                    let severity = if transient { Severity::Warning } else { Severity::Error };
                    state.health.push(item(&stopped.failure.code, severity, stopped.failure.message.clone(), stopped.failure.remedy.clone()));
                }
                state.stopped = Some(stopped);
            }
            Some(_) | None => {
                (state.failures, state.next_try, state.next_try_ms) = (0, None, None);
                state.stopped = state.looked.as_ref().and_then(|looked| {
                    let row = looked.history.values().find(|r| r.failure.as_ref().is_some_and(|f| f.class != FailureClass::Transient))?;
                    Some(MigrationFailure { migration: Some(row.name.clone()), version: row.version, failure: row.failure.clone()? })
                });
            }
        }
    }

    /// Whether the maintenance window is open, and when it opens next.
    fn window(&self) -> Option<(bool, Option<i64>)> {
        let window = self.config.schedule.window.as_ref()?;
        let open = cron::parse(&window.open).ok()?;
        let now_ms = self.shared.ambient.now_ms();
        let length_ms = i64::try_from(window.length.as_millis()).unwrap_or(i64::MAX);
        Some((cron::is_open(&open, length_ms, now_ms, &chrono::Local), cron::next_ms(&open, now_ms, &chrono::Local)))
    }
}

/// Whether the device is enrolled for `app`; before it is for any, nobody knows.
pub(super) fn enrolled(apps: Option<&str>, app: &AppName) -> bool {
    apps.is_none_or(|apps| apps.split(' ').any(|a| a == app.as_str()))
}

/// The version that a person names, by its number or its name.
pub(super) fn named(chain: &Chain, name: &str) -> Option<u32> {
    (1..=chain.latest()).find(|v| name.parse() == Ok(*v) || chain.newest(*v).is_some_and(|e| e.custom.name.as_str() == name))
}

/// What a person's order means for the versions of one database; none for orders that are about something else.
fn wish(order: &PersonOrder, chain: &Chain, looked: &Looked) -> Option<Result<Wish, HealthItem>> {
    // An online migration that stopped half-way is above everything in place: it is what goes first.
    let half = looked.half_done.as_ref().map(|half| half.version).filter(|version| *version > looked.position);
    let named = |name: &str| named(chain, name);
    let unknown = |name: &str| {
        Err(item("unknown_migration", Severity::Error, format!("no accepted migration is called {name:?}"), here("`whimbrel status` lists them")))
    };
    match order {
        PersonOrder::Apply { to: None, .. } => Some(Ok(Wish::ApplyUpTo(u32::MAX))),
        PersonOrder::Apply { to: Some(name), .. } => Some(named(name).map_or_else(|| unknown(name), |v| Ok(Wish::ApplyUpTo(v)))),
        PersonOrder::Revert { migration: Some(name), .. } => Some(match named(name) {
            None => unknown(name),
            Some(version) if Some(version) == half => Ok(Wish::TakeBack(version)),
            Some(version) if version > looked.position => {
                Err(item("not_applied", Severity::Error, format!("{name} is not in place"), here("`whimbrel status` shows what is")))
            }
            Some(version) => Ok(Wish::RevertDownTo(version - 1)),
        }),
        PersonOrder::Revert { migration: None, to } if to.is_none_or(|to| to == looked.position) && half.is_some() => {
            half.map(|version| Ok(Wish::TakeBack(version)))
        }
        PersonOrder::Revert { migration: None, to } => Some(Ok(Wish::RevertDownTo(to.unwrap_or_else(|| looked.position.saturating_sub(1))))),
        PersonOrder::Retry
        | PersonOrder::RetryItems
        | PersonOrder::Hold { .. }
        | PersonOrder::Release
        | PersonOrder::Adopt { .. }
        | PersonOrder::GiveBack
        | PersonOrder::Backup
        | PersonOrder::Restore { .. }
        | PersonOrder::Exchange { .. }
        | PersonOrder::Decide { .. }
        | PersonOrder::RetryWaiting
        | PersonOrder::DropWaiting { .. }
        | PersonOrder::Detach { .. }
        | PersonOrder::Cycle => None,
    }
}
