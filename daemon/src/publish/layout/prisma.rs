//! Prisma: `stamp_name/migration.sql` beside `migration_lock.toml`. Pure.

use super::{Draft, LayoutError, Order, Text, prefix};
use crate::publish::listing::Listing;

/// Its file that says for which database system the migrations are.
const LOCK: &str = "migration_lock.toml";

/// The directories that hold a `migration.sql`, with the path of it.
pub(super) fn found(listing: &Listing) -> impl Iterator<Item = (&str, &str)> {
    listing.paths().filter_map(|path| {
        let (directory, file) = path.split_once('/')?;
        (file == "migration.sql").then_some((directory, path))
    })
}

/// Reads the layout.
pub(super) fn read(listing: &Listing) -> Result<Vec<Draft>, LayoutError> {
    let provider = listing.peek(LOCK).and_then(|text| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == "provider").then(|| value.trim().trim_matches('"').to_owned())
        })
    });
    if let Some(dialect) = provider.filter(|p| p != "sqlite") {
        return Err(LayoutError::OtherDialect { file: LOCK.to_owned(), dialect });
    }
    found(listing)
        .map(|(directory, path)| {
            // Prisma takes any name, and sorts by it; those without a number come last, as letters do there.
            let order = prefix::dashed_number(directory)
                .map_or_else(|| Order(vec![u128::MAX], directory.to_owned()), |(number, _)| Order::number(prefix::aligned(number)));
            Ok(Draft::new(directory, order, Text::whole(path, listing.text(path)?)))
        })
        .collect()
}
