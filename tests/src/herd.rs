//! Many clients that come to one server at once, on real sockets: each waits as long as it is told, comes again, reads
//! its log to the end, and stays.

use std::time::{Duration, Instant};

use driftlog_core::id::Offset;
use driftlog_core::protocol::Code;
use driftlog_core::protocol::frame::{Credit, Frame};
use driftlog_core::random::Random;
use tokio::sync::watch;

use crate::peer::{Peer, Socket};

/// How it went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Came {
    /// Clients that have read the log to its end.
    pub caught_up: usize,
    /// How often somebody was told to come again.
    pub turned_away: usize,
    /// How often somebody was told so when it came at the time that it had been told.
    pub told_again: usize,
    /// Until the first was caught up, and until the last was.
    pub first: Duration,
    /// See `first`.
    pub last: Duration,
}

pub(crate) struct One {
    turned_away: usize,
    after: Duration,
}

/// So many clients come at once to the server at `host:port` and read its log up to `end`.
///
/// # Panics
/// When something but a welcome or a time to come again is answered.
pub async fn herd(url: &str, clients: usize, end: u64) -> Came {
    let begun = Instant::now();
    let (done, stay) = watch::channel(false);
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (url, mut stay) = (url.to_owned(), stay.clone());
            let (tell, told) = tokio::sync::oneshot::channel();
            tokio::spawn(async move {
                let (socket, one) = come(&url, client, end, begun).await;
                let _ = tell.send(one);
                let _ = stay.wait_for(|done| *done).await;
                drop(socket);
            });
            told
        })
        .collect();
    let mut came = Came { first: Duration::MAX, ..Came::default() };
    for told in tasks {
        let One { turned_away, after } = told.await.expect("it comes to its end");
        came.caught_up += 1;
        came.turned_away += turned_away;
        came.told_again += turned_away.saturating_sub(1);
        (came.first, came.last) = (came.first.min(after), came.last.max(after));
    }
    let _ = done.send(true);
    came
}

/// A client by its number comes until it is let in, and reads the log up to `end`.
pub(crate) async fn come(url: &str, client: usize, end: u64, begun: Instant) -> (Socket, One) {
    let mut peer = Peer::new(&format!("c{client}"));
    let mut random =
        Random::new(peer.actor.0.iter().cycle().take(32).copied().collect::<Vec<_>>().try_into().expect("32"));
    let mut turned_away = 0;
    let mut socket = loop {
        let mut socket = Socket::connect(url).await;
        socket.send(&Frame::Hello(peer.hello())).await;
        match socket.next().await {
            Frame::Welcome(welcome) => {
                peer.nonces.insert(0, welcome.nonce);
                break socket;
            }
            Frame::GoAway(away) => {
                assert_eq!(away.code, Code::Overloaded);
                turned_away += 1;
                drop(socket);
                let spread = random.below(away.retry_ms_max - away.retry_ms_min + 1);
                tokio::time::sleep(Duration::from_millis(away.retry_ms_min + spread)).await;
            }
            other => panic!("a welcome or a time expected: {other:?}"),
        }
    };
    socket.send(&Frame::from(peer.subscription(1))).await;
    let mut at = Offset(0);
    while at < Offset(end) {
        match socket.next().await {
            Frame::Entries(entries) => at = entries.after.next,
            Frame::SnapshotPart(part) if part.at + part.bytes.len() as u64 == part.total => at = part.cursor.next,
            Frame::SnapshotPart(_) => {
                socket.send(&Frame::Credit(Credit { bytes: u64::MAX >> 1, of_log: Some((1, u64::MAX >> 1)) })).await
            }
            Frame::Opened(_) | Frame::Ack(_) | Frame::Credit(_) => {}
            Frame::Ping(ping) => socket.send(&Frame::Pong(ping)).await,
            other => panic!("entries expected: {other:?}"),
        }
    }
    (socket, One { turned_away, after: begun.elapsed() })
}
