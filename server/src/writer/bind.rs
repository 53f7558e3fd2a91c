//! The writer's part in hellos: who an actor is, and that its connection was heard of.

use driftlog_core::connection::ConnectionId;
use driftlog_core::id::UserId;
use driftlog_core::protocol::frame::{Hello, Nonce};
use driftlog_core::sequencer::{BindError, Binding};
use driftlog_core::time::WallMs;

use super::Greeted;
use crate::store::{ConnectionNote, StoreError, Writes};

/// Characters kept of what a device calls itself.
const DEVICE_CHARS_MAX: usize = 200;

/// Binds an actor. A damaged binding keeps its actor out, and nobody else.
pub(super) fn bind(
    writes: Writes<'_>,
    now: WallMs,
    hello: &Hello,
    user: &UserId,
    nonce: Nonce,
) -> Result<Result<Greeted, BindError>, StoreError> {
    let bind = || -> Result<_, StoreError> {
        let stored = writes.reads().binding(hello.actor)?.map(|(_, binding)| binding);
        let bound = Binding::hello(stored.as_ref(), hello, user, nonce);
        match bound {
            Ok(binding) => {
                writes.put_binding(hello.actor, &binding)?;
                let id = ConnectionId { user: user.clone(), client: hello.client };
                let device: String = hello.device.chars().take(DEVICE_CHARS_MAX).collect();
                let was = writes.greet_connection(now, &id, hello.actor, &device)?;
                Ok(Ok(Greeted { was, nonce: binding.nonce() }))
            }
            Err(error) => {
                if stored.is_none() {
                    // Forgotten, or not found.
                    writes.check_bindings()?;
                }
                Ok(Err(error))
            }
        }
    };
    match bind() {
        Err(error) if error.is_corruption() => {
            tracing::error!(actor = %hello.actor, %error, "an actor's binding is damaged; others go on");
            Ok(Err(BindError::Damaged))
        }
        bound => bound,
    }
}

/// A note that cannot be written is written again when its client comes.
pub(super) fn note_connection(writes: Writes<'_>, note: &ConnectionNote) -> Result<(), StoreError> {
    match writes.note_connection(note) {
        Err(error) if error.is_corruption() => {
            tracing::error!(user = %note.id.user, client = %note.id.client, %error, "a connection is not written");
            Ok(())
        }
        written => written,
    }
}
