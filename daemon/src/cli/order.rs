//! What `apply`, `retry`, `revert`, `hold` and `release` share: an order is kept by the daemon first, then followed.

use serde::Serialize;
use whimbrel_shared::{
    ids::RequestId,
    remedy::{here, wait},
};

use super::{
    error::{CliError, ExitCode},
    output::Output,
    progress::Progress,
    select, status,
    summary::{self, Moved, SUMMARY_SCHEMA},
};
use crate::control::{
    client::{Client, ClientError, Heard, unexpected},
    protocol::{PersonOrder, Reply, Request, Snapshot, Summary},
};

/// `schema` of an order that is not waited for.
pub(super) const REQUEST_SCHEMA: &str = "whimbrel.request/1";

/// What became of an order.
#[derive(Debug)]
pub(super) enum Placed {
    /// It is kept and will be carried out.
    Kept(RequestId),
    /// It was carried out.
    Finished(Summary, Vec<Moved>),
}

/// What `--no-wait --json` prints.
#[derive(Debug, Serialize)]
struct Kept {
    request_id: RequestId,
}

/// Places an order, and stays until it is done if `wait` says so.
pub(super) fn place(out: &Output, database: Option<&str>, order: PersonOrder, wait: bool) -> Result<Placed, CliError> {
    let selector = select::selector(database);
    let mut daemon = out.daemon()?;
    let before = status::ask(&mut daemon)?;
    if let (None, Some(name)) = (database, migration(&order)) {
        not_a_database(&before, name)?;
    }
    daemon.say(&Request::Order { database: selector.clone(), order, wait })?;
    let request_id = match daemon.next(None)? {
        Heard::Reply(Reply::Accepted { request_id }) => request_id,
        Heard::Reply(other) => return Err(unexpected(&other).into()),
        Heard::Nothing | Heard::End => return Err(ClientError::Gone.into()),
    };
    if !wait {
        return Ok(Placed::Kept(request_id));
    }
    let mut progress = Progress::new(out, selector.0.clone());
    let finished = follow(&mut daemon, request_id, &mut progress);
    progress.end();
    let summary = finished?;
    // Only for showing what changed: without it the summary still stands.
    let after = out.daemon().and_then(|mut d| status::ask(&mut d)).unwrap_or_else(|_| before.clone());
    Ok(Placed::Finished(summary, summary::moved(&before, &after, selector.0.as_deref())))
}

/// The migration that an order names.
fn migration(order: &PersonOrder) -> Option<&str> {
    match order {
        PersonOrder::Apply { to, .. } => to.as_deref(),
        PersonOrder::Revert { migration, .. } => migration.as_deref(),
        PersonOrder::Retry
        | PersonOrder::RetryItems
        | PersonOrder::Hold { .. }
        | PersonOrder::Release
        | PersonOrder::Adopt { .. }
        | PersonOrder::GiveBack
        | PersonOrder::Backup
        | PersonOrder::Restore { .. }
        | PersonOrder::Exchange { .. }
        | PersonOrder::Decide { .. }
        | PersonOrder::RetryWaiting
        | PersonOrder::DropWaiting { .. }
        | PersonOrder::Detach { .. }
        | PersonOrder::Cycle => None,
    }
}

/// Refuses a database where a migration is expected: the other commands take one there.
fn not_a_database(snapshot: &Snapshot, name: &str) -> Result<(), CliError> {
    if snapshot.databases.iter().any(|d| select::means(Some(name), d)) {
        return Err(CliError::usage(format!("{name:?} is a database, and a migration is expected"), format!("write --database {name}")));
    }
    Ok(())
}

fn follow(daemon: &mut Client, request_id: RequestId, progress: &mut Progress<'_>) -> Result<Summary, CliError> {
    loop {
        match daemon.next(None)? {
            Heard::Reply(Reply::Finished { summary }) => return Ok(summary),
            Heard::Reply(Reply::Status(snapshot)) => progress.show(&snapshot),
            Heard::Reply(Reply::Event(_)) | Heard::Nothing => {}
            Heard::Reply(other) => return Err(unexpected(&other).into()),
            Heard::End => {
                let message = "the daemon went away while it worked on this; the order is kept and is carried out when it is back";
                let remedy = here(format!("`whimbrel wait --request {request_id}` waits for it"));
                return Err(CliError::new(ExitCode::DaemonUnreachable, message, remedy));
            }
        }
    }
}

/// Prints what became of work on migrations, and answers with its exit code.
pub(super) fn report(out: &Output, placed: &Placed) -> Result<(), CliError> {
    match placed {
        Placed::Kept(request_id) => {
            out.say("kept; it is carried out even if the daemon is restarted. To see what came of it: `whimbrel wait --request ID`");
            if out.is_json() { out.json(REQUEST_SCHEMA, &Kept { request_id: *request_id }) } else { out.text(&format!("{request_id}\n")) }
        }
        Placed::Finished(summary, moved) => finished(out, summary, moved),
    }
}

/// Prints a summary, and answers with its exit code.
pub(super) fn finished(out: &Output, summary: &Summary, moved: &[Moved]) -> Result<(), CliError> {
    if out.is_json() {
        out.json(SUMMARY_SCHEMA, summary)?;
    } else {
        out.text(&summary::human(summary, moved, &out.look()))?;
    }
    match ExitCode::of(summary) {
        ExitCode::Done => Ok(()),
        exit => Err(CliError::told(exit)),
    }
}

/// What became of an earlier order; none while it is open.
pub(super) fn outcome(daemon: &mut Client, request_id: RequestId) -> Result<Option<Summary>, CliError> {
    match daemon.ask(&Request::Outcome { request_id })? {
        Reply::Outcome { summary } => Ok(summary),
        other => Err(unexpected(&other).into()),
    }
}

/// What a wait that was too short says.
pub(super) fn still_open(request_id: RequestId) -> CliError {
    CliError::new(
        ExitCode::Waiting,
        format!("request {request_id} is still open"),
        wait("the daemon carries it out; ask again, or see `whimbrel watch`"),
    )
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::{
        cli::{
            fixture, golden,
            output::{Color, document},
        },
        control::fake,
    };

    fn device(answer: impl Fn(Request) -> Vec<Reply> + Send + Sync + 'static) -> (tempfile::TempDir, Output) {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.toml");
        std::fs::write(&config, "trust = \"none\"\nstate_dir = \".\"\n[[database]]\npath = \"a.db\"\napp = \"notes\"\n").unwrap();
        fake::serve(&dir.path().join("control.sock"), answer);
        (dir, Output::new(false, true, Color::Never, Some(config)))
    }

    fn kept() -> Reply {
        Reply::Accepted { request_id: RequestId::from_dice(9) }
    }

    #[test]
    fn an_order_is_followed_to_its_end_and_its_failure_is_exit_code_4() {
        let (_dir, out) = device(|request| match request {
            Request::Order { wait: true, .. } => {
                vec![kept(), Reply::Status(Box::new(fixture::snapshot())), Reply::Finished { summary: fixture::summary() }]
            }
            _ => vec![Reply::Status(Box::new(fixture::snapshot()))],
        });
        let placed = place(&out, None, PersonOrder::Retry, true).unwrap();
        assert!(matches!(&placed, Placed::Finished(summary, moved) if *summary == fixture::summary() && moved.is_empty()));
        assert_eq!(report(&out, &placed).unwrap_err().exit, ExitCode::MigrationFailed);
    }

    #[test]
    fn an_order_whose_daemon_went_away_says_how_to_ask_later() {
        let (_dir, out) = device(|request| match request {
            Request::Order { .. } => vec![kept(), Reply::Refused { message: "stopping".into(), remedy: here("x") }],
            _ => vec![Reply::Status(Box::new(fixture::snapshot()))],
        });
        assert_eq!(place(&out, None, PersonOrder::Retry, true).unwrap_err().message, "stopping");

        let (_dir, out) = device(|request| match request {
            Request::Order { .. } => vec![],
            _ => vec![Reply::Status(Box::new(fixture::snapshot()))],
        });
        assert_eq!(place(&out, None, PersonOrder::Retry, true).unwrap_err().exit, ExitCode::DaemonUnreachable);
    }

    #[test]
    fn a_database_in_the_place_of_a_migration_is_a_usage_error() {
        let (_dir, out) = device(|_| vec![Reply::Status(Box::new(fixture::snapshot()))]);
        let error = place(&out, None, PersonOrder::Apply { to: Some("b.db".into()), skip_verify: false }, true).unwrap_err();
        assert_eq!((error.exit, error.remedy), (ExitCode::Usage, Some(here("write --database b.db"))));
    }

    #[test]
    fn an_order_that_is_not_waited_for_prints_its_id() {
        let (_dir, out) = device(|request| match request {
            Request::Order { wait: false, .. } => vec![kept()],
            _ => vec![Reply::Status(Box::new(fixture::snapshot()))],
        });
        assert!(matches!(place(&out, Some("a.db"), PersonOrder::Retry, false), Ok(Placed::Kept(_))));
        golden::check("request.json", &document(REQUEST_SCHEMA, &Kept { request_id: RequestId::from_dice(9) }).unwrap());
    }
}
