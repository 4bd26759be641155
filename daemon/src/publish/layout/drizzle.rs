//! drizzle-kit: `meta/_journal.json` names the files in order; from version 1 on, `stamp_name/migration.sql` beside
//! `snapshot.json`. Pure.

use serde::Deserialize;
use whimbrel_shared::sql::{Token, tokens};

use super::{Draft, LayoutError, Order, Text, few, prefix, prisma};
use crate::publish::listing::{Listing, ListingError};

/// The journal.
pub(super) const JOURNAL: &str = "meta/_journal.json";
const BREAKPOINT: &str = "--> statement-breakpoint";

#[derive(Deserialize)]
struct Journal {
    #[serde(default)]
    dialect: Option<String>,
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    idx: u64,
    tag: String,
    #[serde(default)]
    when: Option<f64>,
}

/// Reads the layout.
pub(super) fn read(listing: &Listing, notes: &mut Vec<String>) -> Result<Vec<Draft>, LayoutError> {
    if !listing.files.contains_key(JOURNAL) {
        return directories(listing);
    }
    let journal: Journal =
        serde_json::from_str(listing.text(JOURNAL)?).map_err(|error| LayoutError::BadFile { file: JOURNAL.to_owned(), what: error.to_string() })?;
    if let Some(dialect) = journal.dialect.filter(|d| !matches!(d.as_str(), "sqlite" | "turso")) {
        return Err(LayoutError::OtherDialect { file: JOURNAL.to_owned(), dialect });
    }
    let mut drafts = Vec::new();
    for entry in &journal.entries {
        let path = format!("{}.sql", entry.tag);
        if !listing.files.contains_key(&path) {
            return Err(LayoutError::Listing(ListingError::Missing { file: path, named_by: JOURNAL.to_owned() }));
        }
        let sql = finish_statements(listing.text(&path)?);
        let mut draft = Draft::new(&entry.tag, Order::number(entry.idx.into()), Text::whole(&path, &sql));
        #[expect(clippy::cast_possible_truncation, reason = "checked against whole milliseconds")]
        let when = entry.when.filter(|ms| (0.0..1e14).contains(ms)).map(|ms| ms as i64);
        draft.timestamp_ms = when.or(draft.timestamp_ms);
        drafts.push(draft);
    }
    let stray: Vec<String> = listing
        .paths()
        .filter(|path| !path.contains('/') && path.ends_with(".sql"))
        .filter(|path| !journal.entries.iter().any(|e| path.strip_suffix(".sql") == Some(e.tag.as_str())))
        .map(str::to_owned)
        .collect();
    if !stray.is_empty() {
        notes.push(format!("{JOURNAL} does not name {}: drizzle does not run it either", few(stray.into_iter())));
    }
    Ok(drafts)
}

fn directories(listing: &Listing) -> Result<Vec<Draft>, LayoutError> {
    prisma::found(listing)
        .map(|(directory, path)| {
            let (number, _) = prefix::dashed_number(directory).ok_or_else(|| LayoutError::NoNumber { path: directory.to_owned() })?;
            let sql = finish_statements(listing.text(path)?);
            Ok(Draft::new(directory, Order::number(prefix::aligned(number)), Text::whole(path, &sql)))
        })
        .collect()
}

/// Drizzle cuts at its breakpoints and needs no semicolons there; SQLite does. Adds the missing ones.
fn finish_statements(text: &str) -> String {
    let pieces: Vec<&str> = text.split(BREAKPOINT).collect();
    let mut out = String::with_capacity(text.len() + pieces.len());
    for (index, piece) in pieces.iter().enumerate() {
        if index > 0 {
            out.push_str(BREAKPOINT);
            // What follows on the same line was a statement for drizzle, and is a comment for SQLite.
            if !piece.split('\n').next().unwrap_or_default().trim().is_empty() {
                out.push('\n');
            }
        }
        out.push_str(piece);
        let last = index + 1 == pieces.len();
        let unfinished = tokens(piece).last().is_some_and(|t| *t != Token::Mark(';'));
        if unfinished && !last {
            // On a line of its own where a comment would swallow it.
            let line = piece.rsplit('\n').next().unwrap_or_default();
            out.push_str(if line.contains("--") { "\n;" } else { ";" });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breakpoint_ends_a_statement_and_lines_stay_where_they_are() {
        for (text, want) in [
            ("a;--> statement-breakpoint\nb;", "a;--> statement-breakpoint\nb;"),
            ("a\n--> statement-breakpoint\nb", "a\n;--> statement-breakpoint\nb"),
            ("a -- c\n--> statement-breakpoint", "a -- c\n;--> statement-breakpoint"),
            ("a -- c --> statement-breakpoint\nb", "a -- c \n;--> statement-breakpoint\nb"),
            ("a;--> statement-breakpoint b;", "a;--> statement-breakpoint\n b;"),
            ("", ""),
        ] {
            assert_eq!(finish_statements(text), want);
        }
    }
}
