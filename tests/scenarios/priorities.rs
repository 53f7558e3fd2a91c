//! Logs with priorities, as an app says them: what the user waits for comes first, and what is small waits for nothing.

use driftlog_core::id::{LogName, WriteId};
use driftlog_core::notice::WriteStatus;
use driftlog_core::session::client::Priority;
use driftlog_tests::sim::board::{self, add, vote};
use driftlog_tests::sim::device::TabNumber;
use driftlog_tests::sim::story::{Person, Story};

/// Todos of so many bytes, in a large log and in one that is waited for.
const TITLE_BYTES: usize = 100_000;
const LARGE: usize = 40;
const WANTED: usize = 10;

fn logs() -> [LogName; 2] {
    [board::log(1), board::log(2)]
}

/// Two logs with much in them, and somebody with a new device who follows both.
fn two_logs() -> (Story, Person) {
    let story = Story::begin();
    let alice = story.person("alice");
    alice.close();
    for device in [alice.device(), story.newcomer("bob").device()] {
        story.world().devices[device].logs = logs().to_vec();
    }
    story.world().checker.watch(&board::log(2));
    let tab = alice.open_tab();
    for (log, count) in logs().iter().zip([LARGE, WANTED]) {
        for at in 0..count {
            let draft = add(&format!("todo {at}"), &"x".repeat(TITLE_BYTES));
            story.world().act(alice.device(), tab, log, draft).expect("taken");
            story.run_for(200);
        }
    }
    story.run_until_quiet();
    (story, alice)
}

fn shown(story: &Story, device: usize, tab: TabNumber, log: &LogName) -> usize {
    story.world().rows(device, tab, log).map_or(0, |rows| rows.len())
}

/// How many todos of the large log are there when all of the other are.
fn ahead(story: &Story, device: usize, tab: TabNumber) -> usize {
    let [large, wanted] = logs();
    for _ in 0..60_000 {
        story.run_for(1);
        if shown(story, device, tab, &wanted) == WANTED {
            return shown(story, device, tab, &large);
        }
    }
    panic!("the log does not arrive");
}

#[test]
fn a_log_of_high_priority_is_there_before_a_large_one_of_low_priority() {
    let (story, alice) = two_logs();
    let [large, wanted] = logs();
    let bob = alice.device() + 1;
    let tab = story.world().open_tab(bob);
    for (log, priority) in [(&large, Priority::Low), (&wanted, Priority::High)] {
        story.world().prioritize(bob, tab, log, priority);
    }
    let ahead = ahead(&story, bob, tab);
    assert!(ahead <= 3, "{ahead} todos of the large log came first");
    story.run_until_quiet();
    assert_eq!(shown(&story, bob, tab, &large), LARGE);
}

#[test]
fn what_any_tab_says_counts_from_then_on() {
    let (story, alice) = two_logs();
    let [large, wanted] = logs();
    let bob = alice.device() + 1;
    let leader = story.world().open_tab(bob);
    for (log, priority) in [(&large, Priority::High), (&wanted, Priority::Low)] {
        story.world().prioritize(bob, leader, log, priority);
    }
    while story.world().brought(bob).arrived < 3 * TITLE_BYTES as u64 {
        story.run_for(1);
    }
    let follower = story.world().open_tab(bob);
    for (log, priority) in [(&large, Priority::Low), (&wanted, Priority::High)] {
        story.world().prioritize(bob, follower, log, priority);
    }
    let ahead = ahead(&story, bob, leader);
    assert!(ahead <= LARGE / 2, "{ahead} todos of the large log came first");
    story.run_until_quiet();
    assert_eq!(shown(&story, bob, leader, &large), LARGE);
}

#[test]
fn a_small_write_is_answered_while_a_large_log_arrives_as_it_is_without_one() {
    let (story, alice) = two_logs();
    let [large, wanted] = logs();
    let bob = alice.device() + 1;
    let tab = story.world().open_tab(bob);
    let answered = |log: &LogName| {
        let write: WriteId = story.world().act(bob, tab, log, vote("todo 0", 1)).expect("taken");
        (1..60_000).find(|_| {
            story.run_for(1);
            matches!(story.world().checker.last_told(log, write), Some(WriteStatus::Accepted(_)))
        })
    };
    story.world().prioritize(bob, tab, &large, Priority::Low);
    story.world().prioritize(bob, tab, &wanted, Priority::High);
    ahead(&story, bob, tab);
    let during: Vec<_> = (0..5).map(|_| answered(&wanted).expect("an answer")).collect();
    assert!(shown(&story, bob, tab, &large) < LARGE, "the large log was still arriving");
    story.run_until_quiet();
    let quiet: Vec<_> = (0..5).map(|_| answered(&wanted).expect("an answer")).collect();
    let [during, quiet] = [during, quiet].map(|times| times.into_iter().max().expect("five"));
    assert!(during <= 2 * quiet, "{during} ms while it arrived, {quiet} ms without");
}
