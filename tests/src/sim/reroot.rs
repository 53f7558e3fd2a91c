//! Texts that are given a new root: how soon in a drawn world, and the words for it in a story.

use std::time::Duration;

use driftlog_core::draft::Draft;
use driftlog_core::entry::Logged;
use driftlog_core::id::WriteId;
use driftlog_core::op::{Edit, FieldOp, Op};
use driftlog_core::random::Random;
use driftlog_core::sequencer::Rerooting;

use super::board;
use super::story::{Person, Story};

/// When texts are given a new root in the world of a seed: often enough that it happens, with a grace that some changes
/// come in and others after. It is drawn apart, so that everything else in the world is drawn as it was.
pub fn drawn(seed: u64) -> Rerooting {
    let mut bytes = [0x5e; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut random = Random::new(bytes);
    Rerooting {
        bytes_min: 100 + random.below(1_500),
        percent: 100 + random.below(300),
        quiet: Duration::from_millis(random.below(3_000)),
        grace: match random.below(4) {
            0 => Duration::from_millis(random.below(2_000)),
            1 => Duration::from_secs(7 * 24 * 60 * 60),
            _ => Duration::from_secs(random.below(300)),
        },
    }
}

/// Whether an entry gives a text a new root.
pub fn is_root(logged: &Logged) -> bool {
    let ops = logged.entry.body.ops.iter().flat_map(Op::field_ops);
    ops.into_iter().any(|(_, op)| matches!(op, FieldOp::Edit(Edit::Root(_))))
}

impl Story {
    /// Has texts of more than a hundred bytes with their history begin anew soon, with this grace.
    pub fn reroot_soon(&self, grace: Duration) {
        let mut world = self.world();
        let config = world.host.config_mut();
        config.snapshot_entries = 5;
        config.rerooting = Rerooting { bytes_min: 100, percent: 200, quiet: Duration::ZERO, grace };
        world.stop_server();
        world.start_server();
    }

    /// No text begins anew any more.
    pub fn reroot_no_more(&self) {
        let mut world = self.world();
        world.host.config_mut().rerooting = Rerooting::default();
        world.stop_server();
        world.start_server();
    }

    /// The entries of the log, also those that the server has let go.
    pub fn logged(&self) -> Vec<Logged> {
        let world = self.world();
        world.checker.logs.get(&board::log(1)).map(|record| record.entries.clone()).unwrap_or_default()
    }

    /// How many entries of the log give a text a new root.
    pub fn roots(&self) -> usize {
        self.logged().iter().filter(|logged| is_root(logged)).count()
    }

    /// How many entries of the log were translated.
    pub fn translated(&self) -> usize {
        self.logged().iter().filter(|logged| logged.entry.is_translated()).count()
    }
}

impl Person {
    /// Types the same word until the text has a new root, and shortens the text again.
    ///
    /// # Panics
    /// If no new root comes.
    pub fn wear_out(&self, story: &Story, record: &str) {
        let before = story.roots();
        for _ in 0..40 {
            self.act(board::splice(record, 0, 0, "worn "));
            self.act(board::splice(record, 0, 5, ""));
            story.run_for(300);
            if story.roots() > before {
                return;
            }
        }
        panic!("no new root after 80 edits");
    }

    /// Takes a draft and gives its id back; for what is looked at later.
    pub fn types(&self, at: usize, text: &str) -> WriteId {
        let draft: Draft = board::splice("a", at, 0, text);
        self.act(draft)
    }
}
