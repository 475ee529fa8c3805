//! The command regard, driven as a user drives it.

mod bench;
mod cached;
mod calibrate;
mod explain;
mod packed;
mod readme;
mod refused;
mod results;
mod show;
mod snapshots;
mod worker;
