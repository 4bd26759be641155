//! `whimbrel doctor`: what is looked at, and how it is. It asks the daemon; without one it looks at what a stranger may
//! look at. It never opens a managed file.

use std::path::Path;

use serde::Serialize;
use whimbrel_shared::{
    protocol::state::Severity,
    remedy::{Remedy, here},
};

use super::{
    error::{CliError, ExitCode},
    look::{Look, Table, cell, count},
    output::Output,
};
use crate::{
    config::Config,
    control::{
        client::{Client, ClientError, unexpected},
        protocol::{Check, Reply, Request},
    },
};

/// `schema` of `whimbrel doctor --json`.
pub const DOCTOR_SCHEMA: &str = "whimbrel.doctor/1";

/// Look for what is wrong, and say what to do about it
///
/// Asks the running daemon. When there is none, it looks at the configuration, the socket and the state directory itself.
/// It never opens a database, so it can be run at any time.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   nothing is wrong; there may be warnings
  1   at least one check is an error (that the daemon is not running is one)")]
pub struct Args {}

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Checks<'a> {
    checks: &'a [Check],
}

/// See [`Args`].
pub fn run(_args: Args, out: &Output) -> Result<(), CliError> {
    let checks = checks(&out.config_file());
    if out.is_json() {
        out.json(DOCTOR_SCHEMA, &Checks { checks: &checks })?;
    } else {
        out.text(&human(&checks, &out.look()))?;
    }
    if checks.iter().any(|c| c.result == "error") { Err(CliError::told(ExitCode::Failed)) } else { Ok(()) }
}

/// The configuration's check, then the daemon's checks, or our own without it.
pub(super) fn checks(file: &Path) -> Vec<Check> {
    let config = match Config::read(file) {
        Ok(config) => config,
        Err(error) => return vec![check("config", "error", error.to_string().trim_end(), Some(error.remedy()))],
    };
    let rules = count(config.databases.len() as u64, "database rule");
    let mut checks = vec![check("config", "ok", format!("{}: {rules}", file.display()), None)];
    match ask(&config.socket) {
        Ok(found) => checks.extend(found),
        Err(error) => {
            checks.push(check("daemon", "error", error.to_string(), Some(error.remedy())));
            checks.extend(local(&config));
        }
    }
    checks
}

fn ask(socket: &Path) -> Result<Vec<Check>, ClientError> {
    match Client::connect(socket)?.ask(&Request::Doctor)? {
        Reply::Doctor { checks } => Ok(checks),
        other => Err(unexpected(&other)),
    }
}

/// What can be seen without the daemon.
fn local(config: &Config) -> Vec<Check> {
    let mut checks = vec![state_dir(&config.state_dir)];
    for rule in config.databases.iter().filter(|r| !r.is_pattern()) {
        let path = Path::new(&rule.path);
        checks.push(match (path.symlink_metadata().is_ok(), path.parent().is_some_and(Path::is_dir)) {
            (true, _) => check("database", "ok", format!("{} is there", rule.path), None),
            (false, true) if rule.create => check("database", "info", format!("{} is not there yet; its first migration makes it", rule.path), None),
            (false, true) => check("database", "info", format!("{} is not there yet; the app has to make it", rule.path), None),
            (false, false) => check(
                "database",
                "warning",
                format!("the directory of {} is not there", rule.path),
                Some(here("make the directory, or correct `path`")),
            ),
        });
    }
    checks
}

#[cfg(unix)]
fn state_dir(path: &Path) -> Check {
    use std::os::unix::fs::MetadataExt;
    let shown = path.display();
    match path.metadata() {
        Ok(m) if m.mode() & 0o077 != 0 => check(
            "state_dir",
            "warning",
            format!("others may enter {shown} (mode {:o}); the device token lies in it", m.mode() & 0o7777),
            Some(here(format!("chmod 700 {shown}"))),
        ),
        Ok(m) => check("state_dir", "ok", format!("{shown} is its owner's alone (user id {})", m.uid()), None),
        Err(e) => no_state_dir(path, &e),
    }
}

#[cfg(not(unix))]
fn state_dir(path: &Path) -> Check {
    match path.metadata() {
        Ok(_) => check("state_dir", "ok", format!("{} is there", path.display()), None),
        Err(e) => no_state_dir(path, &e),
    }
}

fn no_state_dir(path: &Path, error: &std::io::Error) -> Check {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            check("state_dir", "info", format!("{} is not there yet; the first `whimbrel enroll` or `whimbrel run` makes it", path.display()), None)
        }
        _ => check("state_dir", "error", format!("{} cannot be looked at: {error}", path.display()), Some(here("run this as the daemon's user"))),
    }
}

fn check(code: &str, result: &str, message: impl Into<String>, remedy: Option<Remedy>) -> Check {
    Check { code: code.to_owned(), result: result.to_owned(), message: message.into(), remedy }
}

/// A row per check in the order they were made, its remedy below it, and the count.
fn human(checks: &[Check], look: &Look) -> String {
    let mut table = Table::new(["RESULT", "CHECK", "MESSAGE"]);
    for c in checks {
        table.row([(c.result.clone(), Some(painted(&c.result, look))), cell(&*c.code), cell(&*c.message)]);
    }
    let mut lines = table.lines(look).into_iter();
    let mut text: Vec<String> = lines.next().into_iter().collect();
    for (c, line) in checks.iter().zip(lines) {
        text.push(line);
        if let Some(remedy) = &c.remedy {
            text.push(look.remedy(2, remedy));
        }
    }
    let of = |result| checks.iter().filter(|c| c.result == result).count() as u64;
    text.push(format!("{}, {}", count(of("error"), "error"), count(of("warning"), "warning")));
    text.join("\n") + "\n"
}

fn painted(result: &str, look: &Look) -> String {
    match result {
        "error" => look.severity(Severity::Error, result),
        "warning" => look.severity(Severity::Warning, result),
        "info" => look.severity(Severity::Info, result),
        _ => look.status(whimbrel_shared::status::Status::Completed).replace("completed", result),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{fixture, golden, output::document};

    #[test]
    fn every_check_is_a_row_and_its_remedy_stands_below() {
        golden::check("doctor.txt", &human(&fixture::checks(), &fixture::look()));
    }

    #[test]
    fn json_is_the_list_of_checks() {
        golden::check("doctor.json", &document(DOCTOR_SCHEMA, &Checks { checks: &fixture::checks() }).unwrap());
    }

    #[test]
    fn without_a_daemon_it_looks_itself_and_touches_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.toml");
        std::fs::write(&config, "trust = \"none\"\nstate_dir = \"state\"\n[[database]]\npath = \"a.db\"\napp = \"notes\"\n").unwrap();
        let results: Vec<_> = checks(&config).into_iter().map(|c| (c.code, c.result)).collect();
        let expected = [("config", "ok"), ("daemon", "error"), ("state_dir", "info"), ("database", "info")];
        assert_eq!(results, expected.map(|(c, r)| (c.to_owned(), r.to_owned())));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "it made something");

        let results: Vec<_> = checks(&dir.path().join("none.toml")).into_iter().map(|c| (c.code, c.result)).collect();
        assert_eq!(results, [("config".to_owned(), "error".to_owned())]);
    }
}
