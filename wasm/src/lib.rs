//! The Driftlog engine in the browser: it moves bytes between core, the local database, the socket and JavaScript,
//! and wakes core when something happened. What decides is in core.
//!
//! ```text
//!   TypeScript ◄──► binding ◄──► client ◄──► core::engine
//!                  (boundary)      │
//!                                  └──► store, socket, tabs, page, timer, clock, entropy
//! ```

pub mod binding;
mod boundary;
mod client;
mod clock;
mod durability;
mod entropy;
mod folds;
mod inbox;
mod lease;
mod oneshot;
mod page;
mod socket;
mod store;
mod tabs;
#[cfg(feature = "testing")]
pub mod testing;
mod timer;
mod witness;
