//! What stands in for automerge in a build without it: nothing can be saved or opened.

use thiserror::Error;

use super::change::{ChangeHash, TextChange};

/// Why a rich document cannot be saved or opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The crate was built without the feature `rich`.
    #[error("rich fields are not part of this build")]
    NotCompiled,
    /// Never returned without the feature `rich`.
    #[error("corrupt rich document of {bytes} bytes: {reason}")]
    Corrupt {
        /// Bytes given.
        bytes: usize,
        /// What is wrong with them.
        reason: String,
    },
}

#[derive(Debug, Clone)]
pub(super) struct Kernel;

impl Kernel {
    pub(super) fn empty() -> Self {
        Self
    }

    pub(super) fn load(_: &[u8]) -> Result<(Self, Vec<Vec<u8>>), KernelError> {
        Err(KernelError::NotCompiled)
    }

    pub(super) fn save(&self) -> Result<Vec<u8>, KernelError> {
        Err(KernelError::NotCompiled)
    }

    pub(super) fn apply(&mut self, _: &[Vec<u8>], _: &[ChangeHash], _: &str) -> Result<(), KernelError> {
        Err(KernelError::NotCompiled)
    }
}

/// Nothing can be said without automerge.
pub(super) fn reads(_: &[u8], _: &TextChange, _: &ChangeHash) -> Result<(), String> {
    Ok(())
}
