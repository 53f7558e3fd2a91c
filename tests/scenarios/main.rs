//! Stories on the simulator: the real engines and the real server, in virtual time, on disks and networks that break.
//! Whatever a story asserts, the checker of the simulator holds every promise beside it.
#![allow(clippy::unwrap_used, missing_docs)]

mod clocks;
mod copies;
mod damaged_copies;
mod dead_letters;
mod deletes;
mod erase;
mod events;
mod folds;
mod forged;
mod herd;
mod local;
mod network;
mod priorities;
mod reported;
mod reroot;
mod restores;
mod rich;
mod seeds;
mod server;
mod transfers;
mod users;
mod verdicts;
mod versions;
