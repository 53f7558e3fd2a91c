//! The reader of msgpack behind serde.
//!
//! `rmp-serde` reads every type by way of *any* value: each of our types brings a copy of that, and together they were
//! a quarter of the wasm. Here the type that is expected says what is read, and only what depends on it is copied.
//!
//! It promises to read what `rmp-serde` writes, to copy nothing that it need not, to announce no size that the input
//! does not hold, and to refuse extension types, text that is not UTF-8, and elements that a type leaves unread.

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor};

use super::DecodeError;

/// Reads values from the front of some bytes.
pub(super) struct Reader<'de> {
    pub(super) rest: &'de [u8],
    /// Arrays and maps that may still be opened within each other.
    depth: usize,
}

/// The first bytes of a value.
#[derive(Clone, Copy)]
enum Head {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Single(f32),
    Double(f64),
    Text(usize),
    Bytes(usize),
    Array(usize),
    Map(usize),
}

impl Head {
    fn unexpected(self) -> Unexpected<'static> {
        match self {
            Self::Nil => Unexpected::Unit,
            Self::Bool(value) => Unexpected::Bool(value),
            Self::Unsigned(value) => Unexpected::Unsigned(value),
            Self::Signed(value) => Unexpected::Signed(value),
            Self::Single(value) => Unexpected::Float(value.into()),
            Self::Double(value) => Unexpected::Float(value),
            Self::Text(_) => Unexpected::Other("a text"),
            Self::Bytes(_) => Unexpected::Other("bytes"),
            Self::Array(_) => Unexpected::Seq,
            Self::Map(_) => Unexpected::Map,
        }
    }
}

impl<'de> Reader<'de> {
    /// Reads at most so deep.
    pub(super) fn new(bytes: &'de [u8], depth_max: usize) -> Self {
        Self { rest: bytes, depth: depth_max }
    }

    fn take(&mut self, length: usize) -> Result<&'de [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(cut)?;
        self.rest = rest;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (number, rest) = self.rest.split_first_chunk::<N>().ok_or_else(cut)?;
        self.rest = rest;
        Ok(*number)
    }

    fn length<const N: usize>(&mut self) -> Result<usize, DecodeError> {
        let bytes = self.number::<N>()?;
        Ok(bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
    }

    fn head(&mut self) -> Result<Head, DecodeError> {
        let [mark] = self.number()?;
        Ok(match mark {
            0x00..=0x7f => Head::Unsigned(mark.into()),
            0x80..=0x8f => Head::Map((mark & 0x0f).into()),
            0x90..=0x9f => Head::Array((mark & 0x0f).into()),
            0xa0..=0xbf => Head::Text((mark & 0x1f).into()),
            0xc0 => Head::Nil,
            0xc2 => Head::Bool(false),
            0xc3 => Head::Bool(true),
            0xc4 => Head::Bytes(self.length::<1>()?),
            0xc5 => Head::Bytes(self.length::<2>()?),
            0xc6 => Head::Bytes(self.length::<4>()?),
            0xca => Head::Single(f32::from_be_bytes(self.number()?)),
            0xcb => Head::Double(f64::from_be_bytes(self.number()?)),
            0xcc => Head::Unsigned(u8::from_be_bytes(self.number()?).into()),
            0xcd => Head::Unsigned(u16::from_be_bytes(self.number()?).into()),
            0xce => Head::Unsigned(u32::from_be_bytes(self.number()?).into()),
            0xcf => Head::Unsigned(u64::from_be_bytes(self.number()?)),
            0xd0 => Head::Signed(i8::from_be_bytes(self.number()?).into()),
            0xd1 => Head::Signed(i16::from_be_bytes(self.number()?).into()),
            0xd2 => Head::Signed(i32::from_be_bytes(self.number()?).into()),
            0xd3 => Head::Signed(i64::from_be_bytes(self.number()?)),
            0xd9 => Head::Text(self.length::<1>()?),
            0xda => Head::Text(self.length::<2>()?),
            0xdb => Head::Text(self.length::<4>()?),
            0xdc => Head::Array(self.length::<2>()?),
            0xdd => Head::Array(self.length::<4>()?),
            0xde => Head::Map(self.length::<2>()?),
            0xdf => Head::Map(self.length::<4>()?),
            0xe0..=0xff => Head::Signed((mark as i8).into()),
            0xc1 | 0xc7..=0xc9 | 0xd4..=0xd8 => return Err(refused("a reserved or extension type")),
        })
    }

    fn text(&mut self, length: usize) -> Result<&'de str, DecodeError> {
        std::str::from_utf8(self.take(length)?).map_err(|_| refused("a text that is not UTF-8"))
    }

    fn enter(&mut self) -> Result<(), DecodeError> {
        self.depth -= 1;
        if self.depth == 0 { Err(refused("nested too deep")) } else { Ok(()) }
    }

    fn array<V: Visitor<'de>>(&mut self, length: usize, visitor: V) -> Result<V::Value, DecodeError> {
        self.enter()?;
        let mut elements = Elements { reader: self, left: length };
        let value = visitor.visit_seq(&mut elements)?;
        elements.leave()?;
        Ok(value)
    }

    fn map<V: Visitor<'de>>(&mut self, length: usize, visitor: V) -> Result<V::Value, DecodeError> {
        self.enter()?;
        let mut elements = Elements { reader: self, left: length };
        let value = visitor.visit_map(&mut elements)?;
        elements.leave()?;
        Ok(value)
    }
}

fn cut() -> DecodeError {
    refused("cut short")
}

fn refused(why: &str) -> DecodeError {
    DecodeError::Malformed(why.to_owned())
}

fn unlike<'de, T>(head: Head, visitor: &impl Visitor<'de>) -> Result<T, DecodeError> {
    Err(DecodeError::invalid_type(head.unexpected(), visitor))
}

/// Types that are read as numbers.
macro_rules! numbers {
    ($($method:ident)+) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            match self.head()? {
                Head::Unsigned(value) => visitor.visit_u64(value),
                Head::Signed(value) => visitor.visit_i64(value),
                Head::Single(value) => visitor.visit_f32(value),
                Head::Double(value) => visitor.visit_f64(value),
                head => unlike(head, &visitor),
            }
        }
    )+};
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = DecodeError;

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16 deserialize_u32
        deserialize_u64 deserialize_f32 deserialize_f64
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.head()? {
            Head::Nil => visitor.visit_unit(),
            Head::Bool(value) => visitor.visit_bool(value),
            Head::Unsigned(value) => visitor.visit_u64(value),
            Head::Signed(value) => visitor.visit_i64(value),
            Head::Single(value) => visitor.visit_f32(value),
            Head::Double(value) => visitor.visit_f64(value),
            Head::Text(length) => visitor.visit_borrowed_str(self.text(length)?),
            Head::Bytes(length) => visitor.visit_borrowed_bytes(self.take(length)?),
            Head::Array(length) => self.array(length, visitor),
            Head::Map(length) => self.map(length, visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.head()? {
            Head::Bool(value) => visitor.visit_bool(value),
            head => unlike(head, &visitor),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.head()? {
            Head::Text(length) => visitor.visit_borrowed_str(self.text(length)?),
            head => unlike(head, &visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.head()? {
            Head::Bytes(length) => visitor.visit_borrowed_bytes(self.take(length)?),
            head => unlike(head, &visitor),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        const NIL: u8 = 0xc0;
        match self.rest.split_first() {
            Some((&NIL, rest)) => {
                self.rest = rest;
                visitor.visit_none()
            }
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.head()? {
            Head::Nil => visitor.visit_unit(),
            head => unlike(head, &visitor),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &str, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &str, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.head()? {
            Head::Array(length) => self.array(length, visitor),
            head => unlike(head, &visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &str, _: usize, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.head()? {
            Head::Map(length) => self.map(length, visitor),
            head => unlike(head, &visitor),
        }
    }

    /// A struct is an array of ours, or a map of TypeScript's.
    fn deserialize_struct<V: Visitor<'de>>(self, _: &str, _: &[&str], visitor: V) -> Result<V::Value, DecodeError> {
        match self.head()? {
            Head::Array(length) => self.array(length, visitor),
            Head::Map(length) => self.map(length, visitor),
            head => unlike(head, &visitor),
        }
    }

    /// Enums are words; those with content are written as tagged arrays instead.
    fn deserialize_enum<V: Visitor<'de>>(self, _: &str, _: &[&str], visitor: V) -> Result<V::Value, DecodeError> {
        match self.head()? {
            Head::Text(length) => {
                let word: StrDeserializer<'_, DecodeError> = self.text(length)?.into_deserializer();
                visitor.visit_enum(word)
            }
            head => unlike(head, &visitor),
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_any(visitor)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The elements of an array, or the keys and values of a map.
struct Elements<'a, 'de> {
    reader: &'a mut Reader<'de>,
    left: usize,
}

impl Elements<'_, '_> {
    fn next(&mut self) -> bool {
        let more = self.left > 0;
        self.left -= usize::from(more);
        more
    }

    fn leave(self) -> Result<(), DecodeError> {
        self.reader.depth += 1;
        if self.left == 0 { Ok(()) } else { Err(refused("more elements than the type has")) }
    }

    /// Each element takes a byte at least.
    fn size_max(&self) -> usize {
        self.left.min(self.reader.rest.len())
    }
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        if self.next() { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.size_max())
    }
}

impl<'de> MapAccess<'de> for Elements<'_, 'de> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        if self.next() { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        seed.deserialize(&mut *self.reader)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.size_max())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Serialize};

    use super::super::{DecodeError, from_bytes, to_bytes};
    use crate::limits;
    use crate::value::Value;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Everything {
        numbers: (u8, i16, u64, i64, f64),
        word: Word,
        text: String,
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
        none: Option<u8>,
        some: Option<Vec<(bool, ())>>,
        map: BTreeMap<String, u32>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        One,
        Other,
    }

    fn everything(length: usize) -> Everything {
        let many = 0..length as u32;
        Everything {
            numbers: (200, -300, u64::MAX, i64::MIN, 0.1),
            word: Word::Other,
            text: "é".repeat(length),
            bytes: vec![7; length],
            none: None,
            some: Some(many.clone().map(|at| (at % 2 == 0, ())).collect()),
            map: many.map(|at| (at.to_string(), at.wrapping_mul(70_000))).collect(),
        }
    }

    #[test]
    fn what_rmp_serde_writes_is_read() {
        for length in [0, 1, 15, 16, 31, 32, 255, 256, 70_000] {
            let value = everything(length);
            assert_eq!(from_bytes::<Everything>(&to_bytes(&value)).as_ref(), Ok(&value));
            let named = rmp_serde::to_vec_named(&value).expect("written");
            assert_eq!(from_bytes::<Everything>(&named).as_ref(), Ok(&value), "structs as maps");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refused = |bytes: &[u8]| matches!(from_bytes::<Value>(bytes), Err(DecodeError::Malformed(_)));
        let bytes = to_bytes(&everything(3));
        assert!((0..bytes.len()).all(|cut| from_bytes::<Everything>(&bytes[..cut]).is_err()), "cut short");
        assert!(refused(&[0xa1, 0xff]), "not UTF-8");
        assert!(refused(&[0xd4, 0x01, 0x02]), "an extension");
        assert!(refused(&[0xdd, 0xff, 0xff, 0xff, 0xff]), "four billion elements");
        let too_deep = [vec![0x91; limits::DEPTH_MAX], vec![0xc0]].concat();
        assert!(refused(&too_deep));
        let as_deep = [vec![0x91; limits::DEPTH_MAX - 1], vec![0xc0]].concat();
        assert!(from_bytes::<serde::de::IgnoredAny>(&as_deep).is_ok());
        assert!(from_bytes::<(u8, u8)>(&to_bytes(&(1, 2, 3))).is_err(), "more elements");
        assert!(from_bytes::<u8>(&to_bytes(&300)).is_err(), "too large");
        assert_eq!(
            from_bytes::<u8>(&to_bytes("one")),
            Err(DecodeError::Malformed("invalid type: a text, expected u8".to_owned()))
        );
    }
}
