//! The sans-IO engine of Driftlog.
//!
//! Both ends of the protocol and everything between a user's action and a view live here as state machines: they take
//! events in and give outputs out. **Invariant:** nothing in this crate reads a clock, draws entropy, does I/O or
//! starts a thread; `now` and random seeds are arguments.

pub mod chain;
pub mod codec;
pub mod connection;
pub mod consumer;
pub mod draft;
pub mod engine;
pub mod entry;
pub mod fold;
pub mod id;
pub mod limits;
pub mod notice;
pub mod op;
pub mod outbox;
pub mod overlay;
pub mod packed;
pub mod protocol;
pub mod random;
pub mod replica;
pub mod rich;
pub mod sequencer;
pub mod session;
pub mod snapshot;
pub mod state;
pub mod storage;
pub mod time;
pub mod value;
pub mod view;
pub mod witness;
