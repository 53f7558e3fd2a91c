//! The sequencer of one log: order, dedup, verdicts.

use std::sync::Arc;

use super::*;
use crate::codec::Opaque;
use crate::entry::{Body, Header, Salt};
use crate::id::{Base, EntryId, LogId, LogName, Name, RecordId, RunId};
use crate::op::{Delete, DeletePolicy, Edit, FieldOp, Insert, Op, RichChange, Update};
use crate::protocol::frame::{AckRange, Marked};

/// One author in front of one log, with what a shell would have stored.
struct Scene {
    sequencer: Sequencer,
    row: AuthorRow,
    /// What the author believes.
    seq: Seq,
    chain: Chain,
    base: Base,
    user: UserId,
    places: BTreeMap<Seq, Place>,
    refused: BTreeMap<Seq, Digest>,
    log: Vec<Logged>,
    held: Option<Held>,
    /// What was found in entries before they are pushed.
    read: BTreeMap<Seq, Result<usize, String>>,
}

const ACTOR: ActorId = ActorId([1; 16]);
const NOW: WallMs = 10_000;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn record(text: &str) -> RecordId {
    RecordId::new(text).expect("an id")
}

fn insert(id: &str) -> Op {
    Op::Insert(Insert { collection: name("todos"), record: record(id), fields: Vec::new() })
}

fn update(id: &str, op: FieldOp) -> Op {
    Op::Update(Update { collection: name("todos"), record: record(id), field: name("title"), op })
}

fn delete(id: &str) -> Op {
    Op::Delete(Delete { collection: name("todos"), record: record(id), policy: DeletePolicy::Wins })
}

impl Scene {
    fn new() -> Self {
        let mut sequencer = Sequencer::resume(State::new(LogId([9; 16])), Vec::new());
        let (epoch, end) = sequencer.begin_epoch(EpochId([5; 8]));
        let log = LogName::new("board/1").expect("a name");
        Self {
            sequencer,
            row: AuthorRow::new(ACTOR, &log),
            seq: Seq(0),
            chain: Chain::actor_start(ACTOR, &log),
            base: Base { epoch, end },
            user: UserId::new("alice").expect("a user"),
            places: BTreeMap::new(),
            refused: BTreeMap::new(),
            log: Vec::new(),
            held: None,
            read: BTreeMap::new(),
        }
    }

    fn governed_by(mut self, rule: impl Fn(&Case<'_>) -> Ruling + Send + Sync + 'static) -> Self {
        let log = LogName::new("board/1").expect("a name");
        self.sequencer = self.sequencer.governed_by(log, Arc::new(rule));
        self
    }

    fn entry(&mut self, ops: Vec<Op>, with: impl FnOnce(&mut Header)) -> Pushed {
        self.seq = self.seq.next();
        let mut header = Header::new(RunId([1; 8]), self.seq.0, self.seq, self.base, Time::from_ms(1_000));
        with(&mut header);
        let body = Body::new(name("act"), None, ops, None, Salt([1; 8]));
        let entry = Entry::new(header, Arc::new(body)).expect("valid");
        self.chain = self.chain.with_pushed(self.seq, entry.digest());
        Pushed::Entry(entry)
    }

    fn void(&mut self, seqs: u64) -> Pushed {
        let void = Void { from: self.seq.next(), through: Seq(self.seq.0 + seqs), reason: "damaged".into() };
        (self.seq, self.chain) = (void.through, self.chain.with_void(void.through, &void.reason));
        Pushed::Void(void)
    }

    fn push(&mut self, items: Vec<Pushed>) -> Result<Verdicts, PushError> {
        let first = items.first().map_or(self.seq.next(), |item| span(item).0);
        self.decide(PushItems { first, chain: self.chain, items })
    }

    fn decide(&mut self, push: PushItems) -> Result<Verdicts, PushError> {
        let wanted = Sequencer::wanted(&self.row, &push);
        let mut known = Known { read: self.read.clone(), ..Known::default() };
        if let Some((from, through)) = wanted.decided {
            known.places = self.places.range(from..=through).map(|(seq, place)| (*seq, *place)).collect();
            known.refused = self.refused.range(from..=through).map(|(seq, digest)| (*seq, *digest)).collect();
        }
        for target in wanted.replaces {
            let replaced = self.log.iter().any(|logged| {
                let accepted = logged.id() == target.id && logged.entry.pushed_digest() == target.digest;
                accepted || logged.entry.header.replaces.as_ref() == Some(&target)
            });
            if replaced {
                known.replaced.insert(target);
            }
        }
        let author = Author { actor: ACTOR, user: &self.user };
        let decided = self.sequencer.decide(NOW, author, &mut self.row, push, &known, &mut random())?;
        for (logged, _) in decided.appended {
            let Logged { offset, accepted, .. } = logged;
            let place = Place { offset, accepted, digest: logged.entry.pushed_digest() };
            if logged.actor == ACTOR {
                self.places.insert(logged.entry.header.seq, place);
            }
            self.log.push(logged);
        }
        self.held = decided.held;
        for refused in decided.refused {
            self.refused.insert(refused.entry.header.seq, refused.entry.digest());
        }
        Ok(decided.verdicts)
    }
}

fn random() -> Random {
    Random::new([7; 32])
}

fn accepted(verdicts: &Verdicts) -> Vec<(u64, u64, u32)> {
    verdicts.accepted.iter().map(|AckRange { seq, offset, count, .. }| (seq.0, offset.0, *count)).collect()
}

fn marked(verdicts: &Verdicts) -> Vec<(u64, MarkedStatus, Option<Code>)> {
    verdicts.marked.iter().map(|Marked { seq, status, code, .. }| (seq.0, *status, *code)).collect()
}

#[test]
fn a_push_is_decided_once_and_its_repetition_gets_the_same_verdicts() {
    let mut scene = Scene::new();
    let items = vec![
        scene.entry(vec![insert("a")], |_| {}),
        scene.entry(vec![Op::Unknown(9, Opaque::NIL)], |_| {}),
        scene.entry(vec![insert("b")], |_| {}),
    ];
    let first = scene.push(items.clone()).expect("decided");
    assert_eq!(accepted(&first), [(1, 0, 1), (3, 1, 1)]);
    assert_eq!(marked(&first), [(2, MarkedStatus::Refused, Some(Code::UnknownOp))]);
    let again = scene.push(items).expect("decided");
    assert_eq!(again, first);
    assert_eq!(scene.log.len(), 2);
}

#[test]
fn a_repetition_may_go_on_with_new_entries() {
    let mut scene = Scene::new();
    let first = scene.entry(vec![insert("a")], |_| {});
    scene.push(vec![first.clone()]).expect("decided");
    let second = scene.entry(vec![insert("b")], |_| {});
    let verdicts = scene.push(vec![first, second]).expect("decided");
    assert_eq!((accepted(&verdicts), verdicts.through), (vec![(1, 0, 2)], Seq(2)));
}

#[test]
fn gaps_forks_and_forgeries_change_nothing() {
    let mut scene = Scene::new();
    let first = scene.entry(vec![insert("a")], |_| {});
    scene.push(vec![first]).expect("decided");
    let (seq, chain) = (scene.seq, scene.chain);
    let second = scene.entry(vec![insert("b")], |_| {});
    let third = scene.entry(vec![insert("c")], |_| {});
    assert_eq!(
        scene.push(vec![third.clone()]),
        Err(PushError::ExpectedSeq { expected: Seq(2), got: Seq(3) }),
        "a gap before the push"
    );
    let holed = PushItems { first: Seq(2), chain: scene.chain, items: vec![second.clone(), second.clone()] };
    assert_eq!(scene.decide(holed), Err(PushError::ExpectedSeq { expected: Seq(3), got: Seq(2) }), "a gap within it");
    let forged = PushItems { first: Seq(2), chain, items: vec![second] };
    assert_eq!(scene.decide(forged), Err(PushError::ChainMismatch { through: Seq(2) }));
    scene.seq = Seq(0);
    let other = scene.entry(vec![insert("z")], |_| {});
    assert_eq!(scene.push(vec![other]), Err(PushError::BytesDiffer { seq: Seq(1) }));
    assert_eq!((scene.row.seq, scene.row.chain), (seq, chain));
    let user = scene.user.clone();
    let author = Author { actor: ActorId::LOG, user: &user };
    let push = PushItems { first: Seq(1), chain, items: Vec::new() };
    let refused = scene.sequencer.decide(NOW, author, &mut scene.row, push, &Known::default(), &mut random());
    assert_eq!(refused.map(|decided| decided.verdicts), Err(PushError::ReservedActor));
}

#[test]
fn what_builds_on_a_refused_or_void_seq_is_refused_even_after_it_was_settled() {
    let mut scene = Scene::new();
    let refused = scene.entry(vec![Op::Unknown(9, Opaque::NIL)], |_| {});
    let void = scene.void(3);
    scene.push(vec![refused, void]).expect("decided");
    scene.row.settle(Seq(4));
    let on_refused = scene.entry(vec![insert("a")], |header| header.needs = vec![Seq(1)]);
    let on_void = scene.entry(vec![insert("b")], |header| header.needs = vec![Seq(3)]);
    let on_those = scene.entry(vec![insert("c")], |header| header.needs = vec![Seq(6)]);
    let free = scene.entry(vec![insert("d")], |_| {});
    let verdicts = scene.push(vec![on_refused, on_void, on_those, free]).expect("decided");
    let depends = |seq| (seq, MarkedStatus::Refused, Some(Code::DependsOn));
    assert_eq!(marked(&verdicts), [depends(5), depends(6), depends(7)]);
    assert_eq!(accepted(&verdicts), [(8, 0, 1)]);
}

#[test]
fn a_void_of_decided_seqs_is_answered_with_their_verdict() {
    let mut scene = Scene::new();
    let first = scene.entry(vec![insert("a")], |_| {});
    scene.push(vec![first.clone()]).expect("decided");
    scene.seq = Seq(0);
    let void = Pushed::Void(Void { from: Seq(1), through: Seq(1), reason: "damaged".into() });
    let verdicts = scene.push(vec![void]).expect("decided");
    assert_eq!((accepted(&verdicts), marked(&verdicts)), (vec![(1, 0, 1)], vec![]));
    let mut scene = Scene::new();
    let void = scene.void(1);
    scene.push(vec![void]).expect("decided");
    scene.seq = Seq(0);
    let entry = scene.entry(vec![insert("a")], |_| {});
    assert_eq!(scene.push(vec![entry]), Err(PushError::BytesDiffer { seq: Seq(1) }), "given up is given up");
    let long = Pushed::Void(Void { from: Seq(2), through: Seq(u64::MAX), reason: String::new() });
    let got = PushItems { first: Seq(2), chain: scene.chain, items: vec![long] };
    assert!(matches!(scene.decide(got), Err(PushError::VoidTooLong { .. })));
}

#[test]
fn one_replacement_of_an_entry_is_accepted() {
    let mut scene = Scene::new();
    let lost = Replaced { id: EntryId { actor: ActorId([7; 16]), seq: Seq(3) }, digest: Digest([3; 32]) };
    let replacing = |header: &mut Header, target: &Replaced| header.replaces = Some(target.clone());
    let one = scene.entry(vec![insert("a")], |header| replacing(header, &lost));
    let two = scene.entry(vec![insert("b")], |header| replacing(header, &lost));
    let verdicts = scene.push(vec![one.clone(), two]).expect("decided");
    let already = |seq| (seq, MarkedStatus::Refused, Some(Code::AlreadyReplaced));
    assert_eq!(marked(&verdicts), [already(2)]);
    let Pushed::Entry(one) = one else { panic!("an entry") };
    let accepted = Replaced { id: EntryId { actor: ACTOR, seq: Seq(1) }, digest: one.digest() };
    let three = scene.entry(vec![insert("c")], |header| replacing(header, &accepted));
    let other = Replaced { digest: Digest([8; 32]), ..accepted.clone() };
    let four = scene.entry(vec![insert("d")], |header| replacing(header, &other));
    let verdicts = scene.push(vec![three, four]).expect("decided");
    assert_eq!(marked(&verdicts), [already(3)], "the same id with other content was another action");
    let five = scene.entry(vec![insert("e")], |header| {
        replacing(header, &lost);
        header.needs = vec![Seq(2)];
    });
    let verdicts = scene.push(vec![five]).expect("decided");
    assert_eq!(marked(&verdicts), [already(5)], "also where what it builds on is not in the log");
}

#[test]
fn a_base_never_reaches_beyond_what_its_author_can_have_seen() {
    let mut scene = Scene::new();
    let based = |epoch: u8, end: u64| Base { epoch: EpochId([epoch; 8]), end: Offset(end) };
    let mut bases = Vec::new();
    for base in [based(5, u64::MAX), based(5, 1), based(6, 1)] {
        scene.base = base;
        let entry = scene.entry(vec![insert("a")], |_| {});
        scene.push(vec![entry]).expect("decided");
        bases.push(scene.log.last().expect("logged").base.0);
    }
    scene.sequencer.begin_epoch(EpochId([6; 8]));
    for base in [based(5, 10), based(6, 10)] {
        scene.base = base;
        let entry = scene.entry(vec![insert("b")], |_| {});
        scene.push(vec![entry.clone()]).expect("decided");
        bases.push(scene.log.last().expect("logged").base.0);
    }
    assert_eq!(bases, [0, 1, 0, 3, 4], "own offset; as it is; unknown epoch; fork of the epoch; own offset");
}

#[test]
fn accepted_time_never_decreases() {
    let mut scene = Scene::new();
    let one = scene.entry(vec![insert("a")], |_| {});
    scene.push(vec![one]).expect("decided");
    let two = scene.entry(vec![insert("b")], |_| {});
    let (author, push) = (scene.user.clone(), PushItems { first: Seq(2), chain: scene.chain, items: vec![two] });
    let author = Author { actor: ACTOR, user: &author };
    let decided = scene.sequencer.decide(NOW - 2_000, author, &mut scene.row, push, &Known::default(), &mut random());
    assert_eq!(decided.expect("decided").appended[0].0.accepted, scene.log[0].accepted);
}

#[test]
fn an_op_on_a_record_that_is_gone_is_accepted_and_marked() {
    let mut scene = Scene::new();
    let items = vec![
        scene.entry(vec![insert("a")], |_| {}),
        scene.entry(vec![delete("a")], |_| {}),
        scene.entry(vec![update("a", FieldOp::Increment(1))], |_| {}),
    ];
    let verdicts = scene.push(items).expect("decided");
    assert_eq!(accepted(&verdicts), [(1, 0, 3)]);
    assert_eq!(marked(&verdicts), [(3, MarkedStatus::RecordGone, None)]);
}

#[test]
fn an_expired_event_is_accepted_and_marked() {
    let mut scene = Scene::new();
    scene.seq = scene.seq.next();
    let header = Header::new(RunId([1; 8]), 1, Seq(1), scene.base, Time::from_ms(1_000));
    let body = Body::new(name("code"), None, Vec::new(), Some(500), Salt([1; 8]));
    let entry = Entry::new(header, Arc::new(body)).expect("valid");
    scene.chain = scene.chain.with_pushed(Seq(1), entry.digest());
    let verdicts = scene.push(vec![Pushed::Entry(entry)]).expect("decided");
    assert_eq!(marked(&verdicts), [(1, MarkedStatus::Expired, None)]);
}

#[test]
fn a_rich_change_that_is_none_is_refused_and_the_rest_goes_on() {
    let mut scene = Scene::new();
    let text = |content: &str| update("a", FieldOp::Edit(Edit::InitialText(content.to_owned())));
    let change = RichChange { root: 0, incarnation: 0, bytes: b"no change".to_vec() };
    let items = vec![
        scene.entry(vec![insert("a"), text("milk")], |_| {}),
        scene.entry(vec![update("a", FieldOp::Edit(Edit::Change(change.clone())))], |_| {}),
        scene.entry(vec![update("gone", FieldOp::Edit(Edit::Change(change)))], |_| {}),
        scene.entry(vec![text("milk")], |_| {}),
    ];
    let verdicts = scene.push(items).expect("decided");
    let expected = [(2, MarkedStatus::Refused, Some(Code::RichChange)), (3, MarkedStatus::RecordGone, None)];
    assert_eq!(marked(&verdicts), expected);
    let key = crate::state::RecordKey { collection: name("todos"), record: record("a") };
    let field = crate::state::FieldKey { key, field: name("title") };
    assert_eq!(scene.sequencer.state().text(&field), Ok("milk".to_owned()));
}

#[test]
fn a_policy_goes_by_ops_and_not_by_the_name_that_is_claimed() {
    // Everybody may call the action `act`; nobody may write the title of `locked`.
    let mut scene = Scene::new().governed_by(|case| {
        assert_eq!((case.name().as_str(), case.user.as_str(), case.actor), ("act", "alice", ACTOR));
        let forbidden = |op: &Op| op.target() == Some((&name("todos"), &record("locked")));
        match case.ops().iter().any(forbidden) {
            true => Ruling::Refuse { code: Code::EntryForbidden, reason: "it is locked".into() },
            false => Ruling::Allow,
        }
    });
    let items = vec![
        scene.entry(vec![insert("a")], |_| {}),
        scene.entry(vec![insert("b"), update("locked", FieldOp::Increment(1))], |_| {}),
        scene.entry(vec![insert("c")], |header| header.needs = vec![Seq(2)]),
        scene.entry(vec![insert("d")], |_| {}),
    ];
    let verdicts = scene.push(items.clone()).expect("decided");
    let refused = |seq, code| (seq, MarkedStatus::Refused, Some(code));
    assert_eq!(marked(&verdicts), [refused(2, Code::EntryForbidden), refused(3, Code::DependsOn)]);
    assert_eq!(verdicts.marked[0].reason, "it is locked");
    assert_eq!(accepted(&verdicts), [(1, 0, 1), (4, 1, 1)]);
    assert!(scene.sequencer.state().record(&name("todos"), &record("b")).is_none(), "whole or not at all");
    assert_eq!(scene.push(items).expect("decided"), verdicts);
}

#[test]
fn a_policy_sees_the_state_before_each_entry_of_a_push() {
    // A quota: three records.
    let mut scene = Scene::new().governed_by(|case| {
        let records = case.before.collection(&name("todos")).map_or(0, |records| records.len());
        match records < 3 {
            true => Ruling::Allow,
            false => Ruling::Refuse { code: Code::QuotaExceeded, reason: "three are enough".into() },
        }
    });
    let items = (0..5).map(|at| scene.entry(vec![insert(&at.to_string())], |_| {})).collect();
    let verdicts = scene.push(items).expect("decided");
    assert_eq!(accepted(&verdicts), [(1, 0, 3)]);
    assert_eq!(marked(&verdicts).iter().map(|mark| mark.2).collect::<Vec<_>>(), [Some(Code::QuotaExceeded); 2]);
}

#[test]
fn what_a_policy_adds_is_the_logs_own_entry_right_behind() {
    let mut scene = Scene::new().governed_by(|case| match case.ops() {
        [Op::Insert(op)] => {
            let ops = vec![update(op.record.as_str(), FieldOp::Set("checked".into()))];
            Ruling::AllowWith { name: name("check"), args: None, ops }
        }
        _ => Ruling::Allow,
    });
    let items = vec![
        scene.entry(vec![insert("a")], |_| {}),
        scene.entry(vec![insert("b")], |_| {}),
        scene.entry(vec![update("a", FieldOp::Increment(1))], |_| {}),
    ];
    let verdicts = scene.push(items).expect("decided");
    assert_eq!(accepted(&verdicts), [(1, 0, 1), (2, 2, 1), (3, 4, 1)]);
    let own = |logged: &&Logged| logged.actor == ActorId::LOG;
    let places: Vec<_> = scene.log.iter().filter(own).map(|own| (own.offset.0, own.entry.header.seq.0)).collect();
    assert_eq!(places, [(1, 1), (3, 2)]);
    let mut replica = State::new(LogId([9; 16]));
    scene.log.iter().for_each(|logged| drop(replica.fold(logged).expect("folds")));
    assert_eq!(replica.digest(), scene.sequencer.state().digest());
    let title = |state: &State| {
        let field = state.record(&name("todos"), &record("b"))?.field(&name("title"))?;
        field.shown().map(|living| living.value.clone())
    };
    assert_eq!(title(&replica), Some("checked".into()));
    let salts: BTreeSet<_> = scene.log.iter().filter(own).map(|own| own.entry.body.salt.0).collect();
    assert_eq!(salts.len(), 2, "each has a salt of its own");
}

#[test]
fn what_is_refused_behind_the_policy_leaves_nothing_of_its_addition() {
    let mut scene =
        Scene::new().governed_by(|_| Ruling::AllowWith { name: name("note"), args: None, ops: vec![insert("noted")] });
    let change = RichChange { root: 0, incarnation: 0, bytes: b"no change".to_vec() };
    let items = vec![scene.entry(vec![insert("a"), update("a", FieldOp::Edit(Edit::Change(change)))], |_| {})];
    let verdicts = scene.push(items).expect("decided");
    assert_eq!(marked(&verdicts), [(1, MarkedStatus::Refused, Some(Code::RichChange))]);
    assert!(scene.log.is_empty());
    assert_eq!(scene.sequencer.state().folded(ActorId::LOG), Seq(0));
}

#[test]
fn retry_later_decides_what_came_before_and_nothing_after() {
    let open = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let door = open.clone();
    let mut scene = Scene::new().governed_by(move |case| {
        let held = case.ops() == [insert("late")] && !door.load(std::sync::atomic::Ordering::Relaxed);
        match held {
            true => Ruling::RetryLater { reason: "ask again".into(), delay: Duration::from_secs(5) },
            false => Ruling::Allow,
        }
    });
    let before = scene.entry(vec![insert("a")], |_| {});
    let chain = scene.chain;
    let items = vec![before, scene.entry(vec![insert("late")], |_| {}), scene.entry(vec![insert("b")], |_| {})];
    let verdicts = scene.push(items.clone()).expect("decided");
    assert_eq!((accepted(&verdicts), marked(&verdicts), verdicts.through), (vec![(1, 0, 1)], vec![], Seq(1)));
    let delay = Duration::from_secs(5);
    assert_eq!(scene.held, Some(Held { seq: Seq(2), reason: "ask again".into(), delay }));
    assert_eq!((scene.row.seq, scene.row.chain), (Seq(1), chain), "the row stands before the held entry");
    let verdicts = scene.push(items[1..].to_vec()).expect("decided");
    assert_eq!((verdicts.through, scene.row.checkpoints().len()), (Seq(1), 0), "asked again, nothing moved");
    open.store(true, std::sync::atomic::Ordering::Relaxed);
    let verdicts = scene.push(items[1..].to_vec()).expect("decided");
    assert_eq!((accepted(&verdicts), verdicts.through), (vec![(2, 1, 2)], Seq(3)));
    assert_eq!(scene.held, None);
}

#[test]
fn a_policy_that_fails_holds_and_never_refuses() {
    let unfit = update("a", FieldOp::Edit(Edit::InitialText("milk".into())));
    let rules: [fn(Op) -> Ruling; 2] =
        [|_| panic!("a mistake in a policy"), |op| Ruling::AllowWith { name: name("x"), args: None, ops: vec![op] }];
    for rule in rules {
        let unfit = unfit.clone();
        let mut scene = Scene::new().governed_by(move |_| rule(unfit.clone()));
        let items = vec![scene.entry(vec![insert("a")], |_| {})];
        let verdicts = scene.push(items).expect("decided");
        assert_eq!((marked(&verdicts), verdicts.through, scene.log.len()), (vec![], Seq(0), 0));
        assert_eq!(scene.held.as_ref().map(|held| held.seq), Some(Seq(1)));
    }
}

#[test]
fn what_was_found_unfit_before_is_refused_and_the_rest_goes_on() {
    let mut scene = Scene::new();
    scene.read = BTreeMap::from([(Seq(1), Ok(5)), (Seq(2), Err("it brought the check down".into()))]);
    let items = (1..4).map(|at| scene.entry(vec![insert(&at.to_string())], |_| {})).collect();
    let verdicts = scene.push(items).expect("decided");
    assert_eq!(marked(&verdicts), [(2, MarkedStatus::Refused, Some(Code::RichChange))]);
    assert_eq!((accepted(&verdicts).len(), verdicts.through), (2, Seq(3)));
}

#[test]
fn many_rich_ops_are_decided_in_parts_and_each_part_takes_one_entry_at_least() {
    let mut scene = Scene::new();
    let most = limits::RICH_PUSH_OPS_MAX;
    scene.read = (1..4).zip([most - 1, 2, 2 * most]).map(|(seq, ops)| (Seq(seq), Ok(ops))).collect();
    let items: Vec<Pushed> = (1..4).map(|at| scene.entry(vec![insert(&at.to_string())], |_| {})).collect();
    for decided in 1..4 {
        let verdicts = scene.push(items[decided - 1..].to_vec()).expect("decided");
        assert_eq!((verdicts.through, verdicts.marked.len()), (Seq(decided as u64), 0));
        assert_eq!(scene.held.as_ref().map(|held| held.seq.0), (decided < 3).then_some(decided as u64 + 1));
    }
    assert_eq!(scene.log.len(), 3);
}

#[test]
fn a_redrive_is_the_logs_own_entry_and_happens_once() {
    let quota = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let allowed = quota.clone();
    let mut scene = Scene::new().governed_by(move |case| {
        assert_eq!((case.actor, case.user.as_str()), (ACTOR, "alice"), "the author's own right counts");
        let there = case.before.collection(&name("todos")).map_or(0, |records| records.len());
        match there < allowed.load(std::sync::atomic::Ordering::Relaxed) {
            true => Ruling::AllowWith { name: name("note"), args: None, ops: vec![delete("nobody")] },
            false => Ruling::Refuse { code: Code::QuotaExceeded, reason: "none".into() },
        }
    });
    let pushed = scene.entry(vec![insert("a")], |_| {});
    scene.push(vec![pushed.clone()]).expect("decided");
    let Pushed::Entry(entry) = pushed else { panic!("an entry") };
    let user = scene.user.clone();
    let id = EntryId { actor: ACTOR, seq: Seq(1) };
    let redrive = Redrive { id, user: &user, entry: &entry, replaced: false, missing: None };
    let again = |scene: &mut Scene, redrive| scene.sequencer.redrive(NOW, redrive, &mut random());
    let refused = |code| move |error| matches!(error, RedriveError::Refused { code: got, .. } if got == code);
    assert!(again(&mut scene, redrive).is_err_and(refused(Code::QuotaExceeded)), "the rule still stands");
    quota.store(1, std::sync::atomic::Ordering::Relaxed);
    let missing = Redrive { missing: Some(Seq(9)), ..redrive };
    assert!(again(&mut scene, missing).is_err_and(refused(Code::DependsOn)));
    let replaced = Redrive { replaced: true, ..redrive };
    assert!(again(&mut scene, replaced).is_err_and(refused(Code::AlreadyReplaced)));
    assert_eq!(scene.sequencer.state().cursor().next, Offset(0), "nothing so far");
    let redriven = again(&mut scene, redrive).expect("redriven");
    let ids: Vec<_> = redriven.appended.iter().map(|(logged, _)| (logged.actor, logged.entry.header.seq.0)).collect();
    assert_eq!(ids, [(ActorId::LOG, 1), (ActorId::LOG, 2)], "with what the policy adds behind it");
    let (logged, _) = &redriven.appended[0];
    assert_eq!(logged.entry.header.replaces, Some(Replaced { id, digest: entry.digest() }));
    assert_eq!((&logged.entry.body.name, &logged.entry.body.ops), (&entry.body.name, &entry.body.ops));
    assert_ne!(logged.entry.body.salt, entry.body.salt);
    assert!(scene.sequencer.state().record(&name("todos"), &record("a")).is_some());
}
