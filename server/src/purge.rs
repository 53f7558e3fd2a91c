//! Purging: what is over, or erased, is taken out of the store from time to time.
//!
//! **Within what time:** an event whose lifetime is over is delivered to nobody from then on. Its body is out of the
//! tables with the next purge (every [`Config::purge`](crate::Config), 10 seconds where nothing is said), a thousand at
//! a time. Copies that moved rows left behind are overwritten from then on, 16 MB of the file with each purge; and the
//! database's own log is cut with each until nobody reads at the end of one.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::writer::{Request, WriterHandle};

/// Asks the writer to purge from time to time, until it is aborted.
pub(crate) fn start(writer: WriterHandle, every: Duration) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let (reply, answer) = oneshot::channel();
            if !writer.send(Request::Purge(reply)) {
                return;
            }
            // Steps follow each other while there is something to do; pushes go between them.
            if answer.await != Ok(true) {
                tokio::time::sleep(every).await;
            }
        }
    })
}
