//! From accepted migrations to a changed schema: plan, preflight, guard, apply, recover, revert, report (DESIGN 8).

pub mod connection;
pub mod error;
pub mod foreign;
pub mod guard;
pub mod patience;
pub mod perform;
pub mod schema;
pub mod script;
