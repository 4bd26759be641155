//! SQL text as statements with their places, and what each one does, for `lint`. It acts on nothing. Where a statement ends is said by
//! SQLite (`sqlite3_complete`, <https://www.sqlite.org/c3ref/complete.html>), never by rules of our own: a trigger's body,
//! a CASE and a quoted semicolon are where own splitters fail.

mod deed;

use std::ffi::CString;

use whimbrel_shared::sql::{Token, tokens};

pub use self::deed::{Deed, NeedsEmpty, TableKind, deed, keeps, switch};

/// A token and the byte at which it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spanned {
    /// The token.
    pub token: Token,
    /// Offset in the text.
    pub at: usize,
    /// Offset after its last byte.
    pub end: usize,
}

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Its tokens, without the semicolon at its end. Never empty.
    pub tokens: Vec<Spanned>,
}

impl Statement {
    /// The byte at which it begins.
    pub fn at(&self) -> usize {
        self.tokens.first().map_or(0, |t| t.at)
    }

    /// Its part of `text`, which it was read from, without the semicolon.
    pub fn text<'t>(&self, text: &'t str) -> &'t str {
        let end = self.tokens.last().map_or(0, |t| t.end);
        text.get(self.at()..end).unwrap_or_default()
    }
}

/// The statements of `text`. Total: what has no end is one statement up to the end.
pub fn statements(text: &str) -> Vec<Statement> {
    let mut out = Vec::new();
    let mut current: Vec<Spanned> = Vec::new();
    for spanned in spanned(text) {
        let ends = spanned.token == Token::Mark(';');
        let end = spanned.end;
        if !ends {
            current.push(spanned);
            continue;
        }
        match current.first() {
            None => {}
            Some(first) if is_complete(&current, &text[first.at..end]) => {
                out.push(Statement { tokens: std::mem::take(&mut current) });
            }
            Some(_) => current.push(spanned),
        }
    }
    if !current.is_empty() {
        out.push(Statement { tokens: current });
    }
    out
}

/// Asks SQLite, but only about triggers: nothing else holds a semicolon between its tokens, and asking each time would
/// make a long script slow.
fn is_complete(tokens: &[Spanned], text: &str) -> bool {
    let creates = tokens.iter().find(|t| !t.token.is("explain") && !t.token.is("query") && !t.token.is("plan")).is_some_and(|t| t.token.is("create"));
    if !creates || !tokens.iter().take(8).any(|t| t.token.is("trigger")) {
        return true;
    }
    // Between two ends of a body's statements only `END;` can close it: a question less for each of the others.
    if !tokens.last().is_some_and(|t| t.token.is("end")) {
        return false;
    }
    let Ok(text) = CString::new(text) else {
        return true;
    };
    // SAFETY: `text` is a NUL-terminated string that lives through the call; SQLite only reads it.
    unsafe { rusqlite::ffi::sqlite3_complete(text.as_ptr()) == 1 }
}

/// The tokens of `text` with their places.
pub fn spanned(text: &str) -> Vec<Spanned> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let length = token_length(rest, c);
        // The words of one token are the shared tokeniser's: both must agree on what a token means.
        if let Some(token) = tokens(&rest[..length]).into_iter().next() {
            out.push(Spanned { token, at, end: at + length });
        }
        at += length;
    }
    out
}

/// Bytes of the token, comment or blank at the front of `rest`, which begins with `c`.
fn token_length(rest: &str, c: char) -> usize {
    let all = rest.len();
    let quoted = |open: usize, close: char| {
        let mut chars = rest[open..].char_indices().peekable();
        while let Some((at, found)) = chars.next() {
            if found != close {
            } else if close != ']' && chars.peek().is_some_and(|(_, next)| *next == close) {
                chars.next();
            } else {
                return open + at + close.len_utf8();
            }
        }
        all
    };
    if rest.starts_with("--") {
        rest.find('\n').map_or(all, |n| n + 1)
    } else if let Some(comment) = rest.strip_prefix("/*") {
        comment.find("*/").map_or(all, |n| n + 4)
    } else {
        match c {
            '\'' | '"' | '`' => quoted(1, c),
            '[' => quoted(1, ']'),
            'x' | 'X' if rest[1..].starts_with('\'') => quoted(2, '\''),
            _ if is_word(c) => rest.find(|c: char| !is_word(c)).unwrap_or(all),
            _ => c.len_utf8(),
        }
    }
}

fn is_word(c: char) -> bool {
    (c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()) && !c.is_whitespace() && c != '\u{feff}'
}

/// Line and column, from 1, of the byte `at`. Columns count characters.
pub fn line_column(text: &str, at: usize) -> (u32, u32) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    (small(line), small(column))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(sql: &str) -> Vec<String> {
        let all = statements(sql);
        all.iter().map(|s| s.tokens.iter().map(|t| t.token.text()).collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn sqlite_says_where_a_statement_ends() {
        for (sql, want) in [
            ("a; b;", vec!["a", "b"]),
            (";;a;;", vec!["a"]),
            ("a -- c; d", vec!["a"]),
            ("select ';'; b", vec!["select ';'", "b"]),
            (
                "create trigger t after insert on a begin select case when 1 then 2 end; delete from b; end; c;",
                vec!["create trigger t after insert on a begin select case when 1 then 2 end ; delete from b ; end", "c"],
            ),
            (
                "CREATE TEMP TRIGGER t AFTER INSERT ON a BEGIN UPDATE b SET c = CASE WHEN d THEN 1 ELSE 2 END; END; x",
                vec!["create temp trigger t after insert on a begin update b set c = case when d then 1 else 2 end ; end", "x"],
            ),
        ] {
            assert_eq!(texts(sql), want, "{sql}");
        }
    }

    #[test]
    fn places_count_lines_and_characters_from_one() {
        assert_eq!(line_column("a\nüb c", "a\nüb ".len()), (2, 4));
        assert_eq!(line_column("", 0), (1, 1));
        assert_eq!(line_column("a", 99), (1, 2));
    }

    proptest! {
        #[test]
        fn any_text_gives_statements_with_the_shared_tokens(text in "\\PC*") {
            let found: Vec<_> = spanned(&text).into_iter().map(|t| t.token).collect();
            prop_assert_eq!(found, tokens(&text));
            for statement in statements(&text) {
                deed(&statement);
            }
        }
    }
}
