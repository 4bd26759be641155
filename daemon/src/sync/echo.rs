//! What lands from the server is no edit: triggers are switched off on our own connection, or run and are told apart.

use rusqlite::{Connection, config::DbConfig};

use super::{
    error::{SyncError, sqlite},
    shape::Echo,
};

/// While it lives, what this connection writes to tables of one policy is landing and not editing. The switch is the
/// connection's (`SQLITE_DBCONFIG_ENABLE_TRIGGER`): nobody else is concerned, and nothing of it is in the file. Foreign-key
/// actions run in any case. The journal is folded before it begins, so that what the application wrote keeps its own mark.
///
/// After landing with [`Echo::Rewrite`] the caller records what landed and calls [`super::fold::fold`] with
/// [`super::fold::Origin::Landing`] in the same transaction: what is as it was recorded is no edit, and what the
/// application's triggers made of it is kept as derived.
#[derive(Debug)]
pub struct Landing<'c> {
    switched: Option<&'c Connection>,
}

impl<'c> Landing<'c> {
    /// Begins it. Switching makes SQLite prepare its statements anew, so rows of one table are better landed together.
    pub fn begin(connection: &'c Connection, echo: Echo) -> Result<Self, SyncError> {
        let switched = match echo {
            Echo::Rewrite => None,
            Echo::Switch => {
                connection
                    .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)
                    .map_err(sqlite("switching triggers off on whimbrel's connection"))?;
                Some(connection)
            }
        };
        Ok(Self { switched })
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.switched {
            // It can only fail for a connection that is closed.
            let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true);
        }
    }
}
