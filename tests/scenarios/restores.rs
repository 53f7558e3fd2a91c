//! Servers that were put back to a backup, overtaken since, or wiped: own entries come again once, the rest is listed.

use std::time::Duration;

use driftlog_core::entry::Logged;
use driftlog_core::id::{Seq, WriteId};
use driftlog_core::notice::LogStatus;
use driftlog_core::protocol::Code;
use driftlog_core::sequencer::{Case, Ruling};
use driftlog_core::session::link::LinkState;
use driftlog_core::storage::snapshot_key;
use driftlog_tests::disk::{Backup, Loss};
use driftlog_tests::sim::board::{self, add, event, named, rename, tag, untag, vote};
use driftlog_tests::sim::story::{Person, Story};

fn restore(story: &Story, backup: &Backup) {
    story.world().crash_server(Loss::Nothing);
    story.world().restore_server(backup);
    story.world().start_server();
}

fn backup(story: &Story) -> Backup {
    story.run_until_quiet();
    story.world().host.backup()
}

fn codes(person: &Person) -> Vec<Option<Code>> {
    person.dead_letters().into_iter().map(|(_, code)| code).collect()
}

#[test]
fn who_heard_of_entries_that_a_restored_server_has_not_does_not_wait_for_them() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add("a", "milk"));
    let backup = backup(&story);
    bob.offline();
    for at in 0..5 {
        alice.act(add(&format!("b{at}"), "bread"));
    }
    story.run_for(5_000);
    alice.close();
    bob.online();
    while bob.status() != LogStatus::Behind {
        story.run_for(1);
    }
    restore(&story, &backup);
    story.run_for(60_000);
    assert_eq!((bob.status(), bob.ids().len()), (LogStatus::Synced, 1));
}

#[test]
fn a_server_restored_and_overtaken_gets_every_entry_that_somebody_still_has_once() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add("a", "milk"));
    let backup = backup(&story);
    let lost = alice.act(add("b", "bread"));
    alice.act(vote("a", 10));
    story.run_until_quiet();
    bob.offline();
    alice.close();
    restore(&story, &backup);
    let carol = story.person("carol");
    for at in 0..5 {
        carol.act(add(&format!("c{at}"), "tea"));
    }
    story.run_for(5_000);
    bob.online();
    story.run_until_quiet();
    assert_eq!((bob.status(), bob.link(), bob.ids().len()), (LogStatus::Synced, LinkState::Live, 6));
    assert_eq!(codes(&bob), [Some(Code::LostByServer); 2], "what it still holds of alice's");
    alice.open_tab();
    story.run_until_quiet();
    assert_eq!((story.entries(), alice.dead_letters()), (8, vec![]));
    for person in [&alice, &bob, &carol] {
        assert_eq!((person.ids().len(), person.field("a", "votes")), (7, "10".to_owned()));
    }
    assert!(alice.is_accepted(lost));
    assert_eq!(bob.dead_letters(), [], "it came again");
}

#[test]
fn what_was_refused_since_the_backup_is_not_revived() {
    let story = Story::begin();
    story.refuse("once");
    let alice = story.person("alice");
    alice.act(add("a", "milk"));
    let backup = backup(&story);
    alice.act(named("once", "b", "bread"));
    alice.act(rename("b", "rye"));
    alice.act(vote("a", 1));
    story.run_until_quiet();
    let before = alice.dead_letters();
    alice.act(vote("a", 10));
    story.run_until_quiet();
    story.set_policy(|_: &Case<'_>| Ruling::Allow);
    restore(&story, &backup);
    story.run_until_quiet();
    assert_eq!((alice.ids(), alice.field("a", "votes")), (vec!["a".to_owned()], "11".to_owned()));
    assert_eq!(alice.dead_letters(), before);
    alice.act(vote("a", 100));
    alice.redrive(before[0].0, None);
    story.run_for(500);
    alice.reload();
    story.run_until_quiet();
    assert_eq!((alice.ids().len(), alice.field("a", "votes"), story.entries()), (2, "111".to_owned(), 5));
}

#[test]
fn a_base_of_the_lost_history_does_not_reach_into_the_new_one() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add("a", "milk"));
    story.run_until_quiet();
    bob.act(tag("a", "red"));
    let backup = backup(&story);
    for at in 0..3 {
        bob.act(add(&format!("b{at}"), "tea"));
    }
    story.run_until_quiet();
    alice.act(untag("a", "red"));
    story.run_until_quiet();
    assert_eq!(bob.field("a", "tags"), "");
    alice.offline();
    bob.offline();
    restore(&story, &backup);
    let carol = story.person("carol");
    for _ in 0..4 {
        carol.act(tag("a", "red"));
    }
    story.run_until_quiet();
    alice.online();
    bob.online();
    story.run_until_quiet();
    assert_eq!(
        (carol.field("a", "tags"), carol.ids().len()),
        ("red".to_owned(), 4),
        "it had not seen what carol added"
    );
}

#[test]
fn what_others_lost_stays_theirs_under_a_fresh_actor() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add("a", "milk"));
    let backup = backup(&story);
    alice.act(add("b", "bread"));
    alice.act(vote("a", 10));
    story.run_until_quiet();
    alice.close();
    restore(&story, &backup);
    story.run_until_quiet();
    let lost = bob.dead_letters();
    assert_eq!(codes(&bob), [Some(Code::LostByServer); 2]);
    bob.offline();
    let copy = bob.copy();
    copy.open_tab();
    copy.act(vote("a", 1));
    let writes: Vec<_> = (0..4).map(|_| bob.act(vote("a", 2))).collect();
    story.run_until_quiet();
    bob.online();
    story.run_until_quiet();
    assert!(writes.iter().all(|write| bob.is_accepted(*write)));
    assert_eq!((bob.field("a", "votes"), bob.dead_letters()), ("9".to_owned(), lost));
}

#[test]
fn a_wiped_server_lists_what_it_has_lost() {
    let story = Story::begin();
    let empty = story.world().host.backup();
    let alice = story.person("alice");
    alice.act(add("a", "milk"));
    story.run_until_quiet();
    alice.offline();
    alice.act(add("b", "bread"));
    story.run_for(500);
    restore(&story, &empty);
    alice.online();
    story.run_until_quiet();
    assert_eq!((alice.link(), alice.status(), alice.ids()), (LinkState::Live, LogStatus::Synced, vec![]));
    let letters = alice.dead_letters();
    assert_eq!(codes(&alice), [Some(Code::LostByServer), Some(Code::OutcomeUnknown)]);
    for (id, _) in letters {
        alice.redrive(id, None);
    }
    story.run_until_quiet();
    assert_eq!((alice.ids().len(), alice.dead_letters(), story.entries()), (2, vec![], 2));
}

#[test]
fn every_tab_goes_back_also_one_that_was_frozen_meanwhile() {
    let story = Story::begin();
    let alice = story.person("alice");
    alice.act(add("a", "milk"));
    let backup = backup(&story);
    let (first, second, third) = (alice.tab(), alice.open_tab(), alice.open_tab());
    alice.act_in(second, vote("a", 1));
    alice.act_in(first, add("b", "bread"));
    story.run_until_quiet();
    story.world().freeze(alice.device(), third);
    restore(&story, &backup);
    let carol = story.person("carol");
    carol.act(add("c", "tea"));
    story.run_until_quiet();
    alice.act_in(third, vote("a", 10));
    story.world().thaw(alice.device(), third);
    story.run_until_quiet();
    assert_eq!((carol.field("a", "votes"), carol.ids().len(), story.entries()), ("11".to_owned(), 3, 5));
}

#[test]
fn a_tab_that_slept_hears_of_a_refusal_behind_a_restored_backup() {
    let story = Story::begin();
    story.refuse("once");
    let alice = story.person("alice");
    alice.act(add("a", "milk"));
    let backup = backup(&story);
    let (device, two) = (alice.device(), alice.open_tab());
    story.run_until_quiet();
    alice.act(vote("a", 1));
    let refused = alice.act_in(two, named("once", "b", "bread"));
    story.run_for(12);
    story.world().freeze(device, two);
    story.run_for(5_000);
    assert_eq!(alice.refusal(refused).code, Some(Code::EntryForbidden), "told by the tab that leads");
    restore(&story, &backup);
    story.run_for(30_000);
    story.world().thaw(device, two);
    story.run_until_quiet();
    assert_eq!(alice.refusal(refused).code, Some(Code::EntryForbidden));
    assert_eq!((alice.ids(), alice.field("a", "votes")), (vec!["a".to_owned()], "1".to_owned()));
}

#[test]
fn a_log_that_goes_back_is_cut_off_anywhere_and_everything_comes_again_once() {
    for at in 0..40 {
        let story = Story::begin();
        let alice = story.person("alice");
        alice.act(add("a", "milk"));
        let backup = backup(&story);
        alice.act(vote("a", 1));
        alice.act(add("b", "bread"));
        story.run_until_quiet();
        restore(&story, &backup);
        story.run_for(10 * at);
        match at % 3 {
            0 => alice.reload(),
            1 => alice.lose_power(),
            _ => story.world().crash_and_restart_server(Loss::Unsynced),
        }
        alice.act(vote("a", 10));
        story.run_until_quiet();
        let seen = (alice.field("a", "votes"), alice.ids().len(), story.entries());
        assert_eq!(seen, ("11".to_owned(), 2, 4), "cut off after {} ms", 10 * at);
    }
}

#[test]
fn what_no_backup_has_comes_again_however_long_ago_it_was_accepted() {
    let story = Story::begin();
    story.world().host.config_mut().backed_up_after = Some(Duration::from_secs(3_600));
    story.world().stop_server();
    story.world().start_server();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add("a", "milk"));
    let backup = backup(&story);
    // More than a device keeps of what is accepted, and a snapshot behind it.
    for at in 0..20 {
        alice.act(add(&format!("b{at}"), "bread"));
        story.run_for(1_000);
    }
    alice.act(event("ring", 10));
    story.run_until_quiet();
    story.run_for(120_000);
    bob.close();
    restore(&story, &backup);
    story.run_until_quiet();
    assert_eq!((alice.ids().len(), codes(&alice)), (21, vec![Some(Code::LostByServer)]), "but for what has expired");
    // Two hours later everything is in a backup, and a device lets it go.
    story.run_for(7_200_000);
    alice.reload();
    alice.act(event("ring", 10));
    story.run_until_quiet();
    story.run_for(120_000);
    alice.act(event("ring", 10));
    story.run_until_quiet();
    story.run_for(120_000);
    let kept = alice.database().own_entries().len();
    assert!(kept < 10, "{kept} own entries are kept");
}

#[test]
fn what_is_stored_while_a_log_goes_back_is_not_taken_for_damage() {
    for at in 0..60 {
        let story = Story::begin();
        // A slow disk, and a read takes longer than the commits before it.
        (story.world().weather.storage, story.world().weather.flush) = ((2, 40), (5, 60));
        let alice = story.person("alice");
        let (first, second) = (alice.tab(), alice.open_tab());
        alice.act_in(first, add("a", "milk"));
        let backup = backup(&story);
        for _ in 0..5 {
            alice.act_in(first, vote("a", 1));
        }
        story.run_until_quiet();
        restore(&story, &backup);
        for _ in 0..10 {
            story.run_for(3 * at);
            alice.act_in(second, vote("a", 10));
        }
        story.run_until_quiet();
        let seen = (alice.field("a", "votes"), alice.dead_letters(), story.entries());
        assert_eq!(seen, ("105".to_owned(), vec![], 16), "{} ms apart", 3 * at);
    }
}

#[test]
fn what_was_written_under_the_actor_before_and_is_lost_is_listed() {
    let story = Story::begin();
    let alice = story.person("alice");
    alice.act(add("a", "milk"));
    let backup = backup(&story);
    let lost = alice.act(add("b", "bread"));
    story.run_until_quiet();
    let copy = alice.copy();
    copy.open_tab();
    alice.offline();
    copy.act(vote("a", 1));
    story.run_until_quiet();
    copy.close();
    // Somebody else has the nonce by now: alice goes on under a fresh actor.
    alice.act(vote("a", 10));
    alice.online();
    story.run_until_quiet();
    restore(&story, &backup);
    story.run_until_quiet();
    alice.reload();
    story.run_until_quiet();
    assert_eq!((alice.ids(), alice.field("a", "votes")), (vec!["a".to_owned()], "0".to_owned()));
    let letters = alice.dead_letters();
    assert!(letters.iter().all(|(_, code)| *code == Some(Code::LostByServer)), "{letters:?}");
    let bread = letters.iter().find(|(id, _)| id.seq == Seq(2)).expect("it is listed");
    alice.discard(bread.0);
    alice.reload();
    story.run_until_quiet();
    assert!(alice.told(lost).is_some() && !alice.dead_letters().contains(bread), "it does not come back");
}

#[test]
fn a_server_restored_while_a_fresh_actor_takes_over_tells_no_accepted_action_refused() {
    for at in 0..40 {
        let story = Story::begin();
        let alice = story.person("alice");
        let first = alice.act(add("a", "milk"));
        let backup = backup(&story);
        alice.act(vote("a", 1));
        story.run_until_quiet();
        let copy = alice.copy();
        copy.open_tab();
        alice.offline();
        copy.act(vote("a", 10));
        story.run_until_quiet();
        alice.act(vote("a", 100));
        restore(&story, &backup);
        alice.online();
        story.run_for(10 * at);
        alice.reload();
        story.run_until_quiet();
        assert!(alice.is_accepted(first) && copy.is_accepted(first), "cut off after {} ms", 10 * at);
        assert_eq!(alice.field("a", "votes"), copy.field("a", "votes"), "cut off after {} ms", 10 * at);
    }
}

#[test]
fn what_a_copy_was_told_to_be_accepted_before_it_read_it_is_not_lost_with_a_restored_server() {
    for filled in [0, 1, 2, 3] {
        let story = Story::begin();
        let (alice, bob) = (story.person("alice"), story.person("bob"));
        alice.act(add("a", "milk"));
        story.run_until_quiet();
        let copy = alice.copy();
        alice.offline();
        // Much to read, which the verdicts pass.
        for at in 0..40 {
            bob.act(add(&format!("b{at}"), &"x".repeat(100_000)));
            story.run_for(200);
        }
        let backup = backup(&story);
        copy.open_tab();
        let own = [copy.act(vote("a", 10)), copy.act(vote("a", 20))];
        while !own.iter().all(|write| copy.is_accepted(*write)) {
            story.run_for(1);
        }
        copy.close();
        restore(&story, &backup);
        alice.online();
        for _ in 0..filled {
            alice.act(vote("a", 1));
        }
        story.run_until_quiet();
        copy.open_tab();
        story.run_until_quiet();
        let lost = copy.dead_letters();
        assert!(lost.iter().all(|(_, code)| *code == Some(Code::LostByServer)), "{lost:?}");
        let is_logged = |write: &WriteId| {
            let made = |logged: &Logged| (logged.entry.header.run, logged.entry.header.n) == (write.run, write.n);
            story.logged().iter().any(made)
        };
        let kept: i64 = own.iter().zip([10, 20]).filter(|(write, _)| is_logged(write)).map(|(_, votes)| votes).sum();
        assert_eq!(own.iter().filter(|write| !is_logged(write)).count(), lost.len());
        assert_eq!(copy.field("a", "votes"), (filled + kept).to_string());
    }
}

#[test]
fn what_a_copys_entry_displaced_is_listed_by_a_page_that_closes_behind_each_snapshot() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    let much = |name: &str, count| {
        for at in 0..count {
            bob.act(add(&format!("{name}{at}"), &"x".repeat(100_000)));
            story.run_for(200);
        }
    };
    alice.act(add("a", "milk"));
    story.run_until_quiet();
    let copy = alice.copy();
    alice.offline();
    // To read, while the verdict comes.
    much("b", 40);
    let backup = backup(&story);
    copy.open_tab();
    let own = copy.act(vote("a", 10));
    while !copy.is_accepted(own) {
        story.run_for(1);
    }
    copy.close();
    restore(&story, &backup);
    alice.online();
    alice.act(vote("a", 1));
    alice.act(vote("a", 1));
    story.run_for(5_000);
    // Enough for a snapshot behind what was displaced.
    much("c", 6);
    story.run_until_quiet();
    let key = snapshot_key(&board::log(1));
    let snapshot = || copy.database().rows().find(|(row, _)| **row == key[..]).map(|(_, row)| row.to_vec());
    copy.open_tab();
    let (mut stored, mut closed) = (snapshot(), 0);
    for _ in 0..30_000 {
        story.run_for(1);
        if snapshot() != stored {
            stored = snapshot();
            copy.reload();
            closed += 1;
        }
    }
    story.run_until_quiet();
    assert!(closed > 1, "snapshots are made");
    let codes: Vec<_> = copy.dead_letters().into_iter().map(|(_, code)| code).collect();
    assert_eq!(codes, [Some(Code::LostByServer)]);
}
