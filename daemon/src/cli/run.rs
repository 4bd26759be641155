//! `whimbrel run`: the daemon, or one cycle of it.

use std::io;

use whimbrel_shared::remedy::{Remedy, here};

use super::{
    error::{CliError, ExitCode},
    order,
    output::Output,
    status,
};
use crate::{
    config::Config,
    control::{client::Client, protocol::PersonOrder},
    daemon::{self, DaemonError, Ended},
    store::StoreError,
    telemetry,
    transport::TransportError,
};

/// Run the daemon; with --once, one cycle
///
/// Asks the server on the schedule of the configuration, when the network returns and when a person asks; applies what is
/// pending; reports. It stays in the foreground: the unit file runs it in the background. With --once it does all that
/// once, prints the sum and ends; a daemon that is running is asked to do it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   stopped as asked; with --once every database is at its planned version
  3   with --once: something waits
  4   with --once: a migration failed
  75  with --once: the server did not answer, and nothing failed
  77  not permitted
  78  the configuration, or a store that a later whimbrel wrote, cannot be used:
      starting again does not help

WHIMBREL_LOG says what is logged (info; debug for more). The log goes to the journal under
systemd, else to stderr.")]
pub struct Args {
    /// One cycle, then the sum and an exit code
    #[arg(long)]
    once: bool,
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    let config = out.config()?;
    if args.once
        && let Some(daemon) = running(&config)
    {
        return ask(daemon, out);
    }
    telemetry::start(telemetry::DAEMON);
    let ended = block_on(daemon_run(config, args.once))?.map_err(from_daemon)?;
    if !args.once {
        return Ok(());
    }
    let result = order::finished(out, &ended.summary, &[]);
    with_exchange(out, result, ended.exchange.err().map(|error| from_transport(&error)))
}

/// The daemon of the configuration, where one stays. A single run ends with its own cycle, and is waited for.
fn running(config: &Config) -> Option<Client> {
    let mut daemon = Client::connect(&config.socket).ok()?;
    let snapshot = status::ask(&mut daemon).ok()?;
    (!snapshot.daemon.once).then_some(daemon)
}

/// Has the daemon do the cycle. Two that work on the same files would only wait for each other.
fn ask(daemon: Client, out: &Output) -> Result<(), CliError> {
    out.say(format_args!("whimbrel {} is running as process {} and does the cycle", daemon.daemon_version, daemon.pid));
    let placed = order::place(out, None, PersonOrder::Cycle, true)?;
    let result = order::report(out, &placed);
    let server = status::ask(&mut out.daemon()?)?.server;
    let exit = match server.state.as_str() {
        "offline" => ExitCode::ServerUnreachable,
        _ => ExitCode::Failed,
    };
    let exchange = server.error.zip(server.remedy).map(|(error, remedy)| CliError::new(exit, error, remedy));
    with_exchange(out, result, exchange)
}

/// How a single cycle ends: by its summary, or by an exchange that failed.
fn with_exchange(out: &Output, result: Result<(), CliError>, exchange: Option<CliError>) -> Result<(), CliError> {
    match (&result, exchange) {
        // A failed migration is worse news than a server that is away.
        (Err(told), _) if told.exit != ExitCode::Waiting => result,
        (_, Some(error)) => {
            // The document on stdout is the summary; why it is not all is said beside it.
            out.complain(&error);
            Err(CliError::told(error.exit))
        }
        (_, None) => result,
    }
}

/// Runs a future on this thread.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| CliError::failed(format!("no runtime: {e}"), here("look at the limits of this process")))?;
    Ok(runtime.block_on(work))
}

async fn daemon_run(config: Config, once: bool) -> Result<Ended, DaemonError> {
    daemon::run(config, once).await
}

fn from_daemon(error: DaemonError) -> CliError {
    let exit = match &error {
        DaemonError::Store(error) => store_exit(error),
        DaemonError::Transport(error) => transport_exit(error),
        DaemonError::Io { source, .. } => io_exit(source),
        DaemonError::Root { .. } | DaemonError::Schedule(_) => ExitCode::Configuration,
    };
    CliError::new(exit, error.to_string(), error.remedy())
}

/// An exchange of a single cycle that failed. Nobody tries that again by itself.
fn from_transport(error: &TransportError) -> CliError {
    let remedy = match error.remedy() {
        Remedy::Wait(_) => here("run it again later; the daemon (`whimbrel run`) tries by itself"),
        other => other,
    };
    CliError::new(transport_exit(error), error.to_string(), remedy)
}

/// Whether the server is away, says no, or is not the matter.
pub(super) fn transport_exit(error: &TransportError) -> ExitCode {
    match error {
        TransportError::Unreachable { .. } | TransportError::Stalled { .. } | TransportError::AskedToWait { .. } => ExitCode::ServerUnreachable,
        // Too many requests, and everything that the server says of itself, passes.
        TransportError::Refused { status: 429 | 500..=599, .. } => ExitCode::ServerUnreachable,
        TransportError::Refused { .. } | TransportError::TooLarge { .. } | TransportError::NotUnderstood { .. } => ExitCode::Failed,
        TransportError::SetUp(_) => ExitCode::Configuration,
    }
}

/// Whether trying again can help.
pub(super) fn store_exit(error: &StoreError) -> ExitCode {
    match error {
        StoreError::TooNew { .. } => ExitCode::Configuration,
        StoreError::Io { source, .. } => io_exit(source),
        StoreError::Sqlite { .. } | StoreError::Damaged { .. } => ExitCode::Failed,
    }
}

fn io_exit(source: &io::Error) -> ExitCode {
    match source.kind() {
        io::ErrorKind::PermissionDenied => ExitCode::NotPermitted,
        _ => ExitCode::Failed,
    }
}

#[cfg(test)]
mod tests {
    use whimbrel_shared::protocol::problem::Problem;

    use super::*;

    #[test]
    fn what_cannot_be_mended_by_starting_again_is_78_and_what_may_pass_is_75() {
        let refused = |status| {
            let words = String::new;
            let problem = Box::new(Problem { kind: words(), title: words(), status, detail: words(), remedy: words(), client_id: None });
            TransportError::Refused { url: words(), status, problem, retry_after: None }
        };
        let transport = |error: TransportError, exit| assert_eq!(from_daemon(error.into()).exit, exit);
        transport(TransportError::Unreachable { url: String::new(), why: String::new() }, ExitCode::ServerUnreachable);
        transport(refused(503), ExitCode::ServerUnreachable);
        transport(refused(401), ExitCode::Failed);
        transport(TransportError::SetUp(String::new()), ExitCode::Configuration);
        let too_new = StoreError::TooNew { what: "device.db".into(), found: 2, known: 1 };
        assert_eq!(from_daemon(too_new.into()).exit, ExitCode::Configuration);
        let io = |kind| from_daemon(DaemonError::Io { path: "x".into(), source: io::Error::from(kind) }).exit;
        assert_eq!((io(io::ErrorKind::PermissionDenied), io(io::ErrorKind::Other)), (ExitCode::NotPermitted, ExitCode::Failed));
    }
}
