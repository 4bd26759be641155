//! Clock, dice and the boot of the machine, given from outside, so that a simulation can replay them.

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

/// A boot of the machine, as a clock on its wall tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The kernel's id of it.
    pub id: String,
    /// When it began, by the clock on the wall as it is now, in milliseconds since 1970.
    pub began_ms: i64,
}

impl Boot {
    /// This machine's, at `now_ms` on the wall. Without a kernel that tells, every start of the process is a boot.
    pub fn of_machine(now_ms: i64) -> Self {
        #[cfg(target_os = "linux")]
        {
            let mut since = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: it writes one timespec, and there is one. Time asleep counts.
            let told = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut since) } == 0;
            if let (true, Ok(id)) = (told, std::fs::read_to_string("/proc/sys/kernel/random/boot_id")) {
                return Self { id: id.trim().to_owned(), began_ms: now_ms - since.tv_sec * 1_000 - since.tv_nsec / 1_000_000 };
            }
        }
        static STARTED: std::sync::OnceLock<(std::time::Instant, i64)> = std::sync::OnceLock::new();
        let (started, at_ms) = STARTED.get_or_init(|| (std::time::Instant::now(), now_ms));
        Self { id: format!("{}-{at_ms}", std::process::id()), began_ms: now_ms - i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX) }
    }
}

/// Where the time and the chance come from. Cheap to clone.
#[derive(Clone)]
pub struct Ambient {
    clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    dice: Arc<dyn Fn() -> u128 + Send + Sync>,
    boot: Arc<dyn Fn(i64) -> Boot + Send + Sync>,
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

    /// From any clock (milliseconds since 1970) and any dice (128 random bits), on this machine's boot.
    pub fn new(clock: impl Fn() -> i64 + Send + Sync + 'static, dice: impl Fn() -> u128 + Send + Sync + 'static) -> Self {
        Self { clock: Arc::new(clock), dice: Arc::new(dice), boot: Arc::new(Boot::of_machine) }
    }

    /// The same on a boot that is told for a moment on its own clock.
    #[must_use]
    pub fn on_boot(self, boot: impl Fn(i64) -> Boot + Send + Sync + 'static) -> Self {
        Self { boot: Arc::new(boot), ..self }
    }

    /// This boot of the machine.
    pub fn boot(&self) -> Boot {
        (self.boot)(self.now_ms())
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
