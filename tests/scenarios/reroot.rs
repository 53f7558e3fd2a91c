//! Texts whose history has grown far beyond their content begin anew, and nobody notices.

use std::time::Duration;

use driftlog_core::notice::WriteStatus;
use driftlog_core::protocol::Code;
use driftlog_core::sequencer::{Case, Ruling};
use driftlog_tests::disk::Loss;
use driftlog_tests::sim::board::{add_with_note, rename, splice};
use driftlog_tests::sim::network::Cut;
use driftlog_tests::sim::story::{Person, Story};

const LONG: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const SHORT: Duration = Duration::from_secs(60);

/// A note that two have, and of which texts begin anew soon.
fn noted(grace: Duration) -> (Story, Person, Person) {
    let story = Story::begin();
    story.reroot_soon(grace);
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add_with_note("a", "milk", "one two three"));
    story.run_until_quiet();
    (story, alice, bob)
}

fn agree(story: &Story, people: &[&Person], note: &str) {
    story.run_until_quiet();
    for person in people {
        assert_eq!(person.field("a", "note"), note);
        assert_eq!((person.outbox(), person.dead_letters()), (0, vec![]));
    }
}

#[test]
fn a_text_begins_anew_while_both_write_in_it() {
    let (story, alice, bob) = noted(LONG);
    alice.wear_out(&story, "a");
    bob.act(splice("a", 13, 0, "!"));
    agree(&story, &[&alice, &bob], "one two three!");
    let snapshot_reader = story.person("carol");
    agree(&story, &[&snapshot_reader], "one two three!");
}

#[test]
fn a_device_lets_the_old_root_go_when_its_grace_is_over_though_nobody_writes() {
    for away in [false, true] {
        let (story, alice, _) = noted(SHORT);
        alice.wear_out(&story, "a");
        story.reroot_no_more();
        let carol = story.person("carol");
        let in_grace = carol.snapshot_bytes();
        if away {
            carol.close();
        }
        story.run_for(90_000);
        if away {
            carol.open_tab();
            story.run_for(1_000);
        }
        assert!(2 * carol.snapshot_bytes() < in_grace, "{} of {in_grace} bytes", carol.snapshot_bytes());
        agree(&story, &[&alice, &carol], "one two three");
    }
}

#[test]
fn an_old_root_that_own_work_builds_on_is_kept_beyond_its_grace_and_not_looked_at_without_end() {
    let (story, alice, bob) = noted(SHORT);
    bob.offline();
    let first = bob.types(3, "!");
    alice.wear_out(&story, "a");
    story.reroot_no_more();
    let delay = Duration::from_secs(3_600);
    story.set_policy(move |case: &Case<'_>| match case.user.as_str() {
        "bob" => Ruling::RetryLater { reason: "not now".into(), delay },
        _ => Ruling::Allow,
    });
    bob.online();
    story.run_for(30_000);
    bob.database().take_work();
    story.run_for(600_000);
    assert!(bob.database().take_work().commits < 10, "what it is kept for takes an hour");
    story.set_policy(|_: &Case<'_>| Ruling::Allow);
    agree(&story, &[&alice, &bob], "one! two three");
    assert!(bob.is_accepted(first));
}

#[test]
fn an_edit_made_offline_on_the_old_root_merges_where_it_was_typed() {
    let (story, alice, bob) = noted(LONG);
    bob.offline();
    let (first, second) = (bob.types(3, "!"), bob.types(4, "?"));
    alice.wear_out(&story, "a");
    alice.act(splice("a", 0, 3, "1"));
    bob.online();
    agree(&story, &[&alice, &bob], "1!? two three");
    assert_eq!(story.translated(), 2);
    assert!(bob.is_accepted(first) && bob.is_accepted(second));
}

#[test]
fn an_old_edit_whose_answer_is_lost_is_sent_again_and_counts_once() {
    let (story, alice, bob) = noted(LONG);
    bob.offline();
    bob.types(3, "!");
    alice.wear_out(&story, "a");
    bob.online();
    story.run_for(60);
    for _ in 0..20 {
        bob.cut(Cut::Silent);
        story.run_for(25);
    }
    agree(&story, &[&alice, &bob], "one! two three");
    assert_eq!(story.translated(), 1);
}

#[test]
fn what_was_typed_on_the_old_root_shows_at_once_and_typing_goes_on() {
    let (story, alice, bob) = noted(LONG);
    // Bob hears everything, and is not heard.
    let before = story.roots();
    bob.act(rename("a", "bread"));
    bob.vanish();
    bob.types(3, "!");
    alice.wear_out(&story, "a");
    assert_eq!(story.roots(), before + 1);
    bob.types(4, "?");
    assert_eq!(bob.field("a", "note"), "one!? two three");
    bob.online();
    agree(&story, &[&alice, &bob], "one!? two three");
}

#[test]
fn restarts_of_both_sides_between_two_old_edits_change_nothing() {
    let (story, alice, bob) = noted(LONG);
    bob.offline();
    bob.types(3, "!");
    bob.types(4, "?");
    alice.wear_out(&story, "a");
    bob.online();
    story.run_until_quiet();
    bob.offline();
    story.world().stop_server();
    story.world().start_server();
    bob.reload();
    bob.types(5, "…");
    bob.online();
    agree(&story, &[&alice, &bob], "one!?… two three");
    assert_eq!(story.translated(), 2);
}

#[test]
fn after_the_grace_one_entry_replaces_each_and_nobody_is_asked() {
    let (story, alice, bob) = noted(SHORT);
    bob.offline();
    let (first, second) = (bob.types(3, "!"), bob.types(4, "?"));
    alice.wear_out(&story, "a");
    story.reroot_no_more();
    story.run_for(90_000);
    alice.act(splice("a", 0, 3, "1"));
    bob.online();
    agree(&story, &[&alice, &bob], "1!? two three");
    let replacing = story.logged().iter().filter(|logged| logged.entry.header.replaces.is_some()).count();
    assert_eq!((story.translated(), replacing), (0, 2));
    assert!(bob.is_accepted(first) && bob.is_accepted(second));
}

#[test]
fn after_the_grace_a_device_that_starts_from_a_snapshot_has_its_edits_too() {
    let (story, alice, bob) = noted(SHORT);
    story.world().host.config_mut().retention =
        driftlog_server::Retention::default().with("*", driftlog_server::Keep::Last(1));
    story.world().stop_server();
    story.world().start_server();
    bob.offline();
    bob.types(3, "!");
    bob.reload();
    bob.types(8, "?");
    alice.wear_out(&story, "a");
    story.run_for(90_000);
    alice.wear_out(&story, "a");
    story.reroot_no_more();
    story.run_for(90_000);
    for number in 0..30 {
        alice.act(rename("a", &format!("milk {number}")));
        story.run_for(100);
    }
    bob.online();
    agree(&story, &[&alice, &bob], "one! two? three");
}

#[test]
fn a_text_that_nobody_edits_any_more_comes_to_rest() {
    let (story, alice, bob) = noted(SHORT);
    for word in 0..60 {
        alice.act(splice("a", 0, 0, &format!("worn {word} ")));
        story.run_for(300);
        alice.act(splice("a", 0, format!("worn {word} ").len(), ""));
        story.run_for(300);
    }
    agree(&story, &[&alice, &bob], "one two three");
    bob.offline();
    let (kept, roots) = (story.kept().0, story.roots());
    // Once for the old root there is, and once for that of the last new one.
    story.leave_alone_for(SHORT.as_millis() as u64);
    story.leave_alone_for(SHORT.as_millis() as u64);
    let (at_rest, _) = story.kept();
    assert!(
        at_rest * 2 < kept && story.roots() > roots,
        "{kept} became {at_rest}, {} roots more",
        story.roots() - roots
    );
    let (entries, end) = (story.logged().len(), story.kept());
    story.leave_alone_for(SHORT.as_millis() as u64);
    assert_eq!((story.logged().len(), story.kept()), (entries, end), "it rests");
    // Who was away types on a root that is long gone.
    let late = bob.types(3, "!");
    bob.online();
    agree(&story, &[&alice, &bob], "one! two three");
    assert!(bob.is_accepted(late));
}

#[test]
fn a_crash_between_refusal_and_replacement_loses_nothing() {
    for cut_ms in [0, 20, 40, 60, 80, 100, 120, 160, 200] {
        let (story, alice, bob) = noted(SHORT);
        bob.offline();
        bob.types(3, "!");
        bob.types(4, "?");
        alice.wear_out(&story, "a");
        story.reroot_no_more();
        story.run_for(90_000);
        alice.act(rename("a", "bread"));
        bob.online();
        story.run_for(cut_ms);
        bob.lose_power();
        agree(&story, &[&alice, &bob], "one!? two three");
    }
}

#[test]
fn an_old_edit_whose_letter_is_discarded_is_told_with_what_was_made_of_it() {
    for refused in [false, true] {
        let (story, alice, bob) = noted(SHORT);
        bob.open_tab();
        bob.offline();
        let first = bob.types(3, "!");
        alice.wear_out(&story, "a");
        story.reroot_no_more();
        story.run_for(90_000);
        story.set_policy(move |case: &Case<'_>| match case.entry.header.replaces.is_some() && refused {
            true => Ruling::Refuse { code: Code::EntryForbidden, reason: "no replacements".into() },
            false => Ruling::Allow,
        });
        bob.online();
        while bob.dead_letters().is_empty() {
            story.run_for(1);
        }
        while bob.outbox() == 0 {
            story.run_for(1);
        }
        // Made again, and stored; the server has not heard of it.
        bob.vanish();
        story.run_for(100);
        bob.discard(bob.dead_letters()[0].0);
        story.run_for(1_000);
        assert!(matches!(bob.told(first), Some(WriteStatus::Stored(_))), "refused: {refused}");
        bob.online();
        story.run_until_quiet();
        assert_eq!(bob.is_accepted(first), !refused);
        assert_eq!(bob.field("a", "note"), if refused { "one two three" } else { "one! two three" });
    }
}

#[test]
fn a_server_that_was_put_back_does_not_make_a_refused_replacement_accepted() {
    let (story, alice, bob) = noted(SHORT);
    bob.offline();
    let first = bob.types(3, "!");
    alice.wear_out(&story, "a");
    story.reroot_no_more();
    story.run_for(90_000);
    let backup = story.world().host.backup();
    bob.online();
    while bob.dead_letters().is_empty() {
        story.run_for(1);
    }
    // Refused, made again, and not pushed when the server is lost: so the refusal is, and the replacement is refused.
    story.world().crash_server(Loss::Nothing);
    story.world().restore_server(&backup);
    story.world().start_server();
    story.set_policy(|case: &Case<'_>| match case.entry.header.replaces {
        Some(_) => Ruling::Refuse { code: Code::EntryForbidden, reason: "no replacements".into() },
        None => Ruling::Allow,
    });
    story.run_until_quiet();
    assert!(bob.refusal(first).code.is_some());
}

#[test]
fn what_a_copy_has_made_again_is_accepted_in_every_tab_of_the_other() {
    let (story, alice, bob) = noted(SHORT);
    bob.open_tab();
    bob.offline();
    let first = bob.types(3, "!");
    story.run_for(500);
    alice.wear_out(&story, "a");
    story.reroot_no_more();
    story.run_for(90_000);
    let copy = bob.copy();
    copy.offline();
    copy.open_tab();
    bob.online();
    while bob.dead_letters().is_empty() || bob.outbox() == 0 {
        story.run_for(1);
    }
    // Made again, and stored; the server hears of it after the copy's.
    bob.vanish();
    story.run_for(60_000);
    copy.online();
    story.run_for(60_000);
    bob.online();
    story.run_until_quiet();
    assert!(bob.is_accepted(first) && copy.is_accepted(first));
    assert_eq!((bob.field("a", "note"), copy.field("a", "note")), ("one! two three".into(), "one! two three".into()));
}

#[test]
fn an_old_edit_that_was_made_again_while_its_tab_slept_is_told_to_be_accepted() {
    let (story, alice, bob) = noted(SHORT);
    let (device, one) = (bob.device(), bob.tab());
    bob.offline();
    let first = bob.types(3, "!");
    story.run_for(500);
    bob.open_tab();
    story.run_for(500);
    story.world().freeze(device, one);
    alice.wear_out(&story, "a");
    story.reroot_no_more();
    story.run_for(90_000);
    bob.online();
    story.run_until_quiet();
    agree(&story, &[&alice, &bob], "one! two three");
    story.world().thaw(device, one);
    story.run_until_quiet();
    assert!(bob.is_accepted(first));
}

#[test]
fn what_builds_on_an_old_edit_while_that_is_refused_is_made_again_with_it_and_not_without_end() {
    for after_ms in (0..2_000).step_by(100) {
        let (story, alice, bob) = noted(SHORT);
        bob.offline();
        bob.types(3, "!");
        alice.wear_out(&story, "a");
        story.reroot_no_more();
        story.run_for(90_000);
        alice.act(rename("a", "bread"));
        story.run_for(1_000);
        story.world().weather.latency = (200, 201);
        bob.online();
        story.run_for(after_ms);
        bob.act(add_with_note("a", "milk", "one two three"));
        story.run_for(50);
        bob.types(0, "?");
        story.run_for(20_000);
        assert_eq!(bob.outbox(), 0, "done after {after_ms} ms");
        agree(&story, &[&alice, &bob], "?one! two three");
    }
}
