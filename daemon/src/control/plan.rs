//! What `plan` answers: the gates and estimates of what would run, and on request a rehearsal of it.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    protocol::{PlanView, PlannedMigration, Reply, Selector},
    server::{Desk, View},
};
use crate::{
    migrate::{
        gate::Known,
        halt::Halt,
        live::{Live, Picture},
        rehearse::{Rehearsal, rehearse},
        work::{self, Shared, Task},
    },
    trust,
};

/// A rehearsal under way, as the socket follows it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Rehearsing {
    halt: Halt,
    at: Arc<Mutex<Option<(PathBuf, Live)>>>,
}

impl Rehearsing {
    /// Ends with the daemon, or when it is given up.
    pub(super) fn new(daemon: &Halt) -> Self {
        Self { halt: Halt { stop: daemon.stop.clone(), kill: daemon.kill.clone(), hold: Arc::new(AtomicBool::new(false)) }, at: Arc::default() }
    }

    /// The database whose copy is worked on, and what is done with it.
    pub(super) fn now(&self) -> Option<(PathBuf, Picture)> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(path, live)| (path.clone(), live.picture()))
    }

    /// Rolls back what is open on the copy, and ends.
    pub(super) fn give_up(&self) {
        self.halt.hold.store(true, Ordering::Relaxed);
    }

    fn rehearse(&self, shared: &Shared, view: &View) -> Rehearsal {
        let live = Live::default();
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Some((view.site.path.clone(), live.clone()));
        rehearse(shared, &view.site, &view.looked, &view.chain, view.order, &self.halt, &live)
            .unwrap_or_else(|error| Rehearsal { failure: Some(error.failure()), ..Rehearsal::default() })
    }
}

impl Desk {
    /// What would happen to each database, and with `rehearsing` what did happen to a private copy of each.
    pub(super) fn plan(&self, database: &Selector, rehearsing: Option<&Rehearsing>) -> Reply {
        let chosen = match self.select(database) {
            Ok(chosen) => chosen,
            Err(refusal) => return refusal,
        };
        let views = self.views.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let holds = self.shared.store().holds(self.shared.ambient.now_ms()).unwrap_or_default();
        let plans = chosen
            .into_iter()
            .map(|database| {
                let free_bytes = crate::migrate::files::free_bytes(&database.path);
                let mut plan = PlanView {
                    path: database.path.clone(),
                    app: database.app.clone(),
                    version: database.version,
                    waits_for: database.health.clone(),
                    steps: Vec::new(),
                    free_bytes,
                    rehearsal: None,
                };
                let Some(view) = views.get(&database.path) else { return plan };
                let known = Known {
                    hold: holds.get(&view.looked.identity.client_id).copied(),
                    app_version: view.app_version.clone(),
                    app_sqlite: view.site.rule.app_sqlite.clone(),
                    free_bytes,
                    temp: crate::migrate::files::temp_room(&database.path),
                    ..Known::default()
                };
                let task = Task { order: view.order, known, ..Task::default() };
                match work::preview(&self.shared, &view.site, &view.looked, &view.chain, &task) {
                    Ok((planned, closed)) => {
                        for gate in closed {
                            if !plan.waits_for.iter().any(|w| w.code == gate.code) {
                                plan.waits_for.push(gate);
                            }
                        }
                        plan.steps = planned.iter().filter_map(|p| self.planned(view, p)).collect();
                    }
                    Err(error) => plan.waits_for.push(crate::migrate::gate::item(
                        error.code(),
                        whimbrel_shared::protocol::state::Severity::Error,
                        error.to_string(),
                        error.remedy(),
                    )),
                }
                plan.rehearsal = rehearsing.map(|r| r.rehearse(&self.shared, view));
                plan
            })
            .collect();
        Reply::Plan { plans }
    }

    fn planned(&self, view: &View, planned: &work::Planned) -> Option<PlannedMigration> {
        let revision = view.chain.newest(planned.version)?.custom.revision;
        let verified = trust::load(&self.shared.store(), &view.site.rule.app, planned.version, revision).ok()?;
        Some(PlannedMigration {
            version: planned.version,
            name: verified.link().name.clone(),
            operation: planned.operation,
            files: verified.migration().files.clone(),
            rows: planned.estimate.rows,
            lock_ms: u64::try_from(planned.estimate.lock.as_millis()).unwrap_or(u64::MAX),
            took_ms: u64::try_from(planned.estimate.took.as_millis()).unwrap_or(u64::MAX),
            write_bytes: planned.estimate.write_bytes,
            backup: planned.backup,
        })
    }
}
