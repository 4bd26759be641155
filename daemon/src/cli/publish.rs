//! `whimbrel publish`: reads, lints, rehearses, compares with the server, and sends what is new.

use std::{fmt, path::PathBuf, sync::Arc};

use serde::Serialize;
use whimbrel_shared::ids::{AppName, MigrationName};

use super::{error::CliError, lint::print, output::Output, rehearse::with_progress};
use crate::{
    ambient::Ambient,
    publish::{
        self, PublishError, Report,
        layout::Layout,
        upload::{UploadError, standing, upload},
    },
    transport::{
        http::Reqwest,
        server::{Credential, Server},
    },
};

/// Where the key is looked for. Not on the command line, where every process of the machine could read it.
const KEY: &str = "WHIMBREL_API_KEY";

/// Rehearse a migrations directory and send what is new to the server
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 the server has it all, 2 the directory is no chain or contradicts the server, 4 a migration failed or a finding is an error, 75 the server does not answer, 77 the key may not publish"
)]
pub struct Args {
    /// The migrations directory, ours or another tool's, or a seed-form JSON file
    pub dir: PathBuf,
    /// The app whose chain it is
    #[arg(long)]
    pub app: AppName,
    /// The server's address, such as https://updates.example.com
    #[arg(long, env = "WHIMBREL_SERVER", value_name = "URL")]
    pub server: String,
    /// A certificate authority to trust besides the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Read it as this layout instead of finding out
    #[arg(long, value_name = "LAYOUT")]
    pub layout: Option<Layout>,
    /// Judge another tool's migrations as strictly as ours
    #[arg(long)]
    pub strict: bool,
    /// Stop before anything is sent
    #[arg(long)]
    pub dry_run: bool,
}

/// Publishes, and prints what was found and what is new. Nothing is sent unless all of it is in order.
pub fn run(args: &Args, out: &Output) -> Result<(), CliError> {
    execute(args, out).map_err(CliError::from)
}

fn execute(args: &Args, out: &Output) -> Result<(), PublishError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| PublishError::SetUp(format!("the runtime cannot be set up: {error}")))?;
    let key = std::env::var(KEY).ok().filter(|key| !key.is_empty()).ok_or(PublishError::NoKey)?;
    let http = Reqwest::new(args.ca_file.as_deref()).map_err(UploadError::from)?;
    let server = Server::new(Arc::new(http), args.server.trim_end_matches('/').to_owned(), Credential::ApiKey(key), Ambient::real());

    let (chain, mut findings) = publish::read(&args.dir, args.layout, args.strict)?;
    // The server before the rehearsal: what contradicts it is known at once, and findings about what is published
    // already are no reason to stop.
    let standing = runtime.block_on(standing(&server, &args.app, &chain))?;
    let rehearsal = with_progress(&chain, args.strict);
    let rehearsal = match rehearsal {
        Ok(rehearsal) => rehearsal,
        Err(error) => {
            print(&Report::new(&chain, findings), out.is_json())?;
            return Err(error);
        }
    };
    findings.extend(rehearsal.findings.iter().cloned());
    let verdict = publish::judge(&chain, &findings, standing.published);
    // What is published cannot be mended any more: saying it each time would hide what can.
    let old: Vec<&MigrationName> = chain.migrations.iter().take(standing.published).map(|m| &m.migration.name).collect();
    findings.retain(|finding| !old.contains(&&finding.migration));
    let mut outcome = Outcome {
        report: Report::new(&chain, findings),
        app: args.app.clone(),
        unchanged: standing.published,
        published: chain.migrations.iter().skip(standing.published).map(|m| m.migration.name.clone()).collect(),
        sent: false,
    };
    outcome.report.notes.extend(rehearsal.notes.iter().cloned());
    if let Err(refused) = verdict {
        outcome.published.clear();
        print(&outcome, out.is_json())?;
        return Err(refused);
    }
    if !args.dry_run && !outcome.published.is_empty() {
        outcome.published = runtime.block_on(upload(&server, &args.app, &chain, &rehearsal, &standing))?;
        outcome.sent = true;
    }
    print(&outcome, out.is_json())
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

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.report)?;
        let Self { app, unchanged, published, sent, .. } = self;
        match (published.len(), sent) {
            (0, _) => write!(f, "{app}: {unchanged} published before, nothing new"),
            (new, true) => write!(f, "{app}: {unchanged} published before, {new} published now"),
            (new, false) => write!(f, "{app}: {unchanged} published before, {new} would be published; nothing was sent"),
        }?;
        published.iter().try_for_each(|name| write!(f, "\n  {name}"))
    }
}
