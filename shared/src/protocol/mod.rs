//! What goes over the wire, one file per endpoint (DESIGN 11). Pure. Every type here has a golden in `tests/goldens`.

pub mod clients;
pub mod conflicts;
pub mod enroll;
pub mod poll;
pub mod problem;
pub mod publish;
pub mod pull;
pub mod push;
pub mod report;
pub mod state;
pub mod sums;
pub mod token;

/// Largest JSON body that either side reads, in bytes, where an endpoint names no other.
pub const MAX_JSON_BYTES: usize = 1024 * 1024;
