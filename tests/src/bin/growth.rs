//! `growth [--note] [--actions N] [--fields N] [--value-bytes N]`: overwrites the same fields, or edits one note, again
//! and again on a real server, and tells what storage comes to and how long a new client takes to open the log.
//!
//! The last line is `actions=… live_bytes=… server_bytes=… client_bytes=… sent_bytes=… open_ms_small=…
//! open_ms_large=…`. It ends with 0 only if storage stayed within ten times of what lives, on both sides.

use std::process::ExitCode;
use std::time::Duration;

use driftlog_tests::growth::{Plan, Report, Subject, run};

/// How many times the bytes of what lives storage may take.
const FACTOR: u64 = 10;

#[tokio::main]
async fn main() -> ExitCode {
    let Some(plan) = plan() else {
        eprintln!("usage: growth [--note] [--actions N] [--fields N] [--value-bytes N]");
        return ExitCode::from(2);
    };
    match run(plan).await {
        Ok(report) => end(&report),
        Err(error) => {
            eprintln!("growth: {error}");
            ExitCode::FAILURE
        }
    }
}

fn plan() -> Option<Plan> {
    let grace = Duration::from_secs(20);
    let mut plan = Plan { actions: 1_000_000, subject: Subject::Fields(100), grace, value_bytes: 500 };
    let mut args = std::env::args().skip(1);
    while let Some(option) = args.next() {
        if option == "--note" {
            plan = Plan { actions: 100_000, subject: Subject::Note, value_bytes: 50_000, ..plan };
            continue;
        }
        let value = args.next()?.parse().ok()?;
        match option.as_str() {
            "--actions" => plan.actions = value,
            "--fields" => plan.subject = Subject::Fields(value),
            "--value-bytes" => plan.value_bytes = value,
            _ => return None,
        }
    }
    match plan.subject {
        Subject::Fields(fields) => (fields > 0 && plan.actions >= fields).then_some(plan),
        Subject::Note => (plan.actions > 0).then_some(plan),
    }
}

fn end(report: &Report) -> ExitCode {
    let Report { actions, live_bytes, written_bytes, server_bytes, client_bytes, sent_bytes, open_small, open_large } =
        report;
    let (server, client) = written_bytes;
    println!(
        "right behind the last action the server has {server} bytes and the client {client}; below, when the log rests"
    );
    let is_within = report.is_within(FACTOR);
    if !is_within {
        println!("failed: storage is beyond {FACTOR} times of what lives");
    }
    let ms = |time: &std::time::Duration| time.as_secs_f64() * 1_000.0;
    println!(
        "actions={actions} live_bytes={live_bytes} server_bytes={server_bytes} client_bytes={client_bytes} \
         sent_bytes={sent_bytes} open_ms_small={:.1} open_ms_large={:.1}",
        ms(open_small),
        ms(open_large)
    );
    if is_within { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
