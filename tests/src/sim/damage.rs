//! Bits that flip on a device's disk, in whatever row they hit, each row once.
//!
//! What the server also has, and what is derived, must cost nothing. An own entry may become a dead letter; which ones
//! were hit is noted before the bit flips, and of no other is that allowed.

use driftlog_core::entry::Entry;
use driftlog_core::id::{EntryId, LogName, Seq, WriteId};
use driftlog_core::storage;
use driftlog_core::storage::row::{self, DeadLetter};

use super::device::DeviceNumber;
use super::trace::note;
use super::world::World;

impl World {
    /// One bit of one row of a device flips.
    pub(super) fn flip_at_random(&mut self, device: DeviceNumber) {
        let whole: Vec<_> = {
            let state = &self.devices[device];
            let rows = state.database.rows().filter(|(key, bytes)| !bytes.is_empty() && !state.flipped.contains(*key));
            rows.map(|(key, bytes)| (key.clone(), bytes.len() * 8)).collect()
        };
        let Some((key, bits)) = self.pick(&whole) else { return };
        let bit = self.random.below(bits as u64) as usize;
        self.flip(device, &key, bit);
    }

    /// A bit flips in the middle of the row that holds an own entry.
    ///
    /// # Panics
    /// If no row holds it.
    pub fn flip_own(&mut self, device: DeviceNumber, log: &LogName, write: WriteId) {
        let is_it = |entry: &Entry| WriteId { run: entry.header.run, n: entry.header.n } == write;
        let holds = |(key, bytes): &(&Vec<u8>, &Vec<u8>)| {
            let of_log = storage::log_of(key).as_ref() == Some(log);
            of_log && row::decode_group(bytes).unwrap_or_default().iter().any(is_it)
        };
        let found = self.devices[device].database.rows().find(holds);
        let (key, bits) = found.map(|(key, bytes)| (key.clone(), bytes.len() * 8)).expect("a row with the entry");
        self.flip(device, &key, bits / 2);
    }

    fn flip(&mut self, device: DeviceNumber, key: &[u8], bit: usize) {
        self.strike_row(device, key);
        self.devices[device].database.flip(key, bit);
        self.devices[device].flipped.insert(key.to_vec());
        self.checker.flipped();
        note!(self, "{}: bit {bit} of row {key:02x?} flips", self.devices[device].name);
    }

    /// Notes the own entries of a row, or those that a dead letter stands for, whose bytes are about to be damaged.
    fn strike_row(&mut self, device: DeviceNumber, key: &[u8]) {
        let (Some(log), Some(actor)) = (storage::log_of(key), storage::actor_of(key)) else { return };
        let first = Seq(storage::number_of(key).unwrap_or_default());
        let rows = self.devices[device].database.read(&storage::KeyRange::only(key.to_vec()));
        let ids = |letter: DeadLetter| Some((actor, first..=letter.last(first)));
        for (actor, seqs) in rows.iter().filter_map(|(_, bytes)| row::decode(bytes).ok().and_then(ids)) {
            let is_of_it = |id: &EntryId| id.actor == actor && seqs.contains(&id.seq);
            let told = self.checker.told.iter().filter(|((of, _), told)| *of == log && told.ids.iter().any(is_of_it));
            self.checker.struck.extend(told.map(|(of, _)| of.clone()));
        }
        for entry in rows.iter().flat_map(|(_, bytes)| row::decode_group(bytes).unwrap_or_default()) {
            let write = WriteId { run: entry.header.run, n: entry.header.n };
            self.checker.struck.insert((log.clone(), write));
        }
    }
}
