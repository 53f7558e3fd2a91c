//! Confirmed state, overlay and snapshots under any interleaving of their inputs.

mod graces;
mod interleavings;
mod model;
mod property;

/// A state moves between threads with its log's writer.
const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<driftlog_core::state::State>();
    is_send::<driftlog_core::overlay::Overlay>();
};
