//! Bytes ⇄ types: compact msgpack arrays, written by rmp-serde and read by `reader.rs`, with the checks that untrusted
//! bytes need.
//!
//! Decoding is bounded by the input's length and by [`limits::DEPTH_MAX`], never panics, and refuses trailing bytes.
//! Stored and hashed bytes go through [`from_canonical`]: whatever does not re-encode to itself is refused, so one
//! content has one digest.

mod opaque;
mod reader;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use opaque::Opaque;

use crate::limits;

/// The bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The sender wrote something else, or the bytes are damaged.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Bytes follow the end of the value.
    #[error("{0} bytes follow the end")]
    Trailing(usize),
    /// The content is right, but written in another way than the canonical one.
    #[error("not in canonical form")]
    NotCanonical,
    /// Cut in the middle.
    #[error("cut short: {need} bytes announced, {got} there")]
    CutShort {
        /// Bytes announced.
        need: usize,
        /// Bytes there.
        got: usize,
    },
    /// A bit is wrong.
    #[error("checksum {got:08x} does not match {expected:08x}")]
    Checksum {
        /// What the sender computed.
        expected: u32,
        /// What these bytes give.
        got: u32,
    },
    /// Larger than the format allows.
    #[error("{got} bytes; at most {max} are allowed")]
    TooLarge {
        /// Bytes found.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
}

impl serde::de::Error for DecodeError {
    fn custom<T: std::fmt::Display>(reason: T) -> Self {
        Self::Malformed(reason.to_string())
    }
}

/// Encodes as compact msgpack: structs as arrays, numbers in their shortest form.
pub fn to_bytes<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    // Writing into memory cannot fail, and none of our types refuses to be serialized.
    rmp_serde::to_vec(value).expect("writing msgpack into memory")
}

/// Decodes one value from the front; returns it with the number of bytes read.
///
/// # Errors
/// [`DecodeError::Malformed`].
pub fn decode_prefix<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), DecodeError> {
    let mut reader = reader::Reader::new(bytes, limits::DEPTH_MAX);
    let value = T::deserialize(&mut reader)?;
    Ok((value, bytes.len() - reader.rest.len()))
}

/// Decodes exactly one value.
///
/// # Errors
/// [`DecodeError::Malformed`] or [`DecodeError::Trailing`].
pub fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (value, read) = decode_prefix(bytes)?;
    if read == bytes.len() { Ok(value) } else { Err(DecodeError::Trailing(bytes.len() - read)) }
}

/// Decodes exactly one value and insists on its canonical bytes.
///
/// # Errors
/// Those of [`from_bytes`], and [`DecodeError::NotCanonical`].
pub fn from_canonical<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Result<T, DecodeError> {
    let value = from_bytes(bytes)?;
    if to_bytes(&value) == bytes { Ok(value) } else { Err(DecodeError::NotCanonical) }
}

/// Appends a record: payload length and CRC32C (both u32, little endian), then the payload.
pub fn seal(payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    out.extend_from_slice(payload);
}

/// Takes one record from the front of `bytes`, which moves behind it.
///
/// # Errors
/// [`DecodeError::CutShort`] or [`DecodeError::Checksum`]; `bytes` then stands where it stood.
pub fn unseal<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let (head, rest) = bytes.split_first_chunk::<8>().ok_or(DecodeError::CutShort { need: 8, got: bytes.len() })?;
    let [a, b, c, d, crc @ ..] = *head;
    let need = u32::from_le_bytes([a, b, c, d]) as usize;
    let expected = u32::from_le_bytes(crc);
    let payload = rest.get(..need).ok_or(DecodeError::CutShort { need, got: rest.len() })?;
    let got = crc32c::crc32c(payload);
    if got != expected {
        return Err(DecodeError::Checksum { expected, got });
    }
    *bytes = &rest[need..];
    Ok(payload)
}

/// An enum on the wire: `[tag, content]`. The tag numbers are part of the format and never reused. With `unknown`, a tag
/// of a newer version is kept together with its content.
macro_rules! tagged {
    ($name:ident $(<$generic:ident>)? { $($variant:ident($content:ty) = $tag:literal),+ $(,)? } $(unknown $unknown:ident)?) => {
        impl$(<$generic: serde::Serialize>)? serde::Serialize for $name$(<$generic>)? {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$variant(content) => ($tag as u8, content).serialize(serializer),)+
                    $(Self::$unknown(tag, content) => (*tag, content).serialize(serializer),)?
                }
            }
        }

        impl<'de $(, $generic: serde::Deserialize<'de>)?> serde::Deserialize<'de> for $name$(<$generic>)? {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct TaggedVisitor$(<$generic>(std::marker::PhantomData<$generic>))?;
                impl<'de $(, $generic: serde::Deserialize<'de>)?> serde::de::Visitor<'de> for TaggedVisitor$(<$generic>)? {
                    type Value = $name$(<$generic>)?;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("[tag, content] of ", stringify!($name)))
                    }
                    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                        use serde::de::Error as _;
                        let tag: u8 = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
                        let value = match tag {
                            $($tag => $name::$variant(
                                seq.next_element::<$content>()?.ok_or_else(|| A::Error::invalid_length(1, &self))?
                            ),)+
                            other => $crate::codec::tagged!(@unknown other, seq, A, $name $(, $unknown)?),
                        };
                        match seq.next_element::<serde::de::IgnoredAny>()? {
                            None => Ok(value),
                            Some(_) => Err(A::Error::custom("more than a tag and its content")),
                        }
                    }
                }
                deserializer.deserialize_tuple(2, TaggedVisitor$(::<$generic>(std::marker::PhantomData))?)
            }
        }
    };
    (@unknown $tag:ident, $seq:ident, $access:ident, $name:ident, $unknown:ident) => {{
        let content = $seq.next_element::<$crate::codec::Opaque>()?;
        $name::$unknown($tag, content.ok_or_else(|| $access::Error::custom("a tag without its content"))?)
    }};
    (@unknown $tag:ident, $seq:ident, $access:ident, $name:ident) => {
        return Err($access::Error::custom(format!("unknown tag {} of {}", $tag, stringify!($name))))
    };
}
pub(crate) use tagged;

/// The leading version of a format; any other number is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Format<const VERSION: u8>;

impl<const VERSION: u8> Serialize for Format<VERSION> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(VERSION)
    }
}

impl<'de, const VERSION: u8> serde::Deserialize<'de> for Format<VERSION> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let got = u8::deserialize(deserializer)?;
        if got == VERSION {
            Ok(Self)
        } else {
            Err(serde::de::Error::custom(format!("format version {got}; this build reads {VERSION}")))
        }
    }
}
