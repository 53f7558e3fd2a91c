//! The sans-IO engine of Driftlog.
