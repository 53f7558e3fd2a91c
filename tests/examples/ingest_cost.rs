//! What the ingest of small entries costs the server alone: `cargo run --example ingest_cost -- BINARY
//! [WRITERS [PER_PUSH]]`, with a server built with `--release`.
//!
//! The pushes are made beforehand, each writer has a log of its own, which it follows as a client does. A line of JSON
//! for each round; the processor's time is that of the server, in microseconds an entry, so it says something on a busy
//! machine too.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use driftlog_core::id::LogName;
use driftlog_core::protocol::frame::{Credit, Frame};
use driftlog_tests::peer::{Peer, Socket};
use driftlog_tests::process::Process;

const ENTRIES: usize = 20_000;
const ROUNDS: usize = 5;

struct Writer {
    peer: Peer,
    socket: Socket,
    spent: u64,
    received: u64,
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let binary = PathBuf::from(args.next().expect("the server's binary"));
    let mut number = |otherwise| args.next().map_or(otherwise, |text| text.parse().expect("a number"));
    let (writers, per_push): (usize, usize) = (number(1), number(500));
    let directory = tempfile::TempDir::new().expect("a directory");
    let server = Process::start(&binary, directory.path(), &[]).await.expect("it starts");
    let mut all = Vec::new();
    for at in 0..writers {
        let mut peer = Peer::new(&format!("writer-{at}"));
        peer.set_log(LogName::new(&format!("board/{at}")).expect("a name"));
        let (socket, _) = peer.open(&server.url).await;
        all.push(Writer { peer, socket, spent: 0, received: 0 });
    }
    for _ in 0..ROUNDS {
        let pushes: Vec<_> = all.iter_mut().map(|writer| writer.pushes(ENTRIES / writers, per_push)).collect();
        let (before, start) = (server.processor_time().expect("told"), Instant::now());
        let work = all.iter_mut().zip(pushes).map(|(writer, pushes)| writer.send(pushes));
        futures_util::future::join_all(work).await;
        let (wall, used) = (start.elapsed(), server.processor_time().expect("told") - before);
        let each = |time: Duration| time.as_secs_f64() * 1e6 / ENTRIES as f64;
        let per_second = ENTRIES as f64 / wall.as_secs_f64();
        println!(
            r#"{{"writers":{writers},"per_push":{per_push},"per_second":{per_second:.0},"server_us_an_entry":{:.1}}}"#,
            each(used)
        );
    }
    server.kill().await;
}

impl Writer {
    fn pushes(&mut self, entries: usize, per_push: usize) -> Vec<Frame> {
        let peer = &mut self.peer;
        let mut push = |_| {
            let acts: Vec<_> = (0..per_push).map(|_| peer.act(Peer::insert(&format!("p{}", peer.seq.0)))).collect();
            peer.push(&acts)
        };
        (0..entries / per_push).map(&mut push).collect()
    }

    /// Sends within the credit, and takes what comes, until everything is decided.
    async fn send(&mut self, pushes: Vec<Frame>) {
        for push in pushes {
            while self.spent >= self.socket.credit {
                self.take().await;
            }
            self.spent += push.encode().len() as u64;
            self.socket.send(&push).await;
        }
        while self.take().await < self.peer.seq.0 {}
    }

    /// Takes a frame; through which seq it decides.
    async fn take(&mut self) -> u64 {
        match self.socket.next().await {
            Frame::Ack(ack) => ack.through.0,
            Frame::Entries(entries) => {
                self.received += Frame::Entries(entries).encode().len() as u64;
                let bytes = self.received + (1 << 20);
                self.socket.send(&Frame::Credit(Credit { bytes, of_log: Some((1, bytes)) })).await;
                0
            }
            _ => 0,
        }
    }
}
