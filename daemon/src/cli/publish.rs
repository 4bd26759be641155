//! `whimbrel publish`: reads, lints, rehearses, compares with the server, and sends what is new.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;
use whimbrel_shared::{
    duration::Span,
    ids::{AppName, MigrationName},
    migration::Targets,
    protocol::publish::{PublishLink, TrustResponse},
    remedy::here,
    tuf::{Envelope, PublicKey, Role, SignedTargets},
};

use super::{
    error::{CliError, ExitCode},
    keys::{API_KEY as KEY, Seen},
    lint::{Directory, print, refused},
    output::Output,
    rehearse::with_progress,
};
use crate::{
    ambient::Ambient,
    publish::{
        self, PublishError, Report, revise,
        sign::{
            chain::{self, Floor},
            hand::KeySource,
            passphrase::Passphrases,
            round::Round,
            vouch::{Known, check_version},
        },
        upload::{self, UploadError, all_links, new_links, standing, upload, upload_signed},
    },
    transport::{
        http::{Reqwest, Route},
        server::{Credential, Server},
    },
};

/// `schema` of `whimbrel publish --json`.
pub const PUBLISH_SCHEMA: &str = "whimbrel.publish/1";

/// Publish a directory of migrations
///
/// Lints and rehearses them, compares them with what the server has, and sends those that are new. What is published never
/// changes: publishing twice is a no-op, and a changed text is refused with its file and line. A migration that fails on
/// devices is mended with --revise: the changed text becomes a new revision for the databases that have not completed it,
/// and has to end in the same schema. The API key is read from WHIMBREL_API_KEY.
///
/// In an app that has a root (`whimbrel keys root`) what is published is signed, with --key. Where several publishers have to
/// sign, it is written to a file instead, and sent by whoever completes it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   published, or nothing was new
  1   a finding is an error, or the directory contradicts what is published, or a revision ends in another schema
  2   the directory cannot be read as migrations, or a key is none
  3   other publishers have to sign; nothing was sent
  4   a migration failed in the rehearsal
  75  the server does not answer
  77  WHIMBREL_API_KEY is missing or may not publish, or a signature is needed and no --key was given")]
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
    #[command(flatten)]
    signing: Signing,
}

/// How it is signed, in an app that has a root.
#[derive(Debug, clap::Args)]
struct Signing {
    /// Where a publisher's key is: a file, env:NAME, fd:NUMBER, or exec:COMMAND (may be given several times)
    #[arg(long, value_name = "SOURCE")]
    key: Vec<KeySource>,
    /// Read the key's passphrase from this descriptor, instead of WHIMBREL_KEY_PASSPHRASE or the terminal
    #[arg(long, value_name = "NUMBER")]
    passphrase_fd: Option<u32>,
    /// The file that goes round while publishers are missing [default: APP.targets.json]
    #[arg(long, value_name = "FILE")]
    signing: Option<PathBuf>,
    /// Lowest version that a plan of the server may revert to, or none: then only a person at the device reverts
    #[arg(long, value_name = "VERSION")]
    revert_floor: Option<Floor>,
    /// Sign again what is published, even when nothing is new: before it expires, or after a key was revoked
    #[arg(long)]
    renew: bool,
    /// Sign what the server says is published, also where this directory does not make it and the key has not signed it before
    #[arg(long)]
    trust_published: bool,
    /// How long the signature is good
    #[arg(long, value_name = "TIME", default_value = "730d")]
    expires: Span,
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
        signed: None,
    };
    let is_new = !outcome.published.is_empty() || !outcome.revised.is_empty();
    let trust = runtime.block_on(upload::trust(&server, &args.app)).map_err(sending)?;
    let root = trust.as_ref().and_then(|trust| trust.root.clone());
    let links = || new_links(&args.app, &chain, &rehearsal, &standing).map_err(sending);
    let sent = match (trust.zip(root), args.dry_run) {
        (None, _) if !args.signing.key.is_empty() || args.signing.renew => return Err(PublishError::NoRoot { app: args.app }.into()),
        (None, false) if is_new => Some(runtime.block_on(upload(&server, &args.app, links()?)).map_err(sending)?),
        (Some((trust, root)), false) if is_new || args.signing.asked() || !trust.expires.contains_key(Role::Targets.word()) => {
            let links = links()?;
            let wanted = args.signing.document(&args.app, standing.targets.as_ref(), &links, &trust);
            let version = chain::known(standing.targets.as_ref(), &trust);
            check_version(version, Ambient::real().now_ms()).map_err(PublishError::from)?;
            let before = trust.expires.get(Role::Targets.word());
            let before = before.map(|signed| runtime.block_on(server.signed_targets(&args.app, signed.version))).transpose();
            let before = before.map_err(|error| sending(error.into()))?;
            let made = all_links(&args.app, &chain, &rehearsal);
            let floor = args.signing.floor();
            let known = Known { published: standing.targets.as_ref(), signed: before.as_ref(), made: &made, floor };
            let (round, file) = args.signing.sign(&args.app, &wanted, version, &root, &known)?;
            let seen = Seen::of(&round).map_err(PublishError::from)?;
            if seen.missing > 0 {
                round.write(&file).map_err(PublishError::from)?;
                let error = waiting(&seen, &file);
                outcome.signed = Some(seen);
                print(out, PUBLISH_SCHEMA, &outcome, &outcome.text())?;
                return Err(if out.is_json() { CliError::told(error.exit) } else { error });
            }
            outcome.signed = Some(seen);
            let sent = runtime.block_on(upload_signed(&server, &args.app, links, round.document().clone())).map_err(sending)?;
            // It was the next publish's as long as it waited.
            let _ = std::fs::remove_file(&file);
            Some(sent)
        }
        (None | Some(_), _) => None,
    };
    if let Some(sent) = sent {
        let sent: BTreeSet<MigrationName> = sent.into_iter().collect();
        // Somebody may have sent the same a moment ago.
        outcome.published.retain(|name| sent.contains(name));
        outcome.revised.retain(|revised| sent.contains(&revised.name));
        outcome.sent = true;
    }
    print(out, PUBLISH_SCHEMA, &outcome, &outcome.text())
}

impl Signing {
    /// Whether it is signed again though nothing is new.
    fn asked(&self) -> bool {
        self.renew || self.revert_floor.is_some()
    }

    fn floor(&self) -> Floor {
        self.revert_floor.unwrap_or(Floor::AsBefore)
    }

    fn document(&self, app: &AppName, published: Option<&Targets>, links: &[PublishLink], trust: &TrustResponse) -> SignedTargets {
        let lasts_ms = i64::try_from(self.expires.as_millis()).unwrap_or(i64::MAX);
        chain::document(app, published, links, trust, self.floor(), lasts_ms, Ambient::real().now_ms())
    }

    /// Signs with what is at hand. Answers how far that came, and where it goes round.
    fn sign(
        &self,
        app: &AppName,
        wanted: &SignedTargets,
        version: u64,
        root: &Envelope,
        known: &Known<'_>,
    ) -> Result<(Round, PathBuf), PublishError> {
        let file = self.signing.clone().unwrap_or_else(|| PathBuf::from(format!("{app}.targets.json")));
        let mut round = chain::round(&file, wanted, version, root)?;
        if self.key.is_empty() && round.missing()? > 0 {
            return Err(PublishError::Unsigned { app: app.clone() });
        }
        let passphrases = Passphrases::new(self.passphrase_fd);
        for source in &self.key {
            let knows = |key: &PublicKey| if self.trust_published { Ok(()) } else { known.check(key, wanted) };
            round.sign_if(&source.take(&passphrases)?, knows)?;
        }
        Ok((round, file))
    }
}

/// How a publish ends that others have to sign.
fn waiting(seen: &Seen, file: &Path) -> CliError {
    let message = format!("{}; nothing was sent", seen.still_missing());
    let remedy = format!(
        "pass {0} on: the next publisher runs `whimbrel keys sign {0} --key KEY`, or the same `whimbrel publish --signing {0} --key KEY`; \
         whoever is last runs `whimbrel publish --signing {0}`",
        file.display()
    );
    CliError::new(ExitCode::Waiting, message, here(remedy))
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
    /// Whether it was sent: not in a dry run, not when there is nothing new, and not while signatures are missing.
    sent: bool,
    /// What was signed, and by whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    signed: Option<Seen>,
}

/// A new revision of a published migration.
#[derive(Debug, Serialize)]
struct Revised {
    name: MigrationName,
    revision: usize,
}

impl Outcome {
    fn text(&self) -> String {
        let Self { report, app, unchanged, published, revised, sent, signed } = self;
        let what = match (published.len() + revised.len(), sent) {
            (0, _) => "nothing new".to_owned(),
            (new, true) => format!("{new} published now"),
            (new, false) => format!("{new} would be published; nothing was sent"),
        };
        let mended = revised.iter().map(|Revised { name, revision }| format!("  {name}, revision {revision}\n"));
        let names: String = mended.chain(published.iter().map(|name| format!("  {name}\n"))).collect();
        let signed = signed.as_ref().map(Seen::text).unwrap_or_default();
        format!("{report}\n{app}: {unchanged} published before, {what}\n{names}{signed}")
    }
}
