//! Tests that cross a crate.
