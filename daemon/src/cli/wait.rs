//! `whimbrel wait`: block until a database is ready, for units and scripts that start the application afterwards.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;
use whimbrel_shared::{
    duration::Span,
    ids::RequestId,
    protocol::poll::Order,
    remedy::{Remedy, here, wait},
    status::FailureClass,
};

use super::{
    error::{CliError, ExitCode},
    look::clean,
    order,
    output::Output,
    select,
};
use crate::control::{
    client::{Client, ClientError, Heard},
    protocol::{DatabaseView, Reply, Request, Snapshot},
};

/// `schema` of what `wait` prints when a database is ready.
pub const WAIT_SCHEMA: &str = "whimbrel.wait/1";
/// Between two tries to reach a daemon that is not there yet, and between two looks at a request.
const AGAIN: Duration = Duration::from_millis(200);

/// Wait until a database is at a version, or until a request is done
///
/// Waits for the daemon to appear too, so that it can stand in a unit that starts the application: ExecStartPre=whimbrel
/// wait notes.db. Without --version it waits for what the server's plan allows; a device that is offline is ready when it
/// has applied what it accepted.
#[derive(Debug, clap::Args)]
#[command(override_usage = "whimbrel wait [OPTIONS] <DATABASE>\n       whimbrel wait [OPTIONS] --request <ID>")]
#[command(after_help = "Exit codes:
  0   ready
  1   no such database
  3   not ready in time; the message says what is waited for
  4   a migration failed and waits for a person
  69  the daemon did not appear in time")]
pub struct Args {
    /// Path, file name or beginning of the client id of the database
    #[arg(required_unless_present = "request", conflicts_with = "request")]
    database: Option<String>,
    /// The version to wait for, or any later one; what the plan allows if left out
    #[arg(long, value_name = "N")]
    version: Option<u32>,
    /// Wait for a request that --no-wait printed, and print what it came to
    #[arg(long, value_name = "ID")]
    request: Option<RequestId>,
    /// How long to wait; 0s only looks
    #[arg(long, value_name = "LENGTH", default_value = "60s")]
    timeout: Span,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Ready<'a> {
    path: &'a std::path::Path,
    app: &'a str,
    version: u32,
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    let socket = out.config()?.socket;
    let deadline = Instant::now() + args.timeout.get();
    let connect = || loop {
        match Client::connect(&socket) {
            Err(ClientError::NotRunning { .. } | ClientError::Stale { .. } | ClientError::Gone) if Instant::now() < deadline => pause(deadline),
            result => break result,
        }
    };
    if let Some(request_id) = args.request {
        return request(out, request_id, deadline, connect);
    }
    let meant = select::selector(args.database.as_deref()).0;
    let mut last: Vec<(DatabaseView, Verdict)> = Vec::new();
    let mut daemon = connect()?;
    daemon.say(&Request::Watch)?;
    loop {
        // At least one look, however short the time is.
        let until = deadline.max(Instant::now() + AGAIN);
        match daemon.next(Some(until)) {
            Ok(Heard::Reply(Reply::Status(snapshot))) => {
                last = judge(&snapshot, meant.as_deref(), args.version);
                if let Some(done) = decided(&last) {
                    return print(out, done, &last);
                }
            }
            Ok(Heard::Reply(_)) => continue,
            Ok(Heard::Nothing) => {}
            Ok(Heard::End) | Err(ClientError::Gone) if Instant::now() < deadline => {
                pause(deadline);
                daemon = connect()?;
                daemon.say(&Request::Watch)?;
                continue;
            }
            Ok(Heard::End) => return Err(ClientError::Gone.into()),
            Err(error) => return Err(error.into()),
        }
        if Instant::now() >= deadline {
            return Err(too_late(args.database.as_deref().unwrap_or_default(), &last));
        }
    }
}

/// How a database stands to what is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is there.
    Ready,
    /// It will not be there before a person acts.
    Failed { message: String, remedy: Remedy },
    /// It may be.
    NotYet { message: String, remedy: Remedy },
}

fn judge(snapshot: &Snapshot, meant: Option<&str>, version: Option<u32>) -> Vec<(DatabaseView, Verdict)> {
    let chosen = snapshot.databases.iter().filter(|d| select::means(meant, d));
    chosen.map(|d| (d.clone(), verdict(d, version))).collect()
}

fn verdict(d: &DatabaseView, version: Option<u32>) -> Verdict {
    let ready = match (version, d.order) {
        (Some(version), _) => d.version >= version,
        (None, Some(Order::ApplyUpTo { .. })) => d.pending == 0 && d.client_id.is_some(),
        (None, Some(Order::RevertDownTo { version })) => d.version <= version,
        (None, None) => false,
    };
    if ready {
        return Verdict::Ready;
    }
    if let Some(f) = &d.failure {
        let (message, remedy) = (f.failure.message.clone(), f.failure.remedy.clone());
        return match f.failure.class {
            FailureClass::Transient => Verdict::NotYet { message, remedy },
            // With a next try it is not the last word.
            FailureClass::Permanent | FailureClass::Crash | FailureClass::Corrupt if d.next_try_ms.is_some() => Verdict::NotYet { message, remedy },
            FailureClass::Permanent | FailureClass::Crash | FailureClass::Corrupt => Verdict::Failed { message, remedy },
        };
    }
    let worst = d.health.iter().max_by_key(|h| h.severity);
    let (message, remedy) = match (worst, d.order, version) {
        (Some(item), _, _) => (item.message.clone(), item.remedy.clone()),
        (None, None, _) => ("the server has not said yet what this database may have".to_owned(), here("look at `whimbrel status`")),
        (None, Some(_), Some(v)) if d.pending == 0 => {
            (format!("the plan allows version {} and not {v}", d.version), wait("the operator decides when it comes"))
        }
        (None, Some(_), _) => ("its migrations are still to run".to_owned(), wait("look at `whimbrel watch`")),
    };
    Verdict::NotYet { message, remedy }
}

/// Whether it is decided: all are ready, or one failed.
fn decided(verdicts: &[(DatabaseView, Verdict)]) -> Option<&(DatabaseView, Verdict)> {
    let failed = verdicts.iter().find(|(_, v)| matches!(v, Verdict::Failed { .. }));
    failed.or_else(|| verdicts.first().filter(|_| verdicts.iter().all(|(_, v)| *v == Verdict::Ready)))
}

fn print(out: &Output, (d, verdict): &(DatabaseView, Verdict), all: &[(DatabaseView, Verdict)]) -> Result<(), CliError> {
    match verdict {
        Verdict::Failed { message, remedy } => {
            Err(CliError::new(ExitCode::MigrationFailed, format!("{}: {message}", d.path.display()), remedy.clone()))
        }
        Verdict::Ready | Verdict::NotYet { .. } => {
            if out.is_json() {
                return out.json(WAIT_SCHEMA, &Ready { path: &d.path, app: d.app.as_str(), version: d.version });
            }
            all.iter().for_each(|(d, _)| out.say(format!("{}: version {}", clean(&d.path.to_string_lossy()), d.version)));
            Ok(())
        }
    }
}

fn too_late(database: &str, last: &[(DatabaseView, Verdict)]) -> CliError {
    let waiting = last.iter().find_map(|(d, v)| match v {
        Verdict::NotYet { message, remedy } => Some((d, message, remedy)),
        Verdict::Ready | Verdict::Failed { .. } => None,
    });
    match waiting {
        Some((d, message, remedy)) => {
            CliError::new(ExitCode::Waiting, format!("{} is not ready (version {}): {message}", d.path.display(), d.version), remedy.clone())
        }
        None => CliError::failed(
            format!("the daemon knows no database {database:?}"),
            here("`whimbrel status` lists them; the configuration's [[database]] names them"),
        ),
    }
}

fn request(out: &Output, request_id: RequestId, deadline: Instant, connect: impl Fn() -> Result<Client, ClientError>) -> Result<(), CliError> {
    loop {
        // A new connection each time: the daemon may be restarted while this waits.
        let gone = |e: &CliError| e.exit == ExitCode::DaemonUnreachable && Instant::now() < deadline;
        match connect().map_err(CliError::from).and_then(|mut d| order::outcome(&mut d, request_id)) {
            Ok(Some(summary)) => return order::finished(out, &summary, &[]),
            Ok(None) if Instant::now() >= deadline => return Err(order::still_open(request_id)),
            Ok(None) => pause(deadline),
            Err(error) if gone(&error) => pause(deadline),
            Err(error) => return Err(error),
        }
    }
}

fn pause(deadline: Instant) {
    thread::sleep(AGAIN.min(deadline.saturating_duration_since(Instant::now())));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixture;

    #[test]
    fn a_database_is_ready_failed_or_not_yet() {
        let s = fixture::snapshot();
        let of = |name: &str, version| judge(&s, Some(name), version).remove(0).1;
        let not_yet = |v: &Verdict| matches!(v, Verdict::NotYet { .. });
        assert_eq!(of("a.db", None), Verdict::Ready);
        assert_eq!(of("a.db", Some(4)), Verdict::Ready, "a later version will do");
        assert!(not_yet(&of("a.db", Some(6))));
        assert!(not_yet(&of("b.db", None)), "its migration runs");
        assert_eq!(of("c.db", Some(3)), Verdict::Ready, "what failed lies behind the version that is wanted");
        assert!(matches!(of("c.db", None), Verdict::Failed { .. }));
        assert!(matches!(of("d.db", None), Verdict::NotYet { message, .. } if message.starts_with("held")));
        assert!(not_yet(&of("e.db", None)), "it is to be reverted");
        assert!(not_yet(&of("f.db", None)));
    }

    #[test]
    fn a_failure_that_is_tried_again_by_itself_is_waited_for() {
        let mut d = fixture::snapshot().databases.swap_remove(2);
        d.next_try_ms = Some(1);
        assert!(matches!(verdict(&d, None), Verdict::NotYet { .. }));
    }

    #[test]
    fn a_database_that_nobody_knows_is_not_something_to_wait_for() {
        assert_eq!(too_late("typo.db", &[]).exit, ExitCode::Failed);
        let s = fixture::snapshot();
        assert_eq!(too_late("d.db", &judge(&s, Some("d.db"), None)).exit, ExitCode::Waiting);
        assert!(decided(&[]).is_none());
    }
}
