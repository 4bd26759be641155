//! Each rule on the text that it is about, and on the text that it must leave alone.

use super::*;
use crate::publish::{
    layout::{self, Layout},
    listing::{Listing, content},
};

fn chain(layout: Layout, files: &[(&str, &str)]) -> Chain {
    let listing = Listing { files: files.iter().map(|(p, t)| ((*p).to_owned(), content(t.as_bytes().to_vec()))).collect() };
    layout::read(&listing, Some(layout)).unwrap()
}

fn findings(layout: Layout, files: &[(&str, &str)], strict: bool) -> Vec<Finding> {
    let ask = Ask::new().unwrap();
    lint(&chain(layout, files), strict, &|sql| ask.refused(sql))
}

const TABLES: &str = "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, body TEXT);
    CREATE TABLE tags(id INTEGER PRIMARY KEY, note INT REFERENCES notes(id) ON DELETE CASCADE);
    CREATE VIRTUAL TABLE notes_fts USING fts5(title);";

/// What our layout says of `sql` as the second migration: code and level letter, in order.
fn ours(sql: &str, toml: &str) -> Vec<String> {
    let files = [("1_a/up.sql", TABLES), ("2_b/up.sql", sql), ("2_b/migration.toml", toml)];
    findings(Layout::Whimbrel, &files, false).iter().map(short).collect()
}

fn short(finding: &Finding) -> String {
    let letter = match finding.level {
        Level::Warning => 'W',
        Level::Error => 'E',
    };
    format!("{letter}{}", &finding.code.code()[2..])
}

fn check(sql: &str, want: &[&str]) {
    assert_eq!(ours(sql, ""), want, "{sql}");
}

#[test]
fn what_destroys_rows_is_an_error_in_our_layout_until_it_is_meant() {
    for (sql, code) in [
        ("DROP TABLE notes", "E001"),
        ("ALTER TABLE notes DROP COLUMN body", "E002"),
        ("INSERT INTO tags(note) SELECT id FROM notes; ALTER TABLE notes DROP COLUMN body", "E002"),
        ("UPDATE notes SET body = '' WHERE id = 1; ALTER TABLE notes DROP COLUMN body", "E002"),
        ("DELETE FROM notes", "E017"),
        ("UPDATE notes SET title = ''", "E009"),
        ("WITH x AS (SELECT 1 WHERE 1) UPDATE notes SET (title, body) = ('', '')", "E009"),
    ] {
        check(sql, &[code]);
        assert_eq!(ours(sql, "destructive = true"), [""; 0], "{sql}");
    }
    for sql in [
        "DROP TABLE IF EXISTS new_notes",
        "CREATE TABLE scratch(x); INSERT INTO scratch SELECT 1; DELETE FROM scratch; DROP TABLE scratch",
        "CREATE TEMP TABLE scratch AS SELECT * FROM notes; DROP TABLE scratch",
        "ALTER TABLE notes ADD COLUMN x; ALTER TABLE notes DROP COLUMN x",
        "ALTER TABLE notes ADD COLUMN text; UPDATE notes SET text = body WHERE 1; ALTER TABLE notes DROP COLUMN body",
        "CREATE TABLE bodies(note, body); INSERT INTO bodies SELECT id, body FROM notes; ALTER TABLE notes DROP COLUMN body",
        "ALTER TABLE notes ADD COLUMN n; UPDATE notes SET n = (SELECT count(*) FROM tags WHERE note = notes.id) WHERE 1; DROP TABLE tags",
        "DELETE FROM notes WHERE id = 1",
        "DELETE FROM sqlite_sequence",
        "DELETE FROM notes_fts; INSERT INTO notes_fts SELECT title FROM notes",
        "CREATE TRIGGER t AFTER DELETE ON notes BEGIN DELETE FROM tags; UPDATE notes SET title = CASE WHEN 1 THEN 'x' END; END",
        "-- DROP TABLE notes;\nSELECT 'DROP TABLE notes; DELETE FROM notes'",
    ] {
        check(sql, &[]);
    }
    check("CREATE TEMP TABLE kept AS SELECT * FROM notes; DROP TABLE notes", &["E001"]);
}

#[test]
fn another_tools_migrations_are_only_warned_about_unless_strict() {
    let files = [("1_a.sql", TABLES), ("2_b.sql", "DROP TABLE notes;\nALTER TABLE tags ADD x INT NOT NULL")];
    assert_eq!(findings(Layout::Sqlx, &files, false).iter().map(short).collect::<Vec<_>>(), ["W001", "W004"]);
    assert_eq!(findings(Layout::Sqlx, &files, true).iter().map(short).collect::<Vec<_>>(), ["E001", "E004"]);
}

#[test]
fn a_rebuild_in_any_tools_style_is_no_drop() {
    for sql in [
        // SQLite's own twelve steps
        "CREATE TABLE new_notes(id INTEGER PRIMARY KEY, title TEXT); INSERT INTO new_notes SELECT id, title FROM notes; DROP TABLE notes; ALTER TABLE new_notes RENAME TO notes",
        // TypeORM
        r#"CREATE TABLE "temporary_notes" ("id" integer PRIMARY KEY AUTOINCREMENT NOT NULL, "title" varchar NOT NULL); INSERT INTO "temporary_notes"("id", "title") SELECT "id", "title" FROM "notes"; DROP TABLE "notes"; ALTER TABLE "temporary_notes" RENAME TO "notes";"#,
        // drizzle
        "PRAGMA foreign_keys=OFF;--> statement-breakpoint\nCREATE TABLE `__new_notes` (`id` integer PRIMARY KEY NOT NULL);\n--> statement-breakpoint\nINSERT INTO `__new_notes`(\"id\") SELECT \"id\" FROM `notes`;--> statement-breakpoint\nDROP TABLE `notes`;--> statement-breakpoint\nALTER TABLE `__new_notes` RENAME TO `notes`;--> statement-breakpoint\nPRAGMA foreign_keys=ON;",
        // Prisma
        "-- RedefineTables\nPRAGMA defer_foreign_keys=ON;\nPRAGMA foreign_keys=OFF;\nCREATE TABLE \"new_notes\" (\n    \"id\" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT\n);\nINSERT INTO \"new_notes\" (\"id\") SELECT \"id\" FROM \"notes\";\nDROP TABLE \"notes\";\nALTER TABLE \"new_notes\" RENAME TO \"notes\";\nPRAGMA foreign_keys=ON;\nPRAGMA defer_foreign_keys=OFF;",
        // Rails: there and back through a copy
        "CREATE TEMPORARY TABLE \"anotes\" (\"id\" integer); INSERT INTO \"anotes\" (\"id\") SELECT \"id\" FROM \"notes\"; DROP TABLE \"notes\"; CREATE TABLE \"notes\" (\"id\" integer PRIMARY KEY); INSERT INTO \"notes\" (\"id\") SELECT \"id\" FROM \"anotes\"; DROP TABLE \"anotes\"",
        // Django
        "BEGIN; CREATE TABLE \"new__notes\" (\"id\" integer NOT NULL PRIMARY KEY AUTOINCREMENT, \"title\" text NOT NULL); INSERT INTO \"new__notes\" (\"id\", \"title\") SELECT \"id\", coalesce(\"title\", '') FROM \"notes\"; DROP TABLE \"notes\"; ALTER TABLE \"new__notes\" RENAME TO \"notes\"; COMMIT;",
        // by hand, with CREATE TABLE AS
        "CREATE TABLE kept AS SELECT n.* FROM notes AS n LEFT JOIN tags t ON t.note = n.id; DROP TABLE notes; CREATE TABLE notes(id INTEGER PRIMARY KEY); INSERT INTO notes SELECT id FROM kept; DROP TABLE kept",
        // two tables into one
        "CREATE TABLE both(id, note); INSERT INTO both SELECT id, 1 FROM notes UNION ALL SELECT id, note FROM tags; DROP TABLE notes; DROP TABLE tags",
    ] {
        check(sql, &[]);
    }
    check("CREATE TABLE new_notes(id); DROP TABLE notes; ALTER TABLE new_notes RENAME TO notes", &["E001"]);
}

#[test]
fn a_rebuild_that_renames_first_is_pointed_out() {
    let sql = "ALTER TABLE notes RENAME TO notes_old; CREATE TABLE notes(id INTEGER PRIMARY KEY); INSERT INTO notes SELECT id FROM notes_old; DROP TABLE notes_old";
    check(sql, &["W006"]);
    check(&format!("PRAGMA legacy_alter_table=ON; {sql}"), &[]);
}

#[test]
fn what_breaks_an_app_that_is_running_is_pointed_out() {
    check("ALTER TABLE notes RENAME TO pages", &["W003"]);
    check("ALTER TABLE notes RENAME COLUMN title TO name", &["W003"]);
    check("CREATE TABLE a(x); ALTER TABLE a RENAME x TO y; ALTER TABLE a RENAME TO b", &[]);
}

#[test]
fn what_depends_on_the_rows_that_are_there_is_found() {
    check("ALTER TABLE notes ADD COLUMN n INT NOT NULL", &["E004"]);
    check("ALTER TABLE notes ADD COLUMN n TEXT DEFAULT CURRENT_TIMESTAMP", &["E004"]);
    check("CREATE TABLE a(x); ALTER TABLE a ADD COLUMN n INT NOT NULL", &[]);
    check("CREATE UNIQUE INDEX i ON notes(title)", &["W005"]);
    check("DELETE FROM notes WHERE id NOT IN (SELECT min(id) FROM notes GROUP BY title); CREATE UNIQUE INDEX i ON notes(title)", &[]);
    check("ALTER TABLE notes ADD COLUMN slug; UPDATE notes SET slug = lower(title)", &["W009"]);
}

#[test]
fn what_the_engine_refuses_is_an_error_in_every_layout() {
    for (sql, code) in [
        ("PRAGMA writable_schema=1", "E007"),
        ("PRAGMA max_page_count=7", "E007"),
        ("ROLLBACK", "E012"),
        ("SAVEPOINT a", "E012"),
        ("VACUUM INTO 'x.db'", "E018"),
        ("ATTACH 'x.db' AS x", "E018"),
        ("CREATE TABLE _whimbrel_x(a)", "E019"),
        ("SELECT * FROM \"_Whimbrel_events\"", "E019"),
    ] {
        check(sql, &[code]);
        let files = [("1_a.sql", sql)];
        assert_eq!(findings(Layout::Sqlx, &files, false).iter().map(short).collect::<Vec<_>>(), [code], "{sql}");
    }
    check("PRAGMA foreign_keys=OFF; BEGIN; PRAGMA user_version = 3; PRAGMA foreign_key_check; COMMIT; PRAGMA foreign_keys=ON", &[]);
    // Ours to correct in our layout; in another tool's files, which may be old, they are left out.
    for (sql, code) in [("PRAGMA journal_mode=WAL", "E007"), ("VACUUM", "E018")] {
        check(sql, &[code]);
        assert!(findings(Layout::Sqlx, &[("1_a.sql", sql)], false).is_empty(), "{sql}");
    }
    assert_eq!(ours("DROP TABLE notes", "foreign_keys = \"on\"\ndestructive = true"), ["E008"]);
}

#[test]
fn triggers_and_defaults_that_will_break_are_pointed_out() {
    check("CREATE TRIGGER t AFTER INSERT ON notes BEGIN INSERT INTO tags VALUES (new.id, 1); END", &["W013"]);
    check("CREATE TRIGGER t AFTER INSERT ON notes BEGIN INSERT INTO tags(note) VALUES (new.id); END", &[]);
    check("CREATE TABLE a(x TEXT DEFAULT \"new\", y TEXT DEFAULT 'old')", &["W014"]);
}

#[test]
fn a_migration_that_says_nothing_is_pointed_out_in_our_layout() {
    check("-- later\n", &["W026"]);
    assert!(findings(Layout::Sqlx, &[("1_a.sql", "")], false).is_empty());
}

#[test]
fn a_backfill_uses_its_own_row_only() {
    let check = |set: &str, want: &[&str]| {
        let toml = format!("[[step]]\nbackfill = \"notes\"\nset = \"\"\"{set}\"\"\"\nwhere = \"title IS NULL\"\n");
        assert_eq!(ours("", &toml), want, "{set}");
    };
    for set in [
        "title = lower(body)",
        "title = date(body)",
        "title = strftime('%Y', body)",
        "title = iif(body IN ('a', 'b'), 1, 2)",
        "title = body IS DISTINCT FROM title",
    ] {
        check(set, &["W021"]);
    }
    for set in [
        "title = hex(randomblob(4))",
        "title = datetime('now')",
        "title = datetime()",
        "title = strftime('%s')",
        "title = datetime(body, 'localtime')",
        "title = CURRENT_TIMESTAMP",
        "title = last_insert_rowid()",
        "title = sqlite_version()",
        "title = (SELECT body FROM tags)",
        "title = body IN tags",
        "title = t.note FROM tags t",
    ] {
        check(set, &["E022", "W021"]);
    }
}

#[test]
fn row_steps_that_cannot_work_are_found_before_a_device_finds_them() {
    let found = |toml: &str, shipped: (&str, &str)| {
        let files = [("1_a/up.sql", TABLES), ("2_b/migration.toml", toml), (shipped.0, shipped.1)];
        findings(Layout::Whimbrel, &files, false)
    };
    let rows = ("2_b/rows.ndjson", "{\"id\": 1, \"title\": \"a\"}\n");
    let load = |more: &str| format!("[[step]]\nload = \"rows.ndjson\"\ninto = \"notes\"\nkey = [\"id\"]\n{more}");
    let check = |toml: &str, want: &[&str]| assert_eq!(found(toml, rows).iter().map(short).collect::<Vec<_>>(), want, "{toml}");
    check(&load(""), &[]);
    check(&load("").replace("\"notes\"", "\"nots\""), &["E028"]);
    check(&load("").replace("\"notes\"", "\"notes_fts\""), &["E028"]);
    check(&load("batch = 0"), &["E029"]);
    check(&load("").replace("[\"id\"]", "[]"), &["E029"]);
    for (more, newest) in [("conflict = \"keep-newest\"\n", "W"), ("conflict = \"keep-oldest\"\n", "W"), ("since = true\n", "W")] {
        check(&load(more), &["E029"]);
        check(&load(&format!("{more}newest = \"{newest}\"")), &[]);
    }
    check(&load("clear_existing = true"), &["E032"]);
    check(&format!("destructive = true\n{}", load("clear_existing = true")), &[]);

    let other = |name: &str, text: &str| {
        let toml = load("").replace("rows.ndjson", name);
        let found = found(&toml, (&format!("2_b/{name}"), text));
        found.into_iter().map(|f| (short(&f), f.what)).collect::<Vec<_>>()
    };
    assert_eq!(other("rows.csv", "id,title\n1,a\n"), []);
    let bad = other("rows.csv", "id,title\n1,a\n2\n");
    assert!(bad[0].0 == "E030" && bad[0].1.contains('3'), "{bad:?}");
    let bad = other("rows.jsonl", "{\"id\": 1}\n\n{\"id\": }\n");
    assert!(bad[0].0 == "E030" && bad[0].1.contains("line 3"), "{bad:?}");
    assert_eq!(other("rows.txt", "")[0].0, "E030");
}

#[test]
fn a_synced_table_is_backfilled_online() {
    let files = |mode: &'static str| {
        let toml = format!("mode = \"{mode}\"\n[[step]]\nbackfill = \"notes\"\nset = \"title = 'x'\"\nwhere = \"title IS NULL\"\n");
        let files = [("1_a/up.sql", TABLES), ("1_a/migration.toml", "[sync.Notes]"), ("2_b/migration.toml", toml.as_str())];
        findings(Layout::Whimbrel, &files, false).iter().map(short).collect::<Vec<_>>()
    };
    assert_eq!((files("atomic"), files("online")), (vec!["E033".to_owned()], vec![]));
}

#[test]
fn a_rebuild_of_a_synced_table_only_copies() {
    let files = |values: &str| {
        let toml = format!("mode = \"online\"\n[[step]]\nrebuild = \"notes\"\nas = \"notes.sql\"\n{values}");
        let table = ("2_b/notes.sql", "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT NOT NULL)");
        let files = [("1_a/up.sql", TABLES), ("1_a/migration.toml", "[sync.Notes]"), table, ("2_b/migration.toml", toml.as_str())];
        findings(Layout::Whimbrel, &files, false).iter().map(short).collect::<Vec<_>>()
    };
    assert_eq!((files(""), files("values = { title = \"upper(title)\" }")), (vec![], vec!["E023".to_owned()]));
}

#[test]
fn continues_after_names_a_place_where_a_run_can_have_stopped() {
    let check = |head: &str, want: &[&str]| {
        let load = "[[step]]\nload = \"rows.csv\"\ninto = \"notes\"\nkey = [\"id\"]\n";
        let toml = format!("{head}\n[[step]]\nsql = \"up.sql\"\n{load}{load}");
        let files = [("1_a/up.sql", TABLES), ("2_b/up.sql", "CREATE TABLE a(x)"), ("2_b/rows.csv", "id\n1\n"), ("2_b/migration.toml", toml.as_str())];
        assert_eq!(findings(Layout::Whimbrel, &files, false).iter().map(short).collect::<Vec<_>>(), want, "{head}");
    };
    check("mode = \"online\"\ncontinues_after = 1", &[]);
    check("mode = \"online\"\ncontinues_after = 3", &[]);
    check("mode = \"online\"\ncontinues_after = 2", &["E034"]);
    check("mode = \"online\"\ncontinues_after = 4", &["E034"]);
    check("mode = \"online\"\ncontinues_after = 0", &["E034"]);
    check("continues_after = 1", &["E034"]);
}

#[test]
fn rows_of_a_synced_table_change_through_steps_only() {
    let toml = "destructive = true\n[sync.notes]\n";
    for sql in ["INSERT INTO notes(title) VALUES ('x')", "UPDATE notes SET title = 'x' WHERE id = 1", "DELETE FROM notes WHERE id = 1"] {
        assert_eq!(ours(sql, toml), ["E023"], "{sql}");
    }
    assert_eq!(ours("INSERT INTO tags(note) VALUES (1)", toml), [""; 0]);
    let rebuild = "CREATE TABLE n(id INTEGER PRIMARY KEY); INSERT INTO n SELECT id FROM notes; DROP TABLE notes; ALTER TABLE n RENAME TO notes";
    assert_eq!(ours(rebuild, toml), [""; 0]);
    // A rebuild copies; it changes nothing on the way, and neither does a table that is put aside.
    let changed = "CREATE TABLE n(id INTEGER PRIMARY KEY); INSERT INTO n SELECT id FROM notes; UPDATE n SET id = id + 1 WHERE id > 3; DROP TABLE notes; ALTER TABLE n RENAME TO notes";
    assert_eq!(ours(changed, toml), ["E023"]);
    let filled = "CREATE TABLE n(id INTEGER PRIMARY KEY); INSERT INTO n VALUES (1); DROP TABLE notes; ALTER TABLE n RENAME TO notes";
    assert_eq!(ours(filled, toml), ["E023"]);
    let renamed = "ALTER TABLE notes RENAME TO papers; DELETE FROM papers WHERE id = 1";
    assert!(ours(renamed, toml).contains(&"E023".to_owned()));
    assert_eq!(ours("DELETE FROM notes WHERE id = 1", "[sync.notes]\nstop = \"archive\"\n"), [""; 0]);
    // It stays synced in later migrations.
    let files = [("1_a/up.sql", TABLES), ("1_a/migration.toml", "[sync.Notes]"), ("2_b/up.sql", "DELETE FROM notes WHERE id = 1")];
    assert_eq!(findings(Layout::Whimbrel, &files, false).iter().map(short).collect::<Vec<_>>(), ["E023"]);
}

#[test]
fn a_finding_points_at_the_authors_own_line() {
    let goose = "-- +goose Up\n-- +goose StatementBegin\nCREATE TABLE b(x);\n  DROP TABLE notes;\n-- +goose StatementEnd\n";
    let files = [("1_a.sql", "-- +goose Up\nCREATE TABLE notes(id);\n"), ("2_b.sql", goose)];
    let found = findings(Layout::Goose, &files, false);
    assert_eq!((found[0].file.as_str(), found[0].line, found[0].column), ("2_b.sql", 4, 3));
    let shown = found[0].to_string();
    assert!(shown.starts_with("warning[WB001] 2_b.sql:4:3: the rows of notes go for good\n    remedy: "), "{shown}");
}

#[test]
fn what_a_rehearsal_saw_is_judged() {
    let texts = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect::<std::collections::BTreeSet<String>>();
    let facts = |objects: &[&str], columns: &[&str]| Facts {
        schema: whimbrel_shared::fingerprint::Schema(objects.iter().map(|o| ((*o).to_owned(), "1".to_owned())).collect()),
        columns: BTreeMap::from([("notes".to_owned(), texts(columns))]),
        ..Facts::default()
    };
    let rebuild = "CREATE TABLE n(id); INSERT INTO n SELECT id FROM notes; DROP TABLE notes; ALTER TABLE n RENAME TO notes; DROP INDEX named;";
    let files = [("1_a.sql", rebuild)];
    let chain = chain(Layout::Sqlx, &files);
    let before = facts(&["table notes", "index i", "trigger t", "index named"], &["id", "title"]);
    let mut now = facts(&["table notes", "trigger t"], &["id"]);
    now.dangling.insert(("tags".to_owned(), "notes_old".to_owned()));
    let strictness = Strictness { layout: Layout::Sqlx, strict: true };
    let found = after(&chain.migrations[0], strictness, &before, &now);
    assert_eq!(found.iter().map(short).collect::<Vec<_>>(), ["W010", "E002", "W024"]);
    assert!(found[0].what.ends_with(": index i"), "{}", found[0].what);
}
