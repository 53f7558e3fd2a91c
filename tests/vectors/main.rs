//! Golden vectors: the bytes of format version 1, as files that Rust and TypeScript read.
//!
//! Each object is built here in code. Its bytes and its description must be exactly what the file says, and the file's
//! bytes must decode to it. `vectors.test.mjs` reads the same files with readers of its own.
//!
//! Bytes that are in use can never be mended, so a difference is a mistake until somebody says otherwise. To rewrite
//! the files on purpose: `DRIFTLOG_REWRITE_VECTORS=1 cargo test -p driftlog-tests --test vectors`, together with
//! docs/log-format.md or docs/protocol.md and the version there.
#![allow(clippy::unwrap_used, missing_docs)]

mod chains;
mod described;
mod entries;
mod frames;
mod rows;
mod values;

use std::fmt::{Debug, Write as _};
use std::path::Path;

/// Decodes bytes and asserts what came out.
type Check = Box<dyn Fn(&[u8])>;

/// One object with its bytes.
pub(crate) struct Vector {
    name: String,
    note: &'static str,
    bytes: Vec<u8>,
    /// Further members of the JSON object: name and JSON.
    members: Vec<(&'static str, String)>,
    check: Check,
}

impl Vector {
    /// Bytes that decode to `object`, which `is` describes as JSON.
    pub(crate) fn decodes<T, E>(
        name: impl Into<String>,
        note: &'static str,
        bytes: Vec<u8>,
        object: T,
        is: String,
        decode: impl Fn(&[u8]) -> Result<T, E> + 'static,
    ) -> Self
    where
        T: PartialEq + Debug + 'static,
        E: Debug,
    {
        let check = move |bytes: &[u8]| assert_eq!(decode(bytes).unwrap(), object);
        Self { name: name.into(), note, bytes, members: vec![("is", is)], check: Box::new(check) }
    }

    /// Bytes that no reader takes.
    pub(crate) fn refused<T: Debug, E>(
        name: &str,
        note: &'static str,
        bytes: Vec<u8>,
        decode: impl Fn(&[u8]) -> Result<T, E> + 'static,
    ) -> Self {
        let check = move |bytes: &[u8]| {
            if let Ok(object) = decode(bytes) {
                panic!("these bytes must be refused, not decoded to {object:?}");
            }
        };
        let members = vec![("refused", "true".to_owned())];
        Self { name: name.to_owned(), note, bytes, members, check: Box::new(check) }
    }

    /// The same with one more member in its JSON object.
    #[must_use]
    pub(crate) fn with(mut self, name: &'static str, json: String) -> Self {
        self.members.insert(0, (name, json));
        self
    }
}

/// Text as JSON.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap()).collect()
}

fn written(about: &str, vectors: &[Vector]) -> String {
    let mut json = format!("{{\n  \"about\": {},\n  \"vectors\": [\n", quoted(about));
    for (at, vector) in vectors.iter().enumerate() {
        let mut members = vec![("name", quoted(&vector.name)), ("note", quoted(vector.note))];
        members.push(("hex", quoted(&hex(&vector.bytes))));
        members.extend(vector.members.iter().cloned());
        let members: Vec<_> = members.iter().map(|(name, json)| format!("      \"{name}\": {json}")).collect();
        let comma = if at + 1 < vectors.len() { "," } else { "" };
        writeln!(json, "    {{\n{}\n    }}{comma}", members.join(",\n")).unwrap();
    }
    json + "  ]\n}\n"
}

fn check(file: &str, about: &str, vectors: Vec<Vector>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(file);
    let expected = written(about, &vectors);
    if std::env::var_os("DRIFTLOG_REWRITE_VECTORS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let stored: serde_json::Value = serde_json::from_str(&text).unwrap();
    let stored = stored["vectors"].as_array().unwrap();
    for (vector, stored) in vectors.iter().zip(stored) {
        let name = &vector.name;
        assert_eq!(stored["name"], *name, "{file}: the order of the vectors");
        assert_eq!(stored["hex"], hex(&vector.bytes), "{file}, {name}: this build writes other bytes");
        (vector.check)(&unhex(stored["hex"].as_str().unwrap()));
    }
    assert_eq!(stored.len(), vectors.len(), "{file}: the number of vectors");
    assert!(text == expected, "{file}: names, notes or descriptions differ");
}

#[test]
fn values_have_the_bytes_they_always_had() {
    check(
        "values.json",
        "Canonical values, and bytes that are none (docs/log-format.md, \"Values\").",
        values::vectors(),
    );
}

#[test]
fn entries_have_the_bytes_they_always_had() {
    check("entries.json", "Entries: header and body (docs/log-format.md, \"Entry\").", entries::vectors());
}

#[test]
fn frames_have_the_bytes_they_always_had() {
    check("frames.json", "Every frame of protocol 1 (docs/protocol.md).", frames::vectors());
}

#[test]
fn rows_have_the_bytes_they_always_had() {
    check("rows.json", "Rows of a client's database, sealed, and snapshots (docs/log-format.md).", rows::vectors());
}

#[test]
fn chains_have_the_values_they_always_had() {
    check("chains.json", "Chains: what is hashed, and the result (docs/log-format.md, \"Chains\").", chains::vectors());
}
