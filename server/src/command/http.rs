//! The little HTTP that the command line speaks with a server on this machine or behind a tunnel: one request, one
//! JSON answer, without TLS.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value as Json;

use super::table::cell;

/// How long a server may need for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server.
pub(super) struct Remote {
    authority: String,
    token: Option<String>,
}

impl Remote {
    /// A server by its `http://host:port`.
    pub(super) fn new(url: &str, token: Option<String>) -> Result<Self, String> {
        let rest =
            url.strip_prefix("http://").ok_or("the URL must begin with http:// (TLS ends in front of the server)")?;
        let authority = rest.split('/').next().unwrap_or_default();
        if authority.is_empty() {
            return Err(format!("{url:?} names no server"));
        }
        let authority = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
        if token.as_ref().is_some_and(|token| token.chars().any(char::is_control)) {
            return Err("the token holds a control character".to_owned());
        }
        Ok(Self { authority, token })
    }

    /// Sends a request; gives status and body.
    pub(super) fn request(&self, method: &str, path: &str) -> Result<(u16, Json), Box<dyn std::error::Error>> {
        let mut socket = TcpStream::connect(&self.authority)
            .map_err(|error| format!("no connection to {}: {error}", self.authority))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let bearer = self.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        // HTTP 1.0: the answer comes in one piece and ends with the socket.
        let head = format!("{method} {path} HTTP/1.0\r\nHost: {}\r\n{bearer}Content-Length: 0\r\n\r\n", self.authority);
        socket.write_all(head.as_bytes())?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer)?;
        let text = String::from_utf8(answer)?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or("the server's answer is no HTTP")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("the answer has no status")?;
        let json = if body.trim().is_empty() { Json::Null } else { serde_json::from_str(body)? };
        Ok((status, json))
    }
}

/// A text as a part of a query.
pub(super) fn percent(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let encoded = text.bytes().map(|byte| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    encoded.collect()
}

/// The answer of a server, if it is one.
pub(super) fn answered((status, json): (u16, Json)) -> Result<Json, Box<dyn std::error::Error>> {
    match status {
        200..300 => Ok(json),
        _ => Err(format!("{} ({status} {})", cell(&json["reason"]), cell(&json["code"])).into()),
    }
}
