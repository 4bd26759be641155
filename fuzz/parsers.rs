//! Everything that reads bytes from outside, each as a function that takes any bytes and has to come back: an error is an
//! answer, a panic is a defect. What was read is written and read again, and has to be the same. The fuzzer calls them with
//! what it makes up, and the ordinary tests with what lies in `fuzz/corpus`.

use std::{fmt::Debug, path::Path};

use serde::{Serialize, de::DeserializeOwned};
use whimbrel::{
    config::Config,
    control::protocol::{Reply, Request},
    trust,
};
use whimbrel_shared::{
    address,
    change::Row,
    manifest::Manifest,
    migration::{Migration, SeedMigration, Targets},
    packed,
    protocol::{
        enroll::EnrollResponse, poll::PollResponse, problem::Problem, publish::PublishRequest, pull::PullHead, push::PushResponse,
        report::StatusRequest, state::StateRequest, sums::SumsResponse, token::TokenResponse,
    },
    row_schema::RowSchema,
};

/// A reader, by the name of its fuzz target.
pub type Parser = (&'static str, fn(&[u8]));

/// All of them.
pub const PARSERS: [Parser; 9] = [
    ("answers", answers),
    ("packed_pages", packed_pages),
    ("migration_body", migration_body),
    ("manifest", manifest),
    ("configuration", configuration),
    ("control_requests", control_requests),
    ("targets", targets),
    ("seed_form", seed_form),
    ("server_requests", server_requests),
];

/// What a server answers to a device.
pub fn answers(bytes: &[u8]) {
    json::<PollResponse>(bytes);
    json::<EnrollResponse>(bytes);
    json::<PushResponse>(bytes);
    json::<SumsResponse>(bytes);
    json::<TokenResponse>(bytes);
    json::<Problem>(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = whimbrel::transport::retry_after(text, 0);
    }
}

/// Pages of rows and changes, compressed.
pub fn packed_pages(bytes: &[u8]) {
    if let Ok((head, rows)) = packed::unpack_rows::<PullHead>(bytes) {
        rows.iter().for_each(|row: &Row| {
            let _ = row.size_bytes();
        });
        let again = packed::unpack_rows::<PullHead>(&packed::pack_rows(&head, &rows)).expect("what was packed here can be read");
        assert_eq!(again.1, rows);
    }
    if let Ok((head, changes)) = packed::unpack_changes::<serde_json::Value>(bytes) {
        changes.iter().for_each(|change| {
            let _ = change.check();
        });
        let again = packed::unpack_changes::<serde_json::Value>(&packed::pack_changes(&head, &changes)).expect("what was packed here can be read");
        assert_eq!(again.1, changes);
    }
}

/// Target files.
pub fn migration_body(bytes: &[u8]) {
    if let Ok(migration) = Migration::from_bytes(bytes) {
        for step in migration.steps() {
            if let Some(file) = step.file() {
                let _ = migration.file(file);
            }
        }
        let again = Migration::from_bytes(&migration.to_bytes()).expect("what was written here can be read");
        assert_eq!(again, migration);
    }
}

/// `migration.toml`.
pub fn manifest(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(manifest) = Manifest::parse(text)
    {
        let text = serde_json::to_string(&manifest).expect("a manifest has text keys");
        assert_eq!(serde_json::from_str::<Manifest>(&text).expect("what was written here can be read"), manifest);
    }
}

/// The configuration, and the addresses in it.
pub fn configuration(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Config::parse(Path::new("/etc/whimbrel/config.toml"), text, |_| None).map_err(|error| error.remedy());
        let _ = address::way(text);
    }
}

/// Lines on the control socket, both ways.
pub fn control_requests(bytes: &[u8]) {
    if let Some(request) = json::<Request>(bytes) {
        let _ = whimbrel::control::peer::needs(&request);
    }
    let _ = serde_json::from_slice::<Reply>(bytes);
}

/// Targets metadata, and what a device makes of its chain.
pub fn targets(bytes: &[u8]) {
    if let Some(targets) = json::<Targets>(bytes) {
        let mut schema = RowSchema::default();
        for entry in targets.chain() {
            if schema.pass(&entry.custom).is_err() {
                break;
            }
        }
        let _ = schema.map();
        if let Ok(accepted) = trust::judge(&[], &targets) {
            trust::judge(&accepted, &targets).expect("what was accepted is accepted again");
        }
    }
}

/// The seed systems' lists of migrations.
pub fn seed_form(bytes: &[u8]) {
    for seed in json::<Vec<SeedMigration>>(bytes).unwrap_or_default() {
        migration_body(&seed.to_migration().to_bytes());
    }
}

/// What devices and publishers send to a server.
pub fn server_requests(bytes: &[u8]) {
    json::<StateRequest>(bytes);
    json::<StatusRequest>(bytes);
    json::<PublishRequest>(bytes);
}

/// Reads it; what could be read is written, read again and written again, the same both times.
fn json<T: DeserializeOwned + Serialize + Debug>(bytes: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(bytes).ok()?;
    let written = serde_json::to_vec(&value).expect("it has text keys");
    let again: T = serde_json::from_slice(&written).unwrap_or_else(|e| panic!("{e}: what was written here cannot be read: {value:?}"));
    assert_eq!(serde_json::to_vec(&again).expect("it has text keys"), written);
    Some(value)
}
