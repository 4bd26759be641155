//! What the control socket says of backups: which there are, and which one a person means.

use std::path::Path;

use whimbrel_shared::{ids::ClientId, remedy::here};

use super::{
    protocol::{BackupView, DatabaseView, PersonOrder, Reply, Selector},
    server::Desk,
};
use crate::{
    migrate::backup::{self, Backup, BackupError},
    store::StoreError,
};

impl Desk {
    /// The backups of the databases that are meant.
    pub(super) fn backups(&self, database: &Selector) -> Result<Reply, StoreError> {
        let chosen = match self.select(database) {
            Ok(chosen) => chosen,
            Err(refusal) => return Ok(refusal),
        };
        let mut backups = Vec::new();
        for database in &chosen {
            match self.of(database)? {
                Ok(found) => backups.extend(found.into_iter().map(|backup| BackupView { database: database.path.clone(), backup })),
                Err(error) => return Ok(refused(&error)),
            }
        }
        Ok(Reply::Backups { backups })
    }

    /// The order as it is kept: a restore names one database and one backup, so that it means the same after a restart.
    pub(super) fn named(&self, order: &PersonOrder, chosen: &[DatabaseView]) -> Result<PersonOrder, Reply> {
        let PersonOrder::Restore { backup, discard_newer } = order else { return Ok(order.clone()) };
        let [database] = chosen else {
            let message = format!("a restore is of one database, and {} are meant", chosen.len());
            return Err(Reply::Refused { message, remedy: here("name the database: `whimbrel status` lists them") });
        };
        let there = match self.of(database) {
            Ok(Ok(there)) => there,
            Ok(Err(error)) => return Err(refused(&error)),
            Err(error) => return Err(Reply::Refused { message: error.to_string(), remedy: error.remedy() }),
        };
        let found = match backup {
            Some(id) => there.iter().find(|b| b.of.backup_id == *id),
            None => there.first(),
        };
        match found {
            Some(found) => Ok(PersonOrder::Restore { backup: Some(found.of.backup_id.clone()), discard_newer: *discard_newer }),
            None => Err(refused(&unknown(&database.path, backup.as_deref().unwrap_or("yet"), &there))),
        }
    }

    fn of(&self, database: &DatabaseView) -> Result<Result<Vec<Backup>, BackupError>, StoreError> {
        Ok(self.client(database)?.map_or(Ok(Vec::new()), |client| backup::list(&self.shared.shelf, client)))
    }

    /// Who a database is, also when it cannot be opened now.
    fn client(&self, database: &DatabaseView) -> Result<Option<ClientId>, StoreError> {
        if database.client_id.is_some() {
            return Ok(database.client_id);
        }
        Ok(self.shared.store().databases()?.into_iter().find(|known| known.path == database.path).map(|known| known.identity.client_id))
    }
}

fn unknown(database: &Path, wanted: &str, there: &[Backup]) -> BackupError {
    let ids: Vec<&str> = there.iter().map(|b| b.of.backup_id.as_str()).collect();
    let there = if ids.is_empty() { "none".to_owned() } else { ids.join(", ") };
    BackupError::Unknown { database: database.to_owned(), wanted: wanted.to_owned(), there }
}

fn refused(error: &BackupError) -> Reply {
    Reply::Refused { message: error.to_string(), remedy: error.remedy() }
}
