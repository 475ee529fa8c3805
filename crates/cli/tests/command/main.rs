//! The command regard, driven as a user drives it.

mod bench;
mod explain;
mod refused;
mod results;
mod show;
mod snapshots;
