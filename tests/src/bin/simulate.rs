//! `cargo run --release --bin simulate -- --seeds N [--first-seed M]`: runs drawn worlds, as many at
//! once as the machine has cores. A world knows nothing of the others; they are told in the order of their seeds.
//!
//! How far it is goes to standard error; the last line sums up. A run that fails prints its seed and the end of its trace,
//! and the exit is not zero; `--seeds 1 --first-seed M --trace` prints the trace of a run in any case.

use std::collections::BTreeMap;
use std::panic::{catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use driftlog_tests::sim::seeds::{self, Outcome};

/// How often it is told how far the seeds are.
const PROGRESS: Duration = Duration::from_secs(10);

struct Options {
    seeds: u64,
    first: u64,
    trace: bool,
}

#[derive(Default)]
struct Sum {
    failed: u64,
    entries: u64,
    redriven: u64,
    rerooted: u64,
    translated: u64,
    flipped: u64,
    rotted: u64,
    acked_lost: u64,
    stored_lost: u64,
    diverged: u64,
    simulated_ms: u64,
    lively_ms: u64,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        self.entries += outcome.report.entries;
        self.redriven += outcome.report.redriven;
        self.rerooted += outcome.report.rerooted;
        self.translated += outcome.report.translated;
        self.flipped += outcome.report.flipped;
        self.rotted += outcome.report.rotted;
        self.simulated_ms += outcome.simulated_ms;
        self.lively_ms += outcome.lively_ms;
        let Some((kind, _)) = &outcome.report.violation else { return };
        self.failed += 1;
        match *kind {
            "acked-lost" => self.acked_lost += 1,
            "stored-lost" => self.stored_lost += 1,
            "diverged" => self.diverged += 1,
            _ => {}
        }
    }
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(reason) => {
            eprintln!("simulate: {reason}\nusage: simulate [--seeds N] [--first-seed M] [--trace]");
            return ExitCode::FAILURE;
        }
    };
    let (begun, mut sum) = (Instant::now(), Sum::default());
    let mut told = begun;
    run(&options, |outcome| {
        sum.add(&outcome);
        if told.elapsed() > PROGRESS {
            told = Instant::now();
            eprintln!("{} of {} seeds, {} failed", outcome.seed - options.first + 1, options.seeds, sum.failed);
        }
        outcome.trace.iter().for_each(|line| println!("{line}"));
        if let Some((kind, what)) = &outcome.report.violation {
            println!("seed {} failed: {kind}: {what}\n", outcome.seed);
        }
    });
    let per_second = sum.lively_ms as f64 / 1_000.0 / begun.elapsed().as_secs_f64();
    println!(
        "seeds={} failed={} entries={} redriven={} rerooted={} translated={} flipped={} rotted={} acked_lost={} stored_lost={} diverged={} \
         simulated_hours={:.1} per_second={:.0}",
        options.seeds,
        sum.failed,
        sum.entries,
        sum.redriven,
        sum.rerooted,
        sum.translated,
        sum.flipped,
        sum.rotted,
        sum.acked_lost,
        sum.stored_lost,
        sum.diverged,
        sum.simulated_ms as f64 / 3_600_000.0,
        per_second,
    );
    if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the seeds on all cores and tells each outcome, in the order of the seeds. Traces that are not wanted are dropped.
fn run(options: &Options, mut tell: impl FnMut(Outcome)) {
    let (next, end) = (AtomicU64::new(options.first), options.first + options.seeds);
    let (done, outcomes) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            let (next, done) = (&next, done.clone());
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let mut outcome = catch_unwind(|| seeds::run(seed)).unwrap_or_else(|panic| {
                        eprintln!("seed {seed} panicked");
                        resume_unwind(panic)
                    });
                    if !options.trace && outcome.report.violation.is_none() {
                        outcome.trace.clear();
                    }
                    if done.send(outcome).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        let (mut expected, mut early) = (options.first, BTreeMap::new());
        for outcome in outcomes {
            early.insert(outcome.seed, outcome);
            while let Some(outcome) = early.remove(&expected) {
                tell(outcome);
                expected += 1;
            }
        }
    });
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { seeds: 200, first: 1, trace: false };
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let value = arguments.next().ok_or_else(|| format!("{argument} wants a number"))?;
            value.parse().map_err(|_| format!("{argument} wants a number, not {value:?}"))
        };
        match argument.as_str() {
            "--seeds" => options.seeds = number()?,
            "--first-seed" => options.first = number()?,
            "--trace" => options.trace = true,
            other => return Err(format!("{other} is not known")),
        }
    }
    Ok(options)
}
