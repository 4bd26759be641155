//! What a look does for rows: it captures what a version exchanges, keeps it folded, and proves that rows may go.

use std::sync::{Arc, Mutex};

use whimbrel::{
    ambient::Ambient,
    config::{Capture, DatabaseRule},
    migrate::{
        backup::Shelf,
        connection::Missing,
        halt::Halt,
        tend,
        work::{self, Looked, Shared, Site},
    },
    store::{device::DeviceStore, journal},
    sync::{capture, shape::Mode},
};
use whimbrel_shared::status::Operation;

use crate::bed::{Bed, POLICY, Published, files, publish, scratch};

const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT); CREATE TABLE news(id TEXT NOT NULL PRIMARY KEY, line TEXT);";

/// A daemon that looks at one file.
struct Daemon {
    shared: Shared,
    site: Site,
    _folder: tempfile::TempDir,
}

impl Daemon {
    fn of(bed: &Bed<'_>) -> Self {
        let folder = scratch();
        let store = Arc::new(Mutex::new(DeviceStore::open(&folder.path().join("state")).unwrap()));
        let shelf = Shelf { dir: folder.path().join("backups"), keep: 1 };
        let shared = Shared { store, state_dir: folder.path().to_owned(), ambient: Ambient::real(), policy: POLICY, halt: Halt::default(), shelf };
        let rule = DatabaseRule {
            path: bed.path.to_string_lossy().into_owned(),
            app: "notes".parse().unwrap(),
            app_version: None,
            app_sqlite: None,
            create: false,
            capture: Capture::Mask,
        };
        Self { shared, site: Site::new(bed.path.clone(), rule), _folder: folder }
    }

    fn look(&self, published: &Published) -> Looked {
        work::look(&self.shared, &self.site, &published.chain, Missing::Refuse).unwrap()
    }
}

/// Notes go both ways, news come down only.
fn notes(more: &[(&str, &str)]) -> Published {
    let first = [("1_a/up.sql", NOTES), ("1_a/migration.toml", "[sync.notes]\n[sync.news]\ndirection = 'pull'")];
    publish(&files(&[&first, more].concat()))
}

fn at_first(published: &Published) -> (Bed<'_>, Daemon) {
    let bed = Bed::new(published);
    bed.go(Operation::Apply, 1, 1);
    bed.app().execute_batch("INSERT INTO notes VALUES ('a', 'old')").unwrap();
    let daemon = Daemon::of(&bed);
    (bed, daemon)
}

#[test]
fn a_look_captures_what_a_version_exchanges_folds_it_and_leaves_an_idle_file_alone() {
    let published = notes(&[]);
    let (bed, daemon) = at_first(&published);
    let ready = daemon.look(&published).rows.ready.expect("rows may be exchanged");
    let map = ready.map().clone();
    let (notes, news) = (map.table("notes").unwrap().id, map.table("news").unwrap().id);
    assert_eq!((ready.version(), ready.later()), (1, None));
    assert!(ready.sends(notes) && ready.lands(notes) && !ready.sends(news) && ready.lands(news));
    assert!(ready.table(news).is_some_and(|t| t.columns.len() == 1), "it lands by its shape");
    let app = bed.app();
    assert_eq!(
        bed.value::<i64>("SELECT count(*) FROM sqlite_schema WHERE name LIKE '\\_whimbrel\\_capture\\_%' ESCAPE '\\' AND tbl_name = 'news'"),
        0
    );
    // What was there before is found, and what is written is folded.
    app.execute_batch("INSERT INTO notes VALUES ('b', 'new'); INSERT INTO news VALUES ('c', 'mine')").unwrap();
    daemon.look(&published);
    assert_eq!(bed.value::<i64>("SELECT count(*) FROM _whimbrel_outbox"), 2);
    assert!(journal::extent(&app).unwrap().is_folded());
    assert!(ready.holds(&app).unwrap());
    let seen = || app.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0)).unwrap();
    let before = seen();
    for _ in 0..3 {
        assert!(daemon.look(&published).rows.ready.is_some());
    }
    assert_eq!(seen(), before, "an idle look wrote");
    app.execute_batch("CREATE TABLE mine(x)").unwrap();
    assert!(!ready.holds(&app).unwrap());
}

#[test]
fn lost_triggers_are_made_again_and_what_went_unseen_is_found() {
    let published = notes(&[]);
    let (bed, daemon) = at_first(&published);
    daemon.look(&published);
    let trigger: String = bed.value("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND name LIKE '%\\_ai' ESCAPE '\\'");
    bed.app().execute_batch(&format!("DROP TRIGGER {trigger}; INSERT INTO notes VALUES ('unseen', 'x')")).unwrap();
    assert!(daemon.look(&published).rows.ready.is_some());
    assert_eq!(bed.value::<i64>("SELECT count(*) FROM _whimbrel_outbox"), 2);
    assert_eq!(bed.value::<String>("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND name LIKE '%\\_ai' ESCAPE '\\'"), trigger);
}

#[test]
fn the_configuration_says_how_edits_are_noted() {
    let published = notes(&[]);
    let (bed, mut daemon) = at_first(&published);
    let mode = |bed: &Bed<'_>| capture::captured(&bed.app()).unwrap()[0].mode;
    daemon.look(&published);
    assert_eq!(mode(&bed), Mode::Mask);
    daemon.site.rule.capture = Capture::KeyOnly;
    daemon.look(&published);
    assert_eq!(mode(&bed), Mode::KeyOnly);
    // The application can change its own schema then.
    bed.app().execute_batch("ALTER TABLE notes DROP title").unwrap();
    let looked = daemon.look(&published);
    assert!(looked.rows.ready.is_none(), "a table that differs from the chain's exchanges no rows");
    assert_eq!(looked.rows.health[0].code, "rows_unsupported");
    assert!(looked.rows.health[0].message.contains("column title is not in the file"), "{:?}", looked.rows.health);
}

#[test]
fn a_table_in_which_rows_cannot_land_says_why_and_what_to_do() {
    let published = notes(&[]);
    let (bed, daemon) = at_first(&published);
    bed.app().execute_batch("INSERT INTO notes VALUES (NULL, 'no key')").unwrap();
    let rows = daemon.look(&published).rows;
    assert_eq!(rows.health.len(), 1, "{:?}", rows.health);
    assert!(rows.health[0].code == "rows_push_only" && rows.health[0].message.contains("NULL in the key column id"), "{:?}", rows.health);
    let ready = rows.ready.unwrap();
    let notes = ready.map().table("notes").unwrap().id;
    assert!(ready.sends(notes) && !ready.lands(notes));
}

#[test]
fn rows_go_on_at_the_last_version_but_for_tables_that_a_later_one_keeps_back() {
    let later = [("2_b/up.sql", "ALTER TABLE notes ADD slug TEXT"), ("2_b/migration.toml", "[sync.notes]\nmin_schema = 'this'")];
    let published = notes(&later);
    let (_bed, daemon) = at_first(&published);
    let ready = daemon.look(&published).rows.ready.unwrap();
    let (notes, news) = (ready.map().table("notes").unwrap().id, ready.map().table("news").unwrap().id);
    assert_eq!((ready.version(), ready.waits(notes), ready.waits(news)), (1, Some(2), None));
    assert!(!ready.sends(notes) && ready.lands(news));
}

#[test]
fn half_way_through_a_migration_no_rows_are_exchanged_and_edits_are_kept() {
    let second = [
        ("2_b/up.sql", "ALTER TABLE notes ADD slug TEXT"),
        ("2_b/check.sql", "SELECT count(*) = 0 FROM notes WHERE title = 'bad'"),
        ("2_b/migration.toml", "mode = 'online'\n[[step]]\nsql = 'up.sql'\n[[step]]\nverify = 'check.sql'"),
    ];
    let published = notes(&second);
    let (bed, daemon) = at_first(&published);
    daemon.look(&published);
    bed.app().execute_batch("INSERT INTO notes VALUES ('b', 'bad')").unwrap();
    assert_eq!(bed.run(Operation::Apply, 2, 2).stopped.unwrap().failure.code, "not_verified");
    bed.app().execute_batch("UPDATE notes SET title = 'good' WHERE id = 'b'").unwrap();
    let looked = daemon.look(&published);
    assert!(looked.rows.ready.is_none() && bed.value::<i64>("SELECT count(*) FROM _whimbrel_checkpoint") == 1);
    assert!(journal::extent(&bed.app()).unwrap().is_folded());
    assert_eq!(bed.dirty().keys().filter(|cell| cell.1 == ["b"]).count(), 2);
    bed.go(Operation::Apply, 2, 2);
    assert_eq!(daemon.look(&published).rows.ready.unwrap().version(), 2);
}

#[test]
fn a_chain_that_exchanges_no_rows_gets_no_table_of_ours_for_them_and_no_write() {
    let published = publish(&files(&[("1_a/up.sql", NOTES)]));
    let (bed, daemon) = at_first(&published);
    daemon.look(&published);
    let app = bed.app();
    let seen = || app.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0)).unwrap();
    let before = seen();
    assert!(daemon.look(&published).rows.ready.is_none());
    assert!(seen() == before && !journal::is_there(&app).unwrap());
}

#[test]
fn a_long_journal_is_folded_in_many_short_transactions() {
    let published = notes(&[]);
    let (bed, daemon) = at_first(&published);
    daemon.look(&published);
    let rows = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 20000) INSERT INTO notes SELECT 'n' || n, n FROM c";
    bed.app().execute_batch(rows).unwrap();
    let second = std::time::Duration::from_secs(1);
    let tended = tend::tend(&mut bed.open(), &Ambient::real(), second, 60 * second, false).unwrap();
    println!("{tended:?}");
    assert!(!tended.more && tended.bites > 5, "{tended:?}");
    assert_eq!(bed.value::<i64>("SELECT count(*) FROM _whimbrel_outbox"), 20_001);
    assert!(tend::is_tended(&bed.open(), &Ambient::real()).unwrap());
}
