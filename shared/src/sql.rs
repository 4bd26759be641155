//! SQL text as tokens, for comparing what two schema texts mean. Pure. It never decides where a statement ends: SQLite
//! does that (DESIGN 8.7).

/// One token, normalised: comments and white space gone, identifiers and keywords in lower case and unquoted, literals
/// as they stand.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Token {
    /// A keyword or an unquoted identifier.
    Word(String),
    /// A quoted identifier: `"x"`, `` `x` `` or `[x]`. Equal in meaning to the word, never a keyword.
    Quoted(String),
    /// A string, blob or number literal.
    Literal(String),
    /// Anything else, one character or an operator's first.
    Mark(char),
}

impl Token {
    /// Whether it is this keyword.
    pub fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(w) if w == keyword)
    }

    /// Its text for comparing: a quoted identifier reads as the word.
    pub fn text(&self) -> String {
        match self {
            Self::Word(t) | Self::Quoted(t) | Self::Literal(t) => t.clone(),
            Self::Mark(c) => c.to_string(),
        }
    }
}

/// The tokens of `sql`. Total: any text gives a list; an unterminated literal or comment runs to the end.
pub fn tokens(sql: &str) -> Vec<Token> {
    spans(sql).into_iter().map(|(_, token)| token).collect()
}

/// As [`tokens`], each with the byte at which it begins.
pub fn spans(sql: &str) -> Vec<(usize, Token)> {
    read(sql).0
}

/// The byte at which a block comment begins that is never closed. SQLite takes what follows for a part of it, and says
/// nothing.
pub fn open_comment(sql: &str) -> Option<usize> {
    read(sql).1
}

fn read(sql: &str) -> (Vec<(usize, Token)>, Option<usize>) {
    let bytes = sql.as_bytes();
    let (mut out, mut open) = (Vec::new(), None);
    let mut at = 0;
    while let Some(c) = sql[at..].chars().next() {
        let rest = &bytes[at..];
        if c.is_whitespace() || c == '\u{feff}' {
            at += c.len_utf8();
        } else if rest.starts_with(b"--") {
            at += sql[at..].find('\n').map_or(rest.len(), |n| n + 1);
        } else if rest.starts_with(b"/*") {
            let end = sql[at + 2..].find("*/");
            open = open.or(end.is_none().then_some(at));
            at += end.map_or(rest.len(), |n| n + 4);
        } else if c == '\'' || ((c == 'x' || c == 'X') && rest.get(1) == Some(&b'\'')) {
            let begin = usize::from(c != '\'') + 1;
            let (_, length) = quoted(&sql[at + begin..], '\'');
            let text = &sql[at..at + begin + length];
            out.push((at, Token::Literal(if begin == 2 { text.to_ascii_lowercase() } else { text.to_owned() })));
            at += begin + length;
        } else if matches!(c, '"' | '`' | '[') {
            let (text, length) = quoted(&sql[at + 1..], if c == '[' { ']' } else { c });
            out.push((at, Token::Quoted(text.to_ascii_lowercase())));
            at += 1 + length;
        } else if is_word(c) {
            let length = sql[at..].find(|c: char| !is_word(c)).unwrap_or(rest.len());
            let word = sql[at..at + length].to_ascii_lowercase();
            out.push((at, if c.is_ascii_digit() { Token::Literal(word) } else { Token::Word(word) }));
            at += length;
        } else {
            out.push((at, Token::Mark(c)));
            at += c.len_utf8();
        }
    }
    (out, open)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii() && !c.is_whitespace()
}

/// The text up to `close`, where a doubled `close` stands for one, and the length in bytes with the closing quote.
fn quoted(text: &str, close: char) -> (String, usize) {
    let mut out = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != close {
            out.push(c);
        } else if close != ']' && chars.peek().is_some_and(|(_, next)| *next == close) {
            chars.next();
            out.push(c);
        } else {
            return (out, at + c.len_utf8());
        }
    }
    (out, text.len())
}

/// A name as SQL writes it.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The tokens as one line, for hashing and for comparing.
pub fn normalised(tokens: &[Token]) -> String {
    tokens.iter().map(Token::text).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spelling_does_not_count_and_meaning_does() {
        let same = |a: &str, b: &str| normalised(&tokens(a)) == normalised(&tokens(b));
        assert!(same("create table \"T\" ( [a] int , `b` text )", "CREATE TABLE t(a INT,b TEXT) -- c"));
        assert!(same("x /* c */ y", "x y"));
        assert!(same("X'AB'", "x'ab'"));
        assert!(!same("check (a = 'X')", "check (a = 'x')"));
        assert!(!same("a b", "ab"));
        assert_eq!(tokens("'it''s' \"q\"\"q\""), [Token::Literal("'it''s'".into()), Token::Quoted("q\"q".into())]);
    }

    #[test]
    fn a_comment_that_is_never_closed_is_found_where_it_begins() {
        let check = |sql: &str, at: Option<usize>| assert_eq!(open_comment(sql), at, "{sql}");
        check("a /* b", Some(2));
        check("a /*/ b", Some(2));
        check("/* a */ b /* c", Some(10));
        check("/* a /* b */", None);
        check("'/*' \"/*\" [/*] -- /*\nx", None);
    }

    proptest! {
        #[test]
        fn any_text_gives_tokens_where_they_stand(text in "\\PC*") {
            for (at, token) in spans(&text) {
                if let Token::Word(word) = token {
                    prop_assert!(text[at..].to_ascii_lowercase().starts_with(&word));
                }
            }
        }
    }
}
