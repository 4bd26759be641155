//! Takes over a database with a past (DESIGN 8.11): what another tool, the seed's tables or a person says is in place
//! becomes the beginning of our history, and nothing runs twice.
//!
//! `trackers` reads, `map` and `fit` compare with the chain, `decide` judges, `baseline` writes. `queue` is the seed's
//! other past: tasks in a key-value table.

pub mod baseline;
pub mod decide;
pub mod error;
mod expected;
mod fit;
mod map;
pub mod past;
pub mod queue;
mod recognise;
mod trackers;

pub use self::{
    baseline::{Survey, adopt, first, give_back, survey},
    decide::{By, Decision, Word},
    error::AdoptError,
};
