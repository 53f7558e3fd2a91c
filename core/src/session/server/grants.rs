//! What a token allows: rights to logs by pattern.

use serde::{Deserialize, Serialize};

use crate::id::LogName;

/// Rights to every log whose name the pattern matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// A log name in which each `*` stands for any characters, slashes included.
    pub pattern: String,
    /// Entries and snapshots may be read.
    pub read: bool,
    /// Entries may be pushed.
    pub append: bool,
}

/// All rights of a token.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Grants(pub Vec<Grant>);

impl Grants {
    /// Every right to every log.
    pub fn everything() -> Self {
        Self(vec![Grant { pattern: "*".to_owned(), read: true, append: true }])
    }

    /// The rights to one log: whether it may be read, and whether it may be appended to.
    pub fn rights(&self, log: &LogName) -> (bool, bool) {
        let matching = self.0.iter().filter(|grant| matches(&grant.pattern, log.as_str()));
        matching.fold((false, false), |(read, append), grant| (read || grant.read, append || grant.append))
    }
}

/// Whether the text fits the pattern. Linear: a star takes as little as it can, the last one the rest.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, text, expected) in [
            ("*", "board/42", true),
            ("board/*", "board/42", true),
            ("board/*", "boards/42", false),
            ("board/42", "board/42", true),
            ("board/42", "board/421", false),
            ("*/42", "board/42", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("ab*b", "ab", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn rights_add_up() {
        let grant = |pattern: &str, read, append| Grant { pattern: pattern.to_owned(), read, append };
        let grants = Grants(vec![grant("board/*", true, false), grant("board/1", false, true)]);
        let log = |name| LogName::new(name).expect("a name");
        assert_eq!(grants.rights(&log("board/1")), (true, true));
        assert_eq!(grants.rights(&log("board/2")), (true, false));
        assert_eq!(grants.rights(&log("chat")), (false, false));
    }
}
