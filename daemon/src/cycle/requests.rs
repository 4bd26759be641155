//! What a person asked for, and what is answered: the sum of a cycle, and that of the databases they meant.

use std::{collections::BTreeSet, path::PathBuf};

use whimbrel_shared::{ids::RequestId, protocol::state::Severity, remedy::operator};

use super::{Core, backups, sites::pending};
use crate::{
    control::protocol::{PersonOrder, Selector, Summary, SummaryError},
    store::StoreError,
};

/// An open request of a person.
pub(super) struct Open {
    pub(super) id: RequestId,
    pub(super) database: Selector,
    pub(super) order: PersonOrder,
}

impl Core {
    pub(super) fn summary(&self) -> Summary {
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

    pub(super) fn requests(&self) -> Result<Vec<Open>, StoreError> {
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

    pub(super) fn finish(&mut self, requests: Vec<Open>, whole: &Summary) -> Result<(), StoreError> {
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
                PersonOrder::Exchange { .. }
                | PersonOrder::Decide { .. }
                | PersonOrder::RetryWaiting
                | PersonOrder::DropWaiting { .. }
                | PersonOrder::Detach { .. } => {
                    if self.shared.halt.no_more() {
                        // Not all of it was done: the next start takes it up.
                        continue;
                    }
                    (summary.rows, summary.errors) = self.said(request.id);
                    // One that could not be looked at has said why.
                    let unseen = |e: &&SummaryError| self.sites.get(&e.database).is_some_and(|s| s.looked.is_none()) && e.code != "detached";
                    if summary.rows.is_empty() && summary.errors.is_empty() {
                        summary.errors = whole.errors.iter().filter(|e| chosen.contains(&&e.database)).filter(unseen).cloned().collect();
                    }
                }
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
}
