//! Rehearsals of whole chains.

use whimbrel_shared::manifest::ForeignKeys;

use super::*;
pub(super) use crate::publish::lint::Level;
use crate::publish::{
    layout::{self, Layout},
    listing::{Listing, content},
};

pub(super) fn chain(layout: Layout, files: &[(&str, &str)]) -> Chain {
    let listing = Listing { files: files.iter().map(|(p, t)| ((*p).to_owned(), content(t.as_bytes().to_vec()))).collect() };
    layout::read(&listing, Some(layout)).unwrap()
}

pub(super) fn run(layout: Layout, files: &[(&str, &str)]) -> Result<Rehearsal, RehearsalError> {
    rehearse(&chain(layout, files), false, &mut |_| {})
}

fn codes(rehearsal: &Rehearsal) -> Vec<&str> {
    rehearsal.findings.iter().map(|f| f.code.code()).collect()
}

#[test]
fn each_version_gets_its_schema_its_oldest_sqlite_and_its_seed_form() {
    let rehearsal = run(
        Layout::Sqlx,
        &[
            ("1_a.up.sql", "CREATE TABLE a(x INTEGER PRIMARY KEY);\nINSERT INTO a VALUES (1);"),
            ("1_a.down.sql", "DROP TABLE a"),
            (
                "20240131120000_b.sql",
                "BEGIN;\nCREATE TABLE b(y TEXT) STRICT; -- one\nCREATE TRIGGER t AFTER INSERT ON b BEGIN SELECT CASE WHEN new.y THEN 1 ELSE 2 END; END;\nCOMMIT -- end",
            ),
            ("20240131120001_c.sql", "-- nothing\n"),
        ],
    )
    .unwrap();
    let [one, two, three] = rehearsal.versions.as_slice() else { panic!() };
    assert_eq!(one.schema.0.keys().collect::<Vec<_>>(), ["table a"]);
    assert_eq!((one.min_sqlite.as_deref(), two.min_sqlite.as_deref()), (None, Some("3.37.0")));
    assert_eq!(three.schema, two.schema);
    assert_eq!(
        one.seed,
        SeedQueries {
            timestamp: 1,
            up_queries: vec!["CREATE TABLE a(x INTEGER PRIMARY KEY)".into(), "INSERT INTO a VALUES (1)".into()],
            down_queries: vec!["DROP TABLE a".into()],
        }
    );
    assert_eq!(
        two.seed.up_queries,
        ["CREATE TABLE b(y TEXT) STRICT", "CREATE TRIGGER t AFTER INSERT ON b BEGIN SELECT CASE WHEN new.y THEN 1 ELSE 2 END; END",]
    );
    assert_eq!(two.seed.timestamp, 1_706_702_400_000);
    assert!(three.seed.timestamp > two.seed.timestamp && three.seed.up_queries.is_empty());
    assert_eq!((rehearsal.findings.len(), rehearsal.notes.len()), (0, 0));
}

#[test]
fn a_failure_names_the_authors_own_file_and_line() {
    let error = run(
        Layout::Goose,
        &[
            ("00001_a.sql", "-- +goose Up\nCREATE TABLE a(x);\n"),
            ("00002_b.sql", "-- +goose Up\n\nCREATE TABLE b(x);\nINSERT INTO nope VALUES (1);\n"),
        ],
    )
    .unwrap_err();
    let said = error.to_string();
    assert!(said.contains("00002_b (number 2 of 2) failed: 00002_b.sql:4:13"), "{said}");
    assert!(said.contains("no such table: nope"), "{said}");
    let refused = run(Layout::Sqlx, &[("1_a.sql", "PRAGMA writable_schema=1;")]).unwrap_err();
    assert!(matches!(&refused, RehearsalError::Failed { source, .. } if source.code() == "refused"), "{refused}");
}

#[test]
fn a_way_down_that_does_not_lead_back_is_found_and_the_chain_goes_on() {
    let files = |down: &'static str| {
        vec![
            ("1_a/up.sql", "CREATE TABLE a(x); CREATE TABLE b(y);"),
            ("1_a/down.sql", "DROP TABLE b; DROP TABLE a"),
            ("2_b/up.sql", "CREATE TABLE c(x); CREATE INDEX i ON a(x);"),
            ("2_b/down.sql", down),
            ("3_c/up.sql", "INSERT INTO c VALUES (1)"),
        ]
    };
    let check = |down: &'static str, words: &[&str]| {
        let rehearsal = run(Layout::Whimbrel, &files(down)).unwrap();
        assert_eq!(codes(&rehearsal), if words.is_empty() { vec![] } else { vec!["WB020"] }, "{down}");
        for word in words {
            assert!(rehearsal.findings[0].what.contains(word), "{}", rehearsal.findings[0].what);
        }
        assert_eq!(rehearsal.versions.len(), 3);
        rehearsal
    };
    check("DROP TABLE c; DROP INDEX i", &[]);
    let rehearsal = check("DROP TABLE c", &["does not lead back", "index i is left over"]);
    assert_eq!(rehearsal.findings[0].level, Level::Error);
    check("DROP TABLE c; DROP INDEX i; DROP TABLE b", &["table b is missing"]);
    check("DROP TABLE nope", &["fails", "2_b/down.sql:1:12", "nope"]);
    check("DROP TABLE c; DROP INDEX i; CREATE TABLE c(x); DROP TABLE c; DROP TABLE a; CREATE TABLE a(x TEXT)", &["table a differs"]);
}

const PARENT: &str =
    "CREATE TABLE p(id INTEGER PRIMARY KEY, a TEXT); CREATE TABLE c(id INTEGER PRIMARY KEY, p INT REFERENCES p(id) ON DELETE CASCADE);
    INSERT INTO p VALUES (1, 'x'); INSERT INTO c VALUES (1, 1);";

#[test]
fn rebuilds_of_a_parent_in_every_tools_style_keep_the_children() {
    let rebuild = r#"CREATE TABLE "new_p" ("id" INTEGER PRIMARY KEY, "a" TEXT NOT NULL); INSERT INTO "new_p" ("id", "a") SELECT "id", "a" FROM "p"; DROP TABLE "p"; ALTER TABLE "new_p" RENAME TO "p";"#;
    for (style, sql) in [
        (
            "Prisma",
            format!(
                "-- RedefineTables\nPRAGMA defer_foreign_keys=ON;\nPRAGMA foreign_keys=OFF;\n{rebuild}\nPRAGMA foreign_keys=ON;\nPRAGMA defer_foreign_keys=OFF;"
            ),
        ),
        ("Prisma, older", format!("PRAGMA foreign_keys=OFF;\n{rebuild}\nPRAGMA foreign_key_check;\nPRAGMA foreign_keys=ON;")),
        ("TypeORM", rebuild.to_owned()),
        ("TypeORM with pragmas", format!("PRAGMA foreign_keys = OFF; BEGIN TRANSACTION; {rebuild} COMMIT; PRAGMA foreign_keys = ON")),
        (
            "Rails",
            format!("PRAGMA defer_foreign_keys = ON; PRAGMA foreign_keys = OFF; {rebuild} PRAGMA defer_foreign_keys = 0; PRAGMA foreign_keys = 1"),
        ),
        ("Django", format!("BEGIN; {rebuild} COMMIT;")),
        ("by hand", format!("pragma foreign_keys(0);\r\nbegin immediate;\r\n{rebuild}\r\nend;\r\npragma foreign_keys(1);\r\n-- done")),
    ] {
        let rehearsal =
            run(Layout::Sqlx, &[("1_a.sql", PARENT), ("2_b.sql", &sql), ("3_c.sql", "INSERT INTO c(id, p) SELECT 7, p FROM c WHERE id = 1")])
                .unwrap_or_else(|error| panic!("{style}: {error}"));
        assert_eq!(codes(&rehearsal), [""; 0], "{style}");
        assert_eq!(rehearsal.versions[2].performed.rows, 1, "{style}: the child is gone");
    }
}

const ASIDE: &str = r#"ALTER TABLE "p" RENAME TO "temporary_p"; CREATE TABLE p(id INTEGER PRIMARY KEY, a TEXT); INSERT INTO "p"("id", "a") SELECT "id", "a" FROM "temporary_p"; DROP TABLE "temporary_p""#;

#[test]
fn typeorms_ways_down_lead_back_as_they_are() {
    let up = r#"CREATE TABLE "temporary_p" ("id" integer PRIMARY KEY, "a" varchar NOT NULL); INSERT INTO "temporary_p"("id", "a") SELECT "id", "a" FROM "p"; DROP TABLE "p"; ALTER TABLE "temporary_p" RENAME TO "p""#;
    let down: Vec<String> = ASIDE.split("; ").map(str::to_owned).collect();
    let json = serde_json::json!([
        { "timestamp": 1, "migrationName": "A1", "upQueries": PARENT.split_inclusive(';').map(str::trim).collect::<Vec<_>>() },
        { "timestamp": 2, "migrationName": "B2", "upQueries": up.split("; ").collect::<Vec<_>>(), "downQueries": down },
    ]);
    let rehearsal = run(Layout::SeedJson, &[("all.json", &json.to_string())]).unwrap();
    assert_eq!(codes(&rehearsal), [""; 0], "{:?}", rehearsal.findings);
    // A seed client reads no manifest.
    let queries = &rehearsal.versions[1].seed.down_queries;
    assert_eq!(
        (queries[0].as_str(), &queries[1..5], queries[5].as_str()),
        ("PRAGMA legacy_alter_table = ON", down.as_slice(), "PRAGMA legacy_alter_table = OFF")
    );

    let ours = |toml: &[(&'static str, &'static str)]| {
        let files = [&[("1_a/up.sql", PARENT), ("2_b/up.sql", up), ("2_b/down.sql", ASIDE)], toml].concat();
        let rehearsal = run(Layout::Whimbrel, &files).unwrap();
        rehearsal.findings.iter().map(|f| (f.code.code(), f.remedy.contains("legacy_alter_table = \"down\""))).collect::<Vec<_>>()
    };
    assert_eq!(ours(&[]), []);
    assert_eq!(ours(&[("2_b/migration.toml", "description = \"says nothing of it\"")]), [("WB020", true)]);
    assert_eq!(ours(&[("2_b/migration.toml", "legacy_alter_table = \"down\"")]), []);
}

#[test]
fn a_rebuild_that_loses_an_index_or_breaks_a_reference_is_found() {
    let before = "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p INT REFERENCES p(id)); CREATE INDEX i ON p(id);";
    let rehearsal = run(
        Layout::Sqlx,
        &[
            ("1_a.sql", before),
            ("2_b.sql", "CREATE TABLE n(id INTEGER PRIMARY KEY); INSERT INTO n SELECT id FROM p; DROP TABLE p; ALTER TABLE n RENAME TO p"),
            (
                "3_c.sql",
                "ALTER TABLE p RENAME TO p_old; CREATE TABLE p(id INTEGER PRIMARY KEY); INSERT INTO p SELECT id FROM p_old; DROP TABLE p_old",
            ),
        ],
    )
    .unwrap();
    assert_eq!(codes(&rehearsal), ["WB010", "WB024"]);
    assert!(rehearsal.findings[1].what.contains("c refers to p_old"), "{}", rehearsal.findings[1].what);
}

#[test]
fn cascades_act_where_the_author_wants_them() {
    let files = [("1_a.sql", PARENT), ("2_b.sql", "PRAGMA foreign_keys=ON; DELETE FROM p WHERE id = 1;"), ("3_c.sql", "DELETE FROM c WHERE 1")];
    assert_eq!(chain(Layout::Sqlx, &files).migrations[1].migration.manifest.foreign_keys, ForeignKeys::On);
    let rehearsal = run(Layout::Sqlx, &files).unwrap();
    assert_eq!(rehearsal.versions[2].performed.rows, 0);
}

#[test]
fn keys_that_sqlite_assigns_are_not_exchanged_without_a_word() {
    let toml = |keys: &str| format!("[sync.a]\n{keys}");
    for (table, keys, want) in [
        ("CREATE TABLE a(id INTEGER PRIMARY KEY)", "", vec!["WB025"]),
        ("CREATE TABLE a(id INTEGER PRIMARY KEY)", "keys = \"renumber\"", vec![]),
        ("CREATE TABLE a(id INTEGER PRIMARY KEY)", "direction = \"push\"", vec![]),
        ("CREATE TABLE a(id TEXT NOT NULL PRIMARY KEY)", "", vec![]),
        ("CREATE TABLE a(id TEXT PRIMARY KEY)", "", vec!["WB042"]),
        ("CREATE TABLE a(id INT, b INT, PRIMARY KEY(id, b)) WITHOUT ROWID", "", vec![]),
        ("CREATE TABLE a(id INT)", "", vec!["WB025"]),
    ] {
        let rehearsal = run(Layout::Whimbrel, &[("1_a/up.sql", table), ("1_a/migration.toml", &toml(keys))]).unwrap();
        assert_eq!(codes(&rehearsal), want, "{table} {keys}");
    }
}

#[test]
fn a_sample_shows_what_an_empty_database_cannot() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sample.db");
    let files = [
        ("1_a.sql", "CREATE TABLE a(x TEXT)"),
        ("2_b.sql", "ALTER TABLE a ADD COLUMN y TEXT; UPDATE a SET y = x"),
        ("3_c.sql", "CREATE UNIQUE INDEX i ON a(y)"),
    ];
    let chain = chain(Layout::Sqlx, &files);
    let rehearsal = rehearse(&chain, false, &mut |_| {}).unwrap();
    let sample = Connection::open(&path).unwrap();
    sample.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE theirs(z); CREATE TABLE a(x TEXT); INSERT INTO a VALUES ('1'), ('2')").unwrap();

    let (at, runs) = rehearse_sample(&chain, &rehearsal, &path).unwrap();
    assert_eq!((at, runs.len(), runs[0].rows), (1, 2, 2));
    // The sample is only read.
    assert_eq!(sample.query_row("SELECT count(*) FROM pragma_table_info('a')", [], |row| row.get::<_, i64>(0)).unwrap(), 1);

    // What was wrong in it before is no migration's fault.
    sample.execute_batch("CREATE VIEW broken AS SELECT nope FROM a; PRAGMA foreign_keys=OFF; CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE child(x REFERENCES p(id)); INSERT INTO child VALUES (9)").unwrap();
    rehearse_sample(&chain, &rehearsal, &path).unwrap();
    sample.execute_batch("INSERT INTO a VALUES ('2')").unwrap();
    let error = rehearse_sample(&chain, &rehearsal, &path).unwrap_err();
    assert!(error.to_string().contains("3_c") && error.to_string().contains("UNIQUE"), "{error}");

    sample.execute_batch("ALTER TABLE a ADD COLUMN other").unwrap();
    let error = rehearse_sample(&chain, &rehearsal, &path).unwrap_err();
    assert!(error.to_string().contains("closest to version 1") && error.to_string().contains("table a differs"), "{error}");

    std::fs::write(
        dir.path().join("text"),
        "no database at all, and long enough to be read as one, with more than one hundred bytes of it, so that it has a header",
    )
    .unwrap();
    assert!(matches!(rehearse_sample(&chain, &rehearsal, &dir.path().join("text")), Err(RehearsalError::SampleCopy { .. })));
}

#[test]
fn a_backfill_that_fails_on_a_made_up_row_is_found() {
    let table = "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, kind TEXT NOT NULL)";
    let found = |up: &str, set: &str, filter: &str| {
        let toml = format!("[[step]]\nsql = \"up.sql\"\n[[step]]\nbackfill = \"notes\"\nset = \"{set}\"\nwhere = \"{filter}\"\n");
        let rehearsal = run(Layout::Whimbrel, &[("1_a/up.sql", table), ("2_b/up.sql", up), ("2_b/migration.toml", &toml)]).unwrap();
        assert_eq!(rehearsal.versions[1].performed.rows, 0, "a made-up row stays");
        rehearsal.findings.into_iter().map(|f| (f.level, f.code.code(), f.what)).collect::<Vec<_>>()
    };
    let slug = "ALTER TABLE notes ADD COLUMN slug TEXT";
    assert_eq!(found(slug, "slug = coalesce(title, '')", "slug IS NULL"), []);
    let again = found(slug, "slug = lower(title)", "slug IS NULL");
    assert!(matches!(again.as_slice(), [(Level::Warning, "WB035", what)] if what.contains("NULL wherever it is allowed")), "{again:?}");
    let never = found(slug, "slug = lower(title)", "id > 0");
    assert!(never.iter().any(|(level, _, what)| *level == Level::Error && what.contains("value in each column")), "{never:?}");
    let null = found("ALTER TABLE notes ADD COLUMN words INTEGER NOT NULL DEFAULT 0", "words = length(title) + 1", "words = 0");
    assert!(matches!(null.as_slice(), [(Level::Warning, "WB035", what)] if what.contains("NOT NULL")), "{null:?}");
}

#[test]
fn a_way_down_that_does_not_lead_back_from_half_way_is_found() {
    let toml = "mode = \"online\"\n[[step]]\nsql = \"up.sql\"\n[[step]]\nbackfill = \"a\"\nset = \"y = 1\"\nwhere = \"y IS NULL\"\n[[step]]\nsql = \"index.sql\"\n";
    let found = |down: &str| {
        let files = [
            ("1_a/up.sql", "CREATE TABLE a(x)"),
            ("2_b/up.sql", "ALTER TABLE a ADD COLUMN y"),
            ("2_b/index.sql", "CREATE INDEX i ON a(y)"),
            ("2_b/migration.toml", toml),
            ("2_b/down.sql", down),
        ];
        let rehearsal = run(Layout::Whimbrel, &files).unwrap();
        assert_eq!(rehearsal.versions[1].no_way_back.is_some(), codes(&rehearsal).contains(&"WB027"));
        rehearsal.findings.into_iter().map(|f| (f.code.code(), f.what)).collect::<Vec<_>>()
    };
    assert_eq!(found("DROP INDEX IF EXISTS i; ALTER TABLE a DROP COLUMN y"), []);
    let not = found("DROP INDEX i; ALTER TABLE a DROP COLUMN y");
    assert!(matches!(not.as_slice(), [("WB027", what)] if what.contains("after step 1") && what.contains("no such index")), "{not:?}");
}

#[test]
fn a_type_that_changes_under_its_values_is_found() {
    let found = |new: &str| {
        let rebuild = format!("CREATE TABLE n({new}; INSERT INTO n SELECT * FROM p; DROP TABLE p; ALTER TABLE n RENAME TO p");
        codes(&run(Layout::Sqlx, &[("1_a.sql", "CREATE TABLE p(id INTEGER, code TEXT)"), ("2_b.sql", &rebuild)]).unwrap()).join(" ")
    };
    assert_eq!(found("id INTEGER, code VARCHAR(9))"), "");
    assert_eq!(found("id REAL, code TEXT)"), "");
    assert_eq!(found("id INTEGER, code INTEGER)"), "WB016");
    assert_eq!(found("id INTEGER, code TEXT) STRICT"), "WB016 WB016");
}

#[test]
fn a_load_by_a_key_that_is_not_unique_stops_the_rehearsal_with_its_remedy() {
    let toml = "[[step]]\nload = \"rows.csv\"\ninto = \"a\"\nkey = [\"x\"]\n";
    let error =
        run(Layout::Whimbrel, &[("1_a/up.sql", "CREATE TABLE a(x, y)"), ("2_b/rows.csv", "x,y\n1,2\n"), ("2_b/migration.toml", toml)]).unwrap_err();
    assert!(error.remedy().sentence().contains("WB031"), "{error}: {}", error.remedy().sentence());
}
