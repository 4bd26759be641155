//! Stories: the real daemon, the real server, real files, an application beside them, and a wire that can be cut. Each
//! name is a sentence; together they describe the product. `WHIMBREL_NIGHT=1` runs sweeps whole.

mod adopt;
mod app_first;
mod backup;
mod bad_input;
mod bad_rows;
mod behind;
mod columns;
mod convergence;
mod corpus;
mod decide;
mod documents;
mod doors;
mod examples;
mod failing_disk;
mod half_open;
mod hostile;
mod items;
mod kill;
mod many;
mod mistakes;
mod offline;
mod online;
mod parsers;
mod person;
mod person_rows;
mod power_loss;
mod power_loss_reports;
mod power_loss_trust;
mod races;
mod rebuild;
mod rebuild_online;
mod revise;
mod rows;
mod seed_faults;
mod seed_server;
mod signed;
mod signing;
mod together;
mod tokens;
mod transport;
mod tuf_client;

use std::time::Duration;

use tempfile::TempDir;
use whimbrel_tests::{Device, Server};

/// Longest that anything is waited for that should take a moment.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A folder that goes with the story.
pub(crate) fn stage() -> TempDir {
    tempfile::Builder::new().prefix("whimbrel-story-").tempdir().expect("a temporary folder can be made")
}

/// A server, and a device enrolled for the app `notes` with one database `notes.db` of these statements.
pub(crate) fn pair(stage: &TempDir, sql: &str) -> (Server, Device) {
    let server = Server::start(stage.path());
    let device = Device::new(stage.path(), "device", &server.url()).database("notes.db", "notes");
    device.make("notes.db", sql);
    device.enroll(&server.token("notes"));
    (server, device)
}
