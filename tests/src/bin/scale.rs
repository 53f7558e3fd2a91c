//! What there is a lot of, at its full size, on the real server and the native engine:
//!
//! - `scale offline [ACTIONS]`: a device that was without a network for thirty days, in which so many actions were made;
//! - `scale log [RECORDS]`: one log of so many records;
//! - `scale logs [LOGS]`: so many small logs on one client;
//! - `scale connections [REGISTERED ACTIVE]`: a server that knows so many clients, and has sockets of some.
//!
//! Each prints lines of figures, and ends with 0 only if what it promises was kept.

use std::process::ExitCode;
use std::time::Duration;

use driftlog_tests::{offline, sizes};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The longest that a start may take, by an optimized build, on a machine where nothing else runs.
const START_MAX: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["offline"] => long_offline(100_000).await,
        ["offline", actions] => long_offline(actions.parse()?).await,
        ["log"] => told(sizes::large_log(100_000).await?),
        ["log", records] => told(sizes::large_log(records.parse()?).await?),
        ["logs"] => told(sizes::many_logs(10_000).await?),
        ["logs", logs] => told(sizes::many_logs(logs.parse()?).await?),
        ["connections"] => told(sizes::connections(10_000, 1_000).await?),
        ["connections", registered, active] => told(sizes::connections(registered.parse()?, active.parse()?).await?),
        ["reader", address, logs, records] => told(sizes::read(address, logs.parse()?, records.parse()?).await?),
        _ => {
            Err("usage: scale offline [ACTIONS] | log [RECORDS] | logs [LOGS] | connections [REGISTERED ACTIVE]".into())
        }
    }
}

fn told(figures: sizes::Figures) -> Result<(), Failure> {
    let words: Vec<_> = figures.iter().map(|(name, value)| format!("{name}={value:.0}")).collect();
    println!("{}", words.join(" "));
    Ok(())
}

async fn long_offline(actions: u64) -> Result<(), Failure> {
    let report = offline::run(actions).await?;
    // Whoever shares the machine takes no part of the processor's time.
    let start = report.start_processor.unwrap_or(report.start);
    let per_action = |count: u64| count as f64 / report.actions as f64;
    println!(
        "actions={} start_ms={:.0} start_processor_ms={:.0} upload_s={:.1} rss_bytes={} database_bytes={} unanswered_bytes={} sent_bytes={} \
         accepted={} refused={} doubled={} astray={} rows_read_to_start={:.3} rows_read={:.3} rows_written={:.3} \
         bytes_written={:.0} steps={:.2}",
        report.actions,
        report.start.as_secs_f64() * 1_000.0,
        start.as_secs_f64() * 1_000.0,
        report.upload.as_secs_f64(),
        report.resident_bytes,
        report.database_bytes,
        report.unanswered_bytes,
        report.sent_bytes,
        report.accepted,
        report.refused,
        report.doubled,
        report.astray,
        per_action(report.starting.rows_read),
        per_action(report.uploading.rows_read),
        per_action(report.uploading.rows_written),
        per_action(report.uploading.bytes_written),
        per_action(report.steps),
    );
    let mut broken = report.broken();
    if !report.is_small() {
        broken.push("the device holds too much in memory".to_owned());
    }
    if start > START_MAX {
        broken.push(format!("the start took longer than {START_MAX:?}"));
    }
    if broken.is_empty() { Ok(()) } else { Err(broken.join("; ").into()) }
}
