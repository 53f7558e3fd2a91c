//! JSON web tokens with HS256 (RFC 7515, RFC 2104), and nothing else of that family.
//!
//! **Invariant:** the algorithm is never chosen by the token: whatever its header says but HS256 is refused.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

const BLOCK_BYTES: usize = 64;

/// Why a token does not verify.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TokenError {
    /// Not three parts of base64url with JSON in them.
    #[error("it is not a token")]
    Malformed,
    /// Only HS256 is taken.
    #[error("its algorithm is {0:?}; only HS256 is taken")]
    Algorithm(String),
    /// Made with another secret, or changed.
    #[error("its signature is wrong")]
    Signature,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
}

pub(super) fn sign<T: Serialize>(secret: &[u8], claims: &T) -> String {
    // Claims are our own structs with text keys: they always serialize.
    let json = serde_json::to_vec(claims).expect("claims serialize");
    let signed =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#), URL_SAFE_NO_PAD.encode(json));
    let signature = hmac_sha256(secret, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

pub(super) fn verify<T: DeserializeOwned>(secret: &[u8], token: &str) -> Result<T, TokenError> {
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
    let header: Header = decoded(header)?;
    if header.alg != "HS256" {
        return Err(TokenError::Algorithm(header.alg));
    }
    let got = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed)?;
    let expected = hmac_sha256(secret, signed.as_bytes());
    // Compared in constant time: every byte is looked at.
    let differing = got.iter().zip(expected).fold(0, |differing, (a, b)| differing | (a ^ b));
    if got.len() != expected.len() || differing != 0 {
        return Err(TokenError::Signature);
    }
    decoded(claims)
}

fn decoded<T: DeserializeOwned>(part: &str) -> Result<T, TokenError> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| TokenError::Malformed)
}

fn hmac_sha256(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut block = [0; BLOCK_BYTES];
    if key.len() > BLOCK_BYTES {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn hmac_gives_the_values_of_rfc_4231() {
        assert_eq!(
            hex(&hmac_sha256(&[0x0b; 20], b"Hi There")),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        assert_eq!(
            hex(&hmac_sha256(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn other_algorithms_are_refused() {
        let claims = URL_SAFE_NO_PAD.encode(b"{}");
        for (header, error) in [
            (&br#"{"alg":"none"}"#[..], TokenError::Algorithm("none".into())),
            (br#"{"alg":"HS256"}"#, TokenError::Signature),
            (b"[]", TokenError::Malformed),
        ] {
            let token = format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(header));
            assert_eq!(verify::<serde_json::Value>(b"secret", &token), Err(error));
        }
        assert_eq!(verify::<serde_json::Value>(b"secret", "…"), Err(TokenError::Malformed));
    }
}
