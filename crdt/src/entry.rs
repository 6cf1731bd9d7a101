//! The unit of replication.

use bytes::Bytes;

use crate::ids::{DocumentId, DocumentName, Origin, Sequence, Timestamp};

/// One admitted change: immutable, numbered by the leader that admitted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The incarnation of the leader that admitted the change.
    pub origin: Origin,
    /// Its place in that leader's log; gap-free.
    pub sequence: Sequence,
    /// The document that the change belongs to.
    pub document: DocumentId,
    /// The document's name; present in every entry whose change has no dependencies, because such
    /// a change starts the document.
    pub name: Option<DocumentName>,
    /// When the leader admitted the change, by its hybrid clock.
    pub admitted: Timestamp,
    /// The bytes of the Automerge change, uncompressed, exactly as hashed.
    pub change: Bytes,
}

impl Entry {
    /// Returns the identity of the entry.
    #[must_use]
    pub fn dot(&self) -> Dot {
        Dot { origin: self.origin, sequence: self.sequence }
    }
}

/// The identity of an entry: who admitted it, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// The incarnation of the leader that admitted the entry.
    pub origin: Origin,
    /// Its number in that leader's log.
    pub sequence: Sequence,
}
