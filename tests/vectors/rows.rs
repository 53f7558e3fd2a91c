//! Rows of a client's database, each sealed with length and CRC32C, and the bytes of a snapshot.

use driftlog_core::chain::Cursor;
use driftlog_core::codec::{DecodeError, seal, unseal};
use driftlog_core::entry::Digest;
use driftlog_core::id::{ActorId, EntryId, EpochId, Offset, Seq, UserId};
use driftlog_core::op::{Delete, DeletePolicy, Erase, FieldOp, Insert, Op};
use driftlog_core::packed::Void;
use driftlog_core::protocol::Code;
use driftlog_core::protocol::frame::{MarkedStatus, Nonce};
use driftlog_core::snapshot;
use driftlog_core::state::State;
use driftlog_core::storage::own::Damaged;
use driftlog_core::storage::purge::Purged;
use driftlog_core::storage::row::{self, DeadLetter, Identity, Received, Verdicts, Voids};
use driftlog_core::value::Value;
use driftlog_core::{storage, time::Time};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Vector;
use crate::described::json;
use crate::entries::{EPOCH, NOW, RUN, acting, described, insert, name, record, update};
use crate::frames::{ACTOR, CLIENT, LOG, OTHER, chain, log_name, logged, received, user};

fn vector<T>(name: &str, note: &'static str, row: &'static str, object: T) -> Vector
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug + 'static,
{
    let is = json(&object);
    Vector::decodes(name, note, row::encode(&object), object, is, row::decode::<T>).with("row", json(row))
}

/// The same for a row that stands twice.
fn twice<T>(name: &str, note: &'static str, row: &'static str, object: T) -> Vector
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug + 'static,
{
    let is = json(&object);
    Vector::decodes(name, note, row::encode_twice(&object), object, is, row::decode_either::<T>).with("row", json(row))
}

pub(crate) fn vectors() -> Vec<Vector> {
    let mut vectors = records();
    vectors.extend(rows());
    vectors.extend(keys());
    vectors.push(snapshot());
    vectors
}

fn records() -> Vec<Vector> {
    let sealed = |payload: &[u8]| {
        let mut bytes = Vec::new();
        seal(payload, &mut bytes);
        bytes
    };
    let open = |bytes: &[u8]| {
        let mut rest = bytes;
        let payload = unseal(&mut rest)?.to_vec();
        if rest.is_empty() { Ok(payload) } else { Err(DecodeError::Trailing(rest.len())) }
    };
    let record = |name: &str, note, payload: &[u8]| {
        let is = format!("{{\"$bytes\": \"{}\"}}", crate::hex(payload));
        Vector::decodes(name, note, sealed(payload), payload.to_vec(), is, open).with("row", json("record"))
    };
    let good = sealed(b"123456789");
    let mut flipped = good.clone();
    flipped[9] ^= 0x10;
    let mut longer = good.clone();
    longer[0] += 1;
    let refuse = |name, note, bytes| Vector::refused(name, note, bytes, open).with("row", json("record"));
    vec![
        record("sealed nothing", "length 0, CRC32C 0", b""),
        record("sealed bytes", "CRC32C of the check string is e3069283", b"123456789"),
        refuse("a record with a flipped bit", "", flipped),
        refuse("a record that announces more", "", longer),
        refuse("a cut record", "", good[..7].to_vec()),
    ]
}

fn rows() -> Vec<Vector> {
    let mut identity = Identity::new(CLIENT, ACTOR);
    let new = twice("identity, new", "", "identity", identity.clone());
    identity.predecessor = Some(OTHER);
    identity.user = Some(user("alice"));
    identity.nonces = vec![Nonce([0x0b; 16]), Nonce([0x0a; 16])];
    identity.logs = 3;
    let mut verdicts = Verdicts::new(ACTOR, chain(8));
    verdicts.through = Seq(8);
    verdicts.settled = Seq(5);
    verdicts.marked = vec![(Seq(5), MarkedStatus::Refused), (Seq(7), MarkedStatus::Void)];
    let received = Received {
        log_id: LOG,
        epoch: (EPOCH, Offset(40)),
        from: Offset(45),
        after: Cursor { next: Offset(51), chain: chain(0x51) },
        entries: received(),
    };
    let refused = acting(5, vec![update("title", FieldOp::Set(Value::from("x")))]);
    let code = Some(Code::DependsOn);
    let letter = DeadLetter::new(&refused, MarkedStatus::Refused, code, "builds on seq 4".to_owned(), NOW);
    let mut redriven = letter.clone();
    redriven.redriven = Some(Seq(9));
    let mut flipped = row::encode_twice(&Seq(9));
    flipped[8] ^= 1;
    let first_damaged = Vector::decodes(
        "next seq, its first copy damaged",
        "the second counts",
        flipped,
        Seq(9),
        "9".to_owned(),
        row::decode_either::<Seq>,
    );
    let first_damaged = first_damaged.with("row", json("next"));
    let damaged = Damaged { seqs: Seq(6)..=Seq(7), bytes: vec![0xff, 0x00], reason: "no longer whole".to_owned() };
    let mut voids = Voids::default();
    voids.add(Void { from: Seq(6), through: Seq(7), reason: "no longer whole".to_owned() });
    let mut taken_over = voids.clone();
    taken_over.add(Void { from: Seq(1), through: Seq(5), reason: "decided under the actor before".to_owned() });
    taken_over.earlier = vec![(OTHER, Seq(5))];
    let group = vec![acting(1, vec![insert()]), acting(2, vec![])];
    let parts: Vec<_> = group.iter().map(described).collect();
    let is = format!("[{}]", parts.join(", "));
    let bytes = row::encode_group(&group);
    vec![
        new,
        twice("identity", "greeted", "identity", identity),
        twice("next seq", "", "next", Seq(9)),
        first_damaged,
        twice("leader", "the epoch that fences commits", "leader", 3u64),
        vector("run", "the first entry of the group that holds a write", "run", EntryId { actor: ACTOR, seq: Seq(7) }),
        vector("verdicts", "", "verdicts", verdicts),
        vector("received", "as an entries frame brought them", "received", received),
        vector("dead letter", "", "dead letter", letter),
        vector("dead letter, redriven", "an undecided entry re-issues it", "dead letter", redriven),
        vector("dead letter of damaged bytes", "of two seqs", "dead letter", DeadLetter::damaged(damaged, NOW)),
        vector("purged", "an event ends later", "purged", Purged::new(Some(NOW), Offset(44), NOW - 1)),
        twice("voids", "", "voids", voids),
        twice("voids of a successor", "the first five seqs were its predecessor's", "voids", taken_over),
        Vector::decodes("own entries", "a group: one record each", bytes, group, is, row::decode_group)
            .with("row", json("own")),
    ]
}

fn keys() -> Vec<Vector> {
    let log = log_name();
    let key = |name: &str, note, bytes: Vec<u8>, is: &str| {
        let expected = bytes.clone();
        let decode = move |got: &[u8]| if got == expected { Ok(got.to_vec()) } else { Err("another key") };
        Vector::decodes(name, note, bytes.clone(), bytes, is.to_owned(), decode).with("row", json("key"))
    };
    let log_text = "\"log\": \"board/42\"";
    let run = format!("\"run\": {{\"$bytes\": \"{}\"}}", crate::hex(&RUN.0));
    let actor = format!("\"actor\": {{\"$bytes\": \"{}\"}}", crate::hex(&ACTOR.0));
    vec![
        key("key of the identity", "", storage::identity_key(), "{\"table\": 1}"),
        key("key of the leader", "", storage::leader_key(), "{\"table\": 2}"),
        key("key of the lease", "", storage::lease_key(), "{\"table\": 3}"),
        key("key of the next seq", "", storage::next_key(&log), &format!("{{\"table\": 16, {log_text}}}")),
        key(
            "key of own entries",
            "the seqs in damaged bytes are known from it",
            storage::own_key(&log, ACTOR, Seq(258)),
            &format!("{{\"table\": 17, {log_text}, {actor}, \"number\": 258}}"),
        ),
        key(
            "key of received entries",
            "",
            storage::received_key(&log, Offset(45)),
            &format!("{{\"table\": 18, {log_text}, \"number\": 45}}"),
        ),
        key("key of verdicts", "", storage::verdicts_key(&log), &format!("{{\"table\": 19, {log_text}}}")),
        key("key of the snapshot", "", storage::snapshot_key(&log), &format!("{{\"table\": 20, {log_text}}}")),
        key(
            "key of a dead letter",
            "",
            storage::dead_letter_key(&log, ACTOR, Seq(5)),
            &format!("{{\"table\": 21, {log_text}, {actor}, \"number\": 5}}"),
        ),
        key(
            "key of a run",
            "leads from a write to its group",
            storage::run_key(&log, RUN, 7),
            &format!("{{\"table\": 22, {log_text}, {run}, \"number\": 7}}"),
        ),
        key("key of purged", "", storage::purged_key(&log), &format!("{{\"table\": 27, {log_text}}}")),
        key("key of voids", "", storage::voids_key(&log, ACTOR), &format!("{{\"table\": 23, {log_text}, {actor}}}")),
    ]
}

/// A log folded: two authors, every strategy, a concurrent register, a record that is gone, one that may come back.
fn folded() -> State {
    let mut state = State::new(LOG);
    let set = |text: &str| FieldOp::Set(Value::from(text));
    let other = Op::Insert(Insert {
        collection: name("todos"),
        record: record("t2"),
        fields: vec![(name("title"), set("Bread"))],
    });
    let delete = Op::Delete(Delete { collection: name("todos"), record: record("t2"), policy: DeletePolicy::Wins });
    let left = Op::Insert(Insert { collection: name("todos"), record: record("t4"), fields: vec![] });
    let policy = DeletePolicy::UPDATE_WINS;
    let leave = Op::Delete(Delete { collection: name("todos"), record: record("t4"), policy });
    let entries = [
        (ACTOR, 1, vec![insert()]),
        (OTHER, 1, vec![insert(), update("title", set("Oat milk"))]),
        (OTHER, 2, vec![other, update("votes", FieldOp::Increment(2))]),
        (ACTOR, 2, vec![update("title", set("Soy milk")), update("tags", FieldOp::Add(vec![Value::from("shop")]))]),
        (OTHER, 3, vec![delete, left, leave]),
    ];
    for (offset, (actor, seq, ops)) in (0..).zip(entries) {
        let mut logged = logged(offset, actor, seq, ops);
        // Nobody had seen the other: what both wrote lives side by side.
        logged.base = Offset(0);
        let mut header = logged.entry.header.clone();
        header.run = driftlog_core::id::RunId([actor.0[0]; 8]);
        logged.entry = crate::entries::entry(header, (*logged.entry.body).clone());
        logged.accepted = Time::from_ms(NOW + 1_000 + offset);
        state.fold(&logged).unwrap();
    }
    let record = Erase::Record((name("todos"), record("t3")));
    let mut erase = logged(5, ActorId::LOG, 1, vec![Op::Erase(record)]);
    erase.user = UserId::log();
    state.fold(&erase).unwrap();
    state.set_epochs(vec![(EPOCH, Offset(0)), (EpochId([0xe2; 8]), Offset(3))]);
    state
}

fn snapshot() -> Vector {
    let bytes = snapshot::encode(&mut folded());
    let (content, digest) = bytes.split_last_chunk::<32>().unwrap();
    assert_eq!(Digest::of(&[content]).0, *digest);
    let is = format!("{{\"digest\": {}, \"bytes\": {}}}", json(&crate::hex(digest)), content.len());
    let decode = |bytes: &[u8]| snapshot::decode(bytes).map(|mut state| snapshot::encode(&mut state));
    let note = "encoding what was decoded gives the same bytes";
    Vector::decodes("snapshot", note, bytes.clone(), bytes, is, decode).with("row", json("snapshot"))
}
