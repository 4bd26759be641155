//! Rows, after schema: each database that stands at a version exchanges what that version exchanges, `parallel` at a time.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
    task::JoinSet,
};
use whimbrel_shared::protocol::{problem::NOT_REPORTED, state::Severity};

use super::{Core, sites::pending};
use crate::{
    control::protocol::{RowsMoved, RowsView},
    migrate::{
        chain::Chain,
        connection::{Managed, Missing},
        error::ApplyError,
        gate::item,
        ready::SchemaReady,
        work::{Looked, Shared, Site},
    },
    replicate::{self, At, Means, Pace, ReplicateError, Replicated},
    store::{StoreError, journal, settings},
    sync::standing::{self, Standing},
    transport::{TransportError, server::Server},
};

/// How long the file is waited for when it is opened.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a migration waits for what was edited before it to be sent. What is left is carried through it.
const DRAIN: Duration = Duration::from_secs(10);

/// What an exchange is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Both ways, to the end.
    Exchange,
    /// Only what waits to be sent, before a migration.
    Drain,
}

/// How the last exchange of a database's rows went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowsState {
    /// Whether there is anything to exchange.
    pub(super) exchanges: bool,
    /// What it did.
    pub did: Replicated,
    /// Why it ended early.
    pub error: Option<String>,
    /// When it last went to the end, in milliseconds since 1970.
    pub checked_ms: Option<i64>,
    /// The file as it was then; none where something was written that it has not seen.
    seen: Option<Footprint>,
}

impl RowsState {
    /// As it is shown, with how the file stands.
    pub fn view(&self, standing: Standing) -> RowsView {
        RowsView { standing, checked_ms: self.checked_ms, moved: RowsMoved::from(&self.did), error: self.error.clone() }
    }
}

/// What changes of a file when anybody writes to it: size and time of the file and of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Footprint([Option<(u64, SystemTime)>; 2]);

impl Footprint {
    fn of(path: &Path) -> Self {
        let of = |path: &Path| std::fs::metadata(path).ok().and_then(|m| Some((m.len(), m.modified().ok()?)));
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        Self([of(path), of(Path::new(&wal))])
    }
}

impl Core {
    /// Sends what waits of the databases that are about to move to another version.
    pub(super) async fn drain(&mut self) -> Result<Result<(), TransportError>, StoreError> {
        let paths = self.sites.iter().filter(|(_, state)| pending(state) > 0).map(|(path, _)| path.clone()).collect();
        self.each(paths, Purpose::Drain).await
    }

    /// Whether a database that exchanges rows was written to since it last did. Costs a look at two files for each.
    pub fn was_edited(&self) -> bool {
        let exchanged = self.sites.iter().filter(|(_, state)| state.rows.exchanges && state.rows.error.is_none());
        exchanged.into_iter().any(|(path, state)| state.rows.seen.is_none_or(|seen| seen != Footprint::of(path)))
    }

    /// Whether any database exchanges rows.
    pub fn exchanges_rows(&self) -> bool {
        self.sites.values().any(|state| state.rows.exchanges)
    }

    /// Exchanges the rows of every database whose version has any to exchange.
    pub(super) async fn rows(&mut self) -> Result<Result<(), TransportError>, StoreError> {
        // What an earlier one did is no news.
        self.sites.values_mut().for_each(|state| state.rows.did = Replicated::default());
        let paths: Vec<PathBuf> = self.sites.keys().cloned().collect();
        let outcome = self.each(paths.clone(), Purpose::Exchange).await?;
        // A server that was put back to before it knew the database is told of it again, whatever it was told before.
        if outcome.as_ref().is_err_and(|error| error.problem() == Some(NOT_REPORTED))
            && let Some(server) = self.connect()?
        {
            self.shared.store().set_setting(settings::STATE_DIGEST, None)?;
            return match self.tell_state(&server).await? {
                Ok(()) => self.each(paths, Purpose::Exchange).await,
                Err(error) => Ok(Err(error)),
            };
        }
        Ok(outcome)
    }

    async fn each(&mut self, paths: Vec<PathBuf>, purpose: Purpose) -> Result<Result<(), TransportError>, StoreError> {
        if self.server.seed {
            return Ok(Ok(()));
        }
        let Some(server) = self.connect()? else { return Ok(Ok(())) };
        let mut jobs = JoinSet::new();
        let limit = Arc::new(Semaphore::new(self.config.parallel));
        for path in paths {
            let chain = self.chain(&self.sites[&path].site.rule.app.clone())?;
            let state = &self.sites[&path];
            let Some(looked) = state.looked.clone() else { continue };
            let Some(ready) = looked.rows.ready.clone() else { continue };
            let (shared, site, limit, server) = (self.shared.clone(), state.site.clone(), limit.clone(), server.clone());
            let (handle, stop) = (Handle::current(), self.stop.clone());
            jobs.spawn(async move {
                let _permit = limit.acquire_owned().await.expect("the semaphore is never closed");
                let done =
                    tokio::task::spawn_blocking(move || exchange(&shared, &site, &looked, &ready, &chain, &server, &handle, stop, purpose)).await;
                (path, done.expect("an exchange of rows does not panic"))
            });
        }
        let mut outcome = Ok(());
        while let Some(done) = jobs.join_next().await {
            let (path, done) = done.expect("an exchange of rows does not panic");
            let Some(state) = self.sites.get_mut(&path) else { continue };
            match done {
                Ok((did, seen, standing)) => {
                    if did.pushed + did.landed > 0 {
                        tracing::info!(
                            database.path = %path.display(), pushed = did.pushed, landed = did.landed, merged = did.merged, open = did.open,
                            "exchanged rows"
                        );
                    }
                    let checked_ms = if purpose == Purpose::Exchange { Some(self.shared.ambient.now_ms()) } else { state.rows.checked_ms };
                    state.rows = RowsState { exchanges: true, did, error: None, checked_ms, seen };
                    if let Some(looked) = &mut state.looked {
                        looked.standing = standing;
                    }
                }
                Err(error) => {
                    state.rows.error = Some(error.to_string());
                    match error {
                        ReplicateError::Server(error) => outcome = outcome.and(Err(error)),
                        // It goes on at the new version, in the next cycle.
                        ReplicateError::File(ApplyError::Moved(why)) => tracing::debug!(database.path = %path.display(), "{why}"),
                        ReplicateError::File(error) => {
                            let severity = if error.is_busy() { Severity::Info } else { Severity::Warning };
                            state.health.push(item(error.code(), severity, format!("rows were not exchanged: {error}"), error.remedy()));
                        }
                    }
                }
            }
        }
        Ok(outcome)
    }
}

fn exchange(
    shared: &Shared,
    site: &Site,
    looked: &Looked,
    ready: &SchemaReady,
    chain: &Chain,
    server: &Server,
    handle: &Handle,
    stop: watch::Receiver<bool>,
    purpose: Purpose,
) -> Result<(Replicated, Option<Footprint>, Option<Standing>), ReplicateError> {
    let mut file = Managed::open(&site.path, Missing::Refuse, PATIENCE, shared.halt.clone())?;
    let synced_at =
        |version: u32| -> BTreeSet<u32> { chain.rows_at(version).map(|rows| rows.synced().0.keys().copied().collect()).unwrap_or_default() };
    let identity = &looked.identity;
    let at = At {
        client_id: identity.client_id,
        epoch: identity.epoch,
        version: ready.version(),
        map: ready.map(),
        synced: ready.synced(),
        synced_at: &synced_at,
        holds: &|file| ready.holds(file),
    };
    let boot = || shared.ambient.boot();
    let means = Means { server, handle, ambient: &shared.ambient, boot: &boot, stop, pace: Pace::Measured };
    let did = match purpose {
        Purpose::Exchange => replicate::replicate(&mut file, &at, &means)?,
        Purpose::Drain => replicate::drain(&mut file, &at, &means, Instant::now() + DRAIN).map(|_| Replicated::default())?,
    };
    let seen = Footprint::of(&site.path);
    // What was written between the last look and this one is in the journal.
    let seen = journal::extent(&file.connection)?.is_folded().then_some(seen);
    Ok((did, seen, standing::read(&file.connection)?))
}
