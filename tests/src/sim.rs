//! The deterministic simulator: whole clients and a whole server in virtual time, from one seed.
//!
//! The engines of the tabs and the server are the real ones; what they stand on is simulated and breaks on purpose:
//! clocks, disks, sockets, the user, the page. Nothing reads a clock or draws entropy, so a seed is a bug report: the
//! same seed gives the same trace.
//!
//! ```text
//!   user ─► tabs (Engine) ⇄ database          sockets          server (stepped::Server) ⇄ SQLite
//!              └────────────────────── streams, cut and held back ──────┘
//!                              checker: looks at both ends all the time
//! ```
//!
//! [`story`] is the vocabulary of hand-written scenarios, [`user`] has the random inhabitants and mishaps of a seed, and
//! [`seeds`] runs one.

pub mod board;
pub mod checker;
pub mod damage;
pub mod device;
pub mod downgrading;
pub mod erasing;
pub mod host;
pub mod kept;
pub mod letters;
pub mod network;
pub mod page;
pub mod quiet;
pub mod reroot;
pub mod rot;
pub mod seeds;
pub mod story;
pub mod stranger;
pub mod trace;
pub mod user;
pub mod weather;
pub mod world;
