//! Kills of the real server at random moments, under load from real sockets.
//!
//! Each cycle starts the server on the same directory, lets authors go on where they were, kills it with SIGKILL, and
//! the next one reads every log from its beginning and compares it with every verdict that an author was told. This
//! shows that nothing waits in the memory of the process; that nothing waits in that of the system is shown by the disk
//! that loses it.

use std::path::PathBuf;
use std::time::Duration;

use driftlog_core::chain::Cursor;
use driftlog_core::entry::Logged;
use driftlog_core::id::{LogName, Offset};
use driftlog_core::packed::Item;
use driftlog_core::protocol::frame::{Frame, SubscribeLog};
use driftlog_core::random::Random;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::author::{Author, Tally};
use crate::peer::{Peer, endless_credit};
use crate::process::Process;

/// Logs, and authors in each.
const LOGS: u64 = 3;
const AUTHORS: u64 = 3;
/// Pushes under way of each author.
const UNDER_WAY: u64 = 3;
/// The server lives so long under load.
const LIFE_MS: std::ops::Range<u64> = 10..500;
/// No answer of a living server takes longer.
const ANSWER: Duration = Duration::from_secs(60);

/// What to do.
pub struct Plan {
    /// Kills.
    pub cycles: u64,
    /// Draws the moments and the load.
    pub seed: u64,
    /// The server to kill.
    pub binary: PathBuf,
    /// Where its data stands.
    pub directory: PathBuf,
}

type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs a plan; `tell` hears the tally after each cycle.
///
/// # Errors
/// The server does not start, or does not answer.
pub async fn run(plan: &Plan, mut tell: impl FnMut(u64, &Tally)) -> Result<Tally, Failure> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&plan.seed.to_le_bytes());
    let mut random = Random::new(bytes);
    let logs: Vec<LogName> = (0..LOGS).map(|log| LogName::new(&format!("board/{log}"))).collect::<Result<_, _>>()?;
    let mut authors: Vec<Author> = (0..LOGS * AUTHORS)
        .map(|at| Author::new(&format!("{}author", (b'a' + at as u8) as char), &logs[(at % LOGS) as usize], at))
        .collect();
    for cycle in 1..=plan.cycles {
        let process = Process::start(&plan.binary, &plan.directory, &[]).await?;
        let tasks: Vec<_> = authors.drain(..).map(|author| tokio::spawn(load(process.url.clone(), author))).collect();
        // The moment is the point: it is drawn, and no test waits for anything by it.
        let life = LIFE_MS.start + random.below(LIFE_MS.end - LIFE_MS.start);
        tokio::time::sleep(Duration::from_millis(life)).await;
        process.kill().await;
        for task in tasks {
            authors.push(task.await?);
        }
        tell(cycle, &compare(plan, &logs, &authors).await?);
    }
    // At the end everything that was ever pushed gets its verdict, once.
    let process = Process::start(&plan.binary, &plan.directory, &[]).await?;
    for author in &mut authors {
        settle(&process.url, author).await?;
    }
    process.kill().await;
    compare(plan, &logs, &authors).await
}

/// Pushes until the server is gone.
async fn load(url: String, mut author: Author) -> Author {
    if let Ok(mut stream) = connect(&url).await {
        // However it ends, it ends with the server; what is wrong is in the author's tally.
        let _ = push(&mut stream, &mut author).await;
    }
    author
}

async fn push(stream: &mut Stream, author: &mut Author) -> Result<(), Failure> {
    send(stream, &author.hello()).await?;
    let mut under_way = 0;
    loop {
        let Some(frame) = receive(stream).await? else { return Ok(()) };
        let opened = matches!(frame, Frame::Opened(_));
        let acked = matches!(frame, Frame::Ack(_));
        if let Some(answer) = author.handle(frame) {
            send(stream, &answer).await?;
        }
        if opened || (acked && author.is_settled()) {
            under_way = 0;
        }
        while (opened || acked) && under_way < UNDER_WAY {
            under_way += 1;
            send(stream, &author.act()).await?;
        }
        if acked && author.is_settled() {
            send(stream, &author.settle()).await?;
        }
    }
}

/// Lets an author learn every verdict.
async fn settle(url: &str, author: &mut Author) -> Result<(), Failure> {
    let mut stream = connect(url).await?;
    send(&mut stream, &author.hello()).await?;
    let mut opened = false;
    while !opened || !author.is_settled() {
        let frame = tokio::time::timeout(ANSWER, receive(&mut stream)).await??.ok_or("the server hung up")?;
        if let Frame::Error(error) = &frame {
            return Err(error.reason.clone().into());
        }
        opened |= matches!(frame, Frame::Opened(_));
        if let Some(answer) = author.handle(frame) {
            send(&mut stream, &answer).await?;
        }
    }
    Ok(())
}

/// Compares every log with every promise.
async fn compare(plan: &Plan, logs: &[LogName], authors: &[Author]) -> Result<Tally, Failure> {
    let process = Process::start(&plan.binary, &plan.directory, &[]).await?;
    let mut tally = Tally::default();
    for log in logs {
        let entries = read(&process.url, log).await?;
        for (at, logged) in entries.iter().enumerate() {
            if logged.offset != Offset(at as u64) {
                return Err(format!("{log}: offset {} stands at {at}", logged.offset).into());
            }
        }
        for author in authors.iter().filter(|author| author.log() == log) {
            tally.add(author.check(&entries));
        }
    }
    process.kill().await;
    Ok(tally)
}

/// Reads a log from its beginning.
async fn read(url: &str, log: &LogName) -> Result<Vec<Logged>, Failure> {
    let mut reader = Peer::new("reader");
    reader.log = log.clone();
    // A reader without a past: each time another client.
    let mut id = [0; 16];
    getrandom::fill(&mut id)?;
    (reader.client.0, reader.actor.0) = (id, id);
    let mut stream = connect(url).await?;
    send(&mut stream, &Frame::Hello(reader.hello())).await?;
    let mut logged = Vec::new();
    let mut end = None;
    // Asked for as history: who begins without a position may be given a snapshot instead of the entries.
    while end.is_none_or(|end| logged.len() as u64 != end) {
        let frame = tokio::time::timeout(ANSWER, receive(&mut stream)).await??.ok_or("the server hung up")?;
        match frame {
            Frame::Welcome(_) => {
                let opening = SubscribeLog { read: false, ..reader.subscription(1) };
                send(&mut stream, &Frame::from(opening)).await?;
            }
            Frame::Opened(opened) if opened.log == 1 => {
                end = Some(opened.end.0);
                let cursor = Some(Cursor::start(opened.log_id));
                let all = SubscribeLog { log_id: Some(opened.log_id), cursor, ..reader.subscription(2) };
                send(&mut stream, &Frame::from(SubscribeLog { end: Some(opened.end), ..all })).await?;
                send(&mut stream, &endless_credit(2)).await?;
            }
            Frame::Opened(_) => {}
            Frame::Entries(frame) => {
                for item in frame.entries.unpack(frame.from)? {
                    let Item::Entry(entry) = item else { return Err("something else than an entry".into()) };
                    logged.push(entry);
                }
            }
            Frame::Error(error) => return Err(error.reason.into()),
            _ => {}
        }
    }
    Ok(logged)
}

async fn connect(url: &str) -> Result<Stream, Failure> {
    Ok(tokio_tungstenite::connect_async(format!("ws://{url}/sync")).await?.0)
}

async fn send(stream: &mut Stream, frame: &Frame) -> Result<(), Failure> {
    Ok(stream.send(Message::binary(frame.encode())).await?)
}

/// The next frame; none when the socket has ended.
async fn receive(stream: &mut Stream) -> Result<Option<Frame>, Failure> {
    loop {
        match stream.next().await {
            Some(Ok(Message::Binary(bytes))) => return Ok(Some(Frame::decode(&bytes)?)),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(None),
            Some(Ok(_)) => {}
        }
    }
}
