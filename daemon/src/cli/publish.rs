//! `whimbrel publish`: reads, lints, rehearses, compares with the server, and sends what is new.

use std::{path::PathBuf, sync::Arc};

use serde::Serialize;
use whimbrel_shared::ids::{AppName, MigrationName};

use super::{
    error::CliError,
    lint::{Directory, print, refused},
    output::Output,
    rehearse::with_progress,
};
use crate::{
    ambient::Ambient,
    publish::{
        self, PublishError, Report,
        upload::{UploadError, standing, upload},
    },
    transport::{
        http::Reqwest,
        server::{Credential, Server},
    },
};

/// Where the key is looked for. Not on the command line, where every process of the machine could read it.
const KEY: &str = "WHIMBREL_API_KEY";
/// `schema` of `whimbrel publish --json`.
pub const PUBLISH_SCHEMA: &str = "whimbrel.publish/1";

/// Publish a directory of migrations
///
/// Lints and rehearses them, compares them with what the server has, and sends those that are new. What is published never
/// changes: publishing twice is a no-op, and a changed text is refused with its file and line. The key is read from
/// WHIMBREL_API_KEY.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   published, or nothing was new
  1   a finding is an error, or the directory contradicts what is published
  2   the directory cannot be read as migrations
  4   a migration failed in the rehearsal
  75  the server does not answer
  77  WHIMBREL_API_KEY is missing, or may not publish")]
pub struct Args {
    #[command(flatten)]
    directory: Directory,
    /// The app whose chain it is
    #[arg(long, value_name = "NAME")]
    app: AppName,
    /// The server's address, such as https://updates.example.com
    #[arg(long, env = "WHIMBREL_SERVER", value_name = "URL")]
    server: String,
    /// A certificate authority to trust besides the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Stop before anything is sent
    #[arg(long)]
    dry_run: bool,
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| PublishError::SetUp(format!("the runtime cannot be set up: {error}")))?;
    let key = std::env::var(KEY).ok().filter(|key| !key.is_empty()).ok_or(PublishError::NoKey)?;
    let sending = |error: UploadError| PublishError::from(error);
    let http = Reqwest::new(args.ca_file.as_deref()).map_err(|error| sending(error.into()))?;
    let server = Server::new(Arc::new(http), args.server.trim_end_matches('/').to_owned(), Credential::ApiKey(key), Ambient::real());

    let (chain, mut findings) = args.directory.read()?;
    // The server before the rehearsal: what contradicts it is known at once, and findings about what is published
    // already are no reason to stop.
    let standing = runtime.block_on(standing(&server, &args.app, &chain)).map_err(sending)?;
    let rehearsal = match with_progress(&chain, args.directory.strict, out) {
        Ok(rehearsal) => rehearsal,
        Err(error) => return Err(refused(out, PUBLISH_SCHEMA, &Report::new(&chain, findings), error)),
    };
    findings.extend(rehearsal.findings.iter().cloned());
    let verdict = publish::judge(&chain, &findings, standing.published);
    // What is published cannot be mended any more: saying it each time would hide what can.
    let old: Vec<&MigrationName> = chain.migrations.iter().take(standing.published).map(|m| &m.migration.name).collect();
    findings.retain(|finding| !old.contains(&&finding.migration));
    let mut report = Report::new(&chain, findings);
    report.notes.extend(rehearsal.notes.iter().cloned());
    if let Err(error) = verdict {
        return Err(refused(out, PUBLISH_SCHEMA, &report, error));
    }
    let mut outcome = Outcome {
        report,
        app: args.app.clone(),
        unchanged: standing.published,
        published: chain.migrations.iter().skip(standing.published).map(|m| m.migration.name.clone()).collect(),
        sent: false,
    };
    if !args.dry_run && !outcome.published.is_empty() {
        outcome.published = runtime.block_on(upload(&server, &args.app, &chain, &rehearsal, &standing)).map_err(sending)?;
        outcome.sent = true;
    }
    print(out, PUBLISH_SCHEMA, &outcome, &outcome.text())
}

/// What a publish came to.
#[derive(Debug, Serialize)]
struct Outcome {
    #[serde(flatten)]
    report: Report,
    app: AppName,
    /// How many were published before.
    unchanged: usize,
    /// What is new, or would be.
    published: Vec<MigrationName>,
    /// Whether it was sent: not in a dry run, and not when there is nothing new.
    sent: bool,
}

impl Outcome {
    fn text(&self) -> String {
        let Self { report, app, unchanged, published, sent } = self;
        let what = match (published.len(), sent) {
            (0, _) => "nothing new".to_owned(),
            (new, true) => format!("{new} published now"),
            (new, false) => format!("{new} would be published; nothing was sent"),
        };
        let names: String = published.iter().map(|name| format!("  {name}\n")).collect();
        format!("{report}\n{app}: {unchanged} published before, {what}\n{names}")
    }
}
