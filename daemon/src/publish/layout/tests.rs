//! Every layout with what its tool really writes.

use proptest::prelude::*;
use whimbrel_shared::manifest::ForeignKeys;

use super::*;
use crate::publish::listing::{Content, content};

fn listing(files: &[(&str, &str)]) -> Listing {
    Listing { files: files.iter().map(|(path, text)| ((*path).to_owned(), content(text.as_bytes().to_vec()))).collect() }
}

fn chain(files: &[(&str, &str)]) -> Chain {
    read(&listing(files), None).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(files: &[(&str, &str)], words: &[&str]) {
    let error = read(&listing(files), None).unwrap_err();
    let said = format!("{error}\n{}", error.remedy().sentence());
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

/// Layout, and each migration as `name|up|down`.
fn check(files: &[(&str, &str)], layout: Layout, want: &[(&str, &str, Option<&str>)]) {
    let chain = chain(files);
    assert_eq!(chain.layout, layout);
    let found: Vec<_> = chain
        .migrations
        .iter()
        .map(|a| {
            let m = &a.migration;
            let down = m.down.as_deref().and_then(|d| m.file(d));
            (m.name.as_str(), m.file("up.sql").unwrap_or_default(), down)
        })
        .collect();
    assert_eq!(found, want);
}

#[test]
fn our_layout() {
    let files = [
        ("0002_more/up.sql", "ALTER TABLE a ADD COLUMN b;"),
        ("0002_more/migration.toml", "description = \"b\"\n"),
        ("0002_more/README.md", "why"),
        ("0010_last/up.sql", ""),
        ("0001_init/up.sql", "CREATE TABLE a(x);"),
        ("0001_init/down.sql", "DROP TABLE a;"),
        ("README.md", "about"),
    ];
    check(
        &files,
        Layout::Whimbrel,
        &[("0001_init", "CREATE TABLE a(x);", Some("DROP TABLE a;")), ("0002_more", "ALTER TABLE a ADD COLUMN b;", None), ("0010_last", "", None)],
    );
    let chain = chain(&files);
    assert_eq!(chain.migrations[1].unused, ["README.md"]);
    assert_eq!(chain.migrations[1].migration.manifest.description, "b");
    assert!(chain.notes.iter().any(|n| n.contains("README.md")), "{:?}", chain.notes);
    assert!(chain.notes.iter().any(|n| n.contains("3, 4, 5")), "{:?}", chain.notes);
}

#[test]
fn our_steps_bring_their_files() {
    let toml = "[[step]]\nsql = \"a.sql\"\n[[step]]\nload = \"cards.ndjson\"\ninto = \"cards\"\nkey = [\"id\"]\n";
    let chain =
        chain(&[("1_x/migration.toml", toml), ("1_x/a.sql", "A"), ("1_x/cards.ndjson", "{}"), ("1_x/up.sql", "never"), ("1_x/down.sql", "D")]);
    let files: Vec<_> = chain.migrations[0].migration.files.keys().cloned().collect();
    assert_eq!(files, ["a.sql", "cards.ndjson", "down.sql"]);
    assert_eq!(chain.migrations[0].unused, ["up.sql"]);
    refused(&[("1_x/migration.toml", toml), ("1_x/a.sql", "A")], &["1_x/cards.ndjson", "1_x/migration.toml"]);
    refused(&[("1_x/migration.toml", "[[step]]\nsql = \"../2_y/up.sql\"\n"), ("2_y/up.sql", "A")], &["../2_y/up.sql"]);
    refused(&[("1_x/migration.toml", "destuctive = true\n"), ("1_x/up.sql", "A")], &["1_x/migration.toml", "line 1", "destuctive"]);
    refused(&[("1_x/up.sql", "A"), ("init/up.sql", "B"), ("1_x/migration.toml", "")], &["init", "number"]);
}

#[test]
fn golang_migrate_and_sqlx() {
    check(
        &[
            ("000010_z.up.sql", "Z"),
            ("000002_b.up.sql", "B;"),
            ("000002_b.down.sql", "-- nothing\n"),
            ("000001_init.up.sql", "A"),
            ("000001_init.down.sql", "DOWN"),
            ("embed.go", "package migrations"),
            ("README.md", ""),
        ],
        Layout::GolangMigrate,
        &[("000001_init", "A", Some("DOWN")), ("000002_b", "B;", None), ("000010_z", "Z", None)],
    );
    check(
        &[("9_b.sql", "B"), ("10_c.sql", "C"), ("2_a.up.sql", "A"), ("2_a.down.sql", "D"), ("schema.sql", "no")],
        Layout::Sqlx,
        &[("2_a", "A", Some("D")), ("9_b", "B", None), ("10_c", "C", None)],
    );
    check(
        &[("20240101120000_a.sql", ""), ("20240101120001_b.sql", "  ")],
        Layout::Sqlx,
        &[("20240101120000_a", "", None), ("20240101120001_b", "  ", None)],
    );
    check(
        &[("V0001.First.up.sql", "A"), ("V0001.First.down.sql", "D"), ("V0002.Second.up.sql", "B")],
        Layout::GolangMigrate,
        &[("V0001.First", "A", Some("D")), ("V0002.Second", "B", None)],
    );
    check(&[("1_a.up.db.sql", "A"), ("1_a.down.db.sql", "D")], Layout::GolangMigrate, &[("1_a", "A", Some("D"))]);
    refused(&[("1_a.up.sql", "A"), ("01_b.up.sql", "B")], &["1_a.up.sql", "01_b.up.sql", "number 1"]);
    refused(&[("1_a.up.sql", "A"), ("2_b.down.sql", "B")], &["2_b.down.sql"]);
}

#[test]
fn diesel_and_rusqlite_migration() {
    check(
        &[
            ("2018-02-17-205753_create_collections/up.sql", "B"),
            ("2018-02-17-205753_create_collections/down.sql", ""),
            ("2018-01-13-205510_create_ciphers/up.sql", "A"),
            ("2018-01-13-205510_create_ciphers/down.sql", "D"),
            ("00000000000000_diesel_initial_setup/up.sql", "-- setup"),
            (".gitkeep", ""),
        ],
        Layout::Diesel,
        &[
            ("00000000000000_diesel_initial_setup", "-- setup", None),
            ("2018-01-13-205510_create_ciphers", "A", Some("D")),
            ("2018-02-17-205753_create_collections", "B", None),
        ],
    );
    // diesel sorts stamps as text: a shorter one of a later day comes later.
    check(
        &[("2024-03-13_170000_b/up.sql", "B"), ("2024-03-06-170000_a/up.sql", "A"), ("2024-06-05-131359_c/up.sql", "C")],
        Layout::Diesel,
        &[("2024-03-06-170000_a", "A", None), ("2024-03-13_170000_b", "B", None), ("2024-06-05-131359_c", "C", None)],
    );
    check(&[("01-b/up.sql", "B"), ("02-a/up.sql", "A")], Layout::Diesel, &[("01-b", "B", None), ("02-a", "A", None)]);
}

#[test]
fn refinery_and_flyway() {
    check(
        &[("V2__b.sql", "B"), ("V10__c.sql", "C"), ("V1__a.sql", "A"), ("mod.rs", ""), ("U3__free.sql", "F")],
        Layout::Refinery,
        &[("V1__a", "A", None), ("V2__b", "B", None), ("U3__free", "F", None), ("V10__c", "C", None)],
    );
    check(
        &[("V1.10__c.sql", "C"), ("V1.2__b.sql", "B"), ("V1__a.sql", "A"), ("U1__a.sql", "D")],
        Layout::Refinery,
        &[("V1__a", "A", Some("D")), ("V1.2__b", "B", None), ("V1.10__c", "C", None)],
    );
    refused(&[("V1__a.sql", "A"), ("V01__b.sql", "B")], &["V1__a.sql", "V01__b.sql"]);
    refused(&[("V1__a.sql", "A"), ("V2__b.rs", "B")], &["V2__b.rs", "write what it does as SQL"]);
    refused(&[("V1__a.sql", "A"), ("R__views.sql", "B")], &["R__views.sql", "repeatable"]);
}

#[test]
fn goose() {
    let text = "-- a title\n-- +goose Up\nCREATE TABLE a(x);\n-- +goose StatementBegin\nCREATE TRIGGER t AFTER INSERT ON a BEGIN\n  DELETE FROM a;\nEND\n-- +goose StatementEnd\n\n-- +goose Down\nDROP TABLE a;\n";
    check(
        &[("00001_init.sql", text), ("00002_none.sql", "-- +goose Up\n-- +goose Down\n")],
        Layout::Goose,
        &[
            ("00001_init", "CREATE TABLE a(x);\n\nCREATE TRIGGER t AFTER INSERT ON a BEGIN\n  DELETE FROM a;\nEND\n;\n", Some("DROP TABLE a;\n")),
            ("00002_none", "", None),
        ],
    );
    let chain = chain(&[("00001_init.sql", text)]);
    assert_eq!(chain.migrations[0].place("up.sql", 3), ("00001_init.sql".to_owned(), 5));
    assert_eq!(chain.migrations[0].place("down.sql", 1), ("00001_init.sql".to_owned(), 11));

    refused(&[("1_a.sql", "-- +goose Up\nA;"), ("2_b.go", "package m")], &["2_b.go", "code"]);
    refused(&[("1_a.sql", "-- +goose Up\n-- +goose ENVSUB ON\nA;")], &["1_a.sql:2", "ENVSUB"]);
    refused(&[("1_a.sql", "A;\n-- +goose Up\nA;")], &["1_a.sql:2", "before"]);
    refused(&[("1_a.sql", "-- +goose Up\nA;"), ("2_b.sql", "B;")], &["goose (1_a.sql)", "sqlx (2_b.sql)", "--layout goose"]);
    let notes = self::chain(&[("1_a.sql", "-- +goose NO TRANSACTION\r\n-- +goose Up\r\nA;\r\n")]).notes;
    assert!(notes[0].contains("no transaction"), "{notes:?}");
}

#[test]
fn sql_migrate_and_dbmate() {
    check(
        &[("1_a.sql", "-- +migrate Up\nA;\n-- +migrate Down\nD;"), ("2_b.sql", "")],
        Layout::SqlMigrate,
        &[("1_a", "A;\n", Some("D;\n")), ("2_b", "", None)],
    );
    check(
        &[
            ("20151129054053_test.sql", "-- migrate:up transaction:false\r\nA;\r\n\r\n-- migrate:down\r\nD;\r\n"),
            ("20151129054054_last.sql", "-- migrate:up\nA\n\n-- migrate:down\n\n"),
        ],
        Layout::Dbmate,
        &[("20151129054053_test", "A;\n", Some("D;\n")), ("20151129054054_last", "A\n", None)],
    );
    // Several blocks: their lines stay where they are.
    check(&[("1_a.sql", "-- migrate:up\nA;\n-- migrate:down\nD;\n-- migrate:up\nB;\n")], Layout::Dbmate, &[("1_a", "A;\n\n\n\nB;\n", Some("D;\n"))]);
}

#[test]
fn prisma() {
    check(
        &[
            ("20240102000000_b/migration.sql", "B"),
            ("20240101000000_init/migration.sql", "A"),
            ("0_init/migration.sql", "0"),
            ("migration_lock.toml", "# do not edit\nprovider = \"sqlite\"\n"),
        ],
        Layout::Prisma,
        &[("0_init", "0", None), ("20240101000000_init", "A", None), ("20240102000000_b", "B", None)],
    );
    refused(
        &[("20240101000000_init/migration.sql", "A"), ("migration_lock.toml", "provider = \"postgresql\"")],
        &["migration_lock.toml", "postgresql"],
    );
}

#[test]
fn drizzle() {
    let journal = r#"{"version":"7","dialect":"sqlite","entries":[
        {"idx":1,"version":"6","when":1710000000001,"tag":"0001_b","breakpoints":true},
        {"idx":0,"version":"6","when":1710000000000,"tag":"0000_a","breakpoints":true}]}"#;
    let files = [
        ("meta/_journal.json", journal),
        ("meta/0000_snapshot.json", "{}"),
        ("0000_a.sql", "CREATE TABLE a(x)\n--> statement-breakpoint\nCREATE TABLE b(x);"),
        ("0001_b.sql", "B;"),
        ("0002_stray.sql", "S;"),
    ];
    check(&files, Layout::Drizzle, &[("0000_a", "CREATE TABLE a(x)\n;--> statement-breakpoint\nCREATE TABLE b(x);", None), ("0001_b", "B;", None)]);
    let chain = chain(&files);
    assert_eq!(chain.migrations[1].timestamp_ms, Some(1_710_000_000_001));
    assert!(chain.notes.iter().any(|n| n.contains("0002_stray.sql")), "{:?}", chain.notes);
    refused(&files[..3], &["0001_b.sql", "meta/_journal.json"]);
    refused(&[("meta/_journal.json", "{\"dialect\":\"postgresql\",\"entries\":[]}")], &["postgresql"]);
    check(&[("20240101000000_a/migration.sql", "A"), ("20240101000000_a/snapshot.json", "{}")], Layout::Drizzle, &[("20240101000000_a", "A", None)]);
}

#[test]
fn seed_json() {
    let one = r#"{"timestamp":"1700000000001","migrationName":"B1700000000001","upQueries":["B"],"downQueries":[]}"#;
    let list =
        r#"[{"timestamp":1700000000000,"migrationName":"A1700000000000","upQueries":["A;","A2 -- c"],"downQueries":["D"],"clientApplied":true}]"#;
    check(
        &[("b.json", one), ("z.json", list), ("package.json", "{}")],
        Layout::SeedJson,
        &[("A1700000000000", "A;\nA2 -- c\n;\n", Some("D\n;\n")), ("B1700000000001", "B\n;\n", None)],
    );
    let chain = chain(&[("z.json", list)]);
    assert_eq!(chain.migrations[0].place("up.sql", 1).0, "z.json#A1700000000000.upQueries");
    assert!(chain.notes.is_empty(), "{:?}", chain.notes);
    refused(&[("a.json", "{\"migrationName\":\"x\",\"upQueries\":3}")], &["a.json", "migration 1"]);
    refused(&[("a.json", "{\"migrationName\":\"x\",\"upQueries\":[}")], &["a.json", "line 1"]);
}

#[test]
fn a_directory_of_several_layouts_is_refused_and_can_be_forced() {
    let files = [("V1__a.sql", "A"), ("1_a.sql", "B"), ("0001_x/up.sql", "C")];
    refused(&files, &["3 layouts", "whimbrel (0001_x)", "sqlx (1_a.sql)", "refinery (V1__a.sql)", "--layout refinery"]);
    let chain = read(&listing(&files), Some(Layout::Refinery)).unwrap();
    assert_eq!(chain.migrations.len(), 1);
    assert!(chain.notes[0].contains("1_a.sql"), "{:?}", chain.notes);
}

#[test]
fn a_directory_without_migrations_says_what_is_there() {
    refused(&[], &["no files", "whimbrel new"]);
    refused(&[("README.md", ""), ("src/main.rs", "")], &["README.md", "src/main.rs"]);
    refused(&[("migrations/1_a.sql", "A"), ("schema.prisma", "")], &["the directory migrations"]);
}

#[test]
fn code_in_any_language_is_refused_by_name() {
    for file in ["1611111111111-Init.ts", "20200101120000_users.js", "0001_initial.py", "V3__x.java", "00002_seed.go"] {
        refused(&[(file, "x"), ("1_a.sql", "A")], &[file, "code"]);
    }
    // Helpers beside the migrations are not migrations.
    chain(&[("1_a.sql", "A"), ("embed.go", ""), ("mod.rs", ""), ("index.ts", ""), ("001_test.go", "")]);
}

#[test]
fn a_file_that_is_not_text_is_named() {
    let mut files = listing(&[("1_a.sql", "A")]);
    files.files.insert("2_b.sql".to_owned(), Content::NotText);
    let error = read(&files, None).unwrap_err();
    assert!(error.to_string().contains("2_b.sql is not UTF-8"), "{error}");
    files.files.insert("2_b.sql".to_owned(), Content::Outside);
    assert!(read(&files, None).unwrap_err().to_string().contains("leads out"));
    assert_eq!(content(b"\xef\xbb\xbfA\r\n-- end".to_vec()), Content::Text("A\r\n-- end".to_owned()));
    assert_eq!(content(b"A\0B".to_vec()), Content::NotText);
}

#[test]
fn a_name_that_no_migration_may_have_is_refused_with_its_file() {
    refused(&[("1_a:b.sql", "A")], &["1_a:b.sql", "rename"]);
}

#[test]
fn cascades_are_wanted_only_where_a_script_turns_them_on_first_and_drops_nothing() {
    let check = |sql: &str, want: ForeignKeys| {
        let chain = chain(&[("1_a.sql", sql)]);
        assert_eq!(chain.migrations[0].migration.manifest.foreign_keys, want, "{sql}");
    };
    check("PRAGMA foreign_keys = ON; DELETE FROM a WHERE x;", ForeignKeys::On);
    check("PRAGMA foreign_keys(1);", ForeignKeys::On);
    check("PRAGMA foreign_keys=OFF; CREATE TABLE a(x); PRAGMA foreign_keys=ON;", ForeignKeys::Off);
    check("PRAGMA foreign_keys=ON; DROP TABLE a;", ForeignKeys::Off);
    check("-- PRAGMA foreign_keys=ON;\nCREATE TABLE a(x);", ForeignKeys::Off);
    check("PRAGMA foreign_keys;", ForeignKeys::Off);
    let both = chain(&[("1_a.up.sql", "PRAGMA foreign_keys=ON; CREATE TABLE a(x);"), ("1_a.down.sql", "DROP TABLE a;")]);
    assert_eq!(both.migrations[0].migration.manifest.foreign_keys, ForeignKeys::Off);
    let unsure = chain(&[("1_a.up.sql", "PRAGMA foreign_keys=ON; SELECT 1;"), ("1_a.down.sql", "PRAGMA foreign_keys=OFF; SELECT 1;")]);
    assert_eq!(unsure.migrations[0].migration.manifest.foreign_keys, ForeignKeys::Off);
}

#[test]
fn every_layout_is_found_by_its_name() {
    for layout in Layout::ALL {
        assert_eq!(layout.name().parse::<Layout>(), Ok(layout));
    }
    assert!("flyway".parse::<Layout>().unwrap_err().to_string().contains("refinery"));
}

/// Paths that come close to those of the tools.
fn path() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "0001_a",
        "1_a",
        "V1__a",
        "U1__a",
        "R__a",
        "20240101120000_x",
        "2024-01-01-120000_x",
        "meta",
        "up",
        "down",
        "migration",
        "_journal",
        "snapshot",
        "a",
        "ü",
        "1",
        "V__",
        "V1__",
        "_",
        "migration_lock",
    ]);
    let end = prop::sample::select(vec![
        ".sql",
        ".up.sql",
        ".down.sql",
        ".json",
        ".toml",
        ".rs",
        ".go",
        "",
        "/up.sql",
        "/migration.sql",
        "/migration.toml",
    ]);
    (prop::collection::vec(part, 1..3), end).prop_map(|(parts, end)| format!("{}{end}", parts.join("/")))
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let line = prop::sample::select(vec![
        "-- +goose Up\n",
        "-- +goose Down\n",
        "-- +goose StatementBegin\n",
        "-- +goose StatementEnd\n",
        "-- migrate:up\n",
        "-- migrate:down x\n",
        "-- +migrate Up\n",
        "A;\n",
        "\r\n",
        "'",
        "--> statement-breakpoint",
        "{\"migrationName\":\"x\",\"upQueries\":[],\"timestamp\":-1}",
        "{\"entries\":[{\"idx\":1,\"tag\":\"1_a\",\"when\":1e300}]}",
        "PRAGMA foreign_keys=ON;",
        "[[step]]\nsql=\"up.sql\"\n",
    ]);
    prop_oneof![prop::collection::vec(any::<u8>(), 0..60), prop::collection::vec(line, 0..6).prop_map(|lines| lines.concat().into_bytes()),]
}

proptest! {
    #[test]
    fn any_bytes_under_any_names_give_a_chain_or_an_error(
        files in prop::collection::btree_map(path(), body(), 0..8),
        forced in prop::option::of(prop::sample::select(Layout::ALL.to_vec())),
    ) {
        let listing = Listing { files: files.into_iter().map(|(path, bytes)| (path, content(bytes))).collect() };
        match read(&listing, forced) {
            Ok(chain) => {
                prop_assert!(!chain.migrations.is_empty());
                for authored in &chain.migrations {
                    let bytes = authored.migration.to_bytes();
                    prop_assert_eq!(&Migration::from_bytes(&bytes).unwrap(), &authored.migration);
                }
            }
            Err(error) => {
                prop_assert!(!error.to_string().is_empty());
                prop_assert!(!error.remedy().sentence().is_empty());
            }
        }
    }
}
