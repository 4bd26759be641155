//! The bell: rung from anywhere, heard by the one loop. Rings that come while the loop works are heard once, afterwards.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use tokio::sync::Notify;

/// Who rang. Only for the log and for pacing; what there is to do is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Why {
    /// The schedule.
    Schedule = 1,
    /// The network changed.
    Network = 2,
    /// A person at the control socket.
    Person = 4,
    /// The machine slept and woke.
    Resumed = 8,
}

/// The bell. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<(Notify, AtomicU8)>);

impl Bell {
    /// Rings it.
    pub fn ring(&self, why: Why) {
        self.0.1.fetch_or(why as u8, Ordering::SeqCst);
        self.0.0.notify_one();
    }

    /// Waits for a ring; one that came before is heard at once.
    pub async fn heard(&self) {
        self.0.0.notified().await;
    }

    /// Who rang since this was last asked.
    pub fn take(&self) -> Rings {
        Rings(self.0.1.swap(0, Ordering::SeqCst))
    }
}

/// A set of [`Why`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rings(u8);

impl Rings {
    /// Whether this one rang.
    pub fn has(self, why: Why) -> bool {
        self.0 & why as u8 != 0
    }

    /// Whether somebody rang who is not to be kept waiting.
    pub fn is_urgent(self) -> bool {
        self.has(Why::Person) || self.has(Why::Network) || self.has(Why::Resumed)
    }
}
