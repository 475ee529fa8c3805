//! The command regard, driven as a user drives it.

mod bench;
mod explain;
mod readme;
mod refused;
mod results;
mod show;
mod snapshots;
