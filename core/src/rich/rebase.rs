//! Rebasing: splices of one text, made again on another text that has come from it.
//!
//! Where the characters of a text have no names in common with those of the other (the document that they had names in
//! begins anew, or is not here), what stays between the two is found by comparing them. So this is a best guess where
//! the same characters stand in several places, and exact where they do not.

use super::Splice;

/// Most differences that are looked for; texts that differ more are compared by their common beginning and end alone.
const DIFFERENCES_MAX: usize = 512;

/// Two texts side by side: what is done to the one is done to the other.
#[derive(Debug, Clone)]
pub(crate) struct Rebase {
    text: Vec<char>,
    /// Of each character of the text: where it stands in the target, as that is now.
    places: Vec<Option<usize>>,
    target: Vec<char>,
}

impl Rebase {
    /// Compares a text with what has come of it.
    pub(crate) fn new(text: &str, target: &str) -> Self {
        let (text, target): (Vec<char>, Vec<char>) = (text.chars().collect(), target.chars().collect());
        Self { places: aligned(&text, &target), text, target }
    }

    /// The text, as it is now.
    pub(crate) fn text(&self) -> String {
        self.text.iter().collect()
    }

    /// Does splices to the text, and gives those that do the same to the target: a character is deleted where it still
    /// stands, and what is inserted stands behind the same character as there; where that has gone, before the same
    /// character as there, or else behind the next one before it that is left.
    ///
    /// Splices that reach behind the text, or into a character, are cut off there.
    pub(crate) fn splice(&mut self, splices: &[Splice]) -> Vec<Splice> {
        let mut rebased = Vec::new();
        for splice in splices {
            let begin = index_at(&self.text, splice.at);
            let end = index_at(&self.text, splice.at.saturating_add(splice.delete));
            self.delete(begin, end, &mut rebased);
            if !splice.insert.is_empty() {
                self.insert(begin, &splice.insert, &mut rebased);
            }
        }
        rebased
    }

    fn delete(&mut self, begin: usize, end: usize, rebased: &mut Vec<Splice>) {
        self.text.drain(begin..end);
        for at in self.places.drain(begin..end).flatten().collect::<Vec<_>>().into_iter().rev() {
            let width = self.target[at].len_utf16();
            push(rebased, Splice { at: width_of(&self.target[..at]), delete: width, insert: String::new() });
            self.target.remove(at);
            self.places.iter_mut().flatten().filter(|place| **place > at).for_each(|place| *place -= 1);
        }
    }

    fn insert(&mut self, begin: usize, text: &str, rebased: &mut Vec<Splice>) {
        let behind = || self.places[..begin].iter().rev().find_map(|place| *place).map_or(0, |place| place + 1);
        let at = match (begin.checked_sub(1).map(|before| self.places[before]), self.places.get(begin)) {
            // What it stood behind has gone, and what it stood before has not.
            (None | Some(None), Some(Some(next))) => *next,
            _ => behind(),
        };
        push(rebased, Splice { at: width_of(&self.target[..at]), delete: 0, insert: text.to_owned() });
        let inserted: Vec<char> = text.chars().collect();
        let count = inserted.len();
        self.places.iter_mut().flatten().filter(|place| **place >= at).for_each(|place| *place += count);
        self.places.splice(begin..begin, (at..at + count).map(Some));
        self.target.splice(at..at, inserted.iter().copied());
        self.text.splice(begin..begin, inserted);
    }
}

/// One splice that makes `after` of `before`.
pub(crate) fn difference(before: &str, after: &str) -> Splice {
    let (from, to): (Vec<char>, Vec<char>) = (before.chars().collect(), after.chars().collect());
    let (head, tail) = common(&from, &to);
    Splice {
        at: width_of(&from[..head]),
        delete: width_of(&from[head..from.len() - tail]),
        insert: to[head..to.len() - tail].iter().collect(),
    }
}

/// Adds a splice, joined with the last one if that deletes what stands right behind it or before it.
fn push(splices: &mut Vec<Splice>, next: Splice) {
    match splices.last_mut().filter(|last| last.insert.is_empty()) {
        Some(last) if last.at == next.at || next.at + next.delete == last.at && next.insert.is_empty() => {
            *last = Splice { at: next.at, delete: last.delete + next.delete, insert: next.insert };
        }
        _ => splices.push(next),
    }
}

fn width_of(characters: &[char]) -> usize {
    characters.iter().map(|character| character.len_utf16()).sum()
}

/// The index of the character at a position in UTF-16 code units.
fn index_at(characters: &[char], at: usize) -> usize {
    let mut position = 0;
    characters
        .iter()
        .take_while(|character| (position < at).then(|| position += character.len_utf16()).is_some())
        .count()
}

/// How much two lists have in common at their beginning, and behind that at their end.
fn common<T: PartialEq>(from: &[T], to: &[T]) -> (usize, usize) {
    let head = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    let tail = from[head..].iter().rev().zip(to[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    (head, tail)
}

/// Where each character of a text stands in another; none where it is gone. Whole words are found first, and single
/// characters only between them.
fn aligned(from: &[char], to: &[char]) -> Vec<Option<usize>> {
    let mut places: Vec<Option<usize>> = vec![None; from.len()];
    let (here, there) = (words(from), words(to));
    let (mut left, mut right) = (0, 0);
    let mut between = |until: (usize, usize), (left, right): (usize, usize)| {
        for (a, b) in kept(&from[left..until.0], &to[right..until.1]) {
            places[left + a] = Some(right + b);
        }
    };
    let word = |words: &[&[char]], number: usize| words[..number].iter().map(|word| word.len()).sum::<usize>();
    let (mut here_at, mut there_at, mut numbers) = (0, 0, (0, 0));
    for (a, b) in kept(&here, &there) {
        here_at += word(&here[numbers.0..], a - numbers.0);
        there_at += word(&there[numbers.1..], b - numbers.1);
        numbers = (a, b);
        between((here_at, there_at), (left, right));
        let length = here[a].len();
        between((here_at + length, there_at + length), (here_at, there_at));
        (left, right) = (here_at + length, there_at + length);
    }
    between((from.len(), to.len()), (left, right));
    places
}

/// A text in words, and what stands between them one by one.
fn words(text: &[char]) -> Vec<&[char]> {
    text.chunk_by(|a, b| a.is_alphanumeric() && b.is_alphanumeric()).collect()
}

/// What stays of one list in another, ascending.
fn kept<T: PartialEq>(from: &[T], to: &[T]) -> Vec<(usize, usize)> {
    let (head, tail) = common(from, to);
    let (ends, middle) = ((from.len() - tail, to.len() - tail), (head, head));
    let mut kept: Vec<(usize, usize)> = (0..head).map(|index| (index, index)).collect();
    let mut between = matches(&from[middle.0..ends.0], &to[middle.1..ends.1]);
    between.reverse();
    kept.extend(between.into_iter().map(|(a, b)| (head + a, head + b)));
    kept.extend((0..tail).map(|index| (ends.0 + index, ends.1 + index)));
    kept
}

/// What a shortest list of differences leaves, if it is short, descending. Source: Myers, "An O(ND) difference
/// algorithm and its variations", 1986.
fn matches<T: PartialEq>(from: &[T], to: &[T]) -> Vec<(usize, usize)> {
    let (width, height) = (from.len() as isize, to.len() as isize);
    let bound = DIFFERENCES_MAX.min(from.len() + to.len()) as isize;
    let at = |diagonal: isize| (diagonal + bound + 1) as usize;
    // The furthest column on each diagonal, after each number of differences.
    let mut furthest = vec![0isize; 2 * bound as usize + 3];
    let mut trace: Vec<Vec<isize>> = Vec::new();
    for differences in 0..=bound {
        trace.push(furthest[at(-differences - 1)..=at(differences + 1)].to_vec());
        for diagonal in (-differences..=differences).step_by(2) {
            let down = diagonal == -differences
                || (diagonal != differences && furthest[at(diagonal - 1)] < furthest[at(diagonal + 1)]);
            let mut column = if down { furthest[at(diagonal + 1)] } else { furthest[at(diagonal - 1)] + 1 };
            let mut row = column - diagonal;
            while column < width && row < height && from[column as usize] == to[row as usize] {
                (column, row) = (column + 1, row + 1);
            }
            furthest[at(diagonal)] = column;
            if column >= width && row >= height {
                return walk_back(&trace, (width, height));
            }
        }
    }
    Vec::new()
}

/// The matches on the way that the trace of a comparison tells.
fn walk_back(trace: &[Vec<isize>], (mut column, mut row): (isize, isize)) -> Vec<(usize, usize)> {
    let mut matches = Vec::new();
    for (differences, furthest) in trace.iter().enumerate().rev() {
        let differences = differences as isize;
        let before = |diagonal: isize| furthest[(diagonal + differences + 1) as usize];
        let diagonal = column - row;
        let down = diagonal == -differences || (diagonal != differences && before(diagonal - 1) < before(diagonal + 1));
        let previous = if down { diagonal + 1 } else { diagonal - 1 };
        let (from_column, from_row) = match differences {
            0 => (0, 0),
            _ => (before(previous), before(previous) - previous),
        };
        while column > from_column && row > from_row {
            (column, row) = (column - 1, row - 1);
            matches.push((column as usize, row as usize));
        }
        (column, row) = (from_column, from_row);
    }
    matches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn splice(at: usize, delete: usize, insert: &str) -> Splice {
        Splice { at, delete, insert: insert.to_owned() }
    }

    fn spliced(text: &str, splices: &[Splice]) -> String {
        let mut characters: Vec<char> = text.chars().collect();
        for splice in splices {
            let begin = index_at(&characters, splice.at);
            let end = index_at(&characters, splice.at + splice.delete);
            characters.splice(begin..end, splice.insert.chars());
        }
        characters.into_iter().collect()
    }

    fn check(before: &str, now: &str, splices: &[Splice], expected: &str) {
        assert_eq!(spliced(now, &Rebase::new(before, now).splice(splices)), expected, "{before:?} → {now:?}");
        let mut rebase = Rebase::new(before, now);
        let singly: Vec<Splice> = splices.chunks(1).flat_map(|splice| rebase.splice(splice)).collect();
        assert_eq!(spliced(now, &singly), expected, "{before:?} → {now:?}, one by one");
    }

    #[test]
    fn what_was_typed_stands_behind_the_same_word() {
        check("one two three", "one two three", &[splice(3, 0, "!")], "one! two three");
        check("one two three", "> one two, three.", &[splice(3, 0, "!")], "> one! two, three.");
        check("one two three", "one three", &[splice(7, 0, "!")], "one !three");
        check("one two three", "1 two three", &[splice(3, 0, "!")], "1! two three");
        check("one two three", "> one two three", &[splice(0, 0, "!")], "> !one two three");
        check("one two three", "zero one 2 three", &[splice(4, 3, "zwei"), splice(13, 1, "E")], "zero one zwei2 threE");
        check("", "something", &[splice(0, 0, "x")], "xsomething");
        check("abc", "", &[splice(1, 1, "x"), splice(2, 0, "y")], "xy");
        check("a😀b", "é a😀b", &[splice(3, 1, "c")], "é a😀c");
    }

    #[test]
    fn what_was_typed_together_stays_together() {
        let typed: Vec<Splice> =
            "hello".chars().enumerate().map(|(at, it)| splice(3 + at, 0, &it.to_string())).collect();
        check("one two", "one and two", &typed, "onehello and two");
        check("one two", "one and two", &[splice(3, 0, "xy"), splice(4, 1, ""), splice(0, 1, "O")], "Onex and two");
    }

    #[test]
    fn texts_that_have_nothing_in_common_keep_what_was_typed() {
        let (before, now) = ("a".repeat(5_000), "b".repeat(5_000));
        let rebased = spliced(&now, &Rebase::new(&before, &now).splice(&[splice(2_500, 1_000, "typed")]));
        assert_eq!(rebased.len(), 5_005);
        assert!(rebased.contains("typed"));
    }

    #[test]
    fn on_the_same_text_every_splice_is_itself() {
        for seed in 0..200 {
            let mut random = Random::new([seed; 32]);
            let mut draw = |bound: usize| random.below(bound as u64) as usize;
            let text: String = (0..draw(30)).map(|_| ['a', 'b', 'c', '😀'][draw(3)]).collect();
            let mut after = text.clone();
            let mut splices = Vec::new();
            for _ in 0..draw(5) {
                let length = after.encode_utf16().count();
                let at = draw(length + 1);
                let next = splice(at, draw(length - at + 1), ["", "x", "yz"][draw(3)]);
                after = spliced(&after, std::slice::from_ref(&next));
                splices.push(next);
            }
            check(&text, &text, &splices, &after);
            let whole = difference(&text, &after);
            assert_eq!(spliced(&text, &[whole]), after);
        }
    }
}
