//! Rows that a person wants tried again, and what became of them.

use std::{path::PathBuf, sync::Arc};

use tokio::{sync::Semaphore, task::JoinSet};
use whimbrel_shared::protocol::state::Severity;

use super::{Core, Open};
use crate::{
    control::protocol::{PersonOrder, SummaryError},
    migrate::items::{self, Retried},
    store::StoreError,
};

impl Core {
    /// Tries them, `parallel` databases at a time. A database that could not be looked at has said why already.
    pub(super) async fn retry_items(&mut self, requests: &[Open]) -> Result<(), StoreError> {
        let meant = |path: &PathBuf| requests.iter().any(|r| r.order == PersonOrder::RetryItems && self.selects(&r.database, path));
        let paths: Vec<PathBuf> = self.sites.keys().filter(|path| meant(path)).cloned().collect();
        let mut jobs = JoinSet::new();
        let limit = Arc::new(Semaphore::new(self.config.parallel));
        for path in paths {
            let state = &self.sites[&path];
            let Some(looked) = state.looked.clone() else { continue };
            let (shared, site, limit) = (self.shared.clone(), state.site.clone(), limit.clone());
            jobs.spawn(async move {
                let _permit = limit.acquire_owned().await.expect("the semaphore is never closed");
                let done = tokio::task::spawn_blocking(move || items::retry(&shared, &site, &looked)).await;
                (path, done.expect("trying rows again does not panic"))
            });
        }
        while let Some(done) = jobs.join_next().await {
            let (path, (retried, health)) = done.expect("trying rows again does not panic");
            if retried.tried > 0 {
                tracing::info!(database.path = %path.display(), "tried {} rows again: {} are done", retried.tried, retried.done);
            }
            let state = self.sites.get_mut(&path).expect("it was worked on");
            state.items = Some(retried);
            state.health.extend(health);
        }
        Ok(())
    }

    /// What became of the rows of these databases, and what stood in the way. How their migrations stand is another matter.
    pub(super) fn items_of(&self, chosen: &[&PathBuf]) -> (Option<Retried>, Vec<SummaryError>) {
        let (mut sum, mut errors) = (Retried::default(), Vec::new());
        for path in chosen {
            let state = &self.sites[*path];
            if let Some(items) = state.items {
                (sum.tried, sum.done, sum.left) = (sum.tried + items.tried, sum.done + items.done, sum.left + items.left);
            }
            let unseen = state.looked.is_none();
            errors.extend(state.health.iter().filter(|h| unseen || h.code.starts_with(items::CODES)).map(|h| SummaryError {
                database: (*path).clone(),
                migration: None,
                code: h.code.clone(),
                message: h.message.clone(),
                remedy: h.remedy.clone(),
                waiting: h.severity != Severity::Error,
            }));
        }
        (Some(sum), errors)
    }
}
