//! golang-migrate and sqlx: `NNN_name.up.sql` with `NNN_name.down.sql`, and `NNN_name.sql`. Pure.

use std::collections::BTreeMap;

use super::{Draft, LayoutError, Order, Text, prefix, says_something, versioned};
use crate::publish::listing::Listing;

/// What part of a migration a file is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// `NNN_name.sql`
    Whole,
    /// `NNN_name.up.sql`
    Up,
    /// `NNN_name.down.sql`
    Down,
}

/// The stem, number and part of a file in the directory itself, where it is a numbered `.sql` file.
pub(super) fn classify(path: &str) -> Option<(&str, u128, Part)> {
    let file = strip_suffix_ignoring_case(path, ".sql")?;
    if file.contains('/') || versioned::classify(path).is_some() {
        return None;
    }
    // golang-migrate takes any extension after the direction: `1_x.up.sql`, `1_x.up.db.sql`.
    let directed = |word: &str| {
        let inside = file.to_ascii_lowercase().find(&format!("{word}."));
        strip_suffix_ignoring_case(file, word).or_else(|| inside.and_then(|at| file.get(..at)))
    };
    let (stem, part) = if let Some(stem) = directed(".up") {
        (stem, Part::Up)
    } else if let Some(stem) = directed(".down") {
        (stem, Part::Down)
    } else {
        (file, Part::Whole)
    };
    // A letter in front of the number, as in `V0001.Initial.up.sql`.
    let counted = stem.strip_prefix(['V', 'v']).filter(|_| part != Part::Whole).unwrap_or(stem);
    let (number, _) = prefix::number(counted)?;
    Some((stem, number, part))
}

fn strip_suffix_ignoring_case<'a>(text: &'a str, suffix: &str) -> Option<&'a str> {
    let at = text.len().checked_sub(suffix.len())?;
    let end = text.get(at..)?;
    end.eq_ignore_ascii_case(suffix).then(|| &text[..at])
}

/// Reads the layout.
pub(super) fn read(listing: &Listing, notes: &mut Vec<String>) -> Result<Vec<Draft>, LayoutError> {
    let mut ups = Vec::new();
    let mut downs: BTreeMap<u128, &str> = BTreeMap::new();
    for path in listing.paths() {
        let Some((stem, number, part)) = classify(path) else {
            continue;
        };
        match part {
            Part::Whole | Part::Up => ups.push((stem, number, path)),
            Part::Down => {
                if let Some(other) = downs.insert(number, path) {
                    return Err(LayoutError::Duplicate { number: format!("number {number}"), first: other.to_owned(), second: path.to_owned() });
                }
            }
        }
    }
    let mut drafts = Vec::new();
    for (stem, number, path) in ups {
        let text = listing.text(path)?;
        if text.starts_with("-- no-transaction") {
            notes.push(format!("{path} asks for no transaction; here every migration has one"));
        }
        // The number pairs the two, as in the tools: their titles may differ.
        let down = match downs.remove(&number) {
            Some(path) => Some(Text::whole(path, listing.text(path)?)),
            None => None,
        };
        drafts.push(Draft::new(stem, Order::number(number), Text::whole(path, text)).with_down(down));
    }
    // A down by itself that does nothing is a leftover; one that does something has lost its up.
    for file in downs.into_values() {
        if says_something(listing.text(file)?) {
            return Err(LayoutError::NoUp { file: file.to_owned() });
        }
    }
    Ok(drafts)
}
