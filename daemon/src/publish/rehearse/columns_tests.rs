//! Column ids and settings of rows as rehearsals of whole chains find them.

use whimbrel_shared::synced::SyncedTables;

use super::{tests::*, *};
use crate::publish::layout::Layout;

/// Each version's map in words, and the tables that exchange rows.
fn maps(rehearsal: &Rehearsal) -> Vec<(String, SyncedTables)> {
    let mut ids = RowSchema::default();
    rehearsal
        .versions
        .iter()
        .zip(1..)
        .map(|(version, number)| {
            ids.advance(number, version.rows.columns.as_ref(), &version.rows.sync).unwrap();
            let table = |t: &whimbrel_shared::columns::TableColumns| {
                let columns: String = t.columns.iter().map(|c| format!(" {}={}", c.name, c.id)).collect();
                format!("{}#{}:{columns}", t.name, t.id)
            };
            (ids.map().unwrap().tables.iter().map(table).collect::<Vec<_>>().join("; "), ids.synced().clone())
        })
        .collect()
}

const PERSON: &str = "CREATE TABLE person(id TEXT NOT NULL PRIMARY KEY, first TEXT, last TEXT, zip TEXT, street TEXT);";

/// One version after [`PERSON`], which exchanges rows: its findings in codes, each with what it says.
fn second(sql: &str, toml: &str) -> (Rehearsal, Vec<String>) {
    let files = [("1_a/up.sql", PERSON), ("1_a/migration.toml", "[sync.person]"), ("2_b/up.sql", sql), ("2_b/migration.toml", toml)];
    let rehearsal = run(Layout::Whimbrel, &files).unwrap();
    let said = rehearsal.findings.iter().map(|f| format!("{} {}; {}", f.code.code(), f.what, f.remedy)).collect();
    (rehearsal, said)
}

fn refused(sql: &str, toml: &str, words: &[&str]) {
    let (_, said) = second(sql, toml);
    for word in words {
        assert!(said.iter().any(|s| s.contains(word)), "{word:?} is not in {said:?}");
    }
}

fn well(sql: &str, toml: &str) -> String {
    let (rehearsal, said) = second(sql, toml);
    assert!(!rehearsal.findings.iter().any(|f| f.level == Level::Error), "{said:?}");
    maps(&rehearsal).pop().unwrap().0
}

#[test]
fn ids_follow_a_chain_through_renames_a_split_and_a_moved_part() {
    let files = [
        ("1_a/up.sql", PERSON),
        ("1_a/migration.toml", "[sync.person]\nconflict = \"merge\""),
        ("2_b/up.sql", "ALTER TABLE person RENAME first TO given; ALTER TABLE person DROP zip;"),
        ("2_b/migration.toml", "destructive = true\n[[carry]]\ntable = \"person\"\nrename = { first = \"given\" }\ndrop = { zip = \"archive\" }"),
        ("3_c/up.sql", "ALTER TABLE person ADD family TEXT; ALTER TABLE person ADD suffix TEXT;"),
        ("3_c/drop.sql", "ALTER TABLE person DROP last;"),
        (
            "3_c/migration.toml",
            "mode = \"online\"\ndestructive = true\n[[step]]\nsql = \"up.sql\"\n[[step]]\nbackfill = \"person\"\nset = \"family = last, suffix = ''\"\nwhere = \"suffix IS NULL\"\n[[step]]\nsql = \"drop.sql\"\n[[carry]]\ntable = \"person\"\nsplit = { last = [\"family\", \"suffix\"] }",
        ),
        ("4_d/up.sql", "ALTER TABLE person RENAME TO people;"),
        ("4_d/migration.toml", "[[carry]]\ntable = \"person\"\nto = \"people\""),
        (
            "5_e/up.sql",
            "CREATE TABLE place(person TEXT NOT NULL PRIMARY KEY, road TEXT); INSERT INTO place SELECT id, street FROM people; ALTER TABLE people DROP street;",
        ),
        (
            "5_e/migration.toml",
            "destructive = true\n[[carry]]\ntable = \"people\"\n[carry.into.place]\nkey = { person = \"id\" }\ncolumns = { street = \"road\" }\n[sync.place]\n[sync.people]\nmin_schema = \"this\"",
        ),
        (
            "6_f/up.sql",
            "CREATE TABLE n(id TEXT NOT NULL PRIMARY KEY, suffix TEXT, family TEXT, given TEXT, zip TEXT); INSERT INTO n(id, given, family, suffix) SELECT id, given, family, suffix FROM people; DROP TABLE people; ALTER TABLE n RENAME TO people;",
        ),
    ];
    let rehearsal = run(Layout::Whimbrel, &files).unwrap();
    assert!(!rehearsal.findings.iter().any(|f| f.level == Level::Error), "{:?}", rehearsal.findings);
    let maps = maps(&rehearsal);
    let said: Vec<&str> = maps.iter().map(|(map, _)| map.as_str()).collect();
    assert_eq!(
        said,
        [
            "person#1: id=1 first=2 last=3 zip=4 street=5",
            "person#1: id=1 given=2 last=3 street=5",
            "person#1: id=1 given=2 street=5 family=6 suffix=7",
            "people#1: id=1 given=2 street=5 family=6 suffix=7",
            "people#1: id=1 given=2 family=6 suffix=7; place#2: person=1 road=2",
            // The rebuild keeps them; zip came back, and is another.
            "people#1: id=1 given=2 family=6 suffix=7 zip=8; place#2: person=1 road=2",
        ]
    );
    let synced: Vec<Vec<u32>> = maps.iter().map(|(_, synced)| synced.0.keys().copied().collect()).collect();
    assert_eq!(synced, [vec![1], vec![1], vec![1], vec![1], vec![1, 2], vec![1, 2]]);
    // What the split's backfill was seen to stand on, so that it can be repeated: `last` goes, `family` and `suffix` come.
    let lifts: Vec<String> = rehearsal.versions.iter().flat_map(|v| &v.rows.lifts).map(|l| serde_json::to_string(l).unwrap()).collect();
    let create = "CREATE TABLE person(id TEXT NOT NULL PRIMARY KEY, given TEXT, last TEXT, street TEXT, family TEXT, suffix TEXT)";
    let columns = r#"[["id",1,1],["given",2,2],["last",3,0],["street",5,5],["family",0,6],["suffix",0,7]]"#;
    assert_eq!(lifts, [format!(r#"{{"step":2,"table":1,"create":"{create}","columns":{columns}}}"#)]);
    // Nothing was said of it again.
    assert!(rehearsal.versions[3].rows.sync.is_empty());
}

#[test]
fn chains_of_other_tools_and_of_the_seed_form_have_ids_too() {
    let json = r#"[{"timestamp":1,"migrationName":"Init1","upQueries":["CREATE TABLE a(x)"],"downQueries":[]}]"#;
    for (layout, files) in [(Layout::Sqlx, [("1_a.sql", "CREATE TABLE a(x)")]), (Layout::SeedJson, [("chain.json", json)])] {
        assert_eq!(maps(&run(layout, &files).unwrap())[0].0, "a#1: x=1", "{layout}");
    }
}

#[test]
fn a_rename_where_rows_are_exchanged_has_to_be_said_and_the_text_is_given() {
    refused("ALTER TABLE person RENAME first TO given", "", &["WB036", "[[carry]]\ntable = \"person\"\nrename = { first = \"given\" }"]);
    refused("ALTER TABLE person RENAME TO people", "", &["[[carry]]\ntable = \"person\"\nto = \"people\""]);
    refused(
        "ALTER TABLE person DROP zip; ALTER TABLE person ADD mail TEXT",
        "destructive = true",
        &["rename = { zip = \"mail\" }", "drop = { zip = \"archive\" }"],
    );
    refused("SELECT 1", "[[carry]]\ntable = \"persn\"", &["did you mean person?"]);
    let anew = "ALTER TABLE person DROP zip; ALTER TABLE person ADD zip TEXT";
    assert_eq!(well(anew, "destructive = true"), "person#1: id=1 first=2 last=3 street=5 zip=6");
    // What exchanges no rows follows what was seen.
    let files = [("1_a.sql", PERSON), ("2_b.sql", "ALTER TABLE person RENAME first TO given; ALTER TABLE person RENAME TO people")];
    assert_eq!(maps(&run(Layout::Sqlx, &files).unwrap())[1].0, "people#1: id=1 given=2 last=3 zip=4 street=5");
}

#[test]
fn a_backfill_of_a_column_that_was_there_gives_it_another_id_or_makes_older_edits_wait() {
    let fill =
        |set: &str, more: &str| format!("mode = \"online\"\n[[step]]\nbackfill = \"person\"\nset = \"{set}\"\nwhere = \"zip IS NULL\"\n{more}");
    let upper = fill("zip = upper(coalesce(first, 'x'))", "");
    assert_eq!(well("", &upper), "person#1: id=1 first=2 last=3 street=5 zip=6");
    let (rehearsal, said) = second("", &upper);
    assert!(said.iter().any(|s| s.starts_with("WB038")), "{said:?}");
    let change = rehearsal.versions[1].rows.columns.clone().unwrap();
    assert_eq!(serde_json::to_string(&change.renewed).unwrap(), "[[1,4,6]]");
    let waits = fill("zip = upper(coalesce(first, 'x'))", "[sync.person]\nmin_schema = \"this\"");
    assert_eq!(well("", &waits), "person#1: id=1 first=2 last=3 zip=4 street=5");
    refused("", &fill("zip = 'x', id = upper(id)", ""), &["WB039 person exchanges rows, and its backfill changes id"]);
    refused("", &fill("zip = hex(randomblob(2))", ""), &["WB039", "randomblob() does not always give the same"]);
    refused("", &fill("zip = (SELECT max(last) FROM person)", ""), &["WB039", "it has a SELECT of its own"]);
    let later = fill("zip = 'x'", "[[step]]\nsql = \"later.sql\"\n[[carry]]\ntable = \"person\"\nrename = { zip = \"code\" }");
    let later = [
        ("1_a/up.sql", PERSON),
        ("1_a/migration.toml", "[sync.person]"),
        ("2_b/later.sql", "ALTER TABLE person RENAME zip TO code"),
        ("2_b/migration.toml", later.as_str()),
    ];
    assert_eq!(maps(&run(Layout::Whimbrel, &later).unwrap())[1].0, "person#1: id=1 first=2 last=3 street=5 code=6");
    // At its own place in the migration: the column that it reads is gone before the end, and a view does not stand in between.
    let moved = "mode = \"online\"\ndestructive = true\n[[step]]\nsql = \"up.sql\"\n[[step]]\nbackfill = \"person\"\nset = \"mail = zip || '@'\"\nwhere = \"mail IS NULL AND zip IS NOT NULL\"\n[[step]]\nsql = \"end.sql\"\n[[carry]]\ntable = \"person\"\ndrop = { zip = \"archive\" }";
    let files = [
        ("1_a/up.sql", PERSON),
        ("1_a/migration.toml", "[sync.person]"),
        ("2_b/up.sql", "ALTER TABLE person ADD mail TEXT"),
        ("2_b/end.sql", "ALTER TABLE person DROP zip"),
        ("2_b/migration.toml", moved),
    ];
    let rehearsal = run(Layout::Whimbrel, &files).unwrap();
    assert_eq!(rehearsal.versions[1].found.filled[0].columns, ["mail"]);
    assert_eq!(maps(&rehearsal)[1].0, "person#1: id=1 first=2 last=3 street=5 mail=6");
}

#[test]
fn rows_of_older_versions_need_a_way_to_what_is_split_or_keyed_anew() {
    let split = "ALTER TABLE person ADD family TEXT; ALTER TABLE person ADD suffix TEXT; ALTER TABLE person DROP last";
    let toml = "destructive = true\n[[carry]]\ntable = \"person\"\nsplit = { last = [\"family\", \"suffix\"] }\n";
    refused(split, toml, &["WB040", "family, suffix", "min_schema = \"this\" in [sync.person]"]);
    well(split, &format!("{toml}[sync.person]\nmin_schema = \"this\""));
    // What goes on in another table is nothing that a backfill writes.
    let part = "CREATE TABLE place(person TEXT NOT NULL PRIMARY KEY, road TEXT); INSERT INTO place SELECT id, street FROM person; ALTER TABLE person DROP street";
    let toml = "destructive = true\n[[carry]]\ntable = \"person\"\n[carry.into.place]\nkey = { person = \"id\" }\ncolumns = { street = \"road\" }\n";
    refused(part, toml, &["WB040", "gets its place"]);
    well(part, &format!("{toml}[sync.person]\nmin_schema = \"this\""));
    // Two columns that exchange their names, and a backfill that names them: before or after?
    let swap = "ALTER TABLE person RENAME first TO x; ALTER TABLE person RENAME last TO first; ALTER TABLE person RENAME x TO last";
    let toml = "mode = \"online\"\n[[step]]\nsql = \"up.sql\"\n[[step]]\nbackfill = \"person\"\nset = \"zip = last\"\nwhere = \"zip IS NULL\"\n[[carry]]\ntable = \"person\"\nrename = { first = \"last\", last = \"first\" }";
    refused(swap, toml, &["WB040", "change hands", "rename in one migration"]);
    let key = "CREATE TABLE n(uuid TEXT NOT NULL PRIMARY KEY, first TEXT, last TEXT, zip TEXT, street TEXT); INSERT INTO n SELECT hex(id), first, last, zip, street FROM person; DROP TABLE person; ALTER TABLE n RENAME TO person";
    refused(key, "destructive = true", &["another primary key"]);
    let carry = |expression: &str| {
        format!(
            "destructive = true\n[[carry]]\ntable = \"person\"\ndrop = {{ id = \"discard\" }}\nkey = {{ uuid = \"{expression}\" }}\n[sync.person]\nmin_schema = \"this\""
        )
    };
    assert_eq!(well(key, &carry("hex(id)")), "person#1: first=2 last=3 zip=4 street=5 uuid=6");
    refused(key, &carry("hex(randomblob(4))"), &["WB039", "its new key column uuid"]);
}

#[test]
fn what_sync_says_is_checked_against_the_schema_and_told_by_name() {
    let check = |sql: &str, sync: &str, words: &[&str]| {
        let rehearsal = run(Layout::Whimbrel, &[("1_a/up.sql", sql), ("1_a/migration.toml", sync)]).unwrap();
        let said: Vec<String> = rehearsal.findings.iter().map(|f| format!("{} {}", f.code.code(), f.what)).collect();
        assert!(words.iter().all(|word| said.iter().any(|s| s.contains(word))), "{said:?}");
    };
    check("CREATE TABLE a(id INTEGER PRIMARY KEY); CREATE VIEW v AS SELECT * FROM a", "[sync.v]", &["WB037", "said of a view"]);
    check("CREATE VIRTUAL TABLE f USING fts5(t)", "[sync.f]", &["WB037", "virtual table"]);
    check(
        "CREATE TABLE a(p NOT NULL, q NOT NULL, r NOT NULL, s NOT NULL, t NOT NULL, PRIMARY KEY(p, q, r, s, t))",
        "[sync.a]",
        &["WB037", "has 5 columns"],
    );
    check("CREATE TABLE a(x)", "[sync.a]", &["WB025", "no declared primary key"]);
    check("CREATE TABLE a(id TEXT NOT NULL PRIMARY KEY, b); CREATE UNIQUE INDEX i ON a(b) WHERE b", "[sync.a]", &["WB041", "index i: it is partial"]);
}

#[test]
fn a_sample_shows_that_values_did_not_go_where_carry_says() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sample.db");
    let sample = Connection::open(&path).unwrap();
    sample.execute_batch(PERSON).unwrap();
    sample.execute_batch("INSERT INTO person VALUES ('a', 'Ada', 'King', '1', 'Road 1'), ('b', 'Bo', NULL, NULL, NULL)").unwrap();
    let check = |sql: &str, carry: &str, lost: Option<&str>| {
        let toml = format!("destructive = true\n[[carry]]\ntable = \"person\"\n{carry}");
        let files = [("1_a/up.sql", PERSON), ("2_b/up.sql", sql), ("2_b/migration.toml", toml.as_str())];
        let chain = chain(Layout::Whimbrel, &files);
        let rehearsal = rehearse(&chain, false, &mut |_| {}).unwrap();
        match (rehearse_sample(&chain, &rehearsal, &path), lost) {
            (Ok(_), None) => {}
            (Err(error @ RehearsalError::NotCarried { .. }), Some(word)) => assert!(error.to_string().contains(word), "{error}"),
            (result, _) => panic!("{sql}: {:?}", result.map_err(|e| e.to_string())),
        }
    };
    let rename = "rename = { first = \"given\" }";
    check("ALTER TABLE person RENAME first TO given", rename, None);
    let rebuild = |copied: &str| {
        format!(
            "CREATE TABLE n(id TEXT NOT NULL PRIMARY KEY, given TEXT, last TEXT, zip TEXT, street TEXT); INSERT INTO n SELECT {copied} FROM person; DROP TABLE person; ALTER TABLE n RENAME TO person"
        )
    };
    check(&rebuild("id, first, last, zip, street"), rename, None);
    check(&rebuild("id, last, first, zip, street"), &format!("{rename}\n"), Some("person.first and person.given are not the same in 2 of 2 rows"));
    check("ALTER TABLE person RENAME TO people", "to = \"people\"", None);
    let split = |fill: &str| format!("ALTER TABLE person ADD f TEXT; ALTER TABLE person ADD s TEXT; {fill}; ALTER TABLE person DROP last");
    let carry = "split = { last = [\"f\", \"s\"] }";
    check(&split("UPDATE person SET f = last WHERE 1"), carry, None);
    check(&split("SELECT 1"), carry, Some("person.last and person.f, s are not the same in 1 of 2 rows"));
    let part = |copied: &str| {
        format!(
            "CREATE TABLE place(person TEXT NOT NULL PRIMARY KEY, road TEXT); INSERT INTO place SELECT {copied} FROM person; ALTER TABLE person DROP street"
        )
    };
    let carry = "[carry.into.place]\nkey = { person = \"id\" }\ncolumns = { street = \"road\" }";
    check(&part("id, street"), carry, None);
    check(&part("id, zip"), carry, Some("person.street and place.road are not the same in 1 of 2 rows"));
}
