//! Sweeping: what rows left behind where they lay before is overwritten.
//!
//! `secure_delete` overwrites a row where it lies. Where SQLite balanced a tree before, the row lies on another page
//! now, and the copy that was moved stays in the gap between the pointers and the cells of the old one: nothing reads
//! it, and nothing overwrites it either. So behind a purge every page of a tree has its gap zeroed, some pages in each
//! transaction, from the end of the file to its beginning: SQLite moves whole pages only towards the beginning.
//!
//! The layout of pages and of the map that says what each one is: <https://www.sqlite.org/fileformat2.html>, sections
//! 1.6 and 1.8.

use rusqlite::{OptionalExtension, params};

use super::write::Writes;
use crate::store::StoreError;

/// Kinds of page, in the map of pages, that belong to a tree: its root, and every other.
const TREE_KINDS: [u8; 2] = [1, 5];
/// Bytes of an entry of the map of pages: a kind, and the number of a parent.
const MAP_ENTRY_BYTES: usize = 5;
/// The first page that is part of the map; the one before begins the tree of the schema.
const MAP_FIRST: u32 = 2;

/// How far the pages are swept.
#[derive(Debug)]
pub(crate) struct Sweep {
    /// Pages from this one on are swept; none if all are.
    below: Option<u32>,
    /// Something was purged since, so that they have to be swept once more.
    again: bool,
}

impl Sweep {
    /// What was purged before a server started may not have been swept.
    pub(crate) fn new() -> Self {
        Self { below: Some(u32::MAX), again: false }
    }

    /// Something was purged.
    pub(crate) fn begin(&mut self) {
        match self.below {
            Some(_) => self.again = true,
            None => self.below = Some(u32::MAX),
        }
    }
}

impl Writes<'_> {
    /// Sweeps at most so many pages; whether there were any to sweep.
    pub(crate) fn sweep(self, sweep: &mut Sweep, pages_max: u32) -> Result<bool, StoreError> {
        let Some(below) = sweep.below else { return Ok(false) };
        let pages: u32 = self.0.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        let end = below.min(pages.saturating_add(1));
        let start = end.saturating_sub(pages_max).max(MAP_FIRST);
        for page in (start..end).rev() {
            self.sweep_page(page)?;
        }
        sweep.below = match start {
            MAP_FIRST if std::mem::take(&mut sweep.again) => Some(u32::MAX),
            MAP_FIRST => None,
            start => Some(start),
        };
        Ok(true)
    }

    fn sweep_page(self, page: u32) -> Result<(), StoreError> {
        let Some(mut bytes) = self.page(page)? else { return Ok(()) };
        let (map, entry) = place_in_map(page, bytes.len());
        if map == page {
            return Ok(());
        }
        let kind = self.page(map)?.and_then(|map| map.get(entry).copied());
        if !kind.is_some_and(|kind| TREE_KINDS.contains(&kind)) {
            return Ok(());
        }
        // A damaged page is told of by who reads its rows.
        let Some(gap) = gap(&bytes).and_then(|gap| bytes.get_mut(gap)) else { return Ok(()) };
        if gap.iter().any(|byte| *byte != 0) {
            gap.fill(0);
            let mut statement = self.0.prepare_cached("UPDATE sqlite_dbpage SET data = ?2 WHERE pgno = ?1")?;
            statement.execute(params![page, bytes])?;
        }
        Ok(())
    }

    fn page(self, page: u32) -> Result<Option<Vec<u8>>, StoreError> {
        let mut statement = self.0.prepare_cached("SELECT data FROM sqlite_dbpage WHERE pgno = ?1")?;
        Ok(statement.query_row([page], |row| row.get(0)).optional()?)
    }
}

/// The page of the map that says what a page is, and where on it. A page of the map is its own. Where a system may lock
/// the file there would be none; with pages of 4,096 bytes that place never comes.
fn place_in_map(page: u32, page_bytes: usize) -> (u32, usize) {
    let entries = (page_bytes / MAP_ENTRY_BYTES) as u32;
    let map = (page - MAP_FIRST) / (entries + 1) * (entries + 1) + MAP_FIRST;
    (map, page.saturating_sub(map + 1) as usize * MAP_ENTRY_BYTES)
}

/// What lies between the pointers and the cells of a page of a tree; none if it is none.
fn gap(page: &[u8]) -> Option<std::ops::Range<usize>> {
    let number = |at: usize| Some(usize::from(u16::from_be_bytes([*page.get(at)?, *page.get(at + 1)?])));
    let header = match page.first()? {
        2 | 5 => 12,
        10 | 13 => 8,
        _ => return None,
    };
    let start = header + 2 * number(3)?;
    let end = number(5)?;
    (start <= end).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::{Sweep, gap, place_in_map};
    use crate::store::Store;

    const SECRET: &[u8] = b"a secret";

    #[test]
    fn what_moved_rows_left_behind_is_overwritten() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut writer = Store::open(directory.path(), None).expect("opens").writer().expect("writes");
        let secrets = |writer: &mut super::super::Writer| {
            assert!(writer.checkpoint().expect("cuts"));
            let file = std::fs::read(directory.path().join("driftlog.sqlite")).expect("reads");
            file.windows(SECRET.len()).filter(|part| *part == SECRET).count()
        };
        // In no order, so that full pages are split in their middle, and of many sizes.
        let places = (0..2_000_i64).map(|number| number * 617 % 2_000);
        let rows = writer.commit(|writes| {
            writes.0.execute_batch("CREATE TABLE rows (place INTEGER PRIMARY KEY, bytes BLOB) WITHOUT ROWID")?;
            let mut put = writes.0.prepare("REPLACE INTO rows VALUES (?1, ?2)")?;
            for place in places.clone() {
                let more = vec![b'.'; (place * 7_919 % 200) as usize];
                put.execute((place, [SECRET, &more].concat()))?;
            }
            places.clone().try_for_each(|place| put.execute((place, b"gone")).map(drop))?;
            Ok(())
        });
        rows.expect("writes");
        assert!(secrets(&mut writer) > 0, "rows that were moved left something behind");
        let mut sweep = Sweep::new();
        let mut steps = 0;
        while writer.commit(|writes| writes.sweep(&mut sweep, 3)).expect("sweeps") {
            steps += 1;
        }
        assert_eq!(secrets(&mut writer), 0);
        sweep.begin();
        sweep.begin();
        assert!(steps > 2 && writer.commit(|writes| writes.sweep(&mut sweep, u32::MAX)).expect("sweeps again"));
        let whole: String = writer
            .commit(|writes| Ok(writes.0.query_row("PRAGMA integrity_check", [], |row| row.get(0))?))
            .expect("checks");
        assert_eq!(whole, "ok");
    }

    #[test]
    fn a_page_finds_its_entry_in_the_map() {
        assert_eq!(place_in_map(2, 4_096), (2, 0));
        assert_eq!(place_in_map(3, 4_096), (2, 0));
        assert_eq!(place_in_map(821, 4_096), (2, 4_090));
        assert_eq!(place_in_map(822, 4_096).0, 822);
        assert_eq!(place_in_map(823, 4_096), (822, 0));
        assert_ne!(place_in_map(262_145, 4_096).0, 262_145, "the page that a system may lock");
    }

    #[test]
    fn a_gap_is_between_pointers_and_cells() {
        let mut page = vec![7_u8; 512];
        page[..8].copy_from_slice(&[10, 0, 0, 0, 2, 1, 0, 0]);
        assert_eq!(gap(&page), Some(12..256));
        page[0] = 2;
        assert_eq!(gap(&page), Some(16..256));
        page[4] = 255;
        assert_eq!(gap(&page), None, "more pointers than there is room for");
        page[0] = 0;
        assert_eq!(gap(&page), None, "no page of a tree");
    }
}
