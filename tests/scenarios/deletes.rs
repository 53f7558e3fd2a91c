//! Deletes that let updates win: who comes late brings a record back, and behind the grace nobody does.

use driftlog_core::id::WriteId;
use driftlog_core::notice::WriteStatus;
use driftlog_core::protocol::frame::MarkedStatus;
use driftlog_server::{Keep, Retention};
use driftlog_tests::sim::board::{add_with_note, delete_unless_changed, rename, splice, tag, vote};
use driftlog_tests::sim::story::{Person, Story};

const GRACE_MS: u64 = 10 * 60_000;

fn outcome(person: &Person, write: WriteId) -> Option<MarkedStatus> {
    match person.told(write) {
        Some(WriteStatus::Accepted(accepted)) => accepted.outcome,
        other => panic!("{write} is {other:?}"),
    }
}

#[test]
fn an_edit_made_offline_brings_a_deleted_record_back_with_all_it_held() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add_with_note("a", "milk", "two litres"));
    alice.act(tag("a", "shop"));
    story.run_until_quiet();
    bob.offline();
    bob.act(splice("a", 10, 0, " of oat milk"));
    alice.act(delete_unless_changed("a", GRACE_MS));
    story.run_for(5_000);
    assert_eq!((alice.ids().len(), bob.ids().len()), (0, 1));
    bob.online();
    story.run_until_quiet();
    for person in [&alice, &bob] {
        let fields = ["title", "note"].map(|field| person.field("a", field));
        assert_eq!(fields, ["milk", "two litres of oat milk"]);
    }
    // And the record is one as any other: it can be deleted again, by who has seen all of it.
    alice.act(delete_unless_changed("a", GRACE_MS));
    story.run_until_quiet();
    assert_eq!((alice.ids().len(), bob.ids().len()), (0, 0));
}

#[test]
fn around_the_grace_replicas_with_and_without_what_is_left_fold_the_same() {
    for (away_ms, comes_back) in [(GRACE_MS / 2, true), (GRACE_MS * 2, false)] {
        let story = Story::begin();
        story.world().host.config_mut().retention = Retention::default().with("*", Keep::Last(0));
        let (alice, bob) = (story.person("alice"), story.person("bob"));
        alice.act(add_with_note("a", "milk", "two litres"));
        alice.act(vote("a", 2));
        story.run_until_quiet();
        bob.offline();
        let late = bob.act(vote("a", 1));
        alice.act(delete_unless_changed("a", GRACE_MS));
        story.run_for(away_ms);
        // Carol begins with what the server has now; alice has what she folded long ago.
        let carol = story.person("carol");
        story.run_for(5_000);
        alice.reload();
        bob.online();
        story.run_until_quiet();
        let votes = [&alice, &bob, &carol].map(|person| (person.ids().len(), person.rows().len()));
        assert_eq!(votes, [(usize::from(comes_back), usize::from(comes_back)); 3], "{away_ms} ms away");
        assert_eq!(outcome(&bob, late), (!comes_back).then_some(MarkedStatus::RecordGone));
    }
}

#[test]
fn a_refused_delete_is_made_again_as_what_it_was() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add_with_note("a", "milk", "two litres"));
    story.run_until_quiet();
    story.refuse("removeTodo");
    bob.act(delete_unless_changed("a", GRACE_MS));
    story.run_until_quiet();
    let [(letter, _)] = bob.dead_letters()[..] else { panic!("one letter") };
    story.refuse("nothing");
    alice.offline();
    bob.redrive(letter, None);
    story.run_for(5_000);
    assert_eq!(bob.ids().len(), 0);
    alice.act(rename("a", "oat milk"));
    alice.online();
    story.run_until_quiet();
    assert_eq!((bob.field("a", "title"), alice.ids().len()), ("oat milk".to_owned(), 1), "its policy was kept");
}
