//! `crash [--cycles N] [--seed N]`: kills the server at random moments under load, and checks every promise.
//!
//! The server is the binary beside this one: `cargo build --release -p driftlog-server` first. The last line is
//! `cycles=… acked=… lost=… doubled=…`; it ends with 0 only if nothing was lost or doubled.

use std::process::ExitCode;

use driftlog_tests::kills::{Plan, run};
use driftlog_tests::process::{binary, verify};

#[tokio::main]
async fn main() -> ExitCode {
    match crash().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("crash: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn crash() -> Result<ExitCode, Box<dyn std::error::Error + Send + Sync>> {
    let (mut cycles, mut seed) = (50, 1);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let number = args.next().and_then(|number| number.parse().ok());
        match (arg.as_str(), number) {
            ("--cycles", Some(number)) => cycles = number,
            ("--seed", Some(number)) => seed = number,
            _ => {
                eprintln!("usage: crash [--cycles N] [--seed N]");
                return Ok(ExitCode::from(2));
            }
        }
    }
    let directory = tempfile::TempDir::new()?;
    let plan = Plan { cycles, seed, binary: binary(), directory: directory.path().to_owned() };
    let tally = run(&plan, |cycle, tally| {
        if cycle % 10 == 0 {
            println!("cycle {cycle}: acked={} lost={} doubled={}", tally.acked, tally.lost, tally.doubled);
        }
    })
    .await?;
    tally.findings.iter().for_each(|finding| println!("{finding}"));
    let scrub = verify(&plan.binary, directory.path(), &[]).await?;
    print!("{}", String::from_utf8_lossy(&scrub.stdout));
    println!("cycles={cycles} acked={} lost={} doubled={}", tally.acked, tally.lost, tally.doubled);
    let clean = tally.lost == 0 && tally.doubled == 0 && scrub.status.success();
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
