//! `device list`, `device revoke` and `audit`: who has a token, for how long, and what operators did.

use clap::{Args, Subcommand};
use whimbrel_shared::ids::DeviceId;

use super::{At, CliError, list};
use crate::{
    secrets::now_ms,
    store::{AuditEntry, DeviceInfo, DevicesPage, Page},
};

/// Devices read from the store at once.
const AT_ONCE: u32 = 500;
const DAY_MS: i64 = 86_400_000;
/// Who does what comes by no API key.
const COMMAND_LINE: &str = "command line";

#[derive(Subcommand)]
pub(super) enum DeviceCommand {
    /// List the devices, with the age of their tokens
    List {
        #[command(flatten)]
        at: At,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// End a device's tokens at once; it exchanges nothing until it is enrolled again
    Revoke {
        #[command(flatten)]
        at: At,
        /// Its id, as `device list` shows it
        id: DeviceId,
    },
}

/// What operators did, newest first
#[derive(Args)]
pub(super) struct Audit {
    #[command(flatten)]
    at: At,
    /// Only what is older than the entry of this number
    #[arg(long)]
    before: Option<i64>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn device(command: DeviceCommand) -> Result<(), CliError> {
    match command {
        DeviceCommand::List { at, json } => {
            let store = at.store.open()?;
            let (mut all, mut after) = (Vec::new(), None);
            loop {
                let page = store.devices(DevicesPage { after, limit: AT_ONCE }).await?;
                all.extend(page.devices);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            list(json, &all, device_line);
        }
        DeviceCommand::Revoke { at, id } => {
            at.store.open()?.revoke_device(id, COMMAND_LINE.to_owned(), now_ms()).await?;
            eprintln!("Device {id} is revoked: what it sends is refused, and it shows so in its status.");
            eprintln!("A new enrolment token (`token create`) lets it in again.");
        }
    }
    Ok(())
}

pub(super) async fn audit(args: Audit) -> Result<(), CliError> {
    let page = args.at.store.open()?.audit(Page { before: args.before, limit: args.limit }).await?;
    list(args.json, &page.entries, audit_line);
    if let Some(next) = page.next.filter(|_| !args.json) {
        eprintln!("There is more: --before {next}");
    }
    Ok(())
}

fn device_line(device: &DeviceInfo) -> String {
    let apps: Vec<&str> = device.apps.iter().map(|app| app.as_str()).collect();
    let days = |since: i64| now_ms().saturating_sub(since) / DAY_MS;
    let state = match device.revoked_at_ms {
        Some(at) => format!("revoked {} days ago", days(at)),
        None => format!("token {} days old, seen {} days ago", days(device.token_since_ms), days(device.last_seen_ms)),
    };
    format!("{} {:<24} {:<24} {state}", device.device_id, device.name, apps.join(","))
}

fn audit_line(entry: &AuditEntry) -> String {
    // Days and times are for who reads `--json`; here the order says enough.
    let minutes = now_ms().saturating_sub(entry.at_ms) / 60_000;
    format!("{:<8} {minutes:>8} min ago  {:<24} {:<16} {}", entry.seq, entry.actor, entry.action, entry.detail)
}
