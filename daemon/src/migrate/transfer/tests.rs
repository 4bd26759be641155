//! Exports and imports of real files.

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use whimbrel_shared::manifest::LoadConflict;

use super::{
    TransferError,
    export::export,
    import::{Imported, Wanted, import},
};
use crate::migrate::{files::LockFile, halt::Halt};

const SCHEMA: &str = "CREATE TABLE child(id INTEGER PRIMARY KEY, parent REFERENCES parent(a), twice AS (id * 2), v);
    CREATE TABLE parent(a TEXT, b, n REAL, PRIMARY KEY(a)) WITHOUT ROWID; CREATE TABLE \"order\"(id INTEGER PRIMARY KEY, \"group\");
    CREATE TABLE _whimbrel_other(x); CREATE VIEW seen AS SELECT * FROM child;";
const ROWS: &str = "INSERT INTO parent VALUES ('p', x'00ff', 0.1), ('q', NULL, 1e300);
    INSERT INTO child(id, parent, v) VALUES (-5, 'p', 9007199254740993), (1, 'q', 'ä\"');
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO \"order\" SELECT i, 'g' || i FROM n;";

struct Bed {
    dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, mode: &str, sql: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        Connection::open(&path).unwrap().execute_batch(&format!("PRAGMA journal_mode = {mode}; {sql}")).unwrap();
        path
    }

    fn text(&self, name: &str, text: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn all(path: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    export(path, &[], &mut out, &mut |_, _| {}).unwrap();
    out
}

fn rows(out: &[u8]) -> Vec<&str> {
    std::str::from_utf8(out).unwrap().lines().skip(1).collect()
}

#[test]
fn what_goes_out_comes_in_exactly_and_a_second_time_changes_nothing() {
    for mode in ["wal", "delete"] {
        let bed = Bed::new();
        let from = bed.file("from.db", mode, &format!("{SCHEMA}{ROWS}"));
        let to = bed.file("to.db", mode, SCHEMA);
        let mut seen = (0, 0);
        let mut out = Vec::new();
        let header = export(&from, &[], &mut out, &mut |done, total| seen = (done, total)).unwrap();
        assert_eq!(seen, (3004, 3004));
        let tables: Vec<_> = header.tables.iter().map(|t| (t.table.as_str(), t.rows)).collect();
        assert_eq!(tables, [("order", 3000), ("parent", 2), ("child", 2)], "parents first, ours and views left out");
        let file = bed.text("all.ndjson", &out);
        let done = import(&to, &file, &Wanted::default(), &mut |_, _| {}).unwrap();
        assert!(done.contains(&Imported { table: "order".into(), rows: 3000, changed: 3000 }), "{done:?}");
        assert_eq!(rows(&all(&to)), rows(&out), "journal_mode = {mode}");
        let again = import(&to, &file, &Wanted { conflict: LoadConflict::Replace, ..Wanted::default() }, &mut |_, _| {}).unwrap();
        assert!(again.iter().all(|t| t.changed == 0), "{again:?}");
        let left: Vec<_> = std::fs::read_dir(bed.dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        assert!(!left.iter().any(|name| name.contains("-whimbrel-export")), "{left:?}");
    }
}

#[test]
fn an_export_is_one_moment_and_an_application_writes_on_meanwhile() {
    let bed = Bed::new();
    let from = bed.file("from.db", "wal", &format!("{SCHEMA}{ROWS}"));
    let app = Connection::open(&from).unwrap();
    app.busy_timeout(std::time::Duration::ZERO).unwrap();
    let (mut out, mut wrote) = (Vec::new(), 0);
    export(&from, &["order".to_owned(), "parent".to_owned()], &mut out, &mut |_, _| {
        wrote += app.execute("UPDATE parent SET b = 'new'", []).unwrap() + app.execute("UPDATE \"order\" SET \"group\" = 'new'", []).unwrap();
    })
    .unwrap();
    assert!(wrote >= 3000, "the application was held up: {wrote}");
    let text = String::from_utf8(out).unwrap();
    assert!(!text.contains("new") && text.contains("\"table\":\"parent\"") && !text.contains("\"table\":\"child\""));
}

#[test]
fn rows_of_one_table_come_in_by_the_strategies_of_a_load() {
    let bed = Bed::new();
    let to = bed.file("to.db", "wal", "CREATE TABLE t(id INTEGER PRIMARY KEY, v, at); INSERT INTO t VALUES (1, 'old', 5), (2, 'old', 5)");
    let csv = bed.text("t.csv", b"id,v,at\n1,new,4\n2,new,6\n3,new,1\n");
    let wanted = |conflict, newest: Option<&str>| Wanted { tables: vec!["t".into()], conflict, newest: newest.map(str::to_owned), key: vec![] };
    let values = || -> String {
        Connection::open(&to).unwrap().query_row("SELECT group_concat(v, ' ') FROM (SELECT v FROM t ORDER BY id)", [], |r| r.get(0)).unwrap()
    };
    import(&to, &csv, &wanted(LoadConflict::Skip, None), &mut |_, _| {}).unwrap();
    assert_eq!(values(), "old old new");
    import(&to, &csv, &wanted(LoadConflict::Replace, None), &mut |_, _| {}).unwrap();
    assert_eq!(values(), "new new new");
}

#[test]
fn rows_may_come_before_those_they_refer_to_and_what_refers_to_nothing_at_the_end_is_named() {
    let bed = Bed::new();
    let to = bed.file(
        "to.db",
        "wal",
        "PRAGMA foreign_keys = OFF; CREATE TABLE tree(id INTEGER PRIMARY KEY, above REFERENCES tree(id)); INSERT INTO tree VALUES (90, 91)",
    );
    let put = |text: &[u8]| import(&to, &bed.text("tree.ndjson", text), &Wanted { tables: vec!["tree".into()], ..Wanted::default() }, &mut |_, _| {});
    put(b"{\"id\":1,\"above\":2}\n{\"id\":2,\"above\":null}\n").unwrap();
    let error = put(b"{\"id\":3,\"above\":4}\n").unwrap_err().to_string();
    assert!(error.contains("1 row") && error.contains("tree row 3"), "{error}");
}

#[test]
fn what_cannot_come_in_is_refused_by_name_and_leaves_the_rest() {
    let bed = Bed::new();
    let to = bed.file("to.db", "wal", "CREATE TABLE t(id INTEGER PRIMARY KEY, v NOT NULL); CREATE TABLE bare(x)");
    let plain = bed.text("plain.ndjson", b"{\"id\":1,\"v\":1}\n{\"id\":2,\"v\":null}\n");
    let said = |file: &Path, table: &str| {
        let wanted = Wanted { tables: vec![table.to_owned()].into_iter().filter(|t| !t.is_empty()).collect(), ..Wanted::default() };
        import(&to, file, &wanted, &mut |_, _| {}).unwrap_err()
    };
    assert!(matches!(said(&plain, ""), TransferError::WhichTable { .. }));
    assert!(matches!(said(&plain, "bare"), TransferError::NoKey { .. }));
    let bad = said(&plain, "t").to_string();
    assert!(bad.contains("plain.ndjson:2") && bad.contains("NOT NULL"), "{bad}");
    assert!(matches!(export(&to, &["gone".to_owned()], &mut Vec::new(), &mut |_, _| {}), Err(TransferError::NoTable { .. })));
    let _lock = LockFile::hold(&to, std::time::Duration::ZERO, &Halt::default()).unwrap();
    assert!(matches!(said(&plain, "t"), TransferError::Apply(crate::migrate::error::ApplyError::OtherRunner { .. })));
}
