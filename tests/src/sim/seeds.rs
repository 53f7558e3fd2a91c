//! Runs of drawn worlds, one for each seed.

use std::sync::Arc;
use std::time::Duration;

use driftlog_core::id::Name;
use driftlog_core::limits;
use driftlog_core::op::{FieldOp, Op, Update};
use driftlog_core::protocol::Code;
use driftlog_core::sequencer::{Case, Ruling};
use driftlog_core::value::Value;
use driftlog_server::{Keep, Retention};

use super::board;
use super::checker::Report;
use super::reroot;
use super::weather::Weather;
use super::world::World;
use crate::database::Database;

/// Milliseconds in which users act and things break, least and drawn beyond it.
const LIVELY_MS: (u64, u64) = (2 * 60_000, 10 * 60_000);
/// A week, in milliseconds.
const WEEK_MS: u64 = 7 * 24 * 60 * 60_000;

/// What one seed came to.
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What the checker found.
    pub report: Report,
    /// Milliseconds of the world's time.
    pub simulated_ms: u64,
    /// Of it, milliseconds in which somebody was there.
    pub lively_ms: u64,
    /// Stands for everything that happened.
    pub fingerprint: (u64, u64),
    /// The newest lines of the trace.
    pub trace: Vec<String>,
}

/// The rules of every drawn world: they see the name, which here is enough.
pub fn rules(case: &Case<'_>) -> Ruling {
    let name = case.name().as_str();
    match name {
        "forbidden" => Ruling::Refuse { code: Code::EntryForbidden, reason: "the rules say no".to_owned() },
        // Rules that change: what was refused in one minute may be made again in the next.
        "moody" if case.now / 60_000 % 2 == 1 => {
            Ruling::Refuse { code: Code::QuotaExceeded, reason: "not in this minute".to_owned() }
        }
        // Held until it is a quarter of a minute old by the server's clock, or looks so young that its clock is wrong.
        "later" if case.now.abs_diff(case.entry.header.time.ms()) < 15_000 => {
            Ruling::RetryLater { reason: "not yet".to_owned(), delay: Duration::from_secs(5) }
        }
        "lucky" => match case.ops().first() {
            Some(Op::Insert(insert)) => Ruling::AllowWith {
                name: board::name("luck"),
                args: None,
                ops: vec![Op::Update(Update {
                    collection: insert.collection.clone(),
                    record: insert.record.clone(),
                    field: field("tags"),
                    op: FieldOp::Add(vec![Value::text("lucky")]),
                })],
            },
            _ => Ruling::Allow,
        },
        _ => Ruling::Allow,
    }
}

fn field(text: &str) -> Name {
    board::name(text)
}

/// The world of a seed, before anything happened in it.
pub fn drawn(seed: u64) -> World {
    let mut world = World::new(seed, Weather::calm());
    world.host.config_mut().policy = Arc::new(rules);
    let keep = match world.random.below(5) {
        0 | 1 => Keep::Last(world.random.below(60)),
        2 => Keep::Size(world.random.below(8 * 1024)),
        3 => Keep::Age(Duration::from_secs(world.random.below(120))),
        _ => Keep::All,
    };
    world.host.config_mut().retention = Retention::default().with("*", keep);
    world.host.config_mut().rerooting = reroot::drawn(seed);
    world.stop_server();
    world.start_server();
    world.weather = Weather::drawn(&mut world.random);
    world.draw_temper();
    world.temper.grace_ms = grace(seed);
    let (devices, users, logs) = (2 + world.random.below(4), 1 + world.random.below(3), 1 + world.random.below(3));
    for number in 1..=logs {
        world.checker.watch(&board::log(number));
    }
    for number in 0..devices {
        let (name, user) = (format!("device{number}"), format!("user{}", world.random.below(users)));
        let device = world.add_device(&name, &user, Database::default());
        world.devices[device].logs =
            (1..=logs).filter(|log| (log + number) % 3 != 0 || *log == 1).map(board::log).collect();
        if world.random.below(4) == 0 {
            // Tokens that end in the middle of things.
            world.devices[device].token_ms = 5_000 + world.random.below(60_000);
        }
        world.open_tab(device);
    }
    world.draw_erasing(seed);
    world.draw_downgrading(seed);
    world.draw_rot(seed);
    world
}

/// In every sixth world updates win over deletes of some records: with a grace that ends while users are there, or with
/// that of the clients.
fn grace(seed: u64) -> Option<u64> {
    const SHORT_MS: u64 = 60_000;
    (seed % 6 == 5).then_some(if seed % 12 == 5 { SHORT_MS } else { limits::DELETE_GRACE_MS })
}

/// Runs a seed to its end.
pub fn run(seed: u64) -> Outcome {
    let mut world = drawn(seed);
    let lively = LIVELY_MS.0 + world.random.below(LIVELY_MS.1);
    world.liven();
    world.run_for(lively);
    let gap = if world.random.below(3) == 0 { WEEK_MS * (1 + world.random.below(4)) } else { 0 };
    if gap > 0 {
        world.go_away(gap);
        world.run_for(lively / 2);
    }
    world.calm_down();
    world.run_until_quiet();
    world.run_until_gone();
    outcome(seed, &world, gap)
}

/// What a world came to.
pub fn outcome(seed: u64, world: &World, gap_ms: u64) -> Outcome {
    Outcome {
        seed,
        report: world.report().clone(),
        simulated_ms: world.elapsed(),
        lively_ms: world.elapsed().saturating_sub(gap_ms),
        fingerprint: world.trace.fingerprint(),
        trace: world.trace.newest(4_000).map(str::to_owned).collect(),
    }
}
