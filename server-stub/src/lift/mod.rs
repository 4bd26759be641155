//! Rows of older versions in the terms of newer ones: what a migration's `backfill` steps computed on every device, computed
//! again for one row, in a database in memory that has nothing else.
//!
//! A row is brought up when it is needed: each write takes it up to the newest version, and a reader that finds one of before
//! a version was published sees it as if it had been. So nobody has to wait for a walk over all rows after a publish, a
//! reader writes nothing, and no number of a space's sequence is spent on what every device has computed by itself.

mod bench;
mod guard;
mod plan;
mod row;

pub(crate) use self::{
    bench::Bench,
    plan::Plan,
    row::{Lifter, Pushed, Unsaid},
};
