//! Bits that flip on the server's disk, and the operator who notices and puts the disk back to the backup from before.
//!
//! Until then the server may refuse logs, keep clients out, or not run at all; what it tells must be what it was given.
//! Bits of what waits in front of the database are left alone: SQLite takes a log whose end does not read for a shorter
//! one, so a start behind such a flip is a start from a backup that nobody ordered.

use driftlog_core::random::Random;

use super::trace::note;
use super::world::{Event, World};
use crate::disk::{Backup, Loss};

/// The server's database.
const FILE: &str = "driftlog.sqlite";
/// Of so many drawn worlds one has a disk that rots.
const WORLDS: u64 = 5;
/// When that happens at the latest, in milliseconds.
const ROT_MS_MAX: u64 = 6 * 60_000;
/// How long nobody notices, at most, in milliseconds.
const UNNOTICED_MS_MAX: u64 = 90_000;
/// Bits that flip at once, at most.
const BITS_MAX: u64 = 4;

/// A disk that rots, or will.
pub struct Rot {
    random: Random,
    /// What is whole, while the disk is not.
    whole: Option<Backup>,
}

impl World {
    /// Whether the server's disk rots in this world. It is drawn apart, so that everything else stays as it is.
    pub fn draw_rot(&mut self, seed: u64) {
        if seed % WORLDS == 3 {
            let mut bytes = *b"driftlog simulated rotten disk__";
            bytes[24..].copy_from_slice(&seed.to_be_bytes());
            let mut random = Random::new(bytes);
            self.schedule(1 + random.below(ROT_MS_MAX), Event::Rot);
            self.rot = Some(Rot { random, whole: None });
        }
    }

    /// Whether bits of the server's disk are not as they were written.
    pub(super) fn is_rotten(&self) -> bool {
        self.rot.as_ref().is_some_and(|rot| rot.whole.is_some())
    }

    /// Bits flip, or what has flipped is noticed.
    pub(super) fn rot(&mut self) {
        if self.is_rotten() {
            return self.replace_rotten_disk();
        }
        let Some(mut rot) = self.rot.take() else { return };
        // Of a world in which the disk was put back before, nobody could tell what is gone for which reason.
        if self.lively && self.host.server.is_some() && !self.checker.was_restored() {
            rot.whole = Some(self.host.backup());
            self.checker.server_rots(true);
            let bytes = self.host.disk.read(FILE).map_or(0, |bytes| bytes.len() as u64);
            for _ in 0..=rot.random.below(BITS_MAX) {
                let bit = rot.random.below((bytes * 8).max(1));
                self.host.disk.flip(FILE, bit as usize);
                note!(self, "server: bit {bit} of its database flips");
            }
            self.schedule(1 + rot.random.below(UNNOTICED_MS_MAX), Event::Rot);
        }
        self.rot = Some(rot);
    }

    /// The operator puts back what is whole, if the disk is rotten.
    pub(super) fn replace_rotten_disk(&mut self) {
        if let Some(whole) = self.no_longer_rotten() {
            self.crash_server(Loss::Nothing);
            self.restore_server(&whole);
            self.start_server();
        }
    }

    /// Another disk takes the place of the one that may be rotten; what was whole before it was.
    pub(super) fn no_longer_rotten(&mut self) -> Option<Backup> {
        self.checker.server_rots(false);
        self.rot.as_mut().and_then(|rot| rot.whole.take())
    }
}
