//! The queue of a seed system in a key-value store that the command line names: no daemon is needed. `--json` prints the
//! seed's own shapes.

use serde::Serialize;
use whimbrel_shared::{
    queue::{self, QueueError},
    remedy::here,
};

use crate::cli::{
    error::{CliError, ExitCode},
    look::{clean, count},
    output::Output,
};
use crate::migrate::adopt::queue::{Columns, KvError, Place, Store};

/// `schema` of what `adopt … --kv … --json` prints; the rest are the seed's fields.
const QUEUE_SCHEMA: &str = "whimbrel.queue/1";

/// What `status --tasks --json` prints.
#[derive(Debug, Serialize)]
struct Tasks<'a> {
    /// Their ids, in the order of the old list, then those that it does not name.
    tasks: &'a [String],
}

impl From<KvError> for CliError {
    fn from(error: KvError) -> Self {
        Self::failed(error.to_string(), error.remedy())
    }
}

impl From<QueueError> for CliError {
    fn from(error: QueueError) -> Self {
        let remedy = match &error {
            QueueError::Store(_) => here("look at the store, and run it again: what was moved stays moved"),
            QueueError::List { key, .. } => here(format!("is this the right table? Mend the value of {key}; nothing was moved")),
            QueueError::NothingToRollBack => here("`whimbrel adopt status` shows what is in which layout"),
        };
        Self::failed(error.to_string(), remedy)
    }
}

pub(super) fn status(place: &Place, columns: &Columns, out: &Output) -> Result<(), CliError> {
    let answer = queue::status(&Store::open(place, columns)?)?;
    let s = &answer.status;
    let layout = |name: &str, tasks: usize, leases: usize| format!("  {name} layout: {}, {}\n", many(tasks, "task"), many(leases, "lease"));
    let text = format!(
        "{}\n{}{}  {}\n",
        clean(&place.to_string()),
        layout("old", s.old_task_count, s.old_lease_count),
        layout("new", s.new_task_count, s.new_lease_count),
        answer.recommendation
    );
    print(out, &answer, &text, true)
}

pub(super) fn tasks(place: &Place, columns: &Columns, out: &Output) -> Result<(), CliError> {
    let tasks = queue::tasks(&Store::open(place, columns)?)?;
    let text: String = tasks.iter().map(|id| format!("{}\n", clean(id))).collect();
    print(out, &Tasks { tasks: &tasks }, &text, true)
}

pub(super) fn run(place: &Place, columns: &Columns, out: &Output) -> Result<(), CliError> {
    let mut store = Store::open(place, columns)?;
    let answer = queue::run(&mut store)?;
    store.save()?;
    let text = format!(
        "{}: {} and {} moved\n{}",
        answer.message,
        many(answer.tasks.migrated, "task"),
        many(answer.leases.migrated, "lease"),
        lines(&answer.errors)
    );
    print(out, &answer, &text, answer.success)?;
    out.say("both layouts are read until `whimbrel adopt finish`; `whimbrel adopt rollback` goes back");
    Ok(())
}

pub(super) fn rollback(place: &Place, columns: &Columns, out: &Output) -> Result<(), CliError> {
    let mut store = Store::open(place, columns)?;
    let answer = queue::rollback(&mut store)?;
    store.save()?;
    let text = format!("{}: {} went back to the old layout\n{}", answer.message, many(answer.deleted, "key"), lines(&answer.errors));
    print(out, &answer, &text, answer.success)
}

pub(super) fn finish(place: &Place, columns: &Columns, out: &Output) -> Result<(), CliError> {
    let mut store = Store::open(place, columns)?;
    let answer = queue::finish(&mut store)?;
    store.save()?;
    let dropped: Vec<String> = answer.dropped.iter().map(|id| format!("{id} was in the old list and had no task")).collect();
    let text = format!("{}\n{}{}", answer.message, lines(&answer.left), lines(&dropped));
    print(out, &answer, &text, answer.success)
}

fn print(out: &Output, answer: &impl Serialize, text: &str, well: bool) -> Result<(), CliError> {
    if out.is_json() {
        out.json(QUEUE_SCHEMA, answer)?;
    } else {
        out.text(text)?;
    }
    if well { Ok(()) } else { Err(CliError::told(ExitCode::Failed)) }
}

fn lines(items: &[String]) -> String {
    items.iter().map(|item| format!("  {}\n", clean(item))).collect()
}

fn many(n: usize, what: &str) -> String {
    count(n as u64, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{golden, output::document};

    #[test]
    fn json_has_the_seeds_fields_behind_the_schema() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv.json");
        let text = r#"{"orchestrator:pending": ["a", "b"], "orchestrator:queue:a": "{}", "orchestrator:lease:a": "{}"}"#;
        std::fs::write(&path, text).unwrap();
        let columns = Columns { table: "kv".into(), key: "key".into(), value: "value".into() };
        let mut store = Store::open(&Place::Json(path), &columns).unwrap();
        let mut said = document(QUEUE_SCHEMA, &queue::status(&store).unwrap()).unwrap();
        said += &document(QUEUE_SCHEMA, &queue::run(&mut store).unwrap()).unwrap();
        said += &document(QUEUE_SCHEMA, &queue::rollback(&mut store).unwrap()).unwrap();
        said += &document(QUEUE_SCHEMA, &queue::finish(&mut store).unwrap()).unwrap();
        golden::check("queue.json", &said);
    }
}
