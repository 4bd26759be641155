//! What the chain would have left in a file at each version, and which of them a file fits. Pure.
//!
//! Only the chain's objects are compared, but all that it ever makes: a table that a later version makes and that is
//! there already is a difference too, for that version could not make it.

use std::collections::BTreeSet;

use whimbrel_shared::fingerprint::{Schema, SchemaChange};

use crate::migrate::chain::Chain;

/// What each version leaves behind, as far as it is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Expected {
    changes: Vec<SchemaChange>,
    /// Every object that some version makes.
    ever: BTreeSet<String>,
}

impl Expected {
    /// From what was recorded when the chain was published, up to the first version without a record.
    pub(super) fn recorded(chain: &Chain) -> Self {
        let recorded = (1..=chain.latest()).map_while(|v| chain.newest(v).and_then(|e| e.custom.schema.clone()));
        Self::new(recorded.collect())
    }

    /// From what each version does to the schema, version 1 first.
    pub(super) fn new(changes: Vec<SchemaChange>) -> Self {
        let ever = changes.iter().flat_map(|c| c.0.iter()).filter(|(_, made)| made.is_some()).map(|(object, _)| object.clone()).collect();
        Self { changes, ever }
    }

    /// The last version that is known.
    pub(super) fn known(&self) -> u32 {
        u32::try_from(self.changes.len()).unwrap_or(u32::MAX)
    }

    /// The chain's objects after `version`; none where it is not known.
    pub(super) fn at(&self, version: u32) -> Option<Schema> {
        let mut schema = Schema::default();
        for change in self.changes.get(..version as usize)? {
            schema.apply(change);
        }
        Some(schema)
    }

    /// How a file differs from `version`, one line an object; none where the version is not known.
    pub(super) fn differences(&self, version: u32, found: &Schema) -> Option<Vec<String>> {
        Some(self.compare(&self.at(version)?, found))
    }

    /// The versions from 1 on that a file fits. Versions that change only rows fit with their neighbours; a chain without
    /// objects fits nothing.
    pub(super) fn fits(&self, found: &Schema) -> Vec<u32> {
        self.each(found).filter(|(_, differences)| *differences == 0).map(|(version, _)| version).collect()
    }

    /// The version that a file differs from least, the later of equals; none where no version has objects.
    pub(super) fn closest(&self, found: &Schema) -> Option<u32> {
        self.each(found).min_by_key(|(version, differences)| (*differences, std::cmp::Reverse(*version))).map(|(version, _)| version)
    }

    fn each<'a>(&'a self, found: &'a Schema) -> impl Iterator<Item = (u32, usize)> + 'a {
        let mut schema = Schema::default();
        let versions = (1..).zip(&self.changes).map(move |(version, change)| {
            schema.apply(change);
            (version, if schema.0.is_empty() { None } else { Some(self.compare(&schema, found).len()) })
        });
        versions.filter_map(|(version, differences)| Some((version, differences?)))
    }

    fn compare(&self, expected: &Schema, found: &Schema) -> Vec<String> {
        let mut differences = expected.drift(found);
        let early = self.ever.iter().filter(|o| !expected.0.contains_key(*o) && found.0.contains_key(*o));
        differences.extend(early.map(|object| format!("{object} is there, and should not be at this version")));
        differences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+table a` makes, `-table a` drops, `~table a` changes.
    fn expected(versions: &[&[&str]]) -> Expected {
        let change =
            |lines: &&[&str]| SchemaChange(lines.iter().map(|l| (l[1..].to_owned(), (!l.starts_with('-')).then(|| l[..1].to_owned()))).collect());
        Expected::new(versions.iter().map(change).collect())
    }

    fn found(objects: &[&str]) -> Schema {
        Schema(objects.iter().map(|o| (o[1..].to_owned(), o[..1].to_owned())).collect())
    }

    #[test]
    fn a_file_fits_the_version_whose_objects_it_has_and_no_other() {
        let chain = expected(&[&["+a"], &["+b"], &["~a"], &[], &["-b"]]);
        for (objects, fits) in
            [(&["+a"][..], &[1][..]), (&["+a", "+b"], &[2]), (&["~a", "+b", "+mine"], &[3, 4]), (&["~a"], &[5]), (&["+b"], &[]), (&[], &[])]
        {
            assert_eq!(chain.fits(&found(objects)), fits, "{objects:?}");
        }
        assert_eq!(chain.closest(&found(&["+b"])), Some(4));
        assert!(expected(&[&[], &[]]).fits(&found(&["+a"])).is_empty());
    }

    #[test]
    fn every_difference_is_named() {
        let chain = expected(&[&["+a", "+b"], &["+c"]]);
        let lines = chain.differences(1, &found(&["~a", "+c", "+mine"])).unwrap();
        assert_eq!(lines, ["a differs", "b is missing", "c is there, and should not be at this version"]);
        assert_eq!(chain.differences(3, &found(&[])), None);
    }
}
