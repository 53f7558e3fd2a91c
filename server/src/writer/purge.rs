//! The writer's part in purging: bodies of what has expired or was erased go between pushes, some in each transaction.

use driftlog_core::id::{LogName, Offset};
use tokio::sync::oneshot;

use super::{Effect, LogWriter};
use crate::store::{StoreError, Writes};

/// Bodies of events taken out in one transaction.
const STEP_ENTRIES: usize = 1_000;
/// Pages swept in one transaction, of 4,096 bytes: a gigabyte in ten minutes with a purge every ten seconds.
const STEP_PAGES: u32 = 4_096;

impl LogWriter {
    /// Takes a step: what has expired, and what is to be erased. The answer says whether there is more to do.
    pub(super) fn purge(&mut self, writes: Writes<'_>, reply: oneshot::Sender<bool>) -> Result<Effect, StoreError> {
        let (mut touched, mut more) = self.erase_on(writes)?;
        let expired = writes.purge_expired(self.environment.now(), STEP_ENTRIES)?;
        more |= expired.count == STEP_ENTRIES;
        touched.extend(expired.logs.into_iter().map(|log| (log.name, Offset(0))));
        self.purged(&touched);
        self.uncut |= writes.sweep(&mut self.sweep, STEP_PAGES)?;
        self.go_round(writes.reads())?;
        Ok(told(touched, Some((reply, more))))
    }

    /// Carries erases on; a snapshot was stored that one may wait for.
    pub(super) fn erase_behind_snapshot(&mut self, writes: Writes<'_>) -> Result<Effect, StoreError> {
        let (touched, _) = self.erase_on(writes)?;
        self.purged(&touched);
        Ok(told(touched, None))
    }

    fn purged(&mut self, touched: &[(LogName, Offset)]) {
        if !touched.is_empty() {
            self.took_out();
        }
    }

    /// Something is out of the tables: pages and the store's own log may hold it until they are swept and cut.
    pub(super) fn took_out(&mut self) {
        self.sweep.begin();
        self.uncut = true;
    }
}

fn told(touched: Vec<(LogName, Offset)>, reply: Option<(oneshot::Sender<bool>, bool)>) -> Effect {
    Box::new(move |feeds| {
        touched.iter().for_each(|(name, below)| feeds.forget(name, *below));
        if let Some((reply, more)) = reply {
            let _ = reply.send(more);
        }
    })
}
