//! The conversation over one socket, from both ends, as state machines without I/O.
//!
//! ```text
//!  client                              server
//!    hello ──────────────────────────►   who is this? may it?
//!          ◄──────────────────────────   welcome
//!    subscribe (one per log) ────────►
//!          ◄──────────────────────────   opened: log id, epochs, the actor's seq and chain; ack of what is unsettled
//!          ◄──────────────────────────   snapshot parts?, entries …
//!    push ───────────────────────────►   decide, commit, fsync
//!          ◄──────────────────────────   ack: durable verdicts
//!    settled ────────────────────────►
//! ```
//!
//! Credit runs both ways for what is bulky (push, entries, snapshot parts); everything else goes before it and needs
//! none. Source: docs/protocol.md.

pub mod acceptor;
pub mod backoff;
pub mod client;
pub mod link;
pub mod server;
