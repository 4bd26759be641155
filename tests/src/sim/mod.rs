//! A deterministic simulator of the exchange of rows: two to five real files, the server's own endpoints over its own
//! store, applications that write, a network that loses, doubles, delays and cuts, processes that die between two
//! transactions, clocks that are off and jump, files that go back, and a chain of migrations that is published and run in
//! between. One number decides all of it: the same seed gives the same requests, answers and rows.
//!
//! What has to be true is checked where it can be ([`ledger`], [`check`]): every value that an application wrote is
//! accounted for, and in the end everybody has the same.

pub mod app;
pub mod backup;
pub mod check;
pub mod ledger;
pub mod migrate;
pub mod net;
pub mod schema;
pub mod stage;
pub mod world;

/// What a seed came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Hash of every row of every file in the end.
    pub rows: String,
    /// Hash of every request and answer.
    pub wire: String,
    /// What happened how often.
    pub counts: std::collections::BTreeMap<&'static str, u64>,
}

/// Plays a seed. `Err`: what was not as it has to be.
pub fn run(seed: u64) -> Result<Outcome, String> {
    let stage = stage::Stage::get();
    world::World::new(stage, seed).play().map_err(|why| format!("seed {seed}: {why}"))
}
