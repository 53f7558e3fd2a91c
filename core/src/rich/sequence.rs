//! The characters of a text in their merged order, deleted ones included.
//!
//! This is the replicated growable array that automerge merges text by: a character stands behind the element it was
//! typed after, and of several typed after the same element the one with the larger id stands first. It is kept here
//! a second time because automerge walks every element of a text for each batch it applies; here an element is found
//! by its id or by its position, and inserted or deleted, at a cost that does not grow with the text.
//!
//! ```text
//! tree    chunk 0 (width 12), chunk 3 (width 9), chunk 1 (width 0) …      tree.rs
//! chunk   run "hello", run of 3 deleted, run " world" …                   at most RUNS_MAX
//! run     consecutive ids of one actor that stand next to each other
//! ```
//!
//! Positions and widths are UTF-16 code units. **Invariant:** an element is larger than the one it stands behind; the
//! caller checks it, and the order depends on it.

use std::collections::BTreeMap;

use super::RichActor;
use super::change::ElementId;
use super::tree::Tree;

/// Longest visible run, so that finding a character inside one costs little.
const RUN_ELEMENTS_MAX: u32 = 128;

/// Most runs in one chunk, so that opening a gap in one costs little.
const RUNS_MAX: usize = 32;

#[derive(Debug, Clone)]
pub(super) struct Sequence {
    actors: Vec<RichActor>,
    actor_numbers: BTreeMap<RichActor, u32>,
    /// Of each actor: the first counter of each of its runs, and the chunk that holds the run.
    runs_of: Vec<BTreeMap<u32, u32>>,
    chunks: Vec<Vec<Run>>,
    tree: Tree,
}

/// Consecutive ids of one actor that stand next to each other, all of them deleted or none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    pub(super) first: ElementId,
    pub(super) elements: u32,
    pub(super) is_visible: bool,
}

/// Takes back the last thing done.
#[derive(Debug, Clone, Copy)]
pub(super) enum Undo {
    Inserted(ElementId),
    Deleted(ElementId, char),
}

#[derive(Debug, Clone)]
struct Run {
    actor: u32,
    start: u32,
    elements: u32,
    width: u32,
    /// Empty if the run is deleted; what was deleted never comes back.
    text: String,
}

/// Where an element stands: its chunk, its run and its offset in the run.
#[derive(Debug, Clone, Copy)]
struct Spot {
    chunk: u32,
    run: usize,
    offset: u32,
}

impl Run {
    fn is_visible(&self) -> bool {
        !self.text.is_empty()
    }

    /// The byte at which the element at `offset` begins.
    fn byte(&self, offset: u32) -> usize {
        if self.text.len() == self.elements as usize || !self.is_visible() {
            return (offset as usize).min(self.text.len());
        }
        self.text.char_indices().nth(offset as usize).map_or(self.text.len(), |(byte, _)| byte)
    }

    /// Keeps the elements before `offset` and returns the others.
    fn split_off(&mut self, offset: u32) -> Run {
        let text = self.text.split_off(self.byte(offset));
        let tail = Run {
            actor: self.actor,
            start: self.start + offset,
            elements: self.elements - offset,
            width: width(&text),
            text,
        };
        self.elements = offset;
        self.width -= tail.width;
        tail
    }

    /// Whether `next`, which stands behind this run, can become a part of it.
    fn takes(&self, next: &Run) -> bool {
        self.actor == next.actor
            && self.start + self.elements == next.start
            && self.is_visible() == next.is_visible()
            && (!self.is_visible() || self.elements + next.elements <= RUN_ELEMENTS_MAX)
    }
}

impl Sequence {
    pub(super) fn new() -> Self {
        Self {
            actors: Vec::new(),
            actor_numbers: BTreeMap::new(),
            runs_of: Vec::new(),
            chunks: vec![Vec::new()],
            tree: Tree::new(),
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::with_capacity(self.tree.width());
        for chunk in self.tree.chunks() {
            self.chunks[chunk as usize].iter().for_each(|run| text.push_str(&run.text));
        }
        text
    }

    /// Everything ever inserted, in order.
    pub(super) fn stretches(&self) -> impl Iterator<Item = Stretch> {
        let runs = self.tree.chunks().flat_map(|chunk| &self.chunks[chunk as usize]);
        runs.map(|run| Stretch { first: self.id(run, 0), elements: run.elements, is_visible: run.is_visible() })
    }

    /// The width of the visible text.
    pub(super) fn width(&self) -> usize {
        self.tree.width()
    }

    pub(super) fn contains(&self, id: ElementId) -> bool {
        self.actor_numbers.get(&id.actor).is_some_and(|actor| self.chunk_of(*actor, id.counter).is_some())
    }

    /// The visible element that covers position `at`, where it begins, and its character.
    pub(super) fn element_at(&self, at: usize) -> Option<(ElementId, usize, char)> {
        let (chunk, mut before) = self.tree.chunk_at(at)?;
        for run in &self.chunks[chunk as usize] {
            if at >= before + run.width as usize {
                before += run.width as usize;
                continue;
            }
            if run.width as usize == run.text.len() {
                let character = char::from(run.text.as_bytes()[at - before]);
                return Some((self.id(run, (at - before) as u32), at, character));
            }
            for (offset, character) in run.text.chars().enumerate() {
                if at < before + character.len_utf16() {
                    return Some((self.id(run, offset as u32), before, character));
                }
                before += character.len_utf16();
            }
        }
        None
    }

    /// Puts a character behind an element, or at the front, and returns its position.
    ///
    /// The caller has checked that `after` is contained, is smaller than `id`, and that `id` is new.
    pub(super) fn insert(&mut self, after: Option<ElementId>, id: ElementId, character: char) -> usize {
        let actor = self.actor_number(id.actor);
        let mut gap = Spot { chunk: self.tree.chunks().next().unwrap_or(0), run: 0, offset: 0 };
        if let Some(found) = after.and_then(|after| self.find(after)) {
            gap = Spot { offset: found.offset + 1, ..found };
        }
        let gap = self.skip_larger(gap, id);
        let (chunk, run) = self.open(gap);
        let (text, width) = (character.to_string(), character.len_utf16() as u32);
        self.put(chunk, run, Run { actor, start: id.counter, elements: 1, width, text })
    }

    /// Deletes an element and returns the position and width it had; `None` if it was deleted before.
    pub(super) fn delete(&mut self, id: ElementId) -> Option<(usize, usize)> {
        let spot = self.find(id)?;
        if !self.chunks[spot.chunk as usize][spot.run].is_visible() {
            return None;
        }
        let (chunk, run) = self.isolate(spot);
        let deleted = &mut self.chunks[chunk as usize][run];
        let width = std::mem::take(&mut deleted.width);
        deleted.text = String::new();
        self.tree.widen(chunk, -i64::from(width));
        let at = self.width_before(chunk, run);
        self.join(chunk, run + 1);
        self.join(chunk, run);
        self.halve(chunk);
        Some((at, width as usize))
    }

    /// Takes back an insert or a delete that nothing was done after.
    pub(super) fn undo(&mut self, step: Undo) {
        let (Undo::Inserted(id) | Undo::Deleted(id, _)) = step;
        let Some(spot) = self.find(id) else { return };
        let (chunk, number) = self.isolate(spot);
        if let Undo::Deleted(_, character) = step {
            let run = &mut self.chunks[chunk as usize][number];
            run.text.push(character);
            run.width = character.len_utf16() as u32;
            self.tree.widen(chunk, i64::from(run.width));
        } else {
            let run = self.chunks[chunk as usize].remove(number);
            self.tree.widen(chunk, -i64::from(run.width));
            self.runs_of[run.actor as usize].remove(&run.start);
        }
        self.halve(chunk);
    }

    fn id(&self, run: &Run, offset: u32) -> ElementId {
        ElementId { counter: run.start + offset, actor: self.actors[run.actor as usize] }
    }

    fn actor_number(&mut self, actor: RichActor) -> u32 {
        if let Some(number) = self.actor_numbers.get(&actor) {
            return *number;
        }
        let number = self.actors.len() as u32;
        self.actors.push(actor);
        self.runs_of.push(BTreeMap::new());
        self.actor_numbers.insert(actor, number);
        number
    }

    fn chunk_of(&self, actor: u32, counter: u32) -> Option<(u32, usize)> {
        let (start, chunk) = self.runs_of[actor as usize].range(..=counter).next_back()?;
        let runs = &self.chunks[*chunk as usize];
        let run = runs.iter().position(|run| run.actor == actor && run.start == *start)?;
        (counter - start < runs[run].elements).then_some((*chunk, run))
    }

    fn find(&self, id: ElementId) -> Option<Spot> {
        let actor = *self.actor_numbers.get(&id.actor)?;
        let (chunk, run) = self.chunk_of(actor, id.counter)?;
        let offset = id.counter - self.chunks[chunk as usize][run].start;
        Some(Spot { chunk, run, offset })
    }

    /// Moves a gap over the elements that stand before `id` by being larger.
    fn skip_larger(&self, mut gap: Spot, id: ElementId) -> Spot {
        loop {
            let runs = &self.chunks[gap.chunk as usize];
            while let Some(run) = runs.get(gap.run) {
                // The ids of a run ascend, so behind a larger element the rest of its run is larger too.
                if gap.offset < run.elements && self.id(run, gap.offset) < id {
                    return gap;
                }
                gap = Spot { run: gap.run + 1, offset: 0, ..gap };
            }
            // Whole chunks of larger elements are stepped over, or work in front of much other work would be slow.
            let Some(chunk) = self.tree.next_with(gap.chunk, id.counter) else {
                let chunk = self.tree.last();
                return Spot { chunk, run: self.chunks[chunk as usize].len(), offset: 0 };
            };
            gap = Spot { chunk, run: 0, offset: 0 };
        }
    }

    /// Makes the gap lie between runs and returns the chunk and the number of the run behind it.
    fn open(&mut self, gap: Spot) -> (u32, usize) {
        let runs = &mut self.chunks[gap.chunk as usize];
        match runs.get_mut(gap.run) {
            Some(run) if gap.offset > 0 => {
                let tail = run.split_off(gap.offset);
                self.link(&tail, gap.chunk);
                self.chunks[gap.chunk as usize].insert(gap.run + 1, tail);
                (gap.chunk, gap.run + 1)
            }
            _ => (gap.chunk, gap.run),
        }
    }

    /// Makes an element a run of its own and returns its chunk and the number of the run.
    fn isolate(&mut self, spot: Spot) -> (u32, usize) {
        let (chunk, run) = self.open(spot);
        let first = &mut self.chunks[chunk as usize][run];
        if first.elements > 1 {
            let rest = first.split_off(1);
            self.link(&rest, chunk);
            self.chunks[chunk as usize].insert(run + 1, rest);
        }
        (chunk, run)
    }

    /// Puts a new run before the run number `run` of a chunk and returns the position of its text.
    ///
    /// The start of a chunk is also the end of the chunk before, where typing goes on.
    fn put(&mut self, mut chunk: u32, mut run: usize, new: Run) -> usize {
        if run == 0
            && let Some(before) = self.tree.previous(chunk)
        {
            chunk = before;
            run = self.chunks[chunk as usize].len();
        }
        let at = self.width_before(chunk, run);
        self.tree.widen(chunk, i64::from(new.width));
        let runs = &mut self.chunks[chunk as usize];
        if run > 0 && runs[run - 1].takes(&new) {
            let last = &mut runs[run - 1];
            last.elements += 1;
            last.width += new.width;
            last.text.push_str(&new.text);
        } else {
            self.link(&new, chunk);
            self.chunks[chunk as usize].insert(run, new);
            self.halve(chunk);
        }
        at
    }

    fn width_before(&self, chunk: u32, run: usize) -> usize {
        let runs = &self.chunks[chunk as usize];
        self.tree.begin_of(chunk) + runs[..run].iter().map(|run| run.width as usize).sum::<usize>()
    }

    /// Joins the run number `run` of a chunk to the one before it, if they are one.
    fn join(&mut self, chunk: u32, run: usize) {
        let runs = &mut self.chunks[chunk as usize];
        if run == 0 || run >= runs.len() || !runs[run - 1].takes(&runs[run]) {
            return;
        }
        let gone = runs.remove(run);
        let into = &mut runs[run - 1];
        into.elements += gone.elements;
        into.width += gone.width;
        into.text.push_str(&gone.text);
        self.runs_of[gone.actor as usize].remove(&gone.start);
    }

    /// Cuts a chunk in two once it has too many runs.
    fn halve(&mut self, chunk: u32) {
        if self.chunks[chunk as usize].len() <= RUNS_MAX {
            return;
        }
        let tail = self.chunks[chunk as usize].split_off(RUNS_MAX / 2);
        let least = tail.iter().map(|run| run.start).min().unwrap_or(u32::MAX);
        let number = self.tree.split(chunk, tail.iter().map(|run| run.width).sum(), least);
        tail.iter().for_each(|run| self.link(run, number));
        self.chunks.push(tail);
    }

    fn link(&mut self, run: &Run, chunk: u32) {
        self.tree.lower(chunk, run.start);
        self.runs_of[run.actor as usize].insert(run.start, chunk);
    }
}

/// The width of a text in UTF-16 code units.
fn width(text: &str) -> u32 {
    if text.is_ascii() {
        return text.len() as u32;
    }
    text.chars().map(|character| character.len_utf16() as u32).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(counter: u32, actor: u8) -> ElementId {
        ElementId { counter, actor: RichActor([actor; 16]) }
    }

    #[test]
    fn of_two_characters_behind_the_same_element_the_larger_id_stands_first() {
        for order in [[2, 3], [3, 2]] {
            let mut sequence = Sequence::new();
            sequence.insert(None, id(1, 1), 'a');
            for actor in order {
                sequence.insert(Some(id(1, 1)), id(2, actor), char::from(b'0' + actor));
            }
            assert_eq!(sequence.text(), "a32");
        }
    }

    #[test]
    fn positions_count_utf_16_code_units_and_skip_deleted_characters() {
        let mut sequence = Sequence::new();
        for (counter, character) in (1..).zip("a😀bc".chars()) {
            let after = (counter > 1).then(|| id(counter - 1, 1));
            sequence.insert(after, id(counter, 1), character);
        }
        assert_eq!(sequence.width(), 5);
        assert_eq!(sequence.element_at(2), Some((id(2, 1), 1, '😀')));
        assert_eq!(sequence.delete(id(2, 1)), Some((1, 2)));
        assert_eq!(sequence.delete(id(2, 1)), None);
        assert_eq!(sequence.element_at(1), Some((id(3, 1), 1, 'b')));
        assert_eq!(sequence.text(), "abc");
        assert_eq!(sequence.insert(Some(id(2, 1)), id(9, 2), 'x'), 1);
        assert_eq!(sequence.text(), "axbc");
    }

    #[test]
    fn much_work_at_the_same_place_merges_alike_in_either_order() {
        let works: [Vec<ElementId>; 2] = [1, 2].map(|actor| (1..3000).map(|counter| id(counter, actor)).collect());
        let texts = [[0, 1], [1, 0]].map(|order| {
            let mut sequence = Sequence::new();
            for work in order {
                for (place, new) in works[work].iter().enumerate() {
                    let character = char::from(b'a' + (place % 13) as u8 + 13 * work as u8);
                    sequence.insert(None, *new, character);
                }
            }
            sequence.text()
        });
        assert_eq!(texts[0], texts[1]);
        assert!(texts[0].ends_with("pcobna"), "larger ids first");
    }

    #[test]
    fn many_runs_and_chunks_keep_the_order_of_a_plain_list() {
        let mut sequence = Sequence::new();
        let mut plain: Vec<(ElementId, char, bool)> = Vec::new();
        let mut seed = 7u32;
        for counter in 1..4000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = (seed >> 8) as usize % (plain.len() + 1);
            let new = id(counter, (seed >> 29) as u8);
            if seed.is_multiple_of(3) && at < plain.len() {
                let was = std::mem::replace(&mut plain[at].2, true);
                assert_eq!(sequence.delete(plain[at].0).is_some(), !was);
                continue;
            }
            let character = char::from(b'a' + (counter % 26) as u8);
            sequence.insert(at.checked_sub(1).map(|before| plain[before].0), new, character);
            plain.insert(at, (new, character, false));
        }
        let text: String = plain.iter().filter(|element| !element.2).map(|element| element.1).collect();
        assert_eq!(sequence.text(), text);
        assert_eq!(sequence.width(), text.len());
        assert!(plain.iter().all(|element| sequence.contains(element.0)));
        for at in 0..text.len() {
            assert!(sequence.element_at(at).is_some());
        }
    }
}
