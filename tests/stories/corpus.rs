//! Scripts as people and tools write them: the engine takes each apart as the `sqlite3` shell does, and leaves the same
//! schema and rows behind.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rusqlite::{Connection, types::ValueRef};
use whimbrel_shared::protocol::poll::Order;
use whimbrel_tests::{
    Mig, host,
    lone_engine::{Advanced, Engine},
    proof::scratch,
};

/// Fewer would say that the corpus was not found.
const AT_LEAST: usize = 200;

#[test]
fn every_script_of_the_corpus_does_what_it_does_in_the_shell() {
    if !host::has("sqlite3") {
        return;
    }
    let shell = shell_version();
    let (mut same, mut by_library, mut wrong) = (0, 0, Vec::new());
    for (name, script) in corpus() {
        let needs = script.lines().next().and_then(|l| l.strip_prefix("-- needs ")).and_then(|l| l.split(':').next()).map(version);
        let other = if needs.is_some_and(|needs| needs > shell) {
            by_library += 1;
            eprintln!("note: {name}: the shell is {}.{}.{} and lacks what it uses; compared with the library alone", shell[0], shell[1], shell[2]);
            by_the_library(&script)
        } else {
            by_the_shell(&script)
        };
        // The shell reads lines, and ends each in its own way.
        let ours = by_the_engine(&script).map(|dump| without_cr(dump, &script));
        let other = other.map(|dump| without_cr(dump, &script));
        match (ours, other) {
            (Ok(ours), Ok(other)) if ours == other => same += 1,
            (Ok(ours), Ok(other)) => wrong.push(format!("{name}:\n{}", difference(&ours, &other))),
            (ours, other) => wrong.push(format!("{name}: the engine says {}, and the other {}", outcome(ours), outcome(other))),
        }
    }
    eprintln!("{same} scripts do the same ({by_library} of them compared with the library alone), {} do not", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(same >= AT_LEAST, "only {same} scripts were found");
}

#[test]
fn two_files_that_differ_are_told_apart() {
    let base = "CREATE TABLE t(a, b); CREATE INDEX i ON t(a); INSERT INTO t VALUES (1, 'x');";
    for other in [
        "CREATE TABLE t(a, b); CREATE INDEX i ON t(a); INSERT INTO t VALUES (1, 'y');",
        "CREATE TABLE t(a, b); CREATE INDEX i ON t(a); INSERT INTO t VALUES ('1', 'x');",
        "CREATE TABLE t(a, b); CREATE INDEX i ON t(b); INSERT INTO t VALUES (1, 'x');",
        "CREATE TABLE t(a, b); CREATE INDEX i ON t(a); INSERT INTO t VALUES (1, 'x'); PRAGMA user_version = 1;",
        "CREATE TABLE t(a, b); CREATE INDEX i ON t(a); INSERT INTO t VALUES (1, 'x'), (1, 'x');",
    ] {
        assert_ne!(by_the_library(base), by_the_library(other), "{other}");
    }
}

/// The scripts, by name.
fn corpus() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut found = Vec::new();
    let mut left = vec![root.clone()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(&folder).expect("the corpus is there") {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|e| e == "sql") {
                let name = path.strip_prefix(&root).unwrap().with_extension("").to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    let distinct: BTreeSet<_> = found.iter().map(|(_, script)| script).collect();
    assert_eq!(distinct.len(), found.len(), "a script is there twice");
    found
}

type Dump = Vec<String>;

fn by_the_engine(script: &str) -> Result<Dump, String> {
    let (_folder, path) = empty();
    let engine = Engine::new(&[Mig::up("script", script)]);
    let mut file = engine.adopt(Connection::open(&path).unwrap()).map_err(|e| e.to_string())?;
    match engine.advance(&mut file, Order::ApplyUpTo { version: 1 }, false).map_err(|e| e.to_string())? {
        Advanced::Ran(ran) if ran.stopped.is_none() => Ok(dump(&path)),
        other => Err(format!("{other:?}")),
    }
}

fn by_the_shell(script: &str) -> Result<Dump, String> {
    let (_folder, path) = empty();
    // Another's settings are not asked; the first error ends it.
    let mut command = Command::new("sqlite3");
    command.args(["-batch", "-bail", "-init", "/dev/null"]).arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut shell = command.spawn().map_err(|e| e.to_string())?;
    let mut input = shell.stdin.take().expect("it was asked for");
    // The shell takes the mark that an editor leaves for a character of the first word.
    let text = script.trim_start_matches('\u{feff}').to_owned();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = shell.wait_with_output().map_err(|e| e.to_string())?;
    let _ = writer.join();
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() && said.is_empty() { Ok(dump(&path)) } else { Err(said) }
}

fn by_the_library(script: &str) -> Result<Dump, String> {
    let (_folder, path) = empty();
    let file = Connection::open(&path).unwrap();
    file.pragma_update(None, "foreign_keys", false).unwrap();
    file.execute_batch(script.trim_start_matches('\u{feff}')).map_err(|e| e.to_string())?;
    Ok(dump(&path))
}

fn empty() -> (tempfile::TempDir, PathBuf) {
    let folder = scratch();
    let path = folder.path().join("app.db");
    (folder, path)
}

/// Every object with its text, every row with its types; what is whimbrel's left out.
fn dump(path: &Path) -> Dump {
    let file = Connection::open(path).unwrap();
    let list = |sql: &str| -> Vec<String> {
        let mut statement = file.prepare(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        let columns = statement.column_count();
        statement
            .query_map([], |row| {
                let mut line = String::new();
                for column in 0..columns {
                    match row.get_ref(column)? {
                        // What stands after the last statement counts as its text, and the shell drops the last line end.
                        ValueRef::Text(text) => write!(line, "{:?} ", String::from_utf8_lossy(text).trim_end()),
                        other => write!(line, "{other:?} "),
                    }
                    .expect("a string takes it");
                }
                Ok(line)
            })
            .and_then(Iterator::collect)
            .unwrap_or_else(|e| panic!("{sql}: {e}"))
    };
    let names = |sql: &str| -> Vec<String> { file.prepare(sql).unwrap().query_map([], |row| row.get(0)).and_then(Iterator::collect).unwrap() };
    // How a full-text table keeps its words differs between releases; what it answers does not.
    let shadows: BTreeSet<String> = names("SELECT name FROM pragma_table_list WHERE type = 'shadow'").into_iter().collect();
    // sqlite_stat4 is made where the library was built with it, and Debian's shell was not.
    let left_out = "tbl_name LIKE '\\_whimbrel\\_%' ESCAPE '\\' OR tbl_name = 'sqlite_stat4'";
    let mut dump = list(&format!(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE NOT ({left_out})
         AND tbl_name NOT IN (SELECT name FROM pragma_table_list WHERE type = 'shadow') ORDER BY 1, 2",
    ));
    for table in names(&format!("SELECT name FROM sqlite_schema WHERE type = 'table' AND NOT ({left_out}) ORDER BY name")) {
        if shadows.contains(&table) {
            continue;
        }
        let quoted = table.replace('"', "\"\"");
        let only = if table.starts_with("sqlite_stat") { "WHERE tbl NOT LIKE '\\_whimbrel\\_%' ESCAPE '\\'" } else { "" };
        let mut rows = list(&format!("SELECT * FROM main.\"{quoted}\" {only}"));
        rows.sort_unstable();
        dump.extend(rows.into_iter().map(|row| format!("{table}: {row}")));
    }
    for setting in ["user_version", "application_id"] {
        dump.push(format!("{setting}: {}", list(&format!("PRAGMA {setting}")).concat()));
    }
    dump
}

fn without_cr(dump: Dump, script: &str) -> Dump {
    let crlf = script.contains("\r\n");
    dump.into_iter().map(|line| if crlf { line.replace("\\r\\n", "\\n") } else { line }).collect()
}

fn difference(ours: &Dump, other: &Dump) -> String {
    let only = |a: &Dump, b: &Dump, who: &str| -> String {
        a.iter().filter(|line| !b.contains(line)).take(5).map(|line| format!("  only {who}: {line}\n")).collect()
    };
    only(ours, other, "the engine") + &only(other, ours, "the other")
}

fn outcome(result: Result<Dump, String>) -> String {
    result.map_or_else(|why| why, |dump| format!("nothing ({} lines)", dump.len()))
}

/// `3.40.1 2022-12-28 …`.
fn shell_version() -> [u32; 3] {
    let output = Command::new("sqlite3").arg("--version").output().expect("it was found");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    eprintln!("the shell is {}", said.trim());
    version(said.split(' ').next().unwrap_or_default())
}

fn version(text: &str) -> [u32; 3] {
    let mut numbers = text.trim().split('.').map(|n| n.parse().unwrap_or_else(|_| panic!("{text:?} is no version")));
    std::array::from_fn(|_| numbers.next().unwrap_or(0))
}
