//! The characters of a text in their merged order, deleted ones included.
//!
//! This is the replicated growable array that automerge merges text by: a character stands behind the element it was
//! typed after, and of several typed after the same element the one with the larger id stands first. It is kept here
//! a second time because automerge walks every element of a text for each batch it applies; here an element is found
//! by its id or by its position, and inserted or deleted, at a cost that does not grow with the text.
//!
//! ```text
//! order   [chunk 0, width 12] [chunk 3, width 9] [chunk 1, width 0] …
//! chunk   [run "hello"] [run, 3 deleted] [run " world"] …      at most RUNS_MAX
//! run     consecutive ids of one actor that stand next to each other
//! ```
//!
//! Positions and widths are UTF-16 code units. **Invariant:** an element is larger than the one it stands behind; the
//! caller checks it, and the order depends on it.

use std::collections::BTreeMap;

use super::RichActor;
use super::change::ElementId;

/// Longest visible run, so that finding a character inside one costs little.
const RUN_ELEMENTS_MAX: u32 = 128;

/// Most runs in one chunk, so that opening a gap in one costs little.
const RUNS_MAX: usize = 32;

#[derive(Debug, Clone, Default)]
pub(super) struct Sequence {
    actors: Vec<RichActor>,
    actor_numbers: BTreeMap<RichActor, u32>,
    /// Of each actor: the first counter of each of its runs, and the chunk that holds the run.
    runs_of: Vec<BTreeMap<u32, u32>>,
    chunks: Vec<Vec<Run>>,
    order: Vec<Place>,
}

/// Takes back the last thing done.
#[derive(Debug, Clone, Copy)]
pub(super) enum Undo {
    Inserted(ElementId),
    Deleted(ElementId, char),
}

/// A chunk in the order, with the width of its visible text.
#[derive(Debug, Clone, Copy)]
struct Place {
    chunk: u32,
    width: u32,
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

/// Where an element stands: its place in the order, its run and its offset in the run.
#[derive(Debug, Clone, Copy)]
struct Spot {
    place: usize,
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
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for place in &self.order {
            self.chunks[place.chunk as usize].iter().for_each(|run| text.push_str(&run.text));
        }
        text
    }

    /// The width of the visible text.
    pub(super) fn width(&self) -> usize {
        self.order.iter().map(|place| place.width as usize).sum()
    }

    pub(super) fn contains(&self, id: ElementId) -> bool {
        self.actor_numbers.get(&id.actor).is_some_and(|actor| self.chunk_of(*actor, id.counter).is_some())
    }

    /// The visible element that covers position `at`, where it begins, and its character.
    pub(super) fn element_at(&self, at: usize) -> Option<(ElementId, usize, char)> {
        let mut before = 0;
        let place = self.order.iter().find(|place| {
            let found = at < before + place.width as usize;
            before += if found { 0 } else { place.width as usize };
            found
        })?;
        for run in &self.chunks[place.chunk as usize] {
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
        let mut gap = Spot { place: 0, run: 0, offset: 0 };
        if let Some(found) = after.and_then(|after| self.find(after)) {
            gap = Spot { offset: found.offset + 1, ..found };
        }
        let gap = self.skip_larger(gap, id);
        let (place, run) = self.open(gap);
        self.put(
            place,
            run,
            Run {
                actor,
                start: id.counter,
                elements: 1,
                width: character.len_utf16() as u32,
                text: character.to_string(),
            },
        )
    }

    /// Deletes an element and returns the position and width it had; `None` if it was deleted before.
    pub(super) fn delete(&mut self, id: ElementId) -> Option<(usize, usize)> {
        let spot = self.find(id)?;
        let chunk = self.order[spot.place].chunk;
        if !self.chunks[chunk as usize][spot.run].is_visible() {
            return None;
        }
        let (place, run) = self.isolate(spot);
        let chunk = self.order[place].chunk;
        let deleted = &mut self.chunks[chunk as usize][run];
        let width = std::mem::take(&mut deleted.width);
        deleted.text = String::new();
        self.order[place].width -= width;
        let at = self.width_before(place, run);
        self.join(place, run + 1);
        self.join(place, run);
        self.halve(place);
        Some((at, width as usize))
    }

    /// Takes back an insert or a delete that nothing was done after.
    pub(super) fn undo(&mut self, step: Undo) {
        let (Undo::Inserted(id) | Undo::Deleted(id, _)) = step;
        let Some(spot) = self.find(id) else { return };
        let (place, number) = self.isolate(spot);
        let chunk = self.order[place].chunk as usize;
        if let Undo::Deleted(_, character) = step {
            let run = &mut self.chunks[chunk][number];
            run.text.push(character);
            run.width = character.len_utf16() as u32;
            self.order[place].width += run.width;
            return self.halve(place);
        }
        let run = self.chunks[chunk].remove(number);
        self.order[place].width -= run.width;
        self.runs_of[run.actor as usize].remove(&run.start);
        self.halve(place);
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
        let place = self.order.iter().position(|place| place.chunk == chunk)?;
        let offset = id.counter - self.chunks[chunk as usize][run].start;
        Some(Spot { place, run, offset })
    }

    /// Moves a gap over the elements that stand before `id` by being larger.
    fn skip_larger(&self, mut gap: Spot, id: ElementId) -> Spot {
        while gap.place < self.order.len() {
            let runs = &self.chunks[self.order[gap.place].chunk as usize];
            while let Some(run) = runs.get(gap.run) {
                // The ids of a run ascend, so behind a larger element the rest of its run is larger too.
                if gap.offset < run.elements && self.id(run, gap.offset) < id {
                    return gap;
                }
                if gap.run + 1 == runs.len() && gap.place + 1 == self.order.len() {
                    return Spot { offset: run.elements, ..gap };
                }
                gap = Spot { run: gap.run + 1, offset: 0, ..gap };
            }
            gap = Spot { place: gap.place + 1, run: 0, offset: 0 };
        }
        gap
    }

    /// Makes the gap lie between runs and returns the place and the number of the run behind it.
    ///
    /// A gap at the start of a chunk becomes the one at the end of the chunk before, where typing goes on.
    fn open(&mut self, gap: Spot) -> (usize, usize) {
        if self.order.is_empty() {
            self.chunks.push(Vec::new());
            self.order.push(Place { chunk: 0, width: 0 });
        }
        let chunk = self.order[gap.place].chunk;
        let runs = &mut self.chunks[chunk as usize];
        match runs.get_mut(gap.run) {
            Some(run) if gap.offset == run.elements => (gap.place, gap.run + 1),
            Some(run) if gap.offset > 0 => {
                let tail = run.split_off(gap.offset);
                self.link(&tail, chunk);
                self.chunks[chunk as usize].insert(gap.run + 1, tail);
                (gap.place, gap.run + 1)
            }
            _ => (gap.place, gap.run),
        }
    }

    /// Makes an element a run of its own and returns its place and the number of the run.
    fn isolate(&mut self, spot: Spot) -> (usize, usize) {
        let (place, run) = self.open(spot);
        let chunk = self.order[place].chunk;
        let first = &mut self.chunks[chunk as usize][run];
        if first.elements > 1 {
            let rest = first.split_off(1);
            self.link(&rest, chunk);
            self.chunks[chunk as usize].insert(run + 1, rest);
        }
        (place, run)
    }

    /// Puts a new run before the run number `run` of a place and returns the position of its text.
    fn put(&mut self, mut place: usize, mut run: usize, new: Run) -> usize {
        if run == 0 && place > 0 {
            place -= 1;
            run = self.chunks[self.order[place].chunk as usize].len();
        }
        let at = self.width_before(place, run);
        let chunk = self.order[place].chunk;
        self.order[place].width += new.width;
        let runs = &mut self.chunks[chunk as usize];
        if run > 0 && runs[run - 1].takes(&new) {
            let last = &mut runs[run - 1];
            last.elements += 1;
            last.width += new.width;
            last.text.push_str(&new.text);
        } else {
            self.link(&new, chunk);
            self.chunks[chunk as usize].insert(run, new);
            self.halve(place);
        }
        at
    }

    fn width_before(&self, place: usize, run: usize) -> usize {
        let before: usize = self.order[..place].iter().map(|place| place.width as usize).sum();
        let runs = &self.chunks[self.order[place].chunk as usize];
        before + runs[..run].iter().map(|run| run.width as usize).sum::<usize>()
    }

    /// Joins the run number `run` of a place to the one before it, if they are one.
    fn join(&mut self, place: usize, run: usize) {
        let runs = &mut self.chunks[self.order[place].chunk as usize];
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

    /// Cuts the chunk at a place in two once it has too many runs.
    fn halve(&mut self, place: usize) {
        let chunk = self.order[place].chunk as usize;
        if self.chunks[chunk].len() <= RUNS_MAX {
            return;
        }
        let number = self.chunks.len() as u32;
        let tail = self.chunks[chunk].split_off(RUNS_MAX / 2);
        let width = tail.iter().map(|run| run.width).sum();
        tail.iter().for_each(|run| self.link(run, number));
        self.chunks.push(tail);
        self.order[place].width -= width;
        self.order.insert(place + 1, Place { chunk: number, width });
    }

    fn link(&mut self, run: &Run, chunk: u32) {
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
            let mut sequence = Sequence::default();
            sequence.insert(None, id(1, 1), 'a');
            for actor in order {
                sequence.insert(Some(id(1, 1)), id(2, actor), char::from(b'0' + actor));
            }
            assert_eq!(sequence.text(), "a32");
        }
    }

    #[test]
    fn positions_count_utf_16_code_units_and_skip_deleted_characters() {
        let mut sequence = Sequence::default();
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
    fn many_runs_and_chunks_keep_the_order_of_a_plain_list() {
        let mut sequence = Sequence::default();
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
