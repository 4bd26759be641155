//! Whimbrel's daemon and its command line, as a library: so that stories, benches and the demo use the same parts.

pub mod ambient;
pub mod cli;
pub mod config;
pub mod control;
pub mod cycle;
pub mod daemon;
pub mod enroll;
pub mod migrate;
pub mod publish;
pub mod replicate;
pub mod store;
pub mod sync;
pub mod telemetry;
pub mod transport;
pub mod trust;
pub mod wake;
