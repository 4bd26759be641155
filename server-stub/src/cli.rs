//! The command line: `serve`, `key`, `token`, `device`, `audit`. A secret is the last line on stdout and nowhere else; what explains it goes
//! to stderr.

mod devices;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use whimbrel_shared::{
    duration::{BadSpan, Span},
    ids::{AppName, SpaceName},
    remedy::{Remedy, here},
};

use crate::{
    secrets::{Kind, Scope, Secret, now_ms},
    server::{Config, Keep, ServeError, StoreAt, serve},
    store::{KeyInfo, NewKey, NewToken, Store, StoreError, TokenInfo},
};

/// What a development server's token may do: enough for any demonstration.
const DEV_USES: u32 = 100_000;
const DEV_EXPIRES_MS: i64 = 365 * 86_400_000;

/// Keeps signed migrations, decides who gets what when, receives reports.
#[derive(Parser)]
#[command(name = "whimbrel-server", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT
    Serve(Serve),
    /// Keys of operators and publishers
    #[command(subcommand)]
    Key(KeyCommand),
    /// Enrolment tokens of devices
    #[command(subcommand)]
    Token(TokenCommand),
    /// Devices and their tokens
    #[command(subcommand)]
    Device(devices::DeviceCommand),
    Audit(devices::Audit),
}

#[derive(Args)]
struct Serve {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8787")]
    listen: SocketAddr,
    /// Where the store is, as sqlite:PATH; made if it is not there
    #[arg(long, required_unless_present = "dev")]
    store: Option<StoreAt>,
    /// How long deletions of rows are remembered; a device that was away for longer takes a snapshot. 1d to 3650d
    #[arg(long, default_value_t = Keep::default().deleted, value_parser = kept)]
    keep_deleted: Span,
    /// How long answers to pushes are remembered, so that one that is sent again gets the same. 1d to 3650d
    #[arg(long, default_value_t = Keep::default().answers, value_parser = kept)]
    keep_answers: Span,
    /// How long conflicts that are decided are listed; those that wait for somebody stay. 1d to 3650d
    #[arg(long, default_value_t = Keep::default().conflicts, value_parser = kept)]
    keep_conflicts: Span,
    /// Folder of the keys that the server signs with; they are made at the first start. Credentials of systemd named
    /// snapshot.pem, timestamp.pem and plan.pem go before it [default: the folder keys beside the store]
    #[arg(long, value_name = "FOLDER")]
    keys: Option<PathBuf>,
    /// For trying out: a store in ./whimbrel-dev unless --store says otherwise, and a key and a token on stdout
    #[arg(long)]
    dev: bool,
    /// App of the development token
    #[arg(long, default_value = "demo", requires = "dev")]
    app: AppName,
}

#[derive(Args)]
struct At {
    /// Where the store is, as sqlite:PATH; made if it is not there
    #[arg(long)]
    store: StoreAt,
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Make a key; it is the last line on stdout and cannot be shown again
    Create {
        #[command(flatten)]
        at: At,
        /// What it may do
        #[arg(long)]
        scope: Scope,
        /// Its name in lists and in the audit
        #[arg(long, value_parser = name)]
        name: Option<String>,
    },
    /// List the keys, without their secrets
    List {
        #[command(flatten)]
        at: At,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key at once
    Revoke {
        #[command(flatten)]
        at: At,
        /// Its name
        name: String,
    },
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Make a token; it is the last line on stdout and cannot be shown again
    Create {
        #[command(flatten)]
        at: At,
        /// The app that devices are enrolled for
        #[arg(long)]
        app: AppName,
        /// The set of rows that their databases exchange
        #[arg(long, default_value_t)]
        space: SpaceName,
        /// How many devices it can enrol
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        uses: u32,
        /// How long it is good for
        #[arg(long, default_value = "7d")]
        expires: Span,
    },
    /// List the tokens, without their secrets
    List {
        #[command(flatten)]
        at: At,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token at once; devices that used it stay enrolled
    Revoke {
        #[command(flatten)]
        at: At,
        /// Its number
        id: i64,
    },
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The server did not start, or ended.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The store's word.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system's word.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
}

impl CliError {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Serve(error) => error.remedy(),
            Self::Store(error) => error.remedy(),
            Self::System { .. } => here("look at what the system says"),
        }
    }

    /// 2 usage, 75 the store or the address cannot be had now, 78 the store does not fit this binary, or its keys cannot be used.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Store(error) | Self::Serve(ServeError::Store(error)) => match error {
                StoreError::Refused(_) => 2,
                StoreError::Unavailable(_) => 75,
                StoreError::Newer { .. } | StoreError::Damaged(_) => 78,
            },
            Self::Serve(ServeError::Listen { .. } | ServeError::Ended(_)) | Self::System { .. } => 75,
            Self::Serve(ServeError::Keys(_)) => 78,
        }
    }
}

/// Does what the command line says. Returns when it is done; `serve` is done after a signal.
pub fn run(cli: Cli) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| CliError::System { what: "cannot start threads", source })?;
    runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => serve_until_signal(args).await,
            Command::Key(command) => key(command).await,
            Command::Token(command) => token(command).await,
            Command::Device(command) => devices::device(command).await,
            Command::Audit(args) => devices::audit(args).await,
        }
    })
}

async fn serve_until_signal(args: Serve) -> Result<(), CliError> {
    let no_signal = |source| CliError::System { what: "cannot wait for signals", source };
    let mut term = signal(SignalKind::terminate()).map_err(no_signal)?;
    let mut int = signal(SignalKind::interrupt()).map_err(no_signal)?;
    let store = args.store.unwrap_or_else(|| StoreAt::Sqlite(PathBuf::from("whimbrel-dev/whimbrel.db")));
    if args.dev {
        let open = store.open()?;
        let name = format!("dev-{}", now_ms());
        let key = create_key(open.as_ref(), name, Scope::Admin).await?;
        let token = create_token(open.as_ref(), args.app.clone(), SpaceName::default(), DEV_USES, DEV_EXPIRES_MS).await?;
        println!("api key (admin): {}", key.reveal());
        println!("enrolment token for {}: {}", args.app, token.reveal());
    }
    let listen = args.listen;
    let keep = Keep { deleted: args.keep_deleted, answers: args.keep_answers, conflicts: args.keep_conflicts };
    let mut server = serve(Config { listen, store, keep, keys: args.keys }).await?;
    // Others wait for exactly this line.
    println!("listening on http://{}", server.addr());
    tokio::select! {
        error = server.ended() => return Err(error.into()),
        _ = term.recv() => info!("SIGTERM"),
        _ = int.recv() => info!("SIGINT"),
    }
    Ok(server.stop().await?)
}

async fn key(command: KeyCommand) -> Result<(), CliError> {
    match command {
        KeyCommand::Create { at, scope, name } => {
            let store = at.store.open()?;
            let name = name.unwrap_or_else(|| format!("{}-{}", scope.as_str(), now_ms()));
            let secret = create_key(store.as_ref(), name.clone(), scope).await?;
            eprintln!("API key {name} with scope {}; send it as X-API-Key.", scope.as_str());
            eprintln!("It is not shown again: only its SHA-256 is kept.");
            println!("{}", secret.reveal());
        }
        KeyCommand::List { at, json } => {
            let keys = at.store.open()?.keys().await?;
            list(json, &keys, key_line);
        }
        KeyCommand::Revoke { at, name } => {
            at.store.open()?.revoke_key(name.clone(), now_ms()).await?;
            eprintln!("API key {name} is revoked.");
        }
    }
    Ok(())
}

async fn token(command: TokenCommand) -> Result<(), CliError> {
    match command {
        TokenCommand::Create { at, app, space, uses, expires } => {
            let store = at.store.open()?;
            let lasts_ms = i64::try_from(expires.as_millis()).unwrap_or(i64::MAX);
            let secret = create_token(store.as_ref(), app.clone(), space.clone(), uses, lasts_ms).await?;
            eprintln!("Enrolment token for {app}, space {space}: {uses} use(s), good for {expires}.");
            eprintln!("Give it to `whimbrel enroll`. It is not shown again: only its SHA-256 is kept.");
            println!("{}", secret.reveal());
        }
        TokenCommand::List { at, json } => {
            let tokens = at.store.open()?.tokens().await?;
            list(json, &tokens, token_line);
        }
        TokenCommand::Revoke { at, id } => {
            at.store.open()?.revoke_token(id, now_ms()).await?;
            eprintln!("Enrolment token {id} is revoked.");
        }
    }
    Ok(())
}

async fn create_key(store: &dyn Store, name: String, scope: Scope) -> Result<Secret, StoreError> {
    let secret = Secret::new(Kind::ApiKey);
    let hash = secret.digest();
    let now_ms = now_ms();
    let key = NewKey { name, hash, scope, now_ms };
    store.create_key(key).await?;
    Ok(secret)
}

async fn create_token(store: &dyn Store, app: AppName, space: SpaceName, uses: u32, lasts_ms: i64) -> Result<Secret, StoreError> {
    let secret = Secret::new(Kind::Enrolment);
    let now_ms = now_ms();
    let token = NewToken { hash: secret.digest(), app, space, uses, now_ms, expires_at_ms: now_ms.saturating_add(lasts_ms) };
    store.create_token(token).await?;
    Ok(secret)
}

fn list<T: Serialize>(json: bool, items: &[T], line: fn(&T) -> String) {
    if json {
        let text = serde_json::to_string_pretty(items);
        println!("{}", text.expect("texts and numbers"));
    } else {
        items.iter().for_each(|item| println!("{}", line(item)));
    }
}

fn key_line(key: &KeyInfo) -> String {
    let state = if key.revoked_at_ms.is_some() { "revoked" } else { "active" };
    format!("{:<32} {:<8} {state}", key.name, key.scope.as_str())
}

fn token_line(token: &TokenInfo) -> String {
    let state = match (token.revoked_at_ms, token.uses_left) {
        (Some(_), _) => "revoked".to_owned(),
        (None, _) if token.expires_at_ms <= now_ms() => "expired".to_owned(),
        (None, uses) => format!("{uses} use(s) left"),
    };
    format!("{:<6} {:<32} {:<16} {state}", token.id, token.app.as_str(), token.space.as_str())
}

fn kept(text: &str) -> Result<Span, String> {
    let span: Span = text.parse().map_err(|e: BadSpan| e.to_string())?;
    if (Keep::SHORTEST..=Keep::LONGEST).contains(&span) { Ok(span) } else { Err(format!("it is kept from {} to {}", Keep::SHORTEST, Keep::LONGEST)) }
}

fn name(text: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.@".contains(c));
    match fits {
        true => Ok(text.to_owned()),
        false => Err("a name is 1 to 64 of letters, digits, '-', '_', '.' and '@'".to_owned()),
    }
}
