//! Documents: the one place that touches Automerge.
//!
//! A [`Document`] holds one Automerge document. Edits become one change each; changes of other
//! writers are applied in causal order, and what they collided with is found on the way in (see
//! [`Applied`]), because Automerge itself raises no flag for several kinds of collision.
//!
//! # Why winners are computed on read as well as written
//!
//! Automerge shows the greatest operation id, and no timestamp can change that. Under `lww` the
//! JSON here follows the greatest (timestamp, writer) at once, and [`Document::resolutions`] then
//! makes changes that delete the losing operations, so that stock Automerge readers see the same
//! winner. Such a change is a pure function of the operations it settles: every leader that makes
//! it makes the same bytes, hence the same hash, and the second one is a duplicate.

mod admissions;
mod bundle;
mod collisions;
mod history;
mod ledger;
mod merge;
mod place;
mod ranking;
mod register;
mod resolutions;
mod standin;
mod view;
mod write;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::{ActorId, Automerge, ReadDoc};
use bytes::Bytes;
use serde_json::Value;
use uuid::Uuid;

use crate::clock;
use crate::edit::{Edit, EditError};
use crate::ids::{ChangeHash, Origin, Timestamp};
use crate::message::{self, Message};
use crate::policy::Policies;

use admissions::Admissions;
pub use collisions::{Applied, Collisions};
pub use history::{
    Blamed, Difference, HistoryCursor, HistoryPage, MAX_PATHS, Recorded, differences,
};
pub use ledger::{Flip, Ledger, StoredConflictError, StoredRow};
pub use merge::{MergeError, merge};
pub use place::{Place, Typed};

/// Who makes a change, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// The writer's incarnation, which becomes the Automerge actor.
    pub origin: Origin,
    /// The time of the change, by the writer's hybrid clock.
    pub at: Timestamp,
    /// What the change is for, who asked for it, and why; it is kept in the change.
    pub message: Message,
}

/// One change, as it is stored and sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub hash: ChangeHash,
    /// Its bytes, uncompressed.
    pub bytes: Bytes,
}

/// A change that was admitted somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Its bytes.
    pub change: Bytes,
    /// When it was admitted; the time that its writer claims never counts for more.
    pub at: Timestamp,
    /// The leader that admitted it, if that is known.
    pub by: Option<Origin>,
}

/// Bytes that Automerge does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The bytes are no change or no snapshot, or are damaged.
    #[error("not readable: {0}")]
    Malformed(String),
    /// The change does not fit the document; the document is as before.
    #[error("does not fit the document: {0}")]
    Unfit(String),
    /// Automerge failed in the middle; the document must be dropped and loaded again.
    #[error("automerge failed on it")]
    Failed,
}

/// A document in memory.
#[derive(Debug, Clone, Default)]
pub struct Document {
    doc: Automerge,
    admissions: Admissions,
}

impl Document {
    /// Makes an empty document.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Loads a document from a snapshot made by [`Document::save`].
    ///
    /// # Errors
    /// The bytes are no snapshot, or are damaged.
    pub fn load(snapshot: &[u8]) -> Result<Self, ApplyError> {
        let (admissions, automerge) = Admissions::read(snapshot)?;
        let doc = guarded(|| Automerge::load(automerge))?
            .map_err(|error| ApplyError::Malformed(error.to_string()))?;
        Ok(Self { doc, admissions })
    }

    /// Returns the document as one chunk of bytes; replicas that are equal may differ in them.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let mut bytes = self.admissions.to_bytes();
        bytes.extend_from_slice(&self.doc.save());
        bytes
    }

    /// Applies changes of other writers, in any order; known ones are skipped, and those whose
    /// dependencies are missing are reported as waiting. What collides depends on which
    /// containers the policies take as one value.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub fn apply(
        &mut self,
        changes: &[Admitted],
        policies: &Policies,
    ) -> Result<Applied, ApplyError> {
        collisions::apply(self, changes, policies)
    }

    /// Applies edits as one change, all or none; `None` if they change nothing. Edits of a
    /// document that is not there make it, even when there are none.
    ///
    /// # Errors
    /// See [`EditError`]; the document is as before.
    pub fn edit(
        &mut self,
        edits: &[Edit],
        author: &Author,
        policies: &Policies,
    ) -> Result<Option<Change>, EditError> {
        write::edit(self, edits, author, policies)
    }

    /// Makes a change that writes nothing but its message. A document that is not there stays so.
    pub fn mark(&mut self, author: &Author) -> Change {
        write::mark(self, author)
    }

    /// Deletes the document by one change; `None` if it is not there. The change is a delete unless
    /// its message says that it is for something else.
    pub fn delete(&mut self, author: &Author) -> Option<Change> {
        self.exists().then(|| write::delete(self, author))
    }

    /// Returns the JSON that shows under the policies; `None` for a document that was deleted or
    /// never written.
    #[must_use]
    pub fn value(&self, policies: &Policies) -> Option<Value> {
        self.exists().then(|| view::View::new(&self.doc, policies, &self.admissions).root())
    }

    /// Tells whether the document was written and not deleted. A delete removes every field that
    /// it saw; fields that were written concurrently keep the document alive.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.exists_at(&self.doc, &self.doc.get_heads())
    }

    /// Tells whether the document was there when its heads were these, which `at` reads.
    fn exists_at(&self, at: &impl ReadDoc, heads: &[automerge::ChangeHash]) -> bool {
        let deleting = |head| {
            let meta = self.doc.get_change_meta_by_hash(head);
            meta.and_then(|meta| meta.message).is_some_and(|text| message::is_delete(&text))
        };
        !heads.is_empty() && (at.length(automerge::ROOT) > 0 || !heads.iter().any(deleting))
    }

    /// Returns the frontier, sorted.
    #[must_use]
    pub fn heads(&self) -> Vec<ChangeHash> {
        let mut heads: Vec<_> = self.doc.get_heads().into_iter().map(|h| ChangeHash(h.0)).collect();
        heads.sort_unstable();
        heads
    }

    /// Returns 16 bytes that name the frontier.
    #[must_use]
    pub fn digest(&self) -> [u8; 16] {
        digest(&self.heads())
    }

    /// Counts the changes in the history.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.doc.stats().num_changes
    }

    /// Tells whether the change is in the history.
    #[must_use]
    pub fn contains(&self, hash: ChangeHash) -> bool {
        self.doc.get_change_meta_by_hash(&automerge::ChangeHash(hash.0)).is_some()
    }

    /// Tells whether a change of the history has no dependencies, and so starts the document.
    #[must_use]
    pub fn starts(&self, hash: ChangeHash) -> bool {
        let meta = self.doc.get_change_meta_by_hash(&automerge::ChangeHash(hash.0));
        meta.is_some_and(|meta| meta.deps.is_empty())
    }

    /// Returns every change that is not an ancestor of `heads` (unknown heads count as nothing),
    /// in causal order.
    #[must_use]
    pub fn changes_since(&self, heads: &[ChangeHash]) -> Vec<Change> {
        let known: Vec<_> = heads
            .iter()
            .filter(|head| self.contains(**head))
            .map(|head| automerge::ChangeHash(head.0))
            .collect();
        self.doc.get_changes(&known).iter().map(stored).collect()
    }
}

/// Returns 16 bytes that name sorted heads.
#[must_use]
pub fn digest(heads: &[ChangeHash]) -> [u8; 16] {
    if let [ChangeHash(only)] = heads {
        let mut digest = [0; 16];
        digest.iter_mut().zip(only).for_each(|(to, from)| *to = *from);
        return digest;
    }
    let bytes: Vec<u8> = heads.iter().flat_map(|head| head.0).collect();
    *Uuid::new_v5(&DIGEST_NAMESPACE, &bytes).as_bytes()
}

/// Reads the hash of a change without applying it anywhere.
///
/// # Errors
/// The bytes are no change, or are damaged.
pub fn inspect(bytes: &Bytes) -> Result<ChangeSummary, ApplyError> {
    let change = parse(bytes)?;
    Ok(ChangeSummary {
        hash: ChangeHash(change.hash().0),
        writer: change.actor_id().to_bytes().try_into().map(Origin::from_bytes).ok(),
        claimed: clock::normalise(change.timestamp()),
        first: change.deps().is_empty(),
        message: Message::read(change.message()),
        operations: change.len(),
    })
}

/// What can be said of a change without its document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeSummary {
    /// Its name.
    pub hash: ChangeHash,
    /// Who wrote it; `None` if the actor id does not have 16 bytes.
    pub writer: Option<Origin>,
    /// When it was made, as its writer claims.
    pub claimed: Timestamp,
    /// Whether it has no dependencies, and so starts a document.
    pub first: bool,
    /// What it says of itself.
    pub message: Message,
    /// How many operations it holds.
    pub operations: usize,
}

fn parse(bytes: &Bytes) -> Result<automerge::Change, ApplyError> {
    let change = guarded(|| automerge::Change::from_bytes(bytes.to_vec()))?
        .map_err(|error| ApplyError::Malformed(error.to_string()))?;
    // Automerge takes whatever parses for another change, and so would not see the damage.
    let whole = bytes.get(CHECKSUM) == change.hash().0.get(..CHECKSUM.len());
    if !whole && !crate::bug!(SkipChecksum) {
        return Err(ApplyError::Malformed("the checksum does not match".to_owned()));
    }
    Ok(change)
}

/// Where a change has the first bytes of its hash.
const CHECKSUM: Range<usize> = 4..8;

/// Runs something of Automerge that may panic on bytes from elsewhere.
fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, ApplyError> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| ApplyError::Failed)
}

fn stored(change: &automerge::Change) -> Change {
    Change { hash: ChangeHash(change.hash().0), bytes: Bytes::copy_from_slice(change.raw_bytes()) }
}

fn actor(origin: Origin) -> ActorId {
    ActorId::from(origin.as_bytes())
}

/// The writer of an actor id; ids of other lengths than 16 bytes are named by their hash.
fn writer(actor: &ActorId) -> Origin {
    match <[u8; 16]>::try_from(actor.to_bytes()) {
        Ok(bytes) => Origin::from_bytes(bytes),
        Err(_) => Origin(Uuid::new_v5(&DIGEST_NAMESPACE, actor.to_bytes())),
    }
}

/// Returns the heads that a set of known heads and a new change leave.
fn advance(frontier: &mut BTreeSet<automerge::ChangeHash>, change: &automerge::Change) {
    change.deps().iter().for_each(|dep| {
        frontier.remove(dep);
    });
    frontier.insert(change.hash());
}

/// The UUID namespace of digests; it never changes, because ETags follow from it.
const DIGEST_NAMESPACE: Uuid = Uuid::from_bytes([
    0x0c, 0x5e, 0x7f, 0x1a, 0x63, 0xd4, 0x49, 0x8b, 0xa1, 0x20, 0x3d, 0x95, 0x4e, 0xf7, 0x66, 0x12,
]);
