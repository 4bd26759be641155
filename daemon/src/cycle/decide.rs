//! What people want done with rows by hand: carried out on the files, before and after the cycle's exchange.

use std::path::PathBuf;

use tokio::runtime::Handle;
use whimbrel_shared::{ids::RequestId, remedy::here};

use super::{Core, requests::Open};
use crate::{
    control::protocol::{Detached, PersonOrder, RowsDone, RowsMoved, SummaryError},
    replicate::by_hand::{self, Deed, Refusal},
    store::{StoreError, settings},
};

/// What an order came to on one database.
pub(super) struct Said {
    request: RequestId,
    database: PathBuf,
    outcome: Result<RowsDone, Refusal>,
}

/// What an order has done by hand; none where it is about something else, or about what comes after the exchange.
fn deed(order: &PersonOrder) -> Option<Deed> {
    match order {
        PersonOrder::Decide { conflict, choice } => Some(Deed::Resolve { conflict: *conflict, choice: *choice }),
        PersonOrder::RetryWaiting => Some(Deed::RetryWaiting),
        PersonOrder::DropWaiting { table, key } => Some(Deed::DropWaiting { table: table.clone(), key: key.clone() }),
        PersonOrder::Apply { .. }
        | PersonOrder::Retry
        | PersonOrder::RetryItems
        | PersonOrder::Revert { .. }
        | PersonOrder::Hold { .. }
        | PersonOrder::Release
        | PersonOrder::Adopt { .. }
        | PersonOrder::GiveBack
        | PersonOrder::Cycle
        | PersonOrder::Exchange { .. }
        | PersonOrder::Detach { .. }
        | PersonOrder::Backup
        | PersonOrder::Restore { .. } => None,
    }
}

impl Core {
    /// Decides, tries again and drops, one after the other. A database that could not be looked at has said why already.
    pub(super) async fn decide(&mut self, requests: &[Open]) -> Result<(), StoreError> {
        self.said.clear();
        for request in requests {
            let Some(deed) = deed(&request.order) else { continue };
            for path in self.meant(request) {
                let Some(looked) = self.sites[&path].looked.clone() else { continue };
                let (shared, site, chain) =
                    (self.shared.clone(), self.sites[&path].site.clone(), self.chain(&self.sites[&path].site.rule.app.clone())?);
                let deed = deed.clone();
                let done = tokio::task::spawn_blocking(move || by_hand::decide(&shared, &site, &looked, &chain, &deed)).await;
                let outcome = done.expect("deciding does not panic").map(|(words, standing)| {
                    if let Some(looked) = self.sites.get_mut(&path).and_then(|state| state.looked.as_mut()) {
                        looked.standing = standing;
                    }
                    RowsDone { database: path.clone(), decided: Some(words), ..RowsDone::default() }
                });
                self.said.push(Said { request: request.id, database: path, outcome });
            }
        }
        Ok(())
    }

    /// After the exchange: what it did, both sides compared, and files left.
    pub(super) async fn after_rows(&mut self, requests: &[Open]) -> Result<(), StoreError> {
        for request in requests {
            match request.order {
                PersonOrder::Exchange { verify } => {
                    let meant = self.meant(request);
                    for path in meant.iter().cloned() {
                        let outcome = self.exchanged(&path, verify).await?;
                        // Of many, those that exchange none are not what was meant.
                        if meant.len() > 1 && outcome.as_ref().is_err_and(|why| why.code == "rows_none") {
                            continue;
                        }
                        self.said.push(Said { request: request.id, database: path, outcome });
                    }
                }
                PersonOrder::Detach { keep_history } => {
                    for path in self.meant(request) {
                        let outcome = self.leave(&path, keep_history).await?;
                        self.said.push(Said { request: request.id, database: path, outcome });
                    }
                }
                PersonOrder::Apply { .. }
                | PersonOrder::Retry
                | PersonOrder::RetryItems
                | PersonOrder::Revert { .. }
                | PersonOrder::Hold { .. }
                | PersonOrder::Release
                | PersonOrder::Adopt { .. }
                | PersonOrder::GiveBack
                | PersonOrder::Cycle
                | PersonOrder::Decide { .. }
                | PersonOrder::RetryWaiting
                | PersonOrder::DropWaiting { .. }
                | PersonOrder::Backup
                | PersonOrder::Restore { .. } => {}
            }
        }
        Ok(())
    }

    /// What the exchange of this cycle did on one database, and with `verify` how both sides compare after it.
    async fn exchanged(&mut self, path: &PathBuf, verify: bool) -> Result<Result<RowsDone, Refusal>, StoreError> {
        if self.server.state != "online" {
            let message = self.server.error.clone().unwrap_or_else(|| "the server was not asked".to_owned());
            let remedy = self.server.remedy.clone().unwrap_or_else(|| here("`whimbrel status` says how the device stands with the server"));
            return Ok(Err(Refusal { code: "rows_offline", message, remedy }));
        }
        let chain = self.chain(&self.sites[path].site.rule.app.clone())?;
        let state = &self.sites[path];
        let Some(looked) = state.looked.clone() else {
            let message = "the file could not be looked at".to_owned();
            return Ok(Err(Refusal { code: "rows_failed", message, remedy: here("`whimbrel status` says why") }));
        };
        if let Err(none) = by_hand::Says::at(&chain, looked.position) {
            return Ok(Err(none));
        }
        if looked.half_done.is_some() {
            let message = "a migration is half done, and rows wait for it".to_owned();
            return Ok(Err(Refusal { code: "rows_half_done", message, remedy: here("`whimbrel status` says where it stands") }));
        }
        if looked.rows.ready.is_none() {
            let why = looked.rows.health.first();
            let message = why.map_or_else(|| "its rows cannot be exchanged now".to_owned(), |item| item.message.clone());
            let remedy = why.map_or_else(|| here("`whimbrel status` says why"), |item| item.remedy.clone());
            return Ok(Err(Refusal { code: "rows_failed", message, remedy }));
        }
        if let Some(error) = &state.rows.error {
            return Ok(Err(Refusal { code: "rows_failed", message: error.clone(), remedy: here("`whimbrel status` says what stands in the way") }));
        }
        let done = RowsDone { database: path.clone(), exchanged: Some(RowsMoved::from(&state.rows.did)), ..RowsDone::default() };
        let (Some(server), true) = (self.connect()?, verify) else { return Ok(Ok(done)) };
        let (shared, site, handle, stop) = (self.shared.clone(), state.site.clone(), Handle::current(), self.stop.clone());
        let compared = tokio::task::spawn_blocking(move || by_hand::compare(&shared, &site, &looked, &chain, &server, &handle, stop)).await;
        Ok(compared.expect("comparing does not panic").map(|verified| RowsDone { compared: Some(verified.tables), ..done }))
    }

    /// Leaves a file. That it is left is kept first: a look must not make our tables again.
    async fn leave(&mut self, path: &PathBuf, keep_history: bool) -> Result<Result<RowsDone, Refusal>, StoreError> {
        let setting = settings::detached(path);
        self.shared.store().set_setting(&setting, Some("1"))?;
        let (shared, site, chain) = (self.shared.clone(), self.sites[path].site.clone(), self.chain(&self.sites[path].site.rule.app.clone())?);
        let left = tokio::task::spawn_blocking(move || by_hand::leave(&shared, &site, &chain, keep_history)).await;
        match left.expect("leaving a file does not panic") {
            Ok(gone) => {
                tracing::info!(database.path = %path.display(), objects = gone.objects, unsent = gone.left.unsent, "left the file");
                if let Some(state) = self.sites.get_mut(path) {
                    (state.looked, state.rows) = (None, super::rows::RowsState::default());
                }
                let detached = Detached { left: gone.left, file: gone.file, objects: gone.objects };
                Ok(Ok(RowsDone { database: path.clone(), detached: Some(detached), ..RowsDone::default() }))
            }
            Err(refusal) => {
                self.shared.store().set_setting(&setting, None)?;
                Ok(Err(refusal))
            }
        }
    }

    /// What an order came to: on each of its databases what was done, and what stood in the way.
    pub(super) fn said(&self, request: RequestId) -> (Vec<RowsDone>, Vec<SummaryError>) {
        let (mut done, mut errors) = (Vec::new(), Vec::new());
        for said in self.said.iter().filter(|said| said.request == request) {
            match &said.outcome {
                Ok(one) => done.push(one.clone()),
                Err(Refusal { code, message, remedy }) => errors.push(SummaryError {
                    database: said.database.clone(),
                    migration: None,
                    code: (*code).to_owned(),
                    message: message.clone(),
                    remedy: remedy.clone(),
                    waiting: false,
                }),
            }
        }
        (done, errors)
    }

    fn meant(&self, request: &Open) -> Vec<PathBuf> {
        self.sites.keys().filter(|path| self.selects(&request.database, path)).cloned().collect()
    }
}
