//! Values: every kind, every boundary of its encoding, and what looks like a value but is none.

use driftlog_core::codec::{from_canonical, to_bytes};
use driftlog_core::value::{INT_MAX, Value};

use crate::Vector;
use crate::described::json;

pub(crate) fn vectors() -> Vec<Vector> {
    let mut vectors: Vec<Vector> =
        canonical().into_iter().map(|(name, note, value)| vector(name, note, value)).collect();
    vectors.extend(refused());
    vectors
}

fn vector(name: String, note: &'static str, value: Value) -> Vector {
    let is = json(&value);
    Vector::decodes(name, note, to_bytes(&value), value, is, from_canonical::<Value>)
}

fn int(value: i64) -> Value {
    Value::int(value).unwrap()
}

fn map(members: &[(&str, Value)]) -> Value {
    Value::Map(members.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
}

/// Lists in lists.
pub(crate) fn nested(depth: usize) -> Value {
    (0..depth).fold(Value::Null, |inner, _| Value::Array(vec![inner]))
}

/// One value of every kind, in the order of values.
pub(crate) fn ascending() -> Vec<Value> {
    vec![
        Value::Null,
        Value::from(false),
        Value::from(true),
        int(-2),
        Value::number(-1.5).unwrap(),
        int(0),
        Value::number(0.5).unwrap(),
        int(1),
        Value::from(""),
        Value::from("Z"),
        Value::from("a"),
        Value::from("\u{ff5e}"),
        Value::from("😀"),
        Value::Bytes(vec![]),
        Value::Bytes(vec![0xff]),
        Value::Array(vec![]),
        Value::Array(vec![int(1)]),
        Value::Array(vec![int(1), Value::Null]),
        map(&[]),
        map(&[("a", int(2))]),
        map(&[("b", int(1))]),
    ]
}

fn canonical() -> Vec<(String, &'static str, Value)> {
    let mut all: Vec<(String, &'static str, Value)> = Vec::new();
    let mut add = |name: &str, note, value| all.push((name.to_owned(), note, value));
    add("null", "", Value::Null);
    add("false", "", Value::from(false));
    add("true", "", Value::from(true));
    for value in [0, 127, 128, 255, 256, 65_535, 65_536, (1 << 32) - 1, 1 << 32, INT_MAX] {
        add(&format!("integer {value}"), "integers take their shortest form, unsigned from 0 on", int(value));
    }
    for value in [-1, -32, -33, -128, -129, -32_768, -32_769, -(1 << 31), -(1 << 31) - 1, -INT_MAX] {
        add(&format!("integer {value}"), "negative integers take their shortest signed form", int(value));
    }
    for value in [0.5, -1.5, 0.1, 5e-324, 4_503_599_627_370_495.5] {
        add(&format!("number {value:e}"), "numbers that are no integers take 64 bits", Value::number(value).unwrap());
    }
    add("text, empty", "", Value::from(""));
    add("text", "UTF-8, as it was given: nothing is normalized", Value::from("e\u{301}é 😀 \u{0}"));
    for (length, note) in [(31, "fixstr"), (32, "str 8"), (255, "str 8"), (256, "str 16")] {
        add(&format!("text of {length} bytes"), note, Value::text("x".repeat(length)));
    }
    add("bytes, empty", "", Value::Bytes(vec![]));
    add("bytes", "", Value::Bytes(vec![0, 1, 0x7f, 0x80, 0xff]));
    add("256 bytes", "bin 16", Value::Bytes((0..=255).collect()));
    add("list, empty", "", Value::Array(vec![]));
    add("list of 15", "fixarray", Value::Array((0..15).map(int).collect()));
    add("list of 16", "array 16", Value::Array((0..16).map(int).collect()));
    add("map, empty", "", map(&[]));
    add("map", "keys by their UTF-8 bytes", map(&[("b", int(2)), ("a", int(1)), ("", Value::Null), ("aa", int(3))]));
    let astral = map(&[("😀", int(2)), ("\u{ff5e}", int(1))]);
    add("map with an astral key", "UTF-16 would order these two keys the other way round", astral);
    let letters: Vec<String> = ('a'..='p').map(String::from).collect();
    let letters: Vec<(&str, Value)> = letters.iter().map(|key| (&**key, Value::Null)).collect();
    add("map of 16", "map 16", map(&letters));
    add("todo", "", map(&[("id", Value::from("t1")), ("title", Value::from("Milk")), ("done", Value::from(false))]));
    add("nested 32 deep", "as deep as the typed API allows", nested(32));
    add("every kind", "a list in the order of values, as the elements of a set stand", Value::Array(ascending()));
    all
}

fn refused() -> Vec<Vector> {
    let refused: &[(&str, &'static str, &[u8])] = &[
        ("1 in two bytes", "an integer in more bytes than it needs", &[0xcc, 0x01]),
        ("-1 in two bytes", "an integer in more bytes than it needs", &[0xd0, 0xff]),
        ("1 as a signed 8-bit integer", "integers from 0 on are unsigned", &[0xd0, 0x01]),
        ("1.0", "integers are encoded as integers", &[0xcb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0]),
        ("0.5 in 32 bits", "numbers take 64 bits", &[0xca, 0x3f, 0, 0, 0]),
        ("negative zero", "JavaScript tells it from 0, equality does not", &[0xcb, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("not a number", "", &[0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0]),
        ("infinity", "", &[0xcb, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0]),
        ("2^53", "JavaScript does not tell it from 2^53 + 1", &[0xcf, 0, 0x20, 0, 0, 0, 0, 0, 0]),
        ("-2^53", "", &[0xd3, 0xff, 0xe0, 0, 0, 0, 0, 0, 0]),
        ("2^63", "", &[0xcf, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("a lone surrogate", "UTF-8 has none", &[0xa3, 0xed, 0xa0, 0x80]),
        ("text with a length of its own", "text in more bytes than it needs", &[0xd9, 0x01, 0x61]),
        ("bytes with a long length", "bytes in more bytes than they need", &[0xc5, 0, 1, 0x61]),
        ("a list with a long length", "", &[0xdc, 0, 1, 0xc0]),
        ("a map with a long length", "", &[0xde, 0, 1, 0xa1, 0x61, 0xc0]),
        ("keys out of order", "", &[0x82, 0xa1, 0x62, 0xc0, 0xa1, 0x61, 0x01]),
        ("a key twice", "", &[0x82, 0xa1, 0x61, 0xc0, 0xa1, 0x61, 0x01]),
        ("a key that is no text", "", &[0x81, 0x01, 0xc0]),
        ("an extension", "msgpack's extension types are no values", &[0xd4, 0x01, 0x00]),
        ("the unused byte", "", &[0xc1]),
        ("two values", "bytes behind the end", &[0xc0, 0xc0]),
        ("nothing", "", &[]),
        ("a cut text", "", &[0xa3, 0x61, 0x62]),
        ("a cut list", "", &[0x92, 0xc0]),
        (
            "a list that announces 2^32 - 1 elements",
            "nothing is allocated for it",
            &[0xdd, 0xff, 0xff, 0xff, 0xff, 0xc0],
        ),
    ];
    let refuse = |(name, note, bytes): &(&str, &'static str, &[u8])| {
        Vector::refused(name, note, bytes.to_vec(), from_canonical::<Value>)
    };
    refused.iter().map(refuse).collect()
}

#[test]
fn the_order_of_values_is_total() {
    let values = ascending();
    for (at, a) in values.iter().enumerate() {
        for (other, b) in values.iter().enumerate() {
            assert_eq!(a.cmp(b), at.cmp(&other), "{a:?} and {b:?}");
        }
    }
}
