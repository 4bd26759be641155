//! The demonstration: a real server, a real daemon, and an application that writes into its database all the while.
//! Three migrations are published, the wire is cut, they are applied, the wire is mended, and the outcome is reported. Then
//! two devices edit the same rows offline, across the rename of a column, and come to the same.
//!
//! `cargo run --release --bin demo`; with `-- --once` it ends by itself, with `--built` it builds nothing first.

mod rows;

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rusqlite::Connection;
use serde_json::Value;
use whimbrel_tests::{
    App, Daemon, Device, Mig, Server, Wire, bins,
    device::{client_id, list, one, only},
    migrations,
    publisher::{PASSPHRASE, Publisher},
    until,
};

const ROWS: u32 = 20_000;
const LIMIT: Duration = Duration::from_secs(60);

fn main() {
    let asked = |flag: &str| std::env::args().any(|a| a == flag);
    let once = asked("--once");
    let signals = signals();
    if !asked("--built") {
        bins::build();
    }

    let folder = tempfile::Builder::new().prefix("whimbrel-demo-").tempdir().expect("a temporary folder can be made");
    let stage = folder.path();
    title("Whimbrel: schema migrations for databases on machines that are often offline");
    say(&format!("Everything happens on this machine, in {}.", stage.display()));

    title("1. A server, and an application with its own database");
    let server = Server::start(stage);
    say(&format!("The server listens on {}. It has no migrations yet.", server.url()));
    let wire = Wire::to(server.addr());
    let device = Device::new(stage, "device", &wire.url()).database("notes.db", "notes").polls("*/2 * * * * *");
    let notes = device.make("notes.db", &make_notes());
    let app = App::writing(&notes, "note", 5, 5_000);
    say(&format!("{} has {ROWS} notes. Another process holds it open and adds a note every 5 ms;", notes.display()));
    say("it knows nothing of Whimbrel, and is not going to be stopped.");

    title("2. A daemon beside it");
    device.enroll(&server.token("notes"));
    let mut daemon = device.start();
    daemon.until(LIMIT, "the first exchange", |s| (s["server"]["state"] == "online").then_some(()));
    say("Enrolled with a token and started. So that you can see each part, a person holds the database for now:");
    run(&device, &["hold"]);

    title("3. Publish three migrations");
    let chain = chain();
    let source = stage.join("migrations");
    migrations::write(&source, &chain);
    for mig in &chain {
        say(&format!("{}/up.sql", mig.name));
        mig.up.lines().for_each(|l| say(&format!("    {}", l.trim())));
    }
    publish(&server, "notes", &source);
    daemon.until(LIMIT, "three are accepted", |s| (only(s)["latest"] == 3).then_some(()));
    say("The daemon has fetched all three, checked them, and keeps them.");

    title("4. Cut the wire, and apply");
    wire.cut();
    let begun = Instant::now();
    run(&device, &["release"]);
    daemon.until_at(LIMIT, 3);
    say(&format!("Applied without a server, {:.0?} after the release:", begun.elapsed()));
    show_file(&notes);
    daemon.until(LIMIT, "it has noticed that it is offline", |s| (s["server"]["state"] == "offline").then_some(()));
    let unsent = daemon.status()["server"]["reports_unsent"].clone();
    say(&format!("The server is not reachable; {unsent} reports wait for it. `whimbrel status` says so:"));
    run(&device, &["status"]);

    title("5. Mend the wire");
    wire.mend();
    let begun = Instant::now();
    daemon.until_settled(LIMIT, 3);
    say(&format!("Reported {:.1?} later. What the server knows of this database now:", begun.elapsed()));
    show_server(&server, &client_id(&notes));

    title("6. And the application?");
    let count = app.stop();
    say(&format!(
        "It wrote {} notes, and {} of its writes failed. p99 {:.1} ms, the longest {:.1} ms.",
        count["done"],
        count["errors"].as_array().map_or(0, Vec::len),
        micros(&count["p99_us"]),
        micros(&count["max_us"])
    ));
    let rows: u32 = one(&notes, "SELECT count(*) FROM note");
    say(&format!("{ROWS} + {} = {rows} notes in the file: none lost, none twice.", count["done"]));
    assert_eq!(u64::from(rows), u64::from(ROWS) + count["done"].as_u64().unwrap_or(0));
    assert_eq!(count["errors"].as_array().map(Vec::len), Some(0), "{count}");

    rows::show(stage, &server);

    title("The status in the end");
    run(&device, &["status"]);
    if !once {
        invite(&server, &device, &source, &signals);
    }
    end(daemon, server);
}

fn make_notes() -> String {
    format!(
        "CREATE TABLE person(id INTEGER PRIMARY KEY, name TEXT NOT NULL);
         CREATE TABLE note(id INTEGER PRIMARY KEY, person_id INTEGER DEFAULT 1 REFERENCES person(id) ON DELETE CASCADE, body TEXT);
         INSERT INTO person VALUES (1, 'Ada'), (2, 'Grace'), (3, 'Edsger');
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
         INSERT INTO note(person_id, body) SELECT 1 + i % 3, 'note number ' || i FROM n;"
    )
}

/// The first migration finds what the application made before; a publisher rehearses it on an empty database.
fn chain() -> Vec<Mig> {
    vec![
        Mig::up(
            "0001_begin",
            "CREATE TABLE IF NOT EXISTS person(id INTEGER PRIMARY KEY, name TEXT NOT NULL);\nCREATE TABLE IF NOT EXISTS note(id INTEGER PRIMARY KEY, person_id INTEGER DEFAULT 1 REFERENCES person(id) ON DELETE CASCADE, body TEXT);\n",
        ),
        Mig::up(
            "0002_slugs",
            "ALTER TABLE note ADD COLUMN slug TEXT;\nUPDATE note SET slug = lower(replace(body, ' ', '-'));\nCREATE INDEX note_slug ON note(slug);\n",
        ),
        // Every note refers to a person with ON DELETE CASCADE: done carelessly, this wipes them all.
        Mig::up(
            "0003_rebuild_person",
            "PRAGMA foreign_keys=OFF;\nCREATE TABLE person_new(id INTEGER PRIMARY KEY, name TEXT NOT NULL COLLATE NOCASE UNIQUE, mail TEXT);\nINSERT INTO person_new(id, name) SELECT id, name FROM person;\nDROP TABLE person;\nALTER TABLE person_new RENAME TO person;\nPRAGMA foreign_keys=ON;\n",
        ),
    ]
}

/// Where a publisher keeps their keys.
fn keys(source: &Path, app: &str) -> PathBuf {
    source.with_file_name(format!("keys-{app}"))
}

fn publish(server: &Server, app: &str, source: &Path) {
    let publisher = Publisher::new(&keys(source, app), server, app);
    if !publisher.folder.join("ci.pem").exists() {
        say("Two keys are made: one signs which keys count (the root), the other signs migrations. From here on the server takes nothing unsigned.");
        for line in
            ["create root.pem", "create ci.pem", &format!("root --app {app} … --out root.json"), "sign root.json --key root.pem", "upload root.json"]
        {
            println!("  $ whimbrel keys {line}");
        }
        publisher.begin();
    }
    println!("\n  $ whimbrel publish migrations --app {app} --server {} --key ci.pem", server.url());
    let output = publisher.run(&["publish", &source.display().to_string(), "--app", app, "--key", "ci.pem"]);
    print(&[output.stdout, output.stderr].concat());
    assert!(output.status.success(), "publishing failed");
}

fn run(device: &Device, args: &[&str]) {
    println!("\n  $ whimbrel {}", args.join(" "));
    let output = device.command(args).output().expect("whimbrel starts");
    print(&[output.stdout, output.stderr].concat());
}

fn show_file(notes: &Path) {
    let columns = |table: &str| list(notes, &format!("SELECT name FROM pragma_table_info('{table}') ORDER BY cid")).join(", ");
    say(&format!("note({}), person({})", columns("note"), columns("person")));
    let slug: String = one(notes, "SELECT slug FROM note WHERE id = 7");
    say(&format!("note 7 has the slug {slug:?}, and {} of {ROWS} old notes still have their person.", {
        let file = Connection::open(notes).expect("the database opens");
        let sql = format!("SELECT count(*) FROM note JOIN person ON person.id = person_id WHERE note.id <= {ROWS}");
        file.query_row(&sql, [], |row| row.get::<_, u32>(0)).expect("the notes can be counted")
    }));
}

fn show_server(server: &Server, id: &str) {
    let detail = server.get(&format!("/api/clients/{id}"));
    for migration in detail["migrations"].as_array().into_iter().flatten() {
        say(&format!("    {:<22} {}", migration["name"].as_str().unwrap_or_default(), migration["status"].as_str().unwrap_or_default()));
    }
    for event in detail["history"].as_array().into_iter().flatten() {
        let word = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        say(&format!("    {:<10} {:<22} attempt {}, asked by {}", word("kind"), word("migration"), event["attempt"], word("by")));
    }
}

fn invite(server: &Server, device: &Device, source: &Path, signals: &libc::sigset_t) {
    title("Your turn");
    say("Server and daemon go on. In another terminal:");
    let config = device.config();
    println!("    whimbrel=\"{} --config {}\"", bins::whimbrel().display(), config.display());
    println!("    $whimbrel status; $whimbrel history; $whimbrel plan; $whimbrel doctor");
    println!("    export WHIMBREL_API_KEY={} WHIMBREL_KEY_PASSPHRASE='{PASSPHRASE}'", server.key);
    let key = keys(source, "notes").join("ci.pem");
    println!("    $whimbrel publish {} --app notes --server {} --key {}", source.display(), server.url(), key.display());
    say("Add a folder 0004_… with an up.sql to the migrations, publish, and watch `$whimbrel watch`. Ctrl-C ends it all.");
    wait_for_signal(signals);
    println!();
}

fn end(daemon: Daemon<'_>, mut server: Server) {
    daemon.stop();
    server.process.stop();
    until(LIMIT, "the server ends", || server.process.ended());
    say("Done.");
}

fn title(text: &str) {
    if std::io::stdout().is_terminal() { println!("\n\x1b[1m{text}\x1b[0m") } else { println!("\n== {text}") }
}

fn say(text: &str) {
    println!("  {text}");
}

fn print(bytes: &[u8]) {
    String::from_utf8_lossy(bytes).lines().for_each(|line| println!("    {line}"));
}

fn micros(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0) / 1000.0
}

/// SIGINT and SIGTERM.
fn signals() -> libc::sigset_t {
    // SAFETY: plain system calls on a set made here.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGINT);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        set
    }
}

/// Ctrl-C before this ends everything at once, as ever: the children die with their parent.
fn wait_for_signal(set: &libc::sigset_t) {
    // SAFETY: plain system calls on a set that is alive.
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, set, std::ptr::null_mut());
        let mut signal = 0;
        libc::sigwait(set, &raw mut signal);
    }
}
