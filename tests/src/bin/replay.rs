//! `replay FILE.json.gz`: replays an editing trace on `core` alone and prints one JSON line, last.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use driftlog_tests::replay::{Replayed, replay, replay_rich};
use driftlog_tests::trace::Trace;
use serde_json::json;

fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: replay FILE.json.gz (an editing trace)");
        return ExitCode::from(2);
    };
    let trace = match Trace::read(Path::new(&path)) {
        Ok(trace) => trace,
        Err(error) => {
            eprintln!("{path}: {error}");
            return ExitCode::from(2);
        }
    };
    let begun = Instant::now();
    let Some(replayed) = run(&trace, begun) else {
        eprintln!("{path}: an agent had not seen its own earlier work; this is not one typist an agent");
        return ExitCode::from(2);
    };
    report(&path, &trace, &replayed, begun.elapsed().as_secs_f64())
}

fn run(trace: &Trace, begun: Instant) -> Option<Replayed> {
    let seen = trace.seen()?;
    let total = trace.transactions.len();
    let progress = |done: usize| {
        if done.is_multiple_of(20_000) {
            eprintln!("{done} of {total} transactions, {:.1} s", begun.elapsed().as_secs_f64());
        }
    };
    match trace.offset_order(&seen) {
        Some(order) => Some(replay(trace, &order, &seen, progress)),
        None => {
            eprintln!("no offset order allows exact causality; replaying on the rich field alone");
            Some(replay_rich(trace, &seen, progress))
        }
    }
}

fn report(path: &str, trace: &Trace, replayed: &Replayed, seconds: f64) -> ExitCode {
    let equal = replayed.texts.iter().all(|text| *text == trace.end);
    let server_equal = replayed.server == trace.end;
    let chars = replayed.server.chars().count();
    let line = json!({
        "trace": Path::new(path).file_name().map(|name| name.to_string_lossy()),
        "kind": if trace.is_concurrent() { "concurrent" } else { "sequential" },
        "edits": trace.transactions.len(),
        "entries": replayed.entries,
        "accepted": replayed.accepted,
        "refused": replayed.refused,
        "chars": chars,
        "clients": replayed.texts.len(),
        "offline": false,
        "equal": equal,
        "server_equal": server_equal,
        "seconds": (seconds * 100.0).round() / 100.0,
        "bytes_up": replayed.bytes_up,
        "bytes_down": replayed.bytes_down,
    });
    println!("{line}");
    let whole = replayed.accepted == replayed.entries && replayed.refused == 0 && chars > 0;
    if equal && server_equal && whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
