//! Content of a kind that this build does not know, kept as it came.
//!
//! Digests and chains run over the bytes that the author wrote, so an op of a newer version must leave a decoder as it
//! went in. What is kept is its structure; in the shortest form of msgpack, which all canonical bytes have, that is the
//! same as its bytes. Extension types are no part of any version of the format and are refused.

use std::fmt;

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Any content: what a decoder must carry through without understanding it.
#[derive(Clone, Debug, PartialEq)]
pub struct Opaque(Node);

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Nil,
    Bool(bool),
    Unsigned(u64),
    /// Below zero.
    Signed(i64),
    /// Bits of a 32-bit float, which may be NaN.
    Single(u32),
    /// Bits of a 64-bit float, which may be NaN.
    Double(u64),
    Text(String),
    Bytes(Vec<u8>),
    Array(Vec<Opaque>),
    /// In the order they came.
    Map(Vec<(Opaque, Opaque)>),
}

impl Opaque {
    /// Nothing.
    pub const NIL: Self = Self(Node::Nil);
}

impl Serialize for Opaque {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Node::Nil => serializer.serialize_unit(),
            Node::Bool(value) => serializer.serialize_bool(*value),
            Node::Unsigned(value) => serializer.serialize_u64(*value),
            Node::Signed(value) => serializer.serialize_i64(*value),
            Node::Single(bits) => serializer.serialize_f32(f32::from_bits(*bits)),
            Node::Double(bits) => serializer.serialize_f64(f64::from_bits(*bits)),
            Node::Text(text) => serializer.serialize_str(text),
            Node::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Node::Array(items) => {
                let mut array = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| array.serialize_element(item))?;
                array.end()
            }
            Node::Map(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                members.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Opaque {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OpaqueVisitor).map(Self)
    }
}

struct OpaqueVisitor;

impl<'de> Visitor<'de> for OpaqueVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("content without extension types")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Nil)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Nil)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(u64::try_from(value).map_or(Node::Signed(value), Node::Unsigned))
    }

    fn visit_f32<E>(self, value: f32) -> Result<Node, E> {
        Ok(Node::Single(value.to_bits()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Double(value.to_bits()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Node, E> {
        Ok(Node::Bytes(bytes.to_vec()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        // The announced length is not believed: items cost at least a byte each, which must be there.
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Node::Map(members))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, _: D) -> Result<Node, D::Error> {
        Err(de::Error::custom("extension types are no part of the format"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{from_bytes, from_canonical, to_bytes};
    use super::*;

    #[test]
    fn every_kind_of_content_comes_out_as_it_went_in() {
        // nil, bools, integers of every length, floats with a NaN, texts, bytes, nested arrays and maps with odd keys.
        for hex in [
            "c0",
            "c2",
            "c3",
            "00",
            "7f",
            "cc80",
            "cd0100",
            "ce00010000",
            "cf0000000100000000",
            "ff",
            "e0",
            "d0df",
            "d1ff00",
            "d2ffff0000",
            "d3ffffffff00000000",
            "ca7fc00001",
            "cb7ff8000000000001",
            "cb8000000000000000",
            "a3616263",
            "c403010203",
            "9301a16192c0c3",
            "8201a1619102c0",
            "80",
            "90",
        ] {
            let bytes: Vec<u8> =
                (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).expect("hex")).collect();
            let opaque: Opaque = from_canonical(&bytes).unwrap_or_else(|error| panic!("{hex}: {error}"));
            assert_eq!(to_bytes(&opaque), bytes, "{hex}");
        }
    }

    #[test]
    fn what_is_not_canonical_and_what_is_an_extension_is_refused() {
        for bytes in [&[0xcc, 0x01][..], &[0xd9, 0x01, b'a'], &[0xdc, 0, 1, 0xc0], &[0xd0, 0x05]] {
            assert!(from_canonical::<Opaque>(bytes).is_err(), "{bytes:02x?}");
        }
        assert!(from_bytes::<Opaque>(&[0xd4, 0x01, 0x00]).is_err(), "an extension");
        assert!(from_bytes::<Opaque>(&[0xdd, 0xff, 0xff, 0xff, 0xff]).is_err(), "a length that nothing is behind");
        assert!(from_bytes::<Opaque>(&[0x91; 100]).is_err(), "nested too deep");
    }
}
