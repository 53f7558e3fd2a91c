//! The server over a disk that breaks, and the server that is killed: what was promised holds.

mod calls;
mod kills;
mod pages;
mod power;
mod scrub;
mod workload;
