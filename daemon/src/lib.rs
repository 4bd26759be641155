//! Whimbrel's daemon and its command line, as a library: so that stories, benches and the demo use the same parts.

pub mod migrate;
pub mod publish;
