//! The driftlog-server binary.
fn main() {}
