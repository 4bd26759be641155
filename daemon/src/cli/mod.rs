//! The command line: one file per command. It prints and decides nothing.
//!
//! A command is a file with `pub struct Args: clap::Args` and `pub fn run(Args, &Output) -> Result<(), CliError>`, and
//! three lines here: its `mod`, its variant, its arm.

pub mod adopt;
pub mod app;
pub mod apply;
pub mod backup;
pub mod completions;
pub mod conflicts;
pub mod detach;
pub mod diagnostics;
pub mod doctor;
pub mod enroll;
pub mod error;
pub mod export;
mod failed_items;
pub mod history;
pub mod hold;
pub mod import;
pub mod keys;
pub mod lint;
pub mod look;
pub mod man;
pub mod new;
mod order;
pub mod output;
pub mod plan;
mod progress;
pub mod publish;
pub mod quarantine;
mod redact;
pub mod rehearse;
pub mod release;
pub mod retry;
pub mod revert;
mod rows;
pub mod run;
mod select;
pub mod status;
mod summary;
pub mod sync;
mod tables;
mod transfer;
pub mod wait;
pub mod watch;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
pub(crate) mod golden;

use std::{ffi::OsString, path::PathBuf};

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};

use self::{
    error::{CliError, ExitCode},
    output::{Color, Output},
};

/// What stands in the help of every command.
const GLOBAL: &str = "Options of every command";

/// Carries schema migrations and rows to SQLite on machines that are often offline
///
/// The daemon (`whimbrel run`, usually started by systemd) does the work; the other commands ask it, over a socket in its
/// state directory. Data goes to stdout, everything else to stderr.
#[derive(Debug, Parser)]
#[command(name = "whimbrel", version, propagate_version = false, max_term_width = 120)]
#[command(after_help = "Exit codes:
   0  done                            69  the daemon does not answer
   1  any other failure               75  the server does not answer
   2  the command line is wrong       77  this user may not
   3  something waits                 78  the configuration cannot be used
   4  a migration failed

Every error says what to do about it. docs/start.md begins at the beginning; docs/cli.md documents --json.")]
struct Cli {
    /// The configuration [default: ~/.config/whimbrel/config.toml, else /etc/whimbrel/config.toml]
    #[arg(long, global = true, value_name = "FILE", env = "WHIMBREL_CONFIG", hide_env_values = true, help_heading = GLOBAL)]
    config: Option<PathBuf>,
    /// Print JSON: stable and documented, for programs
    #[arg(long, global = true, help_heading = GLOBAL)]
    json: bool,
    /// No narration on stderr but errors
    #[arg(long, short, global = true, help_heading = GLOBAL)]
    quiet: bool,
    /// When to use colour: auto (on a terminal, unless NO_COLOR is set), always, never
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN", hide_possible_values = true, help_heading = GLOBAL)]
    color: Color,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Enroll(enroll::Args),
    Status(status::Args),
    Watch(watch::Args),
    Wait(wait::Args),
    History(history::Args),
    Plan(plan::Args),
    Apply(apply::Args),
    Retry(retry::Args),
    Revert(revert::Args),
    Hold(hold::Args),
    Release(release::Args),
    Sync(sync::Args),
    Conflicts(conflicts::Args),
    Quarantine(quarantine::Args),
    Adopt(adopt::Args),
    Backup(backup::Args),
    Export(export::Args),
    Import(import::Args),
    Detach(detach::Args),
    App(app::Args),
    Doctor(doctor::Args),
    Diagnostics(diagnostics::Args),
    New(new::Args),
    Lint(lint::Args),
    Rehearse(rehearse::Args),
    Keys(keys::Args),
    Publish(publish::Args),
    #[command(hide = true)]
    Completions(completions::Args),
    #[command(hide = true)]
    Man(man::Args),
}

impl Command {
    fn run(self, out: &Output) -> Result<(), CliError> {
        match self {
            Self::Run(args) => run::run(args, out),
            Self::Enroll(args) => enroll::run(args, out),
            Self::Status(args) => status::run(args, out),
            Self::Watch(args) => watch::run(args, out),
            Self::Wait(args) => wait::run(args, out),
            Self::History(args) => history::run(args, out),
            Self::Plan(args) => plan::run(args, out),
            Self::Apply(args) => apply::run(args, out),
            Self::Retry(args) => retry::run(args, out),
            Self::Revert(args) => revert::run(args, out),
            Self::Hold(args) => hold::run(args, out),
            Self::Release(args) => release::run(args, out),
            Self::Sync(args) => sync::run(args, out),
            Self::Conflicts(args) => conflicts::run(args, out),
            Self::Quarantine(args) => quarantine::run(args, out),
            Self::Adopt(args) => adopt::run(args, out),
            Self::Backup(args) => backup::run(args, out),
            Self::Export(args) => export::run(args, out),
            Self::Import(args) => import::run(args, out),
            Self::Detach(args) => detach::run(args, out),
            Self::App(args) => app::run(args, out),
            Self::Doctor(args) => doctor::run(args, out),
            Self::Diagnostics(args) => diagnostics::run(args, out),
            Self::New(args) => new::run(args, out),
            Self::Lint(args) => lint::run(args, out),
            Self::Rehearse(args) => rehearse::run(args, out),
            Self::Keys(args) => keys::run(args, out),
            Self::Publish(args) => publish::run(args, out),
            Self::Completions(args) => completions::run(args, out),
            Self::Man(args) => man::run(args, out),
        }
    }
}

/// Reads the arguments, does what they say and answers the exit code. Nothing is set up before they are understood.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    match Cli::try_parse_from(&arguments) {
        Ok(cli) => {
            let out = Output::new(cli.json, cli.quiet, cli.color, cli.config);
            let result = cli.command.run(&out);
            out.finish(result)
        }
        Err(error) => not_understood(&error, arguments.iter().any(|a| a == "--json")),
    }
}

/// Help and version are no errors; the rest is the parser's own words, and JSON for a program.
fn not_understood(error: &clap::Error, json: bool) -> ExitCode {
    // Nobody listens any more: not this command's trouble.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::Done,
        _ if json => {
            let message = error.render().to_string();
            let message = message.trim_start_matches("error: ").lines().next().unwrap_or_default();
            output::print_error_json(&CliError::usage(message, "whimbrel --help"));
            ExitCode::Usage
        }
        _ => ExitCode::Usage,
    }
}

/// The whole command line, for completions and manual pages.
fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn every_command_explains_itself_and_its_exit_codes() {
        for sub in command().get_subcommands().filter(|s| !s.is_hide_set()) {
            let name = sub.get_name();
            assert!(sub.get_about().is_some(), "{name} has no description");
            let mut leaves: Vec<clap::Command> = sub.get_subcommands().cloned().collect();
            if leaves.is_empty() {
                leaves.push(sub.clone());
            }
            for leaf in &mut leaves {
                let help = leaf.render_long_help().to_string();
                assert!(help.contains("Exit codes:"), "{name} does not say its exit codes");
                for argument in leaf.get_arguments() {
                    assert!(argument.get_help().is_some(), "{name} {} has no help", argument.get_id());
                }
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error_and_help_is_not() {
        let code = |line: &str| main(line.split(' ').map(OsString::from));
        for line in [
            "whimbrel",
            "whimbrel fly",
            "whimbrel revert",
            "whimbrel revert a --to 1",
            "whimbrel wait",
            "whimbrel hold --for 3h --until 2030-01-01",
            "whimbrel adopt run --accept-drift",
            "whimbrel adopt run a.db --kv json:a",
            "whimbrel adopt status --table t",
            "whimbrel adopt status --kv redis:a",
            "whimbrel conflicts resolve 3",
            "whimbrel conflicts resolve 3 --mine --theirs",
            "whimbrel quarantine drop notes",
            "whimbrel detach",
        ] {
            assert_eq!(code(line), ExitCode::Usage, "{line}");
        }
        for line in ["whimbrel --help", "whimbrel --version", "whimbrel apply --help"] {
            assert_eq!(code(line), ExitCode::Done, "{line}");
        }
    }

    #[test]
    fn a_missing_configuration_is_78_and_a_missing_daemon_69() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.toml");
        let code = |words: &[&str]| {
            let flags = ["whimbrel", "--quiet", "--config", config.to_str().unwrap()];
            main(flags.iter().chain(words).map(OsString::from))
        };
        assert_eq!(code(&["status"]), ExitCode::Configuration);
        assert_eq!(code(&["run", "--once"]), ExitCode::Configuration);
        std::fs::write(&config, "trust = \"none\"\nstate_dir = \"state\"\n[[database]]\npath = \"a.db\"\napp = \"notes\"\n").unwrap();
        for command in ["status", "history", "plan", "apply", "retry", "hold", "release", "watch", "sync"] {
            assert_eq!(code(&[command]), ExitCode::DaemonUnreachable, "{command}");
        }
        for command in ["status", "run", "rollback"] {
            assert_eq!(code(&["adopt", command]), ExitCode::DaemonUnreachable, "adopt {command}");
            assert_eq!(code(&["adopt", command, "--kv", "json:none.json"]), ExitCode::Failed, "adopt {command} --kv");
        }
        for words in [&["conflicts", "list"][..], &["conflicts", "resolve", "3", "--mine"], &["quarantine", "retry"], &["detach", "a.db"]] {
            assert_eq!(code(words), ExitCode::DaemonUnreachable, "{words:?}");
        }
        assert_eq!(code(&["adopt", "finish"]), ExitCode::Usage);
        assert_eq!(code(&["wait", "a.db", "--timeout", "0s"]), ExitCode::DaemonUnreachable);
        assert_eq!(code(&["revert", "a", "--yes"]), ExitCode::DaemonUnreachable);
        assert_eq!(code(&["app", "set-version", "notes", "2.3.0"]), ExitCode::DaemonUnreachable);
        assert_eq!(code(&["doctor"]), ExitCode::Failed);
    }
}
