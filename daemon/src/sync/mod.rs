//! Rows after schema: what the application changes in its own file is captured by plain triggers and folded into an outbox
//! (DESIGN 9, docs/sync.md). The row is the truth: nothing here keeps a value.

pub mod across;
pub mod boot;
pub mod capture;
pub mod classify;
pub mod echo;
pub mod error;
pub mod fold;
pub mod hash;
pub mod rows;
pub mod settle;
pub mod shape;
pub mod sweep;
pub mod table;
pub mod triggers;
pub mod unique;
