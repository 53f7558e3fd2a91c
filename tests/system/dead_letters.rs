//! Dead letters at the server: kept, listed, redriven once, discarded, bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use driftlog_core::entry::{Entry, Replaced};
use driftlog_core::id::{ActorId, EntryId, Seq};
use driftlog_core::op::Op;
use driftlog_core::packed::Item;
use driftlog_core::protocol::Code;
use driftlog_core::protocol::frame::{Frame, Settled};
use driftlog_core::sequencer::{Case, Policy, Ruling};
use driftlog_server::{Access, Claims, Config, LogClaim, Right, token};
use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::process::Command;

use driftlog_tests::process::binary;

use crate::running::{Server, secret};
use driftlog_tests::peer::{LOG, Peer, Socket, accepted, marks};

/// Nobody adds anything while the door is closed.
fn door() -> (Arc<AtomicBool>, Arc<dyn Policy>) {
    let open = Arc::new(AtomicBool::new(false));
    let door = Arc::clone(&open);
    let policy = move |case: &Case<'_>| {
        let adds = case.ops().iter().any(|op| matches!(op, Op::Insert(_)));
        match adds && !door.load(Ordering::Relaxed) {
            true => Ruling::Refuse { code: Code::from_number(1_042), reason: "the door is closed".to_owned() },
            false => Ruling::Allow,
        }
    };
    (open, Arc::new(policy))
}

async fn start(configure: impl FnOnce(&mut Config)) -> (Server, Arc<AtomicBool>) {
    let (open, policy) = door();
    let directory = TempDir::new().expect("a directory");
    let server = Server::start_with(directory, |config| {
        config.policy = policy;
        configure(config);
    });
    (server.await, open)
}

async fn json(server: &Server, method: &str, path: &str) -> (u16, Json) {
    let (status, _, body) = server.ask(method, path, "").await;
    (status, serde_json::from_str(&body).unwrap_or(Json::Null))
}

async fn letters(server: &Server) -> Vec<Json> {
    let (status, listed) = json(server, "GET", "/dead-letters").await;
    assert_eq!(status, 200);
    listed["letters"].as_array().expect("a list").clone()
}

async fn push(alice: &mut Peer, socket: &mut Socket, records: &[&str]) -> Vec<Entry> {
    let entries: Vec<_> = records.iter().map(|record| alice.act(Peer::insert(record))).collect();
    socket.send(&alice.push(&entries)).await;
    socket.ack().await;
    entries
}

fn replacing(alice: &Peer, original: &Entry) -> Option<Replaced> {
    let id = EntryId { actor: alice.actor, seq: original.header.seq };
    Some(Replaced { id, digest: original.digest() })
}

#[tokio::test]
async fn a_refused_entry_is_redriven_once_whoever_does_it() {
    let (server, open) = start(|_| {}).await;
    let mut alice = Peer::new("alice");
    let (mut socket, _) = alice.open(&server.url).await;
    let entries = push(&mut alice, &mut socket, &["a", "b"]).await;
    socket.send(&Frame::Settled(Settled { log: 1, through: Seq(2) })).await;
    let listed = letters(&server).await;
    assert_eq!(listed.len(), 2, "settled, and kept all the same");
    let of = |key: &str| listed[0][key].clone();
    assert_eq!((of("code"), of("number"), of("reason")), ("refused".into(), 1_042.into(), "the door is closed".into()));
    assert_eq!(
        (of("log"), of("user"), of("action"), of("source")),
        (LOG.into(), "alice".into(), "act".into(), "push".into())
    );
    assert_eq!(of("entry_id"), format!("{}-1", alice.actor));

    let (status, refused) = json(&server, "POST", "/dead-letters/1/redrive").await;
    assert_eq!((status, refused["number"].clone()), (409, 1_042.into()), "the rules are asked again");
    let (_, shown) = json(&server, "GET", "/dead-letters/1").await;
    assert_eq!((shown["attempts"].clone(), shown["ops"][0]["record"].clone()), (2.into(), "a".into()));
    open.store(true, Ordering::Relaxed);
    let redriven = json(&server, "POST", "/dead-letters/1/redrive").await;
    assert_eq!(redriven, (200, serde_json::json!({ "letter": 1, "offset": 0, "before": false })));
    let again = json(&server, "POST", "/dead-letters/1/redrive").await;
    assert_eq!(again, (200, serde_json::json!({ "letter": 1, "offset": 0, "before": true })));

    let (items, _) = socket.items_until(1).await;
    let Item::Entry(logged) = &items[0] else { panic!("an entry") };
    assert_eq!((logged.actor, logged.user.as_str()), (ActorId::LOG, "$log"));
    assert_eq!(logged.entry.header.replaces, replacing(&alice, &entries[0]), "whose it was");
    let target = replacing(&alice, &entries[0]);
    let by_alice = alice.act_with(Peer::insert("a"), |header| header.replaces = target);
    socket.send(&alice.push(&[by_alice])).await;
    assert_eq!(marks(&socket.ack().await), [(3, Some(Code::AlreadyReplaced))]);

    let target = replacing(&alice, &entries[1]);
    let by_alice = alice.act_with(Peer::insert("b"), |header| header.replaces = target);
    socket.send(&alice.push(&[by_alice])).await;
    assert_eq!(accepted(&socket.ack().await), [(4, 1)]);
    let redriven = json(&server, "POST", "/dead-letters/2/redrive").await;
    assert_eq!(redriven, (200, serde_json::json!({ "letter": 2, "offset": 1, "before": true })), "from the other side");
    let (_, snapshot) = json(&server, "GET", "/logs/board%2F1/snapshot").await;
    assert_eq!(
        (snapshot["end"].clone(), snapshot["collections"]["todos"].as_object().map(|todos| todos.len())),
        (2.into(), Some(2))
    );
    let waiting: Vec<_> = letters(&server).await.iter().map(|letter| letter["letter"].clone()).collect();
    assert_eq!(waiting, Vec::<Json>::new(), "the refused replacement is dealt with too: its line is in the log");
    let (_, health) = json(&server, "GET", "/health").await;
    let told = (health["dead_letters"].clone(), health["dead_letters_oldest_s"].clone());
    assert_eq!(told, (0.into(), Json::Null), "and counted as that");
    let doubled = json(&server, "POST", "/dead-letters/3/redrive").await;
    assert_eq!(doubled, (200, serde_json::json!({ "letter": 3, "offset": 0, "before": true })));
    let directory = server.stop().await;
    let server = Server::start_with(directory, |_| {}).await;
    let again = json(&server, "POST", "/dead-letters/1/redrive").await;
    assert_eq!(again.1["before"], true, "after a restart too");
    server.stop().await;
}

#[tokio::test]
async fn what_builds_on_a_refused_entry_is_redriven_after_it() {
    let (server, open) = start(|_| {}).await;
    let mut alice = Peer::new("alice");
    let (mut socket, _) = alice.open(&server.url).await;
    let entries =
        [alice.act(Peer::insert("a")), alice.act_with(Peer::set("a", "x"), |header| header.needs = vec![Seq(1)])];
    socket.send(&alice.push(&entries)).await;
    socket.ack().await;
    open.store(true, Ordering::Relaxed);
    let (status, refused) = json(&server, "POST", "/dead-letters/2/redrive").await;
    assert_eq!((status, refused["code"].clone()), (409, "depends-on".into()));
    for letter in [1, 2] {
        let (status, _) = json(&server, "POST", &format!("/dead-letters/{letter}/redrive")).await;
        assert_eq!(status, 200);
    }
    let (_, snapshot) = json(&server, "GET", "/logs/board%2F1/snapshot").await;
    assert_eq!(snapshot["collections"]["todos"]["a"]["title"], "x");
    server.stop().await;
}

#[tokio::test]
async fn beyond_the_bound_the_oldest_go_first_those_their_author_keeps_too() {
    let (server, _) = start(|config| config.dead_letters.count_max = 4).await;
    let (mut alice, mut bob) = (Peer::new("alice"), Peer::new("bob"));
    let (mut of_alice, _) = alice.open(&server.url).await;
    let (mut of_bob, _) = bob.open(&server.url).await;
    push(&mut alice, &mut of_alice, &["a", "b"]).await;
    push(&mut bob, &mut of_bob, &["c"]).await;
    of_bob.send(&Frame::Settled(Settled { log: 1, through: Seq(1) })).await;
    push(&mut bob, &mut of_bob, &["d", "e"]).await;
    let left = |letters: Vec<Json>| letters.iter().map(|letter| letter["letter"].as_u64().expect("a number")).collect();
    let kept: Vec<u64> = left(letters(&server).await);
    assert_eq!(kept, [1, 2, 4, 5], "Bob has recorded the verdict of his first");
    push(&mut bob, &mut of_bob, &["f"]).await;
    let kept: Vec<u64> = left(letters(&server).await);
    assert_eq!(kept, [2, 4, 5, 6], "nobody has recorded any of these: the oldest");
    let (_, health) = json(&server, "GET", "/health").await;
    assert_eq!(health["dead_letters_dropped"], 2, "and it is told");
    server.stop().await;
}

#[tokio::test]
async fn health_is_degraded_by_many_and_by_old_ones() {
    let (server, _) = start(|config| config.dead_letters.degraded_count = 1).await;
    let mut alice = Peer::new("alice");
    let (mut socket, _) = alice.open(&server.url).await;
    push(&mut alice, &mut socket, &["a"]).await;
    let (_, health) = json(&server, "GET", "/health").await;
    assert_eq!((health["status"].clone(), health["dead_letters"].clone()), ("ok".into(), 1.into()));
    assert!(health["dead_letters_oldest_s"].is_u64());
    push(&mut alice, &mut socket, &["b"]).await;
    assert_eq!(json(&server, "GET", "/health").await.1["status"], "degraded");
    let (status, _) = json(&server, "DELETE", "/dead-letters/1").await;
    assert_eq!(status, 204);
    assert_eq!(json(&server, "GET", "/health").await.1["status"], "ok");
    assert_eq!(json(&server, "DELETE", "/dead-letters/1").await.0, 404);
    let directory = server.stop().await;
    let old = |config: &mut Config| config.dead_letters.degraded_age = Duration::ZERO;
    let server = Server::start_with(directory, old).await;
    assert_eq!(json(&server, "GET", "/health").await.1["status"], "degraded");
    server.stop().await;
}

#[tokio::test]
async fn only_an_administrator_sees_them() {
    let far = 4_000_000_000;
    let claims = |right, pattern: &str| {
        let logs = vec![LogClaim { pattern: pattern.to_owned(), rights: vec![right] }];
        token(&secret(), &Claims { sub: "root".to_owned(), logs, exp: far })
    };
    let (server, _) = start(|config| config.access = Access::Tokens(secret())).await;
    assert_eq!(server.get("/dead-letters", None).await.0, 401);
    for (right, pattern, expected) in
        [(Right::Read, "*", 403), (Right::Admin, "board/*", 403), (Right::Admin, "*", 200)]
    {
        assert_eq!(server.get("/dead-letters", Some(&claims(right, pattern))).await.0, expected, "{right:?} {pattern}");
    }
    server.stop().await;
    let (server, _) = start(|_| {}).await;
    let (status, ..) = server.ask("DELETE", "/dead-letters/1", "Origin: https://evil.example\r\n").await;
    assert_eq!(status, 403, "a page of another origin");
    server.stop().await;
}

async fn run(args: &[&str]) -> (bool, String) {
    let output = Command::new(binary()).arg("dead-letters").args(args).output().await.expect("it runs");
    let text = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8(text).expect("text"))
}

#[tokio::test]
async fn the_command_line_reads_a_directory_and_changes_it_when_no_server_does() {
    let (server, _) = start(|_| {}).await;
    let mut alice = Peer::new("alice");
    let (mut socket, _) = alice.open(&server.url).await;
    push(&mut alice, &mut socket, &["a", "b", "c"]).await;
    let path = server.directory.path().to_str().expect("a path").to_owned();
    let url = format!("http://{}", server.url);
    let (_, listed) = run(&["list", "--data", &path]).await;
    let lines: Vec<_> = listed.lines().collect();
    assert!(lines.len() == 4 && lines[0].starts_with("letter  log"), "{listed}");
    assert!(lines[1].starts_with("1       board/1  act     alice  refused  "), "{listed}");
    assert!(lines[1].ends_with("1      the door is closed"), "{listed}");
    assert_eq!(run(&["list", "--url", &url, "--log", LOG]).await.1.lines().count(), 4);
    assert_eq!(run(&["list", "--url", &url, "--log", "board/2"]).await.1.trim(), "no dead letters");
    let (done, why) = run(&["redrive", "1", "--data", &path]).await;
    assert!(!done && why.contains("stop it, or ask it with --url"), "{why}");
    let (done, why) = run(&["redrive", "1", "--url", &url]).await;
    assert!(!done && why.contains("the door is closed (409 refused)"), "{why}");
    assert!(run(&["discard", "3", "--url", &url]).await.0);
    drop(socket);

    let directory = server.stop().await;
    let (done, said) = run(&["redrive", "1", "--data", &path]).await;
    assert!(done && said.contains("in its log now, at offset 0"), "{said}");
    let (_, again) = run(&["redrive", "1", "--data", &path, "--json"]).await;
    assert_eq!(serde_json::from_str::<Json>(&again).expect("JSON")["before"], true);
    let (_, exported) = run(&["export", "--data", &path, "--all"]).await;
    let exported: Vec<Json> = exported.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(exported.len(), 2);
    assert_eq!((exported[0]["replaced_at"].clone(), exported[1]["ops"][0]["record"].clone()), (0.into(), "b".into()));
    assert!(run(&["show", "2", "--data", &path]).await.1.contains("the door is closed"));
    assert!(run(&["discard", "2", "--data", &path]).await.0);
    let (_, left) = run(&["list", "--data", &path, "--all", "--json"]).await;
    let left: Json = serde_json::from_str(&left).expect("JSON");
    assert_eq!(left["letters"].as_array().expect("a list").len(), 1);

    let server = Server::start_with(directory, |_| {}).await;
    let (_, snapshot) = json(&server, "GET", "/logs/board%2F1/snapshot").await;
    assert_eq!(snapshot["collections"]["todos"]["a"]["title"], "a");
    let directory = server.stop().await;
    let report = driftlog_server::verify(directory.path(), None, |_, _| {}).expect("it reads");
    assert!(report.is_sound(), "{report:?}");
}
