//! From accepted migrations to a changed schema: plan, preflight, guard, apply, recover, revert, report (DESIGN 8).

pub mod adopt;
pub mod apply;
pub mod arrived;
pub mod chain;
pub mod connection;
pub mod error;
pub mod estimate;
pub mod files;
pub mod foreign;
pub mod gap;
pub mod gate;
pub mod guard;
pub mod halt;
pub mod live;
pub mod online;
pub mod patience;
pub mod perform;
pub mod plan;
pub mod recover;
pub mod rows;
pub mod schema;
pub mod script;
pub mod transaction;
pub mod units;
pub mod wal;
pub mod work;
