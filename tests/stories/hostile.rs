//! Hostile SQL, sent by a server that lies: refused, the file unchanged, the statement named.

use std::{fs, path::Path, time::Instant};

use whimbrel_tests::{
    Device, Mig, Server, content_hash,
    device::{list, one},
};

use crate::stage;

/// What every database holds.
const BASE: &str =
    "CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT); CREATE TABLE other(x); INSERT INTO notes(body) VALUES ('keep me'), ('and me');";

/// Runs one script per database, all of them on one device, and gives each file's error; none where it was applied.
fn run(stage: &Path, scripts: &[(&str, String)]) -> Vec<(String, Option<String>)> {
    let server = Server::start(stage);
    let mut device = Device::new(stage, "device", &server.url());
    for (n, (name, sql)) in scripts.iter().enumerate() {
        let app = format!("app{n}");
        device = device.database(&format!("{n}.db"), &app);
        device.make(&format!("{n}.db"), BASE);
        server.publish_unchecked(&app, &[Mig::up("0001_hostile", sql.clone()).toml(format!("description = {name:?}\ntimeout = \"1s\"\n"))]);
        device.enroll(&server.token(&app));
    }
    let before: Vec<_> = (0..scripts.len()).map(|n| content_hash(&device.path(&format!("{n}.db")))).collect();
    let outcome = device.once();
    scripts
        .iter()
        .enumerate()
        .map(|(n, (name, _))| {
            let file = device.path(&format!("{n}.db"));
            let applied = one::<u32>(&file, "SELECT count(*) FROM _whimbrel_migration WHERE status = 'completed'") == 1;
            if applied {
                return ((*name).to_owned(), None);
            }
            assert_eq!(content_hash(&file), before[n], "{name}: the file changed");
            let kept = list(&file, "SELECT error FROM _whimbrel_migration WHERE error IS NOT NULL").pop();
            // A transient failure is not kept in the file; it is told all the same.
            let told = outcome.said().lines().skip_while(|l| !l.contains(&format!("/{n}.db"))).take(4).collect::<Vec<_>>().join("\n");
            ((*name).to_owned(), Some(kept.unwrap_or(told)))
        })
        .collect()
}

#[test]
fn statements_that_reach_beyond_a_migration_are_refused_and_named() {
    let stage = stage();
    let outside = stage.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let target = outside.join("leak.db").display().to_string();
    let attached = format!("ATTACH '{target}' AS leak");
    let into = format!("VACUUM INTO '{target}'");
    let cases: Vec<(&str, String)> = [
        ("attach", attached.as_str()),
        ("detach", "DETACH main"),
        ("vacuum", "VACUUM"),
        ("vacuum into", into.as_str()),
        ("smuggled commit", "COMMIT; DROP TABLE notes"),
        ("smuggled end", "END TRANSACTION; DELETE FROM notes"),
        ("second begin", "BEGIN; BEGIN"),
        ("rollback", "ROLLBACK; DROP TABLE notes"),
        ("savepoint", "SAVEPOINT s"),
        ("release", "RELEASE whimbrel"),
        ("rollback to", "ROLLBACK TO whimbrel"),
        ("explain attach", "EXPLAIN ATTACH 'x' AS y"),
        ("pragma writable_schema", "PRAGMA writable_schema = ON"),
        ("pragma journal_mode", "PRAGMA journal_mode = DELETE"),
        ("pragma synchronous", "PRAGMA synchronous = OFF"),
        ("pragma max_page_count", "PRAGMA max_page_count = 100"),
        ("pragma page_size", "PRAGMA page_size = 512"),
        ("pragma trusted_schema", "PRAGMA trusted_schema = ON"),
        ("pragma locking_mode", "PRAGMA locking_mode = EXCLUSIVE"),
        ("pragma wal_checkpoint", "PRAGMA wal_checkpoint(TRUNCATE)"),
        ("pragma as a table", "SELECT * FROM pragma_wal_checkpoint"),
        ("load extension", "SELECT load_extension('/tmp/x.so')"),
        ("write the schema", "UPDATE sqlite_schema SET sql = 'x'"),
        ("read our tables", "CREATE TABLE stolen AS SELECT * FROM _whimbrel_event"),
        ("insert into ours", "INSERT INTO _whimbrel_meta VALUES ('x', 'y')"),
        ("update ours", "UPDATE \"_Whimbrel_Migration\" SET status = 'completed'"),
        ("delete ours", "DELETE FROM _WHIMBREL_EVENT"),
        ("drop ours", "DROP TABLE [_whimbrel_event]"),
        ("drop our view", "DROP VIEW _whimbrel_status"),
        ("make ours", "CREATE TABLE _whimbrel_mine(x)"),
        ("rename to ours", "ALTER TABLE other RENAME TO _whimbrel_other"),
        ("rename ours", "ALTER TABLE _whimbrel_meta RENAME TO meta"),
        ("add to ours", "ALTER TABLE _whimbrel_meta ADD COLUMN x"),
        ("index ours", "CREATE INDEX i ON _whimbrel_event(kind)"),
        ("trigger on ours", "CREATE TRIGGER t AFTER INSERT ON _whimbrel_event BEGIN DELETE FROM notes; END"),
        ("trigger that names ours", "CREATE TRIGGER t AFTER INSERT ON notes BEGIN DELETE FROM _whimbrel_event; END"),
        ("trigger that names ours, quoted", "CREATE TRIGGER t AFTER DELETE ON notes BEGIN UPDATE \"_WHIMBREL_meta\" SET value = 1; END"),
        ("view that names ours", "CREATE VIEW v AS SELECT * FROM _Whimbrel_event"),
        ("temporary trigger", "CREATE TEMP TRIGGER t AFTER INSERT ON notes BEGIN DELETE FROM notes; END"),
        ("foreign module", "CREATE VIRTUAL TABLE z USING csv(filename = '/etc/passwd')"),
        ("dbstat", "CREATE VIRTUAL TABLE z USING dbstat"),
        ("endless query", "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) INSERT INTO other SELECT count(*) FROM c"),
        ("a gigabyte", "INSERT INTO other VALUES (zeroblob(1000000000))"),
        ("a deep expression", "SELECT ((((((((((((((((((((((((((((((((1))))))))))))))))))))))))))))))))"),
        ("harmless", "CREATE TABLE fine(x); INSERT INTO fine VALUES (1)"),
        ("harmless begin and commit", "BEGIN; CREATE TABLE fine(x); COMMIT"),
    ]
    .map(|(name, sql)| {
        // Behind a statement that would leave a trace if the refusal did not take it back.
        let first = if name == "a deep expression" { String::new() } else { "DELETE FROM notes WHERE id = 2;\n".to_owned() };
        (name, format!("{first}{sql};\n"))
    })
    .into();
    let begun = Instant::now();
    let found = run(stage.path(), &cases);
    for ((name, error), (_, sql)) in found.iter().zip(&cases) {
        let statement = sql.lines().find(|l| !l.starts_with("DELETE FROM notes WHERE id = 2")).unwrap();
        match (name.as_str(), error) {
            ("harmless" | "harmless begin and commit", error) => assert_eq!(*error, None, "{name}"),
            ("a deep expression", None) => {}
            (_, None) => panic!("{name} was applied"),
            // What an object's text names is found when the script is done.
            (named, Some(error)) if named.contains("that names ours") => {
                assert!(error.contains("belongs to whimbrel") && (error.contains("trigger t") || error.contains("view v")), "{name}: {error}");
            }
            // The authorizer is not told the new name of a table.
            ("rename to ours", Some(error)) => assert!(error.contains("_whimbrel_other"), "{name}: {error}"),
            ("endless query", Some(error)) => assert!(error.contains("timeout of 1s"), "{name}: {error}"),
            (_, Some(error)) => {
                assert!(error.contains("0001_hostile/up.sql"), "{name}: no file: {error}");
                let word: String = statement.split_whitespace().next().unwrap().trim_end_matches(';').to_owned();
                assert!(error.contains(&word), "{name}: the statement is not named: {error}");
            }
        }
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "something was written outside the database");
    eprintln!("{} scripts in {:.1?}", cases.len(), begun.elapsed());
}
