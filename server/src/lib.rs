//! The Driftlog sync server.
