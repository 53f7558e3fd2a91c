//! What is erased is gone from the server's files and from every device, and stays away.

use driftlog_core::notice::WriteStatus;
use driftlog_core::protocol::Code;
use driftlog_core::protocol::frame::MarkedStatus;
use driftlog_tests::disk::Loss;
use driftlog_tests::sim::board::{add, add_with_note, named, rename, splice, tag, vote};
use driftlog_tests::sim::story::{Person, Story};

fn outcome(person: &Person, write: driftlog_core::id::WriteId) -> Option<MarkedStatus> {
    match person.told(write) {
        Some(WriteStatus::Accepted(accepted)) => accepted.outcome,
        other => panic!("{write} is {other:?}"),
    }
}

#[test]
fn an_erased_record_is_gone_from_every_file_and_every_device() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add_with_note("a", "a secret", "first secret"));
    alice.act(add("b", "bread"));
    // Large enough that it stands in pages of its own, which are free when it is gone.
    alice.act(rename("a", &"another secret ".repeat(2_000)));
    bob.act(tag("a", "hidden"));
    story.run_until_quiet();
    bob.act(splice("a", 0, 5, "second"));
    story.run_until_quiet();
    assert!(story.server_holds("secret") && alice.holds("secret") && bob.holds("hidden"));
    story.erase("a");
    story.run_until_purged();
    story.run_until_quiet();
    for word in ["secret", "hidden", "second"] {
        assert!(!story.server_holds(word), "the server holds {word}");
        assert!(!alice.holds(word) && !bob.holds(word), "a device holds {word}");
    }
    // Who comes new has what the others have, and work goes on.
    let carol = story.person("carol");
    carol.act(rename("b", "rye"));
    story.run_until_quiet();
    assert_eq!((alice.ids(), carol.ids(), bob.field("b", "title")), (vec!["b".into()], bob.ids(), "rye".to_owned()));
}

#[test]
fn who_was_away_hears_of_an_erase_first_and_what_comes_late_is_void_and_goes_too() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add("a", "a secret"));
    alice.act(add("b", "bread"));
    story.run_until_quiet();
    bob.offline();
    let late = bob.act(rename("a", "a late secret"));
    let again = bob.act(add("a", "an even later secret"));
    let other = bob.act(rename("b", "rye"));
    story.erase("a");
    story.run_until_purged();
    assert!(!story.server_holds("secret") && bob.holds("late secret"));
    bob.online();
    story.run_until_quiet();
    story.run_until_purged();
    story.run_until_quiet();
    assert_eq!((outcome(&bob, late), outcome(&bob, other)), (Some(MarkedStatus::RecordGone), None));
    assert_eq!(outcome(&bob, again), Some(MarkedStatus::RecordGone), "its id stays erased");
    assert!(!story.server_holds("secret") && !bob.holds("secret") && !alice.holds("secret"));
    assert_eq!((bob.ids(), alice.field("b", "title")), (vec!["b".to_owned()], "rye".to_owned()));
}

#[test]
fn an_erased_board_is_empty_and_can_be_used_again() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add("a", "a secret"));
    alice.act(vote("a", 3));
    story.run_until_quiet();
    bob.offline();
    let late = bob.act(add("c", "a late secret"));
    story.erase_board();
    alice.act(add("a", "something new"));
    story.run_until_purged();
    bob.online();
    story.run_until_quiet();
    story.run_until_purged();
    story.run_until_quiet();
    assert_eq!(outcome(&bob, late), Some(MarkedStatus::RecordGone));
    for person in [&alice, &bob] {
        assert!(!person.holds("secret"));
        assert_eq!((person.ids(), person.field("a", "title")), (vec!["a".to_owned()], "something new".to_owned()));
    }
    assert!(!story.server_holds("secret") && story.server_holds("something new"));
}

#[test]
fn a_server_that_is_put_back_to_a_backup_erases_again() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add("a", "a secret"));
    alice.act(add("b", "bread"));
    story.run_until_quiet();
    let backup = story.world().host.backup();
    bob.offline();
    story.erase("a");
    story.run_until_purged();
    story.run_until_quiet();
    assert!(!story.server_holds("secret") && !alice.holds("secret"));
    story.world().crash_server(Loss::Nothing);
    story.world().restore_server(&backup);
    assert!(story.server_holds("secret"));
    story.world().start_server();
    story.run_until_purged();
    bob.online();
    story.run_until_quiet();
    story.run_until_purged();
    story.run_until_quiet();
    assert!(!story.server_holds("secret") && !alice.holds("secret") && !bob.holds("secret"));
    assert_eq!((alice.ids(), bob.ids()), (vec!["b".to_owned()], vec!["b".to_owned()]));
}

#[test]
fn what_an_old_replica_has_of_the_lost_history_is_erased_on_it_too() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add("a", "a secret"));
    alice.act(add("b", "bread"));
    story.run_until_quiet();
    let backup = story.world().host.backup();
    alice.act(rename("a", "a newer secret"));
    story.run_until_quiet();
    bob.offline();
    let late = bob.act(rename("a", "a late secret"));
    story.erase("a");
    story.run_until_purged();
    story.run_until_quiet();
    story.world().crash_server(Loss::Nothing);
    story.world().restore_server(&backup);
    story.world().start_server();
    story.run_until_purged();
    assert!(bob.holds("newer secret"));
    bob.online();
    story.run_until_quiet();
    story.run_until_purged();
    story.run_until_quiet();
    assert_eq!(outcome(&bob, late), Some(MarkedStatus::RecordGone));
    assert!(!story.server_holds("secret") && !alice.holds("secret") && !bob.holds("secret"));
    assert_eq!((alice.ids(), bob.ids()), (vec!["b".to_owned()], vec!["b".to_owned()]));
}

#[test]
fn a_server_that_was_killed_before_it_cut_its_own_log_cuts_it_when_it_starts() {
    let story = Story::begin();
    let alice = story.person("alice");
    alice.act(add("a", "a secret"));
    alice.act(add("b", "bread"));
    story.run_until_quiet();
    story.erase("a");
    while !story.world().has_erased() {
        story.run_for(1_000);
    }
    assert!(story.server_holds("secret"), "nothing has cut it yet");
    story.world().crash_server(Loss::Nothing);
    story.world().start_server();
    story.run_until_purged();
    assert!(!story.server_holds("secret"));
}

#[test]
fn a_device_whose_rows_do_not_read_erases_when_they_do() {
    let story = Story::begin();
    let alice = story.person("alice");
    alice.act(add("a", "a secret"));
    alice.act(add("b", "bread"));
    story.run_until_quiet();
    story.world().weather.reads_failed = 1_000;
    story.erase("a");
    story.run_until_purged();
    story.run_for(5_000);
    assert!(alice.holds("secret"));
    story.world().weather.reads_failed = 0;
    story.run_for(61_000);
    assert!(!alice.holds("secret") && alice.holds("bread"));
}

#[test]
fn an_erase_goes_on_where_a_crash_cut_it() {
    let story = Story::begin();
    let alice = story.person("alice");
    alice.act(add("a", "a secret"));
    alice.act(add("b", "bread"));
    story.run_until_quiet();
    for loss in [Loss::Unsynced, Loss::Nothing, Loss::Unsynced] {
        story.world().erase(driftlog_server::Erased::Record(
            driftlog_tests::sim::board::log(1),
            driftlog_tests::sim::board::name("todos"),
            driftlog_tests::sim::board::id("a"),
        ));
        story.world().crash_server(loss);
        story.world().start_server();
        story.world().purge();
        alice.reload();
    }
    story.run_until_purged();
    story.run_until_quiet();
    assert!(!story.server_holds("secret") && !alice.holds("secret"));
    assert_eq!(alice.ids(), ["b"]);
}

#[test]
fn what_an_erased_author_wrote_is_gone_everywhere_and_its_own_device_begins_anew() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    bob.act(add("b", "bread"));
    alice.act(add("a", "a secret"));
    story.run_until_quiet();
    alice.act(tag("b", "hidden"));
    bob.act(rename("a", "bob's"));
    bob.act(tag("a", "hidden by bob"));
    story.run_until_quiet();
    alice.offline();
    alice.act(rename("b", "a late secret"));
    story.erase_author("alice");
    story.run_until_purged();
    story.run_until_quiet();
    assert!(!story.server_holds("secret") && !story.server_holds("alice") && !bob.holds("secret"));
    assert_eq!((bob.field("a", "title"), bob.field("b", "tags")), ("bob's".to_owned(), String::new()));
    alice.online();
    story.run_until_quiet();
    story.run_until_purged();
    story.run_until_quiet();
    assert!(!alice.holds("secret"), "its own device, dead letters included");
    assert_eq!((alice.ids(), alice.field("a", "tags")), (bob.ids(), "hidden by bob".to_owned()));
}

#[test]
fn refused_actions_on_what_is_erased_go_from_the_server_and_their_device() {
    let story = Story::begin();
    story.refuse("forbidden");
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add("a", "milk"));
    alice.act(named("forbidden", "a", "a secret"));
    let kept = alice.act(named("forbidden", "b", "another"));
    bob.offline();
    let late = bob.act(named("forbidden", "a", "a late secret"));
    story.run_for(5_000);
    assert_eq!(alice.dead_letters().len(), 2);
    story.erase("a");
    story.run_until_purged();
    assert!(!story.server_holds("secret") && !alice.holds("secret"));
    assert_eq!((alice.dead_letters().len(), alice.refusal(kept).code), (1, Some(Code::EntryForbidden)));
    bob.online();
    story.run_for(5_000);
    story.run_until_purged();
    story.run_until_quiet();
    assert_eq!(bob.refusal(late).code, Some(Code::EntryForbidden));
    assert!(!story.server_holds("secret") && !bob.holds("secret") && bob.dead_letters().is_empty());
}

#[test]
fn what_a_copy_issued_again_leaves_it_when_it_counts_elsewhere() {
    let story = Story::begin();
    let alice = story.person("alice");
    alice.act(add("b", "bread"));
    story.run_until_quiet();
    alice.offline();
    alice.act(add("a", "a secret"));
    story.run_for(500);
    let copy = alice.copy();
    copy.offline();
    copy.open_tab();
    story.run_for(500);
    alice.online();
    story.run_until_quiet();
    story.erase("a");
    story.run_until_purged();
    assert!(copy.holds("secret") && !alice.holds("secret"));
    copy.online();
    story.run_until_quiet();
    story.run_until_purged();
    assert!(!copy.holds("secret") && !story.server_holds("secret"));
    assert_eq!((copy.ids(), story.entries()), (alice.ids(), 3));
}
