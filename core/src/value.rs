//! Values: what a register, a set or `args` can hold, in one canonical form.
//!
//! JavaScript and Rust must agree on every value bit by bit, so whatever they would represent differently is a typed
//! error where it enters. One value has one encoding (docs/log-format.md, "Values"): integers within ±(2^53 − 1) in
//! their shortest msgpack form, other finite numbers as 64-bit floats, maps ordered by the UTF-8 bytes of their keys.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Largest integer that a JavaScript number represents exactly: 2^53 − 1.
pub const INT_MAX: i64 = (1 << 53) - 1;

/// A canonical value.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// `null`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer within ±[`INT_MAX`]. Build it with [`Value::int`].
    Int(i64),
    /// A finite number that is not an integer. Build it with [`Value::number`].
    Float(f64),
    /// Unicode text.
    Text(String),
    /// Raw bytes.
    Bytes(Vec<u8>),
    /// An ordered list.
    Array(Vec<Value>),
    /// A map, ordered by the UTF-8 bytes of its keys.
    Map(BTreeMap<String, Value>),
}

/// The value has no form that both languages share.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidValue {
    /// Store it as text or split it.
    #[error("the integer {0} is beyond 2^53 - 1; store it as text")]
    IntegerRange(f64),
    /// Use null or leave the value out.
    #[error("{0} is not a finite number")]
    NotFinite(f64),
    /// Use 0.
    #[error("negative zero has no canonical form; use 0")]
    NegativeZero,
    /// Remove one of the two.
    #[error("the key {0:?} stands twice")]
    DuplicateKey(String),
}

impl Value {
    /// An integer.
    ///
    /// # Errors
    /// [`InvalidValue::IntegerRange`] beyond ±(2^53 − 1).
    pub fn int(value: i64) -> Result<Self, InvalidValue> {
        if value.unsigned_abs() <= INT_MAX as u64 {
            Ok(Self::Int(value))
        } else {
            Err(InvalidValue::IntegerRange(value as f64))
        }
    }

    /// Any number; integral ones become [`Value::Int`].
    ///
    /// # Errors
    /// [`InvalidValue`] for −0, NaN, infinities and integers beyond ±(2^53 − 1).
    pub fn number(value: f64) -> Result<Self, InvalidValue> {
        if !value.is_finite() {
            return Err(InvalidValue::NotFinite(value));
        }
        if value == 0.0 && value.is_sign_negative() {
            return Err(InvalidValue::NegativeZero);
        }
        if value.fract() != 0.0 {
            return Ok(Self::Float(value));
        }
        if value.abs() > INT_MAX as f64 {
            return Err(InvalidValue::IntegerRange(value));
        }
        Ok(Self::Int(value as i64))
    }

    /// Text.
    pub fn text(value: impl Into<String>) -> Self {
        Self::Text(value.into())
    }

    /// Whether both are of one kind, so that greater and less mean something.
    pub fn is_comparable_to(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Int(_) | Self::Float(_) => 2,
            Self::Text(_) => 3,
            Self::Bytes(_) => 4,
            Self::Array(_) => 5,
            Self::Map(_) => 6,
        }
    }

    fn as_f64(&self) -> f64 {
        match self {
            Self::Int(value) => *value as f64,
            Self::Float(value) => *value,
            _ => 0.0,
        }
    }
}

/// Total order: null, booleans, numbers by size, text by code point, bytes, arrays, maps.
impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
            (Self::Array(a), Self::Array(b)) => a.cmp(b),
            (Self::Map(a), Self::Map(b)) => a.cmp(b),
            _ if self.rank() == 2 && other.rank() == 2 => self.as_f64().total_cmp(&other.as_f64()),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self::Int(value.into())
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::Bytes(value) => serializer.serialize_bytes(value),
            Self::Array(values) => {
                let mut seq = serializer.serialize_seq(Some(values.len()))?;
                values.iter().try_for_each(|value| seq.serialize_element(value))?;
                seq.end()
            }
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                entries.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a canonical value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Value::int(value).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        let value = i64::try_from(value).map_err(|_| E::custom(InvalidValue::IntegerRange(value as f64)))?;
        Value::int(value).map_err(E::custom)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Value::number(value).map_err(E::custom)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_bytes<E: de::Error>(self, value: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(value.to_vec()))
    }

    fn visit_byte_buf<E: de::Error>(self, value: Vec<u8>) -> Result<Value, E> {
        Ok(Value::Bytes(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            if entries.contains_key(&key) {
                return Err(de::Error::custom(InvalidValue::DuplicateKey(key)));
            }
            entries.insert(key, value);
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{from_canonical, to_bytes};

    fn check(value: Value, hex: &str) {
        let bytes = to_bytes(&value);
        let got: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(got, hex);
        assert_eq!(from_canonical::<Value>(&bytes).expect("round trip"), value);
    }

    #[test]
    fn one_value_has_one_encoding() {
        check(Value::Null, "c0");
        check(Value::from(true), "c3");
        check(Value::from(-1), "ff");
        check(Value::int(INT_MAX).expect("in range"), "cf001fffffffffffff");
        check(Value::number(1.0).expect("integral"), "01");
        check(Value::number(0.5).expect("finite"), "cb3fe0000000000000");
        check(Value::from("é"), "a2c3a9");
        check(Value::Bytes(vec![1, 2]), "c4020102");
        let map = [("b".to_owned(), Value::Null), ("a".to_owned(), Value::from(1))].into();
        check(Value::Array(vec![Value::Map(map)]), "9182a16101a162c0");
    }

    #[test]
    fn what_both_languages_do_not_share_is_an_error() {
        assert_eq!(Value::number(-0.0), Err(InvalidValue::NegativeZero));
        assert!(matches!(Value::number(f64::NAN), Err(InvalidValue::NotFinite(_))));
        assert!(matches!(Value::number(1e300), Err(InvalidValue::IntegerRange(_))));
        assert!(matches!(Value::int(INT_MAX + 1), Err(InvalidValue::IntegerRange(_))));
    }

    #[test]
    fn other_encodings_of_the_same_value_are_refused() {
        for hex in [
            &[0xcc, 0x01][..],                           // 1 in two bytes
            &[0xcb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0],       // 1.0
            &[0xca, 0x3f, 0, 0, 0],                      // 0.5 in 32 bits
            &[0x82, 0xa1, 0x62, 0xc0, 0xa1, 0x61, 0x01], // keys out of order
            &[0x82, 0xa1, 0x61, 0xc0, 0xa1, 0x61, 0x01], // a key twice
            &[0xcb, 0x80, 0, 0, 0, 0, 0, 0, 0],          // -0
            &[0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0],       // NaN
            &[0xcf, 0x00, 0x20, 0, 0, 0, 0, 0, 0],       // 2^53
            &[0xa3, 0xed, 0xa0, 0x80],                   // a lone surrogate
            &[0xc0, 0xc0],                               // trailing bytes
        ] {
            assert!(from_canonical::<Value>(hex).is_err(), "{hex:02x?}");
        }
    }
}
