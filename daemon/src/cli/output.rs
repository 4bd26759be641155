//! What every command gets: the global flags, and the two streams. stdout is data, stderr is narration.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    path::PathBuf,
};

use serde::Serialize;
use serde_json::{Map, Value};
use whimbrel_shared::remedy::Remedy;

use super::{
    error::{CliError, ExitCode},
    look::Look,
};
use crate::{ambient::Ambient, config::Config, control::client::Client};

/// `schema` of an error on stdout.
pub const ERROR_SCHEMA: &str = "whimbrel.error/1";

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The global flags and the streams.
#[derive(Clone, Debug)]
pub struct Output {
    json: bool,
    quiet: bool,
    color: Color,
    config: Option<PathBuf>,
}

impl Output {
    /// From the global flags.
    pub fn new(json: bool, quiet: bool, color: Color, config: Option<PathBuf>) -> Self {
        Self { json, quiet, color, config }
    }

    /// Whether stdout gets JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether narration is unwanted.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether progress can be drawn: stderr is a terminal and narration is wanted.
    pub fn draws_progress(&self) -> bool {
        !self.quiet && io::stderr().is_terminal()
    }

    /// Whether a person sits at both ends, so that a question can be asked.
    pub fn can_ask(&self) -> bool {
        !self.json && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Whether stdout is a terminal that can be redrawn.
    pub fn can_redraw(&self) -> bool {
        !self.json && io::stdout().is_terminal()
    }

    /// How text for stdout is laid out. Only a terminal has a width; a pipe gets everything.
    pub fn look(&self) -> Look {
        let width = io::stdout().is_terminal().then(|| terminal_size::terminal_size_of(io::stdout())).flatten();
        let width = width.map(|(w, _)| usize::from(w.0));
        Look { color: self.color_on(io::stdout().is_terminal()), width, now_ms: Ambient::real().now_ms(), local: true }
    }

    /// Where the configuration is: the flag or WHIMBREL_CONFIG, then the user's, then the system's.
    pub fn config_file(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(Config::default_file)
    }

    /// The configuration.
    pub fn config(&self) -> Result<Config, CliError> {
        Ok(Config::read(&self.config_file())?)
    }

    /// A connection to the daemon of the configuration.
    pub fn daemon(&self) -> Result<Client, CliError> {
        Ok(Client::connect(&self.config()?.socket)?)
    }

    /// Data for a person, as laid out.
    pub fn text(&self, text: &str) -> Result<(), CliError> {
        let mut stdout = io::stdout().lock();
        // At once: a watched screen ends with no line end, and a reader of a stream waits for each line.
        written(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
    }

    /// Data for a program: one document, indented. `schema` becomes its first key.
    pub fn json(&self, schema: &str, value: &impl Serialize) -> Result<(), CliError> {
        self.text(&document(schema, value)?)
    }

    /// Data for a program: one line of a stream of documents.
    pub fn json_line(&self, schema: &str, value: &impl Serialize) -> Result<(), CliError> {
        let line = with_schema(schema, value).and_then(|v| serde_json::to_string(&v)).map_err(unserialisable)?;
        self.text(&format!("{line}\n"))
    }

    /// Narration: a line on stderr, unless it is not wanted.
    pub fn say(&self, line: impl Display) {
        if !self.quiet {
            // Nobody listens any more: not this command's trouble.
            let _ = writeln!(io::stderr().lock(), "{line}");
        }
    }

    /// An error on stderr.
    pub(super) fn complain(&self, error: &CliError) {
        let width = terminal_size::terminal_size_of(io::stderr()).map(|(w, _)| usize::from(w.0));
        let look = Look { color: self.color_on(io::stderr().is_terminal()), width, ..Look::plain(0) };
        // Nobody listens any more: not this command's trouble.
        let _ = io::stderr().lock().write_all(error_text(error, &look).as_bytes());
    }

    /// Prints how a command ended, and answers the exit code.
    pub fn finish(&self, result: Result<(), CliError>) -> ExitCode {
        let Err(error) = result else { return ExitCode::Done };
        if !error.is_told() {
            self.complain(&error);
            if self.json {
                print_error_json(&error);
            }
        }
        error.exit
    }

    fn color_on(&self, terminal: bool) -> bool {
        match self.color {
            Color::Always => true,
            Color::Never => false,
            // https://no-color.org: set and not empty
            Color::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        }
    }
}

/// An error as a person reads it.
fn error_text(error: &CliError, look: &Look) -> String {
    let mut text = look.labelled(0, "error:", &look.red("error:"), &error.message) + "\n";
    if let Some(remedy) = &error.remedy {
        text.push_str(&(look.remedy(2, remedy) + "\n"));
    }
    text
}

/// An error on stdout, for a program. Nobody listening is not this command's trouble.
pub(super) fn print_error_json(error: &CliError) {
    let _ = io::stdout().lock().write_all(error_json(error).as_bytes());
}

/// An error as a program reads it.
fn error_json(error: &CliError) -> String {
    #[derive(Serialize)]
    struct Shape<'a> {
        error: &'a str,
        remedy: Option<&'a Remedy>,
        exit: ExitCode,
    }
    document(ERROR_SCHEMA, &Shape { error: &error.message, remedy: error.remedy.as_ref(), exit: error.exit }).unwrap_or_default()
}

/// A document: `schema` first, indented by two, a line end at its end.
pub(super) fn document(schema: &str, value: &impl Serialize) -> Result<String, CliError> {
    let text = with_schema(schema, value).and_then(|v| serde_json::to_string_pretty(&v)).map_err(unserialisable)?;
    Ok(text + "\n")
}

fn with_schema(schema: &str, value: &impl Serialize) -> serde_json::Result<Value> {
    let mut document = Map::from_iter([("schema".to_owned(), Value::from(schema))]);
    match serde_json::to_value(value)? {
        Value::Object(fields) => document.extend(fields),
        other => drop(document.insert("value".to_owned(), other)),
    }
    Ok(Value::Object(document))
}

fn unserialisable(error: serde_json::Error) -> CliError {
    CliError::failed(format!("this cannot be written as JSON: {error}"), whimbrel_shared::remedy::here("report this as a defect of whimbrel"))
}

/// A reader that has seen enough (`| head`) is no error.
fn written(result: io::Result<()>) -> Result<(), CliError> {
    match result {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(CliError::told(ExitCode::Done)),
        Err(e) => Err(CliError::failed(format!("stdout cannot be written: {e}"), whimbrel_shared::remedy::here("look at where the output goes"))),
    }
}

#[cfg(test)]
mod tests {
    use whimbrel_shared::remedy::here;

    use super::*;
    use crate::cli::golden;

    fn error() -> CliError {
        CliError::new(ExitCode::DaemonUnreachable, "the daemon is not running\nat all", here("start it"))
    }

    #[test]
    fn an_error_says_what_happened_and_what_to_do() {
        assert_eq!(error_text(&error(), &Look::plain(0)), "error: the daemon is not running\n       at all\n  remedy: start it\n");
    }

    #[test]
    fn an_error_reads_as_json_too() {
        golden::check("error.json", &error_json(&error()));
    }
}
