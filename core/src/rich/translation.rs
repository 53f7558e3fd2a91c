//! Translation: a change that was made on an old root, made again on the new one.
//!
//! A new root begins with the text of the old one, and nothing of what made it. Every character of that text has a
//! successor in the new document; a character that was deleted before has none, and what stands behind it stands
//! behind the next one before it that has. So a change is translated op by op, and what it builds on is either part of
//! the new root or was translated before.
//!
//! Promises: what a change is translated to depends on the old document as of the re-rooting, on the change and on
//! what it builds on, and on nothing else. So the gate and the author of the change make the same bytes of it, whatever
//! either has heard of others meanwhile, and the author's view holds already what the log will say.

use std::collections::{BTreeMap, BTreeSet};

use super::change::{self, ChangeHash, ChangeRefusal, ElementId, TextChange, TextOp};
use super::document::{Document, GENESIS_HASH};
use super::{RichActor, TEXT_OBJECT, document};
use crate::limits;

/// What is needed to translate changes of one root to the next.
#[derive(Debug, Clone)]
pub struct Translation {
    /// The old root's document, with everything that was translated.
    old: Document,
    root: u64,
    /// The stretches of the old document as of the re-rooting, by their first element.
    places: BTreeMap<(RichActor, u32), Place>,
    /// The change that the new root begins with.
    beginning: ChangeHash,
    /// Characters that came later, and what they are on the new root.
    elements: BTreeMap<ElementId, ElementId>,
    /// Changes that came later, and what a change that builds on them builds on there.
    changes: BTreeMap<ChangeHash, Vec<ChangeHash>>,
    /// Changes of the new root that others may build on, with their last op.
    ends: BTreeMap<ChangeHash, u32>,
    /// How many changes each author there has.
    seqs: BTreeMap<RichActor, u64>,
}

/// Where a stretch of the old document stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    elements: u32,
    is_visible: bool,
    /// Characters of the text before it.
    before: u32,
}

impl Translation {
    /// From a document, as it is at the re-rooting, to the root that begins with its text.
    pub fn new(old: Document, root: u64) -> Self {
        let (mut places, mut before) = (BTreeMap::new(), 0);
        for stretch in old.stretches() {
            let place = Place { elements: stretch.elements, is_visible: stretch.is_visible, before };
            places.insert((stretch.first.actor, stretch.first.counter), place);
            before += if stretch.is_visible { stretch.elements } else { 0 };
        }
        let content = document::rooted(root, &old.text()).ok().flatten();
        let content = content.and_then(|bytes| change::decode_written(&bytes).ok());
        let (beginning, end) =
            content.map_or((GENESIS_HASH, TEXT_OBJECT.counter), |(change, hash)| (hash, change.max_op()));
        Self {
            old,
            root,
            places,
            beginning,
            elements: BTreeMap::new(),
            changes: BTreeMap::new(),
            ends: BTreeMap::from([(beginning, end), (GENESIS_HASH, TEXT_OBJECT.counter)]),
            seqs: BTreeMap::new(),
        }
    }

    /// The old document, with everything that was translated.
    pub fn old(&self) -> &Document {
        &self.old
    }

    /// From here on, what happens to the text of the old document is noted for [`Document::changes`].
    pub fn watch(&mut self) {
        self.old.watch();
    }

    /// Takes a first content, which stands on every root alike.
    ///
    /// # Errors
    /// [`ChangeRefusal`]: it does not fit the old document.
    pub fn take_initial(&mut self, bytes: &[u8]) -> Result<(), ChangeRefusal> {
        let (change, hash) = change::decode(bytes)?;
        if self.old.take(bytes, None)?.is_none() {
            return Ok(());
        }
        for place in 0..change.ops.len() {
            self.elements.insert(change.id(place), change.id(place));
        }
        self.changes.insert(hash, vec![hash]);
        self.ends.insert(hash, change.max_op());
        Ok(())
    }

    /// Takes the next change of the old root, made by `expected` if that is known, and gives what it is on the new one:
    /// empty if nothing is left of it, or if it was taken before.
    ///
    /// # Errors
    /// [`ChangeRefusal`]: it does not fit the old document, or has no translation that fits the new one. Nothing of it
    /// counts then.
    pub fn translate(&mut self, bytes: &[u8], expected: Option<RichActor>) -> Result<Vec<u8>, ChangeRefusal> {
        let (change, hash) = change::decode(bytes)?;
        if self.old.has(&hash) {
            return Ok(Vec::new());
        }
        let (moved, elements) = self.moved(&change)?;
        if self.old.take(bytes, expected)?.is_none() {
            return Ok(Vec::new());
        }
        self.elements.extend(elements);
        if moved.ops.is_empty() {
            self.changes.insert(hash, moved.dependencies);
            return Ok(Vec::new());
        }
        let (bytes, moved_hash) = change::encode(&moved);
        self.changes.insert(hash, vec![moved_hash]);
        self.ends.insert(moved_hash, moved.max_op());
        self.seqs.insert(moved.actor, moved.seq);
        Ok(bytes)
    }

    /// The change on the new root, and what its characters are there.
    fn moved(&self, change: &TextChange) -> Result<(TextChange, Vec<(ElementId, ElementId)>), ChangeRefusal> {
        let dependencies = self.dependencies(&change.dependencies)?;
        let last = dependencies.iter().filter_map(|hash| self.ends.get(hash)).max();
        let actor = change.actor.moved_to(self.root);
        let mut moved = TextChange {
            actor,
            seq: self.seqs.get(&actor).map_or(1, |seq| seq + 1),
            start_op: last.unwrap_or(&TEXT_OBJECT.counter) + 1,
            dependencies,
            ops: Vec::with_capacity(change.ops.len()),
        };
        let mut own: BTreeMap<ElementId, ElementId> = BTreeMap::new();
        for (place, op) in change.ops.iter().enumerate() {
            let id = moved.id(moved.ops.len());
            let (named, translated) = match *op {
                TextOp::Insert { after, character } => {
                    let after = after.and_then(|after| own.get(&after).copied().or_else(|| self.at_or_before(after)));
                    own.insert(change.id(place), id);
                    (after, TextOp::Insert { after, character })
                }
                TextOp::Delete { element } => {
                    let known = own.get(&element).copied().or_else(|| self.successor(element));
                    let Some(element) = known else { continue };
                    (Some(element), TextOp::Delete { element })
                }
            };
            // It names what it does not build on, which nobody who types does.
            if let Some(named) = named.filter(|named| named.counter >= id.counter) {
                return Err(ChangeRefusal::UnknownElement { place, counter: named.counter, actor: named.actor });
            }
            moved.ops.push(translated);
        }
        Ok((moved, own.into_iter().collect()))
    }

    /// What a change there builds on that builds on these here.
    fn dependencies(&self, here: &[ChangeHash]) -> Result<Vec<ChangeHash>, ChangeRefusal> {
        let there = here.iter().flat_map(|hash| match self.changes.get(hash) {
            Some(moved) => moved.as_slice(),
            None => std::slice::from_ref(&self.beginning),
        });
        let there: BTreeSet<ChangeHash> = there.copied().collect();
        match there.len() > limits::RICH_CHANGE_DEPENDENCIES_MAX {
            true => Err(ChangeRefusal::Malformed { at: 0 }),
            false => Ok(there.into_iter().collect()),
        }
    }

    /// The successor of a character; none if it was deleted before the re-rooting.
    fn successor(&self, element: ElementId) -> Option<ElementId> {
        if let Some(later) = self.elements.get(&element) {
            return Some(*later);
        }
        let (place, offset) = self.place(element)?;
        place.is_visible.then(|| self.rooted(place.before + offset))
    }

    /// The successor of a character, or of the next one before it that has one; none at the front.
    fn at_or_before(&self, element: ElementId) -> Option<ElementId> {
        self.successor(element).or_else(|| {
            let (place, _) = self.place(element)?;
            Some(self.rooted(place.before.checked_sub(1)?))
        })
    }

    fn place(&self, element: ElementId) -> Option<(Place, u32)> {
        let key = (element.actor, element.counter);
        let ((actor, first), place) = self.places.range(..=key).next_back()?;
        let offset = (*actor == element.actor).then(|| element.counter - first)?;
        (offset < place.elements).then_some((*place, offset))
    }

    /// The character of the new root's first content at an index.
    fn rooted(&self, index: u32) -> ElementId {
        ElementId { counter: TEXT_OBJECT.counter + 1 + index, actor: RichActor::of_root(self.root) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::rich::Splice;

    fn actor(number: u8) -> RichActor {
        RichActor([number; 16])
    }

    fn splice(at: usize, delete: usize, insert: &str) -> Splice {
        Splice { at, delete, insert: insert.to_owned() }
    }

    /// A document that begins with the text of another.
    fn rerooted(old: &Document, root: u64) -> Document {
        let mut new = Document::genesis();
        if let Some(content) = document::rooted(root, &old.text()).unwrap() {
            new.apply(&[&content]).unwrap();
        }
        new
    }

    #[test]
    fn what_was_typed_before_a_new_root_stands_where_it_was_typed() {
        let mut log = Document::genesis();
        log.edit(actor(1), &[splice(0, 0, "one two three four")]).unwrap();
        let mut away = log.clone();
        log.edit(actor(1), &[splice(4, 4, "")]).unwrap();
        let changes = [
            away.edit(actor(2), &[splice(7, 0, "!")]).unwrap(),
            away.edit(actor(2), &[splice(8, 0, "?"), splice(0, 3, "1")]).unwrap(),
            away.edit(actor(2), &[splice(2, 3, "")]).unwrap(),
        ];
        assert_eq!(away.text(), "1 !? three four");
        let mut new = rerooted(&log, 9);
        new.edit(actor(1), &[splice(14, 0, ".")]).unwrap();
        let mut translation = Translation::new(log, 9);
        for change in &changes {
            let moved = translation.translate(change, Some(actor(2))).unwrap();
            if !moved.is_empty() {
                new.apply(&[&moved]).unwrap();
            }
            assert_eq!(translation.translate(change, Some(actor(2))), Ok(Vec::new()), "once");
        }
        assert_eq!(new.text(), "1 !?three four.");
    }

    #[test]
    fn a_change_of_which_nothing_is_left_does_not_stop_what_follows() {
        let mut log = Document::genesis();
        log.edit(actor(1), &[splice(0, 0, "abc")]).unwrap();
        let mut away = log.clone();
        log.edit(actor(1), &[splice(0, 3, "")]).unwrap();
        let deleted = away.edit(actor(2), &[splice(0, 2, "")]).unwrap();
        let typed = away.edit(actor(2), &[splice(1, 0, "d")]).unwrap();
        let mut new = rerooted(&log, 3);
        let mut translation = Translation::new(log, 3);
        assert_eq!(translation.translate(&deleted, None), Ok(Vec::new()));
        new.apply(&[&translation.translate(&typed, None).unwrap()]).unwrap();
        assert_eq!(new.text(), "d");
    }

    #[test]
    fn what_a_change_becomes_depends_on_what_it_builds_on_alone() {
        for seed in 0..60 {
            let mut random = Random::new([seed; 32]);
            let mut log = Document::genesis();
            let mut away = [Document::genesis(), Document::genesis()];
            let mut typed: [Vec<Vec<u8>>; 2] = Default::default();
            let draw = |random: &mut Random, document: &mut Document, by: RichActor| {
                let len = document.len_utf16() as u64;
                let at = random.below(len + 1);
                let delete = random.below((len - at).min(3) + 1);
                document.edit(by, &[splice(at as usize, delete as usize, ["x", "yz", "é"][random.below(3) as usize])])
            };
            for _ in 0..30 {
                let change = draw(&mut random, &mut log, actor(9)).unwrap();
                for away in &mut away {
                    away.apply(&[&change]).unwrap();
                }
            }
            for _ in 0..random.below(20) {
                draw(&mut random, &mut log, actor(9)).unwrap();
            }
            for (number, away) in away.iter_mut().enumerate() {
                for _ in 0..10 {
                    typed[number].push(draw(&mut random, away, actor(number as u8)).unwrap());
                }
            }
            let mut new = rerooted(&log, 7);
            let gate = &mut Translation::new(log.clone(), 7);
            let (mut places, mut logged) = ([0, 0], Vec::new());
            while places != [10, 10] {
                let who = random.below(2) as usize;
                if let Some(change) = typed[who].get(places[who]) {
                    places[who] += 1;
                    let moved = gate.translate(change, Some(actor(who as u8))).unwrap();
                    if !moved.is_empty() {
                        new.apply(&[&moved]).unwrap();
                    }
                    logged.push((who, moved));
                }
            }
            for (who, typed) in typed.iter().enumerate() {
                let own = &mut Translation::new(log.clone(), 7);
                let made: Vec<_> = typed.iter().map(|change| own.translate(change, None).unwrap()).collect();
                let logged: Vec<_> =
                    logged.iter().filter(|(by, _)| *by == who).map(|(_, moved)| moved.clone()).collect();
                assert_eq!(made, logged, "seed {seed}");
            }
        }
    }

    #[test]
    fn a_change_that_does_not_fit_leaves_no_trace() {
        let mut log = Document::genesis();
        log.edit(actor(1), &[splice(0, 0, "abc")]).unwrap();
        let mut away = log.clone();
        let first = away.edit(actor(2), &[splice(1, 0, "x")]).unwrap();
        let second = away.edit(actor(2), &[splice(2, 0, "y")]).unwrap();
        let mut translation = Translation::new(log, 3);
        assert!(matches!(translation.translate(&second, None), Err(ChangeRefusal::Seq { .. })));
        assert!(matches!(translation.translate(&first, Some(actor(3))), Err(ChangeRefusal::Actor { .. })));
        assert!(!translation.translate(&first, Some(actor(2))).unwrap().is_empty());
        assert!(!translation.translate(&second, Some(actor(2))).unwrap().is_empty());
    }
}
