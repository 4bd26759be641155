//! The control socket: how the command line asks the daemon. One JSON request a line, JSON replies a line each.

pub mod protocol;
