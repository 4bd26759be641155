//! When each device was last heard of: kept in memory and written in batches, so that a poll writes nothing.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tracing::warn;
use whimbrel_shared::ids::DeviceId;

use crate::store::Store;

/// How far behind the stored times may be.
pub(crate) const FLUSH_EVERY: Duration = Duration::from_secs(3);

/// The times not written yet. At most one entry per enrolled device.
#[derive(Default)]
pub(crate) struct Seen(Mutex<HashMap<DeviceId, i64>>);

impl Seen {
    /// Records that `device` was heard of now. Only called for devices that proved themselves.
    pub(crate) fn note(&self, device: DeviceId, now_ms: i64) {
        self.lock().insert(device, now_ms);
    }

    /// Writes what there is, in one transaction. What could not be written is tried again next time.
    pub(crate) async fn flush(&self, store: &dyn Store) {
        let batch: Vec<(DeviceId, i64)> = self.lock().drain().collect();
        if batch.is_empty() {
            return;
        }
        if let Err(error) = store.save_seen(batch.clone()).await {
            warn!("last-seen times of {} devices wait: {error}", batch.len());
            let mut map = self.lock();
            for (device, at_ms) in batch {
                map.entry(device).or_insert(at_ms);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<DeviceId, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
