//! A real server with a store of its own, and an operator's key to ask it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    bins,
    http::{self, Message},
    migrations::{self, Mig},
    net,
    process::Process,
};

/// Longest until it listens.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A running server.
pub struct Server {
    folder: PathBuf,
    addr: SocketAddr,
    namespace: Option<String>,
    /// An operator's key with every right.
    pub key: String,
    /// Its process.
    pub process: Process,
}

impl Server {
    /// Starts one with an empty store in `folder`.
    pub fn start(folder: &Path) -> Self {
        Self::launch(folder, None, "127.0.0.1:0")
    }

    /// Starts one in a network namespace.
    pub fn inside(folder: &Path, namespace: &str, listen: &str) -> Self {
        Self::launch(folder, Some(namespace.to_owned()), listen)
    }

    fn launch(folder: &Path, namespace: Option<String>, listen: &str) -> Self {
        let folder = folder.join("server");
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let key = secret(&folder, &["key", "create", "--scope", "admin"]);
        let (process, addr) = serve(&folder, namespace.as_deref(), listen);
        Self { folder, addr, namespace, key, process }
    }

    /// Stops it and starts it again at the same address.
    pub fn restart(&mut self) {
        self.process.stop();
        self.go_on();
    }

    fn go_on(&mut self) {
        let (process, _) = serve(&self.folder, self.namespace.as_deref(), &self.addr.to_string());
        self.process = process;
    }

    /// Stops it, and keeps a copy of its store as it is; then it goes on.
    pub fn copy_store(&mut self) -> PathBuf {
        let copy = self.folder.with_extension("copy");
        self.process.stop();
        copy_files(&self.folder, &copy);
        self.go_on();
        copy
    }

    /// Stops it, and goes on with a store that was kept before.
    pub fn put_store_back(&mut self, copy: &Path) {
        self.process.stop();
        files(&self.folder).iter().for_each(|file| std::fs::remove_file(file).expect("a file can be removed"));
        copy_files(copy, &self.folder);
        self.go_on();
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// An enrolment token that is good for many devices.
    pub fn token(&self, app: &str) -> String {
        self.token_for(app, 10_000)
    }

    /// An enrolment token that is good for so many devices.
    pub fn token_for(&self, app: &str, uses: u32) -> String {
        secret(&self.folder, &["token", "create", "--app", app, "--uses", &uses.to_string()])
    }

    /// Another operator's key, of a scope.
    pub fn key_for(&self, scope: &str) -> String {
        secret(&self.folder, &["key", "create", "--scope", scope])
    }

    /// The server's own command line, on its store.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(bins::server());
        command.args(args).args(["--store", &store(&self.folder)]);
        command
    }

    /// The store itself, for what takes days otherwise.
    pub fn store(&self) -> rusqlite::Connection {
        let store = rusqlite::Connection::open(self.folder.join("store.db")).expect("the server's store opens");
        store.busy_timeout(START_LIMIT).expect("a timeout can be set");
        store
    }

    /// One request with the operator's key.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Message {
        self.ask_as(&self.key, method, path, body)
    }

    /// One request with any key.
    #[track_caller]
    pub fn ask_as(&self, key: &str, method: &str, path: &str, body: &Value) -> Message {
        let headers = format!("X-API-Key: {key}\r\nContent-Type: application/json\r\n");
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let ask = || http::ask(self.addr, method, path, &headers, &body).unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        match &self.namespace {
            Some(namespace) => net::on(namespace, ask),
            None => ask(),
        }
    }

    /// One reading request that has to succeed.
    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, &Value::Null);
        assert_eq!(answer.status(), 200, "GET {path}: {}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    /// Publishes migrations as `whimbrel publish` does: read, linted, rehearsed, uploaded. Those that are there already
    /// have to be among them.
    #[track_caller]
    pub fn publish(&self, app: &str, chain: &[Mig]) {
        let folder = self.folder.join(format!("migrations-{app}"));
        let _ = std::fs::remove_dir_all(&folder);
        migrations::write(&folder, chain);
        self.publish_folder(app, &folder);
    }

    /// Publishes a folder.
    #[track_caller]
    pub fn publish_folder(&self, app: &str, folder: &Path) {
        let output = self.try_publish(app, folder);
        assert!(output.status.success(), "publish: {}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }

    /// Runs `whimbrel publish` on a folder.
    pub fn try_publish(&self, app: &str, folder: &Path) -> std::process::Output {
        self.try_publish_with(app, folder, &[])
    }

    /// Runs `whimbrel publish` on a folder, with more arguments.
    pub fn try_publish_with(&self, app: &str, folder: &Path, more: &[&str]) -> std::process::Output {
        let mut command = match &self.namespace {
            Some(namespace) => net::inside(namespace, &bins::whimbrel()),
            None => Command::new(bins::whimbrel()),
        };
        if self.namespace.is_some() {
            // There the server is reached by an address that is not loopback.
            command.arg("publish").arg("--insecure-http");
        } else {
            command.arg("publish");
        }
        command.arg(folder).args(["--app", app, "--server", &self.url()]).args(more).env("WHIMBREL_API_KEY", &self.key);
        command.output().expect("whimbrel starts")
    }

    /// Publishes as a publisher that checks nothing would: no lint, no rehearsal, no recorded schema. The chain has to be
    /// given whole.
    #[track_caller]
    pub fn publish_unchecked(&self, app: &str, chain: &[Mig]) {
        let answer = self.ask("POST", "/api/migrations", &migrations::request(app, chain));
        assert_eq!(answer.status(), 200, "publish: {}", String::from_utf8_lossy(&answer.body));
    }

    /// The targets metadata of an app, as devices get it.
    #[track_caller]
    pub fn get_repository(&self, app: &str) -> Vec<u8> {
        let answer = self.ask("GET", &format!("/repository/{app}/targets.json"), &Value::Null);
        assert_eq!(answer.status(), 200, "{}", String::from_utf8_lossy(&answer.body));
        answer.body
    }

    /// Orders how far the databases of an app may go.
    #[track_caller]
    pub fn plan(&self, app: &str, order: &Value) {
        let answer = self.ask("PUT", "/api/plan", &json!({ "app": app, "order": order }));
        assert_eq!(answer.status(), 200, "plan: {}", String::from_utf8_lossy(&answer.body));
    }

    /// Lets the databases of an app have nothing yet. Makes the app known.
    #[track_caller]
    pub fn plan_nothing(&self, app: &str) {
        self.token(app);
        self.plan(app, &json!({ "order": "apply_up_to", "version": 0 }));
    }

    /// Lets them have everything.
    #[track_caller]
    pub fn plan_all(&self, app: &str) {
        self.plan(app, &Value::Null);
    }

    /// Every database of an app.
    #[track_caller]
    pub fn clients(&self, app: &str) -> Vec<Value> {
        self.get(&format!("/api/clients?app={app}&limit=500"))["clients"].as_array().cloned().unwrap_or_default()
    }

    /// Every report of one database, newest first.
    #[track_caller]
    pub fn history(&self, client_id: &str) -> Vec<Value> {
        self.get(&format!("/api/clients/{client_id}"))["history"].as_array().cloned().unwrap_or_default()
    }

    /// Every report that the server's store holds of one database, in the order of arrival, from the store itself: the
    /// API shows pages.
    pub fn stored_reports(&self, client_id: &str) -> Vec<String> {
        let store = self.store();
        let mut statement = store.prepare("SELECT event_id FROM event WHERE client_id = ?1 ORDER BY seq").expect("the store has events");
        let ids = statement.query_map([client_id], |row| row.get(0)).and_then(Iterator::collect);
        ids.expect("the events are read")
    }

    /// Versions by name and status of one database, as the server knows them.
    #[track_caller]
    pub fn statuses(&self, client_id: &str) -> Vec<(String, String)> {
        let detail = self.get(&format!("/api/clients/{client_id}"));
        let list = detail["migrations"].as_array().cloned().unwrap_or_default();
        list.iter().map(|m| (text(&m["name"]), text(&m["status"]))).collect()
    }
}

fn serve(folder: &Path, namespace: Option<&str>, listen: &str) -> (Process, SocketAddr) {
    let mut command = match namespace {
        Some(namespace) => net::inside(namespace, &bins::server()),
        None => Command::new(bins::server()),
    };
    // The line it is waited for must be this start's.
    let _ = std::fs::remove_file(folder.join("server.out"));
    command.args(["serve", "--listen", listen, "--store", &store(folder)]);
    let mut process = Process::start(command, folder, "server");
    let line = process.line(START_LIMIT, "listening on ");
    let addr = line.trim().rsplit("http://").next().and_then(|a| a.parse().ok());
    (process, addr.unwrap_or_else(|| panic!("no address in {line:?}")))
}

fn store(folder: &Path) -> String {
    format!("sqlite:{}", folder.join("store.db").display())
}

/// Runs a command that prints a secret on its last line.
fn secret(folder: &Path, args: &[&str]) -> String {
    let output = Command::new(bins::server()).args(args).args(["--store", &store(folder)]).output().expect("whimbrel-server starts");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("a secret is text");
    text.lines().last().expect("it prints a secret").to_owned()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The files of a folder, without its folders.
fn files(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).expect("a folder can be read").map(|file| file.expect("it is there").path());
    files.filter(|path| path.is_file()).collect()
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder can be made");
    for file in files(from) {
        std::fs::copy(&file, to.join(file.file_name().expect("a file has a name"))).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
}
