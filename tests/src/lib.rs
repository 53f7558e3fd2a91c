//! Everything that crosses a crate: clients without a browser, replays of editing traces, and the tests beside.

pub mod database;
pub mod native;
pub mod replay;
pub mod trace;
