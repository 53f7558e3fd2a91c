//! Connections outlive their sockets: they are registered, fall behind, become inactive and come back.

use std::time::Duration;

use driftlog_core::connection::{ConnectionState, Downgrade};
use driftlog_core::protocol::Code;
use driftlog_core::protocol::frame::{Frame, GoAway};
use driftlog_server::{Access, Claims, Config, ConnectionBounds, LogClaim, Right, connections, token};
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::running::{Server, secret};
use driftlog_tests::herd::herd;
use driftlog_tests::peer::{Peer, Socket};
use driftlog_tests::process::binary;

/// A server that looks at its connections all the time.
async fn watchful(bounds: ConnectionBounds) -> Server {
    over(TempDir::new().expect("a directory"), bounds).await
}

async fn over(directory: TempDir, bounds: ConnectionBounds) -> Server {
    let sweep = Duration::from_millis(1);
    Server::start_with(directory, |config: &mut Config| config.connections = ConnectionBounds { sweep, ..bounds }).await
}

async fn list(server: &Server) -> Vec<Json> {
    let (status, body) = server.get("/connections?logs=true", None).await;
    assert_eq!(status, 200, "{body}");
    let json: Json = serde_json::from_str(&body).expect("json");
    json["connections"].as_array().expect("a list").clone()
}

/// Asks for the connections until one of this user is as wanted.
async fn until(server: &Server, user: &str, wanted: impl Fn(&Json) -> bool) -> Json {
    loop {
        let found = list(server).await.into_iter().find(|one| one["user"] == user && wanted(one));
        match found {
            Some(found) => return found,
            None => tokio::task::yield_now().await,
        }
    }
}

/// What a socket hears when its connection is downgraded, whatever comes before.
async fn downgraded(socket: &mut Socket) -> (Downgrade, GoAway) {
    let reason = loop {
        if let Frame::Connection(frame) = socket.next().await {
            match frame.state() {
                ConnectionState::Inactive { reason, .. } => break reason,
                other => panic!("it stays: {other:?}"),
            }
        }
    };
    let away = loop {
        if let Frame::GoAway(away) = socket.next().await {
            break away;
        }
    };
    assert_eq!(away.code, Code::Downgraded);
    assert_eq!(socket.receive().await, None, "the socket closes");
    (reason, away)
}

/// The frame behind a welcome that says that the connection was not active until now.
async fn returned(socket: &mut Socket) -> Downgrade {
    match socket.next().await {
        Frame::Connection(frame) => match frame.state() {
            ConnectionState::Active { was: Some((reason, _)) } => reason,
            other => panic!("it was away: {other:?}"),
        },
        other => panic!("it was away: {other:?}"),
    }
}

async fn append(peer: &mut Peer, socket: &mut Socket, text: &str) {
    let entry = peer.act(Peer::insert(text));
    socket.send(&peer.push(&[entry])).await;
    socket.ack().await;
}

#[tokio::test]
async fn a_connection_is_registered_with_where_it_stands_and_outlives_socket_and_server() {
    let server = watchful(ConnectionBounds::default()).await;
    let (mut alice, mut bob) = (Peer::new("alice"), Peer::new("bob"));
    let (mut a, _) = alice.open_to_push(&server.url).await;
    let (mut b, _) = bob.open(&server.url).await;
    append(&mut alice, &mut a, "milk").await;
    b.items_until(1).await;
    let found = until(&server, "bob", |one| one["cursors"][0]["next"] == 1).await;
    assert_eq!((&found["state"], &found["live"], &found["device"]), (&"active".into(), &true.into(), &"test".into()));
    assert_eq!((&found["lag_entries"], &found["oldest_unsent_ms"]), (&0.into(), &Json::Null));
    assert_eq!(found["client"], bob.client.to_string());
    drop(b);
    until(&server, "bob", |one| one["live"] == false).await;
    append(&mut alice, &mut a, "eggs").await;
    let behind = until(&server, "bob", |one| one["lag_entries"] == 1 && one["lag_bytes"].as_u64() > Some(0)).await;
    assert!(behind["oldest_unsent_ms"].as_u64() > Some(0), "{behind}");
    assert_eq!(until(&server, "alice", |_| true).await["logs"], 0, "who reads nothing is behind in nothing");
    drop(a);
    let server = over(server.stop().await, ConnectionBounds::default()).await;
    let found = until(&server, "bob", |_| true).await;
    assert_eq!((&found["cursors"][0]["next"], &found["live"]), (&1.into(), &false.into()));
    assert_eq!(found["first_ms"], behind["first_ms"]);
    let mut rows = connections(server.directory.path(), 0).expect("reads");
    assert_eq!(rows["connections"].as_array_mut().map(|rows| rows.len()), Some(2));
    server.stop().await;
}

#[tokio::test]
async fn who_is_away_for_too_long_costs_a_row_and_is_active_again_by_coming_back() {
    let server = watchful(ConnectionBounds { idle: Duration::ZERO, ..ConnectionBounds::default() }).await;
    let mut alice = Peer::new("alice");
    let (mut a, _) = alice.open(&server.url).await;
    // The entry may come before its ack.
    let entry = alice.act(Peer::insert("milk"));
    a.send(&alice.push(&[entry])).await;
    let (_, cursor) = a.items_until(1).await;
    assert_eq!(until(&server, "alice", |one| one["cursors"][0]["next"] == 1).await["state"], "active");
    drop(a);
    let found = until(&server, "alice", |one| one["state"] == "inactive").await;
    assert_eq!((&found["reason"], &found["cursors"]), (&"idle".into(), &Json::Array(vec![])), "nothing is kept for it");
    let mut a = alice.connect(&server.url).await;
    assert_eq!(returned(&mut a).await, Downgrade::Idle);
    let mut subscription = alice.subscription(1);
    subscription.cursor = Some(cursor);
    let opened = alice.subscribe(&mut a, subscription).await;
    assert_eq!((opened.seq, opened.chain), (alice.seq, alice.chain), "its work is known as ever");
    until(&server, "alice", |one| one["state"] == "active").await;
    drop(a);
    until(&server, "alice", |one| one["state"] == "inactive").await;
    server.stop().await;
}

#[tokio::test]
async fn who_stops_reading_is_downgraded_for_its_lag_and_nobody_else_is() {
    let bounds = ConnectionBounds { lag_entries_max: 3, stuck: Duration::ZERO, ..ConnectionBounds::default() };
    let server = watchful(bounds).await;
    let (mut alice, mut bob) = (Peer::new("alice"), Peer::new("bob"));
    let (mut a, _) = alice.open_to_push(&server.url).await;
    let (mut b, _) = bob.open(&server.url).await;
    // It gives no more credit than everybody begins with, and so is sent no more than that.
    for _ in 0..16 {
        let entry = alice.act(Peer::set("milk", &"x".repeat(120_000)));
        a.send(&alice.push(&[entry])).await;
        a.ack().await;
    }
    let (reason, away) = downgraded(&mut b).await;
    assert_eq!(reason, Downgrade::Lag);
    assert!(0 < away.retry_ms_min && away.retry_ms_min < away.retry_ms_max, "they are spread");
    append(&mut alice, &mut a, "and on").await;
    let mut b = bob.connect(&server.url).await;
    assert_eq!(returned(&mut b).await, Downgrade::Lag);
    server.stop().await;
}

#[tokio::test]
async fn where_all_places_are_taken_the_one_that_does_nothing_makes_room() {
    let bounds = ConnectionBounds { live_max: 1, quiet: Duration::ZERO, ..ConnectionBounds::default() };
    let server = watchful(bounds).await;
    let (mut alice, mut bob) = (Peer::new("alice"), Peer::new("bob"));
    let mut a = alice.connect(&server.url).await;
    let b = bob.connect(&server.url).await;
    assert_eq!(downgraded(&mut a).await.0, Downgrade::Pressure);
    let found = until(&server, "alice", |one| one["state"] == "inactive").await;
    assert_eq!(found["reason"], "pressure");
    let (_, body) = server.get("/health", None).await;
    let health: Json = serde_json::from_str(&body).expect("json");
    assert_eq!(health["connections_downgraded"]["pressure"], 1);
    assert_eq!((&health["connections_active"], &health["connections_live"]), (&1.into(), &1.into()));
    drop(b);
    server.stop().await;
}

#[tokio::test]
async fn where_everybody_works_the_newcomer_is_told_when_to_come_again() {
    let server = watchful(ConnectionBounds { live_max: 1, ..ConnectionBounds::default() }).await;
    let (mut alice, bob) = (Peer::new("alice"), Peer::new("bob"));
    let mut a = alice.connect(&server.url).await;
    let mut b = Socket::connect(&server.url).await;
    b.send(&Frame::Hello(bob.hello())).await;
    match b.next().await {
        Frame::GoAway(away) => {
            assert_eq!(away.code, Code::Overloaded);
            assert!(0 < away.retry_ms_min && away.retry_ms_min < away.retry_ms_max);
        }
        other => panic!("go-away expected: {other:?}"),
    }
    assert_eq!(b.receive().await, None);
    // Its own place is its own: a newer socket of the same client takes over.
    let again = alice.connect(&server.url).await;
    assert!(matches!(a.next().await, Frame::GoAway(away) if away.code == Code::Superseded));
    assert_eq!(list(&server).await.len(), 1, "who was turned away is not registered");
    drop(again);
    server.stop().await;
}

#[tokio::test]
async fn a_herd_is_spread_and_everybody_is_caught_up() {
    let bounds = ConnectionBounds { welcomes_per_second: 200, welcomes_burst: 10, ..ConnectionBounds::default() };
    let server = watchful(bounds).await;
    let mut alice = Peer::new("alice");
    let (mut a, _) = alice.open_to_push(&server.url).await;
    append(&mut alice, &mut a, "milk").await;
    let came = herd(&server.url, 100, 1).await;
    assert_eq!(came.caught_up, 100);
    assert!(came.turned_away >= 50, "{came:?}: no more than a burst and a few come in at once");
    server.stop().await;
}

#[tokio::test]
async fn whoever_opens_sockets_and_says_nothing_is_bounded_too() {
    let bounds = ConnectionBounds { live_max: 2, welcomes_burst: 1, ..ConnectionBounds::default() };
    let server = watchful(bounds).await;
    let mut silent = Vec::new();
    let refused = loop {
        match tokio_tungstenite::connect_async(format!("ws://{}/sync", server.url)).await {
            Ok((socket, _)) => silent.push(socket),
            Err(error) => break error.to_string(),
        }
    };
    assert!(silent.len() >= 2 && refused.contains("503"), "{refused}");
    drop(silent);
    server.stop().await;
}

#[tokio::test]
async fn of_one_user_no_more_are_active_than_one_may_have() {
    let bounds = ConnectionBounds { active_of_user_max: 2, ..ConnectionBounds::default() };
    let server = watchful(bounds).await;
    for device in 0..4u8 {
        let mut peer = Peer::new(&format!("device{device}"));
        peer.token = Some("dev:alice".to_owned());
        drop(peer.connect(&server.url).await);
        let client = peer.client.to_string();
        until(&server, "alice", |one| one["client"] == client && one["live"] == false).await;
    }
    let mut other = Peer::new("bob");
    let b = other.connect(&server.url).await;
    let states: Vec<_> = list(&server).await.iter().map(|one| one["state"].clone()).collect();
    assert_eq!(states, ["inactive", "inactive", "active", "active", "active"]);
    drop(b);
    server.stop().await;
}

#[tokio::test]
async fn an_operator_can_downgrade_one_and_only_an_operator_sees_them() {
    let tokens = |config: &mut Config| config.access = Access::Tokens(secret());
    let server = Server::start_with(TempDir::new().expect("a directory"), tokens).await;
    let of = |sub: &str, rights: Vec<Right>| {
        let logs = vec![LogClaim { pattern: "*".to_owned(), rights }];
        token(&secret(), &Claims { sub: sub.to_owned(), logs, exp: u64::MAX / 1_000 })
    };
    let (user, admin) = (of("alice", vec![Right::Read, Right::Append]), of("root", vec![Right::Admin]));
    let mut alice = Peer::new("alice");
    alice.token = Some(user.clone());
    let mut a = alice.connect(&server.url).await;
    assert_eq!(server.get("/connections", None).await.0, 401);
    assert_eq!(server.get("/connections", Some(&user)).await.0, 403);
    let ask = |path: &'static str, token: String| {
        let server = &server;
        async move { server.ask("POST", path, &format!("Authorization: Bearer {token}\r\nContent-Length: 0\r\n")).await.0 }
    };
    assert_eq!(ask("/connections/1/downgrade", user).await, 403);
    assert_eq!(ask("/connections/7/downgrade", admin.clone()).await, 404);
    assert_eq!(ask("/connections/1/downgrade?away_ms=5", admin.clone()).await, 204);
    let (reason, away) = downgraded(&mut a).await;
    assert_eq!((reason, away.retry_ms_min, away.retry_ms_max), (Downgrade::Asked, 5, 5));
    assert_eq!(ask("/connections/1/downgrade", admin.clone()).await, 409, "it is inactive already");

    let file = server.directory.path().join("admin.token");
    std::fs::write(&file, admin).expect("writes");
    let url = format!("http://{}", server.url);
    let command = move |arguments: &[&str]| {
        let output = std::process::Command::new(binary()).arg("connections").args(arguments).output().expect("runs");
        (output.status.success(), String::from_utf8(output.stdout).expect("text"))
    };
    let directory = server.directory.path().to_owned();
    let listed = tokio::task::spawn_blocking(move || {
        let token = file.to_str().expect("a path");
        let remote = command(&["list", "--url", &url, "--token-file", token]);
        let local = command(&["list", "--data", directory.to_str().expect("a path"), "--json"]);
        (remote, local)
    });
    let ((ok, table), (also, json)) = listed.await.expect("no panic");
    assert!(ok && also, "{table}{json}");
    assert!(table.contains("inactive: asked") && table.contains("alice"), "{table}");
    let json: Json = serde_json::from_str(&json).expect("json");
    assert_eq!((&json["connections"][0]["reason"], &json["connections"][0]["live"]), (&"asked".into(), &Json::Null));
    server.stop().await;
}
