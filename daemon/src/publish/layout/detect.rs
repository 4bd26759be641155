//! Which layout a directory has, by what lies in it. Pure.

use std::collections::BTreeMap;

use whimbrel_shared::sql::tokens;

use super::{
    Layout, LayoutError, directories, drizzle,
    numbered::{self, Part},
    prefix, prisma,
    sections::{self, Marks},
    seed, versioned,
};
use crate::publish::listing::Listing;

/// The one layout that the files show.
pub(super) fn layout(listing: &Listing) -> Result<Layout, LayoutError> {
    let seen = signs(listing);
    match seen.iter().next() {
        None => Err(nothing(listing, None)),
        Some((layout, _)) if seen.len() == 1 => Ok(*layout),
        Some(_) => Err(LayoutError::Ambiguous { seen: seen.into_iter().map(|(layout, path)| (layout, path.to_owned())).collect() }),
    }
}

/// Each layout that shows, with the first file that shows it.
fn signs(listing: &Listing) -> BTreeMap<Layout, &str> {
    let mut seen: BTreeMap<Layout, &str> = BTreeMap::new();
    if listing.files.contains_key(drizzle::JOURNAL) {
        // The journal says what counts: numbered files beside it are drizzle's.
        seen.insert(Layout::Drizzle, drizzle::JOURNAL);
    }
    let mut blank = None;
    for path in listing.paths() {
        let sign = if versioned::classify(path).is_some() {
            Some(Layout::Refinery)
        } else if let Some((_, _, part)) = numbered::classify(path) {
            match part {
                _ if seen.contains_key(&Layout::Drizzle) => None,
                Part::Up | Part::Down => Some(Layout::GolangMigrate),
                Part::Whole => match listing.peek(path).map(|text| (text, sections::marks_in(text))) {
                    Some((_, Some(Marks::Goose))) => Some(Layout::Goose),
                    Some((_, Some(Marks::SqlMigrate))) => Some(Layout::SqlMigrate),
                    Some((_, Some(Marks::Dbmate))) => Some(Layout::Dbmate),
                    // An empty file fits each of the layouts with one file per migration.
                    Some((text, None)) if tokens(text).is_empty() => {
                        blank = blank.or(Some(path));
                        None
                    }
                    Some((_, None)) | None => Some(Layout::Sqlx),
                },
            }
        } else if seed::is_one(listing, path) {
            Some(Layout::SeedJson)
        } else {
            None
        };
        if let Some(layout) = sign {
            seen.entry(layout).or_insert(path);
        }
    }
    if let Some(name) = directories::names(listing).first() {
        let layout = if directories::are_ours(listing) { Layout::Whimbrel } else { Layout::Diesel };
        seen.insert(layout, name);
    }
    for (directory, path) in prisma::found(listing) {
        let snapshot = listing.files.contains_key(&format!("{directory}/snapshot.json"));
        let layout = if snapshot { Layout::Drizzle } else { Layout::Prisma };
        seen.entry(layout).or_insert(path);
    }
    // sqlx reads both forms of names, also side by side.
    if seen.contains_key(&Layout::Sqlx) {
        seen.remove(&Layout::GolangMigrate);
    }
    if let (true, Some(path)) = (seen.is_empty(), blank) {
        seen.insert(Layout::Sqlx, path);
    }
    seen
}

/// Refuses a directory with migrations in code: leaving one out would break the chain in silence.
pub(super) fn no_code(listing: &Listing) -> Result<(), LayoutError> {
    const LANGUAGES: [&str; 14] = ["rs", "go", "ts", "js", "mjs", "cjs", "mts", "py", "rb", "php", "java", "kt", "cs", "exs"];
    let code = |path: &&str| {
        let Some((stem, extension)) = path.rsplit_once('.') else {
            return false;
        };
        if path.contains('/') || stem.ends_with("_test") || stem.ends_with(".d") {
            return false;
        }
        let versioned = stem.strip_prefix(['V', 'U', 'v']).is_some_and(|rest| rest.contains("__") && rest.starts_with(|c: char| c.is_ascii_digit()));
        LANGUAGES.contains(&extension) && (versioned || prefix::dashed_number(stem).is_some())
    };
    let mut found = listing.paths().filter(code);
    match found.next() {
        None => Ok(()),
        Some(file) => Err(LayoutError::Code { file: file.to_owned(), count: 1 + found.count() }),
    }
}

/// The error for a directory without migrations: what is there instead, and where they may be.
pub(super) fn nothing(listing: &Listing, forced: Option<Layout>) -> LayoutError {
    const SHOWN: usize = 8;
    let mut directories: Vec<&str> = listing.paths().filter_map(|path| path.split_once('/')).map(|(directory, _)| directory).collect();
    directories.dedup();
    // Several of them would be a layout that is not known here, and each only a part of it.
    let mut below = directories.into_iter().filter(|directory| !signs(&listing.below(directory)).is_empty());
    let below = below.next().filter(|_| below.next().is_none()).map(str::to_owned);
    LayoutError::Nothing { seen: listing.paths().take(SHOWN).map(str::to_owned).collect(), forced, below }
}
