//! `whimbrel publish`: reads, lints, rehearses, compares with the server, and sends what is new.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

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
        self, PublishError, Report, revise,
        upload::{UploadError, standing, upload},
    },
    transport::{
        http::{Reqwest, Route},
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
/// changes: publishing twice is a no-op, and a changed text is refused with its file and line. A migration that fails on
/// devices is mended with --revise: the changed text becomes a new revision for the databases that have not completed it,
/// and has to end in the same schema. The key is read from WHIMBREL_API_KEY.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   published, or nothing was new
  1   a finding is an error, or the directory contradicts what is published, or a revision ends in another schema
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
    /// Send the key over plain http to another machine, where everybody on the way can read it
    #[arg(long)]
    insecure_http: bool,
    /// A published migration whose text was changed: publish it as a new revision (may be given several times)
    #[arg(long, value_name = "MIGRATION")]
    revise: Vec<MigrationName>,
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
    let http = Reqwest::new(&Route { ca_file: args.ca_file.as_deref(), insecure_http: args.insecure_http, ..Route::default() })
        .map_err(|error| sending(error.into()))?;
    let server = Server::new(Arc::new(http), args.server.trim_end_matches('/').to_owned(), Credential::ApiKey(key), Ambient::real());

    let (chain, mut findings) = args.directory.read()?;
    let revise = args.revise.into_iter().collect();
    // The server before the rehearsal: what contradicts it is known at once, and findings about what is published
    // already are no reason to stop.
    let standing = runtime.block_on(standing(&server, &args.app, &chain, &revise)).map_err(sending)?;
    let rehearsal = match with_progress(&chain, args.directory.strict, out) {
        Ok(rehearsal) => rehearsal,
        Err(error) => return Err(refused(out, PUBLISH_SCHEMA, &Report::new(&chain, findings), error)),
    };
    findings.extend(rehearsal.findings.iter().cloned());
    let settled = standing.found.settled(&chain);
    let verdict = publish::judge(&findings, &settled);
    // What is published cannot be mended any more: saying it each time would hide what can.
    findings.retain(|finding| !settled.contains(&finding.migration));
    let mut report = Report::new(&chain, findings);
    report.notes.extend(rehearsal.notes.iter().cloned());
    report.notes.extend(standing.without_ids());
    if let Err(error) = verdict {
        return Err(refused(out, PUBLISH_SCHEMA, &report, error));
    }
    match revise::check(&chain, &standing.found, &rehearsal, standing.targets.as_ref()) {
        Ok(notes) => report.notes.extend(notes),
        Err(error) => return Err(refused(out, PUBLISH_SCHEMA, &report, error.into())),
    }
    let found = &standing.found;
    let name = |index: usize| chain.migrations[index].migration.name.clone();
    let mut outcome = Outcome {
        report,
        app: args.app.clone(),
        unchanged: settled.len(),
        published: (found.published..chain.migrations.len()).map(name).collect(),
        revised: found.revised.iter().map(|(index, earlier)| Revised { name: name(*index), revision: earlier.len() + 1 }).collect(),
        sent: false,
    };
    if !args.dry_run && (!outcome.published.is_empty() || !outcome.revised.is_empty()) {
        let sent: BTreeSet<MigrationName> =
            runtime.block_on(upload(&server, &args.app, &chain, &rehearsal, &standing)).map_err(sending)?.into_iter().collect();
        // Somebody may have sent the same a moment ago.
        outcome.published.retain(|name| sent.contains(name));
        outcome.revised.retain(|revised| sent.contains(&revised.name));
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
    /// What is mended, or would be.
    revised: Vec<Revised>,
    /// Whether it was sent: not in a dry run, and not when there is nothing new.
    sent: bool,
}

/// A new revision of a published migration.
#[derive(Debug, Serialize)]
struct Revised {
    name: MigrationName,
    revision: usize,
}

impl Outcome {
    fn text(&self) -> String {
        let Self { report, app, unchanged, published, revised, sent } = self;
        let what = match (published.len() + revised.len(), sent) {
            (0, _) => "nothing new".to_owned(),
            (new, true) => format!("{new} published now"),
            (new, false) => format!("{new} would be published; nothing was sent"),
        };
        let mended = revised.iter().map(|Revised { name, revision }| format!("  {name}, revision {revision}\n"));
        let names: String = mended.chain(published.iter().map(|name| format!("  {name}\n"))).collect();
        format!("{report}\n{app}: {unchanged} published before, {what}\n{names}")
    }
}
