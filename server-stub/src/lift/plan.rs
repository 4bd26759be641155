//! What there is to repeat for rows of older versions, version by version, as publishers signed it. Pure.

use std::collections::BTreeMap;

use whimbrel_shared::{
    lift::LiftColumn,
    manifest::Step,
    migration::{Migration, TargetEntry, Targets},
    row_schema::RowSchema,
};

/// The way up of an app's tables.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// By table id; each by ascending version.
    tables: BTreeMap<u32, Vec<Hop>>,
}

/// What one version does to the rows of one table.
#[derive(Debug)]
pub(crate) struct Hop {
    /// The table.
    pub(crate) table: u32,
    /// The version.
    pub(crate) version: u32,
    /// The columns of the key before it.
    pub(crate) key: Vec<u32>,
    /// Its backfills, in order.
    pub(crate) fills: Vec<Fill>,
}

/// One backfill.
#[derive(Debug)]
pub(crate) struct Fill {
    /// What it calls the table.
    pub(crate) table: String,
    /// The text that makes the table.
    pub(crate) create: String,
    /// The assignments.
    pub(crate) set: String,
    /// The condition.
    pub(crate) filter: String,
    /// The table's columns.
    pub(crate) columns: Vec<LiftColumn>,
}

impl Plan {
    /// Reads it: of each version the newest revision counts, since that is what mended it. `body` gives the bytes of a target
    /// file. What cannot be read is left out and told in the list.
    pub(crate) fn of<E>(targets: &Targets, mut body: impl FnMut(&TargetEntry) -> Result<Vec<u8>, E>) -> Result<(Self, Vec<String>), E> {
        let mut newest: BTreeMap<u32, &TargetEntry> = BTreeMap::new();
        let chain = targets.chain();
        chain.iter().for_each(|entry| _ = newest.insert(entry.custom.version, entry));
        let (mut plan, mut wrong, mut before) = (Self::default(), Vec::new(), RowSchema::default());
        for (version, entry) in newest {
            let link = &entry.custom;
            if !link.lifts.is_empty() {
                match Migration::from_bytes(&body(entry)?) {
                    Ok(migration) => plan.add(entry, &migration, &before, &mut wrong),
                    Err(error) => wrong.push(format!("{}: {error}", link.name)),
                }
            }
            let first = chain.iter().find(|e| e.custom.version == version).map_or(link, |e| &e.custom);
            if before.pass(first).is_err() {
                break;
            }
        }
        Ok((plan, wrong))
    }

    fn add(&mut self, entry: &TargetEntry, migration: &Migration, before: &RowSchema, wrong: &mut Vec<String>) {
        let (steps, version) = (migration.steps(), entry.custom.version);
        for lift in &entry.custom.lifts {
            let step = (lift.step as usize).checked_sub(1).and_then(|at| steps.get(at));
            let (Some(Step::Backfill(step)), Some(settings)) = (step, before.synced().table(lift.table)) else {
                wrong.push(format!("{}: step {} is no backfill of table {} that exchanged rows", migration.name, lift.step, lift.table));
                continue;
            };
            let fill = Fill {
                table: step.table.clone(),
                create: lift.create.clone(),
                set: step.set.clone(),
                filter: step.filter.clone(),
                columns: lift.columns.clone(),
            };
            let hops = self.tables.entry(lift.table).or_default();
            match hops.last_mut().filter(|hop| hop.version == version) {
                Some(hop) => hop.fills.push(fill),
                None => {
                    let key = settings.key.iter().map(|c| c.0).collect();
                    hops.push(Hop { table: lift.table, version, key, fills: vec![fill] });
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn of_hops(hops: impl IntoIterator<Item = Hop>) -> Self {
        Self { tables: BTreeMap::from([(1, hops.into_iter().collect())]) }
    }

    /// What rows of a table at `from` go through up to `to`, in order.
    pub(crate) fn hops(&self, table: u32, from: u32, to: u32) -> impl Iterator<Item = &Hop> {
        self.tables.get(&table).into_iter().flatten().filter(move |hop| from < hop.version && hop.version <= to)
    }
}

#[cfg(test)]
mod tests {
    use whimbrel_shared::{ids::Digest, lift::Lift, manifest::Manifest, migration::TargetEntry};

    use super::*;
    use crate::decide::publish::{nothing_published, tests::link};

    const FILL: &str = "[[step]]\nbackfill='n'\nset=\"b = 'old'\"\nwhere='1'\n";

    fn entry(version: u32, revision: u32, toml: &str, lifts: Vec<Lift>) -> (TargetEntry, Vec<u8>) {
        let mut link = link(version, None, "SELECT 1;").target.custom;
        let manifest = Manifest::parse(toml).unwrap();
        let (format, name) = (whimbrel_shared::migration::FORMAT.to_owned(), link.name.clone());
        let body = Migration { format, name, manifest, down: None, files: Default::default() }.to_bytes();
        (link.revision, link.lifts) = (revision, lifts);
        link.columns = Some(serde_json::from_str(if version == 1 { r#"{"made":[[1,"n",[[1,"id"],[2,"a"]]]]}"# } else { "{}" }).unwrap());
        if version == 1 {
            link.sync = serde_json::from_str(r#"{"tables":[{"table":1,"direction":"both","conflict":"merge","key":[[1,"binary"]]}]}"#).unwrap();
        }
        (TargetEntry::new(&body, link), body)
    }

    #[test]
    fn the_newest_revision_of_a_version_says_how_its_rows_are_filled() {
        let lift = |step| Lift { step, table: 1, create: "CREATE TABLE n(id, a)".to_owned(), columns: Vec::new() };
        let entries = [
            entry(1, 1, "", Vec::new()),
            entry(2, 1, FILL, vec![lift(1)]),
            entry(2, 2, &FILL.replace("old", "new"), vec![lift(1), lift(2), Lift { table: 9, ..lift(1) }]),
        ];
        let mut targets = nothing_published(&"notes".parse().unwrap());
        targets.targets = entries.iter().map(|(entry, _)| (entry.path(), entry.clone())).collect();
        let bodies: BTreeMap<Digest, &Vec<u8>> = entries.iter().map(|(entry, body)| (entry.digest(), body)).collect();
        let (plan, wrong) = Plan::of(&targets, |entry| Ok::<_, ()>(bodies[&entry.digest()].clone())).unwrap();
        let of = |from, to| plan.hops(1, from, to).map(|hop| (hop.version, hop.fills[0].set.as_str())).collect::<Vec<_>>();
        assert_eq!(of(1, 2), [(2, "b = 'new'")]);
        assert_eq!((of(2, 3), of(0, 1)), (vec![], vec![]));
        assert_eq!(wrong.len(), 2, "{wrong:?}");
    }
}
