//! The real server on a real port, asked over a plain socket.

mod command_line;
mod devices;
mod door;
mod publishing;
mod reports;
mod rows;
mod signed;
mod support;
