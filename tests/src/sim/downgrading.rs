//! Operators that downgrade connections: whoever is sent away comes back, and nothing of its work is lost.

use driftlog_core::id::UserId;
use driftlog_core::random::Random;

use super::device::DeviceNumber;
use super::trace::note;
use super::world::{Event, World};

/// Of so many drawn worlds one has operators that downgrade.
const WORLDS: u64 = 4;
/// Milliseconds between two downgrades, at most.
const DOWNGRADING_MS: u64 = 20_000;
/// For how long a device may be told to stay away, at most, in milliseconds.
const AWAY_MS_MAX: u64 = 30_000;

impl World {
    /// An operator downgrades a device's connection, and may say for how long it stays away; whether it was active.
    pub fn downgrade(&mut self, device: DeviceNumber, away_ms: Option<u64>) -> bool {
        let Some(tab) = self.devices[device].tabs().first().copied() else { return false };
        let client = self.devices[device].engine(tab).identity().map(|identity| identity.client);
        let user = UserId::new(&self.devices[device].user);
        let (Some(client), Ok(user), Some(server)) = (client, user, &mut self.host.server) else { return false };
        let was_active = server.downgrade(user, client, away_ms);
        note!(self, "server: {} is downgraded, active before: {was_active}", self.devices[device].name);
        self.pump_all();
        self.host_look();
        was_active
    }

    /// Whether this world has operators that downgrade. What they do is drawn apart, so that the others stay as they are.
    pub fn draw_downgrading(&mut self, seed: u64) {
        if seed % WORLDS == 1 {
            let mut bytes = *b"driftlog simulated downgrades___";
            bytes[24..].copy_from_slice(&seed.to_be_bytes());
            self.downgrading = Some(Random::new(bytes));
            self.schedule(1_000, Event::Downgrading);
        }
    }

    /// Somebody is sent away.
    pub(super) fn downgrade_at_random(&mut self) {
        let Some(mut random) = self.downgrading.take() else { return };
        if self.lively {
            self.schedule(1 + random.below(DOWNGRADING_MS), Event::Downgrading);
            let device = random.below(self.devices.len().max(1) as u64) as usize;
            let away_ms = (random.below(2) == 0).then(|| random.below(AWAY_MS_MAX));
            if device < self.devices.len() {
                self.downgrade(device, away_ms);
            }
        }
        self.downgrading = Some(random);
    }
}
