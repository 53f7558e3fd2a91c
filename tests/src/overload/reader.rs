//! A reader of one log under load: everything arrives, once, each author's entries in their order.

use std::collections::BTreeMap;

use driftlog_core::id::{ActorId, LogName, Offset, Seq};
use driftlog_core::limits;
use driftlog_core::packed::Item;
use driftlog_core::protocol::frame::{Credit, Frame};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Failure;
use crate::peer::Peer;

/// Readers at work: what arrived at each, and how it hears how much there is.
pub(super) type Readers = Vec<(watch::Sender<Option<u64>>, JoinHandle<Result<u64, Failure>>)>;

/// Starts a reader of each log.
pub(super) fn follow_all(url: &str, logs: &[LogName]) -> Readers {
    let start = |(at, log): (usize, &LogName)| {
        let (all, told) = watch::channel(None);
        (all, tokio::spawn(follow(url.to_owned(), format!("{at}-reader"), log.clone(), told)))
    };
    logs.iter().enumerate().map(start).collect()
}

/// Waits until each has what there is in its log; gives what arrived at all of them.
pub(super) async fn arrived(readers: Readers, by_log: &[u64]) -> Result<u64, Failure> {
    let mut arrived = 0;
    for ((all, reader), entries) in readers.into_iter().zip(by_log) {
        all.send(Some(*entries))?;
        arrived += reader.await??;
    }
    Ok(arrived)
}

async fn follow(
    url: String,
    name: String,
    log: LogName,
    mut all: watch::Receiver<Option<u64>>,
) -> Result<u64, Failure> {
    let mut peer = Peer::new(&name);
    peer.set_log(log.clone());
    let mut socket = peer.connect(&url).await;
    socket.send(&Frame::from(peer.subscription(1))).await;
    let (mut next, mut seqs) = (Offset(0), BTreeMap::<ActorId, Seq>::new());
    let (mut taken, mut granted) = (0, limits::CREDIT_BYTES_OF_LOG);
    loop {
        let known = *all.borrow_and_update();
        match known {
            Some(entries) if next.0 == entries => return Ok(next.0),
            Some(entries) if next.0 > entries => return Err(format!("{log} has {next} entries, not {entries}").into()),
            _ => {}
        }
        let frame = tokio::select! {
            frame = socket.receive() => frame.ok_or("the server hung up")?,
            changed = all.changed(), if known.is_none() => {
                changed?;
                continue;
            }
        };
        match frame {
            Frame::Entries(frame) => {
                if frame.from != next {
                    return Err(format!("{log}: {} after {next}", frame.from).into());
                }
                next = frame.after.next;
                taken += Frame::Entries(frame.clone()).encode().len() as u64;
                for item in frame.entries.unpack(frame.from)? {
                    let Item::Entry(logged) = item else { return Err("something else than an entry".into()) };
                    let last = seqs.insert(logged.actor, logged.entry.header.seq).unwrap_or_default();
                    if logged.entry.header.seq != last.next() {
                        let seq = logged.entry.header.seq;
                        return Err(format!("{log}: seq {seq} of {} after {last}", logged.actor).into());
                    }
                }
                if granted - taken < limits::CREDIT_BYTES_OF_LOG / 2 {
                    granted = taken + limits::CREDIT_BYTES_OF_LOG;
                    let bytes = taken + limits::CREDIT_BYTES;
                    socket.send(&Frame::Credit(Credit { bytes, of_log: Some((1, granted)) })).await;
                }
            }
            Frame::Ping(ping) => socket.send(&Frame::Pong(ping)).await,
            Frame::Opened(_) | Frame::Credit(_) => {}
            other => return Err(format!("not expected by a reader: {other:?}").into()),
        }
    }
}
