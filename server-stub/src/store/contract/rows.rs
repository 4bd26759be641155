//! The part of the contract that is about rows.

use std::collections::BTreeSet;

use whimbrel_shared::{
    change::{Cell, Change, Edit, MAX_PAGE_ROWS, Row},
    hlc::Clock,
    ids::{PushId, SpaceName},
    protocol::{
        conflicts::{KeptConflict, KeptKind},
        pull::PullRequest,
        push::{Answer, PushHead, PushRequest, Reached, Reason, Series},
    },
    value::Value,
};

use super::*;
use crate::store::rows::{Binding, ConflictsPage, Forget, Push};

const NOW: i64 = 1_800_000_000_000;

/// Three versions: notes with a slug that is unique; tags for notes and a table of links; and edits of notes from before
/// version 3 can be taken no more.
async fn publish_rows(store: &dyn Store, versions: usize) {
    let note = |min: &str| format!(r#"{{"table":1,"direction":"both","conflict":"merge","key":[[1,"nocase"]],"unique":[[[2,"binary"]]]{min}}}"#);
    let sync = [
        format!(r#"{{"tables":[{}]}}"#, note("")),
        r#"{"tables":[{"table":2,"direction":"both","conflict":"server-wins","key":[[1,"binary"],[2,"binary"]]}]}"#.to_owned(),
        format!(r#"{{"tables":[{}]}}"#, note(r#","min_schema":3"#)),
    ];
    let columns = [
        r#"{"made":[[1,"note",[[1,"id"],[2,"slug"],[3,"body"]]]]}"#,
        r#"{"made":[[1,"note",[[1,"id"],[2,"slug"],[3,"body"],[4,"tags"]]],[2,"link",[[1,"a"],[2,"b"],[3,"why"]]]]}"#,
        "{}",
    ];
    let mut links: Vec<PublishLink> = Vec::new();
    for (at, (columns, sync)) in columns.iter().zip(&sync).take(versions).enumerate() {
        let previous = links.last().map(|l| l.target.digest());
        let mut link = publish::tests::link(at as u32 + 1, previous, "SELECT 1;");
        link.target.custom.columns = Some(serde_json::from_str(columns).unwrap());
        link.target.custom.sync = serde_json::from_str(sync).unwrap();
        links.push(link);
    }
    publish_links(store, links).await;
}

pub(super) async fn publish_links(store: &dyn Store, links: Vec<PublishLink>) {
    let before = store.targets(app("notes")).await.unwrap();
    let current = before.map_or_else(|| publish::nothing_published(&app("notes")), |bytes| serde_json::from_slice(&bytes).unwrap());
    let accepted = publish::decide(&current, links).unwrap();
    let (targets, latest, links) = (accepted.targets, accepted.latest, accepted.new);
    let publication = Publication { decided_on: current.version, targets, latest, links, signing: None, by: "ci".to_owned(), now_ms: 0 };
    store.publish(publication).await.unwrap();
}

/// A database of a device of its own.
pub(super) struct Database<'s> {
    pub(super) store: &'s dyn Store,
    pub(super) n: u128,
    pub(super) epoch: u32,
    pub(super) order: u64,
    pub(super) schema: u32,
    pub(super) series: Option<Series>,
    pub(super) cursor: u64,
    pub(super) acked: u64,
}

impl<'s> Database<'s> {
    pub(super) async fn new(store: &'s dyn Store, n: u128) -> Self {
        device(store, n, "notes").await;
        Self::of(store, n).await
    }

    async fn of(store: &'s dyn Store, n: u128) -> Self {
        store.save_state(DeviceId::from_dice(n), state(&[(n, 1)])).await.unwrap();
        Self { store, n, epoch: 1, order: 0, schema: 1, series: None, cursor: 0, acked: 0 }
    }

    pub(super) fn request(&mut self, changes: &[Change]) -> Push {
        self.order += 1;
        let head = PushHead {
            push_id: PushId::from_dice(self.n << 64 | u128::from(self.epoch) << 32 | u128::from(self.order)),
            client_id: ClientId::from_dice(self.n),
            epoch: self.epoch,
            order: self.order,
            schema: self.schema,
            series: self.series,
            reached: None,
        };
        let request = PushRequest { head, changes: changes.to_vec() };
        Push { device: DeviceId::from_dice(self.n), content: request.content(), request, now_ms: NOW }
    }

    pub(super) async fn push(&mut self, changes: &[Change]) -> PushResponse {
        let push = self.request(changes);
        let answer = self.store.push(push).await.unwrap();
        self.series = Some(answer.series);
        self.acked = answer.first + changes.len() as u64 - 1;
        answer
    }

    pub(super) fn asked(&self) -> PullRequest {
        PullRequest {
            client_id: ClientId::from_dice(self.n),
            epoch: self.epoch,
            schema: self.schema,
            series: self.series,
            cursor: self.cursor,
            acked: self.acked,
            since_schema: None,
            until: None,
            reached: None,
        }
    }

    pub(super) async fn ask(&self, asked: PullRequest) -> Result<PullResponse, StoreError> {
        self.store.pull(DeviceId::from_dice(self.n), asked, NOW).await
    }

    /// One page, landed.
    pub(super) async fn pull(&mut self) -> PullResponse {
        let page = self.ask(self.asked()).await.unwrap();
        self.series = Some(page.head.series);
        self.cursor = page.head.next;
        page
    }
}

pub(super) fn cells(cells: &[(u32, &str)], base: u64, ms: i64) -> Vec<Cell> {
    cells.iter().map(|(column, text)| Cell { column: *column, value: Value::text(text), base, clock: Clock::at_ms(ms) }).collect()
}

/// A new note with all columns of version 1.
pub(super) fn note(id: &str, slug: &str, body: &str) -> Change {
    Change { table: 1, key: vec![Value::text(id)], edit: Edit::Present { seen: 0, cells: cells(&[(2, slug), (3, body)], 0, 100) } }
}

pub(super) fn edit(id: &str, seen: u64, changed: &[(u32, &str)], ms: i64) -> Change {
    Change { table: 1, key: vec![Value::text(id)], edit: Edit::Present { seen, cells: cells(changed, seen, ms) } }
}

pub(super) fn deletion(id: &str, base: u64) -> Change {
    Change { table: 1, key: vec![Value::text(id)], edit: Edit::Deleted { base, clock: Clock::at_ms(500) } }
}

/// Rows in short: `a: 2=x 3=y`, `b: gone`.
pub(super) fn short(rows: &[Row]) -> Vec<String> {
    let text = |v: &Value| format!("{v:?}").replace('"', "");
    let row = |row: &Row| {
        let key: Vec<String> = row.key.iter().map(text).collect();
        let values = row.values.as_ref().map(|v| v.iter().map(|(c, v)| format!("{c}={}", text(v))).collect::<Vec<_>>().join(" "));
        format!("{}: {}", key.join("/"), values.unwrap_or_else(|| "gone".to_owned()))
    };
    rows.iter().map(row).collect()
}

pub(super) fn refusal<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Refusal {
    match result {
        Err(StoreError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

pub(super) async fn kept(store: &dyn Store, open: bool) -> Vec<KeptConflict> {
    store.conflicts(ConflictsPage { app: app("notes"), open, before: None, limit: 100 }).await.unwrap().conflicts
}

pub(crate) async fn a_push_is_taken_once_and_its_id_never_means_anything_else(store: &dyn Store) {
    publish_rows(store, 1).await;
    let (mut one, mut two) = (Database::new(store, 1).await, Database::new(store, 2).await);
    let push = one.request(&[note("a", "x", "1"), note("b", "y", "2")]);
    let first = store.push(push.clone()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(store.push(push.clone()).await.unwrap(), first);
    }
    assert_eq!((first.first, first.answers.len(), first.content), (1, 0, push.content));
    assert_eq!(two.pull().await.head.next, 2, "a push that came again took numbers");

    let mut other = push.clone();
    other.request.changes.pop();
    other.content = other.request.content();
    assert_eq!(refusal(store.push(other).await), Refusal::PushDiffers(push.request.head.push_id));
    let mut foreign = push.clone();
    foreign.request.head.client_id = ClientId::from_dice(2);
    assert_eq!(refusal(store.push(foreign).await), Refusal::ClientTaken(ClientId::from_dice(2)));
    let unknown = Push {
        device: DeviceId::from_dice(1),
        ..{
            let mut p = push.clone();
            p.request.head.client_id = ClientId::from_dice(77);
            p
        }
    };
    assert_eq!(refusal(store.push(unknown).await), Refusal::NotReported(ClientId::from_dice(77)));
}

pub(crate) async fn a_file_that_went_back_is_noticed_by_its_first_push(store: &dyn Store) {
    publish_rows(store, 1).await;
    let mut one = Database::new(store, 1).await;
    for (id, body) in [("a", "1"), ("b", "2"), ("c", "3")] {
        one.push(&[note(id, id, body)]).await;
    }
    // Its copy of last week goes on with the order of last week.
    one.order = 1;
    let mut again = one.request(&[edit("a", 1, &[(3, "late")], 900)]);
    again.request.head.push_id = PushId::from_dice(4711);
    again.content = again.request.content();
    let refused = refusal(store.push(again).await);
    assert_eq!(refused, Refusal::FileWentBack { epoch: 1, order: 2, known: (1, 3) });
    // In its new epoch it is another writer: what it wrote before is not its own any more, and comes down.
    (one.epoch, one.order, one.cursor, one.acked, one.series) = (2, 0, 0, 3, None);
    assert_eq!(short(&one.pull().await.rows), ["a: 2=a 3=1", "b: 2=b 3=2", "c: 2=c 3=3"]);
    one.push(&[edit("a", 1, &[(3, "late")], 900)]).await;
    (one.epoch, one.order) = (1, 8);
    let old = one.request(&[deletion("a", 1)]);
    assert!(matches!(refusal(store.push(old).await), Refusal::FileWentBack { epoch: 1, .. }));
}

pub(crate) async fn rows_come_down_by_sequence_and_ones_own_do_not(store: &dyn Store) {
    publish_rows(store, 1).await;
    let (mut one, mut two) = (Database::new(store, 1).await, Database::new(store, 2).await);
    one.push(&[note("a", "x", "1"), note("b", "y", "2")]).await;
    let page = one.pull().await;
    assert_eq!((page.rows.len(), page.head.echoes, page.head.next, page.head.more), (0, 2, 2, false));
    // Whose answer was lost gets them: it may have changed nothing since, and it may have.
    let lost = one.ask(PullRequest { acked: 1, cursor: 0, ..one.asked() }).await.unwrap();
    assert_eq!(short(&lost.rows), ["b: 2=y 3=2"]);

    assert_eq!(short(&two.pull().await.rows), ["a: 2=x 3=1", "b: 2=y 3=2"]);
    two.push(&[edit("A", 1, &[(3, "3")], 200)]).await; // the key is NOCASE
    one.push(&[edit("a", 1, &[(2, "z")], 300)]).await;
    // Its own column, and another's that it has not seen: the row is no echo.
    let page = one.pull().await;
    assert_eq!((short(&page.rows), page.head.echoes), (vec!["a: 2=z 3=3".to_owned()], 0));
    assert_eq!(short(&two.pull().await.rows), ["a: 2=z 3=3"]);
    assert_eq!(two.pull().await.rows, []);
}

pub(crate) async fn pages_are_bounded_and_one_that_is_asked_for_again_is_the_same(store: &dyn Store) {
    publish_rows(store, 1).await;
    let (mut one, mut two) = (Database::new(store, 1).await, Database::new(store, 2).await);
    let notes: Vec<Change> = (0..MAX_PAGE_ROWS).map(|n| note(&format!("{n:05}"), &n.to_string(), "x")).collect();
    one.push(&notes).await;
    one.push(&[note("last", "last", "x")]).await;
    let large = "x".repeat(1_500_000);
    one.push(&[note("l1", "l1", &large), note("l2", "l2", &large), note("l3", "l3", &large)]).await;
    let first = two.ask(two.asked()).await.unwrap();
    assert_eq!(two.pull().await, first);
    assert_eq!((first.rows.len(), first.head.more), (MAX_PAGE_ROWS, true));
    let second = two.pull().await;
    assert_eq!((second.rows.len(), second.head.more), (3, true));
    let third = two.pull().await;
    assert_eq!((third.rows.len(), third.head.more), (1, false));
}

pub(crate) async fn a_deletion_is_told_until_it_is_forgotten_and_then_a_snapshot_is_needed(store: &dyn Store) {
    publish_rows(store, 1).await;
    let (mut one, mut two, mut three) = (Database::new(store, 1).await, Database::new(store, 2).await, Database::new(store, 3).await);
    one.push(&[note("a", "x", "1"), note("b", "y", "2")]).await;
    two.pull().await;
    three.pull().await;
    one.push(&[deletion("a", 1)]).await;
    assert_eq!(short(&two.pull().await.rows), ["a: gone"]);
    assert_eq!(store.forget_rows(Forget::before(NOW)).await.unwrap(), 0, "it is not older than now");
    // Each is kept as long as it is said.
    let only_answers = Forget { answers_ms: NOW + 1, ..Forget::before(NOW) };
    assert_eq!(store.forget_rows(only_answers).await.unwrap(), 0);
    assert_eq!(three.ask(three.asked()).await.unwrap().rows.len(), 1);
    assert_eq!(store.forget_rows(Forget::before(NOW + 1)).await.unwrap(), 1);
    let needed = refusal(three.ask(three.asked()).await);
    assert!(needed.to_string().contains("the cursor is 2, and deletions up to 3 are forgotten"), "{needed}");
    // Who saw it goes on.
    assert_eq!(two.pull().await.rows, []);
    (three.cursor, three.series) = (0, None);
    assert_eq!(short(&three.pull().await.rows), ["b: 2=y 3=2"]);
    // An edit of what nobody remembers is asked for whole, and then stands.
    let answer = two.push(&[edit("a", 3, &[(3, "late")], 900)]).await;
    assert_eq!(answer.answers, [(0, Answer::SendWhole { seen: 0 })]);
    assert_eq!(two.push(&[note("a", "x", "late")]).await.answers, []);
}

pub(crate) async fn a_unique_set_holds_in_its_space_and_the_loser_is_kept(store: &dyn Store) {
    publish_rows(store, 1).await;
    let (mut one, mut two) = (Database::new(store, 1).await, Database::new(store, 2).await);
    one.push(&[note("a", "x", "1")]).await;
    let taken = |key: &str| Answer::Rejected(Reason::UniqueTaken { columns: vec![2], key: vec![Value::text(key)] });
    let lost = note("b", "x", "2");
    assert_eq!(two.push(std::slice::from_ref(&lost)).await.answers, [(0, taken("a"))]);
    assert_eq!(two.push(std::slice::from_ref(&lost)).await.answers, [(0, taken("a"))]);
    let open = kept(store, true).await;
    assert_eq!(open.len(), 1, "the same row waits once");
    let detail = &open[0].detail;
    assert_eq!((detail.kind, &detail.change, &detail.other_key), (KeptKind::UniqueTaken, &Some(lost), &Some(vec![Value::text("a")])));
    assert_eq!((open[0].table_name.as_deref(), open[0].open), (Some("note"), true));
    // What is freed in the same push is free, in whatever order it comes.
    let answer = one.push(&[note("c", "x", "3"), edit("a", 1, &[(2, "free")], 200)]).await;
    assert_eq!(answer.answers, []);
    // A deletion frees too, and a person who chose another slug waits no more.
    one.push(&[deletion("c", answer.first)]).await;
    assert_eq!(two.push(&[note("b", "x", "2")]).await.answers, []);
    assert_eq!(kept(store, true).await, []);
    // NULL is equal to nothing.
    let mut nulls = [note("n1", "", "1"), note("n2", "", "2")];
    for change in &mut nulls {
        let Edit::Present { cells, .. } = &mut change.edit else { unreachable!() };
        cells[0].value = Value::Null;
    }
    assert_eq!(two.push(&nulls).await.answers, []);
}

pub(crate) async fn spaces_know_nothing_of_each_other(store: &dyn Store) {
    publish_rows(store, 1).await;
    let mut one = Database::new(store, 1).await;
    let space: SpaceName = "branch-7".parse().unwrap();
    let token = NewToken { hash: secret(9_000), app: app("notes"), space: space.clone(), uses: 1, now_ms: 0, expires_at_ms: i64::MAX };
    store.create_token(token).await.unwrap();
    store.enroll(enrolment(2, 9_000, None)).await.unwrap();
    let mut two = Database::of(store, 2).await;
    assert_eq!(one.push(&[note("a", "x", "1")]).await.answers, []);
    assert_eq!(two.push(&[note("a", "x", "2")]).await.answers, [], "the same key and slug in another space");
    assert_ne!(one.series, two.series);
    assert_eq!((one.pull().await.rows.len(), two.pull().await.rows.len()), (0, 0));
    // An operator's word moves a database, and it is told that its numbers mean nothing any more.
    let binding = Binding { client_id: ClientId::from_dice(1), space, by: "ops".to_owned(), now_ms: 0 };
    store.bind_space(binding).await.unwrap();
    assert!(matches!(refusal(one.ask(one.asked()).await), Refusal::SnapshotNeeded(_)));
    let unsent = one.request(&[edit("a", 1, &[(3, "9")], 900)]);
    assert!(matches!(refusal(store.push(unsent).await), Refusal::SnapshotNeeded(_)));
    (one.cursor, one.series) = (0, None);
    assert_eq!(short(&one.pull().await.rows), ["a: 2=x 3=2"]);
}

pub(crate) async fn each_version_is_told_what_it_knows_and_one_that_moved_gets_the_rest(store: &dyn Store) {
    publish_rows(store, 2).await;
    let (mut old, mut new) = (Database::new(store, 1).await, Database::new(store, 2).await);
    new.schema = 2;
    let mut tagged = note("a", "x", "1");
    let Edit::Present { cells: all, .. } = &mut tagged.edit else { unreachable!() };
    all.extend(cells(&[(4, "red")], 0, 100));
    let link =
        Change { table: 2, key: vec![Value::text("a"), Value::text("b")], edit: Edit::Present { seen: 0, cells: cells(&[(3, "so")], 0, 100) } };
    assert_eq!(new.push(&[tagged, link, note("b", "y", "2")]).await.answers, [(2, Answer::SendWhole { seen: 0 })]);
    assert_eq!(short(&old.pull().await.rows), ["a: 2=x 3=1"]);
    // The older one's edit leaves the column alone that it does not know.
    old.push(&[edit("a", 1, &[(3, "2")], 200)]).await;
    assert_eq!(short(&new.pull().await.rows), ["a: 2=x 3=2 4=red"]);
    old.push(&[note("c", "z", "3")]).await;
    // It moves: one walk over what it could not know, and nothing that it knows.
    old.schema = 2;
    let walk = PullRequest { since_schema: Some(1), until: Some(old.cursor), cursor: 0, ..old.asked() };
    let page = old.ask(walk).await.unwrap();
    assert_eq!(short(&page.rows), ["a/b: 3=so"], "{page:?}");
    let walk = PullRequest { since_schema: Some(1), until: Some(99), cursor: 0, ..old.asked() };
    assert_eq!(short(&old.ask(walk).await.unwrap().rows), ["a/b: 3=so", "a: 4=red"]);

    let from_the_future = Push {
        ..{
            new.schema = 3;
            new.request(&[note("d", "d", "4")])
        }
    };
    assert_eq!(refusal(store.push(from_the_future).await), Refusal::SchemaAhead { schema: 3, latest: 2 });
}

pub(crate) async fn what_an_older_version_cannot_say_is_held_and_not_lost(store: &dyn Store) {
    publish_rows(store, 3).await;
    let (mut old, mut new) = (Database::new(store, 1).await, Database::new(store, 2).await);
    new.schema = 3;
    let held = note("A", "x", "old");
    assert_eq!(old.push(std::slice::from_ref(&held)).await.answers, [(0, Answer::Held { min_schema: 3 })]);
    let open = kept(store, true).await;
    assert_eq!((open.len(), open[0].detail.kind, &open[0].detail.change), (1, KeptKind::Held, &Some(held)));
    assert_eq!((old.pull().await.head.withheld, new.pull().await.rows.len()), (vec![1], 0));
    // Moved, it says it in the new terms.
    old.schema = 3;
    let mut whole = note("a", "x", "new");
    let Edit::Present { cells: all, .. } = &mut whole.edit else { unreachable!() };
    all.extend(cells(&[(4, "")], 0, 100));
    assert_eq!(old.push(&[whole]).await.answers, []);
    assert_eq!(kept(store, true).await, []);
    assert_eq!(short(&new.pull().await.rows), ["a: 2=x 3=new 4="]);
}

pub(crate) async fn a_conflict_is_kept_with_both_sides(store: &dyn Store) {
    publish_rows(store, 1).await;
    let (mut one, mut two) = (Database::new(store, 1).await, Database::new(store, 2).await);
    one.push(&[note("a", "x", "1")]).await;
    two.pull().await;
    one.push(&[edit("a", 1, &[(3, "one's")], 900)]).await;
    let answer = two.push(&[edit("a", 1, &[(3, "two's")], 800)]).await;
    let stands = Some(vec![(3, Value::text("one's"))]);
    assert_eq!(answer.answers, [(0, Answer::Merged { version: Some(2), stands })]);
    let all = kept(store, false).await;
    assert_eq!(all.len(), 1);
    let column = &all[0].detail.columns[0];
    assert_eq!((&column.arrived, &column.there, column.taken), (&Some(Value::text("two's")), &Some(Value::text("one's")), false));
    assert_eq!(kept(store, true).await, [], "a strategy decided it: nobody is waited for");
    // Two things under one key stay two.
    let taken = two.push(&[note("A", "other", "two's")]).await;
    assert_eq!(taken.answers, [(0, Answer::KeyTaken)]);
    assert_eq!(kept(store, true).await[0].detail.kind, KeptKind::KeyTaken);
}

pub(crate) async fn a_clock_that_is_ahead_gets_the_servers_time(store: &dyn Store) {
    publish_rows(store, 1).await;
    let (mut one, mut two) = (Database::new(store, 1).await, Database::new(store, 2).await);
    one.push(&[note("a", "x", "1")]).await;
    two.pull().await;
    let ten_years = 315_360_000_000;
    assert_eq!(one.push(&[edit("a", 1, &[(3, "from 2037")], NOW + ten_years)]).await.restamped, 1);
    // A minute later somebody with a right clock wins again.
    assert_eq!(two.push(&[edit("a", 1, &[(3, "now")], NOW + 59_000)]).await.answers, []);
    assert_eq!(short(&one.pull().await.rows), ["a: 2=x 3=now"]);
}

pub(crate) async fn a_store_that_was_restored_counts_anew(store: &dyn Store) {
    publish_rows(store, 1).await;
    let mut one = Database::new(store, 1).await;
    one.push(&[note("a", "x", "1")]).await;
    let before = one.series.unwrap();
    // It saw version 40 of a store that has given one.
    one.cursor = 40;
    assert!(matches!(refusal(one.ask(one.asked()).await), Refusal::SnapshotNeeded(_)));
    (one.cursor, one.series) = (0, None);
    let page = one.pull().await;
    assert_eq!((page.head.series.space, page.head.series.epoch), (before.space, before.epoch + 1));
    assert_eq!(one.push(&[note("b", "y", "2")]).await.first, 41, "a number was given twice");
    // The same from a push.
    let ahead = one.request(&[edit("a", 90, &[(3, "2")], 900)]);
    assert!(matches!(refusal(store.push(ahead).await), Refusal::SnapshotNeeded(_)));
    one.series = None;
    one.cursor = 0;
    assert_eq!(one.pull().await.head.series.epoch, before.epoch + 2);
}

pub(crate) async fn a_store_that_was_restored_is_known_by_how_far_a_file_came(store: &dyn Store) {
    publish_rows(store, 1).await;
    let mut one = Database::new(store, 1).await;
    one.push(&[note("a", "x", "1")]).await;
    let first = one.series.unwrap();
    let reached = |series, number| Some(Reached { series, number });
    // It asks for nothing beyond what the store gave, and knows more.
    let known = one.ask(PullRequest { reached: reached(first, 1), ..one.asked() }).await.unwrap();
    assert_eq!(known.head.series, first);
    let asked = PullRequest { reached: reached(first, 7), ..one.asked() };
    assert!(matches!(refusal(one.ask(asked).await), Refusal::SnapshotNeeded(_)));
    // The store was restored before, and this is one of before that: its second series is not the one that the file knows.
    (one.cursor, one.acked, one.series) = (0, 0, None);
    let second = one.pull().await.head.series;
    assert_eq!(second.epoch, first.epoch + 1);
    let mut later = one.request(&[note("b", "y", "2")]);
    later.request.head.reached = reached(Series { epoch: second.epoch + 3, ..second }, 3);
    later.content = later.request.content();
    assert!(matches!(refusal(store.push(later).await), Refusal::SnapshotNeeded(_)));
    (one.cursor, one.acked, one.series) = (0, 0, None);
    assert_eq!(one.pull().await.head.series.epoch, second.epoch + 4, "a series was given twice");
    assert_eq!(one.push(&[note("b", "y", "2")]).await.first, 8, "a number was given twice");
    // Nobody uses up the numbers of a space by saying so.
    let now = one.series.unwrap();
    for absurd in [reached(now, u64::MAX), reached(Series { epoch: u32::MAX, ..now }, 8)] {
        assert!(matches!(refusal(one.ask(PullRequest { reached: absurd, ..one.asked() }).await), Refusal::SnapshotNeeded(_)));
        assert!(matches!(refusal(one.ask(PullRequest { cursor: u64::MAX, ..one.asked() }).await), Refusal::SnapshotNeeded(_)));
    }
    assert_eq!((one.pull().await.head.series, one.push(&[note("c", "z", "3")]).await.first), (now, 9));
    // How far it came in another space means nothing here.
    let elsewhere = PullRequest { reached: reached(Series { space: first.space + 1, epoch: 90 }, 90), ..one.asked() };
    one.ask(elsewhere).await.unwrap();
}

pub(crate) async fn who_pulls_while_others_push_misses_nothing(store: &dyn Store) {
    publish_rows(store, 1).await;
    let (mut one, mut two, mut reader) = (Database::new(store, 1).await, Database::new(store, 2).await, Database::new(store, 3).await);
    let pushing = |database: &'static str| (0..40).map(move |n| (database, n));
    let (a, b) = (pushing("a"), pushing("b"));
    let write = async |db: &mut Database<'_>, plan: &mut dyn Iterator<Item = (&'static str, i32)>| {
        for (who, n) in plan {
            let notes: Vec<Change> = (0..5).map(|m| note(&format!("{who}{n}.{m}"), &format!("{who}{n}.{m}"), "x")).collect();
            db.push(&notes).await;
        }
    };
    let mut seen = BTreeSet::new();
    let mut versions = Vec::new();
    let read = async {
        while seen.len() < 400 {
            for row in reader.pull().await.rows {
                versions.push(row.version);
                seen.insert(short(&[row]));
            }
        }
    };
    let (mut a, mut b) = (a, b);
    tokio::join!(write(&mut one, &mut a), write(&mut two, &mut b), read);
    assert_eq!(versions.len(), 400);
    assert!(versions.is_sorted());
}
