//! Where the log goes: exactly one place. The journal when systemd listens there, with fields; else stderr.

use std::{
    fmt,
    io::{self, IsTerminal},
};

use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    fmt::{format::Writer, time::FormatTime},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// What is logged when WHIMBREL_LOG does not say: by the daemon. In a healthy hour that is one line per cycle that did
/// something.
pub const DAEMON: &str = "info,tokio_cron_scheduler=warn";
/// The same for a command that does its work itself and says what came of it.
pub const COMMAND: &str = "warn";
/// What is logged: a level, or `module=level` pairs with commas between (`tracing_subscriber::filter::Targets`).
const VARIABLE: &str = "WHIMBREL_LOG";

/// Starts logging. A second call, as in tests, changes nothing.
pub fn start(default: &str) {
    let wanted = std::env::var(VARIABLE).unwrap_or_default();
    let usual = || default.parse::<Targets>().expect("our own defaults are right");
    let (filter, complaint) = match wanted.parse::<Targets>() {
        _ if wanted.is_empty() => (usual(), None),
        Ok(filter) => (filter, None),
        Err(error) => (usual(), Some(error)),
    };
    let sink = journal().unwrap_or_else(stderr);
    // Fails only when something logs already.
    let _ = tracing_subscriber::registry().with(sink.with_filter(filter)).try_init();
    if let Some(error) = complaint {
        tracing::warn!("{VARIABLE} = {wanted:?} is not understood ({error}); using {default:?}");
    }
}

type Sink = Box<dyn Layer<Registry> + Send + Sync>;

/// The journal, if stderr is connected to it (systemd.exec(5), `$JOURNAL_STREAM`). Fields become `WHIMBREL_…`, so that
/// `journalctl WHIMBREL_MIGRATION_NAME=0002_add_slugs` works.
#[cfg(target_os = "linux")]
fn journal() -> Option<Sink> {
    use std::os::{fd::AsFd, unix::fs::MetadataExt};
    let stream = std::env::var("JOURNAL_STREAM").ok()?;
    let stderr = std::fs::File::from(io::stderr().as_fd().try_clone_to_owned().ok()?).metadata().ok()?;
    if !is_stream(&stream, stderr.dev(), stderr.ino()) {
        return None;
    }
    let layer = tracing_journald::layer().ok()?;
    Some(Box::new(layer.with_field_prefix(Some("WHIMBREL".to_owned())).with_syslog_identifier("whimbrel".to_owned())))
}

#[cfg(not(target_os = "linux"))]
fn journal() -> Option<Sink> {
    None
}

/// Whether `$JOURNAL_STREAM` (device:inode) names this file. A child whose stderr was redirected inherits the variable.
#[cfg(target_os = "linux")]
fn is_stream(variable: &str, device: u64, inode: u64) -> bool {
    variable.split_once(':').is_some_and(|(d, i)| d.parse() == Ok(device) && i.parse() == Ok(inode))
}

fn stderr() -> Sink {
    let color = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    Box::new(tracing_subscriber::fmt::layer().compact().with_writer(io::stderr).with_ansi(color).with_target(false).with_timer(LocalTime))
}

/// The time as the clock on the wall shows it.
struct LocalTime;

impl FormatTime for LocalTime {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        write!(w, "{}", chrono::Local::now().format("%Y-%m-%d %H:%M:%S%.3f"))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_used_only_when_stderr_is_connected_to_it() {
        assert!(is_stream("8:4711", 8, 4711));
        for other in ["8:4712", "9:4711", "", "8", "a:b"] {
            assert!(!is_stream(other, 8, 4711), "{other}");
        }
    }
}
