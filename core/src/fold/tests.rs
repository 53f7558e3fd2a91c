//! Folds by behaviour: a shell in miniature holds the accumulator and calls handlers that fail when told to.

use proptest::prelude::*;

use super::*;
use crate::codec;
use crate::entry::{Digest, Entry, Header, Salt};
use crate::id::{ActorId, Base, EpochId, RunId, Seq};
use crate::time::Time;

const LOG: LogId = LogId([7; 16]);

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn declaration(version: u64) -> Declaration {
    let actions = ["add", "bad"].map(name).into();
    Declaration { name: name("sum"), version, actions, initial: Value::Array(Vec::new()) }
}

/// A log of these actions, each with its offset as its argument.
fn log(actions: &[&str]) -> Vec<(Offset, Item, Cursor)> {
    let mut cursor = Cursor::start(LOG);
    let mut items = Vec::new();
    for (at, action) in actions.iter().enumerate() {
        let (seq, base) = (Seq(at as u64 + 1), Base { epoch: EpochId::NONE, end: Offset(0) });
        let header = Header::new(RunId([1; 8]), seq.0, seq, base, Time::from_ms(1_000 + at as u64));
        let lifetime = action.starts_with("gone").then_some(1);
        let action = name(action.trim_start_matches("gone-"));
        let args = Some(Value::int(at as i64).expect("small"));
        let body = Body::new(action, args, Vec::new(), lifetime, Salt([at as u8; 8]));
        let logged = Logged {
            offset: Offset(at as u64),
            actor: ActorId([1; 16]),
            user: UserId::new("alice").expect("a user"),
            accepted: Time::from_ms(1_000 + at as u64),
            base: Offset(0),
            entry: Entry::new(header, Arc::new(body)).expect("valid"),
        };
        let after = cursor.after(&logged);
        items.push((cursor.next, Item::Entry(logged), after));
        cursor = after;
    }
    items
}

struct Shell {
    fold: Fold,
    accumulator: Value,
    calls: usize,
    written: Vec<Changes>,
    now: WallMs,
    parked: Vec<u64>,
}

impl Shell {
    fn begun(declaration: Declaration, checkpoint: Option<Checkpoint>, letters: BTreeMap<Offset, Letter>) -> Self {
        let mut fold = Fold::new(declaration);
        fold.begin(LOG, checkpoint, letters, (Offset(u64::MAX), &[]));
        Self { fold, accumulator: Value::Null, calls: 0, written: Vec::new(), now: 0, parked: Vec::new() }
    }

    fn new(declaration: Declaration) -> Self {
        Self::begun(declaration, None, BTreeMap::new())
    }

    fn offer(&mut self, items: &[(Offset, Item, Cursor)]) {
        for (from, item, after) in items {
            self.fold.offer(*from, item, *after);
        }
    }

    /// Works until there is nothing to do, or until the next wait.
    fn work(&mut self, end: u64, mut fails: impl FnMut(&Act, usize) -> bool) {
        let (overlay, end) = (Overlay::new(), Offset(end));
        loop {
            self.now += 1;
            let batch = self.fold.batch(&overlay, None, end);
            if let Some(start) = batch.start {
                self.accumulator = start;
            }
            if let Some(letters) = batch.letters {
                self.parked = letters.iter().map(|(offset, _)| offset.0).collect();
            }
            let (mut done, mut failure) = (0, None);
            for act in &batch.acts {
                self.calls += 1;
                if fails(act, self.calls) {
                    failure = Some("thrown".to_owned());
                    break;
                }
                let Value::Array(list) = &mut self.accumulator else { panic!("a list") };
                list.push(act.body.args.clone().expect("an argument"));
                done += 1;
            }
            let reports = failure.is_some() || batch.wants_accumulator;
            let accumulator = reports.then(|| self.accumulator.clone());
            let report = Report { ticket: batch.ticket, done, failure, accumulator };
            let idle = batch.acts.is_empty() && !batch.wants_accumulator;
            self.fold.report(report, self.now);
            self.written.extend(self.fold.take_changes());
            if idle && !self.fold.has_news(&overlay, end, self.now) {
                return;
            }
        }
    }

    fn wait(&mut self) {
        self.now = self.fold.deadline().expect("a deadline");
        self.fold.timeout(self.now);
    }

    fn sum(&self) -> Vec<i64> {
        let Value::Array(list) = &self.accumulator else { panic!("a list") };
        list.iter().map(|value| if let Value::Int(number) = value { *number } else { panic!("a number") }).collect()
    }

    fn digest(&self) -> Digest {
        Digest::of(&[&codec::to_bytes(&self.accumulator)])
    }
}

fn is_bad(act: &Act) -> bool {
    act.body.name.as_str() == "bad"
}

#[test]
fn only_declared_actions_without_a_lifetime_enter_in_the_order_of_the_log() {
    let items = log(&["add", "other", "gone-add", "add", "bad"]);
    let mut shell = Shell::new(declaration(1));
    shell.offer(&items);
    shell.work(5, |_, _| false);
    assert_eq!(shell.sum(), [0, 3, 4]);
    assert_eq!(shell.fold.state(Offset(5)).end, Offset(5));
}

#[test]
fn poison_is_parked_with_its_arguments_and_what_comes_behind_it_is_in() {
    let items = log(&["add", "bad", "add", "add"]);
    let mut shell = Shell::new(declaration(1));
    shell.offer(&items);
    shell.work(4, |act, _| is_bad(act));
    assert_eq!((shell.sum(), shell.parked.clone()), (vec![0, 2, 3], vec![1]));
    let (_, letter) = shell.fold.parked().next().expect("one");
    assert_eq!((letter.action.as_str(), letter.args.clone(), letter.attempts), ("bad", Some(Value::Int(1)), 4));
    let written = shell.written.last().expect("parking is written with a checkpoint behind it");
    assert!(written.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.done.next > Offset(1)));
}

#[test]
fn an_outage_parks_nothing_goes_back_to_before_it_and_resumes() {
    let items = log(&["add"; 40]);
    let mut shell = Shell::new(declaration(1));
    shell.offer(&items[..5]);
    shell.work(5, |_, _| false);
    shell.offer(&items[5..]);
    shell.work(40, |_, _| true);
    let state = shell.fold.state(Offset(40));
    assert_eq!((state.breaker, state.end, shell.parked.len()), (Breaker::Open, Offset(5), 0));
    assert_eq!(shell.sum(), [0, 1, 2, 3, 4], "what was before it stays shown");
    shell.wait();
    shell.work(40, |_, _| false);
    assert_eq!(shell.sum(), (0..40).collect::<Vec<_>>());
    assert_eq!((shell.fold.state(Offset(40)).breaker, shell.parked.len()), (Breaker::Closed, 0));
}

#[test]
fn a_redrive_folds_anew_so_that_the_entry_stands_in_its_place() {
    let items = log(&["add", "bad", "add", "bad", "add"]);
    let mut shell = Shell::new(declaration(1));
    shell.offer(&items);
    shell.work(5, |act, _| is_bad(act));
    assert_eq!(shell.parked, [1, 3]);
    shell.fold.discard(Offset(3));
    shell.fold.redrive(None);
    shell.written.extend(shell.fold.take_changes());
    let written = shell.written.last().expect("written at once");
    assert_eq!(written.letters.get(&Offset(1)), Some(&None));
    shell.offer(&items);
    shell.work(5, |_, _| false);
    assert_eq!((shell.sum(), shell.parked.len()), (vec![0, 1, 2, 4], 0), "what was discarded stays out");
}

#[test]
fn a_checkpoint_of_another_version_or_log_is_not_used() {
    let items = log(&["add"; 300]);
    let mut shell = Shell::new(declaration(1));
    shell.offer(&items);
    shell.work(300, |_, _| false);
    let checkpoint = shell.written[0].checkpoint.clone().expect("after 256 entries");
    assert_eq!(Shell::begun(declaration(1), Some(checkpoint.clone()), BTreeMap::new()).fold.read, checkpoint.done);
    let anew = Shell::begun(declaration(2), Some(checkpoint.clone()), BTreeMap::new());
    assert_eq!(anew.fold.read, Cursor::start(LOG));
    let mut fold = Fold::new(declaration(1));
    fold.begin(LogId([8; 16]), Some(checkpoint), BTreeMap::new(), (Offset(300), &[]));
    assert_eq!(fold.read, Cursor::start(LogId([8; 16])));
}

proptest! {
    /// However the entries come, whichever are poison, wherever a tab starts again from its checkpoint, and with an
    /// outage anywhere: live equals rebuilt.
    #[test]
    fn rebuild_equals_live(
        poison in proptest::collection::btree_set(0usize..600, 0..12),
        cuts in proptest::collection::vec(1usize..200, 1..8),
        outage in (0usize..900, 0usize..120),
    ) {
        let actions: Vec<_> = (0..620).map(|at| if poison.contains(&at) { "bad" } else { "add" }).collect();
        let items = log(&actions);
        let mut live = Shell::new(declaration(1));
        let (mut at, mut cuts) = (0, cuts.into_iter().cycle());
        let (begins, lasts) = outage;
        while at < items.len() {
            let next = (at + cuts.next().expect("cycles")).min(items.len());
            live.offer(&items[at..next]);
            let fails = |act: &Act, call: usize| is_bad(act) || (begins..begins + lasts).contains(&call);
            live.work(next as u64, fails);
            // Poison at the end of what came stays suspected until more comes; an outage is waited for.
            let mut over = false;
            while live.fold.deadline().is_some() && !over {
                over = live.calls >= begins + lasts;
                live.wait();
                live.work(next as u64, fails);
            }
            at = next;
        }
        let mut rebuilt = Shell::new(declaration(1));
        rebuilt.offer(&items);
        rebuilt.work(620, |act, _| is_bad(act));
        prop_assert_eq!(&live.parked, &rebuilt.parked);
        prop_assert_eq!(live.digest(), rebuilt.digest());
        let last = live.written.iter().filter_map(|changes| changes.checkpoint.clone()).next_back();
        if let Some(checkpoint) = last {
            let from = checkpoint.done.next.0 as usize;
            let letters = live.fold.letters.clone();
            let mut reloaded = Shell::begun(declaration(1), Some(checkpoint), letters);
            reloaded.offer(&items[from..]);
            reloaded.work(620, |act, _| is_bad(act));
            prop_assert_eq!(reloaded.digest(), rebuilt.digest());
        }
    }
}
