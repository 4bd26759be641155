//! refinery and Flyway: `V1__name.sql`, with versions of several parts (`V1.2__`, `V1_2__`). Pure.
//!
//! `U` means two things: in Flyway `U3__x.sql` takes `V3__` back, in refinery it is a further migration of its own
//! (<https://docs.rs/refinery>). A number never has both a V and a U file in refinery, so the pair tells them apart.

use std::collections::BTreeMap;

use super::{Draft, LayoutError, Order, Text};
use crate::publish::listing::Listing;

/// Stem, kind and version of a file, at any depth, where its name has the form.
pub(super) fn classify(path: &str) -> Option<(&str, char, Vec<u128>)> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let stem = name.strip_suffix(".sql")?;
    let (front, title) = stem.split_once("__")?;
    let kind = front.chars().next().filter(|c| matches!(c, 'V' | 'U' | 'R'))?;
    let version = &front[1..];
    if kind == 'R' {
        return (version.is_empty() && !title.is_empty()).then_some((stem, kind, Vec::new()));
    }
    let mut parts = version.split(['.', '_']).map(|part| part.parse().ok()).collect::<Option<Vec<u128>>>()?;
    // 1 and 1.0 are one version.
    while parts.len() > 1 && parts.last() == Some(&0) {
        parts.pop();
    }
    Some((stem, kind, parts))
}

/// Reads the layout.
pub(super) fn read(listing: &Listing) -> Result<Vec<Draft>, LayoutError> {
    let found: Vec<_> = listing.paths().filter_map(|path| Some((path, classify(path)?))).collect();
    if let Some((path, _)) = found.iter().find(|(_, (_, kind, _))| *kind == 'R') {
        return Err(LayoutError::Repeatable { file: (*path).to_owned() });
    }
    let versions: Vec<&Vec<u128>> = found.iter().filter(|(_, (_, kind, _))| *kind == 'V').map(|(_, (_, _, version))| version).collect();
    let mut downs: BTreeMap<&Vec<u128>, &str> = BTreeMap::new();
    for (path, (_, kind, version)) in &found {
        if *kind == 'U'
            && versions.contains(&version)
            && let Some(other) = downs.insert(version, path)
        {
            return Err(LayoutError::Duplicate {
                number: format!("version U{}", Order(version.clone(), String::new())),
                first: other.to_owned(),
                second: (*path).to_owned(),
            });
        }
    }
    let mut drafts = Vec::new();
    for (path, (stem, _, version)) in &found {
        if downs.values().any(|down| down == path) {
            continue;
        }
        let down = match downs.get(version) {
            Some(path) => Some(Text::whole(path, listing.text(path)?)),
            None => None,
        };
        drafts.push(Draft::new(stem, Order(version.clone(), String::new()), Text::whole(path, listing.text(path)?)).with_down(down));
    }
    Ok(drafts)
}
