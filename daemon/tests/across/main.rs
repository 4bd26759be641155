//! Edits that are not sent yet across a migration, up and down, through the engine on real files: each goes where the
//! manifest says, or into the archive, and none is made by what the migration wrote (DESIGN 8.5, 14).

mod bed;
mod law;
mod look;
mod online;
mod power;
mod stories;
