//! A new revision of a published migration: what may be another in it, and what may not. A revision mends a version for
//! those that have not completed it; for all others it must have been the same thing (DESIGN 5).

use whimbrel_shared::{
    columns::ColumnMap,
    ids::MigrationName,
    ledger::ColumnChange,
    manifest::{Mode, Step},
    migration::{Link, Migration, TargetEntry, Targets},
    remedy::{Remedy, here},
};

use super::{
    compare::{CompareError, Found, recorded_ids},
    layout::{Authored, Chain},
    rehearse::{Rehearsal, Rehearsed, differs, rehearse},
};

/// Why a text cannot be a revision of what is published.
#[derive(Debug, thiserror::Error)]
pub enum ReviseError {
    /// It ends elsewhere.
    #[error("{name} leaves another schema than revision {revision}, which some databases have completed: {how}")]
    OtherSchema {
        /// The migration.
        name: MigrationName,
        /// The revision that differs.
        revision: usize,
        /// How.
        how: String,
    },
    /// It gives other ids, or exchanges rows otherwise.
    #[error("{name} does not give tables and columns the ids of revision 1, by which databases that completed it exchange rows: {how}")]
    OtherIds {
        /// The migration.
        name: MigrationName,
        /// How they differ.
        how: String,
    },
    /// What was published has no ids that make sense.
    #[error(transparent)]
    Published(#[from] Box<CompareError>),
    /// It says that it goes on after steps that were others.
    #[error("{name} has continues_after = {after}, and its step {step} is not that of revision {revision}")]
    OtherSteps {
        /// The migration.
        name: MigrationName,
        /// What it says.
        after: u32,
        /// The first step that differs.
        step: usize,
        /// The revision that differs.
        revision: usize,
    },
    /// A database that stopped half-way can go neither on nor back.
    #[error("{name}: a database may have stopped half-way in revision {revision}, and its way down does not lead back from there: {why}")]
    NoWayBack {
        /// The migration.
        name: MigrationName,
        /// The revision.
        revision: usize,
        /// Which step it does not lead back from, and why.
        why: String,
    },
    /// There is nothing to go on from.
    #[error("{name} has continues_after, and no earlier revision of it could stop half-way")]
    NothingToContinue {
        /// The migration.
        name: MigrationName,
    },
}

impl ReviseError {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::OtherSchema { .. } => here("let it end in the same schema, and put what changes the schema into a new migration after it"),
            Self::OtherIds { .. } => here(
                "rename, drop and fill what revision 1 does, say the same in [[carry]] and [sync], and put the rest into a new migration after it",
            ),
            Self::Published(error) => error.remedy(),
            Self::OtherSteps { .. } => here("restore that step, or name a smaller number: the steps up to it have to stay as they were"),
            Self::NoWayBack { .. } => {
                here("leave the first steps as they are and say continues_after = N in migration.toml, where N is the last one that is the same")
            }
            Self::NothingToContinue { .. } => here("take continues_after out of migration.toml"),
        }
    }
}

/// Judges every revised migration of `chain`, whose `rehearsal` is the new texts'. What is published is rehearsed beside
/// it, by the same engine. Gives what a person should know.
pub fn check(chain: &Chain, found: &Found, rehearsal: &Rehearsal, targets: Option<&Targets>) -> Result<Vec<String>, ReviseError> {
    let mut notes = Vec::new();
    for (index, earlier) in &found.revised {
        let (Some(authored), Some(now)) = (chain.migrations.get(*index), rehearsal.versions.get(*index)) else { continue };
        let name = &authored.migration.name;
        let mut then = Vec::with_capacity(earlier.len());
        for (revision, published) in (1..).zip(earlier) {
            let run = as_published(chain, *index, published);
            if run.is_none() {
                notes.push(format!(
                    "{name}: revision {revision} does not run on an empty database, so it is not known whether this one ends in its schema"
                ));
            }
            then.push((published, run));
        }
        judge(&authored.migration, now, &then)?;
        same_ids(*index, &authored.migration, now, targets)?;
    }
    Ok(notes)
}

/// Whether the ids are those that were published: rows travel by them, whichever revision a database ran.
fn same_ids(index: usize, new: &Migration, now: &Rehearsed, targets: Option<&Targets>) -> Result<(), ReviseError> {
    let slot = targets.into_iter().flat_map(Targets::chain).filter(|entry| entry.custom.revision == 1).nth(index);
    // Where the slot has none, there are none to keep.
    let Some((slot, published)) = slot.and_then(|slot| Some((&slot.custom, slot.custom.columns.as_ref()?))) else { return Ok(()) };
    let differ = |how: String| ReviseError::OtherIds { name: new.name.clone(), how };
    let before = recorded_ids(targets, index).map_err(Box::new)?;
    let ours = match now.found.decide(&before, slot.version, &new.manifest) {
        Ok((rows, _)) => rows,
        Err(problems) => return Err(differ(problems.first().map_or_else(String::new, |p| format!("{p}; {}", p.remedy())))),
    };
    if ours.columns.as_ref() == Some(published) && ours.sync == slot.sync {
        return Ok(());
    }
    let map = |change: &ColumnChange| {
        let mut ids = before.ledger().cloned().unwrap_or_default();
        ids.apply(change).map(|()| ids.map()).unwrap_or_default()
    };
    let (wanted, found) = (map(published), ours.columns.as_ref().map(map).unwrap_or_default());
    Err(differ(first_difference(&wanted, &found).unwrap_or_else(|| "the settings of [sync], or what a backfill fills, are others".to_owned())))
}

fn first_difference(wanted: &ColumnMap, found: &ColumnMap) -> Option<String> {
    wanted.tables.iter().find_map(|table| {
        let other = found.table(&table.name)?;
        if other.id != table.id {
            return Some(format!("{} has id {} and would have {}", table.name, table.id, other.id));
        }
        table.columns.iter().find_map(|column| {
            let now = other.column(&column.name)?.id;
            (now != column.id).then(|| format!("{}.{} has id {} and would have {now}", table.name, column.name, column.id))
        })
    })
}

/// What a published text does in its place; none where it fails there.
fn as_published(chain: &Chain, index: usize, published: &Migration) -> Option<Rehearsed> {
    let mut old = Chain { layout: chain.layout, migrations: chain.migrations.get(..=index)?.to_vec(), notes: Vec::new() };
    let place = old.migrations.last_mut()?;
    *place = Authored { migration: published.clone(), origins: std::collections::BTreeMap::new(), ..place.clone() };
    rehearse(&old, false, &mut |_| {}).ok()?.versions.pop()
}

/// Judges one revision. `then`: the published ones, oldest first, each with what it did where that is known. Pure.
fn judge(new: &Migration, now: &Rehearsed, then: &[(&Migration, Option<Rehearsed>)]) -> Result<(), ReviseError> {
    let name = || new.name.clone();
    for (revision, (_, rehearsed)) in (1..).zip(then) {
        if let Some(how) = rehearsed.as_ref().and_then(|old| differs(&old.schema, &now.schema)) {
            return Err(ReviseError::OtherSchema { name: name(), revision, how });
        }
    }
    let online = || (1..).zip(then).filter(|(_, (old, _))| old.manifest.mode == Mode::Online);
    let Some(after) = new.manifest.continues_after else {
        for (revision, (old, rehearsed)) in online() {
            let why = match (&old.down, rehearsed) {
                (None, _) => Some("it has none".to_owned()),
                (Some(_), Some(rehearsed)) => rehearsed.no_way_back.clone(),
                (Some(_), None) => None,
            };
            if let Some(why) = why {
                return Err(ReviseError::NoWayBack { name: name(), revision, why });
            }
        }
        return Ok(());
    };
    if online().next().is_none() {
        return Err(ReviseError::NothingToContinue { name: name() });
    }
    for (revision, (old, _)) in online() {
        let (ours, theirs) = (new.steps(), old.steps());
        let differs = (0..after as usize).find(|at| match (ours.get(*at), theirs.get(*at)) {
            (Some(ours), Some(theirs)) => !same_step(new, ours, old, theirs),
            (_, _) => true,
        });
        if let Some(at) = differs {
            return Err(ReviseError::OtherSteps { name: name(), after, step: at + 1, revision });
        }
    }
    Ok(())
}

/// Whether two steps do the same. Line endings do not count.
fn same_step(new: &Migration, ours: &Step, old: &Migration, theirs: &Step) -> bool {
    let text = |migration: &Migration, step: &Step| {
        step.file().and_then(|file| migration.file(file)).map(|text| text.trim_start_matches('\u{feff}').replace("\r\n", "\n"))
    };
    ours == theirs && text(new, ours) == text(old, theirs)
}

/// Where the revision after `earlier` ones stands: in the slot of the first, whose schema it has. `before` is the schema
/// in front of it, for a slot that has none recorded.
pub(super) fn link(slot: &TargetEntry, earlier: usize, rehearsed: &Rehearsed, before: &whimbrel_shared::fingerprint::Schema) -> Link {
    Link {
        revision: u32::try_from(earlier + 1).unwrap_or(u32::MAX),
        mends: Some(slot.digest()),
        schema: slot.custom.schema.clone().or_else(|| Some(before.change_to(&rehearsed.schema))),
        steps: rehearsed.steps.clone(),
        min_sqlite: rehearsed.min_sqlite.clone(),
        ..slot.custom.clone()
    }
}
