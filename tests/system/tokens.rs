//! Tokens: who comes in, and what is left out.

use driftlog_core::protocol::Code;
use driftlog_core::protocol::frame::{self, Frame};
use driftlog_server::{Claims, LogClaim, Right, token};

use driftlog_tests::peer::{Peer, Socket};
use driftlog_tests::process::binary;

use crate::running::{Server, secret};

const FAR: u64 = 4_000_000_000;

fn token_of(sub: &str, pattern: &str, rights: &[Right], exp: u64) -> Option<String> {
    let logs = vec![LogClaim { pattern: pattern.to_owned(), rights: rights.to_vec() }];
    Some(token(&secret(), &Claims { sub: sub.to_owned(), logs, exp }))
}

async fn refused(server: &Server, peer: &Peer) -> Code {
    let mut socket = Socket::connect(&server.url).await;
    socket.send(&Frame::Hello(peer.hello())).await;
    let error = socket.error().await;
    assert_eq!((socket.receive().await, error.log), (None, None));
    error.code
}

#[tokio::test]
async fn only_a_valid_token_comes_in() {
    let server = Server::start_with_tokens().await;
    let mut alice = Peer::new("alice");
    for (token, code) in [
        (None, Code::Unauthenticated),
        (Some("dev:alice".to_owned()), Code::Unauthenticated),
        (token_of("alice", "*", &[Right::Read], 1_000), Code::TokenExpired),
    ] {
        alice.token = token;
        assert_eq!(refused(&server, &alice).await, code);
    }
    alice.token = token_of("alice", "*", &[Right::Read, Right::Append], FAR);
    let (_, opened) = alice.open(&server.url).await;
    assert!(opened.append);
    let mut hello = alice.hello();
    hello.user = Some(driftlog_core::id::UserId::new("bob").expect("a user"));
    let mut socket = Socket::connect(&server.url).await;
    socket.send(&Frame::Hello(hello)).await;
    socket.ends_with(Code::UserChanged).await;
    server.stop().await;
}

#[tokio::test]
async fn rights_are_per_log_and_a_refused_log_leaves_the_session_standing() {
    let server = Server::start_with_tokens().await;
    let mut alice = Peer::new("alice");
    alice.token = token_of("alice", "chat/*", &[Right::Read, Right::Append], FAR);
    let mut socket = alice.connect(&server.url).await;
    socket.send(&Frame::from(alice.subscription(1))).await;
    let error = socket.error().await;
    assert_eq!((error.code, error.log), (Code::Forbidden, Some(1)));
    let wider = token_of("alice", "board/*", &[Right::Read], FAR).expect("a token");
    socket.send(&Frame::Token(frame::Token { token: wider })).await;
    socket.send(&Frame::from(alice.subscription(1))).await;
    let opened = socket.opened().await;
    assert!(!opened.append, "the new token reads only");
    let entry = alice.act(Peer::insert("a"));
    socket.send(&alice.push(&[entry])).await;
    assert_eq!(socket.error().await.code, Code::Forbidden);
    let bob = token_of("bob", "*", &[Right::Read], FAR).expect("a token");
    socket.send(&Frame::Token(frame::Token { token: bob })).await;
    socket.ends_with(Code::UserChanged).await;
    server.stop().await;
}

#[tokio::test]
async fn the_snapshot_over_http_wants_a_token_too() {
    let server = Server::start_with_tokens().await;
    let mut alice = Peer::new("alice");
    alice.token = token_of("alice", "*", &[Right::Read, Right::Append], FAR);
    let (mut socket, _) = alice.open(&server.url).await;
    let entry = alice.act(Peer::insert("milk"));
    socket.send(&alice.push(&[entry])).await;
    socket.ack().await;
    let path = "/logs/board%2F1/snapshot";
    assert_eq!(server.get(path, None).await.0, 401);
    let narrow = token_of("alice", "chat/*", &[Right::Read], FAR);
    assert_eq!(server.get(path, narrow.as_deref()).await.0, 403);
    let (status, body) = server.get(path, alice.token.as_deref()).await;
    assert_eq!(status, 200);
    assert!(body.contains(r#""collections":{"todos":{"milk":{"title":"milk"}}}"#), "{body}");
    assert_eq!(server.get("/logs/nobody/snapshot", alice.token.as_deref()).await.0, 404);
    server.stop().await;
}

#[test]
fn the_binary_makes_tokens_and_says_what_it_needs() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let secret_file = directory.path().join("secret");
    let run = |args: &[&str]| {
        let output = std::process::Command::new(binary()).args(args).output().expect("runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text").trim().to_owned();
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let path = secret_file.to_str().expect("text");
    let (made, text, _) =
        run(&["token", "--create", "--secret-file", path, "--sub", "alice", "--log", "board/*", "--read"]);
    assert!(made && text.split('.').count() == 3, "{text}");
    assert!(run(&["token", "--secret-file", path, "--sub", "alice", "--read", "**", "--append", "b/*"]).0);
    let data = directory.path().to_str().expect("text");
    let (started, _, reason) = run(&["serve", "--data", data, "--listen", "127.0.0.1:0"]);
    assert!(!started && reason.contains("--secret-file") && reason.contains("--dev"), "{reason}");
    let (started, _, reason) = run(&["serve", "--data", data, "--dev", "--listen", "0.0.0.0:0"]);
    assert!(!started && reason.contains("loopback"), "{reason}");
}

#[tokio::test]
async fn a_directory_has_one_server() {
    let server = Server::start().await;
    assert_eq!(server.get("/health", None).await.0, 200, "it is up");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let config = driftlog_server::Config::new(server.directory.path(), driftlog_server::Access::Development);
    let second = driftlog_server::serve(listener, config, std::future::pending()).await;
    assert!(matches!(second, Err(driftlog_server::ServeError::Store(driftlog_server::StoreError::InUse { .. }))));
    server.stop().await;
}
