//! `driftlog-server verify`: a scrub in words, or as JSON.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use driftlog_server::{Finding, Report, verify};

/// Ends with 0 if everything is sound, with 2 if something is damaged, and with 1 if it could not be read to its end.
#[derive(Args)]
pub(crate) struct Options {
    /// Directory of the data. Nothing in it is changed.
    #[arg(long)]
    data: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Exit code of a scrub that found something.
const DAMAGED: u8 = 2;
/// Time between two words about the progress.
const PROGRESS: Duration = Duration::from_secs(2);

/// Scrubs a directory and prints what was found.
pub(crate) fn run(options: &Options) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut told = Instant::now();
    let report = verify(&options.data, None, |read, total| {
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            eprintln!("{read} of {total} entries read");
        }
    })?;
    if options.json {
        println!("{}", report_json(&report));
    } else {
        print_report(&report);
    }
    Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::from(DAMAGED) })
}

fn print_report(report: &Report) {
    for Finding { log, table, what } in &report.findings {
        match log {
            Some(log) => println!("{log}: {table}: {what}"),
            None => println!("{table}: {what}"),
        }
    }
    let Report { logs, entries, actors, snapshots, dead_letters, finding_count, .. } = report;
    println!(
        "read: logs {logs}, entries {entries}, actors {actors}, snapshots {snapshots}, dead letters {dead_letters}"
    );
    match finding_count {
        0 => println!("everything is as it was written"),
        count => println!("damaged: {count} findings; restore a backup, or ask before anything is deleted"),
    }
}

fn report_json(report: &Report) -> serde_json::Value {
    let finding = |Finding { log, table, what }: &Finding| serde_json::json!({ "log": log.as_ref().map(|log| log.as_str()), "table": table, "what": what });
    serde_json::json!({
        "sound": report.is_sound(),
        "logs": report.logs,
        "entries": report.entries,
        "actors": report.actors,
        "snapshots": report.snapshots,
        "dead_letters": report.dead_letters,
        "finding_count": report.finding_count,
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}
