//! The control socket: how the command line asks the daemon. One JSON request a line, JSON replies a line each.

mod adopt;
mod backups;
pub mod client;
mod items;
pub mod peer;
mod plan;
pub mod protocol;
mod rows;
pub mod server;
pub mod snapshot;

#[cfg(all(test, unix))]
pub(crate) mod fake;
