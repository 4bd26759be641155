//! The task queue of the seed systems in a key-value store: its old layout (one shared list), its new one (a key per task),
//! the move from one to the other, and back. Pure: the store is an argument.
//!
//! | old | new |
//! |---|---|
//! | `orchestrator:pending` → `["a", "b"]` | nothing: tasks are found by their prefix |
//! | `orchestrator:queue:a` → the task | `queue:task:a` |
//! | `orchestrator:lease:a` → who holds it | `queue:lease:a` |
//!
//! Each entry is copied, read back, compared, and only then removed from the old place; one that fails is named and left
//! where it is, and the rest goes on. `queue:moved` keeps the old list until the move is finished, so that a rollback
//! brings it back as it was. Until then whoever reads the queue reads both layouts ([`tasks`]).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The old list.
pub const OLD_LIST: &str = "orchestrator:pending";
/// Front of the old tasks' keys.
pub const OLD_TASK: &str = "orchestrator:queue:";
/// Front of the old leases' keys.
pub const OLD_LEASE: &str = "orchestrator:lease:";
/// Front of the new tasks' keys.
pub const NEW_TASK: &str = "queue:task:";
/// Front of the new leases' keys.
pub const NEW_LEASE: &str = "queue:lease:";
/// What a rollback needs to know. There until the move is finished.
pub const MOVED: &str = "queue:moved";
/// The old list as it was, beside it.
pub const MOVED_LIST: &str = "queue:moved:list";

/// A key-value store, as far as the move needs one. What was done since the last [`keep`](Self::keep) is kept or dropped
/// together.
pub trait KeyValue {
    /// Why it failed; shown beside the entry that it was about.
    type Error: std::fmt::Display;
    /// Every key with that front, in order.
    fn keys(&self, front: &str) -> Result<Vec<String>, Self::Error>;
    /// A key's value.
    fn get(&self, key: &str) -> Result<Option<String>, Self::Error>;
    /// Sets a key.
    fn put(&mut self, key: &str, value: &str) -> Result<(), Self::Error>;
    /// Gives `to` everything that `from` has: its value, and whatever else the store keeps beside it (an expiry).
    fn copy(&mut self, from: &str, to: &str) -> Result<(), Self::Error>;
    /// Removes a key.
    fn remove(&mut self, key: &str) -> Result<(), Self::Error>;
    /// Makes what was done so far last.
    fn keep(&mut self) -> Result<(), Self::Error>;
    /// Forgets what was done since it was last kept.
    fn forget(&mut self);
}

/// How a store stands. The seed's `GET /api/migrate/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusAnswer {
    /// Always true: what fails is an error.
    pub success: bool,
    /// What is where.
    pub status: Counts,
    /// Whether anything is in the old layout.
    pub needs_migration: bool,
    /// What to do.
    pub recommendation: String,
}

/// What is where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Whether there is a list, a task or a lease in the old layout.
    pub old_format_exists: bool,
    /// Whether there is a task or a lease in the new one.
    pub new_format_exists: bool,
    /// Tasks in the old one.
    pub old_task_count: usize,
    /// Tasks in the new one.
    pub new_task_count: usize,
    /// Leases in the old one.
    pub old_lease_count: usize,
    /// Leases in the new one.
    pub new_lease_count: usize,
    /// Whether the move can still be rolled back: it was run and not finished.
    pub can_roll_back: bool,
}

/// How the move went. The seed's `POST /api/migrate/run`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunAnswer {
    /// Whether everything went over.
    pub success: bool,
    /// In words.
    pub message: String,
    /// Of the tasks.
    pub tasks: Moved,
    /// Of the leases.
    pub leases: Moved,
    /// Both together.
    pub total_migrated: usize,
    /// Both together.
    pub total_failed: usize,
    /// Every error of both, and of the list.
    pub errors: Vec<String>,
}

/// How many went over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Written, verified and removed from the old place.
    pub migrated: usize,
    /// Left where they are.
    pub failed: usize,
    /// Why, one line each.
    pub errors: Vec<String>,
}

/// How the rollback went. The seed's `POST /api/migrate/rollback`, which only deleted; this one brings everything back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackAnswer {
    /// Whether everything went back.
    pub success: bool,
    /// In words.
    pub message: String,
    /// Keys of the new layout that are gone; each is back in the old one.
    pub deleted: usize,
    /// What a person should know.
    pub note: String,
    /// Why, for those that are still in the new one.
    pub errors: Vec<String>,
}

/// How the end of the move went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishAnswer {
    /// Whether the old layout is gone for good.
    pub success: bool,
    /// In words.
    pub message: String,
    /// Ids of the old list that had no task; nothing could be moved for them.
    pub dropped: Vec<String>,
    /// What is still in the old layout, and keeps the move open.
    pub left: Vec<String>,
}

/// What [`MOVED`] holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Before {
    /// The ids of the old list, and of those that came to it between two runs.
    order: Vec<String>,
    /// Those of them that had no task then.
    absent: BTreeSet<String>,
    /// Tasks that were in no list then.
    unlisted: BTreeSet<String>,
}

/// A store in which something is in the way: it cannot be read at all, or the list is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The store itself.
    #[error("the key-value store cannot be used: {0}")]
    Store(String),
    /// A list of ours or of theirs.
    #[error("{key} does not hold a list of task ids: {why}")]
    List {
        /// Which key.
        key: &'static str,
        /// What is wrong.
        why: String,
    },
    /// There is nothing to go back to.
    #[error("the move was not run here, or it was finished: there is nothing to roll back")]
    NothingToRollBack,
}

fn store<E: std::fmt::Display>(error: E) -> QueueError {
    QueueError::Store(error.to_string())
}

/// Ids of every task, whichever layout it is in: in the order of the old list, then those that are found by their keys.
pub fn tasks<K: KeyValue>(kv: &K) -> Result<Vec<String>, QueueError> {
    let before = before(kv)?;
    let there: BTreeSet<String> = ids(kv, OLD_TASK)?.into_iter().chain(ids(kv, NEW_TASK)?).collect();
    let mut ordered: Vec<String> = Vec::new();
    let mut seen = BTreeSet::new();
    for id in list(kv)?.unwrap_or_default().into_iter().chain(before.map(|b| b.order).unwrap_or_default()).chain(there.iter().cloned()) {
        if there.contains(&id) && seen.insert(id.clone()) {
            ordered.push(id);
        }
    }
    Ok(ordered)
}

/// Looks. Writes nothing.
pub fn status<K: KeyValue>(kv: &K) -> Result<StatusAnswer, QueueError> {
    let (old_tasks, new_tasks) = (ids(kv, OLD_TASK)?, ids(kv, NEW_TASK)?);
    let (old_leases, new_leases) = (ids(kv, OLD_LEASE)?, ids(kv, NEW_LEASE)?);
    let old = list(kv)?.is_some() || !old_tasks.is_empty() || !old_leases.is_empty();
    let new = !new_tasks.is_empty() || !new_leases.is_empty();
    let can_roll_back = before(kv)?.is_some();
    let recommendation = match (old, can_roll_back, new) {
        (true, false, _) => "Run migration to move to new format",
        (true, true, _) => "Run migration again to move the rest; the errors of the last run say what is in the way",
        (false, true, _) => "Verify that the new format works, then finish",
        (false, false, true) => "Nothing to do: the queue is in the new format",
        (false, false, false) => "Nothing to do: there is no queue here",
    };
    Ok(StatusAnswer {
        success: true,
        status: Counts {
            old_format_exists: old,
            new_format_exists: new,
            old_task_count: old_tasks.len(),
            new_task_count: new_tasks.len(),
            old_lease_count: old_leases.len(),
            new_lease_count: new_leases.len(),
            can_roll_back,
        },
        needs_migration: old,
        recommendation: recommendation.to_owned(),
    })
}

/// Moves every task and lease to the new layout. Running it again moves what was left. The old list stays as long as a task
/// that it names is not over.
pub fn run<K: KeyValue>(kv: &mut K) -> Result<RunAnswer, QueueError> {
    let old_list = list(kv)?;
    let mut tasks = Moved::default();
    let mut wanted = old_list.clone().unwrap_or_default();
    let there = ids(kv, OLD_TASK)?;
    let leases = ids(kv, OLD_LEASE)?;
    if old_list.is_some() || !there.is_empty() || !leases.is_empty() {
        remember(kv, old_list.as_deref())?;
    }
    // Tasks that the list does not name (somebody died between two writes) would be lost with it.
    let listed: BTreeSet<String> = wanted.iter().cloned().collect();
    wanted.extend(there.iter().filter(|id| !listed.contains(*id)).cloned());
    let mut over = BTreeSet::new();
    for id in wanted {
        if over.contains(&id) {
            continue;
        }
        match transfer(kv, &format!("{OLD_TASK}{id}"), &format!("{NEW_TASK}{id}")) {
            Ok(Transfer::Done) => {
                tasks.migrated += 1;
                over.insert(id);
            }
            // An earlier run moved it, or a worker made it there.
            Ok(Transfer::ThereAlready) => drop(over.insert(id)),
            Ok(Transfer::Missing) => tasks.errors.push(format!("Task {id}: not found in old queue")),
            Err(why) => tasks.errors.push(format!("Task {id}: {why}")),
        }
    }
    let mut moved_leases = Moved::default();
    for id in leases {
        match transfer(kv, &format!("{OLD_LEASE}{id}"), &format!("{NEW_LEASE}{id}")) {
            Ok(Transfer::Done) => moved_leases.migrated += 1,
            Ok(Transfer::ThereAlready | Transfer::Missing) => {}
            Err(why) => moved_leases.errors.push(format!("Lease {id}: {why}")),
        }
    }
    (tasks.failed, moved_leases.failed) = (tasks.errors.len(), moved_leases.errors.len());
    let mut errors: Vec<String> = tasks.errors.iter().chain(&moved_leases.errors).cloned().collect();
    if let Some(ids) = old_list {
        let left: Vec<String> = ids.into_iter().filter(|id| !over.contains(id)).collect();
        if let Err(error) = shorten(kv, &left) {
            kv.forget();
            errors.push(format!("{OLD_LIST}: {error}"));
        }
    }
    let (total_migrated, total_failed) = (tasks.migrated + moved_leases.migrated, tasks.failed + moved_leases.failed);
    let message = match (total_migrated, errors.len()) {
        (0, 0) => "Nothing to migrate".to_owned(),
        (_, 0) => "Migration completed successfully".to_owned(),
        (_, failed) => format!("Migration completed, {failed} failed"),
    };
    Ok(RunAnswer { success: errors.is_empty(), message, tasks, leases: moved_leases, total_migrated, total_failed, errors })
}

/// Brings every task and lease back to the old layout, those that came since the move too, and the old list as it was, with
/// what is new at its end.
pub fn rollback<K: KeyValue>(kv: &mut K) -> Result<RollbackAnswer, QueueError> {
    let Some(before) = before(kv)? else { return Err(QueueError::NothingToRollBack) };
    let mut errors = Vec::new();
    let mut deleted = 0;
    for (new, old, what) in [(NEW_TASK, OLD_TASK, "Task"), (NEW_LEASE, OLD_LEASE, "Lease")] {
        for id in ids(kv, new)? {
            match transfer(kv, &format!("{new}{id}"), &format!("{old}{id}")) {
                Ok(Transfer::Done | Transfer::ThereAlready) => deleted += 1,
                Ok(Transfer::Missing) => {}
                Err(why) => errors.push(format!("{what} {id}: {why}")),
            }
        }
    }
    if let Err(error) = restore_list(kv, &before, errors.is_empty()) {
        kv.forget();
        errors.push(format!("{OLD_LIST}: {error}"));
    }
    let message = if errors.is_empty() { "Rollback completed".to_owned() } else { format!("Rollback completed, {} failed", errors.len()) };
    let note = "Every entry is back in the old format; workers of the old version find them there".to_owned();
    Ok(RollbackAnswer { success: errors.is_empty(), message, deleted, note, errors })
}

/// Ends the time of two layouts: nothing reads the old one any more, and there is no way back. Refused (`success` is
/// false) while a task or lease is still in the old one.
pub fn finish<K: KeyValue>(kv: &mut K) -> Result<FinishAnswer, QueueError> {
    let left: Vec<String> =
        [OLD_TASK, OLD_LEASE].iter().map(|front| kv.keys(front).map_err(store)).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    if !left.is_empty() {
        let message = format!("{} entries are still in the old format", left.len());
        return Ok(FinishAnswer { success: false, message, dropped: Vec::new(), left });
    }
    let there: BTreeSet<String> = ids(kv, NEW_TASK)?.into_iter().collect();
    let dropped: Vec<String> = list(kv)?.unwrap_or_default().into_iter().filter(|id| !there.contains(id)).collect();
    let ended = kv.remove(OLD_LIST).and_then(|()| kv.remove(MOVED)).and_then(|()| kv.remove(MOVED_LIST)).and_then(|()| kv.keep());
    if let Err(error) = ended {
        kv.forget();
        return Err(store(error));
    }
    Ok(FinishAnswer { success: true, message: "The old format is gone".to_owned(), dropped, left })
}

/// What became of one entry.
enum Transfer {
    /// It is over.
    Done,
    /// It was over already; the old one, if it was still there, is gone now.
    ThereAlready,
    /// It is in neither place.
    Missing,
}

/// Copies, reads back, compares, removes, keeps. After an error the entry is where it was.
fn transfer<K: KeyValue>(kv: &mut K, from: &str, to: &str) -> Result<Transfer, String> {
    let done = try_transfer(kv, from, to);
    if done.is_err() {
        kv.forget();
    }
    done
}

fn try_transfer<K: KeyValue>(kv: &mut K, from: &str, to: &str) -> Result<Transfer, String> {
    let text = |error: K::Error| error.to_string();
    let (old, new) = (kv.get(from).map_err(text)?, kv.get(to).map_err(text)?);
    let Some(old) = old else { return Ok(if new.is_some() { Transfer::ThereAlready } else { Transfer::Missing }) };
    let was_there = match new {
        // Somebody wrote it there since: which of the two is right is not ours to say.
        Some(new) if new != old => return Err(format!("{to} is there with other content")),
        Some(_) => true,
        None => {
            kv.copy(from, to).map_err(text)?;
            false
        }
    };
    if kv.get(to).map_err(text)?.as_ref() != Some(&old) {
        return Err("Failed to verify new key write".to_owned());
    }
    kv.remove(from).map_err(text)?;
    kv.keep().map_err(text)?;
    Ok(if was_there { Transfer::ThereAlready } else { Transfer::Done })
}

/// Keeps the old list for a rollback, before anything moves. A list that grew since an earlier run adds its new ids.
fn remember<K: KeyValue>(kv: &mut K, now: Option<&[String]>) -> Result<(), QueueError> {
    let before = before(kv)?;
    let first = before.is_none();
    let mut before = before.unwrap_or_default();
    let old: BTreeSet<String> = ids(kv, OLD_TASK)?.into_iter().collect();
    let there: BTreeSet<String> = ids(kv, NEW_TASK)?.into_iter().chain(old.iter().cloned()).collect();
    let new: Vec<String> = now.unwrap_or_default().iter().filter(|id| !before.order.contains(id)).cloned().collect();
    let unlisted: BTreeSet<String> = old.into_iter().filter(|id| !before.order.contains(id) && !new.contains(id)).collect();
    if !first && new.is_empty() && unlisted.is_subset(&before.unlisted) {
        return Ok(());
    }
    before.unlisted.extend(unlisted);
    before.absent.extend(new.iter().filter(|id| !there.contains(*id)).cloned());
    before.order.extend(new);
    let text = serde_json::to_string(&before).expect("our own types have text keys");
    let list = if first && now.is_some() { kv.copy(OLD_LIST, MOVED_LIST) } else { Ok(()) };
    let kept = list.and_then(|()| kv.put(MOVED, &text)).and_then(|()| kv.keep());
    kept.map_err(|error| {
        kv.forget();
        store(error)
    })
}

/// Leaves in the old list only what is not over.
fn shorten<K: KeyValue>(kv: &mut K, left: &[String]) -> Result<(), K::Error> {
    if left.is_empty() {
        kv.remove(OLD_LIST)?;
    } else {
        kv.put(OLD_LIST, &serde_json::to_string(left).expect("texts are JSON"))?;
    }
    kv.keep()
}

/// Puts the old list back: as it was where it still says what is there, else anew. With `whole`, the rollback is over.
fn restore_list<K: KeyValue>(kv: &mut K, before: &Before, whole: bool) -> Result<(), String> {
    let text = |error: K::Error| error.to_string();
    let there = ids(kv, OLD_TASK).map_err(|e| e.to_string())?;
    let now = list(kv).map_err(|e| e.to_string())?;
    // A task that was done in the meantime is in neither layout, and no list may name it.
    let is_there = |id: &&String| there.contains(id) || before.absent.contains(*id);
    let mut seen = BTreeSet::new();
    let since = there.iter().filter(|id| !before.unlisted.contains(*id));
    let wanted: Vec<&String> = before.order.iter().filter(is_there).chain(now.iter().flatten()).chain(since).filter(|id| seen.insert(*id)).collect();
    let as_it_was = parsed::<K, Vec<String>>(kv, MOVED_LIST).map_err(|e| e.to_string())?;
    match as_it_was {
        Some(list) if list.iter().collect::<Vec<_>>() == wanted => {
            kv.remove(OLD_LIST).and_then(|()| kv.copy(MOVED_LIST, OLD_LIST)).map_err(text)?;
        }
        None if wanted.is_empty() => kv.remove(OLD_LIST).map_err(text)?,
        Some(_) | None => kv.put(OLD_LIST, &serde_json::to_string(&wanted).expect("texts are JSON")).map_err(text)?,
    }
    if whole {
        kv.remove(MOVED).and_then(|()| kv.remove(MOVED_LIST)).map_err(text)?;
    }
    kv.keep().map_err(text)
}

fn ids<K: KeyValue>(kv: &K, front: &str) -> Result<Vec<String>, QueueError> {
    let keys = kv.keys(front).map_err(store)?;
    Ok(keys.into_iter().filter_map(|key| key.strip_prefix(front).map(str::to_owned)).collect())
}

fn list<K: KeyValue>(kv: &K) -> Result<Option<Vec<String>>, QueueError> {
    parsed(kv, OLD_LIST)
}

fn before<K: KeyValue>(kv: &K) -> Result<Option<Before>, QueueError> {
    parsed(kv, MOVED)
}

fn parsed<K: KeyValue, T: for<'de> Deserialize<'de>>(kv: &K, key: &'static str) -> Result<Option<T>, QueueError> {
    let Some(text) = kv.get(key).map_err(store)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|why| QueueError::List { key, why: why.to_string() })
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
