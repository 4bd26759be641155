//! The applications of `examples/`, as they stand there, beside a real daemon: they wait for their schema, go on writing
//! while a migration runs under them, and see in their own file how their rows are exchanged.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use whimbrel_tests::{
    Mig, bins,
    device::one,
    process::{Process, code},
};

use crate::{SOON, pair, stage};

fn chain() -> Vec<Mig> {
    vec![
        Mig::up("0001_init", "CREATE TABLE note(id INTEGER PRIMARY KEY, title TEXT NOT NULL, body TEXT)")
            .toml("[sync.note]\nkeys = \"renumber\"\nconflict = \"merge\"\n"),
        Mig::up("0002_slug", "ALTER TABLE note ADD COLUMN slug TEXT").toml(
            "mode = \"online\"\n[[step]]\nsql = \"up.sql\"\n[[step]]\nbackfill = \"note\"\nset = \"slug = lower(title)\"\nwhere = \"slug IS NULL\"\n",
        ),
    ]
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the root").join("examples")
}

#[test]
fn the_python_example_survives_a_migration_and_sees_its_rows_exchanged() {
    let mut command = Command::new("python3");
    command.arg(examples().join("python/notes.py"));
    survives(command);
}

#[test]
fn the_node_example_survives_a_migration_and_sees_its_rows_exchanged() {
    let mut command = Command::new("node");
    command.arg(examples().join("node/notes.js")).env("NODE_PATH", better_sqlite3());
    survives(command);
}

/// Where it is installed: the tests of capture have it already, or it is done here, once below the build.
fn better_sqlite3() -> PathBuf {
    let folder = |name: &str| Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let is_there = |folder: &PathBuf| folder.join("node_modules/better-sqlite3/build/Release/better_sqlite3.node").exists();
    let own = folder("example-node");
    if let Some(found) = [folder("capture-drivers"), own.clone()].into_iter().find(is_there) {
        return found.join("node_modules");
    }
    std::fs::create_dir_all(&own).unwrap();
    std::fs::copy(examples().join("node/package.json"), own.join("package.json")).unwrap();
    let made = Command::new("npm").args(["install", "--no-package-lock", "--no-audit", "--no-fund"]).current_dir(&own).output();
    let made = made.expect("npm has to be installed (Debian: nodejs, npm, make, g++)");
    assert!(made.status.success() && is_there(&own), "better-sqlite3 could not be installed:\n{}", String::from_utf8_lossy(&made.stderr));
    own.join("node_modules")
}

fn survives(mut command: Command) {
    let stage = stage();
    let (server, device) = pair(&stage, "");
    server.publish("notes", &chain()[..1]);
    let mut daemon = device.start();
    let file = device.path("notes.db");
    command.arg(&file).env("WHIMBREL", bins::whimbrel()).env("WHIMBREL_CONFIG", device.config());
    let mut app = Process::start(command, device.folder(), "app");
    let said =
        |app: &mut Process, word: &str| -> Value { serde_json::from_str(&app.line(SOON, &format!("{word:?}"))).expect("it says JSON, a line each") };
    assert_eq!(said(&mut app, "ready")["version"], 1);
    said(&mut app, "writing");
    // What it writes goes up by itself, and it sees that in its own file.
    said(&mut app, "exchanged");
    server.publish("notes", &chain());
    daemon.poll();
    assert_eq!(said(&mut app, "migrated")["version"], 2);
    daemon.until_settled(SOON, 2);
    let status = app.stop();
    assert_eq!(code(status), 0, "{}{}", app.out(), app.log());
    let done = said(&mut app, "done");
    let written = done["written"].as_u64().expect("a number");
    assert!(written > 0 && done["standing"]["conflicts_open"] == 0 && done["conflicts"].as_array().is_some_and(Vec::is_empty), "{done}");
    assert_eq!(one::<i64>(&file, "SELECT count(*) FROM note").cast_unsigned(), written, "every write that was answered is there");
    // The last of them too, at the server, and both sides prove that they hold the same.
    let outcome = device.json(&["sync", "--verify"]);
    let table = &outcome["databases"][0]["compared"][0];
    assert!(table["name"] == "note" && table["keys"] == true && table["rows"] == serde_json::json!([written, written]), "{outcome:#}");
    assert_eq!(one::<u32>(&file, "SELECT unsent + unfolded FROM _whimbrel_sync"), 0);
    daemon.stop();
}
