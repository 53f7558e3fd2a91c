//! An action of this tab: from the draft of a mutator to a pending entry in the view, in one tick.

use std::sync::Arc;

use crate::draft::{Draft, DraftFieldOp, DraftOp};
use crate::entry::{self, Body, InvalidEntry, Replaced};
use crate::id::{Base, EntryId, EpochId, Name, Offset, RecordId, WriteId};
use crate::op::{Delete, Edit, FieldOp, Insert, Op, Update};
use crate::overlay::{DraftError, Pending};
use crate::random::Random;
use crate::state::{FieldKey, RecordKey};
use crate::storage::commit::Prepared;
use crate::time::{Clock, WallMs};

use super::Replica;

/// The action cannot be taken; nothing was recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ActError {
    /// The action breaks a rule of the format.
    #[error(transparent)]
    Entry(#[from] InvalidEntry),
    /// A splice does not fit its text.
    #[error(transparent)]
    Text(#[from] DraftError),
}

/// What an action re-issues.
#[derive(Debug)]
pub(super) struct Reissue {
    pub(super) replaces: Replaced,
    /// The dead letter that is marked with it.
    pub(super) letter: EntryId,
}

/// What is special about an action that was made before.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// It re-issues an entry.
    pub(super) reissue: Option<Reissue>,
    /// It was in the view of an engine that trapped, on the confirmed prefix up to here.
    pub(super) seen: Option<Offset>,
}

impl Replica {
    /// Records an action: it is in the view when this returns.
    ///
    /// # Errors
    /// [`ActError`]; nothing was recorded.
    pub fn act(
        &mut self,
        draft: Draft,
        n: u64,
        now: WallMs,
        clock: &mut Clock,
        random: &mut Random,
    ) -> Result<WriteId, ActError> {
        self.act_again(draft, n, now, clock, random, Again::default())
    }

    /// Records an action that an engine before this one had in its view, but not stored: under the number it has, on
    /// what its author had seen.
    ///
    /// # Errors
    /// [`ActError`]; nothing was recorded.
    pub fn act_seen(
        &mut self,
        draft: Draft,
        (n, seen): (u64, Offset),
        now: WallMs,
        clock: &mut Clock,
        random: &mut Random,
    ) -> Result<WriteId, ActError> {
        self.act_again(draft, n, now, clock, random, Again { seen: Some(seen), ..Again::default() })
    }

    /// Records an action that may re-issue an earlier one.
    pub(super) fn act_again(
        &mut self,
        draft: Draft,
        n: u64,
        now: WallMs,
        clock: &mut Clock,
        random: &mut Random,
        again: Again,
    ) -> Result<WriteId, ActError> {
        let write = WriteId { run: self.run, n };
        let mut edited = Vec::new();
        let body = self.body(draft, random, &mut edited).inspect_err(|_| {
            // Nothing of a failed action may stay in a document.
            edited.iter().for_each(|field| self.overlay.abandon(field));
        })?;
        clock.observe(self.state.effective_max());
        let (base, own, time) = (self.base(again.seen), self.outbox.others(), clock.tick(now));
        let needs = self.outbox.needs(self.overlay.needs(&body.ops));
        let (replaces, letter) = again.reissue.map(|reissue| (reissue.replaces, reissue.letter)).unzip();
        self.outbox.prepare(Prepared { n, base, own, time, needs, replaces, letter, body: body.clone() });
        let pending = Pending { write, actor: self.actor, seq: None, base: base.end, own_seen: own, time, body };
        let touched = self.overlay.push(&self.state, pending);
        self.refresh(&touched);
        self.progress();
        Ok(write)
    }

    fn body(&mut self, draft: Draft, random: &mut Random, edited: &mut Vec<FieldKey>) -> Result<Arc<Body>, ActError> {
        let ops = self.ops(draft.ops, edited)?;
        let body = Body::new(draft.name, draft.args, ops, draft.lifetime_ms, random.salt());
        entry::check_body(&body)?;
        Ok(Arc::new(body))
    }

    /// What the view had applied when the action was made.
    fn base(&self, seen: Option<Offset>) -> Base {
        let end = self.state.cursor().next;
        let end = seen.unwrap_or(end).min(end);
        let epoch = self.state.epochs().iter().rev().find(|(_, first)| *first <= end);
        Base { epoch: epoch.map_or(EpochId::NONE, |(epoch, _)| *epoch), end }
    }

    /// Turns a draft's ops into ops: splices become one change of their document.
    fn ops(&mut self, drafts: Vec<DraftOp>, edited: &mut Vec<FieldKey>) -> Result<Vec<Op>, ActError> {
        let mut ops = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let op = match draft {
                DraftOp::Insert(collection, record, drafts) => {
                    let mut fields = Vec::with_capacity(drafts.len());
                    for (field, draft) in drafts {
                        let key = field_key(&collection, &record, &field);
                        fields.push((field, self.field_op(key, draft, &ops, edited)?));
                    }
                    Op::Insert(Insert { collection, record, fields })
                }
                DraftOp::Update(collection, record, field, draft) => {
                    let key = field_key(&collection, &record, &field);
                    let op = self.field_op(key, draft, &ops, edited)?;
                    Op::Update(Update { collection, record, field, op })
                }
                DraftOp::Delete(collection, record, policy) => Op::Delete(Delete { collection, record, policy }),
            };
            ops.push(op);
        }
        Ok(ops)
    }

    fn field_op(
        &mut self,
        field: FieldKey,
        draft: DraftFieldOp,
        earlier: &[Op],
        edited: &mut Vec<FieldKey>,
    ) -> Result<FieldOp, ActError> {
        Ok(match draft {
            DraftFieldOp::Set(value) => FieldOp::Set(value),
            DraftFieldOp::Increment(by) => FieldOp::Increment(by),
            DraftFieldOp::Add(values) => FieldOp::Add(values),
            DraftFieldOp::Remove(values) => FieldOp::Remove(values),
            DraftFieldOp::InitialText(content) => FieldOp::Edit(Edit::InitialText(content)),
            DraftFieldOp::Splice(splices) => {
                edited.push(field.clone());
                let author = (self.actor, self.run);
                let change = self.overlay.edit_text(&self.state, &field, &splices, author, earlier)?;
                FieldOp::Edit(Edit::Change(change))
            }
        })
    }
}

fn field_key(collection: &Name, record: &RecordId, field: &Name) -> FieldKey {
    FieldKey { key: RecordKey { collection: collection.clone(), record: record.clone() }, field: field.clone() }
}
