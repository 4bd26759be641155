//! The part of a cycle in which databases are taken over, or given back, because a person said so.

use std::{path::PathBuf, sync::Arc};

use tokio::{sync::Semaphore, task::JoinSet};
use whimbrel_shared::protocol::state::{HealthItem, Severity};

use super::{Core, Open, advance::named};
use crate::{
    control::protocol::{PersonOrder, Selector},
    migrate::{
        adopt::{self, AdoptError, Word},
        chain::Chain,
        connection::Missing,
        gate::item,
        work::{self, Looked, Shared, Site},
    },
    store::StoreError,
};

/// What a person wants of one database.
#[derive(Clone)]
enum Wanted {
    Adopt(Word),
    GiveBack,
}

impl Core {
    /// Does what the newest such order of each database says, `parallel` at a time. One that is refused does not hold up
    /// the others, and nothing is run on it in this cycle.
    pub(super) async fn adopt(&mut self, requests: &[Open]) -> Result<(), StoreError> {
        let mut jobs = JoinSet::new();
        let limit = Arc::new(Semaphore::new(self.config.parallel));
        for path in self.sites.keys().cloned().collect::<Vec<_>>() {
            let newest = requests
                .iter()
                .rev()
                .find(|r| matches!(r.order, PersonOrder::Adopt { .. } | PersonOrder::GiveBack) && self.selects(&r.database, &path));
            let Some((order, all)) = newest.map(|r| (&r.order, r.database == Selector(None))) else { continue };
            let chain = self.chain(&self.sites[&path].site.rule.app.clone())?;
            let wanted = wanted(order, &chain);
            let state = self.sites.get_mut(&path).expect("its own key");
            let Some(looked) = state.looked.clone() else { continue };
            let wanted = match wanted {
                Ok(wanted) => wanted,
                Err(why) => {
                    state.refuse_to_adopt(&why);
                    continue;
                }
            };
            let (shared, site, limit) = (self.shared.clone(), state.site.clone(), limit.clone());
            jobs.spawn(async move {
                let _permit = limit.acquire_owned().await.expect("the semaphore is never closed");
                let done = tokio::task::spawn_blocking(move || {
                    let done = carry_out(&shared, &site, &looked, &chain, &wanted);
                    let again = done.is_ok().then(|| work::look(&shared, &site, &chain, Missing::Refuse));
                    (done, again)
                });
                let (done, again) = done.await.expect("taking over does not panic");
                (path, all, done, again)
            });
        }
        while let Some(done) = jobs.join_next().await {
            let (path, all, done, again) = done.expect("taking over does not panic");
            self.taken_over(&path, all, done, again);
        }
        Ok(())
    }

    fn taken_over(&mut self, path: &PathBuf, all: bool, done: Result<(), AdoptError>, again: Option<Result<Looked, HealthItem>>) {
        let state = self.sites.get_mut(path).expect("it was worked on");
        match done {
            Ok(()) => {}
            // Whoever means all of them means those that there is something to do for.
            Err(AdoptError::Begun { .. } | AdoptError::NoPast | AdoptError::NotAdopted) if all => {}
            Err(why) => state.refuse_to_adopt(&why),
        }
        match again {
            Some(Ok(looked)) => {
                tracing::info!(database.path = %path.display(), "its history begins at version {} now", looked.position);
                // What failed before belongs to a history that is no more.
                (state.failures, state.next_try, state.next_try_ms, state.stopped) = (0, None, None, None);
                state.health.retain(|h| h.code != "drift");
                state.looked = Some(looked);
            }
            Some(Err(why)) => state.health.push(why),
            None => {}
        }
    }
}

impl super::SiteState {
    fn refuse_to_adopt(&mut self, why: &AdoptError) {
        self.not_adopted = true;
        self.health.push(item(why.code(), Severity::Error, why.to_string(), why.remedy()));
    }
}

fn wanted(order: &PersonOrder, chain: &Chain) -> Result<Wanted, AdoptError> {
    let PersonOrder::Adopt { version, accept_drift } = order else { return Ok(Wanted::GiveBack) };
    let version = match version.as_deref() {
        None => None,
        Some("0") => Some(0),
        Some(asked) => {
            let unknown = || AdoptError::NoSuchVersion { asked: asked.to_owned(), latest: chain.latest() };
            Some(named(chain, asked).ok_or_else(unknown)?)
        }
    };
    Ok(Wanted::Adopt(Word { version, accept_drift: *accept_drift }))
}

fn carry_out(shared: &Shared, site: &Site, looked: &Looked, chain: &Chain, wanted: &Wanted) -> Result<(), AdoptError> {
    match wanted {
        Wanted::Adopt(word) => adopt::adopt(shared, site, looked, chain, *word).map(|_| ()),
        Wanted::GiveBack => {
            adopt::give_back(shared, site, looked)?;
            // The plan would begin at the first migration, on a file that has it already.
            let now_ms = shared.ambient.now_ms();
            shared.store().set_hold(looked.identity.client_id, Some(None), now_ms).map_err(crate::migrate::error::ApplyError::from)?;
            Ok(())
        }
    }
}
