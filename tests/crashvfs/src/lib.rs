//! A disk that can be asked what a power cut would leave of it, and told to fail.
//!
//! [`Disk`] is a folder whose SQLite files are opened through a VFS of ours. It does what the system's own VFS does, and
//! writes down each write, truncation, deletion and sync ([`Log`]). From any point of a log, [`Moment`] makes the files
//! that a disk may hold after the power went right there. [`Fault`] makes any single call fail, as a full or broken disk
//! would. [`Watch`] tells of statements that wrote outside a transaction.
//!
//! What a disk may do is what POSIX allows and SQLite expects (<https://sqlite.org/atomiccommit.html>, sections 2 and
//! 9): until its file was synced a write may be there, in part, or not, in any order, sector by sector; a new or deleted
//! name may be forgotten until its folder was synced.

mod disk;
mod image;
mod log;
mod vfs;
mod watch;

pub use disk::{Disk, Fault, Kind, Trouble};
pub use image::{Loss, Moment};
pub use log::{Files, Log, Op};
pub use watch::Watch;
