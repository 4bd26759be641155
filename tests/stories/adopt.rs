//! A database with a past is taken over, and nothing of it runs twice; so is the queue of the seed systems.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rusqlite::Connection;
use serde_json::{Value, json};
use whimbrel_tests::{
    Device, Mig, Server,
    device::{at, client_id, list, one, only},
    seed_server::FakeSeedServer,
};

use crate::{SOON, pair, stage};

/// The fixtures, and whether their migrations lie in the tool's own layout or, being code there, in a chain beside it.
const TOOLS: [&str; 18] = [
    "alembic",
    "dbmate",
    "diesel",
    "django",
    "drizzle",
    "flyway",
    "golang-migrate",
    "goose",
    "knex",
    "liquibase",
    "prisma",
    "rails",
    "refinery",
    "room",
    "seed",
    "sqlx",
    "typeorm",
    "user_version",
];

fn fixture(tool: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/trackers").join(tool)
}

fn sql(tool: &str) -> String {
    fs::read_to_string(fixture(tool).join("database.sql")).expect("the fixture is there")
}

/// The migrations of a tool as its project has them; with `next`, also the one that was written since.
fn migrations(stage: &Path, tool: &str, next: bool) -> PathBuf {
    let folder = stage.join(format!("{tool}-{next}"));
    let chain = fixture(tool).join("chain");
    copy(&if chain.is_dir() { chain } else { fixture(tool).join("migrations") }, &folder);
    if next {
        copy(&fixture(tool).join("next"), &folder);
    }
    for entry in fs::read_dir(&folder).expect("it was made").flatten() {
        // Migrations in code beside the SQL of the same name are not what is published.
        if ["py", "rb", "js"].iter().any(|e| entry.path().extension().is_some_and(|x| x == *e)) {
            fs::remove_file(entry.path()).expect("it is ours");
        }
    }
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("the fixture is there").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file can be copied");
        }
    }
}

/// Every row of every table that is neither ours nor the chain's.
fn foreign(file: &Path) -> Vec<String> {
    let tables = list(
        file,
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '\\_whimbrel%' ESCAPE '\\' AND name NOT IN ('notes', 'tags') ORDER BY 1",
    );
    let connection = Connection::open(file).expect("the database opens");
    let mut rows = Vec::new();
    for table in tables {
        let mut statement = connection.prepare(&format!("SELECT * FROM \"{table}\"")).expect("the table is there");
        let columns = statement.column_count();
        let mut found = statement.query([]).expect("the table is read");
        while let Some(row) = found.next().expect("the table is read") {
            let values: Vec<_> = (0..columns).map(|i| row.get::<_, rusqlite::types::Value>(i).expect("a column is read")).collect();
            rows.push(format!("{table}: {values:?}"));
        }
    }
    rows
}

fn view<'a>(status: &'a Value, tool: &str) -> &'a Value {
    let databases = status["databases"].as_array().expect("databases");
    databases.iter().find(|d| d["app"] == tool).unwrap_or_else(|| panic!("{tool} is not there: {status:#}"))
}

#[test]
fn what_another_tool_migrated_goes_on_with_the_next_migration_and_nothing_runs_twice() {
    let stage = stage();
    let server = Server::start(stage.path());
    let mut device = Device::new(stage.path(), "device", &server.url());
    for tool in TOOLS {
        device = device.database(&format!("{tool}.db"), tool);
        device.make(&format!("{tool}.db"), &sql(tool));
        server.publish_folder(tool, &migrations(stage.path(), tool, false));
        // What it counts proves nothing before a person looks: without this the chain would begin at its first migration.
        if tool == "user_version" {
            server.plan_nothing(tool);
        }
        device.enroll(&server.token(tool));
    }
    let before: Vec<_> = TOOLS.iter().map(|tool| foreign(&device.path(&format!("{tool}.db")))).collect();

    let mut daemon = device.start();
    daemon.until(SOON, "every chain is there", |s| {
        let chains = s["databases"].as_array()?.iter().filter(|d| d["latest"] == 2).count();
        (chains == TOOLS.len()).then_some(())
    });
    daemon.poll();
    for tool in TOOLS.into_iter().filter(|t| *t != "user_version") {
        let said = daemon.until(SOON, "it waits to be adopted", |s| {
            let health = view(s, tool)["health"].to_string();
            health.contains("adopt_first").then_some(health)
        });
        assert!(said.contains("nothing is run until they are taken over"), "{tool}: {said}");
    }
    let status = device.json(&["adopt", "status"]);
    for tool in TOOLS {
        assert_eq!(view(&status, tool)["would"]["version"], 2, "{tool}: {:#}", view(&status, tool));
    }

    let run = device.run(&["adopt", "run"]);
    assert_eq!(run.code, 0, "{run}");
    assert!(at(&daemon.status(), 2), "{run}");
    let again = device.run(&["adopt", "run"]);
    again.says(0, &["nothing was to be taken over"]);

    for tool in TOOLS {
        server.publish_folder(tool, &migrations(stage.path(), tool, true));
        server.plan_all(tool);
    }
    daemon.poll();
    daemon.until_settled(SOON, 3);
    for (tool, before) in TOOLS.iter().zip(before) {
        let file = device.path(&format!("{tool}.db"));
        assert_eq!(list(&file, "SELECT body || ' ' || done FROM notes"), ["first 0"], "{tool}");
        assert_eq!(foreign(&file), before, "{tool}: the tool's own tables were changed");
        assert_eq!(list(&file, "SELECT status FROM _whimbrel_status ORDER BY version"), ["skipped", "skipped", "completed"], "{tool}");
        let told = server.statuses(&client_id(&file));
        assert_eq!(told.iter().map(|(_, status)| status.as_str()).collect::<Vec<_>>(), ["skipped", "skipped", "completed"], "{tool}: {told:?}");
    }
    daemon.stop();
}

fn chain() -> Vec<Mig> {
    vec![
        Mig::up("0001_notes", "CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT NOT NULL);").down("DROP TABLE notes;"),
        Mig::up("0002_tags", "CREATE TABLE tags(tag TEXT PRIMARY KEY);").down("DROP TABLE tags;"),
        Mig::up("0003_done", "ALTER TABLE notes ADD COLUMN done INTEGER NOT NULL DEFAULT 0;").down("ALTER TABLE notes DROP COLUMN done;"),
    ]
}

#[test]
fn without_a_tracker_the_schema_says_where_a_database_stands() {
    let stage = stage();
    let (server, device) = pair(
        &stage,
        "CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT NOT NULL); CREATE TABLE \"tags\" (tag TEXT PRIMARY KEY); CREATE TABLE own(x)",
    );
    server.plan_nothing("notes");
    server.publish("notes", &chain());
    let mut daemon = device.start();
    daemon.until(SOON, "the chain is there", |s| (only(s)["latest"] == 3).then_some(()));
    assert_eq!(device.json(&["adopt", "status"])["databases"][0]["would"], json!({ "version": 2, "by": "schema", "notes": [] }));
    device.run(&["adopt", "run", "notes.db"]).says(0, &["version 0 → 2"]);
    server.plan_all("notes");
    daemon.poll();
    daemon.until_settled(SOON, 3);
    // Nothing was run for the first two: their events say so, by whom, and what the schema was.
    let mut history = server.history(&client_id(&device.path("notes.db")));
    history.reverse();
    let said: Vec<_> = history.iter().take(2).map(|e| (e["kind"].clone(), e["status"].clone(), e["by"].clone())).collect();
    assert_eq!(said, vec![(json!("skipped"), json!("skipped"), json!("person")); 2]);
    assert!(history[1]["fingerprint"].is_string() && history[0]["fingerprint"].is_null(), "{history:#?}");
    device.run(&["adopt", "run", "notes.db"]).says(1, &["whimbrel's own already, up to version 3"]);
    device.run(&["adopt", "rollback", "notes.db"]).says(1, &["0003_done (version 3) ran after it was adopted at version 2", "revert --to 2"]);
    // What was adopted, then reverted and run again, is no part of the past any more.
    assert_eq!(device.run(&["revert", "--to", "1", "--yes"]).code, 0);
    assert_eq!(device.run(&["release"]).code, 0);
    daemon.until_settled(SOON, 3);
    assert_eq!(device.run(&["revert", "--to", "2", "--yes"]).code, 0);
    device.run(&["adopt", "rollback", "notes.db"]).says(1, &["0002_tags (version 2) ran after", "revert --to 1"]);
    daemon.stop();
}

#[test]
fn a_schema_that_differs_is_refused_by_name_until_a_person_accepts_it() {
    let stage = stage();
    let (server, device) = pair(&stage, "CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT); CREATE TABLE tags(tag TEXT PRIMARY KEY)");
    server.plan_nothing("notes");
    server.publish("notes", &chain());
    let mut daemon = device.start();
    daemon.until(SOON, "the chain is there", |s| (only(s)["latest"] == 3).then_some(()));
    device.run(&["adopt", "run", "notes.db"]).says(1, &["not that of version 3: table notes differs", "--accept-drift"]);
    device.run(&["adopt", "run", "notes.db", "--version", "1"]).says(1, &["table notes differs", "table tags is there, and should not be"]);
    device.run(&["adopt", "run", "notes.db", "--version", "0009_none"]).says(1, &["no version \"0009_none\"", "its last is 3"]);
    let file = device.path("notes.db");
    assert_eq!(one::<u32>(&file, "SELECT count(*) FROM _whimbrel_migration"), 0, "a refusal writes nothing");

    device.run(&["adopt", "run", "notes.db", "--version", "0002_tags", "--accept-drift"]).says(0, &["version 0 → 2"]);
    let adopted = &device.json(&["adopt", "status"])["databases"][0]["adopted"];
    assert_eq!((&adopted["by"], &adopted["drift"]), (&json!("person"), &json!(["table notes differs"])));
    // It is known where it stands; what comes next waits until the table is what the migrations expect.
    server.plan_all("notes");
    device.run(&["apply"]).says(4, &["table notes differs"]);
    let mend = "DROP TABLE notes; CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT NOT NULL)";
    Connection::open(&file).unwrap().execute_batch(mend).unwrap();
    daemon.poll();
    daemon.until_settled(SOON, 3);
    daemon.stop();
}

#[test]
fn a_tracker_that_cannot_be_believed_is_refused_with_the_tools_own_remedy() {
    let stage = stage();
    let (server, device) = pair(&stage, &format!("{} UPDATE schema_migrations SET dirty = 1;", sql("golang-migrate")));
    server.publish_folder("notes", &migrations(stage.path(), "golang-migrate", false));
    let mut daemon = device.start();
    daemon.until(SOON, "it waits to be adopted", |s| only(s)["health"].to_string().contains("adopt_first").then_some(()));
    device.run(&["adopt", "run"]).says(1, &["version 2 is dirty", "migrate force"]);
    assert_eq!(only(&daemon.status())["version"], 0);
    let file = device.path("notes.db");
    device.run(&["adopt", "run", "--version", "0"]).says(1, &["table notes is there, and should not be"]);
    Connection::open(&file).unwrap().execute("UPDATE schema_migrations SET version = 5, dirty = 0", []).unwrap();
    device.run(&["adopt", "run"]).says(1, &["none of the 1 migrations", "its schema is that of version 2"]);
    // A person knows better than the tool, and the schema agrees.
    device.run(&["adopt", "run", "--version", "2"]).says(0, &["version 0 → 2"]);
    daemon.stop();
}

#[test]
fn what_was_taken_over_is_given_back_and_the_database_held() {
    let stage = stage();
    let (server, device) = pair(&stage, &sql("sqlx"));
    server.publish_folder("notes", &migrations(stage.path(), "sqlx", false));
    let mut daemon = device.start();
    daemon.until(SOON, "the chain is there", |s| (only(s)["latest"] == 2).then_some(()));
    device.run(&["adopt", "rollback", "notes.db"]).says(1, &["it was not adopted"]);
    device.run(&["adopt", "run"]).says(0, &["version 0 → 2"]);
    device.run(&["adopt", "rollback"]).says(0, &["version 2 → 0", "held"]);
    let file = device.path("notes.db");
    assert_eq!(one::<u32>(&file, "SELECT count(*) FROM _whimbrel_migration"), 0);
    daemon.until(SOON, "the server knows", |s| (s["server"]["reports_unsent"] == 0).then_some(()));
    let told = server.statuses(&client_id(&file));
    assert_eq!(told.iter().map(|(_, s)| s.as_str()).collect::<Vec<_>>(), ["pending", "pending"], "{told:?}");
    // Released, it still waits: its past is still there.
    device.run(&["release"]);
    device.run(&["apply"]).says(3, &["sqlx has applied migrations of this chain"]);
    assert_eq!(list(&file, "SELECT body FROM notes"), ["first"]);
    device.run(&["adopt", "run"]).says(0, &["version 0 → 2"]);
    daemon.stop();
}

#[test]
fn a_client_of_the_seed_goes_on_with_a_server_of_the_seed() {
    let stage = stage();
    let seed = FakeSeedServer::start();
    let device = Device::new(stage.path(), "device", &seed.url()).database("notes.db", "notes");
    device.make("notes.db", &sql("seed"));
    let list_of = |path: &str| -> Value { serde_json::from_str(&fs::read_to_string(fixture("seed").join(path)).unwrap()).unwrap() };
    let add = |m: &Value| {
        let texts = |key: &str| m[key].as_array().unwrap().iter().map(|q| q.as_str().unwrap().to_owned()).collect::<Vec<_>>();
        let (up, down) = (texts("upQueries"), texts("downQueries"));
        let refs = |v: &'_ [String]| v.iter().map(String::as_str).map(str::to_owned).collect::<Vec<_>>();
        let (up, down) = (refs(&up), refs(&down));
        let (up, down): (Vec<&str>, Vec<&str>) = (up.iter().map(String::as_str).collect(), down.iter().map(String::as_str).collect());
        seed.add(m["timestamp"].as_i64().unwrap(), m["migrationName"].as_str().unwrap(), &up, &down);
    };
    list_of("migrations/client.json").as_array().unwrap().iter().for_each(add);
    let mut daemon = device.start();
    daemon.until(SOON, "it waits to be adopted", |s| only(s)["health"].to_string().contains("adopt_first").then_some(()));
    // Nobody recorded what these leave behind: the device rehearses them itself.
    device.run(&["adopt", "run"]).says(0, &["version 0 → 2"]);
    add(&list_of("next/client.json")[2]);
    daemon.poll();
    daemon.until_settled(SOON, 3);
    assert_eq!(list(&device.path("notes.db"), "SELECT body || ' ' || done FROM notes"), ["first 0"]);
    let applied: Vec<_> = seed.statuses().iter().map(|s| (s["migrationName"].clone(), s["applied"].clone())).collect();
    for name in ["Notes1704099600000", "Tags1704186000000", "Done1704272400000"] {
        assert_eq!(applied.iter().filter(|(n, a)| n == name && *a == true).count(), 1, "{applied:?}");
    }
    daemon.stop();
}

/// The seed's example: five tasks, two of them claimed.
fn queue(path: &Path) {
    let file = Connection::open(path).unwrap();
    file.execute_batch("CREATE TABLE cache(name TEXT PRIMARY KEY, body TEXT NOT NULL, expires_at INTEGER)").unwrap();
    let put = |key: &str, value: &str| file.execute("INSERT INTO cache VALUES (?1, ?2, 1700000000)", [key, value]).unwrap();
    put("orchestrator:pending", r#"["task1","task2","task3","task4","task5"]"#);
    for n in 1..=5 {
        put(&format!("orchestrator:queue:task{n}"), &format!(r#"{{"id":"task{n}","content":"test"}}"#));
    }
    put("orchestrator:lease:task1", r#"{"workerId":"w1"}"#);
    put("orchestrator:lease:task4", r#"{"workerId":"w2"}"#);
    put("session:1", "not ours");
}

#[test]
fn the_seeds_queue_moves_is_rolled_back_and_moves_again_until_it_is_finished() {
    let stage = stage();
    let device = Device::new(stage.path(), "device", "http://127.0.0.1:1");
    let path = device.path("kv.db");
    queue(&path);
    let before = list(&path, "SELECT name || body || expires_at FROM cache ORDER BY 1");
    let store = format!("sqlite:{}", path.display());
    let adopt = |what: &str| {
        let kv = ["--kv", &store, "--table", "cache", "--key-column", "name", "--value-column", "body"];
        device.run(&[&["adopt", what, "--json"], &kv[..]].concat())
    };
    let status = adopt("status").json();
    assert_eq!(status["needsMigration"], true);
    assert_eq!((&status["status"]["oldTaskCount"], &status["status"]["oldLeaseCount"]), (&json!(5), &json!(2)));
    let run = adopt("run").json();
    assert_eq!(
        run,
        json!({
            "schema": "whimbrel.queue/1", "success": true, "message": "Migration completed successfully",
            "tasks": { "migrated": 5, "failed": 0, "errors": [] }, "leases": { "migrated": 2, "failed": 0, "errors": [] },
            "totalMigrated": 7, "totalFailed": 0, "errors": []
        })
    );
    assert_eq!(one::<u32>(&path, "SELECT count(*) FROM cache WHERE name LIKE 'queue:task:%' AND expires_at = 1700000000"), 5);
    assert_eq!(one::<u32>(&path, "SELECT count(*) FROM cache WHERE name LIKE 'orchestrator:%'"), 0);

    let back = adopt("rollback");
    assert_eq!((back.code, &back.json()["deleted"]), (0, &json!(7)), "{back}");
    assert_eq!(list(&path, "SELECT name || body || expires_at FROM cache ORDER BY 1"), before, "byte for byte as it was");
    adopt("rollback").says(1, &["there is nothing to roll back"]);

    // One task cannot be moved: a worker of the new version has made another with its id.
    let file = Connection::open(&path).unwrap();
    file.execute("INSERT INTO cache VALUES ('queue:task:task3', 'another', 1)", []).unwrap();
    let run = adopt("run");
    assert_eq!(run.code, 1, "{run}");
    let answer = run.json();
    assert_eq!(
        (&answer["tasks"]["migrated"], &answer["tasks"]["errors"]),
        (&json!(4), &json!(["Task task3: queue:task:task3 is there with other content"]))
    );
    adopt("finish").says(1, &["orchestrator:queue:task3"]);
    // Both layouts are read: the fifth task is still in the old one.
    let kv = ["--kv", &store, "--table", "cache", "--key-column", "name", "--value-column", "body"];
    let tasks = device.json(&[&["adopt", "status", "--tasks"], &kv[..]].concat());
    assert_eq!(tasks["tasks"], json!(["task3", "task1", "task2", "task4", "task5"]));
    file.execute("DELETE FROM cache WHERE name = 'queue:task:task3'", []).unwrap();
    assert_eq!(adopt("run").json()["totalMigrated"], 1);
    adopt("finish").says(0, &["\"success\": true"]);
    let keys = list(&path, "SELECT name FROM cache ORDER BY 1");
    let tasks: Vec<_> = (1..=5).map(|n| format!("queue:task:task{n}")).collect();
    assert_eq!(keys, [&["queue:lease:task1".to_owned(), "queue:lease:task4".to_owned()][..], &tasks, &["session:1".to_owned()]].concat());
}
