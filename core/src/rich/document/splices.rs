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

/// Collects what happens to a text, joining what touches.
#[derive(Debug, Default)]
pub(super) struct Splices {
    pub(super) list: Vec<Splice>,
    /// The end of what the last splice inserted.
    end: usize,
}

impl Splices {
    pub(super) fn inserted(&mut self, at: usize, character: char) {
        match self.list.last_mut().filter(|_| self.end == at) {
            Some(last) => last.insert.push(character),
            None => self.list.push(Splice { at, delete: 0, insert: character.to_string() }),
        }
        self.end = at + character.len_utf16();
    }

    pub(super) fn deleted(&mut self, at: usize, width: usize) {
        match self.list.last_mut().filter(|last| last.insert.is_empty()) {
            Some(last) if last.at == at => last.delete += width,
            Some(last) if last.at == at + width => {
                last.at = at;
                last.delete += width;
            }
            _ => self.list.push(Splice { at, delete: width, insert: String::new() }),
        }
        self.end = at;
    }
}
