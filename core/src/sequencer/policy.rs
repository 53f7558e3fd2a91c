//! Policies: what an operator's own rules say of an entry before it enters the log.
//!
//! A policy is asked between two entries, so the state it sees is the one before this entry, within a push too. It is
//! asked after the checks that concern everybody and before the gate of rich changes. What it adds becomes an entry of
//! the log itself (actor 0), right behind the one it was asked about and in the same commit.
//!
//! **Invariant:** a policy decides by what it is given. It reads no clock and draws no entropy; and one that panics, or
//! adds what is no entry, refuses nothing: the entry is held until the policy has been mended.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::{Author, Declined, Sequencer, shortened};
use crate::chain::Cursor;
use crate::entry::{Body, Entry, Header, Logged, Replaced};
use crate::id::{ActorId, Base, LogName, Name, Offset, RunId, Seq, UserId};
use crate::op::{FieldOp, Op};
use crate::protocol::Code;
use crate::random::Random;
use crate::state::State;
use crate::time::{Time, WallMs};
use crate::value::Value;

/// How long an entry is held whose policy fails.
const FAILED_DELAY: Duration = Duration::from_secs(30);

/// The operator's rules for entries.
pub trait Policy: Send + Sync {
    /// What is to become of this entry.
    ///
    /// It is called on the thread that decides for every log: it must not wait. What it cannot know at once, it asks
    /// for elsewhere and answers [`Ruling::RetryLater`] meanwhile.
    fn rule(&self, case: &Case<'_>) -> Ruling;
}

/// Rules without a state of their own need no type: `|case: &Case<'_>| Ruling::Allow`.
impl<F: Fn(&Case<'_>) -> Ruling + Send + Sync> Policy for F {
    fn rule(&self, case: &Case<'_>) -> Ruling {
        self(case)
    }
}

impl fmt::Debug for dyn Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Policy(…)")
    }
}

/// One entry in front of its policy.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The log.
    pub log: &'a LogName,
    /// Who pushed it.
    pub actor: ActorId,
    /// The user that the actor is bound to.
    pub user: &'a UserId,
    /// The entry. Its name and args are claims of the client: what it does is in `ops` alone.
    pub entry: &'a Entry,
    /// The log before it.
    pub before: &'a State,
    /// When it would be accepted. It never decreases within the log, so after a server clock that was ahead it stands
    /// still for as long: what waits for a time asks `now`.
    pub accepted: Time,
    /// The server's clock, as far as a policy has one; it may step back.
    pub now: WallMs,
}

/// What a policy says.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Ruling {
    /// It may enter the log, if nothing else is against it.
    Allow,
    /// It may, and the log does this as its own action right behind it. Edits of rich fields have no place here.
    AllowWith {
        /// The name of the log's own action.
        name: Name,
        /// Its arguments.
        args: Option<Value>,
        /// What it does.
        ops: Vec<Op>,
    },
    /// It may not, for good: a durable verdict, and a dead letter on both sides.
    Refuse {
        /// Why, as a number: one of 5xx, or from 1000 on one of the operator's own.
        code: Code,
        /// Why, for people.
        reason: String,
    },
    /// Not now. It and the later entries of its author in this log stay undecided.
    RetryLater {
        /// Why, for people.
        reason: String,
        /// When the client shall push it again.
        delay: Duration,
    },
}

impl<'a> Case<'a> {
    /// The action's name, as the client claims it.
    pub fn name(&self) -> &'a Name {
        &self.entry.body.name
    }

    /// The action's arguments, as the client claims them.
    pub fn args(&self) -> Option<&'a Value> {
        self.entry.body.args.as_ref()
    }

    /// What the entry does.
    pub fn ops(&self) -> &'a [Op] {
        &self.entry.body.ops
    }
}

/// The policy of a server without rules of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Policy for AllowAll {
    fn rule(&self, _: &Case<'_>) -> Ruling {
        Ruling::Allow
    }
}

impl Sequencer {
    /// Asks the policy; returns the entry that it adds behind the one it was asked about, with this seq of the log's.
    pub(super) fn rule(
        &self,
        author: Author<'_>,
        entry: &Entry,
        (now, accepted): (WallMs, Time),
        seq: Seq,
        random: &mut Random,
    ) -> Result<Option<Logged>, Declined> {
        let Some((log, policy)) = &self.policy else { return Ok(None) };
        let Author { actor, user } = author;
        let case = Case { log, actor, user, entry, before: &self.state, accepted, now };
        let failed = |reason: &str| Declined::Held(reason.to_owned(), FAILED_DELAY);
        // It only reads, so nothing is half done when it panics.
        match catch_unwind(AssertUnwindSafe(|| policy.rule(&case))) {
            Ok(Ruling::Allow) => Ok(None),
            Ok(Ruling::AllowWith { name, args, ops }) => {
                let edits = ops.iter().flat_map(Op::field_ops).any(|(_, op)| matches!(op, FieldOp::Edit(_)));
                if edits {
                    return Err(failed("what the policy adds edits a rich field"));
                }
                let body = Arc::new(Body::new(name, args, ops, None, random.salt()));
                let behind = self.state.cursor().next.next();
                self.own(body, None, (seq, behind), accepted)
                    .map(Some)
                    .map_err(|reason| failed(&format!("what the policy adds is no entry: {reason}")))
            }
            Ok(Ruling::Refuse { code, reason }) => Err(Declined::Refused(code, shortened(&reason))),
            Ok(Ruling::RetryLater { reason, delay }) => Err(Declined::Held(shortened(&reason), delay)),
            Err(_) => Err(failed("the policy failed")),
        }
    }

    /// An entry of the log itself with this seq, to stand at this offset; or why there can be none.
    pub(super) fn own(
        &self,
        body: Arc<Body>,
        replaces: Option<Replaced>,
        (seq, offset): (Seq, Offset),
        accepted: Time,
    ) -> Result<Logged, String> {
        if let Some(kind) = body.ops.iter().find_map(Op::unknown_kind) {
            return Err(format!("op kind {kind} is not known to this server"));
        }
        let epoch = self.state.epochs().last().map(|(epoch, _)| *epoch).unwrap_or_default();
        // One start of the owner is to the log what one start of a tab is to a client.
        let mut header = Header::new(RunId(epoch.0), seq.0, seq, Base { epoch, end: offset }, accepted);
        header.replaces = replaces;
        let entry = Entry::new(header, body).map_err(|error| error.to_string())?;
        Ok(Logged { offset, actor: ActorId::LOG, user: UserId::log(), accepted, base: offset, entry })
    }

    /// Folds an entry of the log itself.
    pub(super) fn append_own(&mut self, own: Logged) -> (Logged, Cursor) {
        let fold = self.state.fold(&own);
        assert!(fold.is_ok(), "kinds were checked, offset and seq are the next: {fold:?}");
        (own, self.state.cursor())
    }
}
