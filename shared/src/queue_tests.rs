//! The move of a queue on a store that can fail at any call.

use std::{cell::Cell, collections::BTreeMap};

use proptest::prelude::*;

use super::*;

/// A store in memory. Keeps only what was kept; fails at the call that it is told to, or at every one on a key.
#[derive(Clone, Debug, Default)]
struct Memory {
    kept: BTreeMap<String, String>,
    now: BTreeMap<String, String>,
    bad_key: Option<String>,
    /// Writes until one fails.
    fails_in: Cell<Option<u32>>,
    /// Whether a copy loses what it copies.
    forgetful: bool,
}

impl Memory {
    fn of(entries: &[(&str, &str)]) -> Self {
        let map: BTreeMap<String, String> = entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Self { kept: map.clone(), now: map, ..Self::default() }
    }

    fn may_write(&self, key: &str) -> Result<(), String> {
        if self.bad_key.as_deref() == Some(key) {
            return Err("the disk says no".to_owned());
        }
        match self.fails_in.get() {
            Some(0) => {
                self.fails_in.set(None);
                Err("once".to_owned())
            }
            left => {
                self.fails_in.set(left.map(|n| n - 1));
                Ok(())
            }
        }
    }
}

impl KeyValue for Memory {
    type Error = String;
    fn keys(&self, front: &str) -> Result<Vec<String>, String> {
        Ok(self.now.keys().filter(|k| k.starts_with(front)).cloned().collect())
    }
    fn get(&self, key: &str) -> Result<Option<String>, String> {
        Ok(self.now.get(key).cloned())
    }
    fn put(&mut self, key: &str, value: &str) -> Result<(), String> {
        self.may_write(key)?;
        self.now.insert(key.to_owned(), value.to_owned());
        Ok(())
    }
    fn copy(&mut self, from: &str, to: &str) -> Result<(), String> {
        self.may_write(to)?;
        if !self.forgetful {
            let value = self.now[from].clone();
            self.now.insert(to.to_owned(), value);
        }
        Ok(())
    }
    fn remove(&mut self, key: &str) -> Result<(), String> {
        self.may_write(key)?;
        self.now.remove(key);
        Ok(())
    }
    fn keep(&mut self) -> Result<(), String> {
        self.may_write("")?;
        self.kept.clone_from(&self.now);
        Ok(())
    }
    fn forget(&mut self) {
        self.now.clone_from(&self.kept);
    }
}

/// The seed's example: five tasks, two leases, in the order in which they came.
fn seed() -> Memory {
    Memory::of(&[
        (OLD_LIST, r#"[ "task2","task1","task3","task5","task4"]"#),
        ("orchestrator:queue:task1", r#"{"id":"task1"}"#),
        ("orchestrator:queue:task2", "2"),
        ("orchestrator:queue:task3", "3"),
        ("orchestrator:queue:task4", "4"),
        ("orchestrator:queue:task5", "5"),
        ("orchestrator:lease:task1", "w1"),
        ("orchestrator:lease:task3", "w2"),
        ("elsewhere", "stays"),
    ])
}

#[test]
fn the_answers_have_the_seeds_shapes() {
    let mut kv = seed();
    let json = |value: &dyn erased::Json| value.json();
    assert_eq!(
        json(&status(&kv).unwrap()),
        r#"{"success":true,"status":{"oldFormatExists":true,"newFormatExists":false,"oldTaskCount":5,"newTaskCount":0,"oldLeaseCount":2,"newLeaseCount":0,"canRollBack":false},"needsMigration":true,"recommendation":"Run migration to move to new format"}"#
    );
    assert_eq!(
        json(&run(&mut kv).unwrap()),
        r#"{"success":true,"message":"Migration completed successfully","tasks":{"migrated":5,"failed":0,"errors":[]},"leases":{"migrated":2,"failed":0,"errors":[]},"totalMigrated":7,"totalFailed":0,"errors":[]}"#
    );
    let after = status(&kv).unwrap();
    assert_eq!((after.needs_migration, after.status.new_task_count, after.status.new_lease_count), (false, 5, 2));
    assert_eq!(
        json(&rollback(&mut kv).unwrap()),
        r#"{"success":true,"message":"Rollback completed","deleted":7,"note":"Every entry is back in the old format; workers of the old version find them there","errors":[]}"#
    );
    assert_eq!(kv.kept, seed().kept, "byte for byte as it was");
    assert_eq!(rollback(&mut kv), Err(QueueError::NothingToRollBack));
}

mod erased {
    pub(super) trait Json {
        fn json(&self) -> String;
    }
    impl<T: serde::Serialize> Json for T {
        fn json(&self) -> String {
            serde_json::to_string(self).unwrap()
        }
    }
}

#[test]
fn both_layouts_are_read_in_the_old_order_until_it_is_finished() {
    let mut kv = seed();
    let order = ["task2", "task1", "task3", "task5", "task4"];
    assert_eq!(tasks(&kv).unwrap(), order);
    kv.bad_key = Some("queue:task:task3".to_owned());
    run(&mut kv).unwrap();
    kv.now.insert("queue:task:new".to_owned(), "n".to_owned());
    assert_eq!(tasks(&kv).unwrap(), ["task3", "task2", "task1", "task5", "task4", "new"], "what is left of the list comes first");
    kv.bad_key = None;
    run(&mut kv).unwrap();
    assert_eq!(tasks(&kv).unwrap(), [&order[..], &["new"]].concat());
    assert!(finish(&mut kv).unwrap().success);
    assert_eq!(tasks(&kv).unwrap().len(), 6);
    assert!(!kv.kept.keys().any(|k| k.starts_with("orchestrator:") || k.starts_with(MOVED)), "{:?}", kv.kept);
    assert_eq!(rollback(&mut kv), Err(QueueError::NothingToRollBack));
}

#[test]
fn what_fails_is_named_left_where_it_is_and_stops_nothing() {
    let mut kv = seed();
    kv.now.remove("orchestrator:queue:task5");
    kv.now.insert("queue:task:task2".to_owned(), "another".to_owned());
    kv.kept.clone_from(&kv.now);
    kv.bad_key = Some("queue:lease:task3".to_owned());
    let answer = run(&mut kv).unwrap();
    assert_eq!(answer.tasks.errors, ["Task task2: queue:task:task2 is there with other content", "Task task5: not found in old queue"]);
    assert_eq!(answer.leases.errors, ["Lease task3: the disk says no"]);
    assert_eq!((answer.total_migrated, answer.total_failed, answer.success), (4, 3, false));
    assert_eq!(kv.kept["orchestrator:queue:task2"], "2");
    assert_eq!(kv.kept[OLD_LIST], r#"["task2","task5"]"#);

    let refused = finish(&mut kv).unwrap();
    assert_eq!(refused.left, ["orchestrator:queue:task2", "orchestrator:lease:task3"]);
    kv.bad_key = None;
    kv.now.remove("queue:task:task2");
    run(&mut kv).unwrap();
    assert_eq!(finish(&mut kv).unwrap().dropped, ["task5"], "an id without a task is named when its list goes");
}

#[test]
fn a_write_that_did_not_arrive_removes_nothing() {
    let mut kv = Memory { forgetful: true, ..seed() };
    kv.now.insert(MOVED.to_owned(), "{\"order\":[],\"absent\":[],\"unlisted\":[]}".to_owned());
    let answer = run(&mut kv).unwrap();
    assert_eq!(answer.tasks.errors[0], "Task task2: Failed to verify new key write");
    assert_eq!((answer.total_migrated, answer.total_failed), (0, 7));
    assert!(seed().kept.iter().filter(|(k, _)| *k != OLD_LIST).all(|(k, v)| kv.now.get(k) == Some(v)));
}

#[test]
fn a_rollback_brings_back_what_came_since_and_lists_nothing_that_is_done() {
    let mut kv = seed();
    run(&mut kv).unwrap();
    kv.now.insert("queue:task:new".to_owned(), "n".to_owned());
    kv.now.remove("queue:task:task1");
    let list: Vec<String> = {
        rollback(&mut kv).unwrap();
        serde_json::from_str(&kv.kept[OLD_LIST]).unwrap()
    };
    assert_eq!(list, ["task2", "task3", "task5", "task4", "new"]);
    assert_eq!(kv.kept["orchestrator:queue:new"], "n");
}

#[test]
fn a_list_that_is_none_is_refused_before_anything_moves() {
    let mut kv = seed();
    kv.now.insert(OLD_LIST.to_owned(), "{}".to_owned());
    let before = kv.now.clone();
    assert!(matches!(run(&mut kv), Err(QueueError::List { key: OLD_LIST, .. })));
    assert_eq!(kv.now, before);
}

proptest! {
    /// Whatever is in the store, and wherever one write fails: nothing is lost or changed, a second run moves the rest,
    /// and a rollback gives back every byte.
    #[test]
    fn nothing_is_lost_wherever_it_fails(
        tasks in prop::collection::btree_map("[a-c]{1,2}", "[xy]{0,3}", 0..6),
        leases in prop::collection::btree_map("[a-c]{1,2}", "[xy]{0,3}", 0..4),
        listed in prop::collection::vec("[a-d]{1,2}", 0..6),
        has_list: bool,
        fails_in in 0u32..60,
    ) {
        let mut kv = Memory::default();
        kv.now.extend(tasks.iter().map(|(k, v)| (format!("{OLD_TASK}{k}"), v.clone())));
        kv.now.extend(leases.iter().map(|(k, v)| (format!("{OLD_LEASE}{k}"), v.clone())));
        if has_list {
            let mut unique = listed.clone();
            unique.sort();
            unique.dedup();
            kv.now.insert(OLD_LIST.to_owned(), serde_json::to_string_pretty(&unique).unwrap());
        }
        kv.kept.clone_from(&kv.now);
        let before = kv.kept.clone();

        kv.fails_in.set(Some(fails_in));
        let _ = run(&mut kv);
        // The process dies here: only what was kept is left.
        kv.forget();
        kv.fails_in.set(None);
        for (old, new, was) in [(OLD_TASK, NEW_TASK, &tasks), (OLD_LEASE, NEW_LEASE, &leases)] {
            for (id, value) in was {
                let places = [kv.now.get(&format!("{old}{id}")), kv.now.get(&format!("{new}{id}"))];
                prop_assert!(places.contains(&Some(value)), "{id} is lost");
                prop_assert!(places.iter().flatten().all(|v| *v == value), "{id} changed");
            }
        }
        run(&mut kv).unwrap();
        prop_assert!(ids(&kv, OLD_TASK).unwrap().is_empty() && ids(&kv, OLD_LEASE).unwrap().is_empty());
        match rollback(&mut kv) {
            Ok(answer) => prop_assert!(answer.success),
            Err(why) => prop_assert_eq!(why, QueueError::NothingToRollBack),
        }
        prop_assert_eq!(&kv.kept, &before);
    }
}
