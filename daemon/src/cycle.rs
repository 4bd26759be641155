//! The cycle: the recipe that everything else is an ingredient of (DESIGN 7).
//!
//! look → report → state → poll → accept → plan → gate → apply → report → rows. What needs the server is skipped when it
//! cannot be reached; what was accepted before is applied all the same.

mod adopt;
mod advance;
mod backups;
mod decide;
mod exchange;
mod items;
mod requests;
mod rows;
mod seed;
mod signed;
mod sites;
mod token;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use whimbrel_shared::{ids::AppName, protocol::state::HealthItem};

use crate::{
    config::Config,
    control::protocol::{PersonOrder, Summary},
    migrate::{chain::Chain, connection::Missing, work::Shared},
    store::{StoreError, settings},
    transport::{Http, TransportError, tls::Roots},
};

use self::requests::Open;
pub use self::{
    rows::RowsState,
    sites::{SiteState, pending, status},
};

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
    /// What orders about rows came to in this cycle.
    said: Vec<decide::Said>,
    /// Turns true when the daemon ends: then no answer is waited for any more.
    stop: watch::Receiver<bool>,
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
    /// What is wrong with what is trusted, by app.
    pub trust: BTreeMap<AppName, Vec<HealthItem>>,
    /// Whether the server has only the seed's two endpoints.
    pub seed: bool,
    /// Before when it asked not to be asked again.
    pub not_before: Option<Instant>,
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
        Self { config, shared, http, roots, sites: BTreeMap::new(), server, chains: BTreeMap::new(), said: Vec::new(), stop }
    }

    /// One cycle. `pulse` is called while work is awaited, so that the watchdog sees progress.
    pub async fn cycle(&mut self, forced: bool, publish: &mut (dyn FnMut(&Self, &'static str) + Send)) -> Result<Outcome, StoreError> {
        let requests = self.requests()?;
        self.find_sites();
        for request in requests.iter().filter(|r| r.order == PersonOrder::Retry) {
            for path in self.sites.keys().filter(|p| self.selects(&request.database, p)) {
                self.shared.store().set_setting(&settings::damaged(path), None)?;
                self.shared.store().set_setting(&settings::detached(path), None)?;
            }
        }
        self.look(Missing::Refuse).await?;
        self.know_orders()?;
        publish(self, "polling");

        let mut exchange = self.stoppable(Self::exchange).await?;
        if let Err(refused) = &exchange
            && self.try_next_token(refused)?
        {
            let again = self.stoppable(Self::exchange).await?;
            self.keep_token(&again, refused)?;
            exchange = again;
        }
        if exchange.is_ok() && self.look(Missing::Create).await? {
            // Files that were made now have to be known to the server before it has a plan for them.
            exchange = self.stoppable(Self::exchange).await?;
        }

        self.adopt(&requests).await?;
        // Before the picture: what is about to be applied is pending in it.
        self.know_orders()?;
        publish(self, "applying");
        self.backups(&requests).await?;
        if exchange.is_ok() {
            exchange = self.stoppable(Self::drain).await?;
        }
        self.advance(&requests, forced).await?;
        self.retry_items(&requests).await?;
        self.decide(&requests).await?;
        publish(self, "reporting");
        self.show_holds()?;
        for state in self.sites.values_mut() {
            state.told.clone_from(&state.health);
        }
        if exchange.is_ok() && self.server.state != "not_enrolled" {
            // Sends what changed, and nothing else.
            exchange = self.stoppable(Self::tell).await?;
        }
        if exchange.is_ok() && self.server.state != "not_enrolled" {
            publish(self, "exchanging rows");
            exchange = self.stoppable(Self::rows).await?;
        }
        if exchange.is_ok() && self.server.state != "not_enrolled" {
            exchange = self.stoppable(Self::rotate_token).await?;
        }
        self.note_revoked(&exchange);
        self.note(&exchange);
        self.after_rows(&requests).await?;
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

    /// Whether servers are judged by the certificates that were compiled in, because the system has none.
    pub fn lacks_ca_store(&self) -> bool {
        self.roots == Roots::BuiltIn
    }

    /// How long until a database is to be tried again, if one is.
    pub fn next_try(&self) -> Option<Duration> {
        self.sites.values().filter_map(|s| s.next_try).min().map(|at| at.saturating_duration_since(Instant::now()))
    }
}
