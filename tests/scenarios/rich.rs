//! Texts that several people write.

use driftlog_tests::sim::board::{add, add_with_note, delete, named, splice};
use driftlog_tests::sim::seeds::rules;
use driftlog_tests::sim::story::Story;

#[test]
fn two_devices_that_insert_the_same_record_with_the_same_text_do_not_double_it() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.offline();
    bob.offline();
    alice.act(add_with_note("a", "milk", "once"));
    bob.act(add_with_note("a", "bread", "once"));
    story.run_for(500);
    alice.online();
    bob.online();
    story.run_until_quiet();
    assert_eq!((alice.field("a", "note"), bob.field("a", "note")), ("once".to_owned(), "once".to_owned()));
}

#[test]
fn a_refused_change_takes_what_builds_on_it_along_and_typing_goes_on() {
    let story = Story::begin();
    story.set_policy(rules);
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add_with_note("a", "milk", "x"));
    story.run_until_quiet();
    alice.offline();
    for at in 0..9 {
        let typed = splice("a", at, 0, "y");
        let refused = at == 4;
        let typed = if refused {
            driftlog_core::draft::Draft { name: named("forbidden", "a", "").name, ..typed }
        } else {
            typed
        };
        alice.act(typed);
    }
    alice.online();
    story.run_until_quiet();
    assert_eq!(alice.dead_letters().len(), 5, "the fifth and the four behind it");
    alice.act(splice("a", 0, 0, "again "));
    story.run_until_quiet();
    assert_eq!(alice.field("a", "note"), bob.field("a", "note"));
    assert!(alice.field("a", "note").starts_with("again "));
}

#[test]
fn an_edit_that_is_void_in_the_log_is_in_nobodys_text() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add_with_note("a", "milk", "once "));
    story.run_until_quiet();
    bob.offline();
    bob.act(splice("a", 0, 0, "void "));
    story.run_for(500);
    alice.act(delete("a"));
    alice.act(add_with_note("a", "milk", "once "));
    story.run_until_quiet();
    bob.online();
    story.run_until_quiet();
    assert_eq!((alice.field("a", "note"), bob.field("a", "note")), ("once ".to_owned(), "once ".to_owned()));
}

#[test]
fn typing_at_once_converges() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add("a", "milk"));
    story.run_until_quiet();
    for _ in 0..20 {
        alice.act(splice("a", 0, 0, "alice "));
        bob.act(splice("a", 0, 0, "bob "));
        story.run_for(17);
    }
    story.run_until_quiet();
    assert_eq!(alice.field("a", "note"), bob.field("a", "note"));
    assert_eq!(alice.field("a", "note").len(), 20 * ("alice ".len() + "bob ".len()));
}
