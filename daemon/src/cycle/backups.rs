//! Backups and restores that people asked for, carried out before anything is applied: whoever goes back must not be led
//! forward again by the plan of the same cycle.

use std::sync::{Arc, atomic::Ordering};

use tokio::{sync::Semaphore, task::JoinSet};
use whimbrel_shared::{
    ids::RequestId,
    protocol::state::{HealthItem, Severity},
};

use super::{Core, Open};
use crate::{
    control::protocol::PersonOrder,
    migrate::{
        backup::{
            self, Backup, BackupError, Reason,
            restore::{Newer, restore},
        },
        chain::Chain,
        connection::Missing,
        error::ApplyError,
        gate::item,
        live::Phase,
        work::{self, Looked, Shared, Site},
    },
    store::{StoreError, settings},
};

/// What was asked for, of one database.
#[derive(Clone, Debug)]
enum Asked {
    Backup,
    Restore { request: RequestId, backup: String, newer: Newer },
}

impl Asked {
    fn of(open: &Open) -> Option<Self> {
        match &open.order {
            PersonOrder::Backup => Some(Self::Backup),
            PersonOrder::Restore { backup: Some(backup), discard_newer } => {
                let newer = if *discard_newer { Newer::Discard } else { Newer::Keep };
                Some(Self::Restore { request: open.id, backup: backup.clone(), newer })
            }
            // The desk names the backup before it keeps the order.
            PersonOrder::Restore { backup: None, .. }
            | PersonOrder::Apply { .. }
            | PersonOrder::Retry
            | PersonOrder::RetryItems
            | PersonOrder::Revert { .. }
            | PersonOrder::Hold { .. }
            | PersonOrder::Release
            | PersonOrder::Adopt { .. }
            | PersonOrder::GiveBack
            | PersonOrder::Exchange { .. }
            | PersonOrder::Decide { .. }
            | PersonOrder::RetryWaiting
            | PersonOrder::DropWaiting { .. }
            | PersonOrder::Detach { .. }
            | PersonOrder::Cycle => None,
        }
    }
}

/// Whether a health item is about a backup or a restore.
pub(super) fn is_about(code: &str) -> bool {
    code.starts_with("backup_") || code.starts_with("restore_")
}

/// How it went on one database.
struct Carried {
    health: Vec<HealthItem>,
    /// What a look after a restore found.
    again: Option<Result<Looked, HealthItem>>,
}

impl Core {
    /// Carries them out, `parallel` databases at a time. A database is also visited to take away what an interrupted backup
    /// left behind, and to let go of a connection that can vouch for nothing any more.
    pub(super) async fn backups(&mut self, requests: &[Open]) -> Result<(), StoreError> {
        let mut jobs = JoinSet::new();
        let limit = Arc::new(Semaphore::new(self.config.parallel));
        for path in self.sites.keys().cloned().collect::<Vec<_>>() {
            let chain = self.chain(&self.sites[&path].site.rule.app.clone())?;
            let asked: Vec<Asked> = requests.iter().filter(|r| self.selects(&r.database, &path)).filter_map(Asked::of).collect();
            let state = self.sites.get_mut(&path).expect("its own key");
            let Some(looked) = state.looked.clone() else {
                // Kept open, a file that was removed would keep its room on the disk.
                drop(state.site.witness.take());
                state.health.extend(asked.iter().map(|asked| shown(&no_database(&self.shared, &state.site, asked))));
                continue;
            };
            let swept = std::mem::replace(&mut state.swept, true);
            if asked.is_empty() && swept && !state.site.witness.is_held() {
                continue;
            }
            let (shared, site, limit) = (self.shared.clone(), state.site.clone(), limit.clone());
            jobs.spawn(async move {
                let _permit = limit.acquire_owned().await.expect("the semaphore is never closed");
                let done = tokio::task::spawn_blocking(move || carry_out(&shared, &site, looked, &chain, &asked, !swept)).await;
                (path, done.expect("a backup does not panic"))
            });
        }
        while let Some(done) = jobs.join_next().await {
            let (path, carried) = done.expect("a backup does not panic");
            let state = self.sites.get_mut(&path).expect("it was worked on");
            state.health.extend(carried.health);
            match carried.again {
                Some(Ok(looked)) => {
                    // What failed or was tried again belongs to what the file was before.
                    (state.stopped, state.failures, state.next_try, state.next_try_ms) = (None, 0, None, None);
                    state.looked = Some(looked);
                }
                Some(Err(why)) => {
                    state.looked = None;
                    state.health.push(why);
                }
                None => {}
            }
        }
        Ok(())
    }
}

fn carry_out(shared: &Shared, site: &Site, mut looked: Looked, chain: &Chain, asked: &[Asked], sweep: bool) -> Carried {
    let mut carried = Carried { health: Vec::new(), again: None };
    site.witness.look(&site.path);
    if sweep && let Err(error) = backup::sweep(&shared.shelf, looked.identity.client_id) {
        tracing::warn!(database.path = %site.path.display(), "{error}");
    }
    for asked in asked {
        // A person's own order goes through a hold: it is how one goes back and stays there.
        site.live.hold.store(false, Ordering::Relaxed);
        let done = match asked {
            Asked::Backup => make(shared, site, &looked, chain),
            Asked::Restore { request, backup, newer } => go_back(shared, site, &looked, *request, backup, *newer),
        };
        match done {
            Ok(Done::Made) => {}
            Ok(Done::WentBack) => {
                let again = work::look(shared, site, chain, Missing::Refuse);
                if let Ok(found) = &again {
                    looked = found.clone();
                }
                carried.again = Some(again);
            }
            Err(error) => {
                tracing::warn!(database.path = %site.path.display(), "{error}");
                carried.health.push(shown(&error));
            }
        }
        site.live.set(Phase::Idle);
    }
    carried
}

enum Done {
    Made,
    WentBack,
}

fn make(shared: &Shared, site: &Site, looked: &Looked, chain: &Chain) -> Result<Done, ApplyError> {
    let (mut file, _) = site.witness.open(&site.path, shared.policy.wait_for_app, backup::halt_of(shared, site))?;
    let (_, since) = backup::take(shared, site, &mut file, looked, chain, Reason::Person)?;
    site.witness.keep(&site.path, file, Some(since));
    Ok(Done::Made)
}

/// Goes back, once for each request however often a restart takes it up: the epoch that the database had is kept before,
/// and the look after a restore raises it.
fn go_back(shared: &Shared, site: &Site, looked: &Looked, request: RequestId, backup: &str, newer: Newer) -> Result<Done, ApplyError> {
    let client = looked.identity.client_id;
    let (begun, now_ms) = (settings::restoring(client), shared.ambient.now_ms());
    let epoch = looked.identity.epoch;
    let before = shared.store().setting(&begun)?;
    let before: Option<u32> = before.as_deref().and_then(|b| b.strip_prefix(&format!("{request} "))).and_then(|e| e.parse().ok());
    if before.is_none_or(|before| before >= epoch) {
        let found = backup::list(&shared.shelf, client)?;
        let found: &Backup = found.iter().find(|b| b.of.backup_id == backup).ok_or_else(|| BackupError::Unknown {
            database: site.path.clone(),
            wanted: backup.to_owned(),
            there: found.iter().map(|b| b.of.backup_id.as_str()).collect::<Vec<_>>().join(", "),
        })?;
        shared.store().set_setting(&begun, Some(&format!("{request} {epoch}")))?;
        restore(shared, site, looked, found, newer)?;
    }
    // Who goes back wants to stay there: the plan would lead forward again.
    shared.store().set_hold(client, Some(None), now_ms)?;
    Ok(Done::WentBack)
}

/// A restore writes into the live file; where that cannot be opened, a person puts the backup into its place.
fn no_database(shared: &Shared, site: &Site, asked: &Asked) -> ApplyError {
    let known = shared.store().databases().ok().and_then(|all| all.into_iter().find(|k| k.path == site.path));
    let place = |id: &str| known.map_or_else(|| id.into(), |k| shared.shelf.dir.join(k.identity.client_id.to_string()).join(format!("{id}.db")));
    match asked {
        Asked::Restore { backup, .. } => BackupError::NoDatabase { database: site.path.clone(), backup: place(backup) }.into(),
        Asked::Backup => BackupError::Io { path: site.path.clone(), source: std::io::Error::other("the database cannot be opened") }.into(),
    }
}

/// As `status` shows it. An error that is not about backups by its code is one of the backup here.
fn shown(error: &ApplyError) -> HealthItem {
    let code = if is_about(error.code()) { error.code() } else { "backup_failed" };
    item(code, Severity::Error, error.to_string(), error.remedy())
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use super::*;
    use crate::{
        ambient::Ambient,
        config::DatabaseRule,
        migrate::{
            apply::Policy,
            backup::Shelf,
            halt::Halt,
            transaction::{Terms, write},
        },
        store::{device::DeviceStore, managed},
    };

    #[test]
    fn a_restore_that_a_restart_takes_up_again_is_done_once() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("state");
        let store = Arc::new(Mutex::new(DeviceStore::open(&state_dir).unwrap()));
        let policy = Policy { max_attempts: 3, grouping: true, wait_for_app: Duration::from_secs(5), report_values: false, skip_verify: false };
        let shelf = Shelf { dir: state_dir.join("backups"), keep: 3 };
        let shared = Shared { store, state_dir, ambient: Ambient::real(), policy, halt: Halt::default(), shelf };
        let path = dir.path().join("a.db");
        let app: whimbrel_shared::ids::AppName = "notes".parse().unwrap();
        let rule = DatabaseRule {
            path: path.to_string_lossy().into_owned(),
            app,
            app_version: None,
            app_sqlite: None,
            create: true,
            capture: Default::default(),
        };
        let site = Site::new(path, rule);
        let chain = Chain::default();
        let look = || work::look(&shared, &site, &chain, Missing::Create).unwrap();
        let looked = look();
        assert!(matches!(make(&shared, &site, &looked, &chain), Ok(Done::Made)));
        let id = backup::list(&shared.shelf, looked.identity.client_id).unwrap()[0].of.backup_id.clone();
        let request = RequestId::from_dice(1);
        assert!(matches!(go_back(&shared, &site, &looked, request, &id, Newer::Discard), Ok(Done::WentBack)));

        // The daemon dies before it can say so. The next one looks, and finds the order still open.
        let looked = look();
        assert_eq!(looked.identity.epoch, 2);
        let mut file = crate::migrate::connection::Managed::open(&site.path, Missing::Refuse, Duration::from_secs(1), Halt::default()).unwrap();
        write(&mut file, Terms::ours(Duration::from_secs(1)), |f| Ok(managed::count_crash(&f.connection, Some(9))?)).unwrap();
        assert!(matches!(go_back(&shared, &site, &looked, request, &id, Newer::Discard), Ok(Done::WentBack)));
        assert_eq!(managed::crashes(&file.connection, 9).unwrap(), 1, "what was written since is still there");
        assert_eq!(shared.store().holds(0).unwrap().len(), 1, "held where it went back to");
        // Another order is another word.
        assert!(matches!(go_back(&shared, &site, &looked, RequestId::from_dice(2), &id, Newer::Discard), Ok(Done::WentBack)));
        assert_eq!(managed::crashes(&file.connection, 9).unwrap(), 0);
    }
}
