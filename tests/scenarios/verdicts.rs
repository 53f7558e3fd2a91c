//! Verdicts, resends and refusals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use driftlog_core::notice::{Accepted, LogStatus, WriteStatus};
use driftlog_core::protocol::Code;
use driftlog_core::sequencer::{Case, Ruling};
use driftlog_core::storage;
use driftlog_tests::disk::Loss;
use driftlog_tests::sim::board::{self, add, name, named, rename, vote};
use driftlog_tests::sim::network::Cut;
use driftlog_tests::sim::seeds::rules;
use driftlog_tests::sim::story::Story;

#[test]
fn a_refusal_leaves_no_trace_in_any_view_and_later_actions_survive_in_order() {
    let story = Story::begin();
    story.set_policy(rules);
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.offline();
    let refused = alice.act(named("forbidden", "a", "milk"));
    let dependent = alice.act(rename("a", "bread"));
    let good: Vec<_> = (0..3).map(|at| alice.act(add(&format!("b{at}"), "tea"))).collect();
    alice.online();
    story.run_until_quiet();
    assert_eq!(alice.refusal(refused).code, Some(Code::EntryForbidden));
    assert_eq!(alice.refusal(dependent).code, Some(Code::DependsOn));
    assert!(good.into_iter().all(|write| alice.is_accepted(write)));
    assert_eq!((alice.ids(), bob.ids()), (vec!["b0".into(), "b1".into(), "b2".into()], alice.ids()));
    assert_eq!(alice.dead_letters().len(), 2);
}

#[test]
fn a_lost_refusal_frame_is_the_same_refusal_again() {
    let story = Story::begin();
    story.set_policy(rules);
    let alice = story.person("alice");
    alice.offline();
    let refused = alice.act(named("forbidden", "a", "milk"));
    let accepted = alice.act(add("b", "bread"));
    alice.online();
    // The server has decided; nothing that it says arrives any more.
    while story.entries() == 0 {
        story.run_for(1);
    }
    alice.cut(Cut::Silent);
    story.run_until_quiet();
    assert_eq!(alice.refusal(refused).code, Some(Code::EntryForbidden), "never \"2 is accepted, so 1 is\"");
    assert!(alice.is_accepted(accepted));
    assert_eq!((story.entries(), alice.dead_letters().len()), (1, 1));
}

#[test]
fn a_client_that_dies_between_a_verdict_and_its_dead_letter_gets_it_again() {
    let story = Story::begin();
    story.set_policy(rules);
    let alice = story.person("alice");
    for gap in 0..40 {
        let record = format!("a{gap}");
        alice.act(named("forbidden", &record, "milk"));
        story.run_for(gap);
        alice.reload();
    }
    story.run_until_quiet();
    assert_eq!((story.entries(), alice.outbox()), (0, 0));
    let letters = alice.dead_letters();
    assert!(letters.iter().all(|(_, code)| *code == Some(Code::EntryForbidden)));
}

#[test]
fn a_server_that_dies_after_its_commit_answers_the_same_after_its_start() {
    let story = Story::begin();
    let alice = story.person("alice");
    story.world().weather.answers_lost = 1_000;
    let write = alice.act(add("a", "milk"));
    while story.world().host.server.is_some() {
        story.run_for(1);
    }
    story.world().weather.answers_lost = 0;
    story.run_for(10_000);
    story.run_until_quiet();
    assert!(alice.is_accepted(write));
    assert_eq!(story.entries(), 1, "in the log once");
}

#[test]
fn what_needs_a_settled_refusal_is_refused_too() {
    let story = Story::begin();
    story.set_policy(rules);
    let alice = story.person("alice");
    let two = alice.open_tab();
    let refused = alice.act_in(two, named("forbidden", "a", "milk"));
    story.run_for(5);
    // The second action was made before the verdict came, and is sent behind it.
    let dependent = alice.act_in(two, vote("a", 1));
    story.run_until_quiet();
    assert_eq!(alice.refusal(refused).code, Some(Code::EntryForbidden));
    assert_eq!(alice.refusal(dependent).code, Some(Code::DependsOn));
    assert_eq!(story.entries(), 0);
}

#[test]
fn retry_later_holds_that_log_of_that_actor_visibly_and_is_no_refusal() {
    let story = Story::begin();
    let open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&open);
    story.set_policy(move |case: &Case<'_>| match *case.name() == name("later") && !gate.load(Ordering::Relaxed) {
        true => Ruling::RetryLater { reason: "closed".into(), delay: Duration::from_secs(5) },
        false => Ruling::Allow,
    });
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    let held = alice.act(named("later", "a", "milk"));
    let behind = alice.act(add("b", "bread"));
    let other = bob.act(add("c", "tea"));
    story.run_for(60_000);
    assert_eq!((alice.status(), alice.outbox()), (LogStatus::Held, 2));
    assert!(bob.is_accepted(other), "others go on");
    open.store(true, Ordering::Relaxed);
    story.run_until_quiet();
    assert!(alice.is_accepted(held) && alice.is_accepted(behind));
    assert!(alice.dead_letters().is_empty());
}

#[test]
fn what_is_held_until_a_time_passes_though_the_servers_clock_was_a_year_ahead() {
    let story = Story::begin();
    story.set_policy(rules);
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    // The log's last accepted time is a year ahead from now on, and so is Alice's idea of the server's clock.
    story.world().set_server_clock(365 * 24 * 3_600_000);
    bob.act(add("b", "bread"));
    alice.cut(Cut::Told);
    story.run_for(10_000);
    let held = alice.act(named("later", "a", "milk"));
    story.world().set_server_clock(0);
    story.run_until_quiet();
    assert!(alice.is_accepted(held));
}

#[test]
fn a_quota_refuses_and_once_it_is_raised_new_work_passes() {
    let story = Story::begin();
    let quota = Arc::new(AtomicUsize::new(2));
    let allowed = Arc::clone(&quota);
    story.set_policy(move |case: &Case<'_>| {
        let there = case.before.collection(&name("todos")).map_or(0, |records| records.len());
        match there >= allowed.load(Ordering::Relaxed) {
            true => Ruling::Refuse { code: Code::QuotaExceeded, reason: format!("{there} are enough") },
            false => Ruling::Allow,
        }
    });
    let alice = story.person("alice");
    let writes: Vec<_> = (0..4).map(|at| alice.act(add(&format!("a{at}"), "milk"))).collect();
    story.run_until_quiet();
    assert_eq!(alice.refusal(writes[2]).code, Some(Code::QuotaExceeded));
    quota.store(10, Ordering::Relaxed);
    let later = alice.act(add("b", "bread"));
    story.run_until_quiet();
    assert!(alice.is_accepted(later));
    assert_eq!(alice.ids(), ["a0", "a1", "b"]);
}

#[test]
fn what_another_tab_built_on_a_refused_action_is_in_nobodys_log() {
    let story = Story::begin();
    story.set_policy(rules);
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    let one = alice.tab();
    let two = alice.open_tab();
    let refused = alice.act_in(one, named("forbidden", "a", "milk"));
    // Before the verdict, which takes a round trip.
    while !alice.ids().contains(&"a".to_owned()) {
        story.run_for(1);
    }
    let dependent = alice.act_in(two, rename("a", "bread"));
    let good = alice.act_in(two, add("b", "tea"));
    assert!(matches!(alice.told(refused), Some(WriteStatus::Stored(_))), "there is no verdict yet");
    story.run_until_quiet();
    assert_eq!(alice.refusal(refused).code, Some(Code::EntryForbidden));
    assert_eq!(alice.refusal(dependent).code, Some(Code::DependsOn));
    assert!(alice.is_accepted(good));
    assert_eq!((alice.ids(), bob.ids(), story.entries()), (vec!["b".into()], vec!["b".into()], 1));
}

#[test]
fn who_comes_back_by_a_snapshot_hears_that_the_unanswered_action_is_accepted() {
    let story = Story::begin();
    story.keep_no_history();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    let made = alice.act(add("a", "milk"));
    let write = alice.act(vote("a", 1));
    while story.entries() < 2 {
        story.run_for(1);
    }
    alice.cut(Cut::Silent);
    alice.offline();
    for _ in 0..60 {
        bob.act(vote("a", 100));
        story.run_for(300);
    }
    story.run_for(20_000);
    assert!(story.kept().1 > 2, "the entries are gone");
    assert!(!alice.is_accepted(made) && !alice.is_accepted(write), "the verdicts were lost");
    alice.online();
    story.run_until_quiet();
    for write in [made, write] {
        let told = alice.told(write);
        assert!(matches!(&told, Some(WriteStatus::Accepted(Accepted { offset: None, .. }))), "{told:?}");
    }
    assert_eq!(alice.field("a", "votes"), "6001");
    story.world().crash_server(Loss::Unsynced);
    story.world().start_server();
    story.run_until_quiet();
}

#[test]
fn a_tab_that_finds_the_verdicts_damaged_learns_them_from_the_tab_that_has_them() {
    for full in [false, true] {
        let story = Story::begin();
        let alice = story.person("alice");
        alice.act(add("a", "milk"));
        alice.act(vote("a", 1));
        story.run_until_quiet();
        alice.database().flip(&storage::verdicts_key(&board::log(1)), 40);
        alice.database().full = full;
        alice.open_tab();
        story.run_for(5_000);
        alice.database().full = false;
        story.run_until_quiet();
        assert_eq!((alice.outbox(), alice.status()), (0, LogStatus::Synced), "full: {full}");
    }
}

#[test]
fn verdicts_that_are_found_damaged_while_refusals_are_settled_are_written_once() {
    for before_ms in (0..8_000).step_by(500) {
        let story = Story::begin();
        story.refuse("once");
        let alice = story.person("alice");
        alice.act(add("a", "milk"));
        // The leader looks at its rows every half minute; what is refused is settled after five seconds.
        story.run_for(30_000 - before_ms);
        alice.act(named("once", "b", "bread"));
        story.run_for(300);
        alice.database().flip(&storage::verdicts_key(&board::log(1)), 40);
        story.world().weather.storage = (1_500, 1_501);
        story.run_for(30_000);
        story.world().weather.storage = (1, 3);
        alice.open_tab();
        story.run_until_quiet();
        assert_eq!((alice.outbox(), alice.dead_letters().len()), (0, 1), "refused {before_ms} ms before");
    }
}
