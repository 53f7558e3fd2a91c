//! Worker processes, at most so many: started when needed, asked one task at a time, killed when they fail.

use std::process::Stdio;
use std::time::Duration;

use driftlog_core::rich::{Document, RichActor, Splice};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Semaphore;

use super::wire::{self, Answer, Change, Found, HEAD_BYTES, Task};
use super::{GateWorkers, lock};

/// Pauses between attempts to get a worker that works.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a worker that has closed its pipes may take to end by itself, so that it can be said what it died of.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// A task brought its worker down. Shown to the author of the entry.
#[derive(Debug, thiserror::Error)]
pub(super) enum Death {
    /// It did not come back.
    #[error("checking the change took longer than {0:?}")]
    Patience(Duration),
    /// It ended: out of memory, a panic, a crash.
    #[error("checking the change brought the check down ({0})")]
    Ended(String),
}

/// Workers for tasks of one sort.
pub(super) struct Pool {
    workers: GateWorkers,
    permits: Semaphore,
    idle: std::sync::Mutex<Vec<Worker>>,
}

struct Worker {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Pool {
    pub(super) fn new(workers: GateWorkers, count: usize) -> Self {
        Self { workers, permits: Semaphore::new(count), idle: std::sync::Mutex::default() }
    }

    /// Gives a task to a worker that is known to work; waits for one as long as it takes. What it found stands in the
    /// order of the changes.
    ///
    /// # Errors
    /// [`Death`]: the task is to blame, as far as one can tell; the worker is gone.
    pub(super) async fn run(&self, task: &Task) -> Result<Vec<Found>, Death> {
        // The semaphore is never closed; without a permit there would only be more workers for a moment.
        let _permit = self.permits.acquire().await;
        let idle = lock(&self.idle).pop();
        let mut worker = match idle {
            Some(worker) => worker,
            None => self.start().await,
        };
        match worker.ask(task, self.workers.patience).await {
            Ok(found) => {
                lock(&self.idle).push(worker);
                Ok(found)
            }
            Err(death) => Err(worker.bury(death).await),
        }
    }

    /// Starts workers until one reads a good change.
    async fn start(&self) -> Worker {
        let mut pause = PAUSE_MIN;
        loop {
            match self.try_start().await {
                Ok(worker) => return worker,
                Err(reason) => {
                    tracing::error!(%reason, "no gate worker starts; rich changes wait until one does");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    async fn try_start(&self) -> Result<Worker, String> {
        let mut worker = Worker::spawn(&self.workers).map_err(|error| error.to_string())?;
        // Starting a process on a busy machine takes longer than any check.
        match worker.ask(&probe(), self.workers.patience * 5).await {
            Ok(found) if found.iter().all(Result::is_ok) => Ok(worker),
            Ok(_) => Err("it does not take a good change".to_owned()),
            Err(death) => Err(worker.bury(death).await.to_string()),
        }
    }
}

impl Worker {
    fn spawn(workers: &GateWorkers) -> std::io::Result<Self> {
        let mut child = Command::new(&workers.program)
            .args(&workers.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(input), Some(output)) => Ok(Self { child, input, output }),
            _ => Err(std::io::Error::other("a worker without pipes")),
        }
    }

    async fn ask(&mut self, task: &Task, patience: Duration) -> Result<Vec<Found>, Death> {
        match tokio::time::timeout(patience, self.exchange(task)).await {
            Ok(Ok(answer)) => {
                let found = answer.found();
                let (got, expected) = (found.len(), task.changes.len());
                if got == expected {
                    Ok(found)
                } else {
                    Err(Death::Ended(format!("{got} answers to {expected} changes")))
                }
            }
            Ok(Err(error)) => Err(Death::Ended(error.to_string())),
            Err(_) => Err(Death::Patience(patience)),
        }
    }

    async fn exchange(&mut self, task: &Task) -> std::io::Result<Answer> {
        self.input.write_all(&wire::frame(task)).await?;
        let mut head = [0; HEAD_BYTES];
        self.output.read_exact(&mut head).await?;
        let mut content = vec![0; wire::content_bytes(head).map_err(std::io::Error::other)?];
        self.output.read_exact(&mut content).await?;
        wire::value(head, &content).map_err(std::io::Error::other)
    }

    /// Sees to it that it is gone, and says what it died of.
    async fn bury(mut self, death: Death) -> Death {
        if let Death::Ended(_) = death
            && let Ok(Ok(status)) = tokio::time::timeout(END_PATIENCE, self.child.wait()).await
        {
            return Death::Ended(status.to_string());
        }
        // There is nothing else to do if it cannot be killed.
        let _ = self.child.kill().await;
        death
    }
}

/// A change that every worker must read.
fn probe() -> Task {
    let actor = RichActor(*b"driftlog probe--");
    let splice = Splice { at: 0, delete: 0, insert: "probe".to_owned() };
    let bytes = Document::genesis().edit(actor, &[splice]).unwrap_or_default();
    Task { changes: vec![Change { actor: actor.0, bytes }] }
}
