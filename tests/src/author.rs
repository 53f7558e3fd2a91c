//! An author that remembers every promise: what it pushed, and which verdict it was told.
//!
//! It speaks frames and holds no socket, so one and the same stands before a server over a broken disk and before one
//! that is killed. After each loss of the server it goes on as a client does: it asks for the verdicts that it does not
//! know and pushes again what has none.

use std::collections::BTreeMap;

use driftlog_core::chain::Chain;
use driftlog_core::entry::{Digest, Entry, Logged};
use driftlog_core::id::{LogName, Offset, Seq};
use driftlog_core::protocol::frame::{Ack, Frame, Opened, Settled};
use driftlog_core::random::Random;

use crate::peer::Peer;

/// A verdict as it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// In the log at this offset.
    Accepted(Offset),
    /// Not in the log.
    Refused,
}

/// What became of promises.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Verdicts that were told.
    pub acked: u64,
    /// Verdicts that do not hold any more.
    pub lost: u64,
    /// Entries that are in the log twice, or although they were refused.
    pub doubled: u64,
    /// What of those was seen, in words.
    pub findings: Vec<String>,
}

/// One author of one log.
#[derive(Clone)]
pub struct Author {
    peer: Peer,
    random: Random,
    /// Every entry that was pushed, and the chain behind it.
    pushed: BTreeMap<Seq, (Entry, Chain)>,
    verdicts: BTreeMap<Seq, Verdict>,
    tally: Tally,
}

impl Author {
    /// An author with this name, at most 16 bytes long, of a log.
    pub fn new(name: &str, log: &LogName, seed: u64) -> Self {
        let mut peer = Peer::new(name);
        peer.log = log.clone();
        peer.chain = Chain::actor_start(peer.actor, log);
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let (pushed, verdicts) = (BTreeMap::new(), BTreeMap::new());
        Self { peer, random: Random::new(bytes), pushed, verdicts, tally: Tally::default() }
    }

    /// Its log.
    pub fn log(&self) -> &LogName {
        &self.peer.log
    }

    /// The first frame of a session.
    pub fn hello(&self) -> Frame {
        Frame::Hello(self.peer.hello())
    }

    /// The first seq without a verdict.
    fn undecided(&self) -> Seq {
        self.verdicts.last_key_value().map_or(Seq(1), |(seq, _)| seq.next())
    }

    /// Whether it knows the verdict of all that it pushed.
    pub fn is_settled(&self) -> bool {
        self.undecided() > self.peer.seq
    }

    /// Hears a frame; the frame that it answers with, if it does.
    pub fn handle(&mut self, frame: Frame) -> Option<Frame> {
        match frame {
            Frame::Welcome(welcome) => {
                self.peer.nonces.insert(0, welcome.nonce);
                self.peer.nonces.truncate(2);
                let mut subscription = self.peer.subscription(1);
                subscription.read = false;
                (subscription.decided, subscription.held) = (Seq(self.undecided().0 - 1), self.undecided());
                Some(Frame::from(subscription))
            }
            Frame::Opened(opened) => self.opened(&opened),
            Frame::Ack(ack) => {
                self.acked(&ack);
                None
            }
            Frame::Error(error) => {
                self.lose(format!("{:?}: {}", error.code, error.reason));
                None
            }
            _ => None,
        }
    }

    /// Compares what the server knows of it with what it was told, and pushes what the server does not know.
    fn opened(&mut self, opened: &Opened) -> Option<Frame> {
        let told = self.undecided().0 - 1;
        if opened.seq.0 < told {
            self.lose(format!("seq {told} has a verdict, and the server knows {}", opened.seq));
            return None;
        }
        let start = Chain::actor_start(self.peer.actor, &self.peer.log);
        let chain = self.pushed.get(&opened.seq).map_or(start, |(_, chain)| *chain);
        if chain != opened.chain {
            self.lose(format!("the chain at seq {} is another one", opened.seq));
            return None;
        }
        self.peer.base.epoch = opened.epochs.last().map_or(self.peer.base.epoch, |(epoch, _)| *epoch);
        self.peer.base.end = opened.end;
        let rest: Vec<Entry> = self.pushed.range(opened.seq.next()..).map(|(_, (entry, _))| entry.clone()).collect();
        (!rest.is_empty()).then(|| self.peer.push(&rest))
    }

    fn acked(&mut self, ack: &Ack) {
        let mut told: BTreeMap<Seq, Verdict> = BTreeMap::new();
        for (seq, offset) in crate::peer::accepted(ack) {
            told.insert(Seq(seq), Verdict::Accepted(Offset(offset)));
        }
        for mark in &ack.marked {
            if !mark.status.is_accepted() {
                told.insert(mark.seq, Verdict::Refused);
            }
        }
        for (seq, verdict) in told {
            match self.verdicts.insert(seq, verdict) {
                None => self.tally.acked += 1,
                Some(before) if before == verdict => {}
                Some(before) => self.lose(format!("seq {seq} was {before:?} and is {verdict:?}")),
            }
        }
        if self.undecided() <= ack.through {
            self.lose(format!("an ack through {} tells only through {}", ack.through, self.undecided().0 - 1));
        }
    }

    /// Acts: a push of one to three entries, some of which the server refuses.
    pub fn act(&mut self) -> Frame {
        let count = 1 + self.random.below(3);
        let entries: Vec<Entry> = (0..count).map(|_| self.entry()).collect();
        self.peer.push(&entries)
    }

    fn entry(&mut self) -> Entry {
        let record = format!("{}-{}", self.random.below(8), self.peer.actor.0[0]);
        let ops = match self.random.below(10) {
            0 => Peer::unknown(),
            1..=3 => Peer::set(&record, "changed"),
            _ => Peer::insert(&record),
        };
        let entry = self.peer.act(ops);
        self.pushed.insert(self.peer.seq, (entry.clone(), self.peer.chain));
        entry
    }

    /// Says that it has recorded its verdicts.
    pub fn settle(&self) -> Frame {
        Frame::Settled(Settled { log: 1, through: Seq(self.undecided().0 - 1) })
    }

    fn lose(&mut self, finding: String) {
        self.tally.lost += 1;
        self.tally.findings.push(format!("{} in {}: {finding}", self.peer.actor, self.peer.log));
    }

    /// Itself with no more promises than it had at an earlier time; what it pushed since may or may not be there.
    #[must_use]
    pub fn promised_at(&self, earlier: &Self) -> Self {
        Self { verdicts: earlier.verdicts.clone(), tally: earlier.tally.clone(), ..self.clone() }
    }

    /// What it was told so far, and which of that contradicts itself.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Compares every verdict with the log as it stands; the log is read from its beginning.
    pub fn check(&self, log: &[Logged]) -> Tally {
        let mut tally = self.tally.clone();
        let mut find = |doubled: bool, what: String| {
            *if doubled { &mut tally.doubled } else { &mut tally.lost } += 1;
            tally.findings.push(format!("{} in {}: {what}", self.peer.actor, self.peer.log));
        };
        let mut places: BTreeMap<Seq, (Offset, Digest)> = BTreeMap::new();
        for logged in log.iter().filter(|logged| logged.actor == self.peer.actor) {
            let seq = logged.entry.header.seq;
            if let Some((first, _)) = places.insert(seq, (logged.offset, logged.entry.digest())) {
                find(true, format!("seq {seq} is at {first} and at {}", logged.offset));
            }
            if self.pushed.get(&seq).map(|(entry, _)| entry.digest()) != Some(logged.entry.digest()) {
                find(true, format!("seq {seq} at {} says what was not pushed", logged.offset));
            }
        }
        for (seq, verdict) in &self.verdicts {
            match (verdict, places.get(seq)) {
                (Verdict::Accepted(told), Some((offset, _))) if told == offset => {}
                (Verdict::Accepted(told), found) => {
                    find(false, format!("seq {seq} was accepted at {told} and is at {:?}", found.map(|(at, _)| at)))
                }
                (Verdict::Refused, Some((offset, _))) => {
                    find(true, format!("seq {seq} was refused and is at {offset}"))
                }
                (Verdict::Refused, None) => {}
            }
        }
        tally
    }
}

impl Tally {
    /// Adds another.
    pub fn add(&mut self, other: Self) {
        self.acked += other.acked;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.findings.extend(other.findings);
    }
}
