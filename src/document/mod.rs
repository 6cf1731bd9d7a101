//! Documents: the owners and the one commit path.
//!
//! Invariant: a change is journaled before it is acknowledged, published or sent.

use std::sync::Arc;
use std::time::Duration;

use anabranch_crdt::conflict::{Conflict, ConflictId, ConflictState};
use anabranch_crdt::document::Change;
use anabranch_crdt::edit::Edit;
use anabranch_crdt::ids::{
    ChangeHash, CollectionName, DocumentId, DocumentKey, DocumentName, Origin, RegionName,
};
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;
use serde_json::Value;

use crate::error::Error;
use crate::journal::Position;

/// The digest of a document's heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 16]);

/// What must hold for a write to happen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// The document exists and has one of these digests (`If-Match`); empty means any (`*`).
    Match(Vec<Digest>),
    /// The document has none of these digests (`If-None-Match`); empty means it must not exist (`*`).
    NoneMatch(Vec<Digest>),
}

/// What a request wants changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Make the document equal to this object, by the fewest edits.
    Put(Value),
    /// Apply an RFC 7396 merge patch.
    MergePatch(Value),
    /// Apply an RFC 6902 patch.
    JsonPatch(Value),
    /// Apply edits as they are.
    Edits(Vec<Edit>),
    /// Delete the document.
    Delete,
}

/// A document as a read answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its id.
    pub id: DocumentId,
    /// The digest of its heads.
    pub digest: Digest,
    /// Open conflicts.
    pub conflicts: u32,
    /// Canonical JSON.
    pub json: Bytes,
}

/// What a write did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The document after the write; `None` after a delete.
    pub document: Option<Document>,
    /// Whether the write made the document.
    pub created: bool,
    /// What is durable here, the write included.
    pub position: Arc<Position>,
}

/// How to settle a conflict.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolution {
    /// Take the candidate with this id.
    Take(String),
    /// Write this value instead.
    Value(Value),
}

/// Which conflicts to list.
#[derive(Debug, Clone, Default)]
pub struct ConflictFilter {
    /// Only of this collection.
    pub collection: Option<CollectionName>,
    /// Only of this document.
    pub document: Option<DocumentName>,
    /// Only in this state.
    pub state: Option<ConflictState>,
    /// Only after this one, in listing order.
    pub after: Option<ConflictId>,
    /// At most so many; 1 to 1,000.
    pub limit: usize,
}

/// A conflict with the names that people know.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedConflict {
    /// The document's name, if it has one.
    pub name: Option<DocumentName>,
    /// The row of the ledger.
    pub conflict: Conflict,
}

/// The documents of this node: cheap to clone, safe to share.
#[derive(Debug, Clone)]
pub struct Documents {}

impl Documents {
    /// Writes a document, and returns once the write is durable here.
    ///
    /// # Errors
    /// `Invalid`, `NotFound` (a patch of what does not exist), `Precondition`, `TooLarge`,
    /// `Overloaded`, `Unavailable`.
    ///
    /// # Cancel safety
    /// A write whose future is dropped may still happen.
    pub async fn write(
        &self,
        name: DocumentName,
        write: Write,
        precondition: Precondition,
    ) -> Result<Written, Error> {
        let _ = (name, write, precondition);
        todo!()
    }

    /// Reads a document in a state that reflects every entry journaled so far; `None` if there is
    /// no such document or it was deleted.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub async fn read(&self, name: &DocumentName) -> Result<Option<Document>, Error> {
        let _ = name;
        todo!()
    }

    /// Lists live documents in key order.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub async fn list(
        &self,
        collection: &CollectionName,
        prefix: &str,
        after: Option<&DocumentKey>,
        limit: usize,
    ) -> Result<Vec<(DocumentKey, Document)>, Error> {
        let _ = (collection, prefix, after, limit);
        todo!()
    }

    /// Lists conflicts in a stable order.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub async fn conflicts(&self, filter: ConflictFilter) -> Result<Vec<NamedConflict>, Error> {
        let _ = filter;
        todo!()
    }

    /// Reads one conflict.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`, `Unavailable`.
    pub async fn conflict(&self, id: ConflictId) -> Result<NamedConflict, Error> {
        let _ = id;
        todo!()
    }

    /// Settles a conflict by one ordinary, replicated change that supersedes every candidate.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` with code `already_resolved`; `Invalid` for an unknown candidate.
    pub async fn resolve(
        &self,
        id: ConflictId,
        resolution: Resolution,
        note: Option<String>,
    ) -> Result<(NamedConflict, Written), Error> {
        let _ = (id, resolution, note);
        todo!()
    }

    /// Admits changes that an offline-first client made, as entries of this leader, and returns
    /// once they are durable. Changes that are known already are skipped.
    ///
    /// # Errors
    /// `Invalid` with the reason, and nothing is admitted; `Overloaded`, `Unavailable`.
    pub async fn admit(
        &self,
        name: DocumentName,
        changes: Vec<Bytes>,
    ) -> Result<Arc<Position>, Error> {
        let _ = (name, changes);
        todo!()
    }

    /// Returns the changes of a document that are no ancestors of `heads`, in causal order.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub async fn changes_since(
        &self,
        name: DocumentName,
        heads: Vec<ChangeHash>,
    ) -> Result<Vec<Change>, Error> {
        let _ = (name, heads);
        todo!()
    }

    /// Returns what is durable here now.
    #[must_use]
    pub fn position(&self) -> Arc<Position> {
        todo!()
    }

    /// Waits until everything in `vector` is durable here.
    ///
    /// # Errors
    /// `Stale` after `limit`, saying how many entries are missing.
    pub async fn wait_for(&self, vector: &VersionVector, limit: Duration) -> Result<(), Error> {
        let _ = (vector, limit);
        todo!()
    }

    /// Returns the region of an origin, if it is known.
    #[must_use]
    pub fn region_of(&self, origin: Origin) -> Option<RegionName> {
        let _ = origin;
        todo!()
    }

    /// Returns this node's region.
    #[must_use]
    pub fn region(&self) -> &RegionName {
        todo!()
    }
}
