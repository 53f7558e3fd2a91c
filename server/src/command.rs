//! Commands of the binary that are more than a call.

pub(crate) mod dead_letters;
mod http;
pub(crate) mod verify;
