//! Finds a tracker's entries in the accepted chain, and how far they reach. Pure.

use std::collections::{BTreeSet, HashMap};

use super::past::{Key, Past, Reach};

/// Where a past ends in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapped {
    /// Everything up to it is in place; 0 for nothing.
    pub version: u32,
    /// Entries of parts that the chain does not speak of (Django's own apps), left where they are.
    pub passed_over: Vec<String>,
}

/// Why a past has no end in the chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmapped {
    /// None of its entries is known.
    #[error("none of the {count} migrations that are applied is in the accepted chain (the first is {first})")]
    Stranger {
        /// How many there are.
        count: usize,
        /// One of them.
        first: String,
    },
    /// The file is ahead of what was published.
    #[error("{} is applied, and the accepted chain does not have it", ids.join(", "))]
    Ahead {
        /// The first few.
        ids: Vec<String>,
    },
    /// One was left out.
    #[error("{above} is applied and {missing} before it is not")]
    Gap {
        /// Name of the first that is not.
        missing: String,
        /// Name of the last that is.
        above: String,
    },
    /// One fits several.
    #[error("{id} could be {} of the chain", names.join(" or "))]
    Ambiguous {
        /// As the tool shows it.
        id: String,
        /// What it could be.
        names: Vec<String>,
    },
}

/// Most ids that a message names.
const NAMED: usize = 6;

/// The names of a chain, ready to be found in.
pub(super) struct Names<'a> {
    /// Version 1 first.
    names: Vec<&'a str>,
    /// Versions by whole name.
    whole: HashMap<&'a str, Vec<u32>>,
    /// Versions by the words that follow the numbers in front, in lower case: each number less is another key.
    tails: HashMap<String, Vec<u32>>,
    /// Versions by word.
    words: HashMap<String, Vec<u32>>,
    /// Versions by number.
    numbers: HashMap<Vec<u128>, Vec<u32>>,
}

impl<'a> Names<'a> {
    /// `names` of a chain, version 1 first.
    pub(super) fn new(names: Vec<&'a str>) -> Self {
        let mut all = Self { names: Vec::new(), whole: HashMap::new(), tails: HashMap::new(), words: HashMap::new(), numbers: HashMap::new() };
        for (version, name) in (1..).zip(&names) {
            all.whole.entry(name).or_default().push(version);
            let words = words(name);
            let counted = words.iter().take_while(|w| w.bytes().all(|b| b.is_ascii_digit())).count();
            for from in 0..=counted.min(words.len().saturating_sub(1)) {
                all.tails.entry(words[from..].join("_")).or_default().push(version);
            }
            for word in words.into_iter().collect::<BTreeSet<_>>() {
                all.words.entry(word).or_default().push(version);
            }
            if let Some(numbers) = numbers(name) {
                all.numbers.entry(numbers).or_default().push(version);
            }
        }
        all.names = names;
        all
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn name(&self, version: u32) -> String {
        self.names[version as usize - 1].to_owned()
    }

    /// The versions that the first key to find any finds.
    fn find(&self, keys: &[Key]) -> Vec<u32> {
        let found = |key: &Key| match key {
            Key::Place(place) => (*place >= 1 && *place as usize <= self.names.len()).then(|| vec![*place]),
            Key::Numbers(numbers) => self.numbers.get(numbers).cloned(),
            Key::Word(word) => self.words.get(&word.to_ascii_lowercase()).cloned(),
            // What was exported by hand got a number in front: `0003_notes_0001_initial`.
            Key::Name(name) => self.whole.get(name.as_str()).or_else(|| self.tails.get(&words(name).join("_"))).cloned(),
        };
        keys.iter().find_map(found).unwrap_or_default()
    }
}

/// Where `past` ends in a chain.
pub(super) fn map(past: &Past, names: &Names<'_>) -> Result<Mapped, Unmapped> {
    let mut versions: BTreeSet<u32> = BTreeSet::new();
    let (mut unknown, mut known_groups) = (Vec::new(), BTreeSet::new());
    for entry in &past.applied {
        match names.find(&entry.keys).as_slice() {
            [] => unknown.push(entry),
            [version] => {
                known_groups.insert(&entry.group);
                match entry.reach {
                    Reach::Itself => drop(versions.insert(*version)),
                    Reach::AllBefore => versions.extend(1..=*version),
                }
            }
            several => {
                return Err(Unmapped::Ambiguous { id: entry.id.clone(), names: several.iter().take(NAMED).map(|v| names.name(*v)).collect() });
            }
        }
    }
    let Some(last) = versions.last().copied() else {
        return match past.applied.first() {
            None => Ok(Mapped { version: 0, passed_over: Vec::new() }),
            Some(first) => Err(Unmapped::Stranger { count: past.applied.len(), first: first.id.clone() }),
        };
    };
    if let Some(missing) = (1..=last).find(|v| !versions.contains(v)) {
        return Err(Unmapped::Gap { missing: names.name(missing), above: names.name(last) });
    }
    let (ahead, passed_over): (Vec<_>, Vec<_>) = unknown.into_iter().partition(|entry| known_groups.contains(&entry.group));
    if !ahead.is_empty() {
        return Err(Unmapped::Ahead { ids: ahead.iter().take(NAMED).map(|e| e.id.clone()).collect() });
    }
    Ok(Mapped { version: last, passed_over: passed_over.into_iter().map(|e| e.id.clone()).collect() })
}

/// Whether any entry of `past` is one of the chain's: what is applied then must not be applied again.
pub(super) fn is_known(past: &Past, names: &Names<'_>) -> bool {
    past.applied.iter().any(|entry| !names.find(&entry.keys).is_empty())
}

fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_ascii_lowercase).collect()
}

/// The number at the front of a name, as the layouts write it: `0002_x`, `2018-01-13-205510_x`, `V1.2__x`, and TypeORM's
/// `X1700000000000` at the end.
fn numbers(name: &str) -> Option<Vec<u128>> {
    if let Some((version, _)) = name.strip_prefix(['V', 'U']).and_then(|rest| rest.split_once("__")) {
        let mut parts = version.split(['.', '_']).map(|part| part.parse().ok()).collect::<Option<Vec<u128>>>()?;
        // 1 and 1.0 are one version.
        while parts.len() > 1 && parts.last() == Some(&0) {
            parts.pop();
        }
        return Some(parts);
    }
    let stamp: &str = &name[..name.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(name.len())];
    let digits: String = stamp.chars().filter(char::is_ascii_digit).collect();
    // Fewer digits than a date: the dash is a separator, as in `01-name`.
    let front = if digits.len() >= 8 { digits.as_str() } else { stamp.split('-').next().unwrap_or_default() };
    if !front.is_empty() {
        return front.parse().ok().map(|n| vec![n]);
    }
    let back = &name[name.trim_end_matches(|c: char| c.is_ascii_digit()).len()..];
    (back.len() == 13).then(|| back.parse().ok().map(|n| vec![n])).flatten()
}

#[cfg(test)]
mod tests {
    use super::{
        super::past::{Applied, Tool},
        *,
    };

    fn past(applied: Vec<Applied>) -> Past {
        Past { applied, ..Past::new(Tool::Sqlx, "t") }
    }

    fn number(n: u128) -> Applied {
        Applied::one(n.to_string(), vec![Key::Numbers(vec![n])])
    }

    fn name(n: &str) -> Applied {
        Applied::one(n, vec![Key::Name(n.to_owned())])
    }

    #[track_caller]
    fn check(applied: Vec<Applied>, names: &[&str], want: Result<u32, &str>) {
        let got = map(&past(applied), &Names::new(names.to_vec())).map(|m| m.version).map_err(|why| why.to_string());
        assert_eq!(got.as_ref().map_err(String::as_str), want.as_ref().map_err(|w| *w), "{names:?}");
    }

    #[test]
    fn numbers_and_stamps_find_their_migration_however_the_tool_writes_them() {
        let numbered = ["0001_init", "0002_more", "0010_last"];
        check(vec![number(1), number(2)], &numbered, Ok(2));
        check(vec![number(2), number(10), number(1)], &numbered, Ok(3));
        check(vec![number(20180113205510)], &["2018-01-13-205510_create"], Ok(1));
        check(vec![number(1)], &["01-name", "02-name"], Ok(1));
        check(vec![number(1700000000000)], &["Init1700000000000", "More1700000000001"], Ok(1));
        check(vec![Applied::one("1.2", vec![Key::Numbers(vec![1, 2])])], &["V1.2__init"], Ok(1));
        check(vec![Applied::up_to("2", vec![Key::Numbers(vec![2])])], &numbered, Ok(2));
        check(vec![], &numbered, Ok(0));
    }

    #[test]
    fn names_find_theirs_whole_or_behind_a_number() {
        check(vec![name("V1__init")], &["V1__init", "V2__more"], Ok(1));
        check(vec![name("0001_initial"), name("0002_more")], &["0001_initial", "0002_more"], Ok(2));
        check(vec![name("notes_0001_initial")], &["0001_notes_0001_initial", "0002_tags_0001_initial"], Ok(1));
        check(vec![Applied::up_to("ae10", vec![Key::Word("ae10".into())])], &["0001_1b2c_init", "0002_ae10_more", "0003_ffff_x"], Ok(2));
        check(
            vec![name("notial")],
            &["0001_initial"],
            Err("none of the 1 migrations that are applied is in the accepted chain (the first is notial)"),
        );
    }

    #[test]
    fn what_is_ahead_left_out_or_ambiguous_is_refused() {
        let names = ["0001_a", "0002_b", "0003_b"];
        check(vec![number(1), number(3)], &names, Err("0003_b is applied and 0002_b before it is not"));
        check(vec![number(1), number(7)], &names, Err("7 is applied, and the accepted chain does not have it"));
        check(vec![name("b")], &names, Err("b could be 0002_b or 0003_b of the chain"));
    }

    #[test]
    fn a_part_that_the_chain_does_not_speak_of_is_passed_over() {
        let grouped = |id: &str, group: &str| Applied { group: Some(group.to_owned()), ..name(id) };
        let mapped =
            map(&past(vec![grouped("auth_0001_user", "auth"), grouped("notes_0001_initial", "notes")]), &Names::new(vec!["0001_notes_0001_initial"]));
        assert_eq!(mapped, Ok(Mapped { version: 1, passed_over: vec!["auth_0001_user".into()] }));
        check(
            vec![grouped("notes_0001_initial", "notes"), grouped("notes_0002_x", "notes")],
            &["0001_notes_0001_initial"],
            Err("notes_0002_x is applied, and the accepted chain does not have it"),
        );
    }
}
