//! The Whimbrel server: keeps published migrations, enrols devices, tells each database what it may do, and takes
//! reports. One process over one [`store::Store`].
//!
//! Arrows point down: `main → cli → server → api → store → lift → decide → whimbrel_shared`.

mod api;
pub mod cli;
mod decide;
mod door;
pub mod endpoints;
mod lift;
mod limit;
pub mod online;
mod problem;
pub mod secrets;
mod seen;
pub mod server;
pub mod store;

pub use server::{Config, Keep, ServeError, Server, serve};
