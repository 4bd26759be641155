//! What a schema is, apart from how it was written: one digest per object, and one over all. Pure.
//!
//! Structural (DESIGN 5): columns with types, defaults, keys, foreign keys and constraints come from SQLite's own
//! pragmas; checks, collations and generated columns from the normalised text; indexes, views and triggers from theirs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    ids::Digest,
    sql::{Token, normalised, tokens},
};

/// A schema, object by object: `table notes` → the first 16 hex digits of the digest of its facts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Schema(pub BTreeMap<String, String>);

/// What one version does to the chain's schema: objects made or changed with their digest, objects dropped with none.
/// A chain of n versions so stays linear in size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SchemaChange(pub BTreeMap<String, Option<String>>);

/// What pragmas say about one table.
#[derive(Clone, Debug, Default)]
pub struct TableFacts {
    /// `PRAGMA table_xinfo`, in order.
    pub columns: Vec<ColumnFacts>,
    /// `PRAGMA foreign_key_list`, one line a key: `from,… -> table(to,…) on_update on_delete match`.
    pub foreign_keys: Vec<String>,
    /// UNIQUE and PRIMARY KEY constraints: their columns in order.
    pub unique: Vec<String>,
}

/// One row of `PRAGMA table_xinfo`.
#[derive(Clone, Debug, Default)]
pub struct ColumnFacts {
    /// Its name.
    pub name: String,
    /// Its declared type.
    pub decl_type: String,
    /// Whether NOT NULL was declared.
    pub not_null: bool,
    /// The text of its default.
    pub default: Option<String>,
    /// Its place in the primary key, from 1; 0 outside.
    pub key: i64,
    /// 0 ordinary, 1 hidden, 2 virtual, 3 stored.
    pub hidden: i64,
}

impl Schema {
    /// One digest over all objects.
    pub fn digest(&self) -> Digest {
        let mut text = String::with_capacity(self.0.len() * 48);
        for (object, digest) in &self.0 {
            text.extend([object.as_str(), "\u{1f}", digest, "\n"]);
        }
        Digest::of(text.as_bytes())
    }

    /// How `found` differs from this expectation, one line per object, in words. Objects that are not expected do not
    /// count: the application may have its own.
    pub fn drift(&self, found: &Self) -> Vec<String> {
        self.0
            .iter()
            .filter_map(|(object, digest)| match found.0.get(object) {
                None => Some(format!("{object} is missing")),
                Some(other) if other != digest => Some(format!("{object} differs")),
                Some(_) => None,
            })
            .collect()
    }

    /// What has to change for this schema to become `after`.
    pub fn change_to(&self, after: &Self) -> SchemaChange {
        let made = after.0.iter().filter(|(o, d)| self.0.get(*o) != Some(d)).map(|(o, d)| (o.clone(), Some(d.clone())));
        let dropped = self.0.keys().filter(|o| !after.0.contains_key(*o)).map(|o| (o.clone(), None));
        SchemaChange(made.chain(dropped).collect())
    }

    /// Makes that change.
    pub fn apply(&mut self, change: &SchemaChange) {
        for (object, digest) in &change.0 {
            match digest {
                Some(digest) => self.0.insert(object.clone(), digest.clone()),
                None => self.0.remove(object),
            };
        }
    }

    /// The part of `found` that this expectation speaks of.
    pub fn restricted(&self, found: &Self) -> Self {
        Self(found.0.iter().filter(|(object, _)| self.0.contains_key(*object)).map(|(o, d)| (o.clone(), d.clone())).collect())
    }
}

/// Key of an object in a [`Schema`].
pub fn object_key(kind: &str, name: &str) -> String {
    format!("{kind} {}", name.to_ascii_lowercase())
}

/// Digest of a table: `sql` as it stands in `sqlite_schema`, and what pragmas say of it.
pub fn table(sql: &str, facts: &TableFacts) -> String {
    let mut text = String::new();
    for c in &facts.columns {
        let default = c.default.as_deref().map_or_else(|| "-".to_owned(), |d| normalised(&tokens(d)));
        text.push_str(&format!(
            "column {} {} notnull={} default={default} key={} hidden={}\n",
            c.name.to_ascii_lowercase(),
            c.decl_type.to_ascii_lowercase(),
            c.not_null,
            c.key,
            c.hidden
        ));
    }
    let sorted = |kind: &str, lines: &[String]| {
        let mut lines: Vec<_> = lines.iter().map(|l| format!("{kind} {}\n", l.to_ascii_lowercase())).collect();
        lines.sort();
        lines.concat()
    };
    text.push_str(&sorted("foreign key", &facts.foreign_keys));
    text.push_str(&sorted("unique", &facts.unique));
    text.push_str(&sorted("clause", &clauses(sql)));
    short(&text)
}

/// Digest of an index, view, trigger or virtual table: its normalised text after the name.
pub fn text_object(sql: &str) -> String {
    short(&normalised(&tokens(sql)))
}

fn short(text: &str) -> String {
    Digest::of(text.as_bytes()).to_string()[..16].to_owned()
}

/// The parts of a CREATE TABLE that no pragma tells: checks, collations, generated columns, autoincrement, conflict
/// clauses, deferral, and the table options; each with the column definition it stands in.
fn clauses(sql: &str) -> Vec<String> {
    let tokens = tokens(sql);
    let Some(open) = tokens.iter().position(|t| *t == Token::Mark('(')) else {
        return vec![normalised(&tokens)];
    };
    let close = matching(&tokens, open);
    let mut out: Vec<String> =
        tokens[(close + 1).min(tokens.len())..].split(|t| *t == Token::Mark(',')).map(|o| format!("option {}", normalised(o))).collect();
    out.retain(|o| o != "option ");
    let mut depth = 0;
    let items = tokens[open + 1..close].split(|t| {
        depth += i32::from(*t == Token::Mark('(')) - i32::from(*t == Token::Mark(')'));
        depth == 0 && *t == Token::Mark(',')
    });
    for item in items {
        // A table constraint names its columns inside; a column definition begins with its column.
        let is_constraint = item.first().is_some_and(|t| ["constraint", "check", "unique", "primary", "foreign"].iter().any(|k| t.is(k)));
        let column = item.first().filter(|_| !is_constraint).map_or_else(String::new, Token::text);
        let mut at = usize::from(!column.is_empty());
        while at < item.len() {
            let paren = item[at..].iter().position(|t| *t == Token::Mark('(')).map(|p| at + p);
            let through_paren = |paren: Option<usize>| paren.map_or(item.len(), |p| (matching(item, p) + 1).min(item.len()));
            let end = if item[at].is("check") || item[at].is("as") {
                through_paren(paren)
            } else if ["collate", "initially", "conflict"].iter().any(|k| item[at].is(k)) {
                at + 2
            } else if item[at].is("autoincrement") || item[at].is("deferrable") {
                at + 1
            } else {
                at += 1;
                continue;
            };
            let end = end.min(item.len());
            out.push(format!("{column}: {}", normalised(&item[at..end])));
            at = end;
        }
    }
    out
}

/// Index of the parenthesis that closes the one at `open`, or the end.
fn matching(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Mark('(') => depth += 1,
            Token::Mark(')') => {
                depth -= 1;
                if depth == 0 {
                    return at;
                }
            }
            Token::Mark(_) | Token::Word(_) | Token::Quoted(_) | Token::Literal(_) => {}
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clauses_are_found_and_spelling_does_not_count() {
        let a = clauses(
            "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT COLLATE NOCASE CHECK (length(a) > 1), b INT GENERATED ALWAYS AS (id*2) STORED, CHECK(a<>''), UNIQUE(a COLLATE rtrim)) STRICT, WITHOUT ROWID",
        );
        let b = clauses(
            "create table \"t\"( id integer primary key autoincrement,\n a text collate nocase check(length(a)>1), b int generated always as (id * 2) stored, check (a <> ''), unique (a collate RTRIM) ) strict , without rowid",
        );
        assert_eq!(a, b);
        assert_eq!(
            a,
            [
                "option strict",
                "option without rowid",
                "id: autoincrement",
                "a: collate nocase",
                "a: check ( length ( a ) > 1 )",
                "b: as ( id * 2 )",
                ": check ( a < > '' )",
                ": collate rtrim"
            ]
        );
    }

    #[test]
    fn drift_is_named_object_by_object() {
        let schema = |pairs: &[(&str, &str)]| Schema(pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect());
        let want = schema(&[("table a", "1"), ("table b", "2"), ("view v", "3")]);
        let found = schema(&[("table a", "1"), ("table b", "9"), ("table theirs", "7")]);
        assert_eq!(want.drift(&found), ["table b differs", "view v is missing"]);
        assert_eq!(want.restricted(&found).0.len(), 2);
        assert_ne!(want.digest(), found.digest());
        let mut walked = want.clone();
        walked.apply(&want.change_to(&found));
        assert_eq!(walked, found);
    }
}
