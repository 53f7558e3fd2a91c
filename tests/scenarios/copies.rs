//! Copies of a profile, and profiles that were put back to an earlier state: both works survive, and nothing doubles.

use driftlog_core::engine::{Output, Own, OwnStatus};
use driftlog_core::id::Seq;
use driftlog_core::notice::LogStatus;
use driftlog_core::protocol::Code;
use driftlog_core::sequencer::{Case, Ruling};
use driftlog_core::session::link::LinkState;
use driftlog_core::storage;
use driftlog_tests::disk::Loss;
use driftlog_tests::sim::board::{self, add, add_with_note, named, rename, splice, tag, untag, vote};
use driftlog_tests::sim::story::{Person, Story};

/// Everything of everybody is in the log once, and everybody is well.
pub(crate) fn all_is_well(story: &Story, people: &[&Person]) {
    story.run_until_quiet();
    for person in people {
        assert_eq!((person.status(), person.link()), (LogStatus::Synced, LinkState::Live));
        assert_eq!((person.outbox(), person.dead_letters()), (0, vec![]));
        assert_eq!(person.rows(), people[0].rows());
    }
}

#[test]
fn a_copy_made_with_work_pending_keeps_its_own_work_and_doubles_nothing() {
    // Whoever comes first, the other one takes a fresh actor.
    for copy_first in [false, true] {
        let story = Story::begin();
        let (alice, bob) = (story.person("alice"), story.person("bob"));
        alice.act(add("a", "milk"));
        story.run_until_quiet();
        alice.offline();
        let shared = [alice.act(add("b", "bread")), alice.act(vote("b", 2)), alice.act(tag("b", "red"))];
        story.run_for(500);
        let copy = alice.copy();
        copy.offline();
        copy.open_tab();
        let of_alice = [alice.act(vote("b", 10)), alice.act(add("c", "tea"))];
        let of_copy = [copy.act(vote("b", 100)), copy.act(rename("b", "rye")), copy.act(untag("b", "red"))];
        story.run_for(500);
        let (first, second) = if copy_first { (&copy, &alice) } else { (&alice, &copy) };
        first.online();
        story.run_for(2_000);
        second.online();
        all_is_well(&story, &[&alice, &copy, &bob]);
        assert_eq!((bob.field("b", "votes"), bob.field("b", "title")), ("112".into(), "rye".into()));
        assert_eq!((bob.field("b", "tags"), bob.ids()), (String::new(), vec!["a".into(), "b".into(), "c".into()]));
        assert_eq!(story.entries(), 9, "what both had is there once");
        let told = |person: &Person, write| person.is_accepted(write);
        assert!(shared.iter().chain(&of_alice).all(|write| told(&alice, *write)));
        assert!(of_copy.iter().all(|write| told(&copy, *write)));
    }
}

#[test]
fn a_copy_made_before_the_first_connection_is_one_client_more() {
    let story = Story::begin();
    story.world().crash_server(Loss::Nothing);
    let alice = story.person("alice");
    let shared = alice.act(add("a", "milk"));
    story.run_for(500);
    let copy = alice.copy();
    copy.open_tab();
    let (of_alice, of_copy) = (alice.act(rename("a", "cream")), copy.act(vote("a", 1)));
    copy.act(add("b", "bread"));
    story.run_for(500);
    story.world().start_server();
    all_is_well(&story, &[&alice, &copy]);
    assert_eq!((alice.ids(), alice.field("a", "title")), (vec!["a".into(), "b".into()], "cream".into()));
    assert_eq!(alice.field("a", "votes"), "1");
    assert!([shared, of_alice, of_copy].iter().all(|write| alice.is_accepted(*write)));
    assert_eq!(story.entries(), 4);
}

/// A snapshot says how far each actor is folded; under a seq that it covers a copy may have written.
#[test]
fn what_a_copy_wrote_under_the_same_seqs_is_in_a_snapshot_and_the_originals_work_counts_all_the_same() {
    // So far behind is sent the snapshot.
    const OTHERS: u64 = 5_100;
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add("a", "milk"));
    story.run_until_quiet();
    let copy = alice.copy();
    alice.offline();
    let own = [alice.act(vote("a", 1)), alice.act(add("b", "bread")), alice.act(rename("b", "rye"))];
    copy.open_tab();
    for _ in 0..5 {
        copy.act(vote("a", 100));
    }
    for _ in 0..OTHERS {
        bob.act(vote("a", 10_000));
    }
    story.run_until_quiet();
    alice.online();
    all_is_well(&story, &[&alice, &copy, &bob]);
    assert_eq!(bob.field("a", "votes"), (501 + 10_000 * OTHERS).to_string());
    assert_eq!((bob.field("b", "title"), story.entries()), ("rye".into(), 9 + OTHERS));
    assert!(own.iter().all(|write| alice.is_accepted(*write)));
}

/// … and where the entries that it covers are gone, nobody knows any more which of the two it was.
#[test]
fn what_a_copy_may_have_written_where_entries_are_gone_is_kept_as_a_dead_letter() {
    let story = Story::begin();
    story.keep_no_history();
    let alice = story.person("alice");
    alice.act(add("a", "milk"));
    story.run_until_quiet();
    let copy = alice.copy();
    alice.offline();
    let own = [alice.act(vote("a", 1)), alice.act(add("b", "bread"))];
    copy.open_tab();
    for _ in 0..40 {
        copy.act(vote("a", 100));
        story.run_for(300);
    }
    story.run_until_quiet();
    assert!(story.kept().1 > 5, "what alice wrote behind is gone");
    alice.online();
    story.run_until_quiet();
    let codes: Vec<_> = alice.dead_letters().into_iter().map(|(_, code)| code).collect();
    assert_eq!(codes, [Some(Code::OutcomeUnknown); 2]);
    assert!(own.iter().all(|write| !alice.is_accepted(*write)));
    assert_eq!((alice.field("a", "votes"), alice.ids()), ("4000".into(), vec!["a".into()]));
}

#[test]
fn two_copies_at_once_do_not_end_each_other_for_ever() {
    let story = Story::begin();
    let alice = story.person("alice");
    alice.act(add("a", "milk"));
    story.run_until_quiet();
    let copy = alice.copy();
    copy.open_tab();
    for round in 0..10 {
        alice.act(vote("a", 1));
        copy.act(vote("a", 100));
        story.run_for(500 * round);
    }
    all_is_well(&story, &[&alice, &copy]);
    assert_eq!(alice.field("a", "votes"), "1010");
    let begun = story.world().trace.newest(usize::MAX).count();
    story.run_for(120_000);
    let after = story.world().trace.newest(usize::MAX).count();
    assert!(after - begun < 200, "two minutes of peace take {} lines", after - begun);
    assert!(alice.link() == LinkState::Live && copy.link() == LinkState::Live);
}

#[test]
fn what_was_refused_stays_refused_for_a_profile_that_does_not_know_it() {
    for known_for_a_copy in [false, true] {
        let story = Story::begin();
        story.refuse("once");
        let alice = story.person("alice");
        alice.act(add("a", "milk"));
        story.run_until_quiet();
        alice.offline();
        let refused = alice.act(named("once", "b", "bread"));
        alice.act(rename("b", "rye"));
        story.run_for(500);
        let restored = alice.copy();
        alice.online();
        story.run_until_quiet();
        assert_eq!(alice.refusal(refused).code, Some(Code::EntryForbidden));
        if known_for_a_copy {
            // Nobody knows the nonce of the backup any more.
            alice.reload();
            story.run_until_quiet();
        }
        alice.close();
        // What was refused would be allowed now.
        story.set_policy(|_: &Case<'_>| Ruling::Allow);
        restored.open_tab();
        story.run_until_quiet();
        let codes: Vec<_> = restored.dead_letters().into_iter().map(|(_, code)| code).collect();
        // Under its own actor it is told a verdict whose details may have been released.
        let expected = [Code::EntryForbidden, Code::DependsOn];
        let told = codes.iter().zip(expected).map(|(code, expected)| (*code).unwrap_or(expected));
        assert_eq!(told.collect::<Vec<_>>(), expected);
        assert!(!known_for_a_copy || codes.iter().all(Option::is_some));
        assert_eq!((restored.ids(), restored.link()), (vec!["a".into()], LinkState::Live));
        restored.act(add("c", "tea"));
        story.run_until_quiet();
        assert_eq!(story.entries(), 2);
        // Its user may still make it again.
        let letter = restored.dead_letters()[0].0;
        restored.redrive(letter, None);
        story.run_until_quiet();
        assert_eq!((restored.ids(), story.entries()), (vec!["a".into(), "b".into(), "c".into()], 3));
    }
}

#[test]
fn texts_that_both_copies_went_on_writing_have_both_works() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add_with_note("a", "milk", "x"));
    story.run_until_quiet();
    alice.offline();
    alice.act(splice("a", 1, 0, " shared"));
    story.run_for(500);
    let copy = alice.copy();
    copy.offline();
    copy.open_tab();
    alice.act(splice("a", 0, 0, "alice "));
    copy.act(splice("a", 8, 0, " copy"));
    story.run_for(500);
    copy.online();
    story.run_for(2_000);
    alice.online();
    all_is_well(&story, &[&alice, &copy, &bob]);
    assert_eq!(bob.field("a", "note"), "alice x shared copy");
    alice.act(splice("a", 0, 0, "1 "));
    copy.act(splice("a", 0, 0, "2 "));
    all_is_well(&story, &[&alice, &copy, &bob]);
    assert_eq!(bob.field("a", "note").len(), "1 2 alice x shared copy".len());
}

#[test]
fn every_tab_of_a_copy_goes_on_under_the_fresh_actor() {
    let story = Story::begin();
    let alice = story.person("alice");
    alice.act(add("a", "milk"));
    story.run_until_quiet();
    let copy = alice.copy();
    alice.act(vote("a", 1));
    story.run_until_quiet();
    alice.reload();
    story.run_until_quiet();
    copy.offline();
    let (one, two, three) = (copy.open_tab(), copy.open_tab(), copy.open_tab());
    copy.act_in(one, vote("a", 10));
    copy.act_in(two, vote("a", 100));
    story.run_for(500);
    let device = copy.device();
    story.world().freeze(device, three);
    copy.online();
    copy.act_in(two, tag("a", "red"));
    story.run_until_quiet();
    copy.act_in(two, vote("a", 1_000));
    copy.act_in(three, vote("a", 10_000));
    story.world().thaw(device, three);
    all_is_well(&story, &[&alice, &copy]);
    assert_eq!((alice.field("a", "votes"), alice.field("a", "tags")), ("11111".into(), "red".into()));
}

#[test]
fn a_succession_that_is_cut_off_anywhere_is_made_once() {
    for at in 0..40 {
        let story = Story::begin();
        let alice = story.person("alice");
        alice.act(add("a", "milk"));
        story.run_until_quiet();
        let copy = alice.copy();
        alice.reload();
        story.run_until_quiet();
        copy.offline();
        copy.open_tab();
        copy.act(vote("a", 10));
        let second = copy.open_tab();
        copy.act_in(second, add("b", "bread"));
        story.run_for(500);
        copy.online();
        story.run_for(5 * at);
        if at % 2 == 0 {
            copy.reload();
        } else {
            copy.lose_power();
        }
        copy.act(vote("a", 100));
        all_is_well(&story, &[&alice, &copy]);
        assert_eq!((alice.field("a", "votes"), story.entries()), ("110".into(), 4), "cut off after {} ms", 5 * at);
    }
}

#[test]
fn nothing_flickers_while_a_fresh_actor_takes_over() {
    let story = Story::begin();
    let alice = story.person("alice");
    alice.act(add("a", "milk"));
    story.run_until_quiet();
    alice.offline();
    alice.act(vote("a", 1));
    alice.act(add("b", "bread"));
    story.run_for(500);
    let copy = alice.copy();
    alice.online();
    story.run_until_quiet();
    alice.reload();
    story.run_until_quiet();
    copy.open_tab();
    copy.act(vote("a", 10));
    for _ in 0..1_000 {
        assert_eq!((copy.field("a", "votes"), copy.ids()), ("11".into(), vec!["a".into(), "b".into()]));
        story.run_for(5);
    }
    all_is_well(&story, &[&alice, &copy]);
}

#[test]
fn what_an_actor_had_pending_that_the_server_has_forgotten_is_asked_for() {
    let story = Story::begin();
    let bob = story.person("bob");
    bob.act(add("a", "milk"));
    story.run_until_quiet();
    let backup = story.world().host.backup();
    let alice = story.person("alice");
    alice.offline();
    let (one, two) = (alice.act(vote("a", 1)), alice.act(add("b", "bread")));
    story.run_for(500);
    story.world().crash_server(Loss::Nothing);
    story.world().restore_server(&backup);
    story.world().start_server();
    alice.online();
    story.run_until_quiet();
    assert_eq!(story.entries(), 1, "nothing is sent blindly");
    assert_eq!((alice.link(), alice.status(), alice.ids()), (LinkState::Live, LogStatus::Synced, vec!["a".to_owned()]));
    let letters = alice.dead_letters();
    assert_eq!(letters.iter().map(|(_, code)| *code).collect::<Vec<_>>(), [Some(Code::OutcomeUnknown); 2]);
    assert!([one, two].iter().all(|write| alice.refusal(*write).code == Some(Code::OutcomeUnknown)));
    alice.act(vote("a", 10));
    alice.redrive(letters[0].0, None);
    story.run_for(500);
    alice.reload();
    story.run_until_quiet();
    assert_eq!((bob.field("a", "votes"), alice.dead_letters().len()), ("11".into(), 1));
    alice.discard(letters[1].0);
    story.run_for(500);
    assert_eq!((alice.dead_letters(), alice.ids()), (vec![], vec!["a".to_owned()]));
}

/// Codes of the refused entries that the app is given when it asks for them.
fn refused(story: &Story, person: &Person) -> Vec<Option<u16>> {
    let tab = person.tab();
    let mut world = story.world();
    let engine = world.devices[person.device()].engine(tab);
    engine.own_entries(&board::log(1), Own::Refused(Seq(0))).expect("an open log");
    let listed = std::iter::from_fn(|| engine.poll()).find_map(|output| match output {
        Output::OwnEntries(_, entries) => entries.ok(),
        _ => None,
    });
    let codes = listed.expect("an answer from memory").into_iter().filter_map(|entry| match entry.status {
        OwnStatus::Refused(_, code, _) => Some(code),
        _ => None,
    });
    codes.collect()
}

/// … also when the row of verdicts is damaged afterwards: of the actor before, no server tells anything again.
#[test]
fn what_the_server_has_forgotten_is_asked_for_until_somebody_decides() {
    for (goes_on, struck) in [(false, false), (true, false), (false, true), (true, true)] {
        let story = Story::begin();
        let bob = story.person("bob");
        bob.act(add("a", "milk"));
        story.run_until_quiet();
        let backup = story.world().host.backup();
        let alice = story.person("alice");
        alice.offline();
        alice.act(vote("a", 1));
        alice.act(add("b", "bread"));
        story.run_for(500);
        story.world().crash_server(Loss::Nothing);
        story.world().restore_server(&backup);
        story.world().start_server();
        alice.online();
        story.run_until_quiet();
        if goes_on {
            alice.act(vote("a", 10));
            story.run_until_quiet();
        }
        let letters = alice.dead_letters();
        alice.close();
        alice.database().flip(&storage::verdicts_key(&board::log(1)), 40);
        if struck {
            let (first, _) = letters[0];
            alice.database().flip(&storage::dead_letter_key(&board::log(1), first.actor, first.seq), 400);
        }
        let first = if struck { Code::Damaged } else { Code::OutcomeUnknown };
        let codes = [first, Code::OutcomeUnknown].map(|code| Some(code.number()));
        for _ in 0..2 {
            alice.open_tab();
            story.run_until_quiet();
            assert_eq!((refused(&story, &alice), alice.ids()), (codes.to_vec(), vec!["a".to_owned()]));
            alice.act(vote("a", 100));
            story.run_until_quiet();
            alice.close();
        }
        assert_eq!(bob.field("a", "votes"), if goes_on { "210" } else { "200" });
    }
}

#[test]
fn what_is_done_while_a_fresh_actor_takes_over_goes_on_under_it() {
    for after in (0..400).step_by(5) {
        let story = Story::begin();
        let bob = story.person("bob");
        bob.act(add("a", "milk"));
        story.run_until_quiet();
        let backup = story.world().host.backup();
        let alice = story.person("alice");
        alice.act(vote("a", 1));
        story.run_until_quiet();
        story.world().crash_server(Loss::Nothing);
        story.world().restore_server(&backup);
        story.world().start_server();
        story.world().weather.read = (20, 21);
        alice.disconnect();
        alice.act(vote("a", 5));
        story.run_for(500);
        alice.connect();
        story.run_for(after);
        let write = alice.act(vote("a", 10));
        story.run_for(120_000);
        assert_eq!((alice.link(), alice.outbox()), (LinkState::Live, 0), "acted after {after} ms");
        assert!(
            alice.is_accepted(write) || alice.refusal(write).code == Some(Code::OutcomeUnknown),
            "after {after} ms"
        );
    }
}

#[test]
fn a_log_that_is_written_for_the_first_time_while_a_fresh_actor_takes_over_goes_on_under_it() {
    for after in (0..400).step_by(5) {
        let story = Story::begin();
        let bob = story.person("bob");
        bob.act(add("a", "milk"));
        story.run_until_quiet();
        let backup = story.world().host.backup();
        let alice = story.person("alice");
        alice.act(vote("a", 1));
        alice.close();
        story.world().devices[alice.device()].logs = vec![board::log(1), board::log(2)];
        story.world().checker.watch(&board::log(2));
        let tab = alice.open_tab();
        story.run_until_quiet();
        story.world().crash_server(Loss::Nothing);
        story.world().restore_server(&backup);
        story.world().start_server();
        story.world().weather.storage = (20, 21);
        alice.disconnect();
        alice.act(vote("a", 5));
        story.run_for(500);
        alice.connect();
        story.run_for(after);
        story.world().act(alice.device(), tab, &board::log(2), add("b", "bread")).expect("taken");
        story.run_for(120);
        // An action that was stored and is nowhere is found by the checker; one that was not went with its tab.
        alice.reload();
        story.run_until_quiet();
        assert_eq!(alice.link(), LinkState::Live, "written after {after} ms");
    }
}

#[test]
fn a_tab_that_slept_while_a_letter_of_unknown_outcome_was_dealt_with_does_not_say_that_it_was_refused() {
    let story = Story::begin();
    let bob = story.person("bob");
    bob.act(add("a", "milk"));
    story.run_until_quiet();
    let backup = story.world().host.backup();
    let alice = story.person("alice");
    alice.offline();
    let (device, one) = (alice.device(), alice.tab());
    let write = alice.act(vote("a", 1));
    story.run_for(500);
    alice.open_tab();
    story.run_for(500);
    story.world().freeze(device, one);
    story.world().crash_server(Loss::Nothing);
    story.world().restore_server(&backup);
    story.world().start_server();
    alice.online();
    story.run_for(60_000);
    let letters = alice.dead_letters();
    assert_eq!(letters.iter().map(|(_, code)| *code).collect::<Vec<_>>(), [Some(Code::OutcomeUnknown)]);
    alice.discard(letters[0].0);
    story.run_for(500);
    story.world().thaw(device, one);
    story.run_until_quiet();
    let refusal = alice.refusal(write);
    assert_eq!(refusal.code, Some(Code::OutcomeUnknown));
    assert!(refusal.reason.contains("another tab"), "told by the tab that slept: {refusal:?}");
}

#[test]
fn a_redrive_that_was_refused_for_one_copy_is_refused_for_the_other() {
    let story = Story::begin();
    story.refuse("once");
    let alice = story.person("alice");
    alice.act(add("a", "milk"));
    alice.act(named("once", "b", "bread"));
    story.run_until_quiet();
    alice.offline();
    let redriven = alice.redrive(alice.dead_letters()[0].0, None);
    story.run_for(500);
    let copy = alice.copy();
    alice.act(vote("a", 1));
    copy.open_tab();
    copy.act(vote("a", 10));
    story.run_until_quiet();
    assert_eq!(copy.refusal(redriven).code, Some(Code::EntryForbidden));
    // It would be allowed now.
    story.set_policy(|_: &Case<'_>| Ruling::Allow);
    alice.online();
    story.run_until_quiet();
    assert_eq!(alice.refusal(redriven).code, Some(Code::EntryForbidden));
    assert_eq!((alice.ids(), alice.field("a", "votes"), story.entries()), (vec!["a".into()], "11".into(), 3));
}
