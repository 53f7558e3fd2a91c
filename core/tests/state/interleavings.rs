//! Interleavings that break naive versions of this design, one test each.

use driftlog_core::id::{Base, EpochId, Offset, Seq};
use driftlog_core::op::FieldOp;
use driftlog_core::overlay::Status;
use driftlog_core::rich::Splice;
use driftlog_core::time::Time;
use driftlog_core::value::Value;

use crate::model::{
    Client, Server, add, delete, delete_unless_changed, from_scratch, id, initial, insert, name, remove, set, update,
};

/// A server and two clients that all know the record `x`.
fn world() -> (Server, Client, Client) {
    let (mut server, mut alice, mut bob) = (Server::new(), Client::new(1, 2), Client::new(2, 1));
    act(&mut alice, &server, 0, vec![insert("x", vec![("title", set("first"))])]);
    sync(&mut server, &mut [&mut alice, &mut bob]);
    (server, alice, bob)
}

fn act(client: &mut Client, server: &Server, tab: usize, ops: Vec<driftlog_core::op::Op>) {
    let actor = client.actor;
    client.tabs[tab].act(actor, server.now_ms, ops);
}

fn typed(client: &mut Client, server: &Server, tab: usize, at: usize, text: &str) {
    let actor = client.actor;
    client.tabs[tab].edit(actor, server.now_ms, "x", Splice { at, delete: 0, insert: text.to_owned() });
}

fn push(server: &mut Server, client: &mut Client) {
    (0..client.tabs.len()).for_each(|tab| client.store(tab));
    client.push(server, 1_000, false, true);
}

fn sync(server: &mut Server, clients: &mut [&mut Client]) {
    clients.iter_mut().for_each(|client| push(server, client));
    for client in clients {
        for tab in 0..client.tabs.len() {
            client.read_rows(tab);
            client.tabs[tab].receive(&server.log, usize::MAX);
            client.tabs[tab].check();
            assert_eq!(client.tabs[tab].state.digest(), from_scratch(&server.log).digest());
        }
    }
}

fn values(texts: &[&str]) -> Vec<Value> {
    texts.iter().map(|text| Value::from(*text)).collect()
}

#[test]
fn i13_two_actions_in_one_tick_name_each_other_before_they_have_seqs() {
    let (mut server, mut alice, mut bob) = world();
    let actor = alice.actor;
    let created = alice.tabs[0].act(actor, server.now_ms, vec![insert("y", vec![])]);
    let toggle = vec![update("y", "title", set("done"))];
    assert_eq!(alice.tabs[0].overlay.needs(&toggle), [created]);
    alice.tabs[0].act(actor, server.now_ms, toggle);
    alice.store(0);
    assert_eq!(alice.rows()[2].header.needs, [Seq(2)]);
    alice.push(&mut server, 1, true, true);
    assert_eq!(alice.tabs[0].register("y"), None, "refused");
    sync(&mut server, &mut [&mut alice, &mut bob]);
    assert_eq!(server.log.len(), 1, "what needs it is in nobody's log");
}

#[test]
fn i14_a_frozen_tab_removes_only_what_its_view_showed() {
    let (mut server, mut alice, mut bob) = world();
    act(&mut alice, &server, 0, vec![update("x", "tags", add("old"))]);
    sync(&mut server, &mut [&mut alice, &mut bob]);
    // Tab 1 freezes here. Tab 0 and bob go on for a month.
    act(&mut alice, &server, 0, vec![update("x", "tags", add("old"))]);
    act(&mut alice, &server, 0, vec![update("x", "title", set("tab 0"))]);
    act(&mut bob, &server, 0, vec![update("x", "tags", add("new"))]);
    push(&mut server, &mut alice);
    push(&mut server, &mut bob);
    server.now_ms += 30 * 86_400_000;
    act(&mut alice, &server, 1, vec![update("x", "tags", remove("old")), update("x", "tags", remove("new"))]);
    act(&mut alice, &server, 1, vec![update("x", "title", set("tab 1"))]);
    sync(&mut server, &mut [&mut alice, &mut bob]);
    assert_eq!(bob.tabs[0].tags("x"), values(&["new", "old"]), "neither add was seen");
    assert_eq!(bob.tabs[0].register("x"), Some(Value::from("tab 1")));
    let conflicts = bob.tabs[0].visible().conflicts(&crate::model::key("x"), &name("title"));
    assert_eq!(conflicts.len(), 2, "the other tab's title is reported");
    let seqs: Vec<_> = alice.rows().iter().map(|row| row.header.seq.0).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn i15_what_one_tab_adds_and_the_other_removes_stays_removed() {
    let (mut server, mut alice, mut bob) = world();
    act(&mut alice, &server, 0, vec![update("x", "tags", add("t"))]);
    alice.store(0);
    alice.read_rows(1);
    assert_eq!(alice.tabs[1].tags("x"), values(&["t"]));
    act(&mut alice, &server, 1, vec![update("x", "tags", remove("t"))]);
    alice.store(1);
    alice.read_rows(0);
    assert!(alice.tabs[0].tags("x").is_empty());
    sync(&mut server, &mut [&mut alice, &mut bob]);
    assert!(bob.tabs[0].tags("x").is_empty());
}

#[test]
fn i16_the_base_is_what_the_view_had_applied() {
    let (mut server, mut alice, mut bob) = world();
    act(&mut bob, &server, 0, vec![update("x", "tags", add("unseen"))]);
    push(&mut server, &mut bob);
    // The frame may lie in alice's store already; her view has not applied it.
    act(&mut alice, &server, 0, vec![update("x", "tags", remove("unseen"))]);
    sync(&mut server, &mut [&mut alice, &mut bob]);
    assert_eq!(server.log[2].entry.header.base.end, Offset(1));
    assert_eq!(alice.tabs[0].tags("x"), values(&["unseen"]));
}

#[test]
fn i29_a_server_clock_that_steps_back_does_not_turn_what_was_seen_into_a_winner() {
    let (mut server, mut alice, mut bob) = world();
    server.now_ms += 10_000;
    act(&mut alice, &server, 0, vec![update("x", "title", set("a"))]);
    sync(&mut server, &mut [&mut alice, &mut bob]);
    server.now_ms -= 2_000;
    act(&mut bob, &server, 0, vec![update("x", "title", set("b"))]);
    assert_eq!(bob.tabs[0].register("x"), Some(Value::from("b")), "pending");
    sync(&mut server, &mut [&mut alice, &mut bob]);
    assert_eq!(alice.tabs[0].register("x"), Some(Value::from("b")), "confirmed");
    assert!(server.log[2].accepted >= server.log[1].accepted);
}

#[test]
fn i30_a_clock_a_year_ahead_wins_up_to_now_and_poisons_nobody() {
    let (mut server, mut alice, mut bob) = world();
    alice.tabs[0].skew_ms = 365 * 86_400_000;
    act(&mut alice, &server, 0, vec![update("x", "title", set("future"))]);
    act(&mut bob, &server, 0, vec![update("x", "title", set("now"))]);
    push(&mut server, &mut bob);
    sync(&mut server, &mut [&mut alice, &mut bob]);
    assert_eq!(bob.tabs[0].register("x"), Some(Value::from("future")), "unseen, and accepted later");
    server.now_ms += 1;
    act(&mut bob, &server, 0, vec![update("x", "title", set("next"))]);
    sync(&mut server, &mut [&mut alice, &mut bob]);
    assert_eq!(alice.tabs[0].register("x"), Some(Value::from("next")));
    assert_eq!(bob.rows()[1].header.time, Time::from_ms(server.now_ms), "bob's clock is still the wall's");
}

#[test]
fn i31_the_first_write_after_a_snapshot_does_not_lose_to_what_was_seen() {
    let (mut server, mut alice, _) = world();
    alice.tabs[0].skew_ms = -5_000;
    act(&mut alice, &server, 0, vec![update("x", "title", set("seen"))]);
    push(&mut server, &mut alice);
    let mut carol = Client::new(3, 1);
    carol.tabs[0].skew_ms = -500_000;
    carol.tabs[0].restart(&mut server.state);
    assert_eq!(carol.tabs[0].register("x"), Some(Value::from("seen")));
    act(&mut carol, &server, 0, vec![update("x", "title", set("first"))]);
    assert_eq!(carol.tabs[0].register("x"), Some(Value::from("first")));
    sync(&mut server, &mut [&mut alice, &mut carol]);
    assert_eq!(alice.tabs[0].register("x"), Some(Value::from("first")));
}

#[test]
fn i32_an_increment_whose_ack_was_lost_counts_once_after_a_snapshot() {
    let (mut server, mut alice, mut bob) = world();
    act(&mut alice, &server, 0, vec![update("x", "votes", FieldOp::Increment(5))]);
    alice.store(0);
    alice.push(&mut server, 1, false, false);
    assert_eq!(alice.tabs[0].counter("x"), 5);
    alice.tabs[0].restart(&mut server.state);
    assert_eq!(alice.tabs[0].counter("x"), 5, "covered, though never acked");
    assert_eq!(alice.tabs[0].visible().status(&name("todos"), &id("x")), Status::Accepted);
    alice.reload(0);
    assert_eq!(alice.tabs[0].counter("x"), 5, "its row is still stored, and stays out of the view");
    sync(&mut server, &mut [&mut alice, &mut bob]);
    assert_eq!(bob.tabs[0].counter("x"), 5);
}

#[test]
fn i33_a_month_of_offline_work_merges_with_its_own_bases() {
    let (mut server, mut alice, mut bob) = world();
    for _ in 0..300 {
        act(&mut alice, &server, 0, vec![update("x", "votes", FieldOp::Increment(1))]);
        act(&mut alice, &server, 0, vec![update("x", "tags", add("t"))]);
        act(&mut alice, &server, 0, vec![update("x", "tags", remove("t"))]);
    }
    server.now_ms += 30 * 86_400_000;
    act(&mut bob, &server, 0, vec![update("x", "tags", add("t")), update("x", "votes", FieldOp::Increment(1))]);
    sync(&mut server, &mut [&mut bob, &mut alice]);
    sync(&mut server, &mut [&mut bob, &mut alice]);
    assert_eq!(bob.tabs[0].counter("x"), 301);
    assert_eq!(bob.tabs[0].tags("x"), values(&["t"]), "alice never saw bob's add");
}

#[test]
fn i34_a_late_set_around_the_grace_folds_the_same_with_and_without_the_tombstone() {
    const GRACE_MS: u64 = 30 * 86_400_000;
    for (late_ms, comes_back) in [(GRACE_MS, true), (GRACE_MS + 1, false)] {
        let (mut server, mut alice, mut bob) = world();
        act(&mut alice, &server, 0, vec![delete_unless_changed("x", GRACE_MS)]);
        push(&mut server, &mut alice);
        assert_eq!(alice.tabs[0].register("x"), None);
        // Bob is away; what he sets shows on his device meanwhile, as the record is there.
        act(&mut bob, &server, 0, vec![update("x", "votes", FieldOp::Increment(1))]);
        server.now_ms += late_ms;
        // Carol reads the log as it is now, dave with what came in between and from a snapshot.
        let mut carol = Client::new(3, 1);
        carol.tabs[0].receive(&server.log, usize::MAX);
        act(&mut alice, &server, 0, vec![insert("y", vec![])]);
        push(&mut server, &mut alice);
        let mut dave = Client::new(4, 1);
        dave.tabs[0].restart(&mut server.state);
        let left = [&carol, &dave].map(|client| client.tabs[0].state.tombstones().len());
        assert_eq!(left, [1, usize::from(comes_back)], "one has it still, as nothing was accepted since");
        sync(&mut server, &mut [&mut bob, &mut alice, &mut carol, &mut dave]);
        for client in [&alice, &bob, &carol, &dave] {
            assert_eq!(client.tabs[0].register("x").is_some(), comes_back, "{late_ms} ms");
            assert_eq!(client.tabs[0].counter("x"), i64::from(comes_back));
        }
    }
}

#[test]
fn a_pending_delete_gives_way_to_an_edit_that_it_has_not_seen() {
    let (mut server, mut alice, mut bob) = world();
    act(&mut alice, &server, 0, vec![update("x", "note", initial("note"))]);
    sync(&mut server, &mut [&mut alice, &mut bob]);
    act(&mut alice, &server, 0, vec![delete_unless_changed("x", 1_000)]);
    assert_eq!(alice.tabs[0].register("x"), None);
    typed(&mut bob, &server, 0, 4, " of bob");
    push(&mut server, &mut bob);
    alice.tabs[0].receive(&server.log, usize::MAX);
    alice.tabs[0].check();
    assert_eq!(alice.tabs[0].text("x"), "note of bob", "already while it is pending");
    sync(&mut server, &mut [&mut alice, &mut bob]);
    assert_eq!((alice.tabs[0].register("x"), bob.tabs[0].text("x")), (Some("first".into()), "note of bob".to_owned()));
}

#[test]
fn typing_on_a_record_that_is_deleted_meanwhile_brings_its_text_back() {
    let (mut server, mut alice, mut bob) = world();
    act(&mut alice, &server, 0, vec![update("x", "note", initial("note"))]);
    sync(&mut server, &mut [&mut alice, &mut bob]);
    typed(&mut bob, &server, 0, 4, "s");
    typed(&mut bob, &server, 0, 5, " of bob");
    act(&mut alice, &server, 0, vec![delete_unless_changed("x", 1_000)]);
    push(&mut server, &mut alice);
    bob.tabs[0].receive(&server.log, usize::MAX);
    bob.tabs[0].check();
    assert_eq!(bob.tabs[0].text("x"), "notes of bob", "laid on what is left of it");
    typed(&mut bob, &server, 0, 12, "!");
    sync(&mut server, &mut [&mut bob, &mut alice]);
    assert_eq!(
        (alice.tabs[0].text("x"), bob.tabs[0].text("x")),
        ("notes of bob!".to_owned(), "notes of bob!".to_owned())
    );
}

#[test]
fn i35_two_devices_that_insert_the_same_record_merge_it() {
    let (mut server, mut alice, mut bob) = (Server::new(), Client::new(1, 1), Client::new(2, 1));
    let fields = |title| vec![("title", set(title)), ("note", initial("Shopping")), ("tags", add(title))];
    act(&mut alice, &server, 0, vec![insert("x", fields("a"))]);
    typed(&mut alice, &server, 0, 8, " list");
    act(&mut bob, &server, 0, vec![insert("x", fields("b"))]);
    typed(&mut bob, &server, 0, 0, "My ");
    sync(&mut server, &mut [&mut alice, &mut bob]);
    sync(&mut server, &mut [&mut alice, &mut bob]);
    for client in [&alice, &bob] {
        assert_eq!(client.tabs[0].text("x"), "My Shopping list");
        assert_eq!(client.tabs[0].tags("x"), values(&["a", "b"]));
    }
    // Each of the two knew the record by its own insert, so neither's later work is void.
    act(&mut bob, &server, 0, vec![delete("x")]);
    sync(&mut server, &mut [&mut bob, &mut alice]);
    assert_eq!(alice.tabs[0].register("x"), None);
}

#[test]
fn i36_a_forged_base_sees_no_more_than_its_own_offset() {
    let (mut server, mut alice, mut bob) = world();
    let mut header = driftlog_core::entry::Header::new(
        driftlog_core::id::RunId([9; 8]),
        1,
        Seq(1),
        Base { epoch: EpochId::NONE, end: Offset(1 << 63) },
        Time::from_ms(server.now_ms),
    );
    header.own = None;
    let body = driftlog_core::entry::Body::new(
        name("act"),
        None,
        vec![update("x", "title", set("forged"))],
        None,
        Default::default(),
    );
    let entry = driftlog_core::entry::Entry::new(header, std::sync::Arc::new(body)).expect("well-formed");
    server.push(driftlog_core::id::ActorId([66; 16]), &entry, false);
    assert_eq!(server.log[1].base, Offset(1));
    act(&mut alice, &server, 0, vec![update("x", "title", set("after"))]);
    sync(&mut server, &mut [&mut alice, &mut bob]);
    let conflicts = bob.tabs[0].visible().conflicts(&crate::model::key("x"), &name("title"));
    assert_eq!(conflicts.len(), 2, "what came after it was not seen by it");
}

#[test]
fn i39_a_refused_change_takes_its_dependents_along_and_typing_goes_on() {
    let (mut server, mut alice, mut bob) = world();
    for (at, letter) in "abcde".chars().enumerate() {
        typed(&mut alice, &server, 0, at, &letter.to_string());
    }
    alice.store(0);
    alice.push(&mut server, 2, false, true);
    alice.push(&mut server, 1, true, true);
    assert_eq!(alice.tabs[0].text("x"), "ab", "c is out, and what builds on it does not fit");
    typed(&mut alice, &server, 0, 2, "!");
    assert_eq!(alice.tabs[0].text("x"), "ab!");
    sync(&mut server, &mut [&mut alice, &mut bob]);
    assert_eq!(bob.tabs[0].text("x"), "ab!");
    assert_eq!(alice.tabs[0].text("x"), "ab!");
}

#[test]
fn texts_of_two_tabs_and_two_devices_merge_pending_and_confirmed() {
    let (mut server, mut alice, mut bob) = world();
    typed(&mut alice, &server, 0, 0, "hello");
    alice.store(0);
    alice.read_rows(1);
    typed(&mut alice, &server, 1, 5, " world");
    typed(&mut bob, &server, 0, 0, "> ");
    assert_eq!(alice.tabs[1].text("x"), "hello world");
    sync(&mut server, &mut [&mut bob, &mut alice]);
    sync(&mut server, &mut [&mut bob, &mut alice]);
    let text = bob.tabs[0].text("x");
    assert!(text == "> hello world" || text == "hello world> ", "{text}");
    assert!(alice.tabs.iter().all(|tab| tab.text("x") == text));
    alice.reload(1);
    assert_eq!(alice.tabs[1].text("x"), text);
    typed(&mut alice, &server, 1, 0, "# ");
    sync(&mut server, &mut [&mut alice, &mut bob]);
    assert_eq!(bob.tabs[0].text("x"), format!("# {text}"));
}

#[test]
fn a_text_with_many_edits_is_saved_compact_and_goes_on() {
    let (mut server, mut alice, mut bob) = world();
    for round in 0..3 {
        for at in 0..400 {
            typed(&mut alice, &server, 0, round * 400 + at, "a");
        }
        sync(&mut server, &mut [&mut alice, &mut bob]);
        // The server's document is open, by its gate; alice's and bob's tabs read theirs.
        let lengths = [&mut server.state, &mut alice.tabs[0].state, &mut bob.tabs[0].state].map(|state| {
            let digest = state.digest();
            let bytes = driftlog_core::snapshot::encode(state);
            assert_eq!(state.digest(), digest);
            let again = driftlog_core::snapshot::decode(&bytes).expect("decodes");
            assert_eq!(again.digest(), digest);
            assert_eq!(again.plain(), state.plain());
            bytes.len()
        });
        let edits = (round + 1) * 400;
        assert!(lengths[0] < 60 * 1_024, "{lengths:?} bytes after {edits} edits");
        typed(&mut bob, &server, 0, 0, "b");
        sync(&mut server, &mut [&mut bob, &mut alice]);
    }
    alice.reload(0);
    bob.reload(0);
    typed(&mut alice, &server, 0, 0, "c");
    sync(&mut server, &mut [&mut alice, &mut bob]);
    assert_eq!(bob.tabs[0].text("x"), format!("cbbb{}", "a".repeat(1_200)));
    assert_eq!(alice.tabs[1].text("x"), bob.tabs[0].text("x"));
}

/// A note of several edits that both have, and that bob edits further without having heard of what follows.
fn noted() -> (Server, Client, Client) {
    let (mut server, mut alice, mut bob) = world();
    act(&mut alice, &server, 0, vec![update("x", "note", initial("one two three"))]);
    typed(&mut alice, &server, 0, 13, " four");
    sync(&mut server, &mut [&mut alice, &mut bob]);
    (server, alice, bob)
}

#[test]
fn a_late_edit_of_an_old_root_stands_where_it_was_typed_and_shows_at_once() {
    let (mut server, mut alice, mut bob) = noted();
    typed(&mut bob, &server, 0, 3, "!");
    typed(&mut bob, &server, 0, 4, "?");
    typed(&mut alice, &server, 0, 0, "> ");
    push(&mut server, &mut alice);
    server.reroot("x", 1_000);
    typed(&mut alice, &server, 0, 2, "# ");
    push(&mut server, &mut alice);
    bob.tabs[0].receive(&server.log, usize::MAX);
    bob.tabs[0].check();
    assert_eq!(bob.tabs[0].text("x"), "> # one!? two three four", "in the view only");
    // What he types now builds on what he sees, and is of the new root.
    typed(&mut bob, &server, 0, 8, "…");
    bob.tabs[0].check();
    sync(&mut server, &mut [&mut bob, &mut alice]);
    assert_eq!(alice.tabs[0].text("x"), "> # one!…? two three four");
    sync(&mut server, &mut [&mut alice, &mut bob]);
    assert_eq!(bob.rows().len(), 3);
    assert!(bob.rows().iter().all(|row| !row.is_translated()), "bytes once appended stay");
    let mine = server.log.iter().filter(|logged| logged.actor == bob.actor);
    let translated: Vec<_> = mine.filter(|logged| logged.entry.is_translated()).collect();
    assert_eq!(translated.len(), 2);
    for (logged, row) in translated.iter().zip(bob.rows()) {
        assert_eq!(logged.entry.pushed_digest(), row.digest(), "the log tells what was pushed");
    }
}

#[test]
fn a_late_edit_after_the_grace_is_refused_and_those_of_the_new_root_are_not() {
    let (mut server, mut alice, mut bob) = noted();
    typed(&mut bob, &server, 0, 3, "!");
    server.reroot("x", 10);
    server.now_ms += 11;
    act(&mut alice, &server, 0, vec![update("x", "title", set("later"))]);
    sync(&mut server, &mut [&mut alice, &mut bob]);
    assert_eq!(alice.tabs[0].text("x"), "one two three four");
    assert_eq!(bob.tabs[0].text("x"), "one two three four");
    typed(&mut bob, &server, 0, 3, "!");
    sync(&mut server, &mut [&mut bob, &mut alice]);
    assert_eq!(alice.tabs[0].text("x"), "one! two three four");
}

#[test]
fn what_builds_on_a_late_edit_is_translated_after_a_restart_of_the_server_too() {
    let (mut server, mut alice, mut bob) = noted();
    typed(&mut bob, &server, 0, 3, "!");
    typed(&mut bob, &server, 0, 4, "?");
    server.reroot("x", 1_000);
    bob.store(0);
    bob.push(&mut server, 1, false, true);
    server.state = driftlog_core::snapshot::decode(&driftlog_core::snapshot::encode(&mut server.state)).expect("reads");
    bob.reload(0);
    bob.tabs[0].check();
    assert_eq!(bob.tabs[0].text("x"), "one!? two three four");
    sync(&mut server, &mut [&mut bob, &mut alice]);
    assert_eq!(alice.tabs[0].text("x"), "one!? two three four");
}

#[test]
fn a_first_content_that_was_given_before_a_new_root_is_not_given_again() {
    let (mut server, mut alice, mut bob) = noted();
    // Bob's other self gives the same first content, and another one, without having heard of anything.
    act(&mut bob, &server, 0, vec![insert("x", vec![("note", initial("one two three"))])]);
    act(&mut bob, &server, 0, vec![update("x", "note", initial("new: "))]);
    server.reroot("x", 1_000);
    alice.tabs[0].receive(&server.log, usize::MAX);
    sync(&mut server, &mut [&mut bob, &mut alice]);
    sync(&mut server, &mut [&mut alice, &mut bob]);
    let text = alice.tabs[0].text("x");
    assert!(text == "new: one two three four" || text == "one two three fournew: ", "{text}");
}
