//! Folds of whole clients: handlers that throw, tabs that share dead letters, devices that lack history.

use driftlog_core::consumer::Breaker;
use driftlog_core::fold::{Act, Status};
use driftlog_core::id::Offset;
use driftlog_tests::folds::Counts;
use driftlog_tests::sim::board::{self, add, vote};
use driftlog_tests::sim::device::TabNumber;
use driftlog_tests::sim::story::{Person, Story};

fn open(person: &Person, story: &Story, version: u64) -> (TabNumber, Counts) {
    let tab = person.tab();
    (tab, story.world().open_fold(person.device(), tab, &board::log(1), version))
}

/// Lets a fold work, and time pass, until it has everything; or for ten minutes.
fn work(story: &Story, person: &Person, fold: &mut (TabNumber, Counts), fails: impl Fn(&Act) -> bool) {
    let end = Offset(story.entries());
    for _ in 0..600 {
        story.world().work_fold(person.device(), fold.0, &mut fold.1, &fails);
        if fold.1.status == Status::Live && fold.1.end == end && fold.1.breaker == Breaker::Closed {
            return;
        }
        story.run_for(1_000);
    }
}

fn never(_: &Act) -> bool {
    false
}

/// Somebody acts so many times.
fn are_made(story: &Story, person: &Person, actions: usize) {
    for at in 0..actions {
        person.act(if at % 3 == 0 { vote("a0", 1) } else { add(&format!("a{at}"), "milk") });
        story.run_for(50);
    }
    story.run_until_quiet();
}

#[test]
fn an_outage_of_the_handlers_parks_nothing_and_work_resumes_by_itself() {
    let story = Story::begin();
    let alice = story.person("alice");
    let mut fold = open(&alice, &story, 1);
    for at in 0..40 {
        alice.act(add(&format!("a{at}"), "milk"));
    }
    story.run_until_quiet();
    work(&story, &alice, &mut fold, |_| true);
    assert_eq!((fold.1.breaker, fold.1.parked.clone(), fold.1.confirmed("addTodo")), (Breaker::Open, vec![], 0));
    work(&story, &alice, &mut fold, never);
    assert_eq!((fold.1.breaker, fold.1.parked.clone(), fold.1.confirmed("addTodo")), (Breaker::Closed, vec![], 40));
}

#[test]
fn a_poison_entry_is_parked_and_the_others_arrive_as_if_it_were_not_there() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    let (mut with, mut without) = (open(&alice, &story, 1), open(&bob, &story, 1));
    for at in 0..20 {
        alice.act(add(&format!("a{at}"), "milk"));
    }
    story.run_until_quiet();
    work(&story, &alice, &mut with, |act| act.offset == Some(Offset(7)));
    work(&story, &bob, &mut without, never);
    assert_eq!((with.1.parked.clone(), with.1.confirmed("addTodo")), (vec![7], 19));
    assert_eq!((without.1.parked.clone(), without.1.confirmed("addTodo")), (vec![], 20), "parked there alone");
    bob.act(add("late", "tea"));
    story.run_until_quiet();
    work(&story, &alice, &mut with, |act| act.offset == Some(Offset(7)));
    assert_eq!((with.1.parked.clone(), with.1.confirmed("addTodo"), story.entries()), (vec![7], 20, 21));
}

#[test]
fn a_device_that_began_with_a_snapshot_folds_the_same_as_one_that_has_everything() {
    let story = Story::begin();
    let alice = story.person("alice");
    let mut live = open(&alice, &story, 1);
    are_made(&story, &alice, 200);
    work(&story, &alice, &mut live, never);
    let bob = story.person("bob");
    story.run_until_quiet();
    let mut late = open(&bob, &story, 2);
    work(&story, &bob, &mut late, never);
    assert_eq!((live.1.from, late.1.from), (Some(Offset(0)), Some(Offset(0))));
    assert_eq!((late.1.end, late.1.digest()), (live.1.end, live.1.digest()));
    let mut newer = open(&alice, &story, 2);
    work(&story, &alice, &mut newer, never);
    assert_eq!(newer.1.digest(), live.1.digest(), "a new version folds all of it again");
}

#[test]
fn a_fold_begins_where_the_history_begins_that_there_still_is() {
    let story = Story::begin();
    story.keep_no_history();
    let alice = story.person("alice");
    let mut live = open(&alice, &story, 1);
    are_made(&story, &alice, 200);
    work(&story, &alice, &mut live, never);
    assert!(story.kept().1 > 0, "the beginning is gone");
    let (bob, carol) = (story.person("bob"), story.person("carol"));
    story.run_until_quiet();
    let (mut one, mut other) = (open(&bob, &story, 2), open(&carol, &story, 2));
    work(&story, &bob, &mut one, never);
    work(&story, &carol, &mut other, never);
    assert_eq!((one.1.status, other.1.status), (Status::Live, Status::Live));
    assert!(one.1.from > Some(Offset(0)) && live.1.from == Some(Offset(0)), "{:?}", one.1.from);
    assert_eq!((one.1.from, one.1.end, one.1.digest()), (other.1.from, other.1.end, other.1.digest()));
    alice.act(add("late", "tea"));
    story.run_until_quiet();
    work(&story, &bob, &mut one, never);
    work(&story, &carol, &mut other, never);
    assert_eq!((one.1.end, one.1.digest()), (Offset(story.entries()), other.1.digest()));
}

#[test]
fn what_one_tab_redrove_is_not_undone_by_another_and_both_agree_after_a_reload() {
    let story = Story::begin();
    let alice = story.person("alice");
    for at in 0..5 {
        alice.act(add(&format!("a{at}"), "milk"));
    }
    story.run_until_quiet();
    let poison = |act: &Act| act.offset == Some(Offset(1));
    let mut first = open(&alice, &story, 1);
    work(&story, &alice, &mut first, poison);
    alice.open_tab();
    let mut second = open(&alice, &story, 1);
    work(&story, &alice, &mut second, poison);
    story.run_for(1_000);
    assert_eq!((first.1.parked.clone(), second.1.parked.clone()), (vec![1], vec![1]));
    let (log, device) = (board::log(1), alice.device());
    story.world().devices[device].engine(first.0).redrive_fold(&log, first.1.id, None).unwrap();
    work(&story, &alice, &mut first, never);
    story.run_for(1_000);
    assert_eq!((first.1.parked.clone(), first.1.confirmed("addTodo")), (vec![], 5));
    // The other has not heard of it, goes on, and writes its own checkpoint.
    story.world().devices[device].engine(second.0).discard_folded(&log, second.1.id, Offset(1)).unwrap();
    for at in 5..300 {
        alice.act(add(&format!("a{at}"), "milk"));
    }
    story.run_until_quiet();
    work(&story, &alice, &mut second, never);
    work(&story, &alice, &mut first, never);
    story.run_for(1_000);
    alice.reload();
    let mut again = open(&alice, &story, 1);
    work(&story, &alice, &mut again, never);
    assert_eq!((again.1.parked.clone(), again.1.confirmed("addTodo")), (vec![], 300), "the redrive stands");
}
