//! Redriving: a refused entry comes in again, as an entry of the log itself that replaces it.
//!
//! Its effect is what its author asked for, on the state as it is now; its id and its place are the log's. Whose it was
//! stands in `replaces`: where the refused entry was a replacement itself, the first of that line. The policy is asked
//! again, about its author: an operator changes the rules first.

use std::sync::Arc;
use std::time::Duration;

use super::{Author, Declined, Sequencer};
use crate::chain::Cursor;
use crate::entry::{Body, Entry, Logged};
use crate::id::{ActorId, EntryId, Seq, UserId};
use crate::op::{Edit, FieldOp, Op};
use crate::protocol::Code;
use crate::protocol::frame::MarkedStatus;
use crate::random::Random;
use crate::time::{self, WallMs};

/// A refused entry that shall come in after all.
#[derive(Clone, Copy, Debug)]
pub struct Redrive<'a> {
    /// Its id.
    pub id: EntryId,
    /// Its author.
    pub user: &'a UserId,
    /// The entry, whole.
    pub entry: &'a Entry,
    /// Whether it was re-issued before, from either side.
    pub replaced: bool,
    /// One that it builds on and that is neither in the log nor re-issued.
    pub missing: Option<Seq>,
}

/// What a redrive brought into the log.
#[derive(Debug)]
pub struct Redriven {
    /// The replacement, and what the policy added behind it.
    pub appended: Vec<(Logged, Cursor)>,
    /// Whether it counts only in part.
    pub outcome: Option<MarkedStatus>,
}

/// The entry stays where it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedriveError {
    /// It may not come in: mend what the reason names, or discard it.
    #[error("{code}: {reason}")]
    Refused {
        /// Why, as a number.
        code: Code,
        /// Why, for people.
        reason: String,
    },
    /// The policy would see it later.
    #[error("later: {reason}")]
    Held {
        /// Why, for people.
        reason: String,
        /// When to try again.
        delay: Duration,
    },
}

impl From<Declined> for RedriveError {
    fn from(declined: Declined) -> Self {
        match declined {
            Declined::Refused(code, reason) => Self::Refused { code, reason },
            Declined::Held(reason, delay) => Self::Held { reason, delay },
        }
    }
}

impl Sequencer {
    /// Takes a refused entry in again. Everything it brings is committed in one transaction, or the server ends.
    ///
    /// # Errors
    /// [`RedriveError`]; the log has not changed.
    pub fn redrive(
        &mut self,
        now: WallMs,
        redrive: Redrive<'_>,
        random: &mut Random,
    ) -> Result<Redriven, RedriveError> {
        let Redrive { id, user, entry, .. } = redrive;
        check(&redrive).map_err(|(code, reason)| RedriveError::Refused { code, reason })?;
        let accepted = time::accepted(now, self.state.accepted_last());
        let author = Author { actor: id.actor, user };
        let seq = self.state.folded(ActorId::LOG).next();
        let addition = self.rule(author, entry, (now, accepted), seq.next(), random)?;
        let Body { name, args, ops, lifetime_ms, .. } = (*entry.body).clone();
        let body = Body::new(name, args, ops, lifetime_ms, random.salt());
        let replaces = Some(entry.line(id));
        let offset = self.state.cursor().next;
        let own = self.own(Arc::new(body), replaces, (seq, offset), accepted);
        let own = own.map_err(|reason| RedriveError::Refused { code: Code::MalformedEntry, reason })?;
        let by_the_log = Author { actor: ActorId::LOG, user: &own.user };
        let (logged, outcome) = self.append(by_the_log, own.entry, accepted).map_err(Declined::from)?;
        let mut appended = vec![(logged, self.state.cursor())];
        appended.extend(addition.map(|addition| self.append_own(addition)));
        Ok(Redriven { appended, outcome })
    }
}

fn check(redrive: &Redrive<'_>) -> Result<(), (Code, String)> {
    let Redrive { id, entry, replaced, missing, .. } = redrive;
    let is_change = |(_, op): (_, &FieldOp)| matches!(op, FieldOp::Edit(edit) if !matches!(edit, Edit::InitialText(_)));
    if *replaced {
        return Err((Code::AlreadyReplaced, format!("{id} was replaced before")));
    }
    if let Some(need) = missing {
        return Err((
            Code::DependsOn,
            format!("seq {need}, which it builds on, is not in the log: redrive that first"),
        ));
    }
    if entry.body.ops.iter().flat_map(Op::field_ops).any(is_change) {
        // A change says inside who wrote it.
        return Err((Code::RichChange, "the change of a text can only be made again by its author".to_owned()));
    }
    Ok(())
}
