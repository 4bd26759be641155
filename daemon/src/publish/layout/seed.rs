//! The seed systems' JSON: `{timestamp, migrationName, upQueries, downQueries}`, one or a list in a file. Pure.

use serde_json::Value;
use whimbrel_shared::migration::SeedMigration;

use super::{Draft, LayoutError, Order, Text};
use crate::publish::listing::Listing;

/// Whether a file is of this form: JSON with the key that no other tool has.
pub(super) fn is_one(listing: &Listing, path: &str) -> bool {
    path.ends_with(".json")
        && !path.contains('/')
        && listing.peek(path).is_some_and(|text| text.contains("\"migrationName\"") && text.contains("\"upQueries\""))
}

/// Reads the layout.
pub(super) fn read(listing: &Listing) -> Result<Vec<Draft>, LayoutError> {
    let mut drafts = Vec::new();
    for path in listing.paths().filter(|path| is_one(listing, path)) {
        let bad = |what: String| LayoutError::BadFile { file: path.to_owned(), what };
        let items = match serde_json::from_str(listing.text(path)?).map_err(|error| bad(error.to_string()))? {
            Value::Array(items) => items,
            other => vec![other],
        };
        for (index, item) in items.into_iter().enumerate() {
            let seed: SeedMigration = serde_json::from_value(item).map_err(|error| bad(format!("migration {}: {error}", index + 1)))?;
            drafts.push(draft(path, &seed).ok_or_else(|| bad(format!("{}: its timestamp is negative", seed.migration_name)))?);
        }
    }
    Ok(drafts)
}

fn draft(path: &str, seed: &SeedMigration) -> Option<Draft> {
    let migration = seed.to_migration();
    // Lines of JSON are not lines of SQL: the place is named by migration and list.
    let place = |list: &str| format!("{path}#{}.{list}", seed.migration_name);
    let text = |file: &str, list: &str| Some(Text::whole(&place(list), migration.file(file)?));
    let mut draft = Draft::new(seed.migration_name.as_str(), Order::number(u128::try_from(seed.timestamp).ok()?), text("up.sql", "upQueries")?)
        .with_down(text("down.sql", "downQueries"));
    draft.timestamp_ms = Some(seed.timestamp);
    Some(draft)
}
