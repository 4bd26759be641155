//! What every store must do, whichever database it uses. [`suite`] makes one test of each case, on a fresh store.

mod lift;
mod rows;

use whimbrel_shared::{
    ids::{AppName, ClientId, DeviceId, Digest, EnrolmentId, EventId},
    protocol::{
        clients::PlanRequest,
        poll::{Order, Plan},
        report::SeedStatus,
        state::{DatabaseState, StateRequest},
    },
    status::{AskedBy, Event, EventKind, Operation, Status},
};

pub(crate) use self::{lift::*, rows::*};
use super::*;
use crate::decide::publish::{self, tests::chain};

/// Tests of every case. `$fresh` makes a store and something that keeps it alive.
macro_rules! suite {
    ($fresh:block) => {
        $crate::store::contract::suite!($fresh:
            a_token_enrols_as_many_devices_as_it_has_uses,
            an_enrolment_asked_for_again_spends_no_second_use,
            a_device_with_two_apps_keeps_its_token,
            a_token_is_replaced_once_and_the_old_one_counts_for_a_while,
            a_revoked_device_is_refused_until_it_is_enrolled_again,
            a_revoked_key_is_nobodys,
            a_state_with_a_foreign_database_is_refused_whole,
            each_database_has_its_own_pending,
            a_report_counts_once_and_never_changes,
            a_report_about_something_unpublished_is_kept,
            a_restored_file_is_believed,
            a_seed_flag_counts_once,
            a_revision_is_kept_beside_what_it_mends_and_given_to_those_that_lack_it,
            two_publishers_on_the_same_targets_cannot_both_win,
            a_plan_sequence_grows_with_every_change_and_only_then,
            a_time_last_seen_never_goes_back,
            lists_come_in_pages_that_miss_nothing,
            a_push_is_taken_once_and_its_id_never_means_anything_else,
            a_file_that_went_back_is_noticed_by_its_first_push,
            rows_come_down_by_sequence_and_ones_own_do_not,
            pages_are_bounded_and_one_that_is_asked_for_again_is_the_same,
            a_deletion_is_told_until_it_is_forgotten_and_then_a_snapshot_is_needed,
            a_unique_set_holds_in_its_space_and_the_loser_is_kept,
            spaces_know_nothing_of_each_other,
            each_version_is_told_what_it_knows_and_one_that_moved_gets_the_rest,
            what_an_older_version_cannot_say_is_held_and_not_lost,
            a_conflict_is_kept_with_both_sides,
            a_clock_that_is_ahead_gets_the_servers_time,
            a_store_that_was_restored_counts_anew,
            a_store_that_was_restored_is_known_by_how_far_a_file_came,
            who_pulls_while_others_push_misses_nothing,
            a_row_of_an_older_version_is_told_with_what_newer_ones_compute_from_it,
            an_older_clients_edit_of_what_a_newer_one_wrote_is_a_conflict_and_both_sides_are_kept,
            a_row_for_which_a_backfill_fails_is_kept_without_the_column_and_listed_once,
            a_computed_value_that_another_row_has_is_left_out_and_the_row_is_not,
            rows_change_in_their_place_where_older_versions_may_not_write_any_more
        );
    };
    ($fresh:block: $($case:ident),+) => { $(
        #[test]
        fn $case() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (store, _alive) = $fresh;
                $crate::store::contract::$case(&store).await;
            });
        }
    )+ };
}
pub(crate) use suite;

pub(crate) async fn a_token_enrols_as_many_devices_as_it_has_uses(store: &dyn Store) {
    let id = token(store, 1, "notes", 2, 1_000).await;
    let ask = |device: u128, token: u128, now_ms| Enrolment { now_ms, ..enrolment(device, token, None) };
    let refused = async |ask| match store.enroll(ask).await {
        Err(StoreError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(ask(1, 99, 0)).await, Refusal::UnknownEnrolment);
    assert_eq!(refused(ask(1, 1, 1_000)).await, Refusal::EnrolmentExpired);
    for device in [1, 2] {
        let enrolled = store.enroll(ask(device, 1, 999)).await.unwrap();
        assert_eq!(enrolled.device_id, DeviceId::from_dice(device));
    }
    assert_eq!(refused(ask(3, 1, 0)).await, Refusal::EnrolmentUsedUp);
    assert_eq!(store.device(secret(3), 0).await.unwrap(), None);

    store.revoke_token(id, 5).await.unwrap();
    store.revoke_token(id, 6).await.unwrap();
    assert_eq!(store.tokens().await.unwrap()[0].revoked_at_ms, Some(5));
    assert_eq!(refused(ask(3, 1, 0)).await, Refusal::UnknownEnrolment);
    assert!(store.revoke_token(77, 5).await.is_err());
}

pub(crate) async fn an_enrolment_asked_for_again_spends_no_second_use(store: &dyn Store) {
    token(store, 1, "notes", 1, 1_000).await;
    let ask = |device: u128, content: &[u8]| Enrolment { id: Some((EnrolmentId::from_dice(9), Digest::of(content))), ..enrolment(device, 1, None) };
    let first = store.enroll(ask(1, b"it")).await.unwrap();
    // Its token got lost on the way: the next one is what counts.
    let again = store.enroll(ask(2, b"it")).await.unwrap();
    assert_eq!((again.clone(), again.device_id), (first, DeviceId::from_dice(1)));
    assert_eq!(store.device(secret(1), 0).await.unwrap(), None);
    assert_eq!(store.device(secret(2), 0).await.unwrap().unwrap().device_id, DeviceId::from_dice(1));
    let other = store.enroll(ask(3, b"something else")).await;
    assert_eq!(other, Err(Refusal::EnrolmentDiffers(EnrolmentId::from_dice(9)).into()));
    // A device with an id of its own is another device, and the only use is spent.
    let next = store.enroll(Enrolment { id: Some((EnrolmentId::from_dice(10), Digest::of(b"it"))), ..enrolment(4, 1, None) }).await;
    assert_eq!(next, Err(Refusal::EnrolmentUsedUp.into()));
    store.save_state(DeviceId::from_dice(1), state(&[])).await.unwrap();
    // It has its answer: nobody becomes this device any more.
    assert_eq!(store.enroll(ask(5, b"it")).await, Err(Refusal::EnrolmentUsedUp.into()));
    assert_eq!(store.device(secret(2), 0).await.unwrap().unwrap().device_id, DeviceId::from_dice(1));
    let late = store.enroll(Enrolment { now_ms: 1_000, ..ask(5, b"it") }).await;
    assert_eq!(late, Err(Refusal::EnrolmentExpired.into()));

    // The same for a second app, where the device keeps the token that it has.
    token(store, 50, "tasks", 1, i64::MAX).await;
    let known = Some((DeviceId::from_dice(1), secret(2)));
    for fresh in [6, 7] {
        let ask = Enrolment { id: Some((EnrolmentId::from_dice(11), Digest::of(b"tasks"))), ..enrolment(fresh, 50, known) };
        assert_eq!(store.enroll(ask).await.unwrap().device_id, DeviceId::from_dice(1));
    }
    assert_eq!(store.device(secret(2), 0).await.unwrap().unwrap().apps, [app("notes"), app("tasks")].into());
}

pub(crate) async fn a_device_with_two_apps_keeps_its_token(store: &dyn Store) {
    device(store, 1, "notes").await;
    token(store, 50, "tasks", 1, i64::MAX).await;
    let known = |device, token| Some((DeviceId::from_dice(device), secret(token)));
    let stranger = store.enroll(enrolment(7, 50, known(1, 2))).await;
    assert!(matches!(stranger, Err(StoreError::Refused(Refusal::UnknownDevice(_)))));
    for _ in 0..2 {
        // The second time spends nothing: an answer may get lost.
        let again = store.enroll(enrolment(7, 50, known(1, 1))).await.unwrap();
        assert_eq!(again.device_id, DeviceId::from_dice(1));
    }
    let device = store.device(secret(1), 0).await.unwrap().unwrap();
    assert_eq!(device.apps, ["notes", "tasks"].map(app).into());
    assert_eq!(store.device(secret(7), 0).await.unwrap(), None);
    let (_, poll) = store.poll(secret(1), 0).await.unwrap().unwrap();
    assert!(poll.repository.contains_key(&app("tasks")));
}

pub(crate) async fn a_token_is_replaced_once_and_the_old_one_counts_for_a_while(store: &dyn Store) {
    device(store, 1, "notes").await;
    device(store, 2, "notes").await;
    let rotate = |token, next, now_ms| store.rotate_token(Rotation { token: secret(token), next: secret(next), now_ms, grace_ms: 100 });
    let counts = async |token, now_ms| store.device(secret(token), now_ms).await.unwrap().map(|d| d.device_id);
    let one = DeviceId::from_dice(1);
    assert_eq!(rotate(99, 11, 0).await, Ok(None), "nobody has it");
    // The answer was lost, whichever token it is asked with again.
    for token in [1, 1, 11] {
        assert_eq!(rotate(token, 11, 50).await, Ok(Some(one)));
    }
    assert_eq!((counts(1, 149).await, counts(11, 149).await), (Some(one), Some(one)));
    assert_eq!((counts(1, 150).await, counts(11, 150).await), (None, Some(one)));
    assert!(store.poll(secret(1), 149).await.unwrap().is_some());
    assert!(store.poll(secret(1), 150).await.unwrap().is_none());
    // Who has the old one takes no other; and nobody takes another's, or goes back to one of before.
    for (token, next) in [(1, 12), (11, 2), (11, 1)] {
        assert_eq!(rotate(token, next, 60).await, Err(Refusal::TokenReplaced(one).into()), "{token} to {next}");
    }
    assert_eq!(rotate(1, 12, 150).await, Ok(None));
    // The next one: what was the old one before does not count any more.
    assert_eq!(rotate(11, 12, 120).await, Ok(Some(one)));
    assert_eq!((counts(1, 121).await, counts(11, 121).await, counts(12, 121).await), (None, Some(one), Some(one)));
    let listed = store.devices(DevicesPage { after: None, limit: 9 }).await.unwrap().devices;
    assert_eq!(listed.iter().map(|d| d.token_since_ms).collect::<Vec<_>>(), [120, 0]);
}

pub(crate) async fn a_revoked_device_is_refused_until_it_is_enrolled_again(store: &dyn Store) {
    device(store, 1, "notes").await;
    let one = DeviceId::from_dice(1);
    store.rotate_token(Rotation { token: secret(1), next: secret(11), now_ms: 5, grace_ms: 100 }).await.unwrap();
    for now_ms in [7, 8] {
        store.revoke_device(one, "ops".to_owned(), now_ms).await.unwrap();
    }
    assert!(store.revoke_device(DeviceId::from_dice(9), "ops".to_owned(), 7).await.is_err());
    let refused = Err(Refusal::DeviceRevoked.into());
    for token in [1, 11] {
        assert_eq!(store.device(secret(token), 9).await, refused);
        assert!(store.poll(secret(token), 9).await.is_err());
        assert!(store.rotate_token(Rotation { token: secret(token), next: secret(12), now_ms: 9, grace_ms: 100 }).await.is_err());
    }
    let revoked = || async { store.devices(DevicesPage { after: None, limit: 9 }).await.unwrap().devices[0].revoked_at_ms };
    assert_eq!(revoked().await, Some(7));

    token(store, 50, "notes", 1, i64::MAX).await;
    let ask =
        |fresh: u128| Enrolment { id: Some((EnrolmentId::from_dice(9), Digest::of(b"again"))), ..enrolment(fresh, 50, Some((one, secret(11)))) };
    // Twice: the first answer is lost, and with it the token that it gave.
    for fresh in [20, 21] {
        let again = store.enroll(ask(fresh)).await.unwrap();
        assert_eq!((again.device_id, again.fresh), (one, true));
    }
    assert_eq!(revoked().await, None);
    assert_eq!(store.device(secret(21), 9).await.unwrap().unwrap().device_id, one);
    for ended in [1, 11, 20] {
        assert_eq!(store.device(secret(ended), 9).await, Ok(None), "{ended}");
    }
}

pub(crate) async fn a_revoked_key_is_nobodys(store: &dyn Store) {
    let key = |name: &str, hash| NewKey { name: name.to_owned(), hash: secret(hash), scope: Scope::Operate, now_ms: 1 };
    store.create_key(key("ops", 1)).await.unwrap();
    assert!(store.create_key(key("ops", 2)).await.is_err());
    let found = store.key(secret(1)).await.unwrap().unwrap();
    assert_eq!((found.name.as_str(), found.scope), ("ops", Scope::Operate));
    assert!(store.key(secret(2)).await.unwrap().is_none());
    store.revoke_key("ops".to_owned(), 9).await.unwrap();
    assert!(store.key(secret(1)).await.unwrap().is_none());
    assert_eq!(store.keys().await.unwrap()[0].revoked_at_ms, Some(9));
    assert!(store.revoke_key("nobody".to_owned(), 9).await.is_err());
}

pub(crate) async fn a_state_with_a_foreign_database_is_refused_whole(store: &dyn Store) {
    device(store, 1, "notes").await;
    device(store, 2, "notes").await;
    store.save_state(DeviceId::from_dice(1), state(&[(1, 0)])).await.unwrap();
    let mixed = store.save_state(DeviceId::from_dice(2), state(&[(2, 0), (1, 0)])).await;
    assert_eq!(mixed, Err(Refusal::ClientTaken(ClientId::from_dice(1)).into()));
    let second = store.clients_of(DeviceId::from_dice(2)).await.unwrap();
    assert_eq!(second, [], "the first database of a refused state stayed");

    let mut other_app = state(&[(2, 0)]);
    other_app.databases[0].app = app("tasks");
    assert_eq!(store.save_state(DeviceId::from_dice(2), other_app).await, Err(Refusal::NotEnrolled(app("tasks")).into()));
}

pub(crate) async fn each_database_has_its_own_pending(store: &dyn Store) {
    publish_up_to(store, 3).await;
    device(store, 1, "notes").await;
    device(store, 2, "notes").await;
    let (one, two) = (ClientId::from_dice(1), ClientId::from_dice(2));
    let done = |n, id| event(1, id, n, EventKind::Completed, Status::Completed);
    let events = vec![done(1, 1), done(2, 2)];
    store.report(DeviceId::from_dice(1), events, 0).await.unwrap();
    let second = client(2);
    store.add_client(DeviceId::from_dice(2), second).await.unwrap();
    assert_eq!(pending(store, one).await, ["0003"]);
    assert_eq!(pending(store, two).await, ["0001", "0002", "0003"]);
    let listed = store.migrations(app("notes")).await.unwrap().unwrap();
    let counts: Vec<u32> = listed.iter().map(|m| m.completed).collect();
    assert_eq!(counts, [1, 1, 0]);
}

pub(crate) async fn a_report_counts_once_and_never_changes(store: &dyn Store) {
    publish_up_to(store, 2).await;
    device(store, 1, "notes").await;
    let device = DeviceId::from_dice(1);
    let started = event(1, 1, 1, EventKind::Started, Status::Running);
    let done = event(1, 2, 1, EventKind::Completed, Status::Completed);
    let batch = vec![started.clone(), done.clone()];
    for _ in 0..2 {
        let ids = store.report(device, batch.clone(), 0).await.unwrap();
        assert_eq!(ids, [started.event_id, done.event_id]);
    }
    // A copy that comes late changes nothing.
    store.report(device, vec![started.clone()], 0).await.unwrap();
    let detail = store.client(ClientId::from_dice(1)).await.unwrap().unwrap();
    assert_eq!(detail.history, [done.clone(), started.clone()]);
    assert_eq!(detail.migrations[0].status, Status::Completed);
    assert_eq!(detail.client.state.version, 1);

    let mut other = done.clone();
    other.attempt = 2;
    let fresh = event(1, 3, 2, EventKind::Completed, Status::Completed);
    let refused = store.report(device, vec![fresh, other], 0).await;
    assert_eq!(refused, Err(Refusal::EventDiffers(done.event_id).into()));
    let detail = store.client(ClientId::from_dice(1)).await.unwrap().unwrap();
    assert_eq!(detail.history.len(), 2, "a part of a refused batch stayed");
    assert_eq!(detail.client.state.version, 1);
}

pub(crate) async fn a_report_about_something_unpublished_is_kept(store: &dyn Store) {
    publish_up_to(store, 1).await;
    device(store, 1, "notes").await;
    let mut unknown = event(1, 1, 1, EventKind::Completed, Status::Completed);
    unknown.migration = "from_elsewhere".parse().unwrap();
    store.report(DeviceId::from_dice(1), vec![unknown], 0).await.unwrap();
    let detail = store.client(ClientId::from_dice(1)).await.unwrap().unwrap();
    assert_eq!((detail.history.len(), detail.migrations.len()), (1, 1));
    assert_eq!(detail.client.state.version, 0, "it is not our version 1");
    assert_eq!(pending(store, ClientId::from_dice(1)).await, ["0001"]);
}

pub(crate) async fn a_restored_file_is_believed(store: &dyn Store) {
    publish_up_to(store, 3).await;
    device(store, 1, "notes").await;
    let (device, id) = (DeviceId::from_dice(1), ClientId::from_dice(1));
    for version in 1..=3u32 {
        let done = event(1, version.into(), version, EventKind::Completed, Status::Completed);
        store.report(device, vec![done], 0).await.unwrap();
    }
    assert_eq!(pending(store, id).await, [""; 0]);
    store.save_state(device, state(&[(1, 1)])).await.unwrap();
    assert_eq!(pending(store, id).await, ["0002", "0003"]);
    let again = event(1, 4, 2, EventKind::Completed, Status::Completed);
    store.report(device, vec![again], 0).await.unwrap();
    assert_eq!(pending(store, id).await, ["0003"]);
    let undone = event(1, 5, 2, EventKind::Reverted, Status::Reverted);
    store.report(device, vec![undone], 0).await.unwrap();
    assert_eq!(pending(store, id).await, ["0002", "0003"]);
}

pub(crate) async fn a_seed_flag_counts_once(store: &dyn Store) {
    publish_up_to(store, 3).await;
    device(store, 1, "notes").await;
    let client = store.add_client(DeviceId::from_dice(1), client(1)).await.unwrap();
    let other = ClientRef { client_id: ClientId::from_dice(2), app: app("notes") };
    let same = store.add_client(DeviceId::from_dice(1), other).await.unwrap();
    assert_eq!(same, client);
    let flag = async |id, name: &str, error: Option<&str>| {
        let flag = SeedStatus { migration_name: name.parse().unwrap(), applied: error.is_none(), error: error.map(str::to_owned) };
        let id = EventId::from_dice(id);
        let stored = store.report_flag(client.clone(), flag, id, 7).await.unwrap();
        stored == Some(id)
    };
    assert!(flag(1, "0001", Some("no such table")).await);
    assert!(!flag(2, "0001", Some("no such table")).await);
    assert!(flag(3, "0002", None).await);
    assert!(!flag(4, "0002", None).await);
    assert!(flag(5, "never_published", None).await);
    // It failed at 1 and went on: 2 is in place, 1 is not, and neither is forgotten.
    assert_eq!(pending(store, client.client_id).await, ["0001", "0003"]);
    let found = store.client(client.client_id).await.unwrap().unwrap();
    assert_eq!(found.client.pending, 2);
    assert_eq!(found.client.state.status, Status::Failed);
    let listed = store.migrations(app("notes")).await.unwrap().unwrap();
    let counts: Vec<_> = listed.iter().map(|m| (m.completed, m.failed)).collect();
    assert_eq!(counts, [(0, 1), (1, 0), (0, 0)]);
}

pub(crate) async fn two_publishers_on_the_same_targets_cannot_both_win(store: &dyn Store) {
    publish_up_to(store, 1).await;
    let before = store.targets(app("notes")).await.unwrap().unwrap();
    let first = publication(&before, 2);
    let second = publication(&before, 3);
    store.publish(first).await.unwrap();
    let after = store.targets(app("notes")).await.unwrap().unwrap();
    let lost = store.publish(second).await;
    assert_eq!(lost, Err(Refusal::PublishRace(app("notes")).into()));
    assert_eq!(store.targets(app("notes")).await.unwrap().unwrap(), after);
    let (digest, body) = store.target(app("notes"), "0002.r1.json".to_owned()).await.unwrap().unwrap();
    assert_eq!(digest, Digest::of(&body));
    assert_eq!(body, chain(2)[1].body.as_bytes());
    let third = store.target(app("notes"), "0003.r1.json".to_owned()).await;
    assert_eq!(third, Ok(None));
}

pub(crate) async fn a_plan_sequence_grows_with_every_change_and_only_then(store: &dyn Store) {
    publish_up_to(store, 3).await;
    device(store, 1, "notes").await;
    let state = state(&[(1, 2)]);
    store.save_state(DeviceId::from_dice(1), state).await.unwrap();
    let plan = async || -> Plan {
        let (_, poll) = store.poll(secret(1), 0).await.unwrap().unwrap();
        poll.plans[0].clone()
    };
    let set = async |client: Option<u128>, order| {
        let request = PlanRequest { app: app("notes"), client_id: client.map(ClientId::from_dice), order };
        store.set_plan(request, "ops".to_owned(), 1).await
    };
    let up = |version| Order::ApplyUpTo { version };
    let first = plan().await;
    assert_eq!(first.order, up(3));
    set(None, Some(up(1))).await.unwrap();
    let pinned = plan().await;
    assert_eq!(pinned.order, up(1));
    assert!(pinned.plan_seq > first.plan_seq);
    set(None, Some(up(1))).await.unwrap();
    assert_eq!(plan().await, pinned);
    let down = Order::RevertDownTo { version: 1 };
    let answer = set(Some(1), Some(down)).await.unwrap();
    assert_eq!((answer.clients.len(), answer.pinned), (1, true));
    let own = plan().await;
    assert_eq!(own.order, down);
    assert!(own.plan_seq > pinned.plan_seq);
    set(Some(1), None).await.unwrap();
    set(None, None).await.unwrap();
    let free = plan().await;
    assert_eq!(free.order, up(3));
    assert!(free.plan_seq > own.plan_seq);
    publish_up_to(store, 4).await;
    assert_eq!(plan().await.order, up(4));
    assert!(plan().await.plan_seq > free.plan_seq);

    // By the clock: what a backup has forgotten is not numbered again. A clock that went back does not take numbers back.
    for (now_ms, own) in [(2_000_000_000_000, None), (1_000, Some(1)), (1_000, Some(1)), (3_000_000_000_000, None)] {
        let before = plan().await;
        let other = if before.order == up(1) { up(2) } else { up(1) };
        let request = PlanRequest { app: app("notes"), client_id: own.map(ClientId::from_dice), order: Some(other) };
        store.set_plan(request, "ops".to_owned(), now_ms).await.unwrap();
        let seq = plan().await.plan_seq;
        assert!(seq > before.plan_seq && seq >= now_ms as u64 / 1000, "{seq} after {}", before.plan_seq);
    }
    for own in [Some(1), None] {
        set(own, None).await.unwrap();
    }

    assert!(set(None, Some(up(5))).await.is_err());
    assert!(set(Some(9), Some(up(1))).await.is_err());
    let page = Page { before: None, limit: 500 };
    let audit = store.audit(page).await.unwrap().entries;
    let plans = audit.iter().filter(|e| e.action == "plan").count();
    assert_eq!(plans, 10, "one line per change, none for what changed nothing");
}

pub(crate) async fn a_revision_is_kept_beside_what_it_mends_and_given_to_those_that_lack_it(store: &dyn Store) {
    publish_up_to(store, 2).await;
    device(store, 1, "notes").await;
    store.save_state(DeviceId::from_dice(1), state(&[(1, 1), (2, 2)])).await.unwrap();
    let slot = chain(2).remove(1);
    let current: Targets = serde_json::from_slice(&store.targets(app("notes")).await.unwrap().unwrap()).unwrap();
    let mended = publish::tests::revision(&slot, 2, "CREATE TABLE IF NOT EXISTS t2(x);");
    let accepted = publish::decide(&current, vec![mended.clone()]).unwrap();
    let publication = Publication {
        decided_on: current.version,
        targets: accepted.targets,
        latest: 2,
        links: accepted.new,
        signing: None,
        by: "ci".to_owned(),
        now_ms: 0,
    };
    store.publish(publication).await.unwrap();
    for link in [&slot, &mended] {
        let (digest, body) = store.target(app("notes"), link.target.path()).await.unwrap().unwrap();
        assert_eq!((digest, body), (link.target.digest(), link.body.clone().into_bytes()));
    }
    let asked = store.pending(ClientId::from_dice(1)).await.unwrap();
    assert_eq!(asked.iter().flat_map(|m| m.up_queries.clone()).collect::<Vec<_>>(), ["CREATE TABLE IF NOT EXISTS t2(x);"]);
    assert!(pending(store, ClientId::from_dice(2)).await.is_empty(), "who has completed version 2 is done");
}

pub(crate) async fn a_time_last_seen_never_goes_back(store: &dyn Store) {
    device(store, 1, "notes").await;
    let id = DeviceId::from_dice(1);
    store.save_state(id, state(&[(1, 0)])).await.unwrap();
    for at_ms in [500, 300] {
        store.save_seen(vec![(id, at_ms)]).await.unwrap();
    }
    let page = ClientsPage { limit: 1, ..ClientsPage::default() };
    let found = store.clients(page).await.unwrap().clients.remove(0);
    assert_eq!(found.last_seen_ms, 500);
    assert_eq!(found.device_name, "host");
}

pub(crate) async fn lists_come_in_pages_that_miss_nothing(store: &dyn Store) {
    publish_up_to(store, 2).await;
    device(store, 1, "notes").await;
    let all: Vec<(u128, u32)> = (1..=7).map(|n| (n, u32::from(n % 2 == 0) * 2)).collect();
    let device = DeviceId::from_dice(1);
    store.save_state(device, state(&all)).await.unwrap();
    let read = async |outdated| {
        let (mut after, mut ids) = (None, Vec::new());
        loop {
            let page = ClientsPage { app: Some(app("notes")), outdated, after, limit: 3 };
            let answer = store.clients(page).await.unwrap();
            ids.extend(answer.clients.iter().map(|c| c.state.client_id));
            after = answer.next;
            if after.is_none() {
                return ids;
            }
        }
    };
    assert_eq!(read(false).await.len(), 7);
    assert_eq!(read(true).await.len(), 4);
    let events: Vec<Event> = (1..=5).map(|n| event(1, n, 1, EventKind::Retried, Status::Pending)).collect();
    store.report(device, events, 0).await.unwrap();
    let (mut before, mut seen) = (None, Vec::new());
    loop {
        let page = Page { before, limit: 2 };
        let answer = store.history(ClientId::from_dice(1), page).await.unwrap().unwrap();
        seen.extend(answer.events.iter().map(|e| e.event_id));
        before = answer.next;
        if before.is_none() {
            break;
        }
    }
    let newest_first: Vec<_> = (1..=5).rev().map(EventId::from_dice).collect();
    assert_eq!(seen, newest_first);
}

fn app(name: &str) -> AppName {
    name.parse().unwrap()
}

fn secret(n: u128) -> Digest {
    Digest::of(&n.to_be_bytes())
}

fn client(n: u128) -> ClientRef {
    ClientRef { client_id: ClientId::from_dice(n), app: app("notes") }
}

fn enrolment(device: u128, token: u128, known: Option<(DeviceId, Digest)>) -> Enrolment {
    Enrolment {
        id: None,
        token: secret(token),
        known,
        fresh: (DeviceId::from_dice(device), secret(device)),
        name: "host".to_owned(),
        daemon_version: "0.1.0".to_owned(),
        now_ms: 0,
    }
}

async fn token(store: &dyn Store, n: u128, name: &str, uses: u32, expires_at_ms: i64) -> i64 {
    let token = NewToken { hash: secret(n), app: app(name), space: Default::default(), uses, now_ms: 0, expires_at_ms };
    store.create_token(token).await.unwrap()
}

async fn device(store: &dyn Store, n: u128, name: &str) {
    token(store, 1_000 + n, name, 1, i64::MAX).await;
    store.enroll(enrolment(n, 1_000 + n, None)).await.unwrap();
}

fn state(databases: &[(u128, u32)]) -> StateRequest {
    let database = |(n, version): &(u128, u32)| DatabaseState {
        client_id: ClientId::from_dice(*n),
        app: app("notes"),
        file_name: "notes.db".to_owned(),
        epoch: 1,
        version: *version,
        head: None,
        fingerprint: None,
        pending: 0,
        status: Status::Completed,
        app_version: None,
        app_sqlite: None,
        health: Vec::new(),
        progress: None,
    };
    StateRequest { daemon_version: "0.1.0".to_owned(), labels: Default::default(), databases: databases.iter().map(database).collect() }
}

fn event(client: u128, id: u128, version: u32, kind: EventKind, status: Status) -> Event {
    Event {
        event_id: EventId::from_dice(id),
        client_id: ClientId::from_dice(client),
        app: app("notes"),
        kind,
        operation: Operation::Apply,
        migration: format!("{version:04}").parse().unwrap(),
        version,
        revision: 1,
        digest: Digest::of(b""),
        status,
        attempt: 1,
        by: AskedBy::Plan,
        at_ms: 1,
        took_ms: None,
        failure: None,
        fingerprint: None,
        rows: None,
        verify_skipped: false,
    }
}

async fn publish_up_to(store: &dyn Store, versions: u32) {
    let before = match store.targets(app("notes")).await.unwrap() {
        Some(bytes) => bytes,
        None => publish::bytes(&publish::nothing_published(&app("notes"))),
    };
    store.publish(publication(&before, versions)).await.unwrap();
}

fn publication(before: &[u8], versions: u32) -> Publication {
    let current: Targets = serde_json::from_slice(before).unwrap();
    let accepted = publish::decide(&current, chain(versions)).unwrap();
    Publication {
        decided_on: current.version,
        targets: accepted.targets,
        latest: accepted.latest,
        links: accepted.new,
        signing: None,
        by: "ci".to_owned(),
        now_ms: 0,
    }
}

async fn pending(store: &dyn Store, id: ClientId) -> Vec<String> {
    let pending = store.pending(id).await.unwrap();
    assert!(pending.iter().all(|m| !m.client_applied));
    pending.iter().map(|m| m.migration_name.to_string()).collect()
}
