//! `overload [--seconds N]`: offers ten times the load that the server can take, from real sockets, and checks what
//! becomes of it.
//!
//! The server is the binary beside this one: `cargo build --release -p driftlog-server` first. The last line is
//! `seconds=… offered=… accepted=… delivered=… rss_start=… rss_max=… rss_end=… recovered_ms=…`, memory in bytes. It ends
//! with 0 only if everything accepted was delivered, once and in order, memory stayed within a bound that the room alone
//! sets, however long it lasts, and who comes within a minute after it is served as usual.

use std::process::ExitCode;
use std::time::Duration;

use driftlog_tests::overload::{Amount, Plan, Report, run};
use driftlog_tests::process::binary;

/// Writers to measure by, and to offer more.
const WRITERS: (usize, usize) = (20, 200);
/// Memory that a full room may take for each of its bytes: entries in memory, the log's newest, what is being written.
const BYTES_A_ROOM_BYTE: u64 = 8;
/// Memory that may come on top, whatever the room: the newest entries of the logs, SQLite's cache, the allocator's leftovers.
const BYTES_BESIDE: u64 = 64 * 1024 * 1024;

#[tokio::main]
async fn main() -> ExitCode {
    let Some(seconds) = seconds() else {
        eprintln!("usage: overload [--seconds N]");
        return ExitCode::from(2);
    };
    match overload(seconds).await {
        Ok(report) => end(&report),
        Err(error) => {
            eprintln!("overload: {error}");
            ExitCode::FAILURE
        }
    }
}

fn seconds() -> Option<u64> {
    let mut args = std::env::args().skip(1);
    match (args.next().as_deref(), args.next(), args.next()) {
        (None, ..) => Some(60),
        (Some("--seconds"), Some(seconds), None) => seconds.parse().ok(),
        _ => None,
    }
}

async fn overload(seconds: u64) -> Result<Report, Box<dyn std::error::Error + Send + Sync>> {
    let directory = tempfile::TempDir::new()?;
    let amount = Amount::For(Duration::from_secs(seconds));
    run(&Plan { binary: binary(), directory: directory.path().to_owned(), writers: WRITERS, amount }).await
}

fn end(report: &Report) -> ExitCode {
    let Report { seconds, capacity, offered, accepted, delivered, .. } = *report;
    let Report { rss_start, rss_max, rss_end, recovered, waiting: (peak, room), .. } = *report;
    let bound = rss_start + BYTES_A_ROOM_BYTE * room + BYTES_BESIDE;
    let checks = [
        (accepted == delivered, format!("{accepted} entries were accepted and {delivered} delivered")),
        (rss_max <= bound, format!("memory reached {rss_max}; its bound is {bound}")),
        (recovered.is_some(), "a writer alone is served more slowly than before".to_owned()),
    ];
    let failed: Vec<_> = checks.iter().filter(|(holds, _)| !holds).collect();
    failed.iter().for_each(|(_, what)| println!("failed: {what}"));
    println!("it takes {capacity:.0} entries a second; at most {peak} bytes of pushes waited, of {room}");
    let recovered_ms = recovered.map_or("never".to_owned(), |time| time.as_millis().to_string());
    println!(
        "seconds={seconds:.0} offered={offered} accepted={accepted} delivered={delivered} rss_start={rss_start} \
         rss_max={rss_max} rss_end={rss_end} recovered_ms={recovered_ms}"
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
