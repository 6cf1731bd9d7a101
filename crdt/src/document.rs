//! Documents: the one place that touches Automerge.

use bytes::Bytes;
use serde_json::Value;

use crate::edit::{Edit, EditError};
use crate::ids::{ChangeHash, Origin, Timestamp};
use crate::policy::Policies;

/// Who makes a change, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// The writer's incarnation, which becomes the Automerge actor.
    pub origin: Origin,
    /// The time of the change, by the writer's hybrid clock.
    pub at: Timestamp,
    /// A note that is kept in the change.
    pub message: Option<String>,
}

/// One change, as it is stored and sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub hash: ChangeHash,
    /// Its bytes, uncompressed.
    pub bytes: Bytes,
}

/// Bytes that Automerge does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not applicable: {0}")]
pub struct ApplyError(pub String);

/// A document in memory.
#[derive(Debug, Clone)]
pub struct Document {}

impl Document {
    /// Makes an empty document.
    #[must_use]
    pub fn new() -> Self {
        todo!()
    }

    /// Loads a document from a snapshot made by [`Document::save`].
    ///
    /// # Errors
    /// The bytes are no snapshot, or are damaged.
    pub fn load(snapshot: &[u8]) -> Result<Self, ApplyError> {
        let _ = snapshot;
        todo!()
    }

    /// Returns the document as one chunk of bytes; replicas that are equal may differ in them.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        todo!()
    }

    /// Applies changes of other writers, in any order; known ones are skipped.
    ///
    /// # Errors
    /// A change is damaged or does not fit; nothing of the batch is applied then.
    pub fn apply(&mut self, changes: &[Bytes]) -> Result<(), ApplyError> {
        let _ = changes;
        todo!()
    }

    /// Applies edits as one change, all or none; `None` if they change nothing.
    ///
    /// # Errors
    /// See [`EditError`]; the document is as before.
    pub fn edit(
        &mut self,
        edits: &[Edit],
        author: &Author,
        policies: &Policies,
    ) -> Result<Option<Change>, EditError> {
        let _ = (edits, author, policies);
        todo!()
    }

    /// Deletes the document by one change.
    pub fn delete(&mut self, author: &Author) -> Option<Change> {
        let _ = author;
        todo!()
    }

    /// Returns the JSON that shows under the policies; `None` for a document that was deleted or
    /// never written.
    #[must_use]
    pub fn value(&self, policies: &Policies) -> Option<Value> {
        let _ = policies;
        todo!()
    }

    /// Returns the frontier, sorted.
    #[must_use]
    pub fn heads(&self) -> Vec<ChangeHash> {
        todo!()
    }

    /// Returns every change that is not an ancestor of `heads` (unknown heads count as nothing),
    /// in causal order.
    #[must_use]
    pub fn changes_since(&self, heads: &[ChangeHash]) -> Vec<Change> {
        let _ = heads;
        todo!()
    }
}

impl Default for Document {
    fn default() -> Self {
        Self::new()
    }
}
