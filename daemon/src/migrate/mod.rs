//! From accepted migrations to a changed schema: plan, preflight, guard, apply, recover, revert, report (DESIGN 8).

pub mod apply;
pub mod backup;
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
pub mod patience;
pub mod perform;
pub mod plan;
pub mod recover;
pub mod rehearse;
pub mod schema;
pub mod script;
pub mod transaction;
pub mod work;
