//! From accepted migrations to a changed schema: plan, preflight, guard, apply, recover, revert, report (DESIGN 8).

pub mod guard;
pub mod schema;
pub mod script;
