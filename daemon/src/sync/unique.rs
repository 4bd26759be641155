//! How the rows that `OR REPLACE` would delete are found for one UNIQUE index: a probe, or nothing that is safe. Pure.
//!
//! With `recursive_triggers` off, which is SQLite's default and not ours to change in the application, such a row goes
//! without any trigger (reference 2.4, pitfall 2).

use whimbrel_shared::sql::{Token, quote, spans};

use super::{
    shape::Probe,
    table::{Facts, UniqueFacts},
};

/// What is to be done about a UNIQUE index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cover {
    /// Whoever collides with it has the same key.
    ByKey,
    /// A probe finds who collides.
    Probe(Probe),
    /// A sweep has to; the reason.
    Sweep(&'static str),
}

/// What is to be done about `index`. `droppable`: the application may drop columns by itself, so that a probe may only name
/// columns that a constraint of the table holds.
pub fn cover(facts: &Facts, index: &UniqueFacts, droppable: bool) -> Cover {
    let holds = |name: &str, collation: &str| {
        index.terms.iter().any(|(n, c)| n.as_ref().is_some_and(|n| n.eq_ignore_ascii_case(name)) && c.eq_ignore_ascii_case(collation))
    };
    if !facts.key.is_empty() && facts.key.iter().all(|(at, collation)| holds(&facts.columns[*at].name, collation)) {
        return Cover::ByKey;
    }
    if droppable && index.sql.is_some() {
        return Cover::Sweep("in key-only mode a probe would stop the application from dropping its columns");
    }
    let plain: Option<Vec<(&str, &str)>> = index.terms.iter().map(|(name, collation)| Some((name.as_deref()?, collation.as_str()))).collect();
    match (plain, index.partial, &index.sql) {
        (Some(columns), false, _) => {
            let of = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
            Cover::Probe(Probe { terms: columns.iter().map(|(n, c)| term(facts, n, c)).collect(), condition: None, of: Some(of) })
        }
        (_, _, Some(sql)) => from_text(facts, index, sql),
        (_, _, None) => Cover::Sweep("its text is not known"),
    }
}

/// A column of the index: in a row of the table, and in the new row.
fn term(facts: &Facts, column: &str, collation: &str) -> (String, String) {
    let own = facts.columns.iter().find(|c| c.name.eq_ignore_ascii_case(column)).map_or("", |c| c.collation.as_str());
    let collate = if own.eq_ignore_ascii_case(collation) { String::new() } else { format!(" COLLATE {}", quote(collation)) };
    (format!("{}.{}", quote(&facts.name), quote(column)), format!("NEW.{}{collate}", quote(column)))
}

/// A probe for a partial index or one on expressions, from the text of its CREATE INDEX: the same words, with a row's name
/// before each column. A text that is not understood gives a sweep.
fn from_text(facts: &Facts, index: &UniqueFacts, sql: &str) -> Cover {
    const UNCLEAR: Cover = Cover::Sweep("its text could not be taken apart");
    let Some((terms, condition)) = take_apart(sql) else { return UNCLEAR };
    if terms.len() != index.terms.len() || condition.is_some() != index.partial {
        return UNCLEAR;
    }
    let there = quote(&facts.name);
    let mut columns = Vec::new();
    let mut pairs = Vec::new();
    for (text, (name, collation)) in terms.iter().zip(&index.terms) {
        match name {
            Some(name) => {
                pairs.push(term(facts, name, collation));
                columns.push(name.clone());
            }
            None => match (with_row(facts, text, &there, &mut columns), with_row(facts, text, "NEW", &mut Vec::new())) {
                (Some(old), Some(new)) => pairs.push((format!("({old})"), format!("({new})"))),
                _ => return UNCLEAR,
            },
        }
    }
    let condition = match condition.map(|text| with_row(facts, text, &there, &mut columns)) {
        None => None,
        Some(Some(text)) => Some(text),
        Some(None) => return UNCLEAR,
    };
    columns.sort_unstable();
    columns.dedup();
    Cover::Probe(Probe { terms: pairs, condition, of: Some(columns) })
}

/// The terms of a CREATE INDEX without their order, and its condition.
fn take_apart(sql: &str) -> Option<(Vec<&str>, Option<&str>)> {
    let tokens = spans(sql);
    let on = tokens.iter().position(|(_, t)| t.is("on"))?;
    let open = on + tokens[on..].iter().position(|(_, t)| *t == Token::Mark('('))?;
    let (mut depth, mut begin, mut terms, mut close) = (0, open + 1, Vec::new(), None);
    for (number, (_, token)) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Mark('(') => depth += 1,
            Token::Mark(')') => depth -= 1,
            _ => {}
        }
        if depth == 0 || depth == 1 && *token == Token::Mark(',') {
            let ordered = tokens[number - 1].1.is("asc") || tokens[number - 1].1.is("desc");
            let end = if ordered { number - 1 } else { number };
            terms.push(sql[tokens.get(begin)?.0..tokens[end].0].trim());
            begin = number + 1;
        }
        if depth == 0 {
            close = Some(number);
            break;
        }
    }
    let rest = &tokens[close? + 1..];
    match rest {
        [] => Some((terms, None)),
        [(_, w), (begin, _), ..] if w.is("where") => Some((terms, Some(&sql[*begin..]))),
        _ => None,
    }
}

/// An expression over the columns of the table, as one over the columns of `row`. Notes the columns. `None` where a word
/// may be a column and something else, or where it ends in a comment.
fn with_row(facts: &Facts, text: &str, row: &str, columns: &mut Vec<String>) -> Option<String> {
    let tokens = spans(text);
    let mut out = String::new();
    let mut at = 0;
    if text.contains("--") || text.contains("/*") {
        return None;
    }
    for (number, (begin, token)) in tokens.iter().enumerate() {
        let (Token::Word(word) | Token::Quoted(word)) = token else { continue };
        let next = tokens.get(number + 1).map(|(_, t)| t);
        let before = number.checked_sub(1).map(|n| &tokens[n].1);
        if next == Some(&Token::Mark('(')) && matches!(token, Token::Word(_)) {
            continue;
        }
        // A name with dots, the row id, and what follows AS or COLLATE: not worth telling apart.
        let dotted = next == Some(&Token::Mark('.')) || before == Some(&Token::Mark('.'));
        let named = before.is_some_and(|t| t.is("collate") || t.is("as"));
        let column = facts.columns.iter().find(|c| c.name.to_ascii_lowercase() == *word);
        if dotted || ["rowid", "oid", "_rowid_"].contains(&word.as_str()) || named && column.is_some() {
            return None;
        }
        match column {
            Some(column) => {
                let end = tokens.get(number + 1).map_or(text.len(), |(next, _)| *next);
                let spaces = &text[*begin..end];
                let spaces = &spaces[spaces.trim_end().len()..];
                out.push_str(&text[at..*begin]);
                out.push_str(&format!("{row}.{}{spaces}", quote(&column.name)));
                columns.push(column.name.clone());
                at = end;
            }
            // A quoted name that is no column is a text to SQLite, or an error: either way not ours to read.
            None if matches!(token, Token::Quoted(_)) && !named => return None,
            None => {}
        }
    }
    out.push_str(&text[at..]);
    Some(out)
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    fn covers(sql: &str, droppable: bool) -> Vec<String> {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(sql).unwrap();
        let facts = Facts::read(&connection, "t").unwrap().unwrap();
        let show = |cover| match cover {
            Cover::ByKey => "key".to_owned(),
            Cover::Sweep(_) => "sweep".to_owned(),
            Cover::Probe(Probe { terms, condition, of }) => {
                let terms: Vec<_> = terms.iter().map(|(a, b)| format!("{a} = {b}")).collect();
                format!("{} if {} of {}", terms.join(" and "), condition.unwrap_or_default(), of.unwrap_or_default().join(","))
            }
        };
        facts.unique.iter().map(|index| show(cover(&facts, index, droppable))).collect()
    }

    #[test]
    fn a_unique_index_is_probed_with_its_own_words() {
        let check = |columns: &str, index: &str, cover: &str| {
            let sql = format!("CREATE TABLE t(id INTEGER PRIMARY KEY, {columns}); CREATE UNIQUE INDEX i ON t{index}");
            assert_eq!(covers(&sql, false), [cover], "{index}");
        };
        check("a, b", "(a, b)", r#""t"."a" = NEW."a" and "t"."b" = NEW."b" if  of a,b"#);
        check("a", "(a COLLATE NOCASE)", r#""t"."a" = NEW."a" COLLATE "NOCASE" if  of a"#);
        check("a TEXT COLLATE NOCASE", "(a DESC)", r#""t"."a" = NEW."a" if  of a"#);
        check("a, s", "(a) WHERE s = 'x'", r#""t"."a" = NEW."a" if "t"."s" = 'x' of a,s"#);
        check("a, s", "( a ) WHERE s IS NOT NULL AND S <> a", r#""t"."a" = NEW."a" if "t"."s" IS NOT NULL AND "t"."s" <> "t"."a" of a,s"#);
        check(
            "a, b",
            "(lower(A) COLLATE NOCASE DESC, b)",
            r#"(lower("t"."a") COLLATE NOCASE) = (lower(NEW."a") COLLATE NOCASE) and "t"."b" = NEW."b" if  of a,b"#,
        );
        check("a", "(id, a)", "key");
        check("a, nocase", "(lower(a) COLLATE nocase)", "sweep");
        check("a, text", "(CAST(a AS text))", "sweep");
        check("a", "(a) WHERE rowid > 5", "sweep");
        check("a", "(a) WHERE a > 5 -- and more", "sweep");
        check("a", "(a) WHERE t.a > 5", "sweep");
        check("a", "(a /* a */, a || 'x' /* b */)", "sweep");
    }

    #[test]
    fn in_key_only_mode_only_constraints_are_probed() {
        let sql = "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b); CREATE UNIQUE INDEX i ON t(b)";
        assert_eq!(covers(sql, true), [r#""t"."a" = NEW."a" if  of a"#, "sweep"]);
    }
}
