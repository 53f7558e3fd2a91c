//! The gate worker: this program run again, to read foreign bytes where it harms nobody if they hang or kill it.
//!
//! It answers frames until its input ends. Its memory is bounded by the system, its time by who started it. A panic
//! or a failed allocation ends it, which is an answer too. Should its parent be gone, it ends even in mid-check.

use std::io::{self, Read, Write};
use std::time::Duration;

use driftlog_core::rich::{Candidate, ChangeRefusal, RichActor};

use super::wire::{self, Answer, Change, Found, HEAD_BYTES, Task};

/// How often a worker looks whether its parent is still there.
const PARENT_CHECK: Duration = Duration::from_secs(1);

/// Reads a rich change by itself: [`driftlog_core::rich::inspect`], or what a test does in its place.
pub type Inspect = fn(&Candidate<'_>) -> Result<usize, ChangeRefusal>;

/// Runs this process as a gate worker until its standard input ends, in at most so many bytes of memory.
///
/// # Errors
/// The bound is refused by the system, or standard input or output fails.
pub fn run(memory_bytes: u64, inspect: Inspect) -> io::Result<()> {
    bound(memory_bytes)?;
    watch_parent()?;
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    while let Some(task) = receive(&mut input)? {
        let answer = Answer::new(task.changes.iter().map(|change| read(change, inspect)));
        output.write_all(&wire::frame(&answer))?;
        output.flush()?;
    }
    Ok(())
}

fn read(change: &Change, inspect: Inspect) -> Found {
    let candidate = Candidate { bytes: &change.bytes, actor: RichActor(change.actor) };
    inspect(&candidate).map_err(|refusal| refusal.to_string())
}

/// The next task; none at the end.
fn receive(input: &mut impl Read) -> io::Result<Option<Task>> {
    let mut head = [0; HEAD_BYTES];
    match input.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let mut content = vec![0; wire::content_bytes(head).map_err(io::Error::other)?];
    input.read_exact(&mut content)?;
    wire::value(head, &content).map(Some).map_err(io::Error::other)
}

#[cfg(unix)]
fn bound(memory_bytes: u64) -> io::Result<()> {
    use rlimit::Resource;
    // A core file of what foreign bytes did to it is nothing to keep.
    Resource::CORE.set(0, 0)?;
    Resource::AS.set(memory_bytes, memory_bytes)
}

#[cfg(not(unix))]
fn bound(_: u64) -> io::Result<()> {
    Ok(())
}

/// Ends the process when its parent is gone, whatever its main thread does.
#[cfg(unix)]
fn watch_parent() -> io::Result<()> {
    let parent = std::os::unix::process::parent_id();
    std::thread::Builder::new().name("parent".to_owned()).stack_size(64 * 1024).spawn(move || {
        while std::os::unix::process::parent_id() == parent {
            std::thread::sleep(PARENT_CHECK);
        }
        std::process::abort();
    })?;
    Ok(())
}

#[cfg(not(unix))]
fn watch_parent() -> io::Result<()> {
    Ok(())
}
