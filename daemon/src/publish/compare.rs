//! What a server has of a chain, against the directory it came from. Pure.

use std::collections::{BTreeMap, BTreeSet};

use whimbrel_shared::{
    fingerprint::Schema,
    ids::{AppName, MigrationName},
    migration::{Link, Migration, TargetEntry, Targets},
    protocol::publish::PublishLink,
    remedy::{Remedy, here},
    row_schema::RowSchema,
    trust::{self, TrustError},
};

use super::{
    columns::Problem,
    layout::{Authored, Chain},
    rehearse::Rehearsal,
    revise,
};

/// Why a directory is not the continuation of what was published.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The server's chain is none.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The directory has not got what was published.
    #[error("{name}, published as version {version}, is not in the directory")]
    Lacks {
        /// The migration.
        name: MigrationName,
        /// Its version.
        version: u32,
    },
    /// Another migration stands where a published one has its place.
    #[error("{found} ({path}) stands at place {version}, which belongs to {published}: that is published")]
    Order {
        /// The migration that stands there.
        found: MigrationName,
        /// Its file.
        path: String,
        /// The place.
        version: u32,
        /// The migration that was published there.
        published: MigrationName,
        /// Whether the one that stands there is published itself.
        moved: bool,
    },
    /// A published migration has another text now.
    #[error("{path}{}: {name} was published with another text: {what}", line.map_or_else(String::new, |l| format!(":{l}")))]
    Changed {
        /// The migration.
        name: MigrationName,
        /// Its file.
        path: String,
        /// The first line that differs, where lines can be told.
        line: Option<u32>,
        /// How it differs.
        what: String,
    },
    /// A revision was asked for of what is not published.
    #[error("{name} is to be revised, and is not published")]
    NotPublished {
        /// The migration.
        name: MigrationName,
    },
    /// A revision was asked for, and the text is that of one that was mended already.
    #[error("{name} is to be revised, and its text is that of revision {revision}, which a later one mends")]
    Older {
        /// The migration.
        name: MigrationName,
        /// The revision whose text it is.
        revision: u32,
    },
    /// After what was published, ids cannot be given or rows not be exchanged as the text says.
    #[error("{name}: {problem}{}", if *more > 0 { format!(" (and {more} more)") } else { String::new() })]
    Rows {
        /// The migration.
        name: MigrationName,
        /// What is wrong.
        problem: Box<Problem>,
        /// How much else is.
        more: usize,
    },
    /// The metadata would be longer than devices read.
    #[error("the list of targets would have {size_bytes} bytes; devices read at most {MAX_TARGETS_BYTES}")]
    TooLong {
        /// Its size.
        size_bytes: u64,
    },
}

/// What devices read of targets metadata.
const MAX_TARGETS_BYTES: u64 = 5 * 1024 * 1024;

impl CompareError {
    fn rows(name: MigrationName, problems: Vec<Problem>) -> Self {
        let more = problems.len().saturating_sub(1);
        let first = problems.into_iter().next().unwrap_or_else(|| Problem::Ids { why: "nothing is known of them".to_owned() });
        Self::Rows { name, problem: Box::new(first), more }
    }

    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Trust(error) => error.remedy(),
            Self::Lacks { .. } => here("bring it back: what is published stays in the chain; if this is another app's directory, say --app"),
            Self::Order { moved: true, .. } => here("restore the order: published migrations keep their places"),
            Self::Order { moved: false, published, .. } => {
                here(format!("give it a number after those that are published; {published} keeps its place"))
            }
            Self::Changed { name, .. } => here(format!(
                "restore its text, and put the change into a new migration after it; or, where it fails on devices, mend it for those that have not completed it with --revise {name}"
            )),
            Self::NotPublished { .. } => here("correct the name after --revise; what is not published yet is published without it"),
            Self::Older { .. } => here("take the newest revision's text into the directory, and change that"),
            Self::Rows { problem, .. } => here(problem.remedy()),
            Self::TooLong { .. } => here("squash the oldest migrations into one first migration under a new app name"),
        }
    }
}

/// The entries whose bodies decide: their digest is not that of the directory's own bytes, which may still be the same
/// text with other line endings.
pub fn bodies_needed<'t>(chain: &Chain, targets: &'t Targets) -> Vec<&'t TargetEntry> {
    targets
        .chain()
        .into_iter()
        .filter(|entry| {
            let version = usize::try_from(entry.custom.version).unwrap_or(usize::MAX);
            let local = version.checked_sub(1).and_then(|index| chain.migrations.get(index));
            local.is_some_and(|local| TargetEntry::new(&local.migration.to_bytes(), entry.custom.clone()).digest() != entry.digest())
        })
        .collect()
}

/// How a chain stands to what is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// How many of its migrations are published.
    pub published: usize,
    /// Those of them that were changed on purpose: their index in the chain, and what is published of them, oldest first.
    pub revised: BTreeMap<usize, Vec<Migration>>,
}

impl Found {
    /// The migrations about which nothing can be done any more.
    pub fn settled(&self, chain: &Chain) -> BTreeSet<MigrationName> {
        let old = chain.migrations.iter().take(self.published).enumerate().filter(|(index, _)| !self.revised.contains_key(index));
        old.map(|(_, authored)| authored.migration.name.clone()).collect()
    }
}

/// What of the chain is published already, and what is a new revision of it. `bodies`: those that [`bodies_needed`]
/// named, by path. `revise`: the migrations whose text may have been changed.
pub fn compare(
    chain: &Chain,
    targets: &Targets,
    bodies: &BTreeMap<String, Migration>,
    revise: &BTreeSet<MigrationName>,
) -> Result<Found, CompareError> {
    let published = trust::check_chain(targets)?;
    let names: BTreeSet<&MigrationName> = published.iter().map(|entry| &entry.custom.name).collect();
    let mut versions: BTreeMap<u32, Vec<&TargetEntry>> = BTreeMap::new();
    for entry in published {
        versions.entry(entry.custom.version).or_default().push(entry);
    }
    if let Some(name) = revise.iter().find(|name| !names.contains(name)) {
        return Err(CompareError::NotPublished { name: name.clone() });
    }
    let mut found = Found { published: versions.len(), revised: BTreeMap::new() };
    for (index, (version, revisions)) in versions.iter().enumerate() {
        let published = revisions.iter().map(|r| &r.custom.name).next().expect("a version has at least one revision");
        let lacks = || CompareError::Lacks { name: published.clone(), version: *version };
        let local = chain.migrations.get(index).ok_or_else(lacks)?;
        let name = &local.migration.name;
        if name != published {
            // If the published one is nowhere, that is the news; where the others went follows from it.
            if !chain.migrations.iter().any(|m| m.migration.name == *published) {
                return Err(lacks());
            }
            let (path, _) = first_place(local);
            return Err(CompareError::Order {
                found: name.clone(),
                path,
                version: *version,
                published: published.clone(),
                moved: names.contains(name),
            });
        }
        match same(local, revisions, bodies) {
            Ok(entry) if revise.contains(name) && Some(&entry) != revisions.last() => {
                return Err(CompareError::Older { name: name.clone(), revision: entry.custom.revision });
            }
            Ok(_) => {}
            Err(CompareError::Changed { .. }) if revise.contains(name) => {
                // Every one of them has another digest, so every one was asked for.
                found.revised.insert(index, revisions.iter().filter_map(|entry| bodies.get(&entry.path())).cloned().collect());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Which revision's text it is. The newest counts; an older one is fine too, for a directory that has not been corrected
/// yet.
fn same<'t>(local: &Authored, revisions: &[&'t TargetEntry], bodies: &BTreeMap<String, Migration>) -> Result<&'t TargetEntry, CompareError> {
    let digest = whimbrel_shared::ids::Digest::of(&local.migration.to_bytes());
    let is = |entry: &&TargetEntry| entry.digest() == digest || bodies.get(&entry.path()).is_some_and(|body| body.same_source(&local.migration));
    if let Some(entry) = revisions.iter().rev().find(|entry| is(entry)) {
        return Ok(entry);
    }
    let newest = revisions.last().and_then(|entry| bodies.get(&entry.path()));
    Err(match newest {
        Some(published) => difference(local, published),
        None => {
            let (path, _) = first_place(local);
            CompareError::Changed { name: local.migration.name.clone(), path, line: None, what: "its digest is another".to_owned() }
        }
    })
}

fn first_place(local: &Authored) -> (String, u32) {
    let file = local.migration.files.keys().next_back().map_or("up.sql", String::as_str);
    local.place(file, 1)
}

/// The first thing by which the directory's text differs from what was published.
fn difference(local: &Authored, published: &Migration) -> CompareError {
    let name = local.migration.name.clone();
    let changed = |path: String, line: Option<u32>, what: String| CompareError::Changed { name: name.clone(), path, line, what };
    let files: BTreeSet<&String> = local.migration.files.keys().chain(published.files.keys()).collect();
    for file in files {
        let (path, first) = local.place(file, 1);
        let (now, then) = match (local.migration.file(file), published.file(file)) {
            (Some(now), Some(then)) => (now, then),
            (Some(_), None) => return changed(path, None, "the file was not part of it".to_owned()),
            (None, _) => return changed(path, None, "the file is gone".to_owned()),
        };
        let lines =
            |text: &str| -> Vec<String> { text.trim_start_matches('\u{feff}').replace("\r\n", "\n").split('\n').map(str::to_owned).collect() };
        let (now, then) = (lines(now), lines(then));
        let at = now.iter().zip(&then).position(|(a, b)| a != b).or_else(|| (now.len() != then.len()).then(|| now.len().min(then.len())));
        if let Some(at) = at {
            let shown = |lines: &[String]| lines.get(at).map_or_else(|| "nothing".to_owned(), |line| format!("{:?}", excerpt(line.trim())));
            let line = first.saturating_add(u32::try_from(at).unwrap_or(u32::MAX));
            return changed(path, Some(line), format!("there is {} where it said {}", shown(&now), shown(&then)));
        }
    }
    let (path, _) = local.place("migration.toml", 1);
    let keys = |m: &Migration| serde_json::to_value(&m.manifest).unwrap_or_default();
    let (now, then) = (keys(&local.migration), keys(published));
    let key = now
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key)
        .chain(then.as_object().into_iter().flatten().map(|(key, _)| key))
        .find(|key| now.get(key.as_str()) != then.get(key.as_str()));
    let what = key.map_or_else(
        || "its way down came or went".to_owned(),
        |key| {
            let said = |value: Option<&serde_json::Value>| value.map_or_else(|| "nothing".to_owned(), |v| excerpt(&v.to_string()));
            format!("`{key}` is {} and was {}", said(now.get(key)), said(then.get(key)))
        },
    );
    changed(path, None, what)
}

fn excerpt(line: &str) -> String {
    const SHOWN: usize = 80;
    if line.chars().count() <= SHOWN { line.to_owned() } else { format!("{}…", line.chars().take(SHOWN).collect::<String>()) }
}

/// The links that continue what is published: new revisions, then all of the chain after what is published.
pub fn links(
    chain: &Chain,
    rehearsal: &Rehearsal,
    app: &AppName,
    found: &Found,
    targets: Option<&Targets>,
) -> Result<Vec<PublishLink>, CompareError> {
    let slots: Vec<&TargetEntry> = targets.into_iter().flat_map(Targets::chain).filter(|entry| entry.custom.revision == 1).collect();
    // The slot before the first new link is as published: its bytes may differ from ours in line endings.
    let mut previous = found.published.checked_sub(1).and_then(|last| slots.get(last)).map(|slot| slot.digest());
    let rehearsed_at = |version: usize| version.checked_sub(1).and_then(|index| rehearsal.versions.get(index)).map(|v| v.schema.clone());
    let mut before = recorded(targets).or_else(|| rehearsed_at(found.published)).unwrap_or_default();
    let mut ids = recorded_ids(targets.filter(|_| found.published > 0), found.published)?;
    let mut all = targets.cloned().unwrap_or_else(|| Targets { app: app.clone(), version: 0, targets: BTreeMap::new() });
    let mut links = Vec::new();
    for (index, (authored, rehearsed)) in chain.migrations.iter().zip(&rehearsal.versions).enumerate() {
        let bytes = authored.migration.to_bytes();
        let custom = if index >= found.published {
            let schema = Some(before.change_to(&rehearsed.schema));
            before.clone_from(&rehearsed.schema);
            let version = u32::try_from(index + 1).unwrap_or(u32::MAX);
            let name = || authored.migration.name.clone();
            let decided = rehearsed.found.decide(&ids, version, &authored.migration.manifest);
            let (rows, _) = decided.map_err(|problems| CompareError::rows(name(), problems))?;
            ids.advance(version, rows.columns.as_ref(), &rows.sync).map_err(|why| CompareError::rows(name(), vec![Problem::Ids { why }]))?;
            Link {
                name: authored.migration.name.clone(),
                version,
                revision: 1,
                previous,
                mends: None,
                schema,
                steps: rehearsed.steps.clone(),
                min_sqlite: rehearsed.min_sqlite.clone(),
                columns: rows.columns,
                sync: rows.sync,
                lifts: rows.lifts,
            }
        } else {
            let (Some(slot), Some(earlier)) = (slots.get(index), found.revised.get(&index)) else { continue };
            // A revision that could not be decided was refused before; where the slot has no ids, nothing is repeated.
            let decided = rehearsed.found.decide(&recorded_ids(targets, index)?, slot.custom.version, &authored.migration.manifest);
            let lifts = decided.map_or_else(|_| Vec::new(), |(rows, _)| rows.lifts);
            Link { lifts, ..revise::link(slot, earlier.len(), rehearsed, &rehearsed_at(index).unwrap_or_default()) }
        };
        let target = TargetEntry::new(&bytes, custom);
        previous = if index >= found.published { Some(target.digest()) } else { previous };
        all.targets.insert(target.path(), target.clone());
        let body = String::from_utf8(bytes).expect("JSON is UTF-8");
        links.push(PublishLink { target, body, seed: rehearsed.seed.clone() });
    }
    trust::check_chain(&all)?;
    let size_bytes = serde_json::to_vec(&all).map_or(u64::MAX, |bytes| bytes.len() as u64);
    if size_bytes > MAX_TARGETS_BYTES { Err(CompareError::TooLong { size_bytes }) } else { Ok(links) }
}

/// The ids after the first `versions` of what is published: they are as they were given, whatever would be given today.
pub(super) fn recorded_ids(targets: Option<&Targets>, versions: usize) -> Result<RowSchema, CompareError> {
    let mut ids = RowSchema::default();
    for entry in targets.into_iter().flat_map(Targets::chain).filter(|entry| entry.custom.revision == 1).take(versions) {
        let Link { version, revision, .. } = entry.custom;
        ids.pass(&entry.custom).map_err(|why| TrustError::BadIds { version, revision, why })?;
    }
    Ok(ids)
}

/// The schema that devices expect after what is published: the changes are signed one on top of the other, so the next
/// one must begin where they end, and not where this rehearsal would. None where a version has none recorded.
fn recorded(targets: Option<&Targets>) -> Option<Schema> {
    let mut schema = Schema::default();
    for entry in targets?.chain().into_iter().filter(|entry| entry.custom.revision == 1) {
        schema.apply(entry.custom.schema.as_ref()?);
    }
    Some(schema)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::{
        layout::{self, Layout},
        listing::{Listing, content},
        rehearse::rehearse,
    };

    fn chain(files: &[(&str, &str)]) -> Chain {
        let listing = Listing { files: files.iter().map(|(p, t)| ((*p).to_owned(), content(t.as_bytes().to_vec()))).collect() };
        layout::read(&listing, Some(Layout::Whimbrel)).unwrap()
    }

    fn app() -> AppName {
        "notes".parse().unwrap()
    }

    /// What a server has after `chain` was published after `before`.
    fn publish(chain: &Chain, before: Option<(Targets, BTreeMap<String, Migration>)>) -> (Targets, BTreeMap<String, Migration>) {
        let rehearsal = rehearse(chain, false, &mut |_| {}).unwrap();
        let (mut targets, mut bodies) = before.unwrap_or_else(|| (Targets { app: app(), version: 0, targets: BTreeMap::new() }, BTreeMap::new()));
        let had = compare(chain, &targets, &bodies, &BTreeSet::new()).unwrap();
        for link in links(chain, &rehearsal, &app(), &had, Some(&targets)).unwrap() {
            trust::verify(&link.target, link.body.as_bytes()).unwrap();
            bodies.insert(link.target.path(), Migration::from_bytes(link.body.as_bytes()).unwrap());
            targets.targets.insert(link.target.path(), link.target);
        }
        (targets, bodies)
    }

    const ONE: (&str, &str) = ("0001_a/up.sql", "CREATE TABLE a(x);\nCREATE TABLE b(y);\n");
    const TWO: (&str, &str) = ("0002_b/up.sql", "CREATE TABLE c(x);\n");
    const THREE: (&str, &str) = ("0003_c/up.sql", "CREATE TABLE d(x);\n");

    #[test]
    fn publishing_twice_changes_nothing_and_new_links_follow_the_published_ones() {
        let two = chain(&[ONE, TWO]);
        let server = publish(&two, None);
        assert_eq!(server.0.targets.len(), 2);
        assert!(bodies_needed(&two, &server.0).is_empty());
        assert_eq!(publish(&two, Some(server.clone())).0, server.0);

        // A checkout with other line endings is the same text, and the chain goes on from the published digest.
        let windows = chain(&[("0001_a/up.sql", "CREATE TABLE a(x);\r\nCREATE TABLE b(y);\r\n"), ("0002_b/up.sql", "CREATE TABLE c(x);\r\n"), THREE]);
        assert_eq!(bodies_needed(&windows, &server.0).len(), 2);
        let after = publish(&windows, Some(server.clone())).0;
        let chain = trust::check_chain(&after).unwrap();
        assert_eq!(chain[2].custom.previous, Some(server.0.chain()[1].digest()));
        assert_eq!(chain[2].custom.schema.as_ref().unwrap().0.keys().collect::<Vec<_>>(), ["table d"]);
        assert_eq!(recorded(Some(&after)).unwrap(), rehearse(&windows, false, &mut |_| {}).unwrap().versions[2].schema);
    }

    #[test]
    fn new_links_go_on_from_the_schema_that_was_recorded() {
        let mut server = publish(&chain(&[ONE, TWO]), None);
        // As if an older whimbrel had read table c in another way.
        let two = server.0.targets.get_mut("0002_b.r1.json").unwrap();
        two.custom.schema.as_mut().unwrap().0.insert("table c".to_owned(), Some("0123456789abcdef".to_owned()));
        let three = chain(&[ONE, TWO, THREE]);
        let after = publish(&three, Some(server)).0;
        assert_eq!(recorded(Some(&after)).unwrap(), rehearse(&three, false, &mut |_| {}).unwrap().versions[2].schema);
    }

    const NOTES: (&str, &str) = ("0001_a/up.sql", "CREATE TABLE notes(id TEXT NOT NULL PRIMARY KEY, x TEXT);\n");
    const SYNC: (&str, &str) = ("0001_a/migration.toml", "[sync.notes]\n");
    const RENAME: (&str, &str) = ("0002_b/up.sql", "ALTER TABLE notes RENAME x TO y;\n");
    const CARRY: (&str, &str) = ("0002_b/migration.toml", "[[carry]]\ntable = \"notes\"\nrename = { x = \"y\" }\n");

    #[test]
    fn new_links_go_on_from_the_ids_that_were_given() {
        let mut server = publish(&chain(&[NOTES, SYNC]), None);
        let one = server.0.targets.get_mut("0001_a.r1.json").unwrap();
        // As if an earlier chain had used the first ids up.
        one.custom.columns = Some(serde_json::from_str(r#"{"made":[[3,"notes",[[7,"id"],[9,"x"]]]]}"#).unwrap());
        one.custom.sync = serde_json::from_str(r#"{"tables":[{"table":3,"direction":"push","conflict":"merge","key":[[7,"binary"]]}]}"#).unwrap();
        let after = publish(&chain(&[NOTES, SYNC, RENAME, CARRY]), Some(server)).0;
        let change = after.targets["0002_b.r1.json"].custom.columns.clone().unwrap();
        assert_eq!(serde_json::to_string(&change).unwrap(), r#"{"made":[[3,"notes",[[7,"id"],[9,"y"]]]]}"#);
        let ids = recorded_ids(Some(&after), 2).unwrap();
        assert_eq!(ids.synced().table(3).map(|s| s.direction), Some(whimbrel_shared::manifest::Direction::Push));
    }

    #[test]
    fn a_chain_that_was_published_without_ids_goes_on_without_and_cannot_exchange_rows() {
        let mut server = publish(&chain(&[ONE]), None);
        server.0.targets.get_mut("0001_a.r1.json").unwrap().custom.columns = None;
        let after = publish(&chain(&[ONE, TWO]), Some(server.clone())).0;
        assert_eq!(after.targets["0002_b.r1.json"].custom.columns, None);
        let synced = chain(&[ONE, ("0002_b/up.sql", "CREATE TABLE c(x TEXT NOT NULL PRIMARY KEY);\n"), ("0002_b/migration.toml", "[sync.c]\n")]);
        let rehearsal = rehearse(&synced, false, &mut |_| {}).unwrap();
        let found = compare(&synced, &server.0, &server.1, &BTreeSet::new()).unwrap();
        let error = links(&synced, &rehearsal, &app(), &found, Some(&server.0)).unwrap_err();
        assert!(error.to_string().contains("version 1 was published without column ids"), "{error}");
    }

    #[test]
    fn a_revision_that_ends_in_other_ids_is_refused_though_its_schema_is_the_same() {
        let server = publish(&chain(&[NOTES, SYNC, RENAME, CARRY]), None);
        let revise = BTreeSet::from(["0002_b".parse().unwrap()]);
        let check = |files: &[(&str, &str)]| {
            let local = chain(files);
            let found = compare(&local, &server.0, &server.1, &revise).unwrap();
            let rehearsal = rehearse(&local, false, &mut |_| {}).unwrap();
            revise::check(&local, &found, &rehearsal, Some(&server.0)).map_err(|e| format!("{e}; {}", e.remedy().sentence()))
        };
        let anew = ("0002_b/up.sql", "ALTER TABLE notes ADD y TEXT;\nALTER TABLE notes DROP x;\n");
        let error =
            check(&[NOTES, SYNC, anew, ("0002_b/migration.toml", "destructive = true\n[[carry]]\ntable = \"notes\"\ndrop = { x = \"archive\" }\n")]);
        assert!(error.as_ref().is_err_and(|e| e.contains("notes.y has id 2 and would have 3") && e.contains("new migration after it")), "{error:?}");
        let rebuilt = (
            "0002_b/up.sql",
            "CREATE TABLE n(id TEXT NOT NULL PRIMARY KEY, y TEXT);\nINSERT INTO n SELECT id, x FROM notes;\nDROP TABLE notes;\nALTER TABLE n RENAME TO notes;\n",
        );
        check(&[NOTES, SYNC, rebuilt, CARRY]).unwrap();
        let error = check(&[
            NOTES,
            SYNC,
            RENAME,
            ("0002_b/migration.toml", "[[carry]]\ntable = \"notes\"\nrename = { x = \"y\" }\n[sync.notes]\nconflict = \"merge\"\n"),
        ]);
        assert!(error.as_ref().is_err_and(|e| e.contains("settings of [sync]")), "{error:?}");
    }

    fn refused(local: &Chain, words: &[&str]) {
        refused_after(&chain(&[ONE, TWO]), local, words);
    }

    fn refused_after(published: &Chain, local: &Chain, words: &[&str]) {
        let server = publish(published, None);
        let error = compare(local, &server.0, &server.1, &BTreeSet::new()).unwrap_err();
        let said = format!("{error}; {}", error.remedy().sentence());
        for word in words {
            assert!(said.contains(word), "{word:?} is not in: {said}");
        }
    }

    #[test]
    fn a_changed_text_is_refused_with_its_file_and_first_line() {
        refused(
            &chain(&[("0001_a/up.sql", "CREATE TABLE a(x);\nCREATE TABLE bb(y);\n"), TWO]),
            &["0001_a/up.sql:2", "\"CREATE TABLE bb(y);\" where it said \"CREATE TABLE b(y);\"", "restore its text"],
        );
        refused(
            &chain(&[("0001_a/up.sql", "CREATE TABLE a(x);\nCREATE TABLE b(y);\n-- more\n"), TWO]),
            &["0001_a/up.sql:3", "\"-- more\" where it said \"\""],
        );
        refused(&chain(&[ONE, TWO, ("0002_b/down.sql", "DROP TABLE c")]), &["0002_b/down.sql", "not part of it"]);
        refused(
            &chain(&[ONE, TWO, ("0002_b/migration.toml", "timeout = \"1m\"")]),
            &["0002_b/migration.toml", "`timeout` is \"1m\" and was \"10m\""],
        );
    }

    #[test]
    fn a_changed_text_is_a_revision_only_where_that_is_said_and_of_the_newest_text() {
        let two = chain(&[ONE, TWO]);
        let server = publish(&two, None);
        let names = |name: &str| BTreeSet::from([name.parse().unwrap()]);
        let mended = chain(&[ONE, ("0002_b/up.sql", "CREATE TABLE IF NOT EXISTS c(x);\n")]);
        refused(&mended, &["--revise 0002_b"]);
        let error = compare(&two, &server.0, &server.1, &names("0003_c")).unwrap_err();
        assert!(error.to_string().contains("0003_c is to be revised, and is not published"), "{error}");
        assert_eq!(compare(&two, &server.0, &server.1, &names("0002_b")).unwrap(), Found { published: 2, revised: BTreeMap::new() });

        let found = compare(&mended, &server.0, &server.1, &names("0002_b")).unwrap();
        assert_eq!(found.settled(&mended), names("0001_a"));
        let rehearsal = rehearse(&mended, false, &mut |_| {}).unwrap();
        let (mut targets, mut bodies) = server.clone();
        for link in links(&mended, &rehearsal, &app(), &found, Some(&server.0)).unwrap() {
            bodies.insert(link.target.path(), Migration::from_bytes(link.body.as_bytes()).unwrap());
            targets.targets.insert(link.target.path(), link.target);
        }
        let (slot, second) = (&targets.targets["0002_b.r1.json"].custom, &targets.targets["0002_b.r2.json"].custom);
        assert_eq!((second.mends, second.previous, &second.schema), (Some(server.0.targets["0002_b.r1.json"].digest()), slot.previous, &slot.schema));
        // The next link follows the slot, and the text of a revision that was mended is none to mend it with.
        let three = chain(&[ONE, ("0002_b/up.sql", "CREATE TABLE IF NOT EXISTS c(x);\n"), THREE]);
        let after = publish(&three, Some((targets.clone(), bodies.clone()))).0;
        assert_eq!(after.targets["0003_c.r1.json"].custom.previous, second.mends);
        let error = compare(&two, &targets, &bodies, &names("0002_b")).unwrap_err();
        assert!(error.to_string().contains("that of revision 1"), "{error}");
    }

    #[test]
    fn a_chain_that_lacks_or_reorders_published_ones_is_refused() {
        refused(&chain(&[ONE]), &["0002_b, published as version 2, is not in the directory", "bring it back"]);
        refused(&chain(&[TWO, THREE]), &["0001_a, published as version 1"]);
        refused(&chain(&[ONE, THREE]), &["0002_b, published as version 2"]);
        refused_after(&chain(&[ONE, THREE]), &chain(&[ONE, TWO, THREE]), &["0002_b (0002_b/up.sql) stands at place 2", "belongs to 0003_c"]);
        refused(&chain(&[("0000_new/up.sql", ""), ONE, TWO]), &["0000_new (0000_new/up.sql) stands at place 1", "belongs to 0001_a", "after those"]);
    }
}
