//! How the daemon is told to end, or to read its configuration again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, watch};

use crate::migrate::halt::Halt;

/// How long a transaction that is open at a stop may go on. Below systemd's own limit of 90 s.
const STOP_GRACE: Duration = Duration::from_secs(60);

/// Stop means: finish this transaction, start no other. After [`STOP_GRACE`] the transaction is rolled back; a second
/// signal ends the process at once.
pub(super) struct Stop {
    /// Turns true once it is wanted.
    pub(super) stop: watch::Receiver<bool>,
    reload: Arc<Notify>,
    reloads: Arc<AtomicBool>,
}

impl Stop {
    /// Listens for SIGTERM, SIGINT and SIGHUP.
    pub(super) fn listen(halt: &Halt) -> Self {
        let (send, stop) = watch::channel(false);
        let halt = halt.clone();
        tokio::spawn(async move {
            signal().await;
            tracing::info!("stopping: the transaction that is open is finished, no other is started");
            halt.stop.store(true, Ordering::Relaxed);
            send.send_replace(true);
            tokio::select! { () = signal() => std::process::exit(1), () = tokio::time::sleep(STOP_GRACE) => {} }
            halt.kill.store(true, Ordering::Relaxed);
        });
        let (reload, reloads) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        tokio::spawn(hang_up(reload.clone(), reloads.clone()));
        Self { stop, reload, reloads }
    }

    pub(super) async fn wanted(&self) {
        if self.stop.clone().wait_for(|wanted| *wanted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn is_wanted(&self) -> bool {
        *self.stop.borrow()
    }

    pub(super) async fn reload_wanted(&self) {
        self.reload.notified().await;
    }

    pub(super) fn take_reload(&self) -> bool {
        self.reloads.swap(false, Ordering::SeqCst)
    }
}

async fn hang_up(reload: Arc<Notify>, reloads: Arc<AtomicBool>) {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut hup) = signal(SignalKind::hangup()) else { return };
        while hup.recv().await.is_some() {
            reloads.store(true, Ordering::SeqCst);
            reload.notify_one();
        }
    }
    #[cfg(not(unix))]
    let _ = (reload, reloads);
}

async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
            return std::future::pending().await;
        };
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    }
    #[cfg(not(unix))]
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
