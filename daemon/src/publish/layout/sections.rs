//! One file with the ways up and down under marker comments: goose, sql-migrate, dbmate. Pure.
//!
//! Markers are read as the tools read them: a line that begins with the comment, wherever it stands.

use whimbrel_shared::sql::{Token, tokens};

use super::{Draft, LayoutError, Order, Origin, Text, numbered, prefix, says_something};
use crate::publish::listing::Listing;

/// Whose markers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marks {
    /// `-- +goose Up`
    Goose,
    /// `-- +migrate Up`
    SqlMigrate,
    /// `-- migrate:up`
    Dbmate,
}

/// What one line marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Up,
    Down,
    StatementBegin,
    StatementEnd,
    NoTransaction,
    Nothing,
    Unknown,
}

impl Marks {
    fn of(self, line: &str) -> Option<Mark> {
        let comment = line.strip_prefix("--")?.trim();
        let words = |after: &str| after.to_ascii_lowercase();
        match self {
            Self::Goose | Self::SqlMigrate => {
                let word = if self == Self::Goose { "+goose" } else { "+migrate" };
                let after = comment.strip_prefix(word)?;
                let text = words(after.trim());
                let mut parts = text.split_whitespace();
                // sql-migrate has its options after the direction: `-- +migrate Up notransaction`.
                Some(match (parts.next(), parts.next()) {
                    (Some("up"), None | Some("notransaction")) => Mark::Up,
                    (Some("down"), None | Some("notransaction")) => Mark::Down,
                    (Some("statementbegin"), None) => Mark::StatementBegin,
                    (Some("statementend"), None) => Mark::StatementEnd,
                    (Some("no"), Some("transaction")) => Mark::NoTransaction,
                    (Some("envsub"), Some("off")) => Mark::Nothing,
                    _ => Mark::Unknown,
                })
            }
            Self::Dbmate => {
                let after = words(comment.strip_prefix("migrate:")?);
                let (direction, options) = after.split_once(char::is_whitespace).unwrap_or((after.as_str(), ""));
                let options = options.trim();
                let known = options.is_empty() || options.split_whitespace().all(|option| option.starts_with("transaction:"));
                Some(match direction {
                    "up" if known => Mark::Up,
                    "down" if known => Mark::Down,
                    _ => Mark::Unknown,
                })
            }
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::Goose => "-- +goose Up",
            Self::SqlMigrate => "-- +migrate Up",
            Self::Dbmate => "-- migrate:up",
        }
    }
}

/// Whose marker a text has, where it has one.
pub(super) fn marks_in(text: &str) -> Option<Marks> {
    [Marks::Goose, Marks::SqlMigrate, Marks::Dbmate].into_iter().find(|marks| text.lines().any(|line| marks.of(line).is_some()))
}

/// Reads the layout.
pub(super) fn read(listing: &Listing, marks: Marks, notes: &mut Vec<String>) -> Result<Vec<Draft>, LayoutError> {
    let mut drafts = Vec::new();
    for path in listing.paths() {
        let Some((stem, number, numbered::Part::Whole)) = numbered::classify(path) else {
            continue;
        };
        let text = listing.text(path)?;
        let sections = split(path, text, marks)?;
        if sections.no_transaction {
            notes.push(format!("{path} asks for no transaction; here every migration has one"));
        }
        // dbmate sorts by text; the other two by number.
        let number = if marks == Marks::Dbmate { prefix::aligned(number) } else { number };
        drafts.push(Draft::new(stem, Order::number(number), sections.up).with_down(sections.down));
    }
    Ok(drafts)
}

struct Sections {
    up: Text,
    down: Option<Text>,
    no_transaction: bool,
}

fn split(path: &str, text: &str, marks: Marks) -> Result<Sections, LayoutError> {
    let bad = |line: usize, what: String| LayoutError::BadMark { file: path.to_owned(), line: u32::try_from(line + 1).unwrap_or(u32::MAX), what };
    let mut up = Section::default();
    let mut down = Section::default();
    let mut now = None;
    let mut no_transaction = false;
    let mut before = String::new();
    for (index, line) in text.lines().enumerate() {
        let section = match now {
            Some(Mark::Up) => Some(&mut up),
            Some(_) => Some(&mut down),
            None => None,
        };
        let mark = marks.of(line);
        match mark {
            Some(direction @ (Mark::Up | Mark::Down)) => {
                if says_something(&before) {
                    return Err(bad(index, format!("SQL stands before the first `{}`", marks.example())));
                }
                before.clear();
                now = Some(direction);
                let lower = line.to_ascii_lowercase();
                no_transaction |= lower.contains("transaction:false") || lower.contains("notransaction");
            }
            Some(Mark::StatementBegin) => {
                if let Some(section) = section {
                    section.block_begins(line);
                }
            }
            Some(Mark::StatementEnd) => match section {
                Some(section) => section.block_ends(index, line),
                None => return Err(bad(index, "the statement ends before it began".to_owned())),
            },
            Some(Mark::NoTransaction) => no_transaction = true,
            Some(Mark::Nothing) => {}
            Some(Mark::Unknown) => {
                return Err(bad(index, format!("{:?} is not understood here", line.trim())));
            }
            None => match section {
                Some(section) => section.line(index, line),
                None => {
                    before.push_str(line);
                    before.push('\n');
                }
            },
        }
    }
    if now.is_none() && says_something(&before) {
        return Err(bad(0, format!("there is no `{}`", marks.example())));
    }
    Ok(Sections { up: up.text(path), down: (!down.lines.is_empty()).then(|| down.text(path)), no_transaction })
}

/// Lines of one direction with their places, so that what is published has the lines where the author has them.
#[derive(Default)]
struct Section<'a> {
    lines: Vec<(usize, std::borrow::Cow<'a, str>)>,
    /// Where the block that the marker opened begins in `lines`.
    block: usize,
}

impl<'a> Section<'a> {
    fn line(&mut self, index: usize, line: &'a str) {
        self.lines.push((index, line.into()));
    }

    fn block_begins(&mut self, _line: &str) {
        self.block = self.lines.len();
    }

    /// What stands between the two markers is one statement for the tool, with a semicolon at its end or not.
    fn block_ends(&mut self, index: usize, _line: &str) {
        let body: String = self.lines[self.block.min(self.lines.len())..].iter().flat_map(|(_, line)| [line.as_ref(), "\n"]).collect();
        let unfinished = tokens(&body).last().is_some_and(|t| *t != Token::Mark(';'));
        if unfinished {
            self.lines.push((index, ";".into()));
        }
        self.block = self.lines.len();
    }

    fn text(self, path: &str) -> Text {
        let meaningful = |line: &str| !line.trim().is_empty();
        let first = self.lines.iter().find(|(_, line)| meaningful(line)).map_or(0, |(index, _)| *index);
        let last = self.lines.iter().rev().find(|(_, line)| meaningful(line)).map_or(0, |(index, _)| *index);
        let mut sql = String::new();
        let mut at = first;
        for (index, line) in &self.lines {
            if !(first..=last).contains(index) {
                continue;
            }
            // Marker lines, and lines of the other direction, leave an empty one.
            while at < *index {
                sql.push('\n');
                at += 1;
            }
            sql.push_str(line);
        }
        if !sql.is_empty() {
            sql.push('\n');
        }
        Text { origin: Origin { path: path.to_owned(), first_line: u32::try_from(first + 1).unwrap_or(u32::MAX) }, sql }
    }
}
