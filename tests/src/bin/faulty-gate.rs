//! A gate worker with faults: marked changes do to it what bytes could do that find a hole in the real one.
//!
//! Without an argument it works, apart from marked changes. With the path of a file it ends at once until that file is
//! there, like a worker that cannot start.

use driftlog_core::rich::{Candidate, ChangeRefusal, inspect};

const MEMORY_BYTES: u64 = 1024 * 1024 * 1024;

fn main() -> std::io::Result<()> {
    if let Some(path) = std::env::args_os().nth(1)
        && !std::path::Path::new(&path).exists()
    {
        return Err(std::io::Error::other("broken"));
    }
    driftlog_server::gate_worker(MEMORY_BYTES, faulty)
}

fn faulty(change: &Candidate<'_>) -> Result<usize, ChangeRefusal> {
    let is_marked = |mark: &str| change.bytes.windows(mark.len()).any(|bytes| bytes == mark.as_bytes());
    if is_marked("<endless>") {
        loop {
            std::hint::spin_loop();
        }
    }
    if is_marked("<swells>") {
        let mut all = Vec::new();
        loop {
            // Asked for and not touched: it is the bound that ends this, not a slow machine.
            all.push(std::hint::black_box(Vec::<u8>::with_capacity(16 * 1024 * 1024)));
        }
    }
    assert!(!is_marked("<panics>"), "a hole");
    inspect(change)
}
