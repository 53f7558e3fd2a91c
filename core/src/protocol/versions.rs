//! Which protocol versions the two ends have in common, and what to do if there is none.
//!
//! **Invariant:** a frame is `[type, [fields…]]` in every version, a hello has type 0, and its first two fields are the
//! oldest and the newest version that its client speaks. So whoever cannot read the rest can still say why.

use crate::codec;
use crate::protocol::{VERSION, VERSION_FLOOR};

/// Whether this build answers a client of these versions, which it then does in [`VERSION`].
///
/// # Errors
/// What to do about it, for people.
pub fn agree(min: u32, max: u32) -> Result<(), String> {
    let update = match (min > VERSION, max < VERSION_FLOOR) {
        (true, _) => "update the server",
        (_, true) => "update the app",
        _ => return Ok(()),
    };
    Err(format!("this server speaks protocol {VERSION_FLOOR} to {VERSION}, the client {min} to {max}: {update}"))
}

/// Whether this build understands a server that answers in this version.
///
/// # Errors
/// What to do about it, for people.
pub fn follow(version: u32) -> Result<(), String> {
    if (VERSION_FLOOR..=VERSION).contains(&version) {
        return Ok(());
    }
    Err(format!(
        "the server answers in protocol {version}, this app speaks {VERSION_FLOOR} to {VERSION}: update the app"
    ))
}

/// The versions that a hello names, in whatever version the rest of it is written; none if it is no hello.
pub fn of_hello(frame: &[u8]) -> Option<(u32, u32)> {
    let (head, body) = frame.split_first_chunk::<4>()?;
    let fields = match body {
        // An array of two, type 0, and an array of up to 15 fields, or of more.
        [0x92, 0, 0x90..=0x9f, fields @ ..] | [0x92, 0, 0xdc, _, _, fields @ ..] => fields,
        _ => return None,
    };
    let (min, read) = codec::decode_prefix(fields).ok()?;
    let (max, _) = codec::decode_prefix(&fields[read..]).ok()?;
    (u32::from_le_bytes(*head) == crc32c::crc32c(body)).then_some((min, max))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hello as a later version may write it: the versions, and whatever.
    fn hello(versions: &[u8], fields: u8, rest: &[u8]) -> Vec<u8> {
        let body = [&[0x92, 0, 0x90 + fields], versions, rest].concat();
        [&crc32c::crc32c(&body).to_le_bytes()[..], &body].concat()
    }

    #[test]
    fn versions_of_a_hello_are_read_whatever_follows_and_of_nothing_else() {
        assert_eq!(of_hello(&hello(&[7, 9], 3, &[0xc0])), Some((7, 9)));
        assert_eq!(of_hello(&hello(&[7, 9], 15, &[0xc1; 300])), Some((7, 9)));
        let mut damaged = hello(&[7, 9], 3, &[0xc0]);
        damaged[8] ^= 1;
        for bytes in [vec![], vec![0; 9], hello(&[7], 1, &[]), hello(&[0xc0, 9], 2, &[]), damaged] {
            assert_eq!(of_hello(&bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn who_is_behind_is_told_to_update() {
        assert_eq!((agree(1, 1), agree(1, 9), follow(1)), (Ok(()), Ok(()), Ok(())));
        assert!(agree(2, 3).expect_err("newer").ends_with("the client 2 to 3: update the server"));
        assert!(agree(0, 0).expect_err("older").ends_with("update the app"));
        assert!(follow(2).expect_err("newer").ends_with("update the app"));
    }
}
