//! A small share of what `scale offline` does: whoever was away for thirty days comes back, and each action counts once.

use driftlog_tests::offline;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_in_thirty_days_without_a_network_comes_in_order_and_once_whatever_its_age() {
    let report = offline::run(3_000).await.expect("runs");
    assert_eq!(report.broken(), Vec::<String>::new(), "{report:?}");
}
