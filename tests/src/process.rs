//! The server binary as a process of its own, for what must be killed.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// A running server. It is killed when this is dropped.
pub struct Process {
    /// Where it listens: `host:port`.
    pub url: String,
    child: Child,
}

impl Process {
    /// Spawns the binary over a directory, without authentication, and waits until it listens.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn spawn(directory: &Path) -> Self {
        Self::spawn_with(directory, &[]).await
    }

    /// Spawns it with more arguments of `serve`.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn spawn_with(directory: &Path, args: &[&str]) -> Self {
        Self::start(&binary(), directory, args).await.expect("the server starts")
    }

    /// Spawns a binary over a directory.
    ///
    /// # Errors
    /// The system's, or that it ended before it listened.
    pub async fn start(binary: &Path, directory: &Path, args: &[&str]) -> io::Result<Self> {
        let mut child = Command::new(binary)
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data"])
            .arg(directory)
            .args(args)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("its output is not piped"))?;
        let line = BufReader::new(stdout).lines().next_line().await?.unwrap_or_default();
        match line.strip_prefix("listening on http://") {
            Some(url) => Ok(Self { url: url.to_owned(), child }),
            None => Err(io::Error::other(format!("it does not listen: {line:?}"))),
        }
    }

    /// Bytes of memory that it holds.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn resident_bytes(&self) -> io::Result<u64> {
        let pid = self.child.id().ok_or_else(|| io::Error::other("it has ended"))?;
        resident_bytes(pid)
    }

    /// Time that it has had of a processor, in steps of 10 ms.
    ///
    /// # Errors
    /// The system does not tell, or is not Linux.
    pub fn processor_time(&self) -> io::Result<Duration> {
        let pid = self.child.id().ok_or_else(|| io::Error::other("it has ended"))?;
        processor_time(pid)
    }

    /// kill -9, and waits until it is gone.
    ///
    /// # Panics
    /// If the system does not kill it.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("killed");
    }
}

/// Bytes of memory that a process holds: what Linux says, else what `ps` does.
///
/// # Errors
/// Neither tells.
pub fn resident_bytes(pid: u32) -> io::Result<u64> {
    let kilobytes = match std::fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) => {
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        }
        Err(_) => {
            let output = std::process::Command::new("ps").args(["-o", "rss=", "-p", &pid.to_string()]).output()?;
            String::from_utf8_lossy(&output.stdout).trim().parse().ok()
        }
    };
    let kilobytes: Option<u64> = kilobytes;
    kilobytes.map(|kilobytes| kilobytes * 1024).ok_or_else(|| io::Error::other("its memory is not told"))
}

/// Time that a process has had of a processor, in steps of 10 ms.
///
/// # Errors
/// The system does not tell, or is not Linux.
pub fn processor_time(pid: u32) -> io::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name in brackets; the 14th and 15th of all fields, in ticks of a hundredth of a second.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = [11, 12].map(|at| fields.get(at).and_then(|ticks| ticks.parse::<u64>().ok()));
    let [Some(user), Some(system)] = ticks else { return Err(io::Error::other("no times in the status")) };
    Ok(Duration::from_millis(10 * (user + system)))
}

/// Runs `driftlog-server verify` over a directory.
///
/// # Errors
/// The system's.
pub async fn verify(binary: &Path, directory: &Path, args: &[&str]) -> io::Result<Output> {
    Command::new(binary).args(["verify", "--data"]).arg(directory).args(args).output().await
}

/// The binary beside this one: the same build, found without asking cargo.
///
/// # Panics
/// If it is not built.
pub fn binary() -> PathBuf {
    let mut path = std::env::current_exe().expect("a path");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    let binary = path.join(format!("driftlog-server{}", std::env::consts::EXE_SUFFIX));
    assert!(binary.exists(), "build it first: cargo build -p driftlog-server ({})", binary.display());
    binary
}
