//! Rows after schema: what the application changes in its own file is captured by plain triggers and folded into an outbox;
//! the outbox is sent, answers are settled, and rows of others land (DESIGN 9, docs/sync.md). The row is the truth: the
//! journal and the outbox keep no value.
//!
//! Everything here works inside the caller's write transaction on one file, and knows neither the server nor migrations.

pub mod across;
pub mod answer;
pub mod boot;
pub mod capture;
pub mod classify;
pub mod clock;
pub mod decide;
pub mod detach;
pub mod echo;
pub mod error;
pub mod fold;
mod foreign;
pub mod hash;
pub mod land;
pub mod names;
pub mod push;
mod renumber;
pub mod rows;
pub mod settle;
pub mod shape;
pub mod standing;
pub mod sweep;
pub mod table;
pub mod tables;
pub mod triggers;
pub mod unique;
pub mod values;
pub mod verify;
mod writer;
