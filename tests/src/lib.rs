//! The stage: real servers, real daemons, real applications, and a wire that can be cut. Stories, benches and the demo
//! stand on it. Nothing here sleeps for luck: [`wait::until`] waits for what is expected, with a limit.

pub mod app;
pub mod bins;
pub mod chain;
pub mod device;
pub mod engine;
pub mod features;
pub mod hash;
pub mod host;
pub mod http;
pub mod lone_engine;
pub mod migrations;
pub mod net;
pub mod process;
pub mod proof;
pub mod publisher;
pub mod replica;
pub mod scores;
pub mod seed_server;
pub mod server;
pub mod signed_server;
pub mod sim;
pub mod sleeper;
pub mod tls;
pub mod tuf_client;
pub mod tuf_place;
pub mod tuf_repository;
pub mod wait;
pub mod wire;

pub use app::App;
pub use device::{Daemon, Device, Outcome};
pub use hash::content_hash;
pub use migrations::Mig;
pub use server::Server;
pub use wait::until;
pub use wire::Wire;

/// How much of a sweep is run: a sample, or with `WHIMBREL_NIGHT=1` the whole of it.
pub fn night() -> bool {
    std::env::var_os("WHIMBREL_NIGHT").is_some_and(|v| v == "1")
}

/// The larger number at night.
pub fn sample(ordinary: usize, whole: usize) -> usize {
    if night() { whole } else { ordinary }
}
