//! A few connections that take turns, each used on a blocking thread. A deed that waits too long for its turn is refused.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::store::StoreError;

/// Longest wait for a turn. Longer than SQLite's own wait for another process, shorter than a request may take.
const TURN: Duration = Duration::from_secs(10);

/// Connections of one kind.
pub(super) struct Lane {
    turns: Arc<Semaphore>,
    free: Mutex<Vec<Connection>>,
}

impl Lane {
    pub(super) fn new(connections: Vec<Connection>) -> Arc<Self> {
        Arc::new(Self { turns: Arc::new(Semaphore::new(connections.len())), free: Mutex::new(connections) })
    }

    /// Runs `deed` on the next free connection. Once begun it runs to its end, even if nobody waits for it any more.
    pub(super) async fn run<T: Send + 'static>(
        self: Arc<Self>,
        deed: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = tokio::time::timeout(TURN, self.turns.clone().acquire_owned())
            .await
            .map_err(|_| StoreError::Unavailable(format!("no turn within {TURN:?}")))?
            .map_err(|e| StoreError::Unavailable(e.to_string()))?;
        let connection = self.free().pop();
        let mut held = Held { lane: self.clone(), connection, _turn: turn };
        tokio::task::spawn_blocking(move || match held.connection.as_mut() {
            Some(connection) => deed(connection),
            None => Err(StoreError::Damaged("more turns than connections".to_owned())),
        })
        .await
        .map_err(|e| StoreError::Damaged(e.to_string()))?
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection in use. It goes back on every way out, a panic too, and before its turn ends.
struct Held {
    lane: Arc<Lane>,
    connection: Option<Connection>,
    _turn: OwnedSemaphorePermit,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.lane.free().push(connection);
        }
    }
}
