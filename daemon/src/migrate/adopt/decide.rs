//! At which version a database with a past is taken over: by a person's word, by its trackers, or by its schema alone. Pure.

use whimbrel_shared::fingerprint::Schema;

use super::{
    error::AdoptError,
    fit::Expected,
    map::{Mapped, Names, map},
    past::{Past, Tool, TroubleKind},
};

/// What a person says beside the bare order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// What is in place, whatever a tracker says. 0: nothing of the chain.
    pub version: Option<u32>,
    /// Whether it is taken as it is, with what differs.
    pub accept_drift: bool,
}

/// What is to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Everything up to it is in place.
    pub version: u32,
    /// What said so.
    pub by: By,
    /// How the file differs from that version all the same; only where a person accepted it.
    pub drift: Vec<String>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// What said which version it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A tool's tracker.
    Tracker(Tool),
    /// The schema alone.
    Schema,
    /// A person.
    Person,
}

impl By {
    /// One word, or the tool's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tracker(tool) => tool.name(),
            Self::Schema => "schema",
            Self::Person => "person",
        }
    }
}

/// Decides. `names` are those of the chain, version 1 first; `found` is the file's schema.
pub(super) fn decide(pasts: &[Past], names: &Names<'_>, expected: &Expected, found: &Schema, word: Word) -> Result<Decision, AdoptError> {
    if names.is_empty() {
        return Err(AdoptError::NoChain);
    }
    if let Some(past) = pasts.iter().find(|p| is_in_the_way(p, word)) {
        let trouble = past.trouble.clone().expect("that is what is in the way");
        return Err(AdoptError::Trouble { tool: past.tool, table: past.table.clone(), trouble });
    }
    let mut notes: Vec<String> = pasts.iter().flat_map(|p| p.notes.iter().map(move |note| format!("{}: {note}", p.tool))).collect();
    let (version, by) = match word.version {
        Some(version) => (version, By::Person),
        None => match by_trackers(pasts, names, expected, found, &mut notes)? {
            Some((version, tool)) => (version, By::Tracker(tool)),
            None => (by_schema(expected, found)?, By::Schema),
        },
    };
    let drift = match expected.differences(version, found) {
        // Accepted by a person who named the version: it is recorded with what differs.
        Some(drift) if drift.is_empty() || word.version.is_some() && word.accept_drift => drift,
        Some(drift) => return Err(AdoptError::Drift { version, drift }),
        None if word.version.is_some() && word.accept_drift => Vec::new(),
        None => return Err(AdoptError::Unknown { version }),
    };
    Ok(Decision { version, by, drift, notes })
}

/// A person's word counts more than a half-done migration, for the schema is compared all the same. A lock means that
/// the tool may be at work this moment, and then what is read now is not true for long.
fn is_in_the_way(past: &Past, word: Word) -> bool {
    match past.trouble.as_ref().map(|t| t.kind) {
        None => false,
        Some(TroubleKind::Locked) => true,
        Some(TroubleKind::Dirty) => word.version.is_none(),
    }
}

/// What the trackers say together; none where there is none with anything in it.
fn by_trackers(
    pasts: &[Past],
    names: &Names<'_>,
    expected: &Expected,
    found: &Schema,
    notes: &mut Vec<String>,
) -> Result<Option<(u32, Tool)>, AdoptError> {
    let mut said: Option<(u32, Tool)> = None;
    let mut unmapped = None;
    for past in pasts.iter().filter(|p| !p.applied.is_empty()) {
        match map(past, names) {
            // An application counts there what it likes; it is a hint that the schema has to bear out.
            Ok(Mapped { version, .. }) if past.tool == Tool::UserVersion => {
                if said.is_none() && unmapped.is_none() && expected.differences(version, found).is_some_and(|d| d.is_empty()) {
                    said = Some((version, past.tool));
                }
            }
            Err(_) if past.tool == Tool::UserVersion => {}
            Ok(Mapped { version, passed_over }) => {
                if let Some((other, tool)) = said.filter(|(other, _)| *other != version) {
                    return Err(AdoptError::Disagree { first: tool, first_version: other, second: past.tool, second_version: version });
                }
                if !passed_over.is_empty() {
                    notes.push(format!(
                        "{}: {} entries are of parts that the chain does not speak of, and stay its own",
                        past.tool,
                        passed_over.len()
                    ));
                }
                said = Some((version, past.tool));
            }
            Err(why) => {
                let fits = Some(expected.fits(found)).filter(|f| f.len() == 1).and_then(|f| f.first().copied());
                unmapped.get_or_insert(AdoptError::Unmapped { tool: past.tool, table: past.table.clone(), why, fits });
            }
        }
    }
    match (said, unmapped) {
        // Another tool's business beside: its tables are not the chain's.
        (Some(said), _) => Ok(Some(said)),
        (None, Some(why)) => Err(why),
        (None, None) => Ok(None),
    }
}

fn by_schema(expected: &Expected, found: &Schema) -> Result<u32, AdoptError> {
    match expected.fits(found).as_slice() {
        [version] => Ok(*version),
        [] => match expected.closest(found).and_then(|v| Some((v, expected.at(v)?, expected.differences(v, found)?))) {
            // Nothing of that version is there at all: it is no past of this chain.
            Some((_, schema, _)) if schema.restricted(found).0.is_empty() => Err(AdoptError::NoPast),
            Some((version, _, drift)) => Err(AdoptError::Drift { version, drift }),
            None if expected.known() == 0 => Err(AdoptError::Unknown { version: 1 }),
            None => Err(AdoptError::NoPast),
        },
        several => Err(AdoptError::Several { versions: several.to_vec() }),
    }
}

#[cfg(test)]
mod tests {
    use whimbrel_shared::fingerprint::SchemaChange;

    use super::{
        super::past::{Applied, Key, Trouble},
        *,
    };

    const NAMES: [&str; 4] = ["0001_a", "0002_b", "0003_rows", "0004_d"];

    fn expected() -> Expected {
        let made = |object: &str| SchemaChange([(object.to_owned(), Some("+".to_owned()))].into());
        Expected::new(vec![made("table a"), made("table b"), SchemaChange::default(), made("table d")])
    }

    fn found(objects: &[&str]) -> Schema {
        Schema(objects.iter().map(|o| ((*o).to_owned(), "+".to_owned())).collect())
    }

    fn past(tool: Tool, numbers: &[u128]) -> Past {
        let applied = numbers.iter().map(|n| Applied::one(n.to_string(), vec![Key::Numbers(vec![*n])])).collect();
        Past { applied, ..Past::new(tool, "t") }
    }

    fn said(version: u32) -> Word {
        Word { version: Some(version), accept_drift: false }
    }

    #[track_caller]
    fn check(pasts: &[Past], objects: &[&str], word: Word, want: &str) {
        let got = match decide(pasts, &Names::new(NAMES.to_vec()), &expected(), &found(objects), word) {
            Ok(decision) => format!("{} by {}{}", decision.version, decision.by.name(), if decision.drift.is_empty() { "" } else { ", drifted" }),
            Err(error) => error.code().to_owned(),
        };
        assert_eq!(got, want, "{pasts:?} {objects:?} {word:?}");
    }

    #[test]
    fn a_tracker_says_the_version_and_the_schema_has_to_agree() {
        let bare = Word::default();
        check(&[past(Tool::Sqlx, &[1, 2])], &["table a", "table b"], bare, "2 by sqlx");
        check(&[past(Tool::Sqlx, &[1, 2, 3])], &["table a", "table b", "table mine"], bare, "3 by sqlx");
        check(&[past(Tool::Sqlx, &[1, 2])], &["table a"], bare, "adopt_drift");
        check(&[past(Tool::Sqlx, &[1, 2])], &["table a", "table b", "table d"], bare, "adopt_drift");
        check(&[past(Tool::Sqlx, &[1, 9])], &["table a"], bare, "tracker_unknown");
        check(&[past(Tool::Sqlx, &[7])], &["table a"], bare, "tracker_unknown");
        check(&[past(Tool::Sqlx, &[1]), past(Tool::Knex, &[1, 2])], &["table a"], bare, "trackers_disagree");
        check(&[past(Tool::Sqlx, &[1]), past(Tool::Knex, &[70])], &["table a"], bare, "1 by sqlx");
    }

    #[test]
    fn without_a_tracker_the_schema_says_it_where_only_one_version_fits() {
        let bare = Word::default();
        check(&[], &["table a"], bare, "1 by schema");
        check(&[past(Tool::Sqlx, &[])], &["table a", "table b", "table d"], bare, "4 by schema");
        check(&[], &["table a", "table b"], bare, "several_versions");
        check(&[], &["table b"], bare, "adopt_drift");
        check(&[], &["table mine"], bare, "no_past");
        let three = Past { applied: vec![Applied::up_to("3", vec![Key::Place(3)])], ..Past::new(Tool::UserVersion, "t") };
        check(std::slice::from_ref(&three), &["table a", "table b"], bare, "3 by user_version");
        check(&[three], &["table a"], bare, "1 by schema");
    }

    #[test]
    fn a_persons_word_needs_the_schema_too_unless_they_accept_what_differs() {
        check(&[], &["table a", "table b"], said(3), "3 by person");
        check(&[], &["table a"], said(0), "adopt_drift");
        check(&[], &["table mine"], said(0), "0 by person");
        check(&[past(Tool::Sqlx, &[7])], &["table a"], said(2), "adopt_drift");
        check(&[past(Tool::Sqlx, &[7])], &["table a"], Word { accept_drift: true, ..said(2) }, "2 by person, drifted");
        check(&[past(Tool::Sqlx, &[1, 2])], &["table a"], Word { version: None, accept_drift: true }, "adopt_drift");
    }

    #[test]
    fn a_dirty_tracker_waits_for_a_persons_word_and_a_locked_one_for_its_tool() {
        let dirty = Past { trouble: Some(Trouble::dirty("w", "r")), ..past(Tool::GolangMigrate, &[1]) };
        let locked = Past { trouble: Some(Trouble::locked("w", "r")), ..past(Tool::Knex, &[1]) };
        check(std::slice::from_ref(&dirty), &["table a"], Word::default(), "tracker_dirty");
        check(&[dirty], &["table a"], said(1), "1 by person");
        check(std::slice::from_ref(&locked), &["table a"], Word::default(), "tracker_locked");
        check(&[locked], &["table a"], said(1), "tracker_locked");
    }
}
