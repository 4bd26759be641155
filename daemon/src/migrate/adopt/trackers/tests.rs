//! Every fixture of `tests/fixtures/trackers` is read, told apart, left as it was, and refused when it is dirty or locked.

use std::{collections::BTreeMap, path::Path};

use rusqlite::Connection;

use super::{
    super::{
        map::{Names, map},
        past::{Trouble, TroubleKind},
    },
    *,
};

/// Directory, tool, the names that its migrations have in our chain, and what it shows as applied.
const FIXTURES: [(&str, Tool, [&str; 3], &[&str]); 18] = [
    ("sqlx", Tool::Sqlx, STAMPED, &["20240101090000 notes", "20240102090000 tags"]),
    ("refinery", Tool::Refinery, VERSIONED, &["V1__notes", "V2__tags"]),
    ("diesel", Tool::Diesel, ["2024-01-01-090000_notes", "2024-01-02-090000_tags", "2024-01-03-090000_done"], &["20240101090000", "20240102090000"]),
    ("dbmate", Tool::Dbmate, STAMPED, &["20240101090000", "20240102090000"]),
    ("rails", Tool::Rails, STAMPED, &["20240101090000", "20240102090000"]),
    ("golang-migrate", Tool::GolangMigrate, ["000001_notes", "000002_tags", "000003_done"], &["2"]),
    ("goose", Tool::Goose, ["00001_notes", "00002_tags", "00003_done"], &["1", "2"]),
    ("flyway", Tool::Flyway, VERSIONED, &["V1__notes.sql", "V2__tags.sql"]),
    ("liquibase", Tool::Liquibase, COUNTED, &["changelog.xml::notes::whimbrel", "changelog.xml::tags::whimbrel"]),
    ("alembic", Tool::Alembic, ["0001_1a2b3c4d5e6f_notes", "0002_2b3c4d5e6f70_tags", "0003_3c4d5e6f7081_done"], &["2b3c4d5e6f70"]),
    ("prisma", Tool::Prisma, STAMPED, &["20240101090000_notes", "20240102090000_tags"]),
    ("typeorm", Tool::TypeOrm, NAMED_LAST, &["Notes1704099600000", "Tags1704186000000"]),
    ("knex", Tool::Knex, STAMPED, &["20240101090000_notes.js", "20240102090000_tags.js"]),
    ("drizzle", Tool::Drizzle, ["0000_notes", "0001_tags", "0002_done"], &["number 1 of 1704099600000", "number 2 of 1704186000000"]),
    ("room", Tool::Room, COUNTED, &["2"]),
    ("user_version", Tool::UserVersion, COUNTED, &["2"]),
    ("seed", Tool::Seed, NAMED_LAST, &["Notes1704099600000", "Tags1704186000000"]),
    ("django", Tool::Django, ["0001_notes_0001_initial", "0002_notes_0002_tags", "0003_notes_0003_done"], &[]),
];

const STAMPED: [&str; 3] = ["20240101090000_notes", "20240102090000_tags", "20240103090000_done"];
const COUNTED: [&str; 3] = ["0001_notes", "0002_tags", "0003_done"];
const VERSIONED: [&str; 3] = ["V1__notes", "V2__tags", "V3__done"];
const NAMED_LAST: [&str; 3] = ["Notes1704099600000", "Tags1704186000000", "Done1704272400000"];

fn database(name: &str) -> Connection {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/trackers").join(name).join("database.sql");
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(&std::fs::read_to_string(path).unwrap()).unwrap();
    connection
}

/// Every row of every table, as text.
fn content(connection: &Connection) -> BTreeMap<String, Vec<String>> {
    let tables: Vec<String> = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let rows = |table: &String| {
        let mut statement = connection.prepare(&format!("SELECT * FROM \"{table}\"")).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| (0..columns).map(|i| row.get::<_, Value>(i)).collect::<Result<Vec<_>, _>>());
        rows.unwrap().map(|row| format!("{:?}", row.unwrap())).collect()
    };
    tables.iter().map(|table| (table.clone(), rows(table))).collect()
}

#[test]
fn each_tool_is_told_apart_read_found_in_the_chain_and_left_as_it_was() {
    for (name, tool, chain, applied) in FIXTURES {
        let connection = database(name);
        let before = content(&connection);
        let changes = connection.total_changes();
        let pasts = read(&connection).unwrap();
        let [past] = pasts.as_slice() else { panic!("{name}: {pasts:?}") };
        assert_eq!((past.tool, &past.trouble), (tool, &None), "{name}");
        if !applied.is_empty() {
            assert_eq!(past.applied.iter().map(|a| a.id.as_str()).collect::<Vec<_>>(), applied, "{name}");
        }
        let mapped = map(past, &Names::new(chain.to_vec())).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(mapped.version, 2, "{name}");
        assert_eq!((content(&connection), connection.total_changes()), (before, changes), "{name} was changed");
    }
}

#[test]
fn djangos_own_apps_are_passed_over() {
    let pasts = read(&database("django")).unwrap();
    let mapped = map(&pasts[0], &Names::new(vec!["0001_notes_0001_initial", "0002_notes_0002_tags"])).unwrap();
    assert!(mapped.passed_over.iter().all(|id| id.starts_with("auth.") || id.starts_with("contenttypes.")), "{mapped:?}");
    assert!(mapped.passed_over.len() > 10, "{mapped:?}");
}

#[test]
fn a_dirty_or_locked_tracker_says_what_is_in_the_way_and_what_to_do() {
    let cases: [(&str, &str, TroubleKind, &str, &str); 11] = [
        ("sqlx", "UPDATE _sqlx_migrations SET success = 0 WHERE version = 20240102090000", TroubleKind::Dirty, "half applied", "delete its row"),
        ("golang-migrate", "UPDATE schema_migrations SET dirty = 1", TroubleKind::Dirty, "version 2 is dirty", "migrate force"),
        ("flyway", "UPDATE flyway_schema_history SET success = 0 WHERE version = '2'", TroubleKind::Dirty, "V2__tags.sql failed", "flyway repair"),
        ("prisma", "UPDATE _prisma_migrations SET rolled_back_at = NULL", TroubleKind::Dirty, "was begun and not finished", "prisma migrate resolve"),
        (
            "liquibase",
            "UPDATE DATABASECHANGELOGLOCK SET LOCKED = 1, LOCKEDBY = 'host (10.0.0.1)'",
            TroubleKind::Locked,
            "host (10.0.0.1) holds its lock",
            "liquibase release-locks",
        ),
        (
            "liquibase",
            "UPDATE DATABASECHANGELOG SET EXECTYPE = 'FAILED' WHERE ID = 'tags'",
            TroubleKind::Dirty,
            "tags::whimbrel failed",
            "liquibase update",
        ),
        ("knex", "UPDATE knex_migrations_lock SET is_locked = 1", TroubleKind::Locked, "holds its lock", "knex migrate:unlock"),
        (
            "seed",
            "INSERT INTO migration_changes (id, migration_name, operation, timestamp, attempts) VALUES ('x', 'Done1', 'apply', 1, 2)",
            TroubleKind::Locked,
            "still to apply Done1",
            "stop its processor",
        ),
        (
            "user_version",
            "CREATE TABLE atlas_schema_revisions(version, description, applied, total, executed_at, error);
             INSERT INTO atlas_schema_revisions VALUES ('1', '', 2, 2, '', ''), ('2', '', 1, 2, '', 'x')",
            TroubleKind::Dirty,
            "2 was left half applied",
            "atlas migrate",
        ),
        (
            "user_version",
            "CREATE TABLE __EFMigrationsHistory(MigrationId, ProductVersion); CREATE TABLE __EFMigrationsLock(Id, Timestamp);
             INSERT INTO __EFMigrationsLock VALUES (1, '2024-01-04')",
            TroubleKind::Locked,
            "since 2024-01-04",
            "__EFMigrationsLock",
        ),
        (
            "user_version",
            "CREATE TABLE _yoyo_migration(migration_hash, migration_id, applied_at_utc); CREATE TABLE yoyo_lock(locked, ctime, pid);
             INSERT INTO yoyo_lock VALUES (1, '', 77)",
            TroubleKind::Locked,
            "process 77 holds its lock",
            "yoyo break-lock",
        ),
    ];
    for (name, sql, kind, what, remedy) in cases {
        let connection = database(name);
        connection.execute_batch(sql).unwrap();
        let trouble: Option<Trouble> = read(&connection).unwrap()[0].trouble.clone();
        let trouble = trouble.unwrap_or_else(|| panic!("{name}: {sql}: no trouble"));
        assert_eq!(trouble.kind, kind, "{name}: {trouble:?}");
        assert!(trouble.what.contains(what) && trouble.remedy.contains(remedy), "{name}: {trouble:?}");
    }
}

#[test]
fn what_was_taken_back_or_gave_up_is_not_in_place() {
    let ids = |name: &str, sql: &str| -> Vec<String> {
        let connection = database(name);
        connection.execute_batch(sql).unwrap();
        read(&connection).unwrap()[0].applied.iter().map(|a| a.id.clone()).collect()
    };
    assert_eq!(ids("goose", "INSERT INTO goose_db_version (version_id, is_applied) VALUES (2, 0)"), ["1"]);
    assert_eq!(
        ids("flyway", "INSERT INTO flyway_schema_history VALUES (4, '2', 'tags', 'UNDO_SQL', 'U2__tags.sql', 1, '', '', 0, 1)"),
        ["V1__notes.sql"]
    );
    assert_eq!(
        ids("flyway", "UPDATE flyway_schema_history SET type = 'BASELINE', script = 'x' WHERE version = '2'"),
        ["V1__notes.sql", "baseline 2"]
    );
    assert_eq!(ids("prisma", "UPDATE _prisma_migrations SET rolled_back_at = 1 WHERE migration_name LIKE '%tags'"), ["20240101090000_notes"]);
    let gave_up = database("seed");
    gave_up
        .execute_batch(
            "UPDATE client_migration_status SET applied = FALSE, errorMessage = 'no' WHERE migrationName LIKE 'Tags%';
             UPDATE migration_changes SET processed = FALSE, attempts = 3 WHERE migration_name LIKE 'Tags%'",
        )
        .unwrap();
    let past = &read(&gave_up).unwrap()[0];
    assert_eq!((past.applied.len(), &past.trouble), (1, &None));
    assert_eq!(past.notes, ["given up by the old processor, and pending here: apply Tags1704186000000"]);
}

#[test]
fn an_older_client_kept_its_flag_in_the_list() {
    let connection = database("seed");
    connection
        .execute_batch("DROP TABLE client_migration_status; UPDATE client_migration SET clientApplied = 'false' WHERE migrationName LIKE 'Tags%'")
        .unwrap();
    let past = &read(&connection).unwrap()[0];
    assert_eq!((past.table.as_str(), past.applied.len()), ("client_migration", 1));
}

#[test]
fn tools_without_a_fixture_are_read_by_the_names_that_they_keep() {
    let cases: [(&str, Tool, [&str; 2]); 5] = [
        (
            "CREATE TABLE gorp_migrations(id, applied_at); INSERT INTO gorp_migrations VALUES ('2_tags.sql', 2), ('1_notes.sql', 1)",
            Tool::SqlMigrate,
            ["1_notes", "2_tags"],
        ),
        (
            "CREATE TABLE kysely_migration(name, timestamp); CREATE TABLE kysely_migration_lock(id, is_locked);
             INSERT INTO kysely_migration VALUES ('notes', 1), ('tags', 2); INSERT INTO kysely_migration_lock VALUES ('migration_lock', 0)",
            Tool::Kysely,
            ["0001_notes", "0002_tags"],
        ),
        (
            "CREATE TABLE __EFMigrationsHistory(MigrationId, ProductVersion); CREATE TABLE __EFMigrationsLock(Id, Timestamp);
             INSERT INTO __EFMigrationsHistory VALUES ('20240101090000_Notes', '9.0'), ('20240102090000_Tags', '9.0')",
            Tool::EfCore,
            ["20240101090000_Notes", "20240102090000_Tags"],
        ),
        (
            "CREATE TABLE grdb_migrations(identifier TEXT PRIMARY KEY); INSERT INTO grdb_migrations VALUES ('notes'), ('tags')",
            Tool::Grdb,
            ["1_notes", "2_tags"],
        ),
        (
            "CREATE TABLE _yoyo_migration(migration_hash, migration_id, applied_at_utc); CREATE TABLE yoyo_lock(locked, ctime, pid);
             INSERT INTO _yoyo_migration VALUES ('x', '0001.notes', 1), ('y', '0002.tags', 2)",
            Tool::Yoyo,
            ["0001.notes", "0002.tags"],
        ),
    ];
    for (sql, tool, chain) in cases {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(sql).unwrap();
        let past = &read(&connection).unwrap()[0];
        assert_eq!((past.tool, &past.trouble), (tool, &None));
        assert_eq!(map(past, &Names::new(chain.to_vec())).map(|m| m.version), Ok(2), "{tool}");
    }
}

#[test]
fn what_another_tool_left_behind_cannot_flood_a_message() {
    let connection = database("knex");
    connection.execute_batch("UPDATE knex_migrations SET name = replace(hex(zeroblob(100000)), '00', 'x')").unwrap();
    assert!(read(&connection).unwrap()[0].applied.iter().all(|a| a.id.len() == LONGEST_TEXT));
}
