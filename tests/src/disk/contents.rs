//! What stands on a disk: for each file what a read sees now, what was synced, and the changes between the two.
//!
//! Pure: no lock, no SQLite. Names are changes too: a file that was made or deleted and whose directory was not synced
//! may be missing, or be back, after the power was lost.

use std::collections::BTreeMap;

use driftlog_core::random::Random;

use super::Loss;

/// A file without its name: what was deleted may still be open, and may come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Inode(u64);

/// A change that the disk may not have yet.
#[derive(Clone, Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Resize(usize),
}

/// Where a change stands among all changes of the disk.
type Order = u64;

#[derive(Clone, Debug, Default)]
struct File {
    /// What the disk has for certain.
    synced: Vec<u8>,
    /// What a read sees.
    seen: Vec<u8>,
    pending: Vec<(Order, Change)>,
}

#[derive(Clone, Debug)]
enum Renaming {
    Made(String, Inode),
    Deleted(String),
}

/// Files, synced and seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    files: BTreeMap<Inode, File>,
    synced_names: BTreeMap<String, Inode>,
    names: BTreeMap<String, Inode>,
    pending_names: Vec<(Order, Renaming)>,
    inodes: u64,
    changes: Order,
}

impl Contents {
    /// A disk on which these files are synced.
    pub(super) fn of(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let mut contents = Self::default();
        for (name, bytes) in files {
            let inode = contents.make(&name);
            contents.files.insert(inode, File { synced: bytes.clone(), seen: bytes, pending: Vec::new() });
        }
        contents.sync_names();
        contents
    }

    /// Makes an empty file.
    pub(super) fn make(&mut self, name: &str) -> Inode {
        let inode = self.make_unnamed();
        self.names.insert(name.to_owned(), inode);
        let order = self.order();
        self.pending_names.push((order, Renaming::Made(name.to_owned(), inode)));
        inode
    }

    /// Makes a file that no name leads to.
    pub(super) fn make_unnamed(&mut self) -> Inode {
        self.inodes += 1;
        let inode = Inode(self.inodes);
        self.files.insert(inode, File::default());
        inode
    }

    /// Deletes a name; whether there was one.
    pub(super) fn delete(&mut self, name: &str) -> bool {
        let order = self.order();
        let deleted = self.names.remove(name).is_some();
        if deleted {
            self.pending_names.push((order, Renaming::Deleted(name.to_owned())));
        }
        deleted
    }

    pub(super) fn write(&mut self, inode: Inode, at: usize, bytes: &[u8]) {
        let change = Change::Write { at, bytes: bytes.to_vec() };
        self.change(inode, change);
    }

    pub(super) fn resize(&mut self, inode: Inode, length: usize) {
        self.change(inode, Change::Resize(length));
    }

    fn change(&mut self, inode: Inode, change: Change) {
        let order = self.order();
        let file = self.files.entry(inode).or_default();
        change.apply(&mut file.seen);
        file.pending.push((order, change));
    }

    /// Makes what was written to a file survive.
    pub(super) fn sync(&mut self, inode: Inode) {
        let file = self.files.entry(inode).or_default();
        for (_, change) in file.pending.drain(..) {
            change.apply(&mut file.synced);
        }
    }

    /// A sync that failed: systems mark the pages as clean all the same, so no later sync brings them to the disk.
    pub(super) fn forget_pending(&mut self, inode: Inode) {
        self.files.entry(inode).or_default().pending.clear();
    }

    /// Makes what was made and deleted survive.
    pub(super) fn sync_names(&mut self) {
        self.synced_names.clone_from(&self.names);
        self.pending_names.clear();
    }

    pub(super) fn named(&self, name: &str) -> Option<Inode> {
        self.names.get(name).copied()
    }

    /// What a read sees.
    pub(super) fn seen(&self, inode: Inode) -> &[u8] {
        self.files.get(&inode).map_or(&[], |file| &file.seen)
    }

    /// Every file by name, as a read sees it.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.names.iter().map(|(name, inode)| (name.as_str(), self.seen(*inode)))
    }

    /// Flips one bit of a file at rest.
    pub(super) fn flip(&mut self, inode: Inode, bit: usize) {
        let file = self.files.entry(inode).or_default();
        for bytes in [&mut file.synced, &mut file.seen] {
            if let Some(byte) = bytes.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// What is there after the power was lost.
    pub(super) fn after(&self, loss: Loss, grain: usize, random: &mut Random) -> Self {
        let files = match loss {
            Loss::Nothing => return Self::of(self.all().map(|(name, bytes)| (name.to_owned(), bytes.to_vec()))),
            Loss::Unsynced => self.with(&self.synced_names, |file| file.synced.clone()),
            Loss::Tail => self.after_tail(grain, random),
            Loss::Sectors => {
                let names = self.names_by_coin(random);
                self.with(&names, |file| file.sectors(grain, random))
            }
        };
        Self::of(files)
    }

    fn with(
        &self,
        names: &BTreeMap<String, Inode>,
        mut content: impl FnMut(&File) -> Vec<u8>,
    ) -> Vec<(String, Vec<u8>)> {
        let named = names.iter().filter_map(|(name, inode)| self.files.get(inode).map(|file| (name, file)));
        named.map(|(name, file)| (name.clone(), content(file))).collect()
    }

    /// Every change before a drawn moment; the one at that moment torn.
    fn after_tail(&self, grain: usize, random: &mut Random) -> Vec<(String, Vec<u8>)> {
        let mut orders: Vec<Order> = self.pending_names.iter().map(|(order, _)| *order).collect();
        orders.extend(self.files.values().flat_map(|file| file.pending.iter().map(|(order, _)| *order)));
        orders.sort_unstable();
        let cut = orders.get(random.below(orders.len() as u64 + 1) as usize).copied().unwrap_or(Order::MAX);
        let torn = random.below(u64::MAX);
        let mut names = self.synced_names.clone();
        for (_, renaming) in self.pending_names.iter().filter(|(order, _)| *order < cut) {
            renaming.apply(&mut names);
        }
        self.with(&names, |file| file.until(cut, grain, torn))
    }

    /// Each name that is in doubt as it was or as it is.
    fn names_by_coin(&self, random: &mut Random) -> BTreeMap<String, Inode> {
        let mut names = self.synced_names.clone();
        for (_, renaming) in &self.pending_names {
            if random.below(2) == 0 {
                renaming.apply(&mut names);
            }
        }
        names
    }

    fn order(&mut self) -> Order {
        self.changes += 1;
        self.changes
    }
}

impl Renaming {
    fn apply(&self, names: &mut BTreeMap<String, Inode>) {
        match self {
            Self::Made(name, inode) => drop(names.insert(name.clone(), *inode)),
            Self::Deleted(name) => drop(names.remove(name)),
        }
    }
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => {
                if to.len() < at + bytes.len() {
                    to.resize(at + bytes.len(), 0);
                }
                to[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::Resize(length) => to.resize(*length, 0),
        }
    }

    /// The sectors that it changes, as numbers; one that shrinks or grows a file changes none.
    fn sectors(&self, grain: usize) -> std::ops::Range<usize> {
        match self {
            Self::Write { at, bytes } => at / grain..(at + bytes.len()).div_ceil(grain),
            Self::Resize(_) => 0..0,
        }
    }

    /// The part of it that lies in one sector.
    fn apply_within(&self, sector: usize, grain: usize, to: &mut Vec<u8>) {
        let Self::Write { at, bytes } = self else { return };
        let from = (sector * grain).max(*at);
        let end = ((sector + 1) * grain).min(at + bytes.len());
        Self::Write { at: from, bytes: bytes[from - at..end - at].to_vec() }.apply(to);
    }
}

impl File {
    /// Every change before `cut`, and the first sectors of the change at it.
    fn until(&self, cut: Order, grain: usize, torn: u64) -> Vec<u8> {
        let mut content = self.synced.clone();
        for (order, change) in &self.pending {
            if *order < cut {
                change.apply(&mut content);
            } else if *order == cut {
                let sectors = change.sectors(grain);
                let kept = if sectors.is_empty() { 0 } else { torn as usize % sectors.len() };
                sectors.take(kept).for_each(|sector| change.apply_within(sector, grain, &mut content));
            }
        }
        content
    }

    /// Every sector as of some moment since the last sync, each as of its own, and a length of some moment.
    fn sectors(&self, grain: usize, random: &mut Random) -> Vec<u8> {
        let mut content = self.synced.clone();
        let mut touching: BTreeMap<usize, Vec<&Change>> = BTreeMap::new();
        for (_, change) in &self.pending {
            for sector in change.sectors(grain) {
                touching.entry(sector).or_default().push(change);
            }
        }
        for (sector, changes) in touching {
            let kept = random.below(changes.len() as u64 + 1) as usize;
            changes.into_iter().take(kept).for_each(|change| change.apply_within(sector, grain, &mut content));
        }
        let mut lengths = vec![self.synced.len()];
        for (_, change) in &self.pending {
            let last = lengths[lengths.len() - 1];
            lengths.push(match change {
                Change::Write { at, bytes } => last.max(at + bytes.len()),
                Change::Resize(length) => *length,
            });
        }
        content.resize(lengths[random.below(lengths.len() as u64) as usize], 0);
        content
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A synced file of three sectors of four bytes, then two writes and a new file.
    fn contents() -> (Contents, Inode) {
        let mut contents = Contents::of([("a".to_owned(), b"aaaabbbbcccc".to_vec())]);
        let inode = contents.named("a").expect("there");
        contents.write(inode, 2, b"1111");
        contents.write(inode, 6, b"222222222");
        contents.make("b");
        (contents, inode)
    }

    fn after(contents: &Contents, loss: Loss) -> std::collections::BTreeSet<Vec<(String, String)>> {
        let mut random = Random::new([1; 32]);
        let one = |_| {
            let after = contents.after(loss, 4, &mut random);
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\0', "-");
            after.all().map(|(name, bytes)| (name.to_owned(), text(bytes))).collect()
        };
        (0..4_000).map(one).collect()
    }

    fn files(a: &str, b: bool) -> Vec<(String, String)> {
        let b = b.then(|| ("b".to_owned(), String::new()));
        [("a".to_owned(), a.to_owned())].into_iter().chain(b).collect()
    }

    #[test]
    fn only_what_was_synced_is_sure() {
        let (mut contents, inode) = contents();
        assert_eq!(after(&contents, Loss::Unsynced), [files("aaaabbbbcccc", false)].into());
        contents.sync(inode);
        assert_eq!(after(&contents, Loss::Unsynced), [files("aa1111222222222", false)].into());
        contents.sync_names();
        assert_eq!(after(&contents, Loss::Unsynced), [files("aa1111222222222", true)].into());
    }

    #[test]
    fn a_tail_is_lost_in_order_and_torn_between_sectors() {
        let (contents, _) = contents();
        let expected = [
            files("aaaabbbbcccc", false),
            files("aa11bbbbcccc", false),
            files("aa1111bbcccc", false),
            files("aa111122cccc", false),
            files("aa1111222222", false),
            files("aa1111222222222", false),
            files("aa1111222222222", true),
        ];
        assert_eq!(after(&contents, Loss::Tail), expected.into());
    }

    #[test]
    fn sectors_survive_each_for_itself() {
        let (contents, _) = contents();
        let outcomes = after(&contents, Loss::Sectors);
        // The first sector without, the second with both writes, the third without: reordered and torn at once.
        assert!(outcomes.contains(&files("aaaa1122cccc", true)), "{outcomes:?}");
        // The file grew, the bytes in its new end did not come.
        assert!(outcomes.contains(&files("aaaabbbbcccc---", false)), "{outcomes:?}");
        // 2 × 3 × 2 sectors, and a third one that is there, not there or cut off; with and without the other file.
        assert_eq!(outcomes.len(), 2 * (2 * 3 * 2) * 3);
    }

    #[test]
    fn a_failed_sync_never_brings_its_pages_to_the_disk() {
        let (mut contents, inode) = contents();
        contents.forget_pending(inode);
        contents.sync(inode);
        assert_eq!(after(&contents, Loss::Unsynced), [files("aaaabbbbcccc", false)].into());
        assert_eq!(contents.seen(inode), b"aa1111222222222");
    }

    #[test]
    fn a_deleted_file_may_come_back() {
        let (mut contents, _) = contents();
        contents.delete("a");
        assert_eq!(contents.named("a"), None);
        assert_eq!(after(&contents, Loss::Unsynced), [files("aaaabbbbcccc", false)].into());
        contents.sync_names();
        assert_eq!(contents.after(Loss::Unsynced, 4, &mut Random::new([0; 32])).all().count(), 1);
    }
}
