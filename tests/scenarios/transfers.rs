//! Snapshots that a link cuts in the middle.

use driftlog_core::limits::SNAPSHOT_PART_BYTES;
use driftlog_server::{Keep, Retention};
use driftlog_tests::sim::board::{add, rename};
use driftlog_tests::sim::network::Cut;
use driftlog_tests::sim::story::{Person, Story};

/// Todos of so many bytes make a snapshot of many parts.
const TODOS: usize = 20;
const TITLE_BYTES: usize = 150_000;

/// What a cut may cost beside what it left unsent: what was in the socket, and what the server had made for it.
const LOST_BYTES_MAX: u64 = 4 * SNAPSHOT_PART_BYTES as u64;

fn title(at: usize) -> String {
    (0..TITLE_BYTES).map(|byte| char::from(b'a' + ((byte * 7 + at) % 26) as u8)).collect()
}

/// A log whose snapshot has many parts, and somebody whose new device has never seen it.
fn large() -> (Story, Person, Person) {
    let story = Story::begin();
    {
        // Entries that two snapshots cover go: nothing but a snapshot brings a newcomer up.
        let mut world = story.world();
        world.host.config_mut().retention = Retention::default().with("*", Keep::Last(1));
        world.stop_server();
        world.start_server();
    }
    let alice = story.person("alice");
    for at in 0..TODOS {
        alice.act(add(&format!("todo {at}"), &title(at)));
        story.run_for(200);
    }
    story.run_until_quiet();
    let bob = story.newcomer("bob");
    (story, alice, bob)
}

/// Runs until so many more bytes have come to a device; whether they did within an hour.
fn run_until_brought(story: &Story, person: &Person, bytes: u64) -> bool {
    let before = story.world().brought(person.device()).arrived;
    (0..360_000).any(|_| {
        story.run_for(10);
        story.world().brought(person.device()).arrived >= before + bytes
    })
}

/// The link dies whenever so many parts have come, until the device shows everything; how often it died.
fn cut_until_whole(story: &Story, person: &Person, parts: usize, mut meanwhile: impl FnMut(usize)) -> u64 {
    for cuts in 0..60 {
        if !run_until_brought(story, person, (parts * SNAPSHOT_PART_BYTES) as u64) || person.ids().len() == TODOS {
            return cuts;
        }
        person.cut(if cuts % 2 == 0 { Cut::Told } else { Cut::Silent });
        meanwhile(cuts as usize);
    }
    panic!("a snapshot that is cut every {parts} parts does not arrive");
}

#[test]
fn a_snapshot_over_a_link_that_dies_every_few_parts_comes_to_an_end_and_is_sent_about_once() {
    let (story, _, bob) = large();
    story.world().open_tab(bob.device());
    let cuts = cut_until_whole(&story, &bob, 5, |_| {});
    story.run_until_quiet();
    let (sent, snapshot) = (story.world().brought(bob.device()).sent, (TODOS * TITLE_BYTES) as u64);
    assert!(cuts >= 5, "it was cut {cuts} times");
    assert!(sent <= snapshot + snapshot / 10 + (cuts + 1) * LOST_BYTES_MAX, "{sent} bytes, {cuts} cuts");
}

#[test]
fn a_server_that_was_started_again_goes_on_with_a_snapshot_in_its_middle() {
    let (story, _, bob) = large();
    story.world().open_tab(bob.device());
    let cuts = cut_until_whole(&story, &bob, 5, |_| {
        let mut world = story.world();
        world.stop_server();
        world.start_server();
    });
    story.run_until_quiet();
    assert!(cuts >= 5, "it was cut {cuts} times");
}

#[test]
fn a_snapshot_that_the_server_has_no_more_is_begun_anew_and_mixed_with_no_other() {
    let (story, alice, bob) = large();
    story.world().open_tab(bob.device());
    assert!(run_until_brought(&story, &bob, 10 * SNAPSHOT_PART_BYTES as u64));
    bob.vanish();
    for round in 0..3 {
        // Each makes a snapshot that takes the place of an older one.
        for at in 0..TODOS {
            alice.act(rename(&format!("todo {at}"), &title(at + round + 1)));
            story.run_for(200);
        }
    }
    assert!(bob.ids().is_empty(), "it was cut in the middle");
    bob.online();
    story.run_until_quiet();
    assert_eq!(bob.field("todo 3", "title"), title(6));
    assert_eq!(bob.ids().len(), TODOS);
}

#[test]
fn what_is_kept_for_a_reader_who_never_came_goes_though_nobody_writes_any_more() {
    let story = Story::begin();
    story.keep_no_history();
    let alice = story.person("alice");
    let write = |name: &str| {
        for at in 0..TODOS {
            alice.act(add(&format!("{name} {at}"), &title(at)));
            story.run_for(200);
        }
    };
    write("first");
    let bob = story.newcomer("bob");
    story.world().open_tab(bob.device());
    assert!(run_until_brought(&story, &bob, SNAPSHOT_PART_BYTES as u64));
    bob.cut(Cut::Silent);
    bob.vanish();
    // Snapshots follow, behind the one that the device has a part of.
    write("then");
    let kept = story.kept().1;
    story.run_for(120_000);
    assert_eq!(story.kept().1, kept, "kept for the device, and nobody looks");
    story.run_until_purged();
    assert!(story.kept().1 > kept);
    bob.online();
    story.run_until_quiet();
    assert_eq!(bob.ids().len(), 2 * TODOS);
}
