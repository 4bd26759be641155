//! A directory per migration with `up.sql` in it: ours, diesel's, rusqlite_migration's. Pure.

use std::collections::{BTreeMap, BTreeSet};

use whimbrel_shared::manifest::{Manifest, Step};

use super::{Draft, LayoutError, Order, Text, prefix};
use crate::publish::listing::{Listing, ListingError};

/// The directories that hold an `up.sql`, or another file that only ours have.
pub(super) fn names(listing: &Listing) -> BTreeSet<&str> {
    listing
        .paths()
        .filter_map(|path| path.split_once('/'))
        .filter(|(_, file)| matches!(*file, "up.sql" | "migration.toml"))
        .map(|(directory, _)| directory)
        .collect()
}

/// Whether the directories are ours: one has a file that no other tool writes, or they are counted like ours.
pub(super) fn are_ours(listing: &Listing) -> bool {
    let names = names(listing);
    let has = |name: &str, file: &str| listing.files.contains_key(&format!("{name}/{file}"));
    names.iter().any(|name| has(name, "migration.toml") || has(name, "verify.sql"))
        || names.iter().all(|name| !prefix::is_stamp(name) && !dashed(name))
}

/// `01-name`, as rusqlite_migration writes it.
fn dashed(name: &str) -> bool {
    name.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('-')
}

/// Reads our layout.
pub(super) fn ours(listing: &Listing) -> Result<Vec<Draft>, LayoutError> {
    names(listing)
        .into_iter()
        .map(|name| {
            let path = |file: &str| format!("{name}/{file}");
            let (number, _) = prefix::dashed_number(name).ok_or_else(|| LayoutError::NoNumber { path: name.to_owned() })?;
            let manifest = match listing.files.get(&path("migration.toml")) {
                None => None,
                Some(_) => {
                    let file = path("migration.toml");
                    let text = listing.text(&file)?;
                    Some(Manifest::parse(text).map_err(|error| LayoutError::BadFile { file, what: error.to_string() })?)
                }
            };
            let steps = manifest.as_ref().map_or(&[][..], |m| m.step.as_slice());
            let mut wanted: BTreeSet<&str> = steps.iter().filter_map(Step::file).collect();
            if steps.is_empty() {
                wanted.insert("up.sql");
                wanted.extend(Some("verify.sql").filter(|f| listing.files.contains_key(&path(f))));
            }
            let mut files = BTreeMap::new();
            for file in wanted {
                // A step's file lies beside its manifest: nothing above, nothing below, nothing absolute.
                let there = !file.contains(['/', '\\']) && listing.files.contains_key(&path(file));
                if !there {
                    return Err(LayoutError::Listing(ListingError::Missing { file: path(file), named_by: path("migration.toml") }));
                }
                let origin = path(file);
                files.insert(file.to_owned(), Text::whole(&origin, listing.text(&origin)?));
            }
            let down = match listing.files.get(&path("down.sql")) {
                Some(_) => Some(Text::whole(&path("down.sql"), listing.text(&path("down.sql"))?)),
                None => None,
            };
            let unused = listing
                .below(name)
                .paths()
                .filter(|file| !files.contains_key(*file) && !matches!(*file, "down.sql" | "migration.toml"))
                .map(str::to_owned)
                .collect();
            let draft = Draft {
                name: name.to_owned(),
                order: Order::number(prefix::aligned(number)),
                timestamp_ms: prefix::timestamp_ms(name),
                files,
                manifest,
                unused,
                empty_down: None,
            };
            Ok(draft.with_down(down))
        })
        .collect()
}

/// Reads diesel's layout.
pub(super) fn diesel(listing: &Listing, notes: &mut Vec<String>) -> Result<Vec<Draft>, LayoutError> {
    let mut drafts = Vec::new();
    for name in names(listing) {
        let path = |file: &str| format!("{name}/{file}");
        let (number, _) = prefix::dashed_number(name).ok_or_else(|| LayoutError::NoNumber { path: name.to_owned() })?;
        if listing.peek(&path("metadata.toml")).is_some_and(|text| text.replace(' ', "").contains("run_in_transaction=false")) {
            notes.push(format!("{name} asks for no transaction; here every migration has one"));
        }
        let up = Text::whole(&path("up.sql"), listing.text(&path("up.sql"))?);
        let down = match listing.files.get(&path("down.sql")) {
            Some(_) => Some(Text::whole(&path("down.sql"), listing.text(&path("down.sql"))?)),
            None => None,
        };
        drafts.push(Draft::new(name, Order::number(prefix::aligned(number)), up).with_down(down));
    }
    Ok(drafts)
}
