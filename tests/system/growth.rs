//! A small share of what `growth` does: storage follows what lives, not what was ever done.

use std::time::Duration;

use driftlog_tests::growth::{Plan, Subject, run};

#[tokio::test(flavor = "multi_thread")]
async fn overwriting_the_same_fields_takes_no_more_room_with_every_round() {
    let report = run(Plan { actions: 4_000, subject: Subject::Fields(40), grace: Duration::ZERO, value_bytes: 2_000 })
        .await
        .expect("runs");
    assert!(report.sent_bytes > 4_000 * 2_000, "{report:?}");
    assert!(report.is_within(10), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn editing_one_note_takes_no_more_room_with_every_round() {
    // What an old root holds in its grace follows from how fast this machine is: it is told behind that, at rest.
    let grace = Duration::from_secs(2);
    let report =
        run(Plan { actions: 2_500, subject: Subject::Note, grace, value_bytes: 50_000 }).await.expect("comes to rest");
    assert!(report.sent_bytes > 10 * report.live_bytes, "{report:?}");
    assert!(report.is_within(10), "{report:?}");
}
