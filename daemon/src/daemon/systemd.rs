//! What systemd is told: ready, reloading, stopping, alive, and a line of status. Elsewhere nothing.

use std::time::Duration;

use tokio::time::Instant;

use crate::control::protocol::Snapshot;

/// systemd's watchdog, fed by the loop: while it rests it wakes to say so, while it works only progress counts.
pub(super) struct Watchdog {
    every: Duration,
    next: Instant,
}

impl Watchdog {
    pub(super) fn new() -> Self {
        // Also without a watchdog the loop looks at the clocks from time to time, for a suspend.
        let mut every = Duration::from_secs(30);
        #[cfg(unix)]
        if let Some(timeout) = sd_notify::watchdog_enabled() {
            every = every.min(timeout / 3);
        }
        Self { every, next: Instant::now() + every }
    }

    pub(super) async fn silent_tick(&mut self) {
        tokio::time::sleep_until(self.next).await;
        self.next = Instant::now() + self.every;
    }

    pub(super) async fn tick(&mut self) {
        self.silent_tick().await;
        Self::feed();
    }

    pub(super) fn feed() {
        notify(&[State::Watchdog]);
    }
}

pub(super) enum State<'a> {
    Ready,
    Stopping,
    Watchdog,
    Status(&'a str),
}

/// Tells systemd, where there is one.
pub(super) fn notify(states: &[State<'_>]) {
    #[cfg(unix)]
    {
        let states: Vec<_> = states
            .iter()
            .map(|s| match s {
                State::Ready => sd_notify::NotifyState::Ready,
                State::Stopping => sd_notify::NotifyState::Stopping,
                State::Watchdog => sd_notify::NotifyState::Watchdog,
                State::Status(text) => sd_notify::NotifyState::Status(text),
            })
            .collect();
        if let Err(error) = sd_notify::notify(&states) {
            tracing::debug!(%error, "systemd could not be told");
        }
    }
    #[cfg(not(unix))]
    let _ = states;
}

/// A reload without the time it began at is taken for a failure by systemd 253 and later.
pub(super) fn notify_reloading() {
    #[cfg(unix)]
    if let Ok(now) = sd_notify::NotifyState::monotonic_usec_now() {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Reloading, now]);
    }
}

pub(super) fn notify_status(snapshot: &Snapshot) {
    let (done, total) = snapshot.databases.iter().fold((0, 0), |(d, t), db| (d + u32::from(db.pending == 0), t + 1));
    let text =
        format!("{}; {done} of {total} databases at their planned version; {} reports unsent", snapshot.server.state, snapshot.server.reports_unsent);
    notify(&[State::Status(&text)]);
}
