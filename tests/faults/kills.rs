//! A share of what `crash` does at length.

use driftlog_tests::kills::{Plan, run};
use driftlog_tests::process::binary;
use tempfile::TempDir;

#[tokio::test]
async fn nothing_acknowledged_is_missing_after_five_kills_under_load() {
    let directory = TempDir::new().expect("a directory");
    let plan = Plan { cycles: 5, seed: 1, binary: binary(), directory: directory.path().to_owned() };
    let tally = run(&plan, |_, _| {}).await.expect("runs");
    assert_eq!((tally.lost, tally.doubled), (0, 0), "{:?}", tally.findings);
    assert!(tally.acked > 0, "there was load");
}
