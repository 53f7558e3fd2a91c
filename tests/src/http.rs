//! HTTP to a server under test, as little of it as is needed.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The body of `GET path` from `host:port`.
///
/// # Errors
/// The system's, or an answer that is not 200.
pub async fn get(url: &str, path: &str) -> io::Result<String> {
    let mut socket = TcpStream::connect(url).await?;
    socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: {url}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(io::Error::other(answer)),
    }
}
