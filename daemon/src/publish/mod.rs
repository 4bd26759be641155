//! From a migrations directory to published links: read it in any tool's layout, lint it, rehearse it, upload it.

pub mod layout;
pub mod lint;
pub mod listing;
pub mod rehearse;
pub mod scan;
