//! Mistakes that people make in a migration, each with the place where a person would say that it is. The mark `‸` stands
//! there in the text and is taken out before it runs:
//!
//! - a word too many, too few or mistyped, a name that is not there: at the first character of it, or of what stands where
//!   it should;
//! - something that is never closed: where it was opened;
//! - a statement that as a whole cannot be (a constraint, the number of values, what a migration may not do): at its
//!   first word.

use whimbrel_shared::protocol::poll::Order;
use whimbrel_tests::{
    Mig,
    lone_engine::{Advanced, Engine},
    proof::scratch,
};

/// Where the mistake is.
const MARK: char = '‸';

/// What the migration before it left behind.
const BASE: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT UNIQUE, n INTEGER CHECK (n < 100));
    CREATE INDEX t_n ON t(n); CREATE TABLE p(id INTEGER PRIMARY KEY, must TEXT NOT NULL); CREATE TABLE s(x INTEGER) STRICT;
    INSERT INTO t VALUES (1, 'one', 1), (2, 'two', 2);";

const MISTAKES: &[(&str, &str)] = &[
    // a word
    ("CREATE mistyped", "-- the shop\n‸CREAT TABLE shop(id INTEGER PRIMARY KEY);\n"),
    ("TABLE mistyped", "CREATE ‸TABEL shop(id INTEGER);"),
    ("INTO mistyped", "INSERT INTO t VALUES (3, 'three', 3);\nINSERT ‸INOT t VALUES (4, 'four', 4);\n"),
    ("SET mistyped", "UPDATE t\n   ‸STE name = 'x'\n WHERE id = 1;"),
    ("FROM mistyped in DELETE", "DELETE ‸FORM t WHERE id = 1;"),
    ("FROM mistyped in SELECT", "INSERT INTO p\nSELECT id, name\n  ‸FORM t;"),
    ("WHERE mistyped", "DELETE FROM t ‸WEHRE id = 1;"),
    ("ADD mistyped", "ALTER TABLE t ‸AD COLUMN note TEXT;"),
    ("INDEX mistyped", "CREATE UNIQUE ‸INDX t_x ON t(name);"),
    ("NOTHING mistyped", "INSERT INTO t VALUES (1, 'a', 2)\n  ON CONFLICT DO ‸NOTHIN;"),
    ("VALUES mistyped", "INSERT INTO t(id, name) ‸VALEUS (7, 'seven');"),
    ("PRIMARY mistyped", "CREATE TABLE shop(\n  id INTEGER PRIMARY ‸KYE,\n  name TEXT\n);"),
    ("a keyword as a name", "CREATE TABLE ‸order(id INTEGER);"),
    ("an expression is missing", "UPDATE t SET name = ‸WHERE id = 1;"),
    ("a comma is missing", "INSERT INTO t VALUES (3 ‸'three', 3);"),
    ("a comma too many", "CREATE TABLE shop(\n  id INTEGER,\n  name TEXT,\n‸);"),
    ("a parenthesis too many", "CREATE TABLE shop(id INTEGER)‸);"),
    ("a parenthesis is missing", "CREATE TABLE shop(\n  id INTEGER CHECK (id > 0\n‸;\nINSERT INTO shop VALUES (1);"),
    ("a sign that SQL does not have", "SELECT 1 ‸# 2;"),
    ("a hint of another database", "CREATE TABLE shop(id INTEGER) ‸ENGINE=InnoDB;"),
    ("IF NOT EXISTS where it cannot be", "ALTER TABLE t ADD COLUMN ‸IF NOT EXISTS note TEXT;"),
    // never closed
    ("a string that is not closed", "UPDATE t SET name = 'a' WHERE id = 1;\nINSERT INTO t VALUES (3, ‸'three, 3);\n"),
    ("a string that is not closed, long before the end", "UPDATE t SET name = ‸'a WHERE id = 1;\n\n-- more\nDELETE FROM t;\n"),
    ("a quoted name that is not closed", "CREATE TABLE ‸\"shop (id INTEGER);\n"),
    ("a bracketed name that is not closed", "CREATE TABLE ‸[shop (id INTEGER);\n"),
    ("a comment that is not closed", "CREATE TABLE shop(id INTEGER);\n\n  ‸/* the rows:\nINSERT INTO shop VALUES (1);\n"),
    ("a comment that is not closed inside a statement", "CREATE TABLE shop(\n  id INTEGER ‸/* the key\n);\n"),
    ("a trigger without END", "CREATE TRIGGER tt AFTER INSERT ON t\n‸BEGIN\n  UPDATE t SET n = 1;\n"),
    // a name that is not there
    ("a table that is not there, read", "INSERT INTO p SELECT * FROM ‸shop;"),
    ("a table that is not there, written", "INSERT INTO t VALUES (3, 'three', 3);\n\nINSERT INTO\n  ‸shop VALUES (1);"),
    ("a table that is not there, updated", "UPDATE ‸tt SET n = 1;"),
    ("a table that is not there, dropped", "DROP TABLE ‸shop;"),
    ("a table that is not there, altered", "ALTER TABLE ‸shop ADD COLUMN x;"),
    ("a table that is not there, indexed", "CREATE INDEX shop_x ON ‸shop(x);"),
    ("a table that is not there, joined", "INSERT INTO p\nSELECT t.id, s.name\n  FROM t\n  JOIN ‸shop s ON s.id = t.id;"),
    ("an index that is not there", "DROP INDEX ‸t_m;"),
    ("a column that is not there, read", "INSERT INTO p SELECT id,\n       ‸title\n  FROM t;"),
    ("a column that is not there, compared", "UPDATE t\n   SET n = 1\n WHERE name = 'one'\n   AND ‸age > 3;"),
    ("a column that is not there, set", "UPDATE t SET n = 2, ‸title = 'x' WHERE id = 1;"),
    ("a column that is not there, filled", "INSERT INTO t(id, ‸title) VALUES (3, 'x');"),
    ("a column that is not there, indexed", "CREATE INDEX t_title ON t(name, ‸title);"),
    ("a column that is not there, of an alias", "UPDATE t SET n = (SELECT count(*) FROM p AS q WHERE ‸q.name = t.name);"),
    ("a column that is not there, in a CTE", "WITH big AS (\n  SELECT id FROM t WHERE ‸size > 1\n)\nDELETE FROM t WHERE id IN (SELECT id FROM big);"),
    ("a column that is not there, named in a comment too", "UPDATE t /* title */ SET name = 'title', -- title\n  ‸title = 'x';"),
    ("a column that is not there, renamed", "ALTER TABLE t RENAME COLUMN ‸title TO name2;"),
    ("a column that is not there, dropped", "ALTER TABLE t DROP COLUMN ‸title;"),
    ("a function that is not there", "UPDATE t SET name = ‸lcase(name);"),
    ("a collation that is not there", "CREATE INDEX t_g ON t(name COLLATE ‸german);"),
    // what is there already
    ("a table that is there", "CREATE TABLE ‸t(x);"),
    ("an index that is there", "CREATE INDEX ‸t_n ON t(name);"),
    ("a column that is there", "ALTER TABLE t ADD COLUMN ‸name TEXT;"),
    // a statement as a whole
    ("too few values", "DELETE FROM t;\n‸INSERT INTO t VALUES (1, 'one');"),
    ("too many values", "‸INSERT INTO t(id, name) VALUES (1, 'one', 1);"),
    ("rows of different length", "‸INSERT INTO t VALUES (3, 'three', 3), (4, 'four');"),
    ("a unique key twice", "INSERT INTO t VALUES (3, 'three', 3);\n  -- again\n  ‸INSERT INTO t VALUES (4, 'three', 4);"),
    ("a null where none may be", "‸INSERT INTO p VALUES (1, NULL);"),
    ("a check that does not hold", "/* all of them */ ‸UPDATE t SET n = n * 100;"),
    ("a text in a strict integer", "‸INSERT INTO s VALUES ('many');"),
    ("an aggregate in the wrong place", "DELETE FROM t WHERE ‸sum(n) > 3;"),
    ("a column of two tables", "INSERT INTO p SELECT ‸id, name FROM t JOIN p;"),
    ("a function with too few arguments", "UPDATE t SET name = ‸substr(name);"),
    // what a migration may not do
    ("a pragma that is not allowed", "CREATE TABLE shop(id);\n\n‸PRAGMA journal_mode = DELETE;"),
    ("a pragma without effect", "‸PRAGMA synchronous = OFF;\nCREATE TABLE shop(id);"),
    ("a COMMIT that was smuggled in", "DELETE FROM t; ‸COMMIT; DROP TABLE t;"),
    ("a BEGIN inside a BEGIN", "BEGIN;\nCREATE TABLE shop(id);\n‸BEGIN;\nCOMMIT;"),
    ("a ROLLBACK", "DELETE FROM t;\n‸ROLLBACK;"),
    ("a savepoint", "‸SAVEPOINT one;\nDELETE FROM t;\nRELEASE one;"),
    ("another file", "‸ATTACH 'other.db' AS other;"),
    ("VACUUM", "DELETE FROM t;\n‸VACUUM;"),
    ("a table of whimbrel's, written", "DELETE FROM ‸_whimbrel_event;"),
    ("a table of whimbrel's, read", "INSERT INTO p\nSELECT seq, kind FROM ‸_whimbrel_event;"),
    ("a name of whimbrel's", "CREATE TABLE ‸_whimbrel_mine(x);"),
    ("a module that is not allowed", "CREATE VIRTUAL TABLE far USING ‸csv(filename = 'x.csv');"),
    ("a function that reaches outside", "UPDATE t SET name = ‸load_extension('x');"),
    // line ends, marks, characters
    ("after lines that end in CR LF", "DELETE FROM t;\r\n-- c\r\nUPDATE t SET\r\n  ‸title = 1;\r\n"),
    ("after a byte-order mark", "\u{feff}SELECT id, ‸title FROM t;"),
    ("after characters of several bytes", "/* größe; 大きさ 🐦 */ SELECT 'ä', ‸title FROM t;"),
    ("after tabs", "SELECT id,\n\t\t‸title FROM t;"),
    (
        "on one long line",
        "SELECT 'lorem ipsum dolor sit amet, consetetur sadipscing elitr, sed diam nonumy eirmod tempor invidunt ut labore et dolore magna aliquyam erat, sed diam voluptua; at vero eos' AS x, ‸title FROM t;",
    ),
];

/// In this many of a hundred the place has to be right (reference, bar G: other tools name none).
const PERCENT: usize = 95;

#[test]
fn mistakes_are_reported_at_their_line_and_column() {
    let mut missed = Vec::new();
    for (name, marked) in MISTAKES {
        let wanted = place_of_mark(marked);
        let (message, there) = reported(&marked.replace(MARK, ""));
        if there != Some(wanted) {
            missed.push(format!("{name}: it is at {wanted:?} and was reported at {there:?}:\n{message}"));
        }
    }
    let right = MISTAKES.len() - missed.len();
    eprintln!("{right} of {} mistakes are reported at their line and column", MISTAKES.len());
    for miss in &missed {
        eprintln!("missed: {miss}");
    }
    assert!(MISTAKES.len() >= 50 && 100 * right >= PERCENT * MISTAKES.len(), "{}", missed.join("\n"));
}

#[test]
fn a_verification_that_does_not_hold_is_placed_in_its_own_file() {
    let verify = "-- every row is in its place\nSELECT count(*) = 2 FROM t;\n  ‸SELECT n FROM t\n WHERE n > 1;\n";
    let chain = [Mig::up("base", BASE), Mig::up("script", "UPDATE t SET n = n + 1;").verify(verify.replace(MARK, ""))];
    assert_eq!(place(&run(&chain), "script/verify.sql"), Some(place_of_mark(verify)));
}

/// Line and column of the mark, both from 1; columns in characters.
fn place_of_mark(marked: &str) -> (usize, usize) {
    let before = marked.trim_start_matches('\u{feff}').split(MARK).next().expect("a text has a first part");
    assert_eq!(marked.matches(MARK).count(), 1, "{marked}: one mark");
    let line = before.rsplit('\n').next().expect("a text has a last line");
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

fn reported(script: &str) -> (String, Option<(usize, usize)>) {
    let message = run(&[Mig::up("base", BASE), Mig::up("script", script)]);
    let there = place(&message, "script/up.sql");
    (message, there)
}

/// What the engine says when the second of two migrations stops it.
fn run(chain: &[Mig]) -> String {
    let folder = scratch();
    let engine = Engine::new(chain);
    let mut file = engine.adopt(rusqlite::Connection::open(folder.path().join("app.db")).unwrap()).unwrap();
    match engine.advance(&mut file, Order::ApplyUpTo { version: 2 }, false).unwrap() {
        Advanced::Ran(ran) => ran.stopped.map_or_else(|| "it was applied".to_owned(), |s| s.failure.message),
        other => panic!("{other:?}"),
    }
}

/// The place in `FILE:LINE:COLUMN (…`.
fn place(message: &str, file: &str) -> Option<(usize, usize)> {
    let mut numbers = message.strip_prefix(file)?.strip_prefix(':')?.split([':', ' ']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}
