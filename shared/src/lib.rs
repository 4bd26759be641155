//! The words and rules that daemon and server agree on. Pure: values in, values out; no I/O crate is a dependency.

pub mod address;
pub mod carry;
pub mod change;
pub mod columns;
pub mod duration;
pub mod fingerprint;
pub mod hlc;
pub mod ids;
pub mod ledger;
pub mod lens;
pub mod lift;
pub mod manifest;
pub mod migration;
pub mod near;
pub mod packed;
pub mod protocol;
pub mod queue;
pub mod remedy;
pub mod resolve;
pub mod row_schema;
pub mod rows;
pub mod sql;
pub mod status;
pub mod sums;
pub mod synced;
pub mod trust;
pub mod tuf;
pub mod value;

/// Number of the wire protocol. A daemon and a server one release apart speak to each other (DESIGN 4, invariant 12).
pub const PROTOCOL: u32 = 1;
