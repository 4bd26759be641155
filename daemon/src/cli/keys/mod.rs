//! `whimbrel keys`: the keys of publishers, the root that says whose word counts, and signing one after another.

mod create;
mod root;
mod show;
mod sign;
mod upload;

use std::collections::BTreeMap;

use serde::Serialize;
use whimbrel_shared::{
    ids::AppName,
    protocol::publish::TrustResponse,
    remedy::here,
    tuf::{KeyId, Role, RoleKeys, Time},
};

use super::{
    error::{CliError, ExitCode},
    output::Output,
    run::transport_exit,
};
use crate::{
    ambient::Ambient,
    publish::sign::{
        SignError,
        round::{Content, Need, Round},
    },
    transport::{
        TransportError,
        http::{Reqwest, Route},
        server::{Credential, Server},
    },
};

/// `schema` of what these commands print with --json.
pub const KEYS_SCHEMA: &str = "whimbrel.keys/1";
/// Where the API key is looked for.
pub(super) const API_KEY: &str = "WHIMBREL_API_KEY";

/// Make keys, say whose word counts, and sign
///
/// A root names the keys that sign migrations, and how many of them have to; devices believe nobody else. People keep their
/// keys in files that a passphrase opens, or in hardware; what they sign goes round as a file. docs/signing.md has the
/// whole ceremony, and what to do when a key is lost or stolen.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Create(create::Args),
    Root(root::Args),
    Sign(sign::Args),
    Show(show::Args),
    Verify(show::VerifyArgs),
    Upload(upload::Args),
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    match args.command {
        Command::Create(args) => create::run(args, out),
        Command::Root(args) => root::run(args, out),
        Command::Sign(args) => sign::run(args, out),
        Command::Show(args) => show::run(args, out),
        Command::Verify(args) => show::verify(args, out),
        Command::Upload(args) => upload::run(args, out),
    }
}

/// Where a server is.
#[derive(Debug, clap::Args)]
struct At {
    /// The server's address, such as https://updates.example.com
    #[arg(long, env = "WHIMBREL_SERVER", value_name = "URL")]
    server: String,
    /// A certificate authority to trust besides the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<std::path::PathBuf>,
}

impl At {
    /// Asks the server with the publisher's API key.
    fn ask<T>(&self, what: impl AsyncFnOnce(&Server) -> Result<T, TransportError>) -> Result<T, CliError> {
        let no_key = || {
            let remedy = here("set it to a key that may publish; the server's operator issues one");
            CliError::new(ExitCode::NotPermitted, format!("{API_KEY} is not set"), remedy)
        };
        let key = std::env::var(API_KEY).ok().filter(|key| !key.is_empty()).ok_or_else(no_key)?;
        let failed = |error: TransportError| {
            let exit = match error.status() {
                Some(401 | 403) => ExitCode::NotPermitted,
                Some(_) | None => transport_exit(&error),
            };
            CliError::new(exit, error.to_string(), error.remedy())
        };
        let http = Reqwest::new(&Route { ca_file: self.ca_file.as_deref(), ..Route::default() }).map_err(failed)?;
        let url = self.server.trim_end_matches('/').to_owned();
        let server = Server::new(std::sync::Arc::new(http), url, Credential::ApiKey(key), Ambient::real());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| CliError::failed(format!("the runtime cannot be set up: {e}"), here("please report it")))?;
        runtime.block_on(what(&server)).map_err(failed)
    }

    fn trust(&self, app: &AppName) -> Result<TrustResponse, CliError> {
        self.ask(async |server| server.trust(app).await)
    }
}

impl From<SignError> for CliError {
    fn from(error: SignError) -> Self {
        let exit = match &error {
            SignError::NotPublic(_) | SignError::NotARound { .. } | SignError::NoPassphrase(_) | SignError::NoKey { .. } => ExitCode::Usage,
            SignError::File(whimbrel_keys::FileError::OpenToOthers { .. }) => ExitCode::NotPermitted,
            SignError::File(_)
            | SignError::Pem { .. }
            | SignError::Command(_)
            | SignError::NotAsked { .. }
            | SignError::Write { .. }
            | SignError::Root(_)
            | SignError::Draft(_)
            | SignError::Strange { .. }
            | SignError::StrangeFloor { .. }
            | SignError::FastForward { .. }
            | SignError::Stale { .. } => ExitCode::Failed,
        };
        Self::new(exit, error.to_string(), error.remedy())
    }
}

/// A document that goes round, as people and programs see it.
#[derive(Debug, Serialize)]
pub(super) struct Seen {
    title: String,
    app: AppName,
    version: u64,
    expires: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    revert_floor: Option<u32>,
    /// What is different from the root that goes round with it.
    changes: Vec<String>,
    /// Every key that a root gives a say, by role: whoever sends the file round chose what it is compared with, so a key that was smuggled
    /// in may not be among the changes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    roles: BTreeMap<String, RoleKeys>,
    needs: Vec<Need>,
    /// How many signatures are missing still.
    pub(super) missing: u32,
}

impl Seen {
    pub(super) fn of(round: &Round) -> Result<Self, SignError> {
        let (app, version, expires, revert_floor, changes, roles) = match round.content()? {
            Content::Root(root) => {
                let changes = changes(round, &root)?;
                let roles = Role::ALL.map(|role| (role.word().to_owned(), root.roles.of(role).clone()));
                let plan = root.plan.map(|keys| ("plan".to_owned(), keys));
                (root.app, root.version, root.expires, None, changes, roles.into_iter().chain(plan).collect())
            }
            Content::Targets(t) => (t.app, t.version, t.expires, t.revert_floor, Vec::new(), BTreeMap::new()),
        };
        Ok(Self { title: round.title()?, app, version, expires, revert_floor, changes, roles, needs: round.needs()?, missing: round.missing()? })
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("{}, good until {}\n", self.title, self.expires);
        if let Some(floor) = self.revert_floor {
            text += &format!("  a plan may revert down to version {floor}\n");
        }
        for (role, keys) in &self.roles {
            text += &format!("  {role} is signed by {} of\n", keys.threshold);
            keys.keyids.iter().for_each(|id| text += &format!("    {id}\n"));
        }
        if !self.changes.is_empty() {
            text += "compared with the root before it:\n";
        }
        for change in &self.changes {
            text += &format!("  {change}\n");
        }
        for need in &self.needs {
            let role = need.role.word();
            text += &format!("{} of {} {role} keys of root version {} have to sign:\n", need.threshold, need.keys.len(), need.by_root);
            for (id, signed) in &need.keys {
                text += &format!("  {} {}\n", id, if *signed { "signed" } else { "-" });
            }
        }
        text += &format!("{}\n", self.still_missing());
        text
    }

    /// What has to be done with it still, in a few words.
    pub(super) fn still_missing(&self) -> String {
        match self.missing {
            0 => "enough have signed".to_owned(),
            1 => "1 signature is missing".to_owned(),
            n => format!("{n} signatures are missing"),
        }
    }
}

/// What a signer should know before they sign a root.
fn changes(round: &Round, root: &whimbrel_shared::tuf::Root) -> Result<Vec<String>, SignError> {
    let before = round.before()?;
    let mut changes = Vec::new();
    if before.is_none() {
        return Ok(changes);
    }
    let none = RoleKeys::default();
    let roles = Role::ALL.map(|role| (role.word(), root.roles.of(role), before.as_ref().map(|b| b.roles.of(role))));
    let plan = ("plan", root.plan.as_ref().unwrap_or(&none), before.as_ref().map(|b| b.plan.as_ref().unwrap_or(&none)));
    for (role, new, old) in roles.into_iter().chain([plan]) {
        let had = |id: &KeyId| old.is_some_and(|old| old.keyids.contains(id));
        changes.extend(new.keyids.iter().filter(|id| !had(id)).map(|id| format!("{role}: key {id} comes")));
        let gone = old.into_iter().flat_map(|old| old.keyids.iter()).filter(|id| !new.keyids.contains(id));
        changes.extend(gone.map(|id| format!("{role}: key {id} goes")));
        if let Some(old) = old.filter(|old| old.threshold != new.threshold) {
            changes.push(format!("{role}: {} signatures instead of {}", new.threshold, old.threshold));
        }
    }
    Ok(changes)
}
