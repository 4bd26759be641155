//! The configuration: one TOML file, then the environment, then flags, each stronger than the one before. Read once;
//! what comes out cannot be wrong.

mod control;
mod server;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::Deserialize;
use whimbrel_shared::{
    duration::Span,
    ids::AppName,
    remedy::{Remedy, here},
};

use self::server::check_proxy;
pub use self::{
    control::{Control, GroupMay},
    server::check_server,
};

/// Rotating costs a request, so not at every poll; and what was stolen should be of no use after a year at the latest.
const SHORTEST_ROTATION: Span = Span::from_millis(3_600_000);
const LONGEST_ROTATION: Span = Span::from_millis(365 * 86_400_000);

/// Everything that a device is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it was read from.
    pub file: PathBuf,
    /// The server, unless enrolment says it.
    pub server: Option<String>,
    /// A CA to trust instead of the system's, PEM.
    pub ca_file: Option<PathBuf>,
    /// A certificate of this device and its key, both PEM, for servers that ask for one.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// The proxy's address, or `none`; where it is not said, the environment's counts.
    pub proxy: Option<String>,
    /// Whether plain HTTP may lead to another machine.
    pub insecure_http: bool,
    /// How old the device's token becomes before the daemon takes a new one.
    pub rotate_token: Span,
    /// Where the daemon keeps its own things.
    pub state_dir: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// Who may talk to it, besides the daemon's user and root.
    pub control: Control,
    /// Who is believed.
    pub trust: Trust,
    /// The publishers' roots by app, for apps whose root was not pinned at enrolment.
    pub roots: BTreeMap<AppName, PathBuf>,
    /// More places that serve the server's repositories, without a slash at their end.
    pub mirrors: Vec<String>,
    /// Databases worked on at once.
    pub parallel: usize,
    /// When the server is asked, and when migrations may run.
    pub schedule: Schedule,
    /// Whether keys and messages of rows that failed go up with reports.
    pub report_values: bool,
    /// How migrations are run.
    pub apply: Apply,
    /// Where backups are kept, and how many.
    pub backup: Backup,
    /// The databases.
    pub databases: Vec<DatabaseRule>,
    /// For the server's rollouts.
    pub labels: BTreeMap<String, String>,
    /// Run when something failed or needs a person.
    pub notify: Option<PathBuf>,
}

/// Who is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// The server, whatever it says.
    None,
    /// The publisher, whose root is pinned: migrations run that are signed under it.
    Tuf,
}

impl Trust {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Tuf => "tuf",
        }
    }
}

/// When the server is asked, and when migrations may run.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Six fields, the first seconds; the device's time zone.
    pub poll: String,
    /// Migrations run only in it.
    pub window: Option<Window>,
}

/// A maintenance window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// When it opens: a cron expression like `poll`.
    pub open: String,
    /// How long it stays open.
    pub length: Span,
}

/// How migrations are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Apply {
    /// Crashes in a row without progress before a person is asked; 0: never.
    pub max_attempts: u32,
    /// Whether several small migrations may share a transaction.
    pub grouping: bool,
    /// How long the application is waited for before it is tried again later.
    pub wait_for_app: Span,
}

/// Where backups are kept, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// The directory; each database has one of its own in it.
    pub dir: PathBuf,
    /// Newest backups kept of each database.
    pub keep: u32,
}

/// One or more databases of one app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseRule {
    /// A path, or a pattern with `*`, `?` and `[…]`.
    pub path: String,
    /// Its app.
    pub app: AppName,
    /// The application's build.
    pub app_version: Option<AppVersion>,
    /// Version of the application's SQLite library.
    pub app_sqlite: Option<String>,
    /// Whether a plain path whose file is not there yet is made by its first migration.
    pub create: bool,
    /// How edits of tables that exchange rows are noted.
    pub capture: Capture,
}

/// How edits of tables that exchange rows are noted in the application's file (docs/sync.md).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capture {
    /// With the columns that changed. SQLite then refuses the application's own `DROP COLUMN`.
    #[default]
    Mask,
    /// With the key alone, so that the application can change its own schema.
    KeyOnly,
}

impl DatabaseRule {
    /// Whether `path` is a pattern.
    pub fn is_pattern(&self) -> bool {
        self.path.contains(['*', '?', '['])
    }
}

/// Where the application's build is read from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum AppVersion {
    /// As written.
    Is(String),
    /// The first line of a file.
    File {
        /// Which.
        file: PathBuf,
    },
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("the configuration {path} cannot be read: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what is expected.
    #[error("{path}: {message}")]
    Wrong {
        /// Which.
        path: PathBuf,
        /// With line, column and the keys that would be right.
        message: String,
        /// The nearest right key.
        nearest: Option<String>,
    },
}

impl ConfigError {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Unreadable { source, path } if source.kind() == std::io::ErrorKind::NotFound => {
                here(format!("write {}, or name another file with --config (docs/start.md has an example)", path.display()))
            }
            Self::Unreadable { .. } => here("let the daemon's user read it"),
            Self::Wrong { nearest: Some(nearest), .. } => here(format!("did you mean `{nearest}`?")),
            Self::Wrong { nearest: None, .. } => here("correct the file; nothing was started"),
        }
    }
}

/// Keys of the whole file, for naming the nearest one.
const KEYS: [&str; 48] = [
    "server",
    "ca_file",
    "state_dir",
    "socket",
    "control",
    "group",
    "group_may",
    "read",
    "operate",
    "insecure_http",
    "proxy",
    "client_cert",
    "client_key",
    "rotate_token",
    "trust",
    "roots",
    "mirrors",
    "parallel",
    "report_values",
    "schedule",
    "poll",
    "window",
    "open",
    "for",
    "apply",
    "max_attempts",
    "grouping",
    "wait_for_app",
    "backup",
    "dir",
    "keep",
    "database",
    "path",
    "app",
    "app_version",
    "app_sqlite",
    "create",
    "capture",
    "mask",
    "key-only",
    "file",
    "labels",
    "notify",
    "command",
    "none",
    "tuf",
    "true",
    "false",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    server: Option<String>,
    ca_file: Option<PathBuf>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
    proxy: Option<String>,
    #[serde(default)]
    insecure_http: bool,
    #[serde(default = "default_rotation")]
    rotate_token: Span,
    state_dir: Option<PathBuf>,
    socket: Option<PathBuf>,
    #[serde(default)]
    control: Control,
    trust: Option<Trust>,
    #[serde(default)]
    roots: BTreeMap<AppName, PathBuf>,
    #[serde(default)]
    mirrors: Vec<String>,
    #[serde(default = "default_parallel")]
    parallel: usize,
    #[serde(default)]
    report_values: bool,
    #[serde(default)]
    schedule: RawSchedule,
    #[serde(default)]
    apply: RawApply,
    #[serde(default)]
    backup: RawBackup,
    #[serde(default)]
    database: Vec<RawDatabase>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    notify: Option<RawNotify>,
}

fn default_parallel() -> usize {
    3
}

fn default_rotation() -> Span {
    Span::from_millis(30 * 86_400_000)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawSchedule {
    poll: String,
    window: Option<RawWindow>,
}

impl Default for RawSchedule {
    fn default() -> Self {
        Self { poll: "0 */5 * * * *".to_owned(), window: None }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWindow {
    open: String,
    #[serde(rename = "for")]
    length: Span,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawApply {
    max_attempts: u32,
    grouping: bool,
    wait_for_app: Span,
}

impl Default for RawApply {
    fn default() -> Self {
        Self { max_attempts: 3, grouping: true, wait_for_app: Span::from_millis(120_000) }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawBackup {
    dir: Option<PathBuf>,
    keep: u32,
}

impl Default for RawBackup {
    fn default() -> Self {
        Self { dir: None, keep: 3 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDatabase {
    path: String,
    app: AppName,
    app_version: Option<AppVersion>,
    app_sqlite: Option<String>,
    #[serde(default = "yes")]
    create: bool,
    #[serde(default)]
    capture: Capture,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNotify {
    command: PathBuf,
}

impl Config {
    /// Where the configuration is when nobody says: the user's, then the system's.
    pub fn default_file() -> PathBuf {
        let user = xdg("XDG_CONFIG_HOME", ".config").map(|d| d.join("whimbrel/config.toml"));
        match user {
            Some(file) if file.exists() => file,
            _ => PathBuf::from("/etc/whimbrel/config.toml"),
        }
    }

    /// Reads `file` and the environment. Relative paths in the file are relative to its directory.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|source| ConfigError::Unreadable { path: file.to_owned(), source })?;
        Self::parse(file, &text, |name| std::env::var(name).ok())
    }

    /// As [`Config::read`], from a text and any environment.
    pub fn parse(file: &Path, text: &str, env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let wrong = |message: String| ConfigError::Wrong { path: file.to_owned(), nearest: nearest(&message), message };
        let raw: Raw = toml::from_str(text).map_err(|e| wrong(e.to_string()))?;
        let base = std::path::absolute(file).ok().and_then(|f| f.parent().map(Path::to_owned)).unwrap_or_default();
        let absolute = |path: PathBuf| if path.is_absolute() { path } else { base.join(path) };

        let trust = raw.trust.ok_or_else(|| {
            wrong("`trust` is missing: it is \"tuf\" (what the publisher signed is run) or \"none\" (the server is believed whatever it says)".into())
        })?;
        let server = env("WHIMBREL_SERVER").or(raw.server).map(|s| s.trim_end_matches('/').to_owned());
        if let Some(server) = &server {
            check_server(server, raw.insecure_http).map_err(|e| wrong(format!("server: {e}")))?;
        }
        if let Some(proxy) = &raw.proxy {
            check_proxy(proxy).map_err(|e| wrong(format!("proxy = {proxy:?}: {e}")))?;
        }
        let client_cert = match (raw.client_cert, raw.client_key) {
            (Some(certificate), Some(key)) => Some((absolute(certificate), absolute(key))),
            (None, None) => None,
            (Some(_), None) => return Err(wrong("client_cert is set, and client_key is not: both belong together".to_owned())),
            (None, Some(_)) => return Err(wrong("client_key is set, and client_cert is not: both belong together".to_owned())),
        };
        if !(SHORTEST_ROTATION..=LONGEST_ROTATION).contains(&raw.rotate_token) {
            return Err(wrong(format!("rotate_token = \"{}\": it is {SHORTEST_ROTATION} to {LONGEST_ROTATION}", raw.rotate_token)));
        }
        let mirrors: Vec<String> = raw.mirrors.iter().map(|m| m.trim_end_matches('/').to_owned()).collect();
        for mirror in &mirrors {
            check_server(mirror, raw.insecure_http).map_err(|e| wrong(format!("mirrors: {mirror:?}: {e}")))?;
        }
        if trust == Trust::None && !(raw.roots.is_empty() && mirrors.is_empty()) {
            return Err(wrong("`roots` and `mirrors` are of no use with trust = \"none\": write trust = \"tuf\", or take them out".to_owned()));
        }
        let system = system_name(file);
        let state_dir = env("WHIMBREL_STATE_DIR")
            .map(PathBuf::from)
            .or(raw.state_dir)
            .map(absolute)
            .or_else(|| env("STATE_DIRECTORY").map(PathBuf::from))
            .or_else(|| system.as_ref().map(|name| Path::new("/var/lib/whimbrel").join(name)))
            .or_else(|| xdg("XDG_STATE_HOME", ".local/state").map(|d| d.join("whimbrel")))
            .ok_or_else(|| wrong("`state_dir` is missing, and neither XDG_STATE_HOME nor HOME is set".to_owned()))?;
        // A state directory that was chosen has its socket in it. The system's is where its unit has it, so that a command
        // finds it that was not started by systemd.
        let system_socket = system.filter(|name| state_dir == Path::new("/var/lib/whimbrel").join(name));
        let socket = raw.socket.map(absolute).unwrap_or_else(|| match system_socket {
            Some(name) => Path::new("/run/whimbrel").join(name).join("control.sock"),
            None => state_dir.join("control.sock"),
        });
        raw.control.check(&socket, &state_dir).map_err(wrong)?;
        if !(1..=64).contains(&raw.parallel) {
            return Err(wrong(format!("parallel = {}: it is 1 to 64", raw.parallel)));
        }
        if !(1..=1000).contains(&raw.backup.keep) {
            return Err(wrong(format!("backup.keep = {}: it is 1 to 1000", raw.backup.keep)));
        }
        let backup = Backup { dir: raw.backup.dir.map_or_else(|| state_dir.join("backups"), absolute), keep: raw.backup.keep };
        for (key, expression) in [("poll", Some(&raw.schedule.poll)), ("window.open", raw.schedule.window.as_ref().map(|w| &w.open))] {
            if let Some(expression) = expression {
                check_cron(expression).map_err(|e| wrong(format!("schedule.{key} = {expression:?}: {e}")))?;
            }
        }
        if raw.database.is_empty() {
            return Err(wrong("there is no [[database]]: name at least one `path` and its `app`".to_owned()));
        }
        let databases = raw
            .database
            .into_iter()
            .map(|d| {
                if d.path.is_empty() {
                    return Err(wrong("[[database]] has an empty `path`".to_owned()));
                }
                if let Some(version) = &d.app_sqlite
                    && Version::from_str(version).is_err()
                {
                    return Err(wrong(format!("app_sqlite = {version:?}: it is a version such as \"3.40.1\"")));
                }
                let path = if Path::new(&d.path).is_absolute() { d.path } else { base.join(&d.path).to_string_lossy().into_owned() };
                let app_version = d.app_version.map(|v| match v {
                    AppVersion::File { file } => AppVersion::File { file: absolute(file) },
                    AppVersion::Is(version) => AppVersion::Is(version),
                });
                Ok(DatabaseRule { path, app: d.app, app_version, app_sqlite: d.app_sqlite, create: d.create, capture: d.capture })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            file: file.to_owned(),
            server,
            ca_file: raw.ca_file.map(absolute),
            client_cert,
            proxy: raw.proxy,
            insecure_http: raw.insecure_http,
            rotate_token: raw.rotate_token,
            state_dir,
            socket,
            control: raw.control,
            trust,
            roots: raw.roots.into_iter().map(|(app, file)| (app, absolute(file))).collect(),
            mirrors,
            parallel: raw.parallel,
            report_values: raw.report_values,
            schedule: Schedule { poll: raw.schedule.poll, window: raw.schedule.window.map(|w| Window { open: w.open, length: w.length }) },
            apply: Apply { max_attempts: raw.apply.max_attempts, grouping: raw.apply.grouping, wait_for_app: raw.apply.wait_for_app },
            backup,
            databases,
            labels: raw.labels,
            notify: raw.notify.map(|n| absolute(n.command)),
        })
    }
}

/// The name of the system's daemon that reads `file`, as in its directories below /var/lib/whimbrel and /run/whimbrel:
/// `whimbrel@notes` reads /etc/whimbrel/notes.toml, and `whimbrel` reads config.toml. None for a file elsewhere.
fn system_name(file: &Path) -> Option<String> {
    let file = std::path::absolute(file).ok()?;
    if file.parent() != Some(Path::new("/etc/whimbrel")) || file.extension().is_none_or(|e| e != "toml") {
        return None;
    }
    let name = file.file_stem()?.to_str()?;
    Some(if name == "config" { "whimbrel" } else { name }.to_owned())
}

/// A cron expression as `tokio-cron-scheduler` reads it: six fields, the first seconds.
pub fn check_cron(expression: &str) -> Result<(), String> {
    crate::wake::cron::parse(expression).map(|_| ()).map_err(|e| format!("{e}; it has six fields: second minute hour day month weekday"))
}

/// The nearest right key, if the message names a wrong one and one is near.
fn nearest(message: &str) -> Option<String> {
    let wrong = message.split("unknown field `").nth(1).or_else(|| message.split("unknown variant `").nth(1))?.split('`').next()?;
    KEYS.iter()
        .map(|k| (strsim::damerau_levenshtein(wrong, k), *k))
        .filter(|(distance, k)| *distance <= 2 && distance < &k.len())
        .min()
        .map(|(_, k)| k.to_owned())
}

fn xdg(variable: &str, fallback: &str) -> Option<PathBuf> {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(|p| p.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|h| Path::new(&h).join(fallback)))
}

/// A dotted version for comparing: `2.10` is later than `2.9`, and `2.0-beta` is `2.0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(Vec<u64>);

impl FromStr for Version {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let core = text.trim().trim_start_matches(['v', 'V']).split(['-', '+', ' ']).next().unwrap_or_default();
        let mut parts =
            core.split('.').map(str::parse).collect::<Result<Vec<u64>, _>>().map_err(|_| format!("{text:?} is not a version such as 2.3.0"))?;
        while parts.last() == Some(&0) {
            parts.pop(); // 2.3 and 2.3.0 are the same
        }
        Ok(Self(parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "trust = \"none\"\nstate_dir = \"state\"\n[[database]]\npath = \"a.db\"\napp = \"notes\"\n";

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("/etc/whimbrel/config.toml"), text, |_| None)
    }

    #[test]
    fn the_least_configuration_is_enough() {
        let config = parse(LEAST).unwrap();
        assert_eq!(config.databases[0].path, "/etc/whimbrel/a.db");
        assert_eq!(config.socket, Path::new("/etc/whimbrel/state/control.sock"));
        assert_eq!((config.parallel, config.apply.max_attempts), (3, 3));
        assert_eq!(config.backup, Backup { dir: "/etc/whimbrel/state/backups".into(), keep: 3 });
        let elsewhere = parse(&format!("{LEAST}[backup]\ndir = \"/mnt/b\"\nkeep = 7\n")).unwrap();
        assert_eq!(elsewhere.backup, Backup { dir: "/mnt/b".into(), keep: 7 });
    }

    #[test]
    fn a_wrong_key_is_refused_with_its_line_and_the_nearest_right_one() {
        let error = parse(&LEAST.replace("state_dir", "state_dri")).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        assert_eq!(error.remedy(), here("did you mean `state_dir`?"));
        for bad in [
            "",
            "[[database]]\npath='a'\napp='b'",
            &LEAST.replace("none", "some"),
            &format!("mirrors = [\"https://b.example\"]\n{LEAST}"),
            &format!("mirrors = [\"ftp://b.example\"]\n{}", LEAST.replace("none", "tuf")),
            &LEAST.replace("notes", "No Tes"),
            &format!("server = \"http://example.com\"\n{LEAST}"),
            &format!("server = \"example.com\"\n{LEAST}"),
            &format!("client_cert = \"c.pem\"\n{LEAST}"),
            &format!("client_key = \"k.pem\"\n{LEAST}"),
            &format!("proxy = \"proxy.example:3128\"\n{LEAST}"),
            &format!("rotate_token = \"1m\"\n{LEAST}"),
            &format!("{LEAST}[control]\ngroup = \"admins\"\n"),
            &format!("{LEAST}[control]\ngroup_may = \"operate\"\n"),
            &format!("socket = \"/run/w/s\"\n{LEAST}[control]\ngroup = \"admins\"\ngroup_may = \"everything\"\n"),
            &format!("parallel = 0\n{LEAST}"),
            &format!("{LEAST}[schedule]\npoll = \"every now and then\"\n"),
            &format!("{LEAST}[backup]\nkeep = 0\n"),
            &format!("{LEAST}[schedule]\nwindow = {{ open = \"0 0 2 * * *\" }}\n"),
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_group_is_let_in_where_it_gets_to_the_socket() {
        let config = parse(&format!("socket = \"/run/w/s\"\n{LEAST}[control]\ngroup = \"admins\"\n")).unwrap();
        assert_eq!(config.control, Control { group: Some("admins".into()), group_may: GroupMay::Read });
        let error = parse(&format!("{LEAST}[control]\ngroup = \"admins\"\n")).unwrap_err().to_string();
        assert!(error.contains("set `socket`"), "{error}");
    }

    #[test]
    fn roots_lie_beside_the_configuration_and_mirrors_have_no_slash_at_their_end() {
        let text = format!("mirrors = [\"https://b.example/\"]\n{}[roots]\nnotes = \"notes.root.json\"\n", LEAST.replace("none", "tuf"));
        let config = parse(&text).unwrap();
        assert_eq!((config.trust, config.mirrors), (Trust::Tuf, vec!["https://b.example".to_owned()]));
        assert_eq!(config.roots[&"notes".parse().unwrap()], Path::new("/etc/whimbrel/notes.root.json"));
    }

    #[test]
    fn the_systems_daemon_is_found_by_its_configuration() {
        let at = |file: &str, more: &str, env: &[(&str, &str)]| {
            let text = format!("{more}\n{}", LEAST.replace("state_dir = \"state\"\n", ""));
            let env = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
            let config = Config::parse(Path::new(file), &text, env).unwrap();
            (config.state_dir.display().to_string(), config.socket.display().to_string())
        };
        let system = |name: &str| (format!("/var/lib/whimbrel/{name}"), format!("/run/whimbrel/{name}/control.sock"));
        assert_eq!(at("/etc/whimbrel/notes.toml", "", &[]), system("notes"));
        assert_eq!(at("/etc/whimbrel/config.toml", "", &[]), system("whimbrel"));
        // The daemon itself, as its unit starts it.
        assert_eq!(at("/etc/whimbrel/notes.toml", "", &[("STATE_DIRECTORY", "/var/lib/whimbrel/notes")]), system("notes"));
        assert_eq!(at("/etc/whimbrel/notes.toml", "state_dir = \"/var/lib/whimbrel/notes\"", &[]), system("notes"));
        assert_eq!(at("/etc/whimbrel/notes.toml", "socket = \"/run/s\"", &[]).1, "/run/s");
        assert_eq!(at("/etc/whimbrel/notes.toml", "state_dir = \"/srv/x\"", &[]), ("/srv/x".into(), "/srv/x/control.sock".into()));
        assert_eq!(at("/etc/whimbrel/notes.toml", "", &[("WHIMBREL_STATE_DIR", "/y")]), ("/y".into(), "/y/control.sock".into()));
        // Anywhere else it is the user's.
        for file in ["/home/a/.config/whimbrel/config.toml", "/etc/whimbrel/more/notes.toml", "/etc/whimbrel/notes.conf"] {
            let (state_dir, socket) = at(file, "", &[]);
            assert!(state_dir.ends_with("/whimbrel") && !state_dir.starts_with("/var/lib"), "{file}: {state_dir}");
            assert_eq!(socket, format!("{state_dir}/control.sock"));
        }
    }

    #[test]
    fn the_environment_is_stronger_than_the_file() {
        let text = format!("server = \"https://a.example\"\n{LEAST}");
        let config = Config::parse(Path::new("/x/c.toml"), &text, |n| (n == "WHIMBREL_SERVER").then(|| "http://127.0.0.1:1/".to_owned())).unwrap();
        assert_eq!(config.server.unwrap(), "http://127.0.0.1:1");
    }

    #[test]
    fn versions_compare_by_number() {
        let v = |t: &str| t.parse::<Version>().unwrap();
        assert!(v("2.10") > v("2.9.9") && v("2.3") == v("2.3.0") && v("v1.2-beta") == v("1.2"));
        assert!("two".parse::<Version>().is_err());
    }
}
