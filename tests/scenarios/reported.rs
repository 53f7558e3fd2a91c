//! What users of other engines reported, each as a story.

use driftlog_core::id::Name;
use driftlog_core::protocol::Code;
use driftlog_tests::sim::board::{add, named, nothing};
use driftlog_tests::sim::seeds::rules;
use driftlog_tests::sim::story::Story;

#[test]
fn an_action_that_is_always_refused_does_not_stop_a_hundred_good_ones() {
    let story = Story::begin();
    story.set_policy(rules);
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.offline();
    let refused = alice.act(named("forbidden", "bad", "milk"));
    let good: Vec<_> = (0..100).map(|at| alice.act(add(&format!("a{at}"), "milk"))).collect();
    alice.online();
    story.run_until_quiet();
    assert_eq!(alice.refusal(refused).code, Some(Code::EntryForbidden));
    assert!(good.into_iter().all(|write| alice.is_accepted(write)));
    assert_eq!(bob.ids().len(), 100);
}

#[test]
fn an_action_that_changes_nothing_is_accepted_like_any_other() {
    let story = Story::begin();
    let alice = story.person("alice");
    let write = alice.act(nothing());
    story.run_until_quiet();
    assert!(alice.is_accepted(write));
    assert_eq!((story.entries(), alice.outbox()), (1, 0));
}

#[test]
fn an_action_whose_name_an_old_client_does_not_know_merges_by_its_ops() {
    let story = Story::begin();
    let (new, old) = (story.person("new"), story.person("old"));
    let mut draft = add("a", "milk");
    draft.name = Name::new("addTodoWithReminder").unwrap();
    new.act(draft);
    story.run_until_quiet();
    assert_eq!(old.ids(), ["a"]);
}
