//! Erasing on a real server: the raw files of the data directory hold nothing of it, nor after a restart.

use std::path::Path;
use std::time::Duration;

use driftlog_core::protocol::frame::Frame;
use driftlog_server::{Access, Claims, Config, LogClaim, Right, token, verify};
use driftlog_tests::peer::{Peer, Socket};
use driftlog_tests::process::binary;
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::running::{Server, secret};

async fn quick(directory: TempDir) -> Server {
    Server::start_with(directory, |config: &mut Config| config.purge = Duration::from_millis(1)).await
}

async fn append(peer: &mut Peer, socket: &mut Socket, ops: Vec<driftlog_core::op::Op>) {
    let entry = peer.act(ops);
    socket.send(&peer.push(&[entry])).await;
    socket.ack().await;
}

/// The files of the data directory that hold these bytes.
fn files_with(directory: &Path, text: &str) -> Vec<String> {
    let files = std::fs::read_dir(directory).expect("a directory").map(|file| file.expect("a file").path());
    let holding = files.filter(|path| {
        let bytes = std::fs::read(path).expect("reads");
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    });
    holding.map(|path| path.file_name().expect("a name").to_string_lossy().into_owned()).collect()
}

async fn erase(server: &Server, query: &str) -> (u16, Json) {
    let (status, _, body) = server.ask("POST", &format!("/erasures?{query}"), "Content-Length: 0\r\n").await;
    (status, serde_json::from_str(&body).unwrap_or_default())
}

/// Waits until everything that was ordered is carried out, and nothing of the text is in a file.
async fn gone(server: &Server, text: &str) {
    loop {
        let (_, body) = server.get("/erasures", None).await;
        let json: Json = serde_json::from_str(&body).expect("json");
        let done = json["erasures"].as_array().expect("a list").iter().all(|one| !one["done_ms"].is_null());
        if done && files_with(server.directory.path(), text).is_empty() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_raw_files_hold_nothing_of_an_erased_record_and_the_next_start_neither() {
    let server = quick(TempDir::new().expect("a directory")).await;
    let (mut alice, mut bob) = (Peer::new("alice"), Peer::new("bob"));
    let (mut a, _) = alice.open_to_push(&server.url).await;
    append(&mut alice, &mut a, Peer::insert("x")).await;
    append(&mut alice, &mut a, Peer::set("x", "a secret of alice")).await;
    append(&mut alice, &mut a, Peer::insert("y")).await;
    append(&mut alice, &mut a, Peer::set("y", "no secret")).await;
    let unknown = alice.act([Peer::set("x", "a secret that was refused"), Peer::unknown()].concat());
    a.send(&alice.push(&[unknown])).await;
    a.ack().await;
    assert!(!files_with(server.directory.path(), "a secret").is_empty());
    let log = alice.log.as_str().replace('/', "%2F");
    assert_eq!(erase(&server, "log=nowhere").await.0, 404);
    assert_eq!(erase(&server, &format!("log={log}&collection=todos")).await.0, 400);
    let (status, json) = erase(&server, &format!("log={log}&collection=todos&record=x")).await;
    assert_eq!((status, &json["logs"]), (200, &1.into()), "{json}");
    gone(&server, "a secret").await;
    assert!(!files_with(server.directory.path(), "no secret").is_empty());
    // Who comes new gets a snapshot: nobody folds across what is gone.
    let (mut b, _) = bob.open(&server.url).await;
    assert!(matches!(b.next().await, Frame::SnapshotPart(_)));
    drop((a, b));
    let server = quick(server.stop().await).await;
    assert_eq!(files_with(server.directory.path(), "a secret"), Vec::<String>::new());
    let (_, body) = server.get("/erasures", None).await;
    assert_eq!(
        serde_json::from_str::<Json>(&body).expect("json")["erasures"].as_array().map(Vec::len),
        Some(1),
        "{body}"
    );
    let directory = server.stop().await;
    let report = verify(directory.path(), None, |_, _| {}).expect("reads");
    assert!(report.is_sound(), "{report:?}");
}

#[tokio::test]
async fn a_backup_that_is_put_back_is_erased_at_the_start() {
    let server = quick(TempDir::new().expect("a directory")).await;
    let mut alice = Peer::new("alice");
    let (mut a, _) = alice.open_to_push(&server.url).await;
    append(&mut alice, &mut a, Peer::insert("x")).await;
    append(&mut alice, &mut a, Peer::set("x", "a secret of alice")).await;
    drop(a);
    let directory = server.stop().await;
    let file = directory.path().join("driftlog.sqlite");
    let backup = std::fs::read(&file).expect("reads");
    let server = quick(directory).await;
    let log = alice.log.as_str().replace('/', "%2F");
    assert_eq!(erase(&server, &format!("log={log}")).await.0, 200);
    gone(&server, "a secret").await;
    let directory = server.stop().await;
    std::fs::write(&file, backup).expect("writes");
    assert!(!files_with(directory.path(), "a secret").is_empty());
    let server = quick(directory).await;
    gone(&server, "a secret").await;
    server.stop().await;
}

#[tokio::test]
async fn an_operator_erases_on_the_command_line_and_sees_who_has_not_come_since() {
    let tokens = |config: &mut Config| {
        config.access = Access::Tokens(secret());
        config.purge = Duration::from_millis(1);
    };
    let server = Server::start_with(TempDir::new().expect("a directory"), tokens).await;
    let of = |sub: &str, rights: Vec<Right>| {
        let logs = vec![LogClaim { pattern: "*".to_owned(), rights }];
        token(&secret(), &Claims { sub: sub.to_owned(), logs, exp: u64::MAX / 1_000 })
    };
    let mut alice = Peer::new("alice");
    alice.token = Some(of("alice", vec![Right::Read, Right::Append]));
    let (mut a, _) = alice.open_to_push(&server.url).await;
    append(&mut alice, &mut a, Peer::insert("x")).await;
    append(&mut alice, &mut a, Peer::set("x", "a secret of alice")).await;
    drop(a);
    let user = alice.token.clone().expect("a token");
    let line = format!("Authorization: Bearer {user}\r\nContent-Length: 0\r\n");
    assert_eq!(server.ask("POST", "/erasures?author=alice", &line).await.0, 403);
    let file = server.directory.path().join("admin.token");
    std::fs::write(&file, of("root", vec![Right::Admin])).expect("writes");
    let url = format!("http://{}", server.url);
    let command = async |arguments: &'static [&str]| {
        let mut command = std::process::Command::new(binary());
        command.args(["erase", "--url", &url, "--token-file"]).arg(&file).args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().expect("runs")).await.expect("no panic");
        (output.status.success(), String::from_utf8(output.stdout).expect("text"))
    };
    loop {
        // Until the server knows that alice's socket is closed.
        let (ok, _) = command(&["--list"]).await;
        assert!(ok);
        let (_, body) = server.get("/connections", Some(&of("root", vec![Right::Admin]))).await;
        if body.contains("\"live\":false") {
            break;
        }
    }
    assert!(!command(&["--log", "nowhere"]).await.0);
    let (ok, said) = command(&["--author", "alice"]).await;
    assert!(ok && said.contains("erased in 1 logs"), "{said}");
    while !files_with(server.directory.path(), "a secret").is_empty() {
        tokio::task::yield_now().await;
    }
    let (ok, listed) = command(&["--list"]).await;
    assert!(ok && listed.contains("1 authors"), "{listed}");
    let (ok, pending) = command(&["--pending"]).await;
    assert!(ok && pending.contains("every client was seen since"), "an erased author is on no list: {pending}");
    server.stop().await;
}
