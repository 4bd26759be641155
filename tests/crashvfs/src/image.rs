//! What a disk may hold after the power went at some point of a log. Pure.

use std::{collections::BTreeMap, sync::Arc};

use fastrand::Rng;

use crate::log::{Files, Op};

/// Bytes that a disk writes at once, or not.
const SECTOR_BYTES: usize = 512;

/// The disk at one point of a log: what is safe, and what waits to be.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    /// Contents. A name that was deleted and made again has another one.
    contents: Vec<Content>,
    names: BTreeMap<Arc<str>, Name>,
    steps: usize,
}

#[derive(Clone, Debug, Default)]
struct Content {
    safe: Vec<u8>,
    waiting: Vec<(usize, Change)>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Size(usize),
}

#[derive(Clone, Debug, Default)]
struct Name {
    /// Which content it stands for; none when there is no such file.
    safe: Option<usize>,
    waiting: Vec<(usize, Option<usize>)>,
}

/// What of that which waits is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: the process died, and the system did not.
    Nothing,
    /// The end of the last write, in the middle of its last sector.
    EndOfLast,
    /// All of it.
    Everything,
    /// All but the last change: it overtook the others.
    AllButLast,
    /// All but what was done to this file.
    AllBut(Arc<str>),
    /// What was done to this file.
    Only(Arc<str>),
    /// Each sector, length and name as the dice fall.
    Dice(u64),
    /// As `Dice`, and one sector in ten is torn: its beginning is there, and its end is anything.
    DiceAndTorn(u64),
}

/// What becomes of a change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Lost,
    Cut,
    Dice,
}

impl Moment {
    /// A disk on which all of `base` is safe.
    pub fn of(base: &Files) -> Self {
        let mut moment = Self::default();
        for (name, bytes) in base {
            moment.contents.push(Content { safe: bytes.clone(), waiting: Vec::new() });
            moment.names.insert(name.as_str().into(), Name { safe: Some(moment.contents.len() - 1), waiting: Vec::new() });
        }
        moment
    }

    /// The next operation is done.
    pub fn step(&mut self, op: &Op) {
        let at = self.steps;
        self.steps += 1;
        match op {
            Op::Create { file } => {
                self.contents.push(Content::default());
                let content = self.contents.len() - 1;
                self.names.entry(file.clone()).or_default().waiting.push((at, Some(content)));
            }
            Op::Delete { file } => self.names.entry(file.clone()).or_default().waiting.push((at, None)),
            Op::Write { file, offset, bytes } => {
                self.content(file).waiting.push((at, Change::Write { offset: *offset, bytes: bytes.clone() }));
            }
            Op::Truncate { file, size } => self.content(file).waiting.push((at, Change::Size(*size))),
            Op::Sync { file } => {
                let content = self.content(file);
                for (_, change) in std::mem::take(&mut content.waiting) {
                    change.make(&mut content.safe);
                }
            }
            Op::SyncFolder => {
                for name in self.names.values_mut() {
                    if let Some((_, last)) = name.waiting.drain(..).next_back() {
                        name.safe = last;
                    }
                }
            }
            Op::Commit => {}
        }
    }

    /// The ways to lose what waits now that are worth a look: the whole, each file, the order, and `dice` throws.
    pub fn losses(&self, dice: usize) -> Vec<Loss> {
        let mut losses = vec![Loss::Nothing];
        let waiting = self.waiting();
        let Some(last) = waiting.iter().max() else { return losses };
        losses.push(Loss::Everything);
        if self.names.values().filter_map(Name::now).flat_map(|c| &self.contents[c].waiting).any(|(at, _)| at == last) {
            losses.push(Loss::EndOfLast);
        }
        if waiting.len() > 1 {
            losses.push(Loss::AllButLast);
            let files: Vec<_> = self.names.iter().filter(|(_, n)| self.waits(n)).map(|(file, _)| file.clone()).collect();
            if files.len() > 1 {
                losses.extend(files.iter().cloned().map(Loss::AllBut));
                losses.extend(files.into_iter().map(Loss::Only));
            }
        }
        // Other dice at every point of the log.
        let seed = |n: usize| (self.steps as u64) << 16 | n as u64;
        losses.extend((0..dice).map(|n| if n % 2 == 0 { Loss::Dice(seed(n)) } else { Loss::DiceAndTorn(seed(n)) }));
        losses
    }

    /// The files that are found when the power comes back.
    pub fn after(&self, loss: &Loss) -> Files {
        let last = self.waiting().into_iter().max();
        let (mut rng, torn) = match loss {
            Loss::Dice(seed) => (Rng::with_seed(*seed), false),
            Loss::DiceAndTorn(seed) => (Rng::with_seed(*seed), true),
            _ => (Rng::with_seed(0), false),
        };
        let fate = |file: &Arc<str>, at: usize| match loss {
            Loss::Nothing => Fate::Kept,
            Loss::EndOfLast if Some(at) == last => Fate::Cut,
            Loss::EndOfLast => Fate::Kept,
            Loss::Everything => Fate::Lost,
            Loss::AllButLast => if_kept(Some(at) == last),
            Loss::AllBut(kept) => if_kept(kept == file),
            Loss::Only(lost) => if_kept(lost != file),
            Loss::Dice(_) | Loss::DiceAndTorn(_) => Fate::Dice,
        };
        let mut files = Files::new();
        for (file, name) in &self.names {
            let mut stands_for = name.safe;
            for (at, next) in &name.waiting {
                match fate(file, *at) {
                    Fate::Kept | Fate::Cut => stands_for = *next,
                    // What came later to one name is not known before what came earlier.
                    Fate::Dice if rng.bool() => stands_for = *next,
                    Fate::Dice | Fate::Lost => break,
                }
            }
            let Some(content) = stands_for.map(|c| &self.contents[c]) else { continue };
            let mut bytes = content.safe.clone();
            for (at, change) in &content.waiting {
                match fate(file, *at) {
                    Fate::Kept => change.make(&mut bytes),
                    Fate::Cut => change.make_cut(&mut bytes),
                    Fate::Dice => change.make_by_dice(&mut bytes, &mut rng, torn),
                    Fate::Lost => {}
                }
            }
            files.insert(file.to_string(), bytes);
        }
        files
    }

    fn content(&mut self, file: &Arc<str>) -> &mut Content {
        let content = self.names.get(file).and_then(Name::now).expect("what is written to was created");
        &mut self.contents[content]
    }

    fn waits(&self, name: &Name) -> bool {
        !name.waiting.is_empty() || name.now().is_some_and(|c| !self.contents[c].waiting.is_empty())
    }

    /// When each change that waits was made.
    fn waiting(&self) -> Vec<usize> {
        let contents = self.names.values().filter_map(Name::now).flat_map(|c| &self.contents[c].waiting).map(|(at, _)| *at);
        contents.chain(self.names.values().flat_map(|n| &n.waiting).map(|(at, _)| *at)).collect()
    }
}

impl Name {
    /// What it stands for as long as the system lives.
    fn now(&self) -> Option<usize> {
        self.waiting.last().map_or(self.safe, |(_, content)| *content)
    }
}

impl Change {
    fn make(&self, file: &mut Vec<u8>) {
        match self {
            Self::Size(size) => file.resize(*size, 0),
            Self::Write { offset, bytes } => put(file, *offset, bytes),
        }
    }

    /// Only up to the middle of the last sector.
    fn make_cut(&self, file: &mut Vec<u8>) {
        match self {
            Self::Size(_) => {}
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                let sector = ((end - 1) / SECTOR_BYTES * SECTOR_BYTES).max(*offset);
                put(file, *offset, &bytes[..(sector - offset) + (end - sector) / 2]);
            }
        }
    }

    fn make_by_dice(&self, file: &mut Vec<u8>, rng: &mut Rng, torn: bool) {
        match self {
            Self::Size(_) if rng.bool() => self.make(file),
            Self::Size(_) => {}
            Self::Write { offset, bytes } => {
                let mut from = 0;
                while from < bytes.len() {
                    let to = (((offset + from) / SECTOR_BYTES + 1) * SECTOR_BYTES - offset).min(bytes.len());
                    match rng.u8(..10) {
                        0 if torn => {
                            let mut sector = bytes[from..to].to_vec();
                            let good = rng.usize(..sector.len());
                            sector[good..].fill_with(|| rng.u8(..));
                            put(file, offset + from, &sector);
                        }
                        1..=5 => put(file, offset + from, &bytes[from..to]),
                        _ => {}
                    }
                    from = to;
                }
            }
        }
    }
}

fn if_kept(kept: bool) -> Fate {
    if kept { Fate::Kept } else { Fate::Lost }
}

fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: &str, offset: usize, bytes: &[u8]) -> Op {
        Op::Write { file: file.into(), offset, bytes: bytes.to_vec() }
    }
    fn create(file: &str) -> Op {
        Op::Create { file: file.into() }
    }
    fn sync(file: &str) -> Op {
        Op::Sync { file: file.into() }
    }

    fn at(ops: &[Op]) -> Moment {
        let mut moment = Moment::of(&Files::from([("old".to_owned(), b"base".to_vec())]));
        ops.iter().for_each(|op| moment.step(op));
        moment
    }

    fn look(moment: &Moment, loss: &Loss) -> String {
        let files = moment.after(loss);
        files.iter().map(|(name, bytes)| format!("{name}={} ", String::from_utf8_lossy(bytes))).collect()
    }

    #[test]
    fn what_was_synced_stays_and_what_was_not_may_go() {
        let moment = at(&[write("old", 0, b"BA"), sync("old"), write("old", 4, b"!!")]);
        assert_eq!(look(&moment, &Loss::Nothing), "old=BAse!! ");
        assert_eq!(look(&moment, &Loss::EndOfLast), "old=BAse! ");
        assert_eq!(look(&moment, &Loss::Everything), "old=BAse ");
        for loss in moment.losses(64) {
            assert!(look(&moment, &loss).starts_with("old=BAse"), "{loss:?}");
        }
    }

    #[test]
    fn a_name_is_safe_with_its_folder_and_a_content_with_its_file() {
        let made = [create("new"), write("new", 0, b"x"), sync("new")];
        assert_eq!(look(&at(&made), &Loss::Everything), "old=base ");
        let named = [&made[..], &[Op::SyncFolder]].concat();
        assert_eq!(look(&at(&named), &Loss::Everything), "new=x old=base ");
        let gone = [&named[..], &[Op::Delete { file: "new".into() }]].concat();
        assert_eq!(look(&at(&gone), &Loss::Everything), "new=x old=base ");
        assert_eq!(look(&at(&gone), &Loss::Nothing), "old=base ");
        // Made anew, and the folder forgets both: the first content is back, not the second.
        let again = [&gone[..], &[create("new"), write("new", 0, b"second"), sync("new")]].concat();
        assert_eq!(look(&at(&again), &Loss::Everything), "new=x old=base ");
        assert_eq!(look(&at(&again), &Loss::Nothing), "new=second old=base ");
    }

    #[test]
    fn a_later_change_may_overtake_an_earlier_one() {
        let moment = at(&[write("old", 0, b"12"), create("new"), write("new", 0, b"n"), write("old", 2, b"34")]);
        assert_eq!(look(&moment, &Loss::AllButLast), "old=ba34 ");
        assert_eq!(look(&moment, &Loss::AllBut("new".into())), "new=n old=base ");
        assert_eq!(look(&moment, &Loss::Only("new".into())), "old=1234 ");
        let seen: std::collections::BTreeSet<_> = moment.losses(200).iter().map(|loss| look(&moment, loss)).collect();
        assert!(seen.contains("new=n old=1234 ") && seen.contains("new= old=ba34 ") && seen.contains("old=12se "), "{seen:?}");
    }
}
