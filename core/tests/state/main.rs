//! Confirmed state, overlay and snapshots under any interleaving of their inputs.

mod interleavings;
mod model;
mod property;
