//! A device: a configuration, a state folder, databases, and a real daemon that runs once or in the background.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use rusqlite::Connection;
use serde_json::Value;

use crate::{
    bins, net,
    process::{Process, code, unexpected_errors},
    wait::until,
};

/// Longest until a daemon answers `status`.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Longest that one command may take in a story.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// A device in a folder of its own.
pub struct Device {
    folder: PathBuf,
    server: Option<String>,
    trust: &'static str,
    /// Lines in front of the first table.
    top: Vec<String>,
    /// Everything after it, databases apart.
    tables: Vec<String>,
    databases: Vec<String>,
    env: Vec<(OsString, OsString)>,
    namespace: Option<String>,
}

impl Device {
    /// A device named `name` in the stage's folder, that speaks with the server at `url`. Its schedule never comes by
    /// itself, so that a story decides when it polls.
    pub fn new(stage: &Path, name: &str, url: &str) -> Self {
        let folder = stage.join(name);
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let device = Self {
            folder,
            server: Some(url.to_owned()),
            trust: "none",
            top: Vec::new(),
            tables: Vec::new(),
            databases: Vec::new(),
            env: Vec::new(),
            namespace: None,
        };
        device.polls("0 0 0 1 1 *")
    }

    /// A database: its path in the device's folder (or a pattern), and its app.
    pub fn database(self, path: &str, app: &str) -> Self {
        self.database_with(path, app, "")
    }

    /// As [`Device::database`], with more keys.
    pub fn database_with(mut self, path: &str, app: &str, more: &str) -> Self {
        self.databases.push(format!("[[database]]\npath = {path:?}\napp = {app:?}\n{more}\n"));
        self.written()
    }

    /// Believes publishers and nobody else.
    pub fn believing_signatures(mut self) -> Self {
        self.trust = "tuf";
        self.written()
    }

    /// A line of the file's first part, such as `parallel = 1`.
    pub fn setting(mut self, line: &str) -> Self {
        self.top.push(line.to_owned());
        self.written()
    }

    /// A whole table, such as `[apply]` with its keys.
    pub fn table(mut self, text: &str) -> Self {
        self.tables.retain(|t| t.lines().next() != text.lines().next());
        self.tables.push(text.to_owned());
        self.written()
    }

    /// When it polls.
    pub fn polls(self, cron: &str) -> Self {
        self.table(&format!("[schedule]\npoll = {cron:?}"))
    }

    /// An environment variable of its daemon and commands.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Lives in a network namespace.
    pub fn inside(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Leads to another server from its next start on.
    pub fn lead_to(&mut self, url: &str) {
        self.server = Some(url.to_owned());
        self.write_config();
    }

    fn written(self) -> Self {
        self.write_config();
        self
    }

    fn write_config(&self) {
        let server = self.server.as_ref().map(|s| format!("server = {s:?}\n")).unwrap_or_default();
        let text = format!(
            "{server}trust = {:?}\nstate_dir = \"state\"\n{}\n{}\n{}\n",
            self.trust,
            self.top.join("\n"),
            self.tables.join("\n"),
            self.databases.join("\n")
        );
        std::fs::write(self.config(), text).expect("the configuration can be written");
    }

    /// Where it lives.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its configuration.
    pub fn config(&self) -> PathBuf {
        self.folder.join("config.toml")
    }

    /// Its state folder.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// A file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes a database as the application would: in WAL mode, with these statements.
    pub fn make(&self, name: &str, sql: &str) -> PathBuf {
        self.make_in(name, "wal", sql)
    }

    /// As [`Device::make`], in another journal mode.
    pub fn make_in(&self, name: &str, journal_mode: &str, sql: &str) -> PathBuf {
        let path = self.path(name);
        let file = Connection::open(&path).expect("a database can be made");
        file.pragma_update(None, "journal_mode", journal_mode).expect("a journal mode can be chosen");
        file.execute_batch(sql).expect("the application's own statements are right");
        path
    }

    /// The command line, with this device's configuration.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = match &self.namespace {
            Some(namespace) => net::inside(namespace, &bins::whimbrel()),
            None => Command::new(bins::whimbrel()),
        };
        for name in ["WHIMBREL_SERVER", "WHIMBREL_STATE_DIR", "WHIMBREL_TOKEN", "WHIMBREL_CONFIG", "NOTIFY_SOCKET", "STATE_DIRECTORY"] {
            command.env_remove(name);
        }
        command.arg("--config").arg(self.config()).args(args).env("HOME", &self.folder).envs(self.env.iter().map(|(n, v)| (n, v)));
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Outcome {
        let begun = Instant::now();
        let output = self.command(args).output().expect("whimbrel starts");
        assert!(begun.elapsed() < COMMAND_LIMIT, "{args:?} took {:?}", begun.elapsed());
        Outcome::of(args, &output)
    }

    /// Runs a command that has to succeed, and gives what it printed as JSON.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let outcome = self.run(&[args, &["--json"]].concat());
        assert_eq!(outcome.code, 0, "{outcome}");
        outcome.json()
    }

    /// Enrols it.
    #[track_caller]
    pub fn enroll(&self, token: &str) {
        let url = self.server.as_deref().expect("an enrolling device has a server");
        let outcome = self.run(&["enroll", url, "--token", token]);
        assert_eq!(outcome.code, 0, "{outcome}");
    }

    /// One cycle.
    #[track_caller]
    pub fn once(&self) -> Outcome {
        self.run(&["run", "--once"])
    }

    /// One cycle that has to end well, without an ERROR in its log.
    #[track_caller]
    pub fn once_well(&self) -> Outcome {
        let outcome = self.once();
        assert_eq!(outcome.code, 0, "{outcome}");
        let errors = unexpected_errors(&outcome.stderr, &[]);
        assert!(errors.is_empty(), "{outcome}");
        outcome
    }

    /// One cycle that may find nothing to do yet.
    #[track_caller]
    pub fn once_well_or_waiting(&self) -> Outcome {
        let outcome = self.once();
        assert!([0, 3].contains(&outcome.code), "{outcome}");
        outcome
    }

    /// A command that ends with "something waits", and says for what.
    #[track_caller]
    pub fn once_is_waiting(&self, args: &[&str], words: &[&str]) {
        self.run(args).says(3, words);
    }

    /// One cycle in the background, for killing.
    pub fn once_in_background(&self) -> Process {
        Process::start(self.command(&["run", "--once"]), &self.folder, "once")
    }

    /// The daemon, once it answers.
    #[track_caller]
    pub fn start(&self) -> Daemon<'_> {
        let mut daemon = Daemon { device: self, process: Process::start(self.command(&["run"]), &self.folder, "daemon") };
        until(START_LIMIT, "the daemon answers", || {
            if let Some(status) = daemon.process.ended() {
                panic!("the daemon ended with {status}:\n{}", daemon.process.log());
            }
            self.try_status()
        });
        daemon
    }

    /// What the daemon answers to `status --json`, if it does.
    pub fn try_status(&self) -> Option<Value> {
        self.ask_status().ok()
    }

    fn ask_status(&self) -> Result<Value, Box<Outcome>> {
        let outcome = self.run(&["status", "--json"]);
        // An error is a document too.
        let status = serde_json::from_str(&outcome.stdout).ok().filter(|s: &Value| s["daemon"].is_object());
        status.ok_or_else(|| Box::new(outcome))
    }
}

/// A daemon in the background.
pub struct Daemon<'d> {
    device: &'d Device,
    /// Its process.
    pub process: Process,
}

impl Daemon<'_> {
    /// What it answers to `status --json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.device.ask_status().unwrap_or_else(|outcome| panic!("the daemon does not answer: {outcome}\nlog:\n{}", self.process.log()))
    }

    /// Waits until something is found in its status.
    #[track_caller]
    pub fn until<T>(&mut self, limit: Duration, what: &str, mut look: impl FnMut(&Value) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            let status = self.status();
            if let Some(found) = look(&status) {
                return found;
            }
            if let Some(ended) = self.process.ended() {
                panic!("the daemon ended with {ended} before {what}:\n{}", self.process.log());
            }
            assert!(begun.elapsed() < limit, "waited {limit:?} in vain: {what}; status:\n{status:#}\nlog:\n{}", self.process.log());
        }
    }

    /// Waits until every database is at `version`, nothing is pending and every report is sent.
    #[track_caller]
    pub fn until_settled(&mut self, limit: Duration, version: u32) {
        self.until(limit, &format!("settled at version {version}"), |status| {
            (at(status, version) && status["server"]["reports_unsent"] == 0).then_some(())
        });
    }

    /// Waits until every database is at `version`, whether reported or not.
    #[track_caller]
    pub fn until_at(&mut self, limit: Duration, version: u32) {
        self.until(limit, &format!("version {version}"), |status| at(status, version).then_some(()));
    }

    /// Asks it to look at the server now.
    pub fn poll(&self) {
        // A person's way to do it; its outcome does not matter here.
        let _ = self.device.command(&["apply", "--no-wait"]).output();
    }

    /// Stops it as systemd would.
    #[track_caller]
    pub fn stop(mut self) {
        let status = self.process.stop();
        assert_eq!(code(status), 0, "the daemon stopped with {status}:\n{}", self.process.log());
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.process.kill();
    }
}

/// The one database of a status; null before it was looked at.
#[track_caller]
pub fn only(status: &Value) -> &Value {
    let list = status["databases"].as_array().unwrap_or_else(|| panic!("no databases in {status:#}"));
    assert!(list.len() <= 1, "{status:#}");
    &status["databases"][0]
}

/// Whether every database is at `version`.
pub fn at(status: &Value, version: u32) -> bool {
    status["databases"].as_array().is_some_and(|l| !l.is_empty() && l.iter().all(|d| d["version"] == version))
}

/// How a command ended and what it said.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was run.
    pub command: String,
    /// Exit code; negative for a signal.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it said beside.
    pub stderr: String,
}

impl Outcome {
    /// What a command came to.
    pub fn of(args: &[&str], output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            command: format!("whimbrel {}", args.join(" ")),
            code: code(output.status),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Everything it said.
    pub fn said(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }

    /// What it printed, as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self}"))
    }

    /// Asserts its exit code and that it says all of these, whatever the case of the letters.
    #[track_caller]
    pub fn says(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code, code, "{self}");
        let said = self.said().to_lowercase();
        for word in words {
            assert!(said.contains(&word.to_lowercase()), "{word:?} is not in what it said: {self}");
        }
        self
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` ended with {}\nstdout:\n{}\nstderr:\n{}", self.command, self.code, self.stdout, self.stderr)
    }
}

/// One value of a managed file, as the application would read it.
#[track_caller]
pub fn one<T: rusqlite::types::FromSql>(database: &Path, sql: &str) -> T {
    let file = Connection::open(database).expect("the database opens");
    file.busy_timeout(Duration::from_secs(10)).expect("a timeout can be set");
    file.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// A column of a managed file.
#[track_caller]
pub fn list(database: &Path, sql: &str) -> Vec<String> {
    let file = Connection::open(database).expect("the database opens");
    file.busy_timeout(Duration::from_secs(10)).expect("a timeout can be set");
    let mut statement = file.prepare(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).and_then(Iterator::collect);
    rows.unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// The id that a managed file has.
#[track_caller]
pub fn client_id(database: &Path) -> String {
    one(database, "SELECT value FROM _whimbrel_meta WHERE key = 'client_id'")
}
