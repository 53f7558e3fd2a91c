//! What bytes say, as JSON for people and for other languages: structs by their field names, in the order of their
//! bytes.
//!
//! Bytes are `{"$bytes": "hex"}`, integers that JavaScript does not represent exactly `{"$int": "decimal"}`.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::Serialize;

use crate::{hex, quoted};

/// The JSON of anything that is written as msgpack.
pub(crate) fn json<T: Serialize + ?Sized>(object: &T) -> String {
    tree(object).to_string()
}

/// The JSON of the content of `[tag, content]`.
pub(crate) fn content_json<T: Serialize + ?Sized>(tagged: &T) -> String {
    match tree(tagged) {
        Tree::Array(mut parts) if parts.len() == 2 => parts.remove(1).to_string(),
        other => panic!("no tag and content: {other}"),
    }
}

fn tree<T: Serialize + ?Sized>(object: &T) -> Tree {
    rmp_serde::from_slice(&rmp_serde::to_vec_named(object).unwrap()).unwrap()
}

enum Tree {
    Leaf(String),
    Array(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaf(json) => f.write_str(json),
            Self::Array(parts) => {
                let parts: Vec<_> = parts.iter().map(Self::to_string).collect();
                write!(f, "[{}]", parts.join(", "))
            }
            Self::Map(members) => {
                let members: Vec<_> = members.iter().map(|(key, it)| format!("{}: {it}", quoted(key))).collect();
                write!(f, "{{{}}}", members.join(", "))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("msgpack")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf("null".to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        let exact = value.unsigned_abs() < 1 << 53;
        Ok(Tree::Leaf(if exact { value.to_string() } else { format!("{{\"$int\": \"{value}\"}}") }))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf(if value < 1 << 53 { value.to_string() } else { format!("{{\"$int\": \"{value}\"}}") }))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Leaf(serde_json::to_string(&value).unwrap()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf(quoted(value)))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Tree, E> {
        Ok(Tree::Leaf(format!("{{\"$bytes\": \"{}\"}}", hex(value))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut parts = Vec::new();
        while let Some(part) = seq.next_element()? {
            parts.push(part);
        }
        Ok(Tree::Array(parts))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Tree::Map(members))
    }
}
