//! The cycle: the recipe that everything else is an ingredient of (DESIGN 7).
//!
//! look → report → state → poll → accept → plan → gate → apply → report. What needs the server is skipped when it
//! cannot be reached; what was accepted before is applied all the same.

mod adopt;
mod backups;
mod items;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::Instant,
};
use whimbrel_shared::{
    ids::{AppName, Digest, RequestId},
    migration::{Link, SeedMigration, TargetEntry, Targets},
    protocol::{
        poll::{Order, PollResponse},
        report::{MAX_REPORTS, SeedStatus},
        state::{DatabaseState, HealthItem, Progress, Severity, StateRequest},
    },
    remedy::{here, operator, wait},
    status::{EventKind, FailureClass, Status},
};

use crate::{
    config::{AppVersion, Config},
    control::protocol::{MigrationFailure, PersonOrder, Selector, Summary, SummaryError},
    migrate::{
        arrived,
        backup::witness::Witness,
        chain::Chain,
        connection::Missing,
        gate::{Known, held, item, transient_pause},
        items::Retried,
        live::{Live, Phase, Picture},
        plan::Wish,
        work::{self, Advanced, Looked, Shared, Site, Task},
    },
    store::{StoreError, device::StoredTarget, settings},
    transport::{
        Http, TransportError,
        server::{Credential, Fresh, Server},
        tls::Roots,
    },
    trust::{self, AcceptError},
    wake::cron,
};

/// The state goes up at least so often, changed or not.
const STATE_AT_LEAST_MS: i64 = 24 * 3_600_000;
/// Between two words to the server about rows that are gone through.
const TELL_PROGRESS: Duration = Duration::from_secs(5);

/// What the loop keeps between two cycles.
pub struct Core {
    /// As configured.
    pub config: Config,
    /// What all databases share.
    pub shared: Shared,
    /// What carries requests.
    pub http: Arc<dyn Http>,
    /// Whose word makes the server's certificate good.
    roots: Roots,
    /// The databases by path.
    pub sites: BTreeMap<PathBuf, SiteState>,
    /// How the exchanges with the server go.
    pub server: ServerState,
    chains: BTreeMap<AppName, Arc<Chain>>,
    /// Turns true when the daemon ends: then no answer is waited for any more.
    stop: watch::Receiver<bool>,
}

/// One database between two cycles.
pub struct SiteState {
    /// The database.
    pub site: Site,
    /// What was last found; none when it could not be looked at.
    pub looked: Option<Looked>,
    /// What the plan allows.
    pub order: Option<Order>,
    /// What is wrong or waited for.
    pub health: Vec<HealthItem>,
    /// The migration that stopped the chain.
    pub stopped: Option<MigrationFailure>,
    /// Transient failures in a row.
    pub failures: u32,
    /// When it is tried again.
    pub next_try: Option<Instant>,
    /// The same for people.
    pub next_try_ms: Option<i64>,
    /// The application's build.
    pub app_version: Option<String>,
    /// Newest accepted version.
    pub latest: u32,
    /// What was wrong or waited for at the end of the last cycle: what the server is told.
    told: Vec<HealthItem>,
    /// Migrations run in this cycle.
    ran: u32,
    /// Whether a person wanted it adopted in this cycle, and it was refused: then nothing is run on it.
    not_adopted: bool,
    /// Whether what an interrupted backup left behind was taken away.
    swept: bool,
    /// What became of rows that were to be tried again in this cycle.
    items: Option<Retried>,
}

/// How the exchanges with the server go.
#[derive(Clone, Debug, Default)]
pub struct ServerState {
    /// Failed tries in a row.
    pub failures: u32,
    /// When something was last exchanged.
    pub last_exchange_ms: Option<i64>,
    /// Why the last try failed.
    pub error: Option<String>,
    /// What to do about it.
    pub remedy: Option<whimbrel_shared::remedy::Remedy>,
    /// `online`, `offline`, `refused`, `not_enrolled`, `unknown`.
    pub state: &'static str,
    /// Alarms about what the server offers.
    pub alarms: Vec<HealthItem>,
    /// Whether the server has only the seed's two endpoints.
    pub seed: bool,
    /// Before when it asked not to be asked again.
    pub not_before: Option<Instant>,
}

/// An open request of a person.
struct Open {
    id: RequestId,
    database: Selector,
    order: PersonOrder,
}

/// How a cycle went.
#[derive(Debug)]
pub struct Outcome {
    /// Sum over the databases.
    pub summary: Summary,
    /// Whether the server was reached.
    pub exchange: Result<(), TransportError>,
}

impl Core {
    /// Ready for the first cycle.
    pub fn new(config: Config, shared: Shared, http: Arc<dyn Http>, roots: Roots, stop: watch::Receiver<bool>) -> Self {
        let server = ServerState { state: "unknown", ..ServerState::default() };
        Self { config, shared, http, roots, sites: BTreeMap::new(), server, chains: BTreeMap::new(), stop }
    }

    /// One cycle. `pulse` is called while work is awaited, so that the watchdog sees progress.
    pub async fn cycle(&mut self, forced: bool, publish: &mut (dyn FnMut(&Self, &'static str) + Send)) -> Result<Outcome, StoreError> {
        let requests = self.requests()?;
        self.find_sites();
        for request in requests.iter().filter(|r| r.order == PersonOrder::Retry) {
            for path in self.sites.keys().filter(|p| self.selects(&request.database, p)) {
                self.shared.store().set_setting(&settings::damaged(path), None)?;
            }
        }
        self.look(Missing::Refuse).await?;
        self.know_orders()?;
        publish(self, "polling");

        let mut exchange = self.stoppable(Self::exchange).await?;
        if exchange.is_ok() && self.look(Missing::Create).await? {
            // Files that were made now have to be known to the server before it has a plan for them.
            exchange = self.stoppable(Self::exchange).await?;
        }

        self.adopt(&requests).await?;
        // Before the picture: what is about to be applied is pending in it.
        self.know_orders()?;
        publish(self, "applying");
        self.backups(&requests).await?;
        self.advance(&requests, forced).await?;
        self.retry_items(&requests).await?;
        publish(self, "reporting");
        self.show_holds()?;
        for state in self.sites.values_mut() {
            state.told.clone_from(&state.health);
        }
        if exchange.is_ok() && self.server.state != "not_enrolled" {
            // Sends what changed, and nothing else.
            exchange = self.stoppable(Self::tell).await?;
        }
        self.note(&exchange);
        let summary = self.summary();
        self.finish(requests, &summary)?;
        publish(self, "idle");
        Ok(Outcome { summary, exchange })
    }

    /// An exchange with the server, given up when the daemon ends. Everything it keeps is kept in whole steps.
    async fn stoppable<F>(&mut self, exchange: F) -> Result<Result<(), TransportError>, StoreError>
    where
        F: AsyncFnOnce(&mut Self) -> Result<Result<(), TransportError>, StoreError>,
    {
        let mut stop = self.stop.clone();
        tokio::select! {
            done = exchange(self) => done,
            Ok(_) = stop.wait_for(|stop| *stop) => Ok(Err(TransportError::AskedToWait { left: Duration::ZERO })),
        }
    }

    // ---- databases ---------------------------------------------------------------------------------------------------

    /// Which files there are.
    fn find_sites(&mut self) {
        let mut found = BTreeSet::new();
        for rule in &self.config.databases {
            for path in work::expand(rule) {
                // Two names of one file are one database.
                let path = std::fs::canonicalize(&path).unwrap_or(path);
                if found.insert(path.clone()) && !self.sites.contains_key(&path) {
                    let site =
                        Site { path: path.clone(), rule: rule.clone(), live: Live::default(), seen: Arc::default(), witness: Witness::default() };
                    let state = SiteState {
                        site,
                        looked: None,
                        order: None,
                        health: Vec::new(),
                        stopped: None,
                        failures: 0,
                        next_try: None,
                        next_try_ms: None,
                        app_version: None,
                        latest: 0,
                        told: Vec::new(),
                        ran: 0,
                        not_adopted: false,
                        swept: false,
                        items: None,
                    };
                    self.sites.insert(path, state);
                }
            }
        }
        self.sites.retain(|path, _| found.contains(path));
        for state in self.sites.values_mut() {
            (state.health, state.ran, state.not_adopted, state.items) = (Vec::new(), 0, false, None);
        }
    }

    /// Looks at every database, `parallel` at a time. With [`Missing::Create`], only at those that were not there, whose
    /// rule lets them be made and whose app has something to put into them; returns whether any was made.
    async fn look(&mut self, missing: Missing) -> Result<bool, StoreError> {
        let mut jobs = JoinSet::new();
        let limit = Arc::new(Semaphore::new(self.config.parallel));
        let paths: Vec<PathBuf> = self
            .sites
            .iter()
            .filter(|(path, state)| match missing {
                Missing::Refuse => true,
                Missing::Create => {
                    state.site.rule.create && !state.site.rule.is_pattern() && work::is_missing(path) && path.parent().is_some_and(|p| p.is_dir())
                }
            })
            .map(|(path, _)| path.clone())
            .collect();
        let mut any = false;
        for path in paths {
            let chain = self.chain(&self.sites[&path].site.rule.app.clone())?;
            if missing == Missing::Create && chain.latest() == 0 {
                continue;
            }
            any = true;
            let (shared, site, limit) = (self.shared.clone(), self.sites[&path].site.clone(), limit.clone());
            jobs.spawn(async move {
                let _permit = limit.acquire_owned().await.expect("the semaphore is never closed");
                let found = tokio::task::spawn_blocking(move || work::look(&shared, &site, &chain, missing)).await;
                (path, found.expect("a look does not panic"))
            });
        }
        while let Some(done) = jobs.join_next().await {
            let (path, found) = done.expect("a look does not panic");
            let app_version = self.app_version(&path)?;
            let latest = self.chain(&self.sites[&path].site.rule.app.clone())?.latest();
            let state = self.sites.get_mut(&path).expect("it was looked at");
            state.app_version = app_version;
            state.latest = latest;
            match found {
                Ok(looked) => {
                    if !looked.drift.is_empty() {
                        state.health.push(item(
                            "drift",
                            Severity::Error,
                            format!("the schema differs from what the migrations left behind: {}", looked.drift.join("; ")),
                            here("restore the named objects as the migrations made them"),
                        ));
                    }
                    if let Some(copied) = copied(&self.shared, &looked)? {
                        state.health.push(copied);
                    }
                    state.health.retain(|h| h.code != "no_file");
                    state.looked = Some(looked);
                }
                Err(why) => {
                    state.looked = None;
                    state.health.push(why);
                }
            }
        }
        Ok(any)
    }

    /// Whether servers are judged by the certificates that were compiled in, because the system has none.
    pub fn lacks_ca_store(&self) -> bool {
        self.roots == Roots::BuiltIn
    }

    /// The chain as it is loaded now.
    pub fn known_chain(&self, app: &AppName) -> Arc<Chain> {
        self.chains.get(app).cloned().unwrap_or_default()
    }

    fn chain(&mut self, app: &AppName) -> Result<Arc<Chain>, StoreError> {
        if let Some(chain) = self.chains.get(app) {
            return Ok(chain.clone());
        }
        let chain = Arc::new(Chain::new(self.shared.store().entries(app)?));
        self.chains.insert(app.clone(), chain.clone());
        Ok(chain)
    }

    /// The application's build: what a person said, else what the configuration says.
    fn app_version(&self, path: &PathBuf) -> Result<Option<String>, StoreError> {
        let rule = &self.sites[path].site.rule;
        if let Some(said) = self.shared.store().setting(&settings::app_version(&rule.app))? {
            return Ok(Some(said));
        }
        Ok(match &rule.app_version {
            None => None,
            Some(AppVersion::Is(version)) => Some(version.clone()),
            // One line of a small file; one that cannot be read is an unknown version, and says so at the gate.
            Some(AppVersion::File { file }) => std::fs::read_to_string(file)
                .ok()
                .and_then(|t| t.lines().next().map(|l| l.trim().chars().take(64).collect()))
                .filter(|v: &String| !v.is_empty()),
        })
    }

    /// What the plan allows each database, and how far its chain goes.
    fn know_orders(&mut self) -> Result<(), StoreError> {
        let plans = self.shared.store().plans()?;
        for path in self.sites.keys().cloned().collect::<Vec<_>>() {
            let latest = self.chain(&self.sites[&path].site.rule.app.clone())?.latest();
            let seed = self.server.seed;
            let state = self.sites.get_mut(&path).expect("its own key");
            state.latest = latest;
            let Some(looked) = &state.looked else { continue };
            // A server of the seed's kind has no plans: what it lists is what it wants.
            state.order = if seed { Some(Order::ApplyUpTo { version: latest }) } else { plans.get(&looked.identity.client_id).map(|p| p.order) };
        }
        Ok(())
    }

    /// Runs what is to be run, `parallel` databases at a time. One that fails does not hold up the others.
    async fn advance(&mut self, requests: &[Open], forced: bool) -> Result<(), StoreError> {
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
    fn show_holds(&mut self) -> Result<(), StoreError> {
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

    // ---- the server --------------------------------------------------------------------------------------------------

    fn connect(&self) -> Result<Option<Server>, StoreError> {
        let store = self.shared.store();
        let Some(url) = self.config.server.clone().map_or_else(|| store.setting(settings::SERVER), |u| Ok(Some(u)))? else { return Ok(None) };
        let credential = store.setting(settings::DEVICE_TOKEN)?.map_or(Credential::None, Credential::Device);
        Ok(Some(Server::new(self.http.clone(), url, credential, self.shared.ambient.clone())))
    }

    /// Reports, says how things are, asks what is allowed, and accepts what is new. The outer error is ours, the inner
    /// one the exchange's.
    async fn exchange(&mut self) -> Result<Result<(), TransportError>, StoreError> {
        if let Some(left) = self.server.not_before.map(|at| at.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero()) {
            return Ok(Err(TransportError::AskedToWait { left }));
        }
        self.server.alarms.clear();
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
        self.seed_exchange(&server).await
    }

    fn knows_the_server(&self) -> Result<bool, StoreError> {
        let store = self.shared.store();
        Ok(store.setting(settings::DEVICE_TOKEN)?.is_some() || store.setting(settings::POLL_BODY)?.is_some() || !store.plans()?.is_empty())
    }

    /// Reports what is not acknowledged, and the state if it changed.
    async fn tell(&mut self) -> Result<Result<(), TransportError>, StoreError> {
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
    async fn tell_state(&mut self, server: &Server) -> Result<Result<(), TransportError>, StoreError> {
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

    fn alarm(&mut self, app: &AppName, error: &AcceptError) {
        tracing::error!(app = %app, "{error}");
        self.server.alarms.push(item("repository", Severity::Error, format!("{app}: {error}"), error.remedy()));
    }

    // ---- a server of the seed's kind -----------------------------------------------------------------------------------

    async fn seed_exchange(&mut self, server: &Server) -> Result<Result<(), TransportError>, StoreError> {
        let etag = self.shared.store().setting(settings::PENDING_ETAG)?;
        let (pending, etag) = match server.seed_pending(etag.as_deref()).await {
            Ok(Fresh::AsBefore) => return self.seed_tell(server).await,
            Ok(Fresh::New(pending, etag)) => (pending, etag),
            Err(error) => return Ok(Err(error)),
        };
        if !self.server.seed {
            tracing::info!("the server has only the seed's endpoints");
            self.server.seed = true;
        }
        // Such a server knows no apps: what it lists is for the app of the first database.
        let Some(app) = self.config.databases.first().map(|d| d.app.clone()) else { return Ok(Ok(())) };
        match self.take_seed(&app, pending)? {
            Ok(()) => self.shared.store().set_setting(settings::PENDING_ETAG, etag.as_deref())?,
            Err(error) => self.alarm(&app, &error),
        }
        self.seed_tell(server).await
    }

    /// Gives seed migrations their place in a chain: behind what was accepted, by timestamp.
    fn take_seed(&mut self, app: &AppName, mut pending: Vec<SeedMigration>) -> Result<Result<(), AcceptError>, StoreError> {
        pending.sort_by(|a, b| (a.timestamp, a.migration_name.as_str()).cmp(&(b.timestamp, b.migration_name.as_str())));
        let newest = settings::seed_timestamp(app);
        let now_ms = self.shared.ambient.now_ms();
        for seed in pending {
            let body = seed.to_migration().to_bytes();
            let store = self.shared.store();
            let accepted = store.entries(app)?;
            if let Some(known) = accepted.iter().find(|e| e.custom.name == seed.migration_name) {
                if known.digest() != Digest::of(&body) {
                    let (known, offered) = (known.digest(), Digest::of(&body));
                    return Ok(Err(whimbrel_shared::trust::TrustError::Changed { name: seed.migration_name.to_string(), known, offered }.into()));
                }
                continue;
            }
            let last = accepted.last();
            let before = store.setting(&newest)?.and_then(|t| t.parse::<i64>().ok());
            if before.is_some_and(|before| seed.timestamp < before) {
                let why = format!("{} has timestamp {}, before that of a migration that was accepted already", seed.migration_name, seed.timestamp);
                return Ok(Err(whimbrel_shared::trust::TrustError::BrokenChain { version: last.map_or(1, |l| l.custom.version + 1), why }.into()));
            }
            let link = Link {
                name: seed.migration_name.clone(),
                version: last.map_or(1, |l| l.custom.version + 1),
                revision: 1,
                previous: last.map(TargetEntry::digest),
                mends: None,
                schema: None,
                steps: Vec::new(),
                min_sqlite: None,
                columns: None,
                sync: Default::default(),
            };
            drop(store);
            let entry = TargetEntry::new(&body, link);
            self.shared.store().atomically(|store| {
                store.accept(app, &StoredTarget { entry: entry.clone(), body: body.clone(), accepted_at_ms: now_ms })?;
                store.set_setting(&newest, Some(&seed.timestamp.to_string()))
            })?;
            self.chains.remove(app);
        }
        Ok(Ok(()))
    }

    async fn seed_tell(&mut self, server: &Server) -> Result<Result<(), TransportError>, StoreError> {
        loop {
            let reports = self.shared.store().unsent(MAX_REPORTS)?;
            if reports.is_empty() {
                return Ok(Ok(()));
            }
            for event in reports {
                // The seed knows applied and not applied; the rest of the history stays here.
                let applied = match event.kind {
                    EventKind::Completed | EventKind::Skipped => Some(true),
                    EventKind::Reverted | EventKind::Failed | EventKind::GivenBack => Some(false),
                    EventKind::Started | EventKind::Crashed | EventKind::Retried => None,
                };
                if let Some(applied) = applied {
                    let error = event.failure.as_ref().map(|f| f.message.clone());
                    if let Err(error) = server.seed_report(&SeedStatus { migration_name: event.migration.clone(), applied, error }).await {
                        return Ok(Err(error));
                    }
                }
                self.shared.store().acknowledge(&[event.event_id])?;
            }
        }
    }

    // ---- what became of it ---------------------------------------------------------------------------------------------

    fn note(&mut self, exchange: &Result<(), TransportError>) {
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

    fn summary(&self) -> Summary {
        let mut summary = Summary { total: u32::try_from(self.sites.len()).unwrap_or(u32::MAX), ..Summary::default() };
        for (path, state) in &self.sites {
            summary.migrations += state.ran;
            let failed = state.stopped.is_some() || state.health.iter().any(|h| h.severity == Severity::Error);
            let waits = !failed && (pending(state) > 0 || state.looked.is_none() || state.order.is_none());
            match (failed, waits) {
                (true, _) => summary.failed += 1,
                (false, true) => summary.skipped += 1,
                (false, false) => summary.completed += 1,
            }
            let mut codes = BTreeSet::new();
            for health in state.health.iter().filter(|h| codes.insert(h.code.clone())) {
                if !failed && !waits {
                    continue;
                }
                let migration = state.stopped.as_ref().filter(|s| s.failure.code == health.code).and_then(|s| s.migration.clone());
                summary.errors.push(SummaryError {
                    database: path.clone(),
                    migration,
                    code: health.code.clone(),
                    message: health.message.clone(),
                    remedy: health.remedy.clone(),
                    waiting: health.severity != Severity::Error,
                });
            }
            if state.health.is_empty() && waits {
                summary.errors.push(SummaryError {
                    database: path.clone(),
                    migration: None,
                    code: "no_plan".to_owned(),
                    message: "the server has not said yet what this database may have".to_owned(),
                    remedy: operator("enrol the device for this app, or look at its plan"),
                    waiting: true,
                });
            }
        }
        for alarm in &self.server.alarms {
            summary.errors.push(SummaryError {
                database: PathBuf::new(),
                migration: None,
                code: alarm.code.clone(),
                message: alarm.message.clone(),
                remedy: alarm.remedy.clone(),
                waiting: false,
            });
        }
        summary
    }

    // ---- what a person asked for ---------------------------------------------------------------------------------------

    fn requests(&self) -> Result<Vec<Open>, StoreError> {
        let open = self.shared.store().open_requests()?;
        Ok(open
            .into_iter()
            .filter_map(|(id, body)| {
                let (database, order) = serde_json::from_str(&body).ok()?;
                Some(Open { id, database, order })
            })
            .collect())
    }

    /// Whether a selector means this database: by path, file name, or the beginning of its client id.
    pub fn selects(&self, selector: &Selector, path: &PathBuf) -> bool {
        let Some(text) = &selector.0 else { return true };
        let named = std::fs::canonicalize(text).ok();
        let client = self.sites.get(path).and_then(|s| s.looked.as_ref()).map(|l| l.identity.client_id.to_string());
        path.as_os_str() == text.as_str()
            || named.as_ref() == Some(path)
            || path.file_name().is_some_and(|n| n == text.as_str())
            || (text.len() >= 4 && client.is_some_and(|c| c.starts_with(text.as_str())))
    }

    fn finish(&mut self, requests: Vec<Open>, whole: &Summary) -> Result<(), StoreError> {
        for request in requests {
            if request.order == PersonOrder::Cycle {
                self.shared.store().finish_request(request.id, &serde_json::to_string(whole).expect("a summary has text keys"))?;
                continue;
            }
            let mut summary = whole.clone();
            let chosen: Vec<&PathBuf> = self.sites.keys().filter(|p| self.selects(&request.database, p)).collect();
            summary.errors.retain(|e| chosen.contains(&&e.database));
            // Who reverts or holds wants it to wait afterwards; what was adopted may wait for its window.
            match request.order {
                PersonOrder::Revert { .. } | PersonOrder::Hold { .. } | PersonOrder::Adopt { .. } | PersonOrder::GiveBack => {
                    summary.errors.retain(|e| !e.waiting);
                }
                // How the migrations stand is another matter.
                PersonOrder::Backup | PersonOrder::Restore { .. } => summary.errors.retain(|e| backups::is_about(&e.code)),
                PersonOrder::Apply { .. } | PersonOrder::Retry | PersonOrder::RetryItems | PersonOrder::Release | PersonOrder::Cycle => {}
            }
            if request.order == PersonOrder::RetryItems {
                if self.shared.halt.no_more() {
                    // Not all of it was done: the next start takes it up.
                    continue;
                }
                (summary.items, summary.errors) = self.items_of(&chosen);
            }
            summary.total = u32::try_from(chosen.len()).unwrap_or(u32::MAX);
            let failing: BTreeSet<&PathBuf> = summary.errors.iter().filter(|e| !e.waiting).map(|e| &e.database).collect();
            let waiting: BTreeSet<&PathBuf> =
                summary.errors.iter().filter(|e| e.waiting).map(|e| &e.database).filter(|d| !failing.contains(d)).collect();
            summary.failed = u32::try_from(failing.len()).unwrap_or(u32::MAX);
            summary.skipped = u32::try_from(waiting.len()).unwrap_or(u32::MAX);
            summary.completed = summary.total - summary.failed - summary.skipped;
            summary.migrations = chosen.iter().map(|p| self.sites[*p].ran).sum();
            let outcome = serde_json::to_string(&summary).expect("a summary has text keys");
            self.shared.store().finish_request(request.id, &outcome)?;
        }
        Ok(())
    }

    /// How long until a database is to be tried again, if one is.
    pub fn next_try(&self) -> Option<Duration> {
        self.sites.values().filter_map(|s| s.next_try).min().map(|at| at.saturating_duration_since(Instant::now()))
    }
}

/// What a person is told for a day about a file that was copied here and got a client id of its own.
fn copied(shared: &Shared, looked: &Looked) -> Result<Option<HealthItem>, StoreError> {
    const SHOWN_MS: u64 = 24 * 3_600_000;
    let note = shared.store().setting(&settings::parted(looked.identity.client_id))?;
    let parted = note.as_deref().and_then(|note| note.split_once(' ')).and_then(|(from, at_ms)| Some((from, at_ms.parse::<i64>().ok()?)));
    Ok(parted.filter(|(_, at_ms)| shared.ambient.now_ms().abs_diff(*at_ms) < SHOWN_MS).map(|(from, _)| {
        let message = format!("the file was copied from another device's database {from}; its client id is {} now", looked.identity.client_id);
        item("copied", Severity::Info, message, here("nothing to do: its history is kept, and the server knows the two apart"))
    }))
}

/// Whether the device is enrolled for `app`; before it is for any, nobody knows.
fn enrolled(apps: Option<&str>, app: &AppName) -> bool {
    apps.is_none_or(|apps| apps.split(' ').any(|a| a == app.as_str()))
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

/// The version that a person names, by its number or its name.
fn named(chain: &Chain, name: &str) -> Option<u32> {
    (1..=chain.latest()).find(|v| name.parse() == Ok(*v) || chain.newest(*v).is_some_and(|e| e.custom.name.as_str() == name))
}

/// What a person's order means for the versions of one database; none for orders that are about something else.
fn wish(order: &PersonOrder, chain: &Chain, looked: &Looked) -> Option<Result<Wish, HealthItem>> {
    let named = |name: &str| named(chain, name);
    let unknown = |name: &str| {
        Err(item("unknown_migration", Severity::Error, format!("no accepted migration is called {name:?}"), here("`whimbrel status` lists them")))
    };
    match order {
        PersonOrder::Apply { to: None, .. } => Some(Ok(Wish::ApplyUpTo(u32::MAX))),
        PersonOrder::Apply { to: Some(name), .. } => Some(named(name).map_or_else(|| unknown(name), |v| Ok(Wish::ApplyUpTo(v)))),
        PersonOrder::Revert { migration: Some(name), .. } => Some(match named(name) {
            None => unknown(name),
            Some(version) if version > looked.position => {
                Err(item("not_applied", Severity::Error, format!("{name} is not in place"), here("`whimbrel status` shows what is")))
            }
            Some(version) => Ok(Wish::RevertDownTo(version - 1)),
        }),
        PersonOrder::Revert { migration: None, to } => Some(Ok(Wish::RevertDownTo(to.unwrap_or_else(|| looked.position.saturating_sub(1))))),
        PersonOrder::Retry
        | PersonOrder::RetryItems
        | PersonOrder::Hold { .. }
        | PersonOrder::Release
        | PersonOrder::Adopt { .. }
        | PersonOrder::GiveBack
        | PersonOrder::Backup
        | PersonOrder::Restore { .. }
        | PersonOrder::Cycle => None,
    }
}

/// Versions that the plan allows and that are not in place.
pub fn pending(state: &SiteState) -> u32 {
    let position = state.looked.as_ref().map_or(0, |l| l.position);
    match state.order {
        Some(Order::ApplyUpTo { version }) => version.saturating_sub(position),
        Some(Order::RevertDownTo { version }) => position.saturating_sub(version),
        None => 0,
    }
}

/// Whether what is in place is all that was ever planned for it. Before a server has said anything, nobody knows; without
/// a plan, what was accepted is the plan.
fn is_planned(state: &SiteState, looked: &Looked) -> bool {
    state.order.is_some() || (state.latest > 0 && looked.position >= state.latest)
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

/// The worst of a database's statuses.
pub fn status(state: &SiteState) -> Status {
    let Some(looked) = &state.looked else { return Status::Pending };
    if looked.history.values().any(|r| r.status == Status::Failed) {
        Status::Failed
    } else if pending(state) > 0 || !is_planned(state, looked) {
        Status::Pending
    } else {
        Status::Completed
    }
}
