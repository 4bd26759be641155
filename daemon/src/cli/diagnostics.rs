//! `whimbrel diagnostics`: one file to hand to whoever helps, without anything that is nobody's business.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    doctor,
    error::{CliError, ExitCode},
    look::{count, size},
    output::{Output, document},
    redact::Redaction,
    status,
};
use crate::{
    ambient::Ambient,
    config::{AppVersion, Config},
    control::protocol::{Reply, Request, Selector},
};

/// `schema` of the file.
pub const DIAGNOSTICS_SCHEMA: &str = "whimbrel.diagnostics/1";
/// Events that go into it.
const EVENTS: u32 = 500;

/// Write a file with everything that helps to find what is wrong
///
/// Status, the newest events, the doctor's checks, the configuration and the platform. It holds no tokens, no keys and no
/// rows; paths are cut to file names, and names of users and of this machine are taken out. It is JSON: read it before
/// you hand it on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
  0   written, also when the daemon is not running: the file says so
  1   it cannot be written
  77  not permitted")]
pub struct Args {
    /// Where to; - is stdout. It must not be there yet
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Written<'a> {
    file: &'a Path,
    size_bytes: u64,
    holds: &'a [String],
}

/// See [`Args`].
pub fn run(args: Args, out: &Output) -> Result<(), CliError> {
    let now_ms = Ambient::real().now_ms();
    let bundle = gather(out, now_ms);
    let holds = contents(&bundle);
    let text = document(DIAGNOSTICS_SCHEMA, &bundle)?;
    let file = match args.output {
        Some(file) if file.as_os_str() == "-" => return out.text(&text),
        Some(file) => file,
        None => PathBuf::from(format!("whimbrel-diagnostics-{}.json", out.look().moment(now_ms).replace([':', '-'], "").replace(' ', "-"))),
    };
    write(&file, &text).map_err(|e| {
        let exit = if e.kind() == io::ErrorKind::PermissionDenied { ExitCode::NotPermitted } else { ExitCode::Failed };
        CliError::new(exit, format!("{} cannot be written: {e}", file.display()), whimbrel_shared::remedy::here("name another file with -o FILE"))
    })?;
    if out.is_json() {
        return out.json("whimbrel.written/1", &Written { file: &file, size_bytes: text.len() as u64, holds: &holds });
    }
    out.text(&format!("{} ({})\n", file.display(), size(text.len() as u64)))?;
    holds.iter().for_each(|line| out.say(format!("  {line}")));
    out.say("no tokens, keys or rows; paths are cut to file names, names of users and of this machine are taken out");
    Ok(())
}

/// A new file that only its owner reads.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file)?.write_all(text.as_bytes())
}

fn gather(out: &Output, now_ms: i64) -> Value {
    let config = out.config();
    let (status, history) = match out.daemon() {
        Ok(mut daemon) => {
            let history = match daemon.ask(&Request::History { database: Selector(None), limit: EVENTS }) {
                Ok(Reply::History { events }) => value(&events),
                Ok(_) => Value::Null,
                Err(e) => json!({ "error": e.to_string() }),
            };
            let status = status::ask(&mut daemon).map_or_else(|e| json!({ "error": e.message }), |s| value(&s));
            (status, history)
        }
        Err(e) => (json!({ "error": e.message }), Value::Null),
    };
    let mut bundle = json!({
        "made_at_ms": now_ms,
        "whimbrel": env!("CARGO_PKG_VERSION"),
        "platform": { "os": std::env::consts::OS, "arch": std::env::consts::ARCH, "kernel": first_line("/proc/sys/kernel/osrelease"), "system": os_name() },
        "doctor": value(&doctor::checks(&out.config_file())),
        "status": status,
        "history": history,
        "config": config.as_ref().map_or_else(|e| json!({ "error": e.message }), settings),
    });
    redaction(config.as_ref().ok(), &bundle, &out.config_file()).value(&mut bundle);
    bundle
}

fn value(what: &impl Serialize) -> Value {
    serde_json::to_value(what).unwrap_or_else(|e| json!({ "error": e.to_string() }))
}

/// The configuration as it was understood.
fn settings(config: &Config) -> Value {
    let databases = config.databases.iter().map(|d| {
        let version = d.app_version.as_ref().map(|v| match v {
            AppVersion::Is(version) => json!(version),
            AppVersion::File { file } => json!({ "file": file }),
        });
        json!({ "path": d.path, "app": d.app, "create": d.create, "app_version": version, "app_sqlite": d.app_sqlite })
    });
    json!({
        "file": config.file,
        "server": config.server,
        "ca_file": config.ca_file,
        "state_dir": config.state_dir,
        "socket": config.socket,
        "trust": config.trust.as_str(),
        "parallel": config.parallel,
        "schedule": {
            "poll": config.schedule.poll,
            "window": config.schedule.window.as_ref().map(|w| json!({ "open": w.open, "for": w.length })),
        },
        "apply": { "max_attempts": config.apply.max_attempts, "grouping": config.apply.grouping, "wait_for_app": config.apply.wait_for_app },
        "databases": databases.collect::<Vec<_>>(),
        "labels": config.labels,
        "notify": config.notify,
    })
}

/// Everything that is known to say where and who.
fn redaction(config: Option<&Config>, bundle: &Value, config_file: &Path) -> Redaction {
    let text = |p: &Path| p.to_string_lossy().into_owned();
    let mut paths: Vec<String> = vec![text(config_file)];
    if let Ok(absolute) = std::path::absolute(config_file) {
        paths.extend(absolute.ancestors().map(text));
    }
    let mut known: Vec<PathBuf> = Vec::new();
    if let Some(c) = config {
        known.extend([c.state_dir.clone(), c.socket.clone()]);
        known.extend(c.ca_file.iter().chain(&c.notify).cloned());
        known.extend(c.databases.iter().map(|d| PathBuf::from(&d.path)));
        known.extend(c.databases.iter().filter_map(|d| match &d.app_version {
            Some(AppVersion::File { file }) => Some(file.clone()),
            Some(AppVersion::Is(_)) | None => None,
        }));
    }
    let databases = bundle["status"]["databases"].as_array().into_iter().flatten();
    known.extend(databases.filter_map(|d| Some(PathBuf::from(d["path"].as_str()?))));
    let home = std::env::var_os("HOME").map(PathBuf::from);
    known.extend(home.clone());
    // The directories above them too: a message may name one.
    paths.extend(known.iter().flat_map(|p| p.ancestors()).map(text));

    let names = ["USER", "LOGNAME", "SUDO_USER"].iter().filter_map(|v| std::env::var(v).ok());
    let home_name = home.and_then(|h| h.file_name().map(|n| n.to_string_lossy().into_owned()));
    let host = first_line("/proc/sys/kernel/hostname");
    Redaction::new(paths, names.chain(home_name).chain(host))
}

/// What is in it, for the person who hands it on.
fn contents(bundle: &Value) -> Vec<String> {
    let list = |v: &Value| v.as_array().map_or(0, Vec::len) as u64;
    vec![
        format!("doctor: {}", count(list(&bundle["doctor"]), "check")),
        format!(
            "status: {}",
            bundle["status"]["error"].as_str().map_or_else(|| count(list(&bundle["status"]["databases"]), "database"), str::to_owned)
        ),
        format!("history: {}", count(list(&bundle["history"]), "event")),
        format!("config: {}", bundle["config"]["error"].as_str().unwrap_or("as it was understood")),
        "platform and versions".to_owned(),
    ]
}

fn first_line(path: &str) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.lines().next()?.trim().to_owned())
}

/// Name of the distribution.
fn os_name() -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    Some(text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="))?.trim_matches('"').to_owned())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::{
        cli::{fixture, output::Color},
        control::fake,
    };

    #[test]
    fn the_bundle_holds_what_helps_and_nothing_that_is_nobodys_business() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.toml");
        let text = "trust = \"none\"\nstate_dir = \".\"\n[[database]]\npath = \"/var/lib/notes/*.db\"\napp = \"notes\"\n[labels]\nring = \"shop\"\n";
        std::fs::write(&config, text).unwrap();
        fake::serve(&dir.path().join("control.sock"), |request| match request {
            Request::History { .. } => vec![Reply::History { events: fixture::events() }],
            Request::Doctor => vec![Reply::Doctor { checks: fixture::checks() }],
            _ => vec![Reply::Status(Box::new(fixture::snapshot()))],
        });
        let bundle = gather(&Output::new(false, true, Color::Never, Some(config)), fixture::NOW_MS);
        let text = bundle.to_string();
        assert_eq!(bundle["status"]["databases"].as_array().unwrap().len(), 6);
        assert_eq!(bundle["history"].as_array().unwrap().len(), 5);
        assert_eq!(bundle["config"]["labels"]["ring"], "shop");
        assert_eq!(bundle["status"]["databases"][0]["path"], "…/a.db");
        for secret in ["/var/lib", dir.path().to_str().unwrap(), "/etc/whimbrel"] {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
    }

    #[test]
    fn without_a_daemon_the_bundle_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = gather(&Output::new(false, true, Color::Never, Some(dir.path().join("none.toml"))), 0);
        assert!(bundle["status"]["error"].is_string() && bundle["config"]["error"].is_string());
        assert!(!bundle.to_string().contains(dir.path().to_str().unwrap()));
    }
}
