//! `whimbrel app`: what the daemon should know about the application.

use serde::Serialize;
use whimbrel_shared::ids::AppName;

use super::{error::CliError, output::Output};
use crate::{
    config::Version,
    control::{
        client::unexpected,
        protocol::{Reply, Request},
    },
};

/// `schema` of what `app set-version` prints.
pub const APP_SCHEMA: &str = "whimbrel.app/1";

/// Tell the daemon about the application
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    SetVersion(SetVersion),
}

/// Say which build of the application is installed; migrations that need a newer one wait
///
/// Call it at the end of the application's own update. `app_version` in the configuration does the same without a call.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   kept
  2   that is no version
  69  the daemon is not running")]
struct SetVersion {
    /// The app, as in the configuration
    app: AppName,
    /// Its build, such as 2.3.0
    #[arg(value_parser = version)]
    version: String,
    /// Version of the SQLite library it brings, such as 3.40.1
    #[arg(long, value_name = "VERSION", value_parser = version)]
    sqlite: Option<String>,
}

#[derive(Debug, Serialize)]
struct Kept<'a> {
    app: &'a AppName,
    version: &'a str,
    sqlite: Option<&'a str>,
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    let Command::SetVersion(SetVersion { app, version, sqlite }) = args.command;
    match out.daemon()?.ask(&Request::AppVersion { app: app.clone(), version: Some(version.clone()), sqlite: sqlite.clone() })? {
        Reply::Done => {}
        other => return Err(unexpected(&other).into()),
    }
    if out.is_json() {
        out.json(APP_SCHEMA, &Kept { app: &app, version: &version, sqlite: sqlite.as_deref() })
    } else {
        out.text(&format!("{app} is {version}{}\n", sqlite.map(|s| format!(", with SQLite {s}")).unwrap_or_default()))
    }
}

fn version(text: &str) -> Result<String, String> {
    text.parse::<Version>().map(|_| text.trim().to_owned())
}
