//! The oldest SQLite that can read a schema: to an older one the whole file is malformed, so it is a gate like `min_app`.
//!
//! A list of what the syntax of schema objects gained, with the release that brought it
//! (<https://www.sqlite.org/changes.html>). Functions count only where SQLite resolves them when it reads the schema.

use rusqlite::Connection;
use whimbrel_shared::sql::{Token, tokens};

use super::each;

/// A release as numbers: 3.37.0 is `(37, 0)`.
type Release = (u16, u16);

/// The oldest release that reads the schema of `connection`'s file; none where any release with foreign keys does.
pub(super) fn of(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let mut oldest: Option<Release> = None;
    each(connection, "SELECT type, sql FROM main.sqlite_schema WHERE sql IS NOT NULL", |row| {
        let (kind, sql): (String, String) = (row.get(0)?, row.get(1)?);
        oldest = oldest.max(needs(&kind, &tokens(&sql)));
        Ok(())
    })?;
    Ok(oldest.map(|(minor, patch)| format!("3.{minor}.{patch}")))
}

/// What one object needs.
fn needs(kind: &str, tokens: &[Token]) -> Option<Release> {
    match kind {
        "table" => table(tokens),
        "index" => index(tokens),
        "view" | "trigger" => query(tokens),
        _ => None,
    }
}

fn has(tokens: &[Token], words: &[&str]) -> bool {
    tokens.windows(words.len()).any(|window| window.iter().zip(words).all(|(token, word)| token.is(word)))
}

fn calls(tokens: &[Token], function: &str) -> bool {
    tokens.windows(2).any(|pair| pair[0].is(function) && pair[1] == Token::Mark('('))
}

fn table(tokens: &[Token]) -> Option<Release> {
    if tokens.get(1).is_some_and(|t| t.is("virtual")) {
        let using = tokens.iter().position(|t| t.is("using"))?;
        let says = |word: &str| tokens[using..].iter().any(|t| t.text().trim_matches('\'').split_whitespace().any(|w| w == word));
        return match tokens.get(using + 1) {
            Some(module) if module.text() == "fts5" && says("contentless_delete") => Some((43, 0)),
            Some(module) if module.text() == "fts5" && says("trigram") => Some((34, 0)),
            Some(module) if module.text() == "fts5" => Some((9, 0)),
            _ => None,
        };
    }
    let options: Vec<&Token> = tokens.iter().rev().take_while(|t| **t != Token::Mark(')')).collect();
    let option = |word: &str| options.iter().any(|t| t.is(word));
    // `GENERATED ALWAYS` may be left out: then it is `AS (`, which no other part of a table has (a CAST has a type after AS).
    let generated = has(tokens, &["generated", "always"]) || tokens.windows(2).any(|pair| pair[0].is("as") && pair[1] == Token::Mark('('));
    [option("strict").then_some((37, 0)), generated.then_some((31, 0)), option("rowid").then_some((8, 2)), expressions(tokens)]
        .into_iter()
        .flatten()
        .max()
}

fn index(tokens: &[Token]) -> Option<Release> {
    let open = tokens.iter().position(|t| *t == Token::Mark('('))?;
    let mut depth = 0;
    let mut expression = false;
    let mut close = tokens.len();
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Mark('(') => depth += 1,
            Token::Mark(')') => depth -= 1,
            _ => {}
        }
        expression |= depth > 1;
        if depth == 0 {
            close = at;
            break;
        }
    }
    let partial = tokens[close..].iter().any(|t| t.is("where"));
    [expression.then_some((9, 0)), partial.then_some((8, 0)), expressions(tokens)].into_iter().flatten().max()
}

fn query(tokens: &[Token]) -> Option<Release> {
    let upsert = has(tokens, &["on", "conflict"]) && tokens.iter().any(|t| t.is("do"));
    let window = calls(tokens, "over") || tokens.windows(2).any(|pair| pair[0].is("over") && matches!(pair[1], Token::Word(_)));
    let update_from = has(tokens, &["update"]) && update_reads_another(tokens);
    [
        (has(tokens, &["right", "join"]) || has(tokens, &["full", "join"]) || has(tokens, &["right", "outer"]) || has(tokens, &["full", "outer"]))
            .then_some((39, 0)),
        (has(tokens, &["as", "materialized"]) || has(tokens, &["not", "materialized"])).then_some((35, 0)),
        update_from.then_some((33, 0)),
        calls(tokens, "filter").then_some((30, 0)),
        window.then_some((25, 0)),
        upsert.then_some((24, 0)),
        tokens.iter().any(|t| t.is("with")).then_some((8, 3)),
        expressions(tokens),
    ]
    .into_iter()
    .flatten()
    .max()
}

/// UPDATE … SET … FROM: between SET and the end of the statement, outside parentheses.
fn update_reads_another(tokens: &[Token]) -> bool {
    tokens.split(|t| *t == Token::Mark(';')).any(|statement| {
        let Some(set) = statement.iter().position(|t| t.is("set")) else { return false };
        let mut depth = 0;
        statement[set..].iter().any(|t| {
            depth += i32::from(*t == Token::Mark('(')) - i32::from(*t == Token::Mark(')'));
            depth == 0 && t.is("from")
        })
    })
}

/// Operators and functions, where they may stand in any kind of object.
fn expressions(tokens: &[Token]) -> Option<Release> {
    let arrow = tokens.windows(2).any(|pair| pair[0] == Token::Mark('-') && pair[1] == Token::Mark('>'));
    [
        has(tokens, &["distinct", "from"]).then_some((39, 0)),
        arrow.then_some((38, 0)),
        (calls(tokens, "unixepoch") || calls(tokens, "format")).then_some((38, 0)),
        calls(tokens, "iif").then_some((32, 0)),
        calls(tokens, "concat").then_some((44, 0)),
        calls(tokens, "octet_length").then_some((43, 0)),
    ]
    .into_iter()
    .flatten()
    .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_schema_says_decides_who_can_read_it() {
        for (sql, want) in [
            ("CREATE TABLE t(a TEXT, b INT DEFAULT (CAST('1' AS INT)))", None),
            ("CREATE TABLE t(a TEXT) STRICT", Some("3.37.0")),
            ("CREATE TABLE t(a TEXT PRIMARY KEY) WITHOUT ROWID", Some("3.8.2")),
            ("CREATE TABLE t(a INT, b INT GENERATED ALWAYS AS (a) VIRTUAL)", Some("3.31.0")),
            ("CREATE TABLE t(a INT, b INT AS (a))", Some("3.31.0")),
            ("CREATE TABLE strict(a INT)", None),
            ("CREATE TABLE t(a TEXT, b TEXT DEFAULT (a ->> 'x')) ", Some("3.38.0")),
            ("CREATE VIRTUAL TABLE t USING fts5(a)", Some("3.9.0")),
            ("CREATE VIRTUAL TABLE t USING fts5(a, tokenize='trigram')", Some("3.34.0")),
            ("CREATE TABLE t(a); CREATE INDEX i ON t(a)", None),
            ("CREATE TABLE t(a); CREATE INDEX i ON t(a) WHERE a > 0", Some("3.8.0")),
            ("CREATE TABLE t(a); CREATE INDEX i ON t(lower(a))", Some("3.9.0")),
            ("CREATE TABLE t(a); CREATE VIEW v AS SELECT row_number() OVER (ORDER BY a) FROM t", Some("3.25.0")),
            ("CREATE TABLE t(a); CREATE VIEW v AS SELECT 1 FROM t FULL JOIN t AS u", Some("3.39.0")),
            (
                "CREATE TABLE t(a UNIQUE); CREATE TRIGGER r AFTER INSERT ON t BEGIN INSERT INTO t(a) VALUES (1) ON CONFLICT(a) DO NOTHING; END",
                Some("3.24.0"),
            ),
            ("CREATE TABLE t(a); CREATE TRIGGER r AFTER INSERT ON t BEGIN UPDATE t SET a = u.a FROM t AS u; END", Some("3.33.0")),
            ("CREATE TABLE t(a); CREATE TRIGGER r AFTER INSERT ON t BEGIN UPDATE t SET a = (SELECT 1 FROM t); END", None),
        ] {
            let connection = Connection::open_in_memory().unwrap();
            match connection.execute_batch(sql) {
                Ok(()) => {}
                // Not every sample is a table that SQLite accepts; the reader of the text must still know it.
                Err(_) => {
                    assert_eq!(needs("table", &tokens(sql)).map(|(a, b)| format!("3.{a}.{b}")).as_deref(), want, "{sql}");
                    continue;
                }
            }
            assert_eq!(of(&connection).unwrap().as_deref(), want, "{sql}");
        }
    }
}
