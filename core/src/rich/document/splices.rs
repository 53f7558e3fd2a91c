//! Replacements in a text: what an edit asks for, and what applied changes did.

/// One replacement in a text, in UTF-16 code units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splice {
    /// Where it begins.
    pub at: usize,
    /// How many code units go.
    pub delete: usize,
    /// What comes in their place.
    pub insert: String,
}

/// Most splices a journal keeps; what was edited in more places is cheaper told as a whole.
const SPLICES_MAX: usize = 64;

/// Most bytes that a journal keeps of what was inserted.
const INSERTED_BYTES_MAX: usize = 64 * 1024;

/// What happened to a text since somebody looked at it, joining what touches. Bounded.
#[derive(Debug, Clone, Default)]
pub(super) struct Journal {
    splices: Vec<Splice>,
    /// The end of what the last splice inserted.
    end: usize,
    inserted_bytes: usize,
}

impl Journal {
    pub(super) fn splices(&self) -> &[Splice] {
        &self.splices
    }

    /// Whether it is within its bounds.
    pub(super) fn is_short(&self) -> bool {
        self.splices.len() <= SPLICES_MAX && self.inserted_bytes <= INSERTED_BYTES_MAX
    }

    pub(super) fn replaced(&mut self, splice: &Splice) {
        if splice.delete > 0 {
            self.deleted(splice.at, splice.delete);
        }
        let mut at = splice.at;
        for character in splice.insert.chars() {
            self.inserted(at, character);
            at += character.len_utf16();
        }
    }

    pub(super) fn inserted(&mut self, at: usize, character: char) {
        match self.splices.last_mut().filter(|_| self.end == at) {
            Some(last) => last.insert.push(character),
            None => self.splices.push(Splice { at, delete: 0, insert: character.to_string() }),
        }
        self.end = at + character.len_utf16();
        self.inserted_bytes += character.len_utf8();
    }

    pub(super) fn deleted(&mut self, at: usize, width: usize) {
        match self.splices.last_mut().filter(|last| last.insert.is_empty()) {
            Some(last) if last.at == at => last.delete += width,
            Some(last) if last.at == at + width => {
                last.at = at;
                last.delete += width;
            }
            _ => self.splices.push(Splice { at, delete: width, insert: String::new() }),
        }
        self.end = at;
    }
}
