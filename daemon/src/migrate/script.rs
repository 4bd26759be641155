//! Runs a script's statements one by one. SQLite itself says where each ends (the tail that `sqlite3_prepare_v3` gives
//! back, <https://sqlite.org/c3ref/prepare.html>), because no splitter of ours could: triggers hold semicolons, strings
//! hold anything. What the authorizer reads as an instruction ([`Instruction`]) is handed to the caller instead of run.
//!
//! The only file with raw SQLite calls: rusqlite drops the tail when a statement is denied, and the tail is needed then.

use std::{
    ffi::{CStr, CString},
    ptr,
};

use rusqlite::{Connection, ffi};
use whimbrel_shared::sql::{self, Token};

use super::guard::{Denied, Guard, Instruction};

/// Longest excerpt of a statement in an error, in characters.
const EXCERPT_CHARS: usize = 160;

/// Where in a script something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: String,
    /// Number of the statement, from 1.
    pub statement: usize,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The line there, with a caret under the column on a second line.
    pub excerpt: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{} (statement {})", self.file, self.line, self.column, self.statement)
    }
}

/// Why a script stopped. What ran before it is in the open transaction, or gone with it: look at `is_autocommit`.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// SQLite refused or failed it.
    #[error("{place}: {message}\n{}", place.excerpt)]
    Sqlite {
        /// Where.
        place: Place,
        /// SQLite's extended result code.
        code: i32,
        /// What SQLite said.
        message: String,
    },
    /// The guard refused it.
    #[error("{place}: refused: {why}\n{}", place.excerpt)]
    Refused {
        /// Where.
        place: Place,
        /// What it is and why.
        why: String,
    },
    /// A `verify` statement did not hold.
    #[error("{place}: verification failed: {why}\n{}", place.excerpt)]
    NotTrue {
        /// Where.
        place: Place,
        /// What it returned.
        why: String,
    },
    /// The text cannot be given to SQLite.
    #[error("{file}: the script holds a NUL character at byte {offset}, which SQLite would take for its end")]
    Nul {
        /// The file.
        file: String,
        /// Where.
        offset: usize,
    },
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// Statements that were run.
    pub statements: usize,
    /// Rows inserted, updated or deleted by them, triggers included.
    pub rows: u64,
}

/// Whether rows are ignored or judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// An `sql` step: rows do not matter.
    Run,
    /// A `verify` step: every statement returns no row, or one row whose only column is true.
    Verify,
}

/// Runs `text` on `connection`. The caller has switched `guard` on and opened the transaction.
///
/// `instruct` is told what the script asks of the engine; its `Err` refuses it. `progress` is told the number of each
/// statement before it runs.
pub fn run(
    connection: &Connection,
    guard: &Guard,
    file: &str,
    text: &str,
    reading: Reading,
    mut instruct: impl FnMut(Instruction) -> Result<(), String>,
    mut progress: impl FnMut(usize),
) -> Result<Ran, ScriptError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = CString::new(text).map_err(|e| ScriptError::Nul { file: file.to_owned(), offset: e.nul_position() })?;
    let open_comment = sql::open_comment(text);
    let mut ran = Ran::default();
    let mut at = 0;
    while at < text.len() {
        let number = ran.statements + 1;
        // What an earlier statement was denied and did without (`pragma_table_list` compiles every view) is not this one's.
        guard.take_denied();
        // SAFETY: `at` is inside `source`, which ends in NUL and outlives the statement.
        let prepared = unsafe { prepare(connection, source.as_c_str(), at) };
        let end = if prepared.tail > at { prepared.tail } else { text.len() };
        let start = at + lead(&text[at..end]);
        let place = |point: Option<usize>| locate(file, text, number, point.filter(|p| (start..=text.len()).contains(p)).unwrap_or(start));
        let named = |name: Option<&str>| name.and_then(|name| find_name(&text[start..end], name)).map(|found| start + found);
        let refused = |why: String| ScriptError::Refused { place: place(named(guard.culprit().as_deref())), why };
        // SQLite would take the rest for a comment, run what stands before it, and say nothing.
        if let Some(open) = open_comment.filter(|open| *open < end) {
            let why = "a comment begins here and is never closed, so that nothing after it would run".to_owned();
            return Err(ScriptError::Refused { place: locate(file, text, number, open), why });
        }
        match prepared.outcome {
            Ok(None) => {} // only white space or comments
            Ok(Some(statement)) => {
                progress(number);
                let before = total_changes(connection);
                let outcome = match reading {
                    Reading::Run => statement.drain(),
                    Reading::Verify => statement.judge(),
                };
                match outcome {
                    Ok(None) => {}
                    Ok(Some(why)) => return Err(ScriptError::NotTrue { place: place(None), why }),
                    Err(fault) => {
                        // A table-valued pragma is compiled, and so refused, only when it is read.
                        return Err(match guard.take_denied() {
                            Some(Denied::Refused(why)) => refused(why),
                            Some(Denied::Instruction(_)) => refused("it controls the engine from inside a query".to_owned()),
                            None => ScriptError::Sqlite { place: place(named(culprit(&fault.message))), code: fault.code, message: fault.message },
                        });
                    }
                }
                drop(statement);
                ran.rows += total_changes(connection).saturating_sub(before);
                ran.statements = number;
            }
            Err(fault) => match guard.take_denied() {
                Some(Denied::Instruction(instruction)) => {
                    instruct(instruction).map_err(|why| ScriptError::Refused { place: place(None), why })?;
                }
                Some(Denied::Refused(why)) => return Err(refused(why)),
                None => {
                    let open = || (fault.message == "incomplete input").then(|| never_closed(&text[start..])).flatten().map(|o| start + o);
                    let point = fault.offset.map(|offset| at + offset).or_else(open).or_else(|| named(culprit(&fault.message)));
                    return Err(ScriptError::Sqlite { place: place(point), code: fault.code, message: fault.message });
                }
            },
        }
        at = end;
    }
    Ok(ran)
}

/// The statements of `text` as SQLite splits them, without running any. `None` for a text SQLite cannot split before it
/// runs (each statement is compiled against the schema as it is now, so a caller walks a script while it runs it).
pub fn statements_of(connection: &Connection, text: &str, mut each: impl FnMut(&str)) -> Option<()> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = CString::new(text).ok()?;
    let mut at = 0;
    while at < text.len() {
        // SAFETY: as in `run`.
        let prepared = unsafe { prepare(connection, source.as_c_str(), at) };
        let end = if prepared.tail > at { prepared.tail } else { text.len() };
        if let Ok(None) = prepared.outcome {
            at = end;
            continue;
        }
        each(text[at..end].trim());
        at = end;
    }
    Some(())
}

struct Fault {
    code: i32,
    message: String,
    offset: Option<usize>,
}

struct Prepared<'c> {
    outcome: Result<Option<Statement<'c>>, Fault>,
    tail: usize,
}

/// Compiles the statement that begins at byte `at` of `source`.
///
/// # Safety
/// `at` is at most the length of `source`.
unsafe fn prepare<'c>(connection: &'c Connection, source: &CStr, at: usize) -> Prepared<'c> {
    let begin = source.as_ptr();
    let mut raw = ptr::null_mut();
    let mut tail = ptr::null();
    // SAFETY: the handle lives as long as `connection`; the text is NUL-terminated; `at` is inside it.
    let (code, tail) = unsafe {
        let code = ffi::sqlite3_prepare_v3(connection.handle(), begin.add(at), -1, 0, &raw mut raw, &raw mut tail);
        (code, if tail.is_null() { at } else { usize::try_from(tail.offset_from(begin)).unwrap_or(at) })
    };
    let outcome = if code != ffi::SQLITE_OK {
        Err(fault(connection, code))
    } else if raw.is_null() {
        Ok(None)
    } else {
        Ok(Some(Statement { connection, raw }))
    };
    Prepared { outcome, tail }
}

fn fault(connection: &Connection, code: i32) -> Fault {
    // SAFETY: the handle lives as long as `connection`; the message is copied before the next call.
    unsafe {
        let db = connection.handle();
        let extended = ffi::sqlite3_extended_errcode(db);
        let message = CStr::from_ptr(ffi::sqlite3_errmsg(db)).to_string_lossy().into_owned();
        let offset = usize::try_from(ffi::sqlite3_error_offset(db)).ok();
        Fault { code: if extended & 0xff == code & 0xff { extended } else { code }, message, offset }
    }
}

fn total_changes(connection: &Connection) -> u64 {
    // SAFETY: the handle lives as long as `connection`.
    u64::try_from(unsafe { ffi::sqlite3_total_changes64(connection.handle()) }).unwrap_or(0)
}

/// A compiled statement, finalised when dropped.
struct Statement<'c> {
    connection: &'c Connection,
    raw: *mut ffi::sqlite3_stmt,
}

impl Statement<'_> {
    /// Steps to the next row; `false` at the end.
    fn step(&self) -> Result<bool, Fault> {
        // SAFETY: `raw` is a live statement of this connection.
        match unsafe { ffi::sqlite3_step(self.raw) } {
            ffi::SQLITE_ROW => Ok(true),
            ffi::SQLITE_DONE => Ok(false),
            code => Err(fault(self.connection, code)),
        }
    }

    /// Runs it to its end.
    fn drain(&self) -> Result<Option<String>, Fault> {
        while self.step()? {}
        Ok(None)
    }

    /// Runs it as a verification: `Some` says in words why it does not hold.
    fn judge(&self) -> Result<Option<String>, Fault> {
        if !self.step()? {
            return Ok(None);
        }
        // SAFETY: `raw` stands on a row, and column 0 is asked for only where there is one column.
        let holds = unsafe { ffi::sqlite3_column_count(self.raw) == 1 && ffi::sqlite3_column_int64(self.raw, 0) != 0 };
        if !holds {
            let mut rows = 1u64;
            while rows < 1_000_000 && self.step()? {
                rows += 1;
            }
            return Ok(Some(format!("it returned {rows} row{} instead of none, or of one true value", if rows == 1 { "" } else { "s" })));
        }
        Ok(self.step()?.then(|| "it returned more than one row".to_owned()))
    }
}

impl Drop for Statement<'_> {
    fn drop(&mut self) {
        // SAFETY: `raw` came from prepare and is finalised once.
        unsafe { ffi::sqlite3_finalize(self.raw) };
    }
}

/// The place of byte `point` of `text`, in statement number `statement`.
fn locate(file: &str, text: &str, statement: usize, mut point: usize) -> Place {
    while !text.is_char_boundary(point) {
        point -= 1;
    }
    let line_start = text[..point].rfind('\n').map_or(0, |n| n + 1);
    let line_end = text[point..].find('\n').map_or(text.len(), |n| point + n);
    let column = text[line_start..point].chars().count() + 1;
    // A generated statement may be one endless line: show the part around the point.
    let skipped = (column - 1).saturating_sub(EXCERPT_CHARS / 2);
    let shown: String =
        text[line_start..line_end].trim_end().chars().skip(skipped).take(EXCERPT_CHARS).map(|c| if c == '\t' { ' ' } else { c }).collect();
    let caret = " ".repeat(column - 1 - skipped);
    Place {
        file: file.to_owned(),
        statement,
        line: text[..line_start].matches('\n').count() + 1,
        column,
        excerpt: format!("    {shown}\n    {caret}^"),
    }
}

/// The name that a message of SQLite's is about, where it is about one. For these it gives no offset
/// (`sqlite3_error_offset`); other messages are about the statement, and their words may stand anywhere in it.
fn culprit(message: &str) -> Option<&str> {
    let after = |mark: &str| message.rfind(mark).map(|at| &message[at + mark.len()..]);
    let name = if let Some(what) = after("no such ") {
        what.split_once(": ")?.1
    } else if let Some(name) = after("has no column named ").or_else(|| after("duplicate column name: ")).or_else(|| after(" named ")) {
        name
    } else if let Some(before) = message.strip_suffix(" already exists") {
        before.split_once(' ')?.1
    } else if let Some((_, quoted)) = message.split_once('"') {
        quoted.split_once('"')?.0
    } else {
        return None;
    };
    Some(name.trim_matches('"'))
}

/// Byte offset of `name` in a statement: as a name, not in a string or a comment. A schema before it does not count.
fn find_name(statement: &str, name: &str) -> Option<usize> {
    let tokens = sql::spans(statement);
    let find = |name: &str| {
        let name = name.to_ascii_lowercase();
        tokens.iter().find(|(_, t)| matches!(t, Token::Word(n) | Token::Quoted(n) if *n == name)).map(|(at, _)| *at)
    };
    find(name).or_else(|| {
        let (owner, last) = name.rsplit_once('.')?;
        // `t.x`, where it stands like that; else the last part alone.
        let (owner, last_lower) = (owner.to_ascii_lowercase(), last.to_ascii_lowercase());
        let texts = |at: usize| tokens.get(at).map(|(_, t)| t.text());
        let whole = (0..tokens.len()).find(|at| {
            texts(*at).as_deref() == Some(&owner) && texts(at + 1).as_deref() == Some(".") && texts(at + 2).as_deref() == Some(&last_lower)
        });
        whole.map(|at| tokens[at].0).or_else(|| find(last))
    })
}

/// Byte offset of the last parenthesis, `CASE` or `BEGIN` that is opened and not closed.
fn never_closed(statement: &str) -> Option<usize> {
    let mut open = Vec::new();
    for (at, token) in sql::spans(statement) {
        match token {
            Token::Mark('(') => open.push(at),
            Token::Word(w) if w == "case" || w == "begin" => open.push(at),
            Token::Mark(')') => drop(open.pop()),
            Token::Word(w) if w == "end" => drop(open.pop()),
            Token::Word(_) | Token::Quoted(_) | Token::Literal(_) | Token::Mark(_) => {}
        }
    }
    open.pop()
}

/// Length of the white space and comments before the first token.
fn lead(text: &str) -> usize {
    let mut at = 0;
    loop {
        let rest = &text[at..];
        let trimmed = rest.trim_start();
        at += rest.len() - trimmed.len();
        if trimmed.starts_with("--") {
            at += trimmed.find('\n').map_or(trimmed.len(), |n| n + 1);
        } else if trimmed.starts_with("/*") {
            at += trimmed.find("*/").map_or(trimmed.len(), |n| n + 2);
        } else {
            return at;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::halt::Halt, *};

    fn try_script(text: &str, reading: Reading) -> (Result<Ran, ScriptError>, Vec<Instruction>, Connection) {
        let mut connection = Connection::open_in_memory().unwrap();
        let guard = Guard::install(&mut connection, Halt::default()).unwrap();
        connection.execute_batch("CREATE TABLE _whimbrel_meta(key, value); BEGIN IMMEDIATE").unwrap();
        let mut asked = Vec::new();
        let on = guard.on(Duration::from_secs(2), false);
        let result = run(
            &connection,
            &guard,
            "up.sql",
            text,
            reading,
            |i| {
                asked.push(i);
                Ok(())
            },
            |_| {},
        );
        drop(on);
        (result, asked, connection)
    }

    #[test]
    fn statements_end_where_sqlite_says() {
        let text = "\u{feff}-- first\r\nCREATE TABLE a(x, y DEFAULT ';');\r\n\
            CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE a SET y = CASE WHEN x THEN 'a;b' ELSE 'c' END; SELECT 1; END;\
            INSERT INTO a(x) VALUES (1); /* ; */ INSERT INTO a(x) VALUES (0) -- no newline";
        let (result, asked, connection) = try_script(text, Reading::Run);
        let ran = result.unwrap();
        assert_eq!((ran.statements, asked.len()), (4, 0));
        assert_eq!(connection.query_row("SELECT group_concat(y) FROM a", [], |r| r.get::<_, String>(0)).unwrap(), "a;b,c");
    }

    #[test]
    fn what_a_script_asks_of_the_engine_is_handed_on_and_not_run() {
        let (result, asked, connection) = try_script(
            "PRAGMA foreign_keys=OFF; BEGIN TRANSACTION;\nCREATE TABLE a(x);\nPRAGMA main.defer_foreign_keys = 1; pragma legacy_alter_table(on); COMMIT; PRAGMA foreign_keys=on;",
            Reading::Run,
        );
        assert_eq!(result.unwrap().statements, 1);
        use Instruction::*;
        assert_eq!(asked, [ForeignKeys(false), Begin, DeferForeignKeys(true), LegacyAlterTable(true), Commit, ForeignKeys(true)]);
        assert!(!connection.is_autocommit());
    }

    #[test]
    fn an_error_is_placed_at_its_line_and_column() {
        let check = |text: &str, line: usize, column: usize| {
            let error = try_script(text, Reading::Run).0.unwrap_err();
            let ScriptError::Sqlite { place, .. } = &error else { panic!("{error}") };
            assert_eq!((place.line, place.column), (line, column), "{error}");
        };
        check("CREATE TABLE a(x);\n\n-- c\n  SELEC 1;", 4, 3);
        check("CREATE TABLE a(x);\nSELECT x,\n  yy FROM a;", 3, 3);
        check("CREATE TABLE a(x);\nUPDATE a\nSET zz = 1;", 3, 5);
        check("CREATE TABLE a(x UNIQUE);\nINSERT INTO a VALUES (1), (1);", 2, 1); // no name to point at: the statement
        check("CREATE TABLE a(x);\nINSERT INTO nope VALUES (1);", 2, 13);
        // What it is about is looked for among the names of this statement: not in comments, strings, or what follows.
        check("CREATE TABLE a(x);\nUPDATE a /* zz */ SET x = 'zz',\n zz = 1;", 3, 2);
        check("CREATE TABLE a(x CHECK (x < 10));\n UPDATE a SET x = 1; INSERT INTO a VALUES (10);", 2, 22);
        check("CREATE TABLE a(x);\nCREATE TRIGGER t AFTER INSERT ON a\n BEGIN SELECT CASE 1 WHEN 1 THEN 2 END;", 3, 2);
    }

    #[test]
    fn what_one_statement_did_without_is_not_the_next_ones_fault() {
        let mut connection = Connection::open_in_memory().unwrap();
        let guard = Guard::install(&mut connection, Halt::default()).unwrap();
        connection.execute_batch("CREATE TABLE _whimbrel_meta(key); CREATE VIEW _whimbrel_v AS SELECT key FROM _whimbrel_meta; BEGIN").unwrap();
        let on = guard.on(Duration::from_secs(2), false);
        let text = "CREATE TABLE a(x UNIQUE); SELECT name FROM pragma_table_list; INSERT INTO a VALUES (1), (1);";
        let error = run(&connection, &guard, "up.sql", text, Reading::Run, |_| Ok(()), |_| {}).unwrap_err();
        drop(on);
        assert!(matches!(error, ScriptError::Sqlite { code: ffi::SQLITE_CONSTRAINT_UNIQUE, .. }), "{error}");
    }

    #[test]
    fn a_comment_that_is_never_closed_is_refused() {
        for text in ["CREATE TABLE a(x);\n /* INSERT INTO a VALUES (1);", "CREATE TABLE a(x)\n /* ;"] {
            let error = try_script(text, Reading::Run).0.unwrap_err();
            let ScriptError::Refused { place, .. } = &error else { panic!("{error}") };
            assert_eq!((place.line, place.column), (2, 2), "{error}");
        }
    }

    #[test]
    fn verify_wants_no_row_or_one_true_value() {
        let check = |text: &str, holds: bool| assert_eq!(try_script(text, Reading::Verify).0.is_ok(), holds, "{text}");
        check("SELECT 1 WHERE 0; SELECT 1; SELECT count(*) = 0 FROM sqlite_temp_schema", true);
        check("SELECT 0", false);
        check("SELECT NULL", false);
        check("SELECT 1, 1", false);
        check("SELECT 1 UNION ALL SELECT 1", false);
    }

    #[test]
    fn hostile_statements_are_refused_by_name() {
        let check = |text: &str, word: &str| {
            let (result, _, connection) = try_script(text, Reading::Run);
            let error = result.unwrap_err();
            assert!(matches!(error, ScriptError::Refused { .. }) && error.to_string().contains(word), "{text}: {error}");
            assert!(!connection.is_autocommit(), "{text}");
        };
        for (text, word) in [
            ("ATTACH 'x.db' AS x", "ATTACH"),
            ("DETACH main", "DETACH"),
            ("ROLLBACK", "rolls back"),
            ("SAVEPOINT s", "savepoint"),
            ("RELEASE s", "savepoint"),
            ("PRAGMA journal_mode=OFF", "journal_mode"),
            ("PRAGMA writable_schema=1", "writable_schema"),
            ("PRAGMA max_page_count=1", "max_page_count"),
            ("PRAGMA synchronous=0", "synchronous"),
            ("PRAGMA key='x'", "key"),
            ("PRAGMA schema_version=7", "schema_version"),
            ("PRAGMA trusted_schema=1", "trusted_schema"),
            ("SELECT * FROM pragma_journal_mode", "journal_mode"),
            ("SELECT load_extension('x')", "load_extension"),
            ("DELETE FROM _whimbrel_meta", "_whimbrel_meta"),
            ("SELECT * FROM _WHIMBREL_META", "WHIMBREL"),
            ("INSERT INTO \"_Whimbrel_meta\" VALUES (1,2)", "himbrel"),
            ("UPDATE _whimbrel_meta SET value = 1", "_whimbrel_meta"),
            ("DROP TABLE _whimbrel_meta", "_whimbrel_meta"),
            ("ALTER TABLE _whimbrel_meta RENAME TO m", "_whimbrel_meta"),
            ("CREATE INDEX i ON _whimbrel_meta(key)", "_whimbrel_meta"),
            ("CREATE TABLE _whimbrel_x(a)", "_whimbrel_x"),
            ("CREATE TRIGGER t AFTER INSERT ON _whimbrel_meta BEGIN SELECT 1; END", "_whimbrel_meta"),
            ("CREATE VIEW _whimbrel_v AS SELECT 1", "_whimbrel_v"),
            ("CREATE TABLE c(x); CREATE TEMP TRIGGER t AFTER INSERT ON c BEGIN SELECT 1; END", "temporary trigger"),
            ("CREATE VIRTUAL TABLE v USING dbstat", "dbstat"),
            ("CREATE VIRTUAL TABLE v USING csv(filename='/etc/passwd')", "csv"),
            ("EXPLAIN ATTACH 'x.db' AS x", "ATTACH"),
        ] {
            check(text, word);
        }
    }

    #[test]
    fn vacuum_cannot_run_inside_the_transaction_and_makes_no_file() {
        for text in ["VACUUM", "VACUUM INTO 'copy.db'"] {
            let (result, _, connection) = try_script(text, Reading::Run);
            assert!(result.unwrap_err().to_string().contains("VACUUM"));
            assert!(!connection.is_autocommit() && !std::path::Path::new("copy.db").exists());
        }
    }

    #[test]
    fn an_endless_query_is_stopped_at_its_deadline() {
        let mut connection = Connection::open_in_memory().unwrap();
        let guard = Guard::install(&mut connection, Halt::default()).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        let on = guard.on(Duration::from_millis(50), false);
        let begun = std::time::Instant::now();
        let endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c";
        let error = run(&connection, &guard, "up.sql", endless, Reading::Run, |_| Ok(()), |_| {}).unwrap_err();
        drop(on);
        assert!(matches!(error, ScriptError::Sqlite { code: ffi::SQLITE_INTERRUPT, .. }), "{error}");
        assert_eq!(guard.stopped(), Some(super::super::guard::Stopped::Deadline));
        assert!(begun.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn full_text_and_rtree_tables_work_under_the_guard() {
        let (result, _, _) = try_script(
            "CREATE VIRTUAL TABLE f USING fts5(a, b); INSERT INTO f VALUES ('x', 'y'); INSERT INTO f(f) VALUES ('optimize');\
             CREATE VIRTUAL TABLE g USING fts4(a); INSERT INTO g VALUES ('x'); CREATE VIRTUAL TABLE r USING rtree(id, a, b);\
             INSERT INTO r VALUES (1, 2, 3); ALTER TABLE f RENAME TO f2; DROP TABLE g; DROP TABLE f2; DROP TABLE r;",
            Reading::Run,
        );
        result.unwrap();
    }
}
