//! The file that is passed round until enough have signed: the document, and the root that says who has to.
//!
//! Each signs on their own machine, in any order; nobody needs the network. It holds nothing secret.

use std::{collections::BTreeMap, io::Write, path::Path};

use serde::{Deserialize, Serialize};
use whimbrel_keys::verify;
use whimbrel_shared::tuf::{Envelope, KeyId, PublicKey, Role, RoleKeys, Root, SignedTargets};

use super::{SignError, hand::Hand};

/// The `format` of such a file.
pub const FORMAT: &str = "whimbrel.signing/1";
/// Largest that is read: targets metadata and a root.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// The file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Round {
    format: String,
    /// The root that is trusted before the document; none for the first root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<Envelope>,
    /// What is signed.
    document: Envelope,
}

/// What it is.
#[derive(Clone, Debug)]
pub enum Content {
    /// A root.
    Root(Box<Root>),
    /// Targets.
    Targets(Box<SignedTargets>),
}

/// Keys of which some have to sign, and which have.
#[derive(Clone, Debug, Serialize)]
pub struct Need {
    /// Which root asks for it.
    pub by_root: u64,
    /// Whose keys they are.
    pub role: Role,
    /// How many.
    pub threshold: u32,
    /// How many more.
    pub missing: u32,
    /// Each key, and whether it has signed.
    pub keys: BTreeMap<KeyId, bool>,
    #[serde(skip)]
    public: Vec<PublicKey>,
}

impl Round {
    /// A document that nobody has signed. `root`: the one that says who has to; none for the first root, which says it itself.
    pub fn new(document: Envelope, root: Option<Envelope>) -> Self {
        Self { format: FORMAT.to_owned(), root, document }
    }

    /// The document, with the signatures so far.
    pub fn document(&self) -> &Envelope {
        &self.document
    }

    /// The root before it.
    pub fn before(&self) -> Result<Option<Root>, SignError> {
        let root = self.root.as_ref().map(Envelope::document::<Root>).transpose();
        root.map_err(|e| SignError::Root(e.into()))
    }

    /// What it is.
    pub fn content(&self) -> Result<Content, SignError> {
        let wrong = |e| SignError::Root(whimbrel_shared::tuf::RootError::NotADocument(e));
        match self.document.role() {
            Some(Role::Root) => Ok(Content::Root(Box::new(self.document.document().map_err(wrong)?))),
            _ => Ok(Content::Targets(Box::new(self.document.document().map_err(wrong)?))),
        }
    }

    /// Who has to sign: for a root enough of the old keys and enough of the new ones, for targets enough publishers.
    pub fn needs(&self) -> Result<Vec<Need>, SignError> {
        let before = self.before()?;
        Ok(match self.content()? {
            Content::Root(root) => {
                root.check()?;
                let old = before.iter().map(|old| need(old, Role::Root, &self.document));
                old.chain([need(&root, Role::Root, &self.document)]).collect()
            }
            Content::Targets(_) => match before {
                Some(root) => vec![need(&root, Role::Targets, &self.document)],
                None => return Err(SignError::Draft("there is no root in it that says who has to sign".to_owned())),
            },
        })
    }

    /// How many signatures are missing still.
    pub fn missing(&self) -> Result<u32, SignError> {
        Ok(self.needs()?.iter().map(|need| need.missing).max().unwrap_or(0))
    }

    /// Adds a signature. Answers whose it is.
    pub fn sign(&mut self, hand: &Hand) -> Result<KeyId, SignError> {
        self.sign_if(hand, |_| Ok(()))
    }

    /// Adds a signature, if `knows` lets the owner of the key sign. A command tells whose key it has by its signature alone; one that is
    /// refused goes nowhere.
    pub fn sign_if(&mut self, hand: &Hand, knows: impl FnOnce(&PublicKey) -> Result<(), SignError>) -> Result<KeyId, SignError> {
        let needs = self.needs()?;
        let mut wanted: Vec<PublicKey> = needs.into_iter().flat_map(|need| need.public).collect();
        wanted.sort_by_key(PublicKey::id);
        wanted.dedup();
        let (key, signature) = hand.sign(&self.document.payload(), &wanted, &self.title()?)?;
        knows(&key)?;
        self.document.add(&key, signature);
        Ok(key.id())
    }

    /// What it is, in a few words.
    pub fn title(&self) -> Result<String, SignError> {
        Ok(match self.content()? {
            Content::Root(root) => format!("root version {} of {}", root.version, root.app),
            Content::Targets(targets) => format!("targets version {} of {}, {} migrations", targets.version, targets.app, targets.targets.len()),
        })
    }

    /// Reads one, or a bare document as a repository has it.
    pub fn read(path: &Path) -> Result<Self, SignError> {
        let not = |why: String| SignError::NotARound { path: path.to_owned(), why };
        let size_bytes = std::fs::metadata(path).map_err(|e| not(e.to_string()))?.len();
        if size_bytes > MAX_BYTES {
            return Err(not(format!("it has {size_bytes} bytes; at most {MAX_BYTES} are read")));
        }
        let bytes = std::fs::read(path).map_err(|e| not(e.to_string()))?;
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| not(e.to_string()))?;
        let round = match value.get("format") {
            Some(_) => serde_json::from_value(value).map_err(|e| not(e.to_string()))?,
            None => Self::new(serde_json::from_value(value).map_err(|e| not(e.to_string()))?, None),
        };
        if round.format != FORMAT {
            return Err(not(format!("it is of format {:?}, and this whimbrel reads {FORMAT:?}", round.format)));
        }
        round.content()?;
        Ok(round)
    }

    /// Writes it in place of what was there: whole, or not at all.
    pub fn write(&self, path: &Path) -> Result<(), SignError> {
        let mut text = serde_json::to_vec_pretty(self).expect("it has text keys");
        text.push(b'\n');
        replace(path, &text)
    }
}

/// Writes a file in place of what was there: whole, or not at all.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), SignError> {
    let failed = |source| SignError::Write { path: path.to_owned(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let written = std::fs::File::create(&part).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.and_then(|()| std::fs::rename(&part, path)).map_err(failed)
}

fn need(root: &Root, role: Role, document: &Envelope) -> Need {
    let signed = root.signed_by(role, document, verify);
    let RoleKeys { keyids, threshold } = root.roles.of(role);
    Need {
        by_root: root.version,
        role,
        threshold: *threshold,
        missing: root.roles.of(role).missing(&signed),
        keys: keyids.iter().map(|id| (*id, signed.contains(id))).collect(),
        public: keyids.iter().filter_map(|id| root.keys.get(id)).copied().collect(),
    }
}

#[cfg(test)]
mod tests {
    use whimbrel_keys::SigningKey;
    use whimbrel_shared::tuf::root::accept;

    use super::*;
    use crate::publish::sign::draft::{Changes, draft, tests::online};

    fn key(n: u8) -> SigningKey {
        SigningKey::from_seed(&[n; 32])
    }

    fn changes(root: &[u8], threshold: u32) -> Changes {
        Changes {
            add_root: root.iter().map(|n| key(*n).public()).collect(),
            root_threshold: Some(threshold),
            add_publishers: vec![key(9).public()],
            ..Changes::default()
        }
    }

    #[test]
    fn people_sign_one_after_another_and_each_sees_how_many_are_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.json");
        let root = draft(&"notes".parse().unwrap(), None, &changes(&[1, 2, 3], 2), &online(), 0).unwrap();
        Round::new(Envelope::new(&root).unwrap(), None).write(&path).unwrap();
        for (hand, missing) in [(2, 1), (2, 1), (1, 0)] {
            let mut round = Round::read(&path).unwrap();
            round.sign(&Hand::Key(key(hand))).unwrap();
            round.write(&path).unwrap();
            assert_eq!(Round::read(&path).unwrap().missing().unwrap(), missing);
        }
        let round = Round::read(&path).unwrap();
        accept(&round.document().to_bytes(), None, verify).unwrap();
        let error = round.clone().sign(&Hand::Key(key(9))).unwrap_err();
        assert!(matches!(error, SignError::NotAsked { .. }), "{error}");

        // The next: key 1 goes, key 4 comes. Two of the old and two of the new.
        let next = Changes { remove: vec![key(1).public().id()], add_root: vec![key(4).public()], ..Changes::default() };
        let next = draft(&"notes".parse().unwrap(), Some(&root), &next, &online(), 0).unwrap();
        let mut second = Round::new(Envelope::new(&next).unwrap(), Some(round.document().clone()));
        for (hand, missing) in [(4, 2), (2, 1), (3, 0)] {
            second.sign(&Hand::Key(key(hand))).unwrap();
            assert_eq!(second.missing().unwrap(), missing, "after {hand}");
        }
        accept(&second.document().to_bytes(), Some(&root), verify).unwrap();
        // The one that is revoked may still sign for the old root, and counts there alone.
        let mut other = Round::new(Envelope::new(&next).unwrap(), Some(round.document().clone()));
        other.sign(&Hand::Key(key(1))).unwrap();
        let missing: Vec<u32> = other.needs().unwrap().iter().map(|n| n.missing).collect();
        assert_eq!(missing, [1, 2]);
    }
}
