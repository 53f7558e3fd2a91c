//! Clients and servers of different protocol versions: they speak what they have in common, or say what to do.

use driftlog_core::session::link::LinkState;
use driftlog_tests::sim::board::{add, rename};
use driftlog_tests::sim::network::Cut;
use driftlog_tests::sim::story::Story;

/// What the newest tab says of its connection.
fn reason(story: &Story, device: usize) -> String {
    let mut world = story.world();
    let tab = *world.devices[device].tabs().last().expect("an open tab");
    world.devices[device].engine(tab).connection().reason.clone()
}

/// Whoever has no version in common with its server is told, and loses nothing; when that is mended it goes on.
fn apart(versions: (u32, u32), advice: &str) {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add("a", "milk"));
    story.run_until_quiet();
    story.world().clients_speak = Some(versions);
    alice.cut(Cut::Told);
    story.run_for(60_000);
    assert_eq!(alice.link(), LinkState::Blocked);
    let told = reason(&story, alice.device());
    assert!(told.contains("protocol-version") && told.contains(advice), "{told}");
    let writes = [alice.act(add("b", "tea")), alice.act(rename("a", "oat milk"))];
    story.run_for(60_000);
    alice.reload();
    story.run_for(60_000);
    assert_eq!((alice.link(), alice.outbox(), story.entries()), (LinkState::Blocked, 2, 1));
    assert_eq!((alice.field("a", "title"), alice.ids().len()), ("oat milk".to_owned(), 2));
    assert!(alice.dead_letters().is_empty() && bob.ids() == ["a"]);
    story.world().clients_speak = None;
    alice.connect();
    story.run_until_quiet();
    assert!(writes.iter().all(|write| alice.is_accepted(*write)));
    assert_eq!((story.entries(), bob.field("a", "title")), (3, "oat milk".to_owned()));
}

#[test]
fn a_client_of_a_newer_protocol_is_told_to_update_the_server_and_keeps_what_is_pending() {
    apart((2, 3), "update the server");
}

#[test]
fn a_client_that_its_server_does_not_speak_with_any_more_is_told_to_update() {
    apart((0, 0), "update the app");
}

#[test]
fn a_newer_client_that_still_speaks_the_servers_protocol_is_served_in_it() {
    let story = Story::begin();
    story.world().clients_speak = Some((1, 9));
    let alice = story.person("alice");
    let write = alice.act(add("a", "milk"));
    story.run_until_quiet();
    assert!(alice.is_accepted(write));
}
