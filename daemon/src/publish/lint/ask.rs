//! Asks the engine's guard about single statements, on a database in memory.

use std::time::Duration;

use rusqlite::Connection;

use crate::migrate::{
    guard::Guard,
    script::{self, Reading, ScriptError},
};

/// No statement that is asked about works on rows.
const LONGEST: Duration = Duration::from_secs(1);

/// An empty database with the engine's guard, in a transaction.
#[derive(Debug)]
pub struct Ask {
    connection: Connection,
    guard: Guard,
}

impl Ask {
    /// Opens it.
    pub fn new() -> rusqlite::Result<Self> {
        let mut connection = Connection::open_in_memory()?;
        let guard = Guard::install(&mut connection, crate::migrate::halt::Halt::default())?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        Ok(Self { connection, guard })
    }

    /// Why a pragma, or a statement that has nothing to do with tables, will be refused, if it will.
    pub fn refused(&self, statement: &str) -> Option<String> {
        let on = self.guard.on(LONGEST, false);
        let result = script::run(&self.connection, &self.guard, "", statement, Reading::Run, |_| Ok(()), |_| {});
        drop(on);
        match result {
            Ok(_) => None,
            Err(ScriptError::Refused { why, .. }) => Some(why),
            // SQLite itself refuses this one, before it asks the guard.
            Err(ScriptError::Sqlite { message, .. }) if message.contains("VACUUM") => Some(message),
            Err(ScriptError::Sqlite { .. } | ScriptError::NotTrue { .. } | ScriptError::Nul { .. }) => None,
        }
    }
}
