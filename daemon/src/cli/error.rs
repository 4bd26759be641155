//! How a command ends: its exit code, and for an error what happened and what to do. The codes are a promise
//! (docs/cli.md): scripts and units branch on them.

use serde::{Serialize, Serializer};
use whimbrel_shared::remedy::{Remedy, here};

use crate::{
    config::ConfigError,
    control::{client::ClientError, protocol::Summary},
};

/// What the process ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// What was asked for is so.
    Done = 0,
    /// Any failure that has no code of its own.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// Something waits: a gate, a person, a deadline that came first.
    Waiting = 3,
    /// A migration failed.
    MigrationFailed = 4,
    /// The daemon does not answer (`EX_UNAVAILABLE`).
    DaemonUnreachable = 69,
    /// The server does not answer; trying later may help (`EX_TEMPFAIL`).
    ServerUnreachable = 75,
    /// This user may not (`EX_NOPERM`).
    NotPermitted = 77,
    /// The configuration cannot be used (`EX_CONFIG`); the unit's `RestartPreventExitStatus=78`.
    Configuration = 78,
}

impl ExitCode {
    /// The number.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// What a summary of work comes to. A failure says more than a wait.
    pub fn of(summary: &Summary) -> Self {
        match (summary.failed, summary.skipped) {
            // An alarm about what the server offers, and no database that it is about.
            (0, 0) if summary.errors.iter().any(|e| !e.waiting) => Self::Failed,
            (0, 0) => Self::Done,
            (0, _) => Self::Waiting,
            (_, _) => Self::MigrationFailed,
        }
    }
}

impl Serialize for ExitCode {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u8(self.number())
    }
}

/// Why a command did not end with 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError {
    /// What happened, lower case, no full stop. Empty when the command's own output has said it (see [`CliError::told`]).
    pub message: String,
    /// What to do about it.
    pub remedy: Option<Remedy>,
    /// What the process ends with.
    pub exit: ExitCode,
}

impl CliError {
    /// An error that says what to do.
    pub fn new(exit: ExitCode, message: impl Into<String>, remedy: Remedy) -> Self {
        Self { message: message.into(), remedy: Some(remedy), exit }
    }

    /// A failure without a code of its own.
    pub fn failed(message: impl Into<String>, remedy: Remedy) -> Self {
        Self::new(ExitCode::Failed, message, remedy)
    }

    /// Arguments that make no sense together, beyond what the parser sees.
    pub fn usage(message: impl Into<String>, what_to_do: impl Into<String>) -> Self {
        Self::new(ExitCode::Usage, message, here(what_to_do))
    }

    /// Only an exit code: the output that was just printed says what is the matter.
    pub fn told(exit: ExitCode) -> Self {
        Self { message: String::new(), remedy: None, exit }
    }

    /// Whether there is still something to print.
    pub fn is_told(&self) -> bool {
        self.message.is_empty()
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        let exit = match &error {
            ConfigError::Unreadable { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => ExitCode::NotPermitted,
            ConfigError::Unreadable { .. } | ConfigError::Wrong { .. } => ExitCode::Configuration,
        };
        Self::new(exit, error.to_string().trim_end(), error.remedy())
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::NotRunning { .. }
            | ClientError::Stale { .. }
            | ClientError::Gone
            | ClientError::Silent { .. }
            | ClientError::Unreachable { .. }
            | ClientError::Unsupported => ExitCode::DaemonUnreachable,
            ClientError::NotPermitted { .. } | ClientError::Forbidden { .. } => ExitCode::NotPermitted,
            ClientError::Refused { .. } | ClientError::Garbled { .. } => ExitCode::Failed,
        };
        Self::new(exit, error.to_string(), error.remedy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_has_its_documented_number() {
        use ExitCode::*;
        let codes = [Done, Failed, Usage, Waiting, MigrationFailed, DaemonUnreachable, ServerUnreachable, NotPermitted, Configuration];
        assert_eq!(codes.map(ExitCode::number), [0, 1, 2, 3, 4, 69, 75, 77, 78]);
        let documented = include_str!("../../../docs/cli.md");
        for code in codes {
            assert!(documented.contains(&format!("| {} |", code.number())), "docs/cli.md does not list {code:?}");
        }
    }

    #[test]
    fn a_failure_counts_more_than_a_wait() {
        let check = |failed, skipped, expected| assert_eq!(ExitCode::of(&Summary { failed, skipped, ..Summary::default() }), expected);
        check(0, 0, ExitCode::Done);
        check(0, 2, ExitCode::Waiting);
        check(1, 0, ExitCode::MigrationFailed);
        check(1, 2, ExitCode::MigrationFailed);
    }

    #[test]
    fn a_configuration_that_may_not_be_read_is_no_wrong_configuration() {
        let unreadable = |kind| CliError::from(ConfigError::Unreadable { path: "c.toml".into(), source: std::io::Error::from(kind) }).exit;
        assert_eq!(unreadable(std::io::ErrorKind::PermissionDenied), ExitCode::NotPermitted);
        assert_eq!(unreadable(std::io::ErrorKind::NotFound), ExitCode::Configuration);
        let wrong = ConfigError::Wrong { path: "c.toml".into(), message: "line 1: what is this\n".into(), nearest: Some("server".into()) };
        let error = CliError::from(wrong);
        assert_eq!((error.exit, error.remedy), (ExitCode::Configuration, Some(here("did you mean `server`?"))));
    }

    #[test]
    fn an_unreachable_daemon_is_69_and_a_forbidden_one_77() {
        let socket = std::path::PathBuf::from("/run/x");
        let check = |error: ClientError, exit| assert_eq!(CliError::from(error).exit, exit);
        check(ClientError::NotRunning { socket: socket.clone() }, ExitCode::DaemonUnreachable);
        check(ClientError::Stale { socket: socket.clone() }, ExitCode::DaemonUnreachable);
        check(ClientError::NotPermitted { socket }, ExitCode::NotPermitted);
        check(ClientError::Forbidden { message: "no".into(), remedy: here("yes") }, ExitCode::NotPermitted);
        check(ClientError::Gone, ExitCode::DaemonUnreachable);
        check(ClientError::Refused { message: "no".into(), remedy: here("yes") }, ExitCode::Failed);
    }
}
