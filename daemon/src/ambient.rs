//! Clock and dice, given from outside, so that a simulation can replay them.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use whimbrel_shared::ids::EventId;

/// Counts up while anything makes progress: virtual-machine steps pass, a lock is asked for again, an answer arrives.
static PULSE: AtomicU64 = AtomicU64::new(0);

/// Something made progress. systemd's watchdog is fed when it did, so that a loop that hangs is seen.
pub fn pulse() {
    PULSE.fetch_add(1, Ordering::Relaxed);
}

/// The count of [`pulse`]s so far.
pub fn pulses() -> u64 {
    PULSE.load(Ordering::Relaxed)
}

/// Where the time and the chance come from. Cheap to clone.
#[derive(Clone)]
pub struct Ambient {
    clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    dice: Arc<dyn Fn() -> u128 + Send + Sync>,
}

impl fmt::Debug for Ambient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ambient")
    }
}

impl Ambient {
    /// The machine's own.
    pub fn real() -> Self {
        Self::new(
            || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)),
            || {
                let mut bytes = [0; 16];
                getrandom::fill(&mut bytes).expect("the kernel's random numbers never fail after boot");
                u128::from_ne_bytes(bytes)
            },
        )
    }

    /// From any clock (milliseconds since 1970) and any dice (128 random bits).
    pub fn new(clock: impl Fn() -> i64 + Send + Sync + 'static, dice: impl Fn() -> u128 + Send + Sync + 'static) -> Self {
        Self { clock: Arc::new(clock), dice: Arc::new(dice) }
    }

    /// Wall clock, in milliseconds since 1970. For display, windows and records; never for policy.
    pub fn now_ms(&self) -> i64 {
        (self.clock)()
    }

    /// 128 random bits.
    pub fn dice(&self) -> u128 {
        (self.dice)()
    }

    /// A chance in 0.0..1.0.
    pub fn chance(&self) -> f64 {
        // 53 bits: what an f64 holds exactly.
        (self.dice() >> 75) as f64 / (1u64 << 53) as f64
    }

    /// A new event id.
    pub fn event_id(&self) -> EventId {
        EventId::from_dice(self.dice())
    }
}
