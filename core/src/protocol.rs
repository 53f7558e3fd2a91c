//! The wire protocol: frames, their bytes and their codes.
//!
//! `docs/protocol.md` is its grammar; golden vectors in `tests/vectors/` pin the bytes for Rust and TypeScript.
//! What the frames mean over time is in [`crate::session`].

pub mod code;
pub mod frame;
pub mod versions;

pub use code::Code;
pub use frame::Frame;

/// The one protocol version this build speaks.
pub const VERSION: u32 = 1;
/// The oldest version this build still answers.
pub const VERSION_FLOOR: u32 = 1;
