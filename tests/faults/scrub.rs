//! `driftlog-server verify`: what it says, beside a running server and of a damaged directory.

use driftlog_tests::peer::Peer;
use driftlog_tests::process::{Process, binary, verify};
use tempfile::TempDir;

/// A server over a directory that holds three entries, still running.
async fn filled(directory: &TempDir) -> Process {
    let process = Process::spawn(directory.path()).await;
    let mut alice = Peer::new("alice");
    let (mut socket, _) = alice.open(&process.url).await;
    let entries = ["a", "b", "c"].map(|record| alice.act(Peer::insert(record)));
    socket.send(&alice.push(&entries)).await;
    socket.ack().await;
    process
}

async fn verified(directory: &TempDir, args: &[&str]) -> (Option<i32>, String) {
    let output = verify(&binary(), directory.path(), args).await.expect("runs");
    (output.status.code(), String::from_utf8(output.stdout).expect("text"))
}

#[tokio::test]
async fn a_sound_directory_is_sound_beside_a_running_server() {
    let directory = TempDir::new().expect("a directory");
    let process = filled(&directory).await;
    let (code, said) = verified(&directory, &[]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("read: logs 1, entries 3, actors 1"), "{said}");
    process.kill().await;
    let (code, said) = verified(&directory, &["--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&said).expect("json");
    assert_eq!((code, &report["sound"], &report["entries"]), (Some(0), &true.into(), &3.into()), "{said}");
}

#[tokio::test]
async fn damage_is_told_with_its_place() {
    let directory = TempDir::new().expect("a directory");
    filled(&directory).await.kill().await;
    let database = rusqlite::Connection::open(directory.path().join("driftlog.sqlite")).expect("opens");
    database.execute("UPDATE entries SET accepted = accepted + 1 WHERE offset = 1", []).expect("damages");
    drop(database);
    let (code, said) = verified(&directory, &[]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("board/1: entries: the checksum"), "{said}");
    let (_, said) = verified(&directory, &["--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&said).expect("json");
    assert_eq!(report["findings"][0]["log"], "board/1", "{said}");
}

#[tokio::test]
async fn a_directory_without_a_database_is_an_error_and_stays_empty() {
    let directory = TempDir::new().expect("a directory");
    assert_eq!(verified(&directory, &[]).await.0, Some(1));
    assert_eq!(std::fs::read_dir(directory.path()).expect("reads").count(), 0);
}
