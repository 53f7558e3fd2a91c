//! Commands of the binary that are more than a call.

pub(crate) mod connections;
pub(crate) mod dead_letters;
pub(crate) mod erase;
mod http;
mod table;
pub(crate) mod verify;
