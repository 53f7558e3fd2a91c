//! A small share of what `growth` does: storage follows what lives, not what was ever done.

use driftlog_tests::growth::{Plan, run};

#[tokio::test(flavor = "multi_thread")]
async fn overwriting_the_same_fields_takes_no_more_room_with_every_round() {
    let report = run(Plan { actions: 4_000, fields: 40, value_bytes: 1_000 }).await.expect("runs");
    assert!(report.sent_bytes > 4_000 * 1_000, "{report:?}");
    assert!(report.is_within(10), "{report:?}");
}
