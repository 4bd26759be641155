//! The databases between two cycles: which there are, what was found in them, and what is wished for them.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use whimbrel_shared::{
    ids::AppName,
    protocol::{
        poll::Order,
        state::{HealthItem, Severity},
    },
    remedy::here,
    status::Status,
};

use super::{Core, rows::RowsState};
use crate::{
    config::AppVersion,
    control::protocol::MigrationFailure,
    migrate::{
        chain::Chain,
        connection::Missing,
        gate::item,
        items::Retried,
        work::{self, Looked, Shared, Site},
    },
    store::{StoreError, private, settings},
};

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
    pub(super) told: Vec<HealthItem>,
    /// Migrations run in this cycle.
    pub(super) ran: u32,
    /// Whether a person wanted it adopted in this cycle, and it was refused: then nothing is run on it.
    pub(super) not_adopted: bool,
    /// Whether what an interrupted backup left behind was taken away.
    pub(super) swept: bool,
    /// What became of rows that were to be tried again in this cycle.
    pub(super) items: Option<Retried>,
    /// How the last exchange of its rows went.
    pub rows: RowsState,
}

impl Core {
    /// Which files there are.
    pub(super) fn find_sites(&mut self) {
        let mut found = BTreeSet::new();
        for rule in &self.config.databases {
            for path in work::expand(rule) {
                // Two names of one file are one database; a link in its place is not followed.
                let path = private::resolved(&path).unwrap_or(path);
                if found.insert(path.clone()) && !self.sites.contains_key(&path) {
                    let site = Site::new(path.clone(), rule.clone());
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
                        rows: RowsState::default(),
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
    pub(super) async fn look(&mut self, missing: Missing) -> Result<bool, StoreError> {
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
                    state.health.extend(looked.rows.health.iter().cloned());
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

    /// The chain as it is loaded now.
    pub fn known_chain(&self, app: &AppName) -> Arc<Chain> {
        self.chains.get(app).cloned().unwrap_or_default()
    }

    pub(super) fn chain(&mut self, app: &AppName) -> Result<Arc<Chain>, StoreError> {
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
    pub(super) fn know_orders(&mut self) -> Result<(), StoreError> {
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
}

/// What a person is told for a day about a file that was copied here and got a client id of its own.
pub(super) fn copied(shared: &Shared, looked: &Looked) -> Result<Option<HealthItem>, StoreError> {
    const SHOWN_MS: u64 = 24 * 3_600_000;
    let note = shared.store().setting(&settings::parted(looked.identity.client_id))?;
    let parted = note.as_deref().and_then(|note| note.split_once(' ')).and_then(|(from, at_ms)| Some((from, at_ms.parse::<i64>().ok()?)));
    Ok(parted.filter(|(_, at_ms)| shared.ambient.now_ms().abs_diff(*at_ms) < SHOWN_MS).map(|(from, _)| {
        let message = format!("the file was copied from another device's database {from}; its client id is {} now", looked.identity.client_id);
        item("copied", Severity::Info, message, here("nothing to do: its history is kept, and the server knows the two apart"))
    }))
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
