//! Frames that no engine says, or not in this order.

use driftlog_core::id::{ActorId, Offset, Seq};
use driftlog_core::op::{FieldOp, Op, Update};
use driftlog_core::protocol::Code;
use driftlog_core::protocol::frame::Frame;
use driftlog_core::sequencer::{Case, Ruling};
use driftlog_core::value::Value;
use driftlog_tests::peer::{Peer, name};
use driftlog_tests::sim::board::{self, add, add_with_note, splice, tag};
use driftlog_tests::sim::story::Story;
use driftlog_tests::sim::stranger::Stranger;

#[test]
fn hellos_that_arrive_late_do_not_make_a_copy_of_their_client() {
    let story = Story::begin();
    let mut alice = Stranger::new(&story, "alice");
    let nonce = alice.arrives(&alice.hello()).expect("the first");
    alice.remembers(nonce);
    // This one is sent, and its socket given up before it arrives.
    let late = alice.hello();
    let nonce = alice.arrives(&alice.hello()).expect("in time");
    alice.remembers(nonce);
    let (hello, later) = (alice.hello(), alice.hello());
    alice.arrives(&late).expect("it may be a lost welcome");
    let nonce = alice.arrives(&hello).expect("its client goes on");
    alice.remembers(nonce);
    alice.arrives(&later).expect("as late as the other");
    alice.connect();
}

#[test]
fn nobody_writes_under_anothers_actor_or_as_the_log_itself() {
    let story = Story::begin();
    let mut alice = Stranger::new(&story, "alice");
    alice.connect();
    for (actor, expected) in [(alice.peer.actor, Code::ActorTaken), (ActorId::LOG, Code::ActorTaken)] {
        let mut mallory = Stranger::new(&story, "mallory");
        mallory.peer.actor = actor;
        assert_eq!(mallory.arrives(&mallory.hello()), Err(expected));
    }
    let entry = alice.peer.act(Peer::insert("a"));
    let answer = alice.say(&alice.peer.push(&[entry]));
    assert!(answer.iter().any(|frame| matches!(frame, Frame::Ack(_))), "she notices nothing");
    assert_eq!(story.entries(), 1);
}

#[test]
fn a_forged_base_is_worth_no_more_than_its_place() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add("a", "milk"));
    alice.act(tag("a", "red"));
    story.run_until_quiet();
    let mut mallory = Stranger::new(&story, "mallory");
    mallory.connect();
    let untag = Op::Update(Update {
        collection: name("todos"),
        record: driftlog_core::id::RecordId::new("a").unwrap(),
        field: name("tags"),
        op: FieldOp::Remove(vec![Value::text("red")]),
    });
    let forged = mallory.peer.act_with(vec![untag], |header| header.base.end = Offset(1 << 53));
    mallory.say(&mallory.peer.push(&[forged]));
    alice.act(tag("a", "red"));
    story.run_until_quiet();
    assert_eq!((alice.field("a", "tags"), bob.field("a", "tags")), ("red".into(), "red".into()), "added behind it");
    let world = story.world();
    let entries = world.host.server.as_ref().unwrap().entries(&board::log(1), Offset(0)).unwrap();
    assert!(entries.iter().all(|(logged, _)| logged.base <= logged.offset));
}

#[test]
fn an_op_of_a_newer_version_is_refused_and_stops_nobody() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    let mut newer = Stranger::new(&story, "newer");
    newer.connect();
    let entries = [newer.peer.act(Peer::unknown()), newer.peer.act(Peer::insert("a"))];
    let answer = newer.say(&newer.peer.push(&entries));
    assert_eq!(Stranger::marks(&answer), [(1, Some(Code::UnknownOp))]);
    alice.act(add("b", "milk"));
    story.run_until_quiet();
    assert_eq!(bob.ids(), ["a", "b"]);
}

#[test]
fn a_change_of_a_text_that_hides_what_it_builds_on_is_refused_and_hangs_nobody() {
    let story = Story::begin();
    story.set_policy(|case: &Case<'_>| match case.ops().len() == 1 && case.name().as_str() == "refused" {
        true => Ruling::Refuse { code: Code::EntryForbidden, reason: "no".into() },
        false => Ruling::Allow,
    });
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add_with_note("a", "milk", "x"));
    story.run_until_quiet();
    // Alice's work is pushed by somebody who has her database and says less than she would.
    let identity = {
        let (device, tab) = (alice.device(), alice.tab());
        story.world().devices[device].engine(tab).identity().cloned().expect("an identity")
    };
    alice.offline();
    let mut refused = splice("a", 0, 0, "first ");
    refused.name = name("refused");
    alice.act(refused);
    alice.act(splice("a", 0, 0, "second "));
    story.run_for(500);
    let own = alice.database().own_entries();
    let mut peer = Peer::new("alice");
    (peer.client, peer.actor, peer.nonces) = (identity.client, identity.actor, identity.nonces);
    alice.close();
    let mut forger = Stranger::with(&story, peer, "alice");
    forger.connect();
    (forger.peer.seq, forger.peer.chain) =
        (Seq(1), driftlog_core::chain::Chain::actor_start(identity.actor, &board::log(1)));
    forger.peer.chain = forger.peer.chain.with_pushed(Seq(1), own[0].digest());
    let hiding = own[1..].iter().map(|entry| {
        let mut header = entry.header.clone();
        header.needs.clear();
        let entry = driftlog_core::entry::Entry::new(header, entry.body.clone()).unwrap();
        forger.peer.chain = forger.peer.chain.with_pushed(entry.header.seq, entry.digest());
        entry
    });
    let hiding: Vec<_> = hiding.collect();
    assert_eq!((own[2].header.needs.clone(), hiding[1].header.needs.len()), (vec![Seq(2)], 0));
    let answer = forger.say(&forger.peer.push(&hiding));
    assert_eq!(Stranger::marks(&answer), [(2, Some(Code::EntryForbidden)), (3, Some(Code::RichChange))]);
    bob.act(splice("a", 0, 0, "bob "));
    let carol = story.person("carol");
    story.run_until_quiet();
    assert_eq!((bob.field("a", "note"), carol.field("a", "note")), ("bob x".into(), "bob x".into()));
}
