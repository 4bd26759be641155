//! The table of [`super`], line by line, for each strategy.

use SyncConflict::{ClientWins, KeepNewest, KeepOldest, Merge, ServerWins};

use super::*;
use crate::{change::Cell, hlc::Clock};

const ALL: [SyncConflict; 5] = [KeepNewest, KeepOldest, Merge, ServerWins, ClientWins];

fn writer(n: u128) -> Writer {
    Writer { client: ClientId::from_dice(n), epoch: 1 }
}

fn stamp(ms: i64, by: u128) -> Stamp {
    Stamp { clock: Clock::at_ms(ms), client: ClientId::from_dice(by) }
}

/// A row of client 1: columns as (id, text, version, writer, time).
fn row(cells: &[(u32, &str, u64, u128, i64)]) -> State {
    let held = |(column, value, version, by, ms): &(u32, &str, u64, u128, i64)| Held {
        column: *column,
        value: Value::text(value),
        version: *version,
        by: writer(*by),
        stamp: stamp(*ms, *by),
    };
    let version = cells.iter().map(|c| c.2).max().unwrap();
    State { version, origin: writer(1), what: What::Present(cells.iter().map(held).collect()) }
}

fn tombstone(version: u64, by: u128, ms: i64) -> State {
    State { version, origin: writer(1), what: What::Deleted(writer(by), stamp(ms, by)) }
}

/// An edit: columns as (id, text, base, time).
fn edit(seen: u64, cells: &[(u32, &str, u64, i64)]) -> Change {
    let cell = |(column, value, base, ms): &(u32, &str, u64, i64)| Cell {
        column: *column,
        value: Value::text(value),
        base: *base,
        clock: Clock::at_ms(*ms),
    };
    Change { table: 1, key: vec![Value::Integer(7)], edit: Edit::Present { seen, cells: cells.iter().map(cell).collect() } }
}

fn deletion(base: u64, ms: i64) -> Change {
    Change { table: 1, key: vec![Value::Integer(7)], edit: Edit::Deleted { base, clock: Clock::at_ms(ms) } }
}

/// Client 2's change, as version 20.
fn arrives(there: Option<&State>, change: &Change, strategy: SyncConflict) -> Resolved {
    arrives_from(2, there, change, strategy, true, None)
}

fn arrives_from(by: u128, there: Option<&State>, change: &Change, strategy: SyncConflict, whole: bool, keys: Option<Keys>) -> Resolved {
    resolve(there, Arrival { change, by: writer(by), version: 20, whole, strategy, keys })
}

/// The row in short: `1=a 2=b`, `deleted`, or `as it was`.
fn short(resolved: &Resolved) -> String {
    match resolved.state.as_ref() {
        None => "as it was".to_owned(),
        Some(state) if state.is_deleted() => "deleted".to_owned(),
        Some(state) => state.cells().iter().map(|h| format!("{}={:?}", h.column, h.value).replace('"', "")).collect::<Vec<_>>().join(" "),
    }
}

fn answer(resolved: &Resolved) -> String {
    match &resolved.outcome {
        Outcome::Accepted { known: true } => "accepted".to_owned(),
        Outcome::Accepted { known: false } => "behind".to_owned(),
        Outcome::Merged { stands: None } => "merged: deleted".to_owned(),
        Outcome::Merged { stands: Some(cells) } => {
            format!("merged: {}", cells.iter().map(|(c, v)| format!("{c}={v:?}").replace('"', "")).collect::<Vec<_>>().join(" "))
        }
        Outcome::KeyTaken => "key taken".to_owned(),
        Outcome::SendWhole { seen } => format!("send whole, {seen}"),
    }
}

fn check(resolved: Resolved, after: &str, told: &str, conflict: Option<ConflictKind>) {
    let found = (short(&resolved), answer(&resolved), resolved.conflict.as_ref().map(|c| c.kind));
    assert_eq!(found, (after.to_owned(), told.to_owned(), conflict));
}

#[test]
fn an_edit_that_saw_the_current_value_stands_whatever_its_clock_says() {
    let there = row(&[(1, "a", 10, 1, 500), (2, "b", 10, 1, 500)]);
    for strategy in ALL {
        check(arrives(Some(&there), &edit(10, &[(1, "x", 10, 3)]), strategy), "1=x 2=b", "accepted", None);
        check(arrives(Some(&there), &deletion(10, 3), strategy), "deleted", "accepted", None);
        check(arrives(None, &edit(0, &[(1, "x", 0, 3)]), strategy), "1=x", "accepted", None);
        // Another column was changed meanwhile: no conflict, and the file does not know the row.
        let moved = row(&[(1, "a", 10, 1, 500), (2, "b", 12, 3, 900)]);
        check(arrives(Some(&moved), &edit(10, &[(1, "x", 10, 3)]), strategy), "1=x 2=b", "behind", None);
    }
}

#[test]
fn what_a_client_wrote_itself_is_never_in_its_way() {
    // The answer to its last push was lost: its base is older than its own value.
    let own = row(&[(1, "a", 10, 2, 500)]);
    let mut made = own.clone();
    made.origin = writer(2);
    let gone = State { what: What::Deleted(writer(2), stamp(500, 2)), ..own.clone() };
    for strategy in ALL {
        check(arrives(Some(&own), &edit(5, &[(1, "x", 5, 3)]), strategy), "1=x", "accepted", None);
        check(arrives(Some(&made), &edit(0, &[(1, "x", 0, 3)]), strategy), "1=x", "accepted", None);
        check(arrives(Some(&made), &deletion(0, 3), strategy), "deleted", "accepted", None);
        check(arrives(Some(&gone), &edit(5, &[(1, "x", 5, 3)]), strategy), "1=x", "accepted", None);
        // A file that went back does not know what it wrote: that is another's.
        let mut earlier = own.clone();
        let What::Present(cells) = &mut earlier.what else { unreachable!() };
        cells[0].by.epoch = 0;
        assert!(arrives(Some(&earlier), &edit(5, &[(1, "x", 5, 3)]), strategy).conflict.is_some());
    }
}

#[test]
fn what_is_sent_again_because_its_answer_was_lost_is_no_new_write() {
    let there = row(&[(1, "a", 10, 2, 500), (2, "b", 10, 2, 500)]);
    for strategy in ALL {
        let again = edit(5, &[(1, "a", 5, 500), (2, "b", 5, 500)]);
        check(arrives(Some(&there), &again, strategy), "as it was", "behind", None);
        // Only what was edited since is one. Who saw the other column since has seen it still.
        let since = edit(5, &[(1, "a", 5, 500), (2, "x", 5, 600)]);
        let resolved = arrives(Some(&there), &since, strategy);
        let versions: Vec<u64> = resolved.state.as_ref().map(|s| s.cells().iter().map(|h| h.version).collect()).unwrap_or_default();
        assert_eq!(versions, [10, 20]);
        check(arrives_from(3, resolved.state.as_ref(), &edit(10, &[(1, "y", 10, 400)]), strategy, true, None), "1=y 2=x", "behind", None);
        // The same value at another time is another write.
        check(arrives(Some(&there), &edit(5, &[(1, "a", 5, 501)]), strategy), "1=a 2=b", "accepted", None);
    }
}

#[test]
fn of_two_edits_the_strategy_takes_one_and_both_are_kept() {
    let there = row(&[(1, "a", 10, 1, 500), (2, "b", 10, 3, 700), (3, "c", 4, 1, 100)]);
    // Columns 1 and 2 were not seen, 3 was: it stands always.
    let arriving = |ms: i64| edit(5, &[(1, "x", 5, ms), (2, "y", 5, ms), (3, "z", 5, ms)]);
    let edits = Some(ConflictKind::Edits);
    let case = |strategy, ms, after: &str, told: &str| check(arrives(Some(&there), &arriving(ms), strategy), after, told, edits);
    case(KeepNewest, 800, "1=x 2=y 3=z", "accepted");
    case(KeepNewest, 600, "1=a 2=b 3=z", "merged: 1=a 2=b");
    case(KeepOldest, 800, "1=a 2=b 3=z", "merged: 1=a 2=b");
    case(KeepOldest, 600, "1=x 2=y 3=z", "accepted");
    case(Merge, 800, "1=x 2=y 3=z", "accepted");
    case(Merge, 600, "1=x 2=b 3=z", "merged: 2=b");
    case(Merge, 400, "1=a 2=b 3=z", "merged: 1=a 2=b");
    case(ServerWins, 800, "1=a 2=b 3=z", "merged: 1=a 2=b");
    case(ClientWins, 1, "1=x 2=y 3=z", "accepted");
    let conflict = arrives(Some(&there), &arriving(600), Merge).conflict.unwrap();
    let column =
        |column, arrived: &str, there: &str, taken| Contested { column, arrived: Some(Value::text(arrived)), there: Some(Value::text(there)), taken };
    assert_eq!(conflict.columns, [column(1, "x", "a", true), column(2, "y", "b", false)]);
    // Equal clocks: the larger client id.
    let tie = row(&[(1, "a", 10, 1, 600)]);
    let larger = ClientId::from_dice(2) > ClientId::from_dice(1);
    let resolved = arrives(Some(&tie), &edit(5, &[(1, "x", 5, 600)]), KeepNewest);
    assert_eq!(short(&resolved) == "1=x", larger);
}

#[test]
fn equal_values_are_no_conflict_and_the_preferred_clock_stays() {
    let there = row(&[(1, "a", 10, 1, 500)]);
    for (strategy, ms, kept) in [(KeepNewest, 600, 600), (KeepNewest, 400, 500), (KeepOldest, 400, 400), (KeepOldest, 600, 500), (Merge, 600, 600)] {
        let resolved = arrives(Some(&there), &edit(5, &[(1, "a", 5, ms)]), strategy);
        assert_eq!(resolved.conflict, None);
        // Where the other's clock is kept, the cell is the other's, and the file has to be told.
        assert_eq!(answer(&resolved), if kept == ms { "accepted" } else { "behind" }, "{strategy:?} {ms}");
        let after = resolved.state.unwrap_or_else(|| there.clone());
        assert_eq!(after.cells()[0].stamp.clock, Clock::at_ms(kept), "{strategy:?} {ms}");
    }
}

#[test]
fn a_new_row_is_never_merged_into_another_one_unless_the_key_is_global() {
    let there = row(&[(1, "a", 10, 1, 500), (2, "b", 10, 1, 500)]);
    let new = edit(0, &[(1, "x", 0, 600), (2, "b", 0, 600)]);
    for strategy in ALL {
        for keys in [None, Some(Keys::Renumber)] {
            let resolved = arrives_from(2, Some(&there), &new, strategy, true, keys);
            assert_eq!(resolved.conflict.as_ref().unwrap().columns.len(), 2);
            check(resolved, "as it was", "key taken", Some(ConflictKind::KeyTaken));
        }
        // Deleting one's own new row of that key leaves the other's alone.
        check(arrives(Some(&there), &deletion(0, 900), strategy), "as it was", "behind", None);
        // Another thing has the key of what was deleted long ago.
        check(arrives(Some(&tombstone(9, 3, 900)), &new, strategy), "1=x 2=b", "accepted", None);
    }
    let global = |strategy| arrives_from(2, Some(&there), &new, strategy, true, Some(Keys::Global));
    check(global(KeepNewest), "1=x 2=b", "accepted", Some(ConflictKind::Edits));
    check(global(ServerWins), "as it was", "merged: 1=a", Some(ConflictKind::Edits));
    // Then they are one thing, and its deletion is one of the other's edits too, which it has not seen.
    let deleted = |ms| arrives_from(2, Some(&there), &deletion(0, ms), KeepNewest, true, Some(Keys::Global));
    check(deleted(900), "deleted", "accepted", Some(ConflictKind::DeletionOfEdited));
    check(deleted(400), "as it was", "merged: 1=a 2=b", Some(ConflictKind::DeletionOfEdited));
}

#[test]
fn an_edit_of_a_deleted_row_makes_it_anew_or_goes_and_is_kept_as_a_conflict() {
    let gone = tombstone(10, 3, 500);
    let late = |ms: i64| edit(5, &[(1, "x", 5, ms)]);
    let kind = Some(ConflictKind::EditOfDeleted);
    let case = |strategy, ms: i64, wins: bool| {
        let (after, told) = if wins { ("1=x", "accepted") } else { ("as it was", "merged: deleted") };
        check(arrives(Some(&gone), &late(ms), strategy), after, told, kind);
        let part = arrives_from(2, Some(&gone), &late(ms), strategy, false, None);
        check(part, "as it was", if wins { "send whole, 10" } else { told }, kind);
    };
    case(KeepNewest, 600, true);
    case(KeepNewest, 400, false);
    case(KeepOldest, 400, true);
    case(KeepOldest, 600, false);
    case(Merge, 600, true);
    case(Merge, 400, false);
    case(ServerWins, 600, false);
    case(ClientWins, 400, true);
    for strategy in ALL {
        // Sent whole, with the deletion seen: it stands.
        check(arrives(Some(&gone), &edit(10, &[(1, "x", 10, 3)]), strategy), "1=x", "accepted", None);
        // Deleted so long ago that nobody remembers.
        check(arrives_from(2, None, &late(600), strategy, false, None), "as it was", "send whole, 0", None);
        check(arrives(None, &late(600), strategy), "1=x", "accepted", None);
    }
}

#[test]
fn a_deletion_of_an_edited_row_deletes_it_or_goes_and_is_kept_as_a_conflict() {
    let there = row(&[(1, "a", 10, 3, 500), (2, "b", 4, 1, 900)]);
    let kind = Some(ConflictKind::DeletionOfEdited);
    let case = |strategy, ms: i64, wins: bool| {
        let (after, told) = if wins { ("deleted", "accepted") } else { ("as it was", "merged: 1=a 2=b") };
        check(arrives(Some(&there), &deletion(5, ms), strategy), after, told, kind);
    };
    case(KeepNewest, 600, true); // column 2 is later, and was seen
    case(KeepNewest, 400, false);
    case(KeepOldest, 400, true);
    case(KeepOldest, 600, false);
    case(Merge, 600, true);
    case(Merge, 400, false);
    case(ServerWins, 600, false);
    case(ClientWins, 400, true);
    for strategy in ALL {
        check(arrives(Some(&tombstone(9, 3, 900)), &deletion(5, 3), strategy), "deleted", "accepted", None);
        check(arrives(None, &deletion(5, 3), strategy), "as it was", "behind", None);
    }
}
