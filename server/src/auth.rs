//! Who comes in: tokens, and the rights they give.
//!
//! A token is a JWT signed with HS256. Its claims are `sub` (the user), `logs` (patterns with rights) and `exp`
//! (seconds since 1970). In development mode there is no secret and the user is whoever the peer says.

mod jwt;

use std::path::Path;

use driftlog_core::id::UserId;
use driftlog_core::protocol::Code;
use driftlog_core::session::server::{Grant, Grants, Refusal};
use driftlog_core::time::WallMs;
use serde::{Deserialize, Serialize};

use crate::config::Access;

/// Random bytes of a secret that this program makes.
const SECRET_BYTES: usize = 32;
/// A secret must be at least as long as what HS256 makes of it.
const SECRET_BYTES_MIN: usize = 32;

/// The key that tokens are signed with.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The secret cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// Name another file, or make one with `driftlog-server token --create`.
    #[error("the secret file {path}: {error}")]
    File {
        /// Which file.
        path: std::path::PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// Use a longer one.
    #[error("the secret has {got} bytes; it must have at least {min}")]
    TooShort {
        /// Bytes found.
        got: usize,
        /// Bytes needed.
        min: usize,
    },
}

impl Secret {
    /// A secret of these bytes.
    ///
    /// # Errors
    /// [`SecretError::TooShort`].
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, SecretError> {
        let bytes = bytes.into();
        let (got, min) = (bytes.len(), SECRET_BYTES_MIN);
        if got < min { Err(SecretError::TooShort { got, min }) } else { Ok(Self(bytes)) }
    }

    /// Reads a secret; white space around it does not count.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let bytes = std::fs::read(path).map_err(|error| SecretError::File { path: path.to_owned(), error })?;
        Self::new(bytes.trim_ascii())
    }

    /// Writes a fresh random secret to a file that does not exist yet, readable for its owner only.
    ///
    /// # Errors
    /// [`SecretError::File`].
    pub fn create(path: &Path) -> Result<Self, SecretError> {
        let bytes: [u8; SECRET_BYTES] = crate::environment::entropy(&crate::environment::System::new());
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options.open(path).and_then(|mut file| {
            std::io::Write::write_all(&mut file, text.as_bytes())?;
            file.sync_all()
        });
        written.map_err(|error| SecretError::File { path: path.to_owned(), error })?;
        Self::new(text)
    }
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    /// The user.
    pub sub: String,
    /// Rights by pattern.
    pub logs: Vec<LogClaim>,
    /// When it ends, in seconds since 1970.
    pub exp: u64,
}

/// Rights to the logs that a pattern matches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogClaim {
    /// The pattern; `*` stands for any characters.
    pub pattern: String,
    /// What may be done there.
    pub rights: Vec<Right>,
}

/// One right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// Read entries and snapshots.
    Read,
    /// Append entries.
    Append,
    /// Administer the server; counts for the pattern `*` alone.
    Admin,
}

/// Makes a token.
pub fn token(secret: &Secret, claims: &Claims) -> String {
    jwt::sign(&secret.0, claims)
}

/// Somebody who may come in.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) user: UserId,
    pub(crate) grants: Grants,
    pub(crate) admin: bool,
    pub(crate) expires: Option<WallMs>,
}

impl Access {
    /// Who the peer is.
    pub(crate) fn identify(&self, token: Option<&str>, now: WallMs) -> Result<Identity, Refusal> {
        match self {
            Self::Development => {
                let name = match token {
                    None => "dev",
                    Some(token) => token.strip_prefix("dev:").ok_or_else(|| {
                        refusal(Code::Unauthenticated, "in development mode the token is `dev:NAME`, or there is none")
                    })?,
                };
                Ok(Identity { user: user(name)?, grants: Grants::everything(), admin: true, expires: None })
            }
            Self::Tokens(secret) => {
                let token = token.ok_or_else(|| refusal(Code::Unauthenticated, "this server wants a token"))?;
                let claims: Claims = jwt::verify(&secret.0, token)
                    .map_err(|error| refusal(Code::Unauthenticated, &format!("the token does not verify: {error}")))?;
                let expires = claims.exp.saturating_mul(1_000);
                if expires <= now {
                    return Err(refusal(Code::TokenExpired, "the token's time is over"));
                }
                let admin =
                    claims.logs.iter().any(|claim| claim.pattern == "*" && claim.rights.contains(&Right::Admin));
                let grants = claims.logs.into_iter().map(|claim| Grant {
                    read: claim.rights.contains(&Right::Read),
                    append: claim.rights.contains(&Right::Append),
                    pattern: claim.pattern,
                });
                let (user, grants) = (user(&claims.sub)?, Grants(grants.collect()));
                Ok(Identity { user, grants, admin, expires: Some(expires) })
            }
        }
    }
}

fn user(name: &str) -> Result<UserId, Refusal> {
    let user = UserId::new(name).map_err(|error| refusal(Code::Unauthenticated, &format!("the user: {error}")))?;
    match user.is_reserved() {
        true => Err(refusal(Code::Unauthenticated, "users that begin with $ are the server's own")),
        false => Ok(user),
    }
}

fn refusal(code: Code, reason: &str) -> Refusal {
    Refusal { code, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::new([7; 32]).expect("long enough")
    }

    fn claims() -> Claims {
        let logs = vec![LogClaim { pattern: "board/*".into(), rights: vec![Right::Read] }];
        Claims { sub: "alice".into(), logs, exp: 2_000 }
    }

    #[test]
    fn a_token_names_its_user_and_rights_until_it_ends() {
        let access = Access::Tokens(secret());
        let token = token(&secret(), &claims());
        let identity = access.identify(Some(&token), 1_999_999).expect("valid");
        assert_eq!(identity.user.as_str(), "alice");
        assert_eq!(identity.grants.rights(&driftlog_core::id::LogName::new("board/1").expect("name")), (true, false));
        assert_eq!(access.identify(Some(&token), 2_000_000).map_err(|r| r.code).err(), Some(Code::TokenExpired));
        assert_eq!(access.identify(None, 0).map_err(|r| r.code).err(), Some(Code::Unauthenticated));
    }

    #[test]
    fn another_secret_or_a_changed_claim_does_not_verify() {
        let access = Access::Tokens(Secret::new([8; 32]).expect("long enough"));
        let token = token(&secret(), &claims());
        assert_eq!(access.identify(Some(&token), 0).map_err(|r| r.code).err(), Some(Code::Unauthenticated));
        assert!(Secret::new([1; 8]).is_err());
    }

    #[test]
    fn development_needs_no_token_and_takes_a_name() {
        let user = |token| Access::Development.identify(token, 0).map(|identity| identity.user.as_str().to_owned());
        assert_eq!(user(None).ok().as_deref(), Some("dev"));
        assert_eq!(user(Some("dev:alice")).ok().as_deref(), Some("alice"));
        assert!(user(Some("eyJ")).is_err());
        assert!(user(Some("dev:$log")).is_err(), "the log's own");
    }
}
