//! What wakes the loop. Each only rings the bell; none carries data (DESIGN 4, invariant 10).

pub mod bell;
pub mod cron;
pub mod network;
pub mod pace;
