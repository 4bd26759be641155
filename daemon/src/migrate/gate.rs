//! What has to be true before a migration may run, besides its turn (DESIGN 7 "Gates"). Pure: each gate is a visible
//! `pending(reason)` with its remedy.

use std::{path::Path, str::FromStr, time::Duration};

use whimbrel_shared::{
    migration::{Link, Migration},
    protocol::state::{HealthItem, Severity},
    remedy::{Remedy, here, operator, wait},
    status::Operation,
};

use super::{estimate::Estimate, files::TempRoom};
use crate::config::Version;

/// Bytes that stay free beside what a migration is estimated to write.
const MARGIN_BYTES: u64 = 1024 * 1024;

/// What is known of the device and the database.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Whether a maintenance window is open; none when there is none to wait for.
    pub window_open: Option<bool>,
    /// When it opens next, in milliseconds since 1970.
    pub window_opens_ms: Option<i64>,
    /// A person's hold: none, or its end where it has one.
    pub hold: Option<Option<i64>>,
    /// The application's build.
    pub app_version: Option<String>,
    /// Version of the application's SQLite library.
    pub app_sqlite: Option<String>,
    /// Free bytes on the file's disk.
    pub free_bytes: Option<u64>,
    /// Room for what is sorted outside the file; none where the system does not say.
    pub temp: Option<TempRoom>,
    /// Whether a person asked for this run: then the window and the estimate are theirs to overrule.
    pub by_person: bool,
}

/// A health item.
pub fn item(code: &str, severity: Severity, message: impl Into<String>, remedy: Remedy) -> HealthItem {
    HealthItem { code: code.to_owned(), severity, message: message.into(), remedy }
}

/// Gates that stand before anything on this database.
pub fn database_gates(known: &Known, operation: Operation) -> Vec<HealthItem> {
    let mut closed = Vec::new();
    // A person's own revert goes through a hold: it is how one goes back and stays there.
    let overruled = known.by_person && operation == Operation::Revert;
    if let Some(until) = known.hold.filter(|_| !overruled) {
        closed.push(held(until));
    }
    if known.window_open == Some(false) && !known.by_person {
        let opens = known.window_opens_ms.map_or_else(|| "does not open again".to_owned(), |ms| format!("opens at {}", local(ms)));
        closed.push(item(
            "window",
            Severity::Info,
            format!("the maintenance window {opens}"),
            wait("it runs in the window; `whimbrel apply` runs it now"),
        ));
    }
    closed
}

/// A person's hold, until a time or until it is released.
pub fn held(until: Option<i64>) -> HealthItem {
    let end = until.map_or_else(String::new, |ms| format!(" until {}", local(ms)));
    item("held", Severity::Info, format!("a person holds this database{end}"), here("`whimbrel release` ends the hold"))
}

/// The publisher took it back after it was accepted here.
pub fn withdrawn(link: &Link) -> HealthItem {
    item(
        "withdrawn",
        Severity::Warning,
        format!("the publisher no longer lists {}: it does not run", link.name),
        operator("publish it again, or a version that takes its place"),
    )
}

/// Gates of one migration.
pub fn migration_gates(known: &Known, link: &Link, migration: &Migration, operation: Operation, estimate: &Estimate) -> Vec<HealthItem> {
    let mut closed = Vec::new();
    let name = &link.name;
    if let (Operation::Apply, Some(least)) = (operation, &migration.manifest.min_app) {
        match &known.app_version {
            None => closed.push(item(
                "app_version_unknown",
                Severity::Warning,
                format!("{name} needs the application at {least} or later, and its version is not known"),
                here("`whimbrel app set-version APP VERSION`, or `app_version` in the configuration, says it"),
            )),
            Some(found) if older(found, least) => closed.push(item(
                "min_app",
                Severity::Warning,
                format!("{name} needs the application at {least} or later; it is {found}"),
                here("update the application, then tell whimbrel its version"),
            )),
            Some(_) => {}
        }
    }
    if let (Operation::Apply, Some(least), Some(found)) = (operation, &link.min_sqlite, &known.app_sqlite)
        && older(found, least)
    {
        closed.push(item(
            "min_sqlite",
            Severity::Warning,
            format!("after {name} the file can only be read by SQLite {least} or later; the application has {found}"),
            here("update the application, then tell whimbrel the version of its SQLite"),
        ));
    }
    let limit = migration.manifest.max_lock.get();
    if estimate.lock > limit && !known.by_person {
        closed.push(item(
            "max_lock",
            Severity::Warning,
            format!("{name} is estimated to hold the write lock for {:?}; its max_lock is {limit:?}", estimate.lock),
            here("`whimbrel apply` runs it when the application can spare the file; or the publisher sets a larger max_lock"),
        ));
    }
    if let Some(free) = known.free_bytes {
        // An index that is sorted on the same disk needs its room there at the same time.
        let sorted = if known.temp.as_ref().is_some_and(|temp| temp.same_disk) { estimate.sort_bytes } else { 0 };
        let needed = estimate.write_bytes.saturating_add(sorted).saturating_add(MARGIN_BYTES);
        if free < needed {
            closed.push(item(
                "disk_full",
                Severity::Error,
                format!("{name} is estimated to write {} bytes; {needed} bytes are needed and {free} are free", estimate.write_bytes),
                here("free some disk space; it is tried again by itself"),
            ));
        }
    }
    if let Some(temp) = known.temp.as_ref().filter(|temp| !temp.same_disk && estimate.sort_bytes > 0) {
        let (needed, free) = (estimate.sort_bytes.saturating_add(MARGIN_BYTES), temp.free_bytes);
        if free < needed {
            closed.push(item(
                "disk_full",
                Severity::Error,
                format!("{name} sorts an index in {}: {needed} bytes are needed there and {free} are free", temp.directory.display()),
                here("free some space there, or name another directory in SQLITE_TMPDIR; it is tried again by itself"),
            ));
        }
    }
    closed
}

/// Whether `found` is an older version than `least`. What is no version is not judged.
fn older(found: &str, least: &str) -> bool {
    matches!((Version::from_str(found), Version::from_str(least)), (Ok(found), Ok(least)) if found < least)
}

/// A time for people at this device.
fn local(ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(ms)
        .map_or_else(|| ms.to_string(), |t| t.with_timezone(&chrono::Local).format("%Y-%m-%d %H:%M").to_string())
}

/// How long a transient failure waits before the database is tried again.
pub fn transient_pause(failures: u32, dice: f64) -> Duration {
    crate::wake::pace::pause(failures, dice, None)
}

/// The item for a file that cannot be used.
pub fn unusable(code: &str, path: &Path, why: impl std::fmt::Display, remedy: Remedy) -> HealthItem {
    item(code, Severity::Error, format!("{}: {why}", path.display()), remedy)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use whimbrel_shared::manifest::Manifest;

    use super::*;

    fn codes(known: &Known, manifest: Manifest, min_sqlite: Option<&str>, estimate: Estimate) -> Vec<String> {
        let link = Link {
            name: "m".parse().unwrap(),
            version: 1,
            revision: 1,
            previous: None,
            mends: None,
            schema: None,
            steps: Vec::new(),
            min_sqlite: min_sqlite.map(str::to_owned),
            columns: None,
            sync: Default::default(),
            lifts: Vec::new(),
        };
        let migration = Migration { format: String::new(), name: link.name.clone(), manifest, down: None, files: BTreeMap::new() };
        let mut found = database_gates(known, Operation::Apply);
        found.extend(migration_gates(known, &link, &migration, Operation::Apply, &estimate));
        found.into_iter().map(|i| i.code).collect()
    }

    #[test]
    fn each_gate_has_its_reason() {
        let plain = Manifest::default;
        let with_app = || Manifest { min_app: Some("2.3.0".into()), ..plain() };
        let quick = Estimate::default;
        let known = Known::default;
        assert!(codes(&known(), plain(), None, quick()).is_empty());
        assert_eq!(codes(&known(), with_app(), None, quick()), ["app_version_unknown"]);
        assert_eq!(codes(&Known { app_version: Some("2.2.9".into()), ..known() }, with_app(), None, quick()), ["min_app"]);
        assert!(codes(&Known { app_version: Some("2.10".into()), ..known() }, with_app(), None, quick()).is_empty());
        assert_eq!(codes(&Known { app_sqlite: Some("3.34.0".into()), ..known() }, plain(), Some("3.37.0"), quick()), ["min_sqlite"]);
        assert_eq!(codes(&Known { hold: Some(None), ..known() }, plain(), None, quick()), ["held"]);
        assert_eq!(codes(&Known { window_open: Some(false), ..known() }, plain(), None, quick()), ["window"]);
        assert!(codes(&Known { window_open: Some(false), by_person: true, ..known() }, plain(), None, quick()).is_empty());
        let slow = Estimate { lock: Duration::from_secs(3), ..quick() };
        assert_eq!(codes(&known(), plain(), None, slow), ["max_lock"]);
        assert!(codes(&Known { by_person: true, ..known() }, plain(), None, slow).is_empty());
        assert_eq!(codes(&Known { free_bytes: Some(5000), ..known() }, plain(), None, Estimate { write_bytes: 5000, ..quick() }), ["disk_full"]);
        let sorts = || Estimate { sort_bytes: 5000, ..quick() };
        let free = MARGIN_BYTES + 4999;
        let temp = |same_disk, free_bytes| Some(TempRoom { directory: "/tmp".into(), free_bytes, same_disk });
        assert_eq!(codes(&Known { temp: temp(false, free), ..known() }, plain(), None, sorts()), ["disk_full"]);
        assert!(codes(&Known { temp: temp(false, free + 1), ..known() }, plain(), None, sorts()).is_empty());
        assert!(codes(&Known { temp: temp(false, 0), ..known() }, plain(), None, quick()).is_empty(), "nothing is sorted");
        assert_eq!(codes(&Known { free_bytes: Some(free), temp: temp(true, free), ..known() }, plain(), None, sorts()), ["disk_full"]);
        assert!(codes(&Known { free_bytes: Some(free), temp: temp(false, free + 1), ..known() }, plain(), None, sorts()).is_empty());
    }
}
