//! Everything that crosses a crate: clients without a browser, disks that break, the simulator, replays of editing
//! traces, and the tests beside.

pub mod author;
pub mod database;
pub mod disk;
pub mod folds;
pub mod growth;
pub mod herd;
pub mod http;
pub mod kills;
pub mod native;
pub mod offline;
pub mod overload;
pub mod peer;
pub mod process;
pub mod replay;
pub mod sim;
pub mod sizes;
pub mod trace;
