//! What becomes of a row's outbox entry once it is known what the row holds now. Pure.
//!
//! The journal says only where to look. A row that is there is an insert, or an edit of the columns whose hash is not the
//! recorded one; a row that is not there is a delete, if the server may have it.

use super::{
    rows::{Columns, Hashes},
    shape::bit,
};
use crate::store::outbox::{Deed, Edit, Entry, Recorded, Sent, Stamp};

/// What the journal says of one row since it was last folded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// The last time that it was noted without saying which columns.
    whole: Option<Stamp>,
    /// Columns, and when they were last noted. No bit is in two of them.
    masks: Vec<(i64, Stamp)>,
    /// The last of all.
    last: Stamp,
    source: Source,
}

/// How it came to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// The journal named it.
    Journal,
    /// A sweep came by; with `missed`, edits may have gone without a note.
    Sweep { missed: bool },
}

impl Touch {
    /// One note. A mask that is not positive names no columns.
    pub fn new(mask: i64, stamp: Stamp) -> Self {
        let mut touch = Self { whole: None, masks: Vec::new(), last: stamp, source: Source::Journal };
        touch.add(mask, stamp);
        touch
    }

    /// No note: a sweep compares the row. `missed`: edits may have gone without a note before it.
    pub fn swept(stamp: Stamp, missed: bool) -> Self {
        Self { whole: Some(stamp), masks: Vec::new(), last: stamp, source: Source::Sweep { missed } }
    }

    /// A later note.
    pub fn add(&mut self, mask: i64, stamp: Stamp) {
        self.last = stamp;
        if mask <= 0 {
            self.whole = Some(stamp);
            return;
        }
        self.masks.retain_mut(|(older, _)| {
            *older &= !mask;
            *older != 0
        });
        self.masks.push((mask, stamp));
    }

    /// When a column was last touched, if it was named.
    fn named(&self, column: u32) -> Option<Stamp> {
        self.masks.iter().find(|(mask, _)| mask & bit(column) != 0).map(|(_, stamp)| *stamp)
    }

    /// When a column was last touched, as far as is known.
    fn touched(&self, column: u32) -> Option<Stamp> {
        self.named(column).or(self.whole)
    }

    /// Whether a column of which nothing is recorded counts as edited: somebody may have written there.
    fn counts_unknown(&self, column: u32) -> bool {
        match self.source {
            Source::Journal => self.touched(column).is_some(),
            Source::Sweep { missed } => missed,
        }
    }

    /// An edit that is known, after this.
    fn again(&self, edit: &Edit, stamp: Stamp, derived: bool) -> Edit {
        let sent = match (edit.sent, self.source) {
            // A sweep knows no better when it was made; and where every edit was noted, there is none since it was sent.
            (Sent::Never, Source::Sweep { .. }) | (_, Source::Sweep { missed: false }) => return edit.clone(),
            (Sent::Never, Source::Journal) => Sent::Never,
            (Sent::As(_) | Sent::EditedSince, _) => Sent::EditedSince,
        };
        Edit { base: edit.base, stamp, sent, derived: edit.derived && derived, columns: edit.columns.clone() }
    }
}

/// What has to be read of the row for [`settle`].
pub fn needed(touch: &Touch, recorded: Option<&Recorded>, entry: Option<&Entry>) -> Columns {
    let was_deleted = entry.is_some_and(|e| e.deed == Deed::Delete);
    match recorded {
        // All of it is sent: what it holds now does not matter yet.
        None => Columns::Presence,
        Some(recorded) if touch.whole.is_some() || was_deleted || recorded.gone => Columns::All,
        Some(_) => Columns::Mask(touch.masks.iter().fold(0, |all, (mask, _)| all | mask)),
    }
}

/// The entry after it. `now`: the hashes that [`needed`] asked for, none where the row is gone. `tracked`: ids of all
/// columns, ascending. `derived`: what changed was changed by the application's triggers while remote rows landed.
pub fn settle(
    touch: &Touch,
    recorded: Option<&Recorded>,
    entry: Option<Entry>,
    now: Option<&Hashes>,
    tracked: &[u32],
    derived: bool,
) -> Option<Entry> {
    let Some(now) = now else { return absent(touch, recorded, entry, derived) };
    let Some(recorded) = recorded else { return Some(inserted(touch, entry, tracked, derived)) };
    let base = Some(recorded.version);
    // The server deleted it, and here it was made anew: all of it is sent.
    if recorded.gone && entry.as_ref().is_none_or(|e| e.deed == Deed::Delete) {
        let sent = if entry.is_some_and(|e| e.was_sent()) { Sent::EditedSince } else { Sent::Never };
        return Some(Entry { deed: Deed::Edit, edits: vec![Edit { base, stamp: touch.last, sent, derived, columns: tracked.to_vec() }] });
    }
    let (was, mut edits) = match entry {
        Some(Entry { deed: Deed::Delete, edits }) => {
            // A delete that was sent may have been accepted: then the server has nothing to which a part could be added.
            if edits.iter().any(|e| e.sent != Sent::Never) {
                return Some(Entry {
                    deed: Deed::Edit,
                    edits: vec![Edit { base, stamp: touch.last, sent: Sent::EditedSince, derived, columns: tracked.to_vec() }],
                });
            }
            (Deed::Edit, Vec::new())
        }
        Some(Entry { deed, edits }) => (deed, edits),
        None => (Deed::Edit, Vec::new()),
    };
    let mut columns = Flat::of(std::mem::take(&mut edits));
    for (id, hash) in now {
        let touched = touch.touched(*id);
        // What a migration gave to a column that is new is not recorded, and is no edit until somebody writes there.
        let known = recorded.hash(*id);
        let changed = recorded.gone || known.map_or_else(|| touch.counts_unknown(*id), |known| known != *hash);
        match columns.position(*id) {
            None if changed => {
                columns.insert(*id, Edit { base, stamp: touched.unwrap_or(touch.last), sent: Sent::Never, derived, columns: Vec::new() })
            }
            None => {}
            Some(at) => {
                let edit = &mut columns.0[at].1;
                // Where nothing is known of the value, a migration carried the edit here, and nothing says that it was undone.
                if !changed && known.is_some() && edit.sent == Sent::Never {
                    columns.0.remove(at);
                } else if let Some(stamp) = touched {
                    *edit = touch.again(edit, stamp, derived);
                }
            }
        }
    }
    let edits = columns.into_edits();
    (!edits.is_empty()).then_some(Entry { deed: was, edits })
}

/// Edits column by column, by id; the `columns` of each are empty.
pub(in crate::sync) struct Flat(pub(in crate::sync) Vec<(u32, Edit)>);

impl Flat {
    pub(in crate::sync) fn of(edits: Vec<Edit>) -> Self {
        let each = |edit: Edit| edit.columns.clone().into_iter().map(move |id| (id, Edit { columns: Vec::new(), ..edit.clone() }));
        let mut flat: Vec<_> = edits.into_iter().flat_map(each).collect();
        flat.sort_unstable_by_key(|(id, _)| *id);
        Self(flat)
    }

    fn position(&self, column: u32) -> Option<usize> {
        self.0.binary_search_by_key(&column, |(id, _)| *id).ok()
    }

    fn insert(&mut self, column: u32, edit: Edit) {
        let at = self.0.partition_point(|(id, _)| *id < column);
        self.0.insert(at, (column, edit));
    }

    /// Those that are alike in one.
    pub(in crate::sync) fn into_edits(self) -> Vec<Edit> {
        let mut edits: Vec<Edit> = Vec::new();
        for (id, edit) in self.0 {
            let alike = |e: &&mut Edit| (e.base, e.stamp, e.sent, e.derived) == (edit.base, edit.stamp, edit.sent, edit.derived);
            match edits.iter_mut().find(alike) {
                Some(group) => group.columns.push(id),
                None => edits.push(Edit { columns: vec![id], ..edit }),
            }
        }
        edits
    }
}

/// The server never had the row: it is sent as a whole.
fn inserted(touch: &Touch, entry: Option<Entry>, tracked: &[u32], derived: bool) -> Entry {
    let whole = |sent: Sent| Edit { base: None, stamp: touch.last, sent, derived, columns: tracked.to_vec() };
    let edits = match entry {
        // All of its columns are in the key, or were when it was first seen.
        Some(Entry { deed: Deed::Insert, edits }) if edits.iter().all(|e| e.columns.is_empty()) => {
            let again = touch.again(&edits[0], touch.last, derived);
            vec![Edit { columns: tracked.to_vec(), ..again }]
        }
        Some(Entry { deed: Deed::Insert, edits }) => {
            let mut columns = Flat::of(edits);
            for id in tracked {
                match (columns.position(*id), touch.touched(*id)) {
                    (Some(at), Some(stamp)) => columns.0[at].1 = touch.again(&columns.0[at].1, stamp, derived),
                    (Some(_), None) => {}
                    // A migration gave it to the row after the row was inserted.
                    (None, _) => columns.insert(*id, Edit { columns: Vec::new(), ..whole(Sent::Never) }),
                }
            }
            columns.into_edits()
        }
        Some(before) if before.was_sent() => vec![whole(Sent::EditedSince)],
        Some(_) | None => vec![whole(Sent::Never)],
    };
    Entry { deed: Deed::Insert, edits }
}

/// The row is gone.
fn absent(touch: &Touch, recorded: Option<&Recorded>, entry: Option<Entry>, derived: bool) -> Option<Entry> {
    let sent = match &entry {
        // It is gone already; that it may be gone is no second delete.
        Some(Entry { deed: Deed::Delete, .. }) => return entry,
        Some(before) if before.was_sent() => Sent::EditedSince,
        _ => Sent::Never,
    };
    // Neither the server nor anybody else has heard of it, or the server deleted it before.
    if recorded.is_none_or(|r| r.gone) && sent == Sent::Never {
        return None;
    }
    let edit = Edit { base: recorded.map(|r| r.version), stamp: touch.last, sent, derived, columns: Vec::new() };
    Some(Entry { deed: Deed::Delete, edits: vec![edit] })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACKED: [u32; 3] = [2, 3, 70];

    fn stamp(seq: i64) -> Stamp {
        Stamp { wall_ms: seq * 10, boot: 1, seq }
    }

    fn edit(seq: i64, sent: Sent, columns: &[u32]) -> Edit {
        Edit { base: Some(5), stamp: stamp(seq), sent, derived: false, columns: columns.to_vec() }
    }

    fn entry(deed: Deed, edits: &[Edit]) -> Option<Entry> {
        Some(Entry { deed, edits: edits.to_vec() })
    }

    /// The server has version 5, with the value 0 in columns 2 and 3, and nothing recorded of 70.
    fn known() -> Recorded {
        Recorded { version: 5, hashes: vec![(2, 0), (3, 0)], gone: false, untold: false }
    }

    fn mask(columns: &[u32]) -> i64 {
        columns.iter().fold(0, |mask, id| mask | bit(*id))
    }

    #[test]
    fn a_row_that_the_server_never_had_is_an_insert_and_vanishes_with_its_row() {
        let touch = Touch::new(mask(&TRACKED), stamp(1));
        assert_eq!(needed(&touch, None, None), Columns::Presence);
        let inserted = settle(&touch, None, None, Some(&vec![]), &TRACKED, false);
        assert_eq!(inserted, entry(Deed::Insert, &[Edit { base: None, ..edit(1, Sent::Never, &TRACKED) }]));
        assert_eq!(settle(&Touch::new(-2, stamp(2)), None, inserted.clone(), None, &TRACKED, false), None);
        // Once it was sent, the server may have it.
        let sent = entry(Deed::Insert, &[Edit { base: None, ..edit(1, Sent::As(9), &TRACKED) }]);
        let gone = settle(&Touch::new(-2, stamp(2)), None, sent, None, &TRACKED, false);
        assert_eq!(gone, entry(Deed::Delete, &[Edit { base: None, ..edit(2, Sent::EditedSince, &[]) }]));
        let back = settle(&touch, None, gone, Some(&vec![]), &TRACKED, false);
        assert_eq!(back, entry(Deed::Insert, &[Edit { base: None, ..edit(1, Sent::EditedSince, &TRACKED) }]));
    }

    #[test]
    fn columns_are_dirty_by_their_hashes_with_the_time_they_were_named() {
        let mut touch = Touch::new(mask(&[2]), stamp(1));
        touch.add(mask(&[3]), stamp(2));
        touch.add(-2, stamp(3));
        assert_eq!(needed(&touch, Some(&known()), None), Columns::All);
        let now = vec![(2, 7), (3, 7), (70, 7)];
        let settled = settle(&touch, Some(&known()), None, Some(&now), &TRACKED, false);
        assert_eq!(settled, entry(Deed::Edit, &[edit(1, Sent::Never, &[2]), edit(2, Sent::Never, &[3]), edit(3, Sent::Never, &[70])]));
    }

    #[test]
    fn an_edit_that_was_undone_waits_only_if_it_was_sent() {
        let touch = Touch::new(mask(&[2]), stamp(4));
        assert_eq!(needed(&touch, Some(&known()), None), Columns::Mask(mask(&[2])));
        let undone = vec![(2, 0)];
        let unsent = entry(Deed::Edit, &[edit(1, Sent::Never, &[2])]);
        assert_eq!(settle(&touch, Some(&known()), unsent, Some(&undone), &TRACKED, false), None);
        let sent = entry(Deed::Edit, &[edit(1, Sent::As(9), &[2, 3])]);
        let after = settle(&touch, Some(&known()), sent, Some(&undone), &TRACKED, false);
        assert_eq!(after, entry(Deed::Edit, &[edit(4, Sent::EditedSince, &[2]), edit(1, Sent::As(9), &[3])]));
    }

    #[test]
    fn the_base_stays_what_it_was_when_the_column_first_became_dirty() {
        let touch = Touch::new(mask(&[2, 3]), stamp(4));
        let newer = Recorded { version: 8, ..known() };
        let before = entry(Deed::Edit, &[edit(1, Sent::Never, &[2])]);
        let after = settle(&touch, Some(&newer), before, Some(&vec![(2, 7), (3, 7)]), &TRACKED, false);
        let third = Edit { base: Some(8), ..edit(4, Sent::Never, &[3]) };
        assert_eq!(after, entry(Deed::Edit, &[edit(4, Sent::Never, &[2]), third]));
    }

    #[test]
    fn a_delete_is_noted_once_and_undone_by_the_row_coming_back() {
        let touch = Touch::new(-2, stamp(4));
        let gone = settle(&touch, Some(&known()), None, None, &TRACKED, false);
        assert_eq!(gone, entry(Deed::Delete, &[edit(4, Sent::Never, &[])]));
        assert_eq!(settle(&Touch::new(-2, stamp(5)), Some(&known()), gone.clone(), None, &TRACKED, false), gone);
        let back = Touch::new(mask(&TRACKED), stamp(6));
        assert_eq!(needed(&back, Some(&known()), gone.as_ref()), Columns::All);
        let same = vec![(2, 0), (3, 0)];
        assert_eq!(settle(&back, Some(&known()), gone, Some(&same), &TRACKED, false), None);
        // The server may have deleted it: then all of it is sent.
        let sent = entry(Deed::Delete, &[edit(4, Sent::As(9), &[])]);
        assert_eq!(settle(&back, Some(&known()), sent, Some(&same), &TRACKED, false), entry(Deed::Edit, &[edit(6, Sent::EditedSince, &TRACKED)]));
    }

    #[test]
    fn a_sweep_finds_what_differs_and_leaves_what_is_known() {
        let known_dirty = entry(Deed::Edit, &[edit(1, Sent::Never, &[2])]);
        let now = vec![(2, 7), (3, 7), (70, 7)];
        let routine = settle(&Touch::swept(stamp(9), false), Some(&known()), known_dirty.clone(), Some(&now), &TRACKED, false);
        assert_eq!(routine, entry(Deed::Edit, &[edit(1, Sent::Never, &[2]), edit(9, Sent::Never, &[3])]));
        let missed = settle(&Touch::swept(stamp(9), true), Some(&known()), known_dirty, Some(&now), &TRACKED, false);
        assert_eq!(missed, entry(Deed::Edit, &[edit(1, Sent::Never, &[2]), edit(9, Sent::Never, &[3, 70])]));
    }

    #[test]
    fn an_edit_that_a_migration_carried_to_a_column_of_which_nothing_is_known_stays_one() {
        let carried = entry(Deed::Edit, &[edit(1, Sent::Never, &[70])]);
        let swept = settle(&Touch::swept(stamp(9), false), Some(&known()), carried.clone(), Some(&vec![(2, 0), (3, 0), (70, 7)]), &TRACKED, false);
        assert_eq!(swept, carried);
        assert_eq!(settle(&Touch::new(mask(&[2]), stamp(9)), Some(&known()), carried.clone(), Some(&vec![(2, 0)]), &TRACKED, false), carried);
    }

    #[test]
    fn a_row_that_is_all_key_is_an_insert_without_columns() {
        let inserted = settle(&Touch::new(mask(&[1]), stamp(1)), None, None, Some(&vec![]), &[], false);
        assert_eq!(inserted, entry(Deed::Insert, &[Edit { base: None, ..edit(1, Sent::Never, &[]) }]));
        let again = settle(&Touch::new(mask(&[1]), stamp(2)), None, inserted, Some(&vec![]), &[], false);
        assert_eq!(again, entry(Deed::Insert, &[Edit { base: None, ..edit(2, Sent::Never, &[]) }]));
    }

    #[test]
    fn what_triggers_made_while_rows_landed_is_derived_until_the_application_edits_it() {
        let now = vec![(2, 7)];
        let derived = settle(&Touch::new(mask(&[2]), stamp(1)), Some(&known()), None, Some(&now), &TRACKED, true);
        assert!(derived.as_ref().unwrap().edits[0].derived);
        let edited = settle(&Touch::new(mask(&[2]), stamp(2)), Some(&known()), derived, Some(&now), &TRACKED, false);
        assert!(!edited.unwrap().edits[0].derived);
    }
}
