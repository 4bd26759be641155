//! The exchange with a server that has only the seed's two endpoints.

use whimbrel_shared::{
    ids::{AppName, Digest},
    migration::{Link, SeedMigration, TargetEntry},
    protocol::report::{MAX_REPORTS, SeedStatus},
    status::EventKind,
};

use super::Core;
use crate::{
    store::{StoreError, device::StoredTarget, settings},
    transport::{
        TransportError,
        server::{Fresh, Server},
    },
    trust::AcceptError,
};

impl Core {
    pub(super) async fn seed_exchange(&mut self, server: &Server) -> Result<Result<(), TransportError>, StoreError> {
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
            let version = last.map_or(1, |l| l.custom.version + 1);
            let link = Link::new(seed.migration_name.clone(), version, last.map(TargetEntry::digest));
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

    pub(super) async fn seed_tell(&mut self, server: &Server) -> Result<Result<(), TransportError>, StoreError> {
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
}
