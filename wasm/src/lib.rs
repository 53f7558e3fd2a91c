//! The Driftlog engine in the browser: it moves bytes between core, the local database, the socket and JavaScript,
//! and wakes core when something happened. What decides is in core.

#[allow(dead_code)]
mod boundary;
#[allow(dead_code)]
mod clock;
#[allow(dead_code)]
mod durability;
#[allow(dead_code)]
mod entropy;
#[allow(dead_code)]
mod lease;
#[allow(dead_code)]
mod page;
#[allow(dead_code)]
mod socket;
#[allow(dead_code)]
mod store;
#[allow(dead_code)]
mod tabs;
#[cfg(feature = "testing")]
pub mod testing;
#[allow(dead_code)]
mod timer;
