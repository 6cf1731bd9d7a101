//! Epochs of documents: delete and undelete, purge, compact, and what comes too late.
//!
//! The name of a document leads to its newest epoch. A closed epoch stays where it was: a compacted
//! one with all of its history, as an archive; of a purged one nothing is left but the change that
//! purged it, so that every region knows for ever that it is gone.
//!
//! # When a document may be purged
//!
//! When its delete is causally stable: every region that counts has it, and this node has all that
//! those regions had admitted by then. So whatever a region writes to it later, it writes knowing
//! of the delete, which makes it a new document. Only what comes from outside that circle, from a
//! region that was forgotten or a client that stayed away, can still know nothing of it; that is
//! set aside. The content goes once the purge itself is stable.
//!
//! # Why the routes are verbs of their own
//!
//! `POST /v1/compact/{collection}/{key}`, as `revert` is: a key may end in `:compact`.

mod carry;
mod cleaner;
mod closed;
mod passage;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anabranch_crdt::document::{Carried, Closing, ClosingKind};
use anabranch_crdt::entry::Dot;
use anabranch_crdt::ids::{AuthorName, ChangeHash, DocumentId, DocumentName, Origin, RegionName};
use anabranch_crdt::message::{Act, Message};
use tokio::sync::watch;

use super::history::Replica;
use super::request::{EpochRequest, Request};
use super::{Document, Documents, Precondition, Written, settings, shutting_down, write};
use crate::error::{Error, ErrorKind};
use crate::journal::{EpochCounts, SetAside};
use crate::replication::ClusterView;

use passage::Passage;

pub use cleaner::Cleaner;
pub(super) use closed::{Sealed, warn_aside};

/// What is known of the other regions, once something is; shared by everything that asks.
#[derive(Clone, Default)]
pub struct Cluster(Arc<RwLock<Option<watch::Receiver<Arc<ClusterView>>>>>);

impl Cluster {
    /// Starts to follow the cluster. Before, a node takes itself for all there is.
    pub fn follow(&self, view: watch::Receiver<Arc<ClusterView>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(view);
    }

    fn watch(&self) -> Option<watch::Receiver<Arc<ClusterView>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The regions that count, if that is known.
    fn members(&self) -> Option<BTreeSet<RegionName>> {
        let view = Arc::clone(&self.watch()?.borrow());
        Some(view.voters().map(|region| region.region.clone()).collect())
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("members", &self.members()).finish()
    }
}

/// One epoch of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Epoch {
    /// Its number; the first is 0.
    pub number: u32,
    /// The document id under which it is replicated.
    pub id: DocumentId,
    /// How it was closed; `None` for the epoch that is written now.
    pub closed: Option<ClosingKind>,
    /// The changes that closed it.
    pub closings: Vec<Closing>,
    /// Changes in its history.
    pub changes: u64,
    /// What came after it was closed.
    pub late: Vec<LateChange>,
}

/// A change that came for an epoch after that was closed.
#[derive(Debug, Clone, PartialEq)]
pub struct LateChange {
    /// The change, and what it became.
    pub carried: Carried,
    /// The leader that admitted it.
    pub leader: Option<Origin>,
}

/// What compacting a document did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compacted {
    /// Changes that the closed epoch has.
    pub changes: u64,
    /// The document, in its new epoch.
    pub written: Written,
}

impl Documents {
    /// Returns the id under which a name is read and written now.
    #[must_use]
    pub fn newest(&self, name: &DocumentName) -> DocumentId {
        self.newest_of(DocumentId::from(name))
    }

    pub(super) fn newest_of(&self, id: DocumentId) -> DocumentId {
        let closed = |id: &DocumentId| self.setting.journal.closed(*id).is_some();
        let mut newest = id;
        while closed(&newest) {
            newest = newest.next_epoch();
        }
        newest
    }

    /// Returns the id of the newest epoch of a name, with everything applied that waits for it.
    pub(super) async fn current(&self, name: &DocumentName) -> Result<DocumentId, Error> {
        loop {
            let id = self.newest(name);
            let (_, waits) = self.setting.journal.row(id)?;
            if waits {
                self.read_id(id).await?;
            }
            if self.newest(name) == id {
                return Ok(id);
            }
        }
    }

    /// Follows what is known of the other regions, on which closing a document depends.
    pub fn follow_cluster(&self, view: watch::Receiver<Arc<ClusterView>>) {
        self.setting.cluster.follow(view);
    }

    /// Brings a deleted document back as it was, by one ordinary change. Returns once it is
    /// durable here.
    ///
    /// # Errors
    /// `NotFound` if it was never written, or with code `document_purged`; `Conflict` with code
    /// `not_deleted`; `Precondition`, `TooLarge`, `Overloaded`, `Unavailable`.
    ///
    /// # Cancel safety
    /// A write whose future is dropped may still happen.
    pub async fn undelete(
        &self,
        name: DocumentName,
        note: Option<String>,
        author: Option<AuthorName>,
        precondition: Precondition,
    ) -> Result<Written, Error> {
        settings::check_writable(&name.collection)?;
        let message = Message { act: Act::Undelete, author, note };
        let id = self.newest(&name);
        let ask = |reply| {
            Request::Epoch(EpochRequest::Undelete {
                name: name.clone(),
                message,
                precondition,
                reply,
            })
        };
        let ((document, created), position) =
            self.ask_to_write(id, ask).await.map_err(|error| self.or_purged(error, &name))?;
        Ok(Written { document, created, position })
    }

    /// Compacts a document: its history so far becomes an archive, and it goes on in a new epoch
    /// that starts with what it shows. Waits up to `limit` until every region has what is durable
    /// here.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` with code `other_leader` (only the region with the least name
    /// compacts, so that no two do at once), `not_everywhere`, `open_conflicts` or
    /// `not_compactable`; `Forbidden` (the reserved collection), `Precondition`, `TooLarge`,
    /// `Overloaded`, `Unavailable`.
    ///
    /// # Cancel safety
    /// A document whose future is dropped may still be compacted.
    pub async fn compact(
        &self,
        name: DocumentName,
        note: Option<String>,
        author: Option<AuthorName>,
        precondition: Precondition,
        limit: Duration,
    ) -> Result<Compacted, Error> {
        settings::check_writable(&name.collection)?;
        self.check_leader()?;
        if self.read(&name).await?.is_none() {
            return Err(self.or_purged(write::not_found(), &name));
        }
        self.pass(limit).await?;
        let id = self.newest(&name);
        let ask = |reply| {
            Request::Epoch(EpochRequest::Compact {
                name: name.clone(),
                by: (author, note),
                precondition,
                reply,
            })
        };
        let (changes, position) = self.ask_to_write(id, ask).await?;
        let document = self.read(&name).await?;
        Ok(Compacted { changes, written: Written { document, created: false, position } })
    }

    /// Purges a deleted document, for good. Waits up to `limit` until every region has the delete.
    ///
    /// # Errors
    /// `NotFound`, also with code `document_purged`; `Conflict` with code `not_deleted`,
    /// `not_everywhere` or `open_conflicts`; `Forbidden` (the reserved collection), `Overloaded`,
    /// `Unavailable`.
    ///
    /// # Cancel safety
    /// A document whose future is dropped may still be purged.
    pub async fn purge(
        &self,
        name: DocumentName,
        note: Option<String>,
        author: Option<AuthorName>,
        limit: Duration,
    ) -> Result<Written, Error> {
        settings::check_writable(&name.collection)?;
        if self.read(&name).await?.is_some() {
            let message = "the document is not deleted: delete it first";
            return Err(Error::new(ErrorKind::Conflict, "not_deleted", message));
        }
        let id = self.current(&name).await?;
        if self.setting.journal.row(id)?.0.is_none() {
            return Err(self.or_purged(write::not_found(), &name));
        }
        self.pass(limit).await?;
        let ask = |reply| {
            Request::Epoch(EpochRequest::Purge {
                document: id,
                by: (author, note),
                before: None,
                reply,
            })
        };
        let (_, position) =
            self.ask_to_write(id, ask).await.map_err(|error| self.or_purged(error, &name))?;
        Ok(Written { document: None, created: false, position })
    }

    /// Lists the epochs of a document, the oldest first.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`, `Overloaded`, `Unavailable`.
    pub async fn epochs(&self, name: &DocumentName) -> Result<Vec<Epoch>, Error> {
        self.current(name).await?;
        let held = self.past.clone().acquire_owned().await.map_err(|_| shutting_down())?;
        let mut id = DocumentId::from(name);
        let mut replicas = vec![(id, self.replica(id).await?)];
        while self.setting.journal.closed(id).is_some() {
            id = id.next_epoch();
            replicas.push((id, self.replica(id).await?));
        }
        if replicas.iter().all(|(_, replica)| replica.document.changes() == 0) {
            return Err(write::not_found());
        }
        let described = tokio::task::spawn_blocking(move || {
            let _held = held;
            describe(&replicas)
        });
        described.await.map_err(|error| {
            let message = "the epochs of a document were not read";
            Error::new(ErrorKind::Internal, "history_failed", message).with_source(error)
        })
    }

    /// Reads a document as an epoch of it showed when it was closed; the newest as it is now.
    /// `None` if it was not there, or if nothing is left of it.
    ///
    /// # Errors
    /// `NotFound` with code `epoch_not_found`; `Corrupt`, `Overloaded`, `Unavailable`.
    pub async fn archived(
        &self,
        name: &DocumentName,
        epoch: u32,
    ) -> Result<Option<Document>, Error> {
        self.current(name).await?;
        let id = self.epoch_id(name, epoch)?;
        if self.setting.journal.closed(id).is_none() {
            return self.read_id(id).await;
        }
        let replica = self.replica(id).await?;
        let held = self.past.clone().acquire_owned().await.map_err(|_| shutting_down())?;
        let read = tokio::task::spawn_blocking(move || {
            let _held = held;
            replica.when_closed(id)
        });
        read.await.map_err(|error| {
            let message = "an epoch of a document was not read";
            Error::new(ErrorKind::Internal, "history_failed", message).with_source(error)
        })?
    }

    /// Returns the ids of all epochs of a document.
    pub(crate) fn epoch_ids(&self, name: &DocumentName) -> BTreeSet<DocumentId> {
        let mut id = DocumentId::from(name);
        let mut ids = BTreeSet::from([id]);
        while self.setting.journal.closed(id).is_some() {
            id = id.next_epoch();
            ids.insert(id);
        }
        ids
    }

    /// Returns the id of an epoch of a document.
    ///
    /// # Errors
    /// `NotFound` with code `epoch_not_found`.
    pub fn epoch_id(&self, name: &DocumentName, epoch: u32) -> Result<DocumentId, Error> {
        let mut id = DocumentId::from(name);
        for number in 0..epoch {
            if self.setting.journal.closed(id).is_none() {
                let message = format!("{name} has no epoch {epoch}: its newest is {number}");
                return Err(Error::new(ErrorKind::NotFound, "epoch_not_found", message));
            }
            id = id.next_epoch();
        }
        Ok(id)
    }

    /// Returns the region that compacts documents, the first by name of those that count, as far as
    /// the others are known.
    #[must_use]
    pub fn compacting_region(&self) -> Option<RegionName> {
        self.setting.cluster.members()?.into_iter().next()
    }

    /// Lists entries that were set aside, after one.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub async fn set_aside(
        &self,
        after: Option<(DocumentId, Dot)>,
        limit: usize,
    ) -> Result<Vec<SetAside>, Error> {
        self.apply_pending().await?;
        Ok(self.setting.journal.set_aside(after, limit)?)
    }

    /// Counts closed documents, and what was set aside.
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn epoch_counts(&self) -> Result<EpochCounts, Error> {
        Ok(self.setting.journal.epoch_counts()?)
    }

    async fn replica(&self, id: DocumentId) -> Result<Replica, Error> {
        Ok(self.ask(id, |reply| Request::Replica { id, reply }).await?.0)
    }

    /// Says of a document that is not there that it was purged, if it was.
    fn or_purged(&self, error: Error, name: &DocumentName) -> Error {
        let (mut id, mut purged) = (DocumentId::from(name), false);
        while let Some(closed) = self.setting.journal.closed(id) {
            purged |= closed.kind == ClosingKind::Purge;
            id = id.next_epoch();
        }
        if !purged || error.kind() != ErrorKind::NotFound {
            return error;
        }
        let message = format!("{name} was deleted and purged; what is written to it now is new");
        Error::new(ErrorKind::NotFound, "document_purged", message)
    }

    /// Refuses to close documents where another region does it.
    fn check_leader(&self) -> Result<(), Error> {
        match self.compacting_region() {
            Some(first) if first != self.setting.region => {
                let message = format!(
                    "documents are compacted in region {first}, the first by name of those that \
                     count, so that no two regions do it at once: ask there"
                );
                Err(Error::new(ErrorKind::Conflict, "other_leader", message))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Waits until every region that counts has what is durable here now, and this node what they
    /// had by then.
    async fn pass(&self, limit: Duration) -> Result<(), Error> {
        let Some(mut view) = self.setting.cluster.watch() else { return Ok(()) };
        let mut position = self.setting.journal.position();
        let mut passage = Passage::new(position.borrow().vector.clone());
        let mut behind = Vec::new();
        let waited = tokio::time::timeout(limit, async {
            loop {
                let seen = Arc::clone(&view.borrow_and_update());
                let own = Arc::clone(&position.borrow_and_update());
                match passage.look(&seen, &own.vector) {
                    Ok(()) => return Ok(()),
                    Err(regions) => behind = regions,
                }
                let changed = tokio::select! {
                    changed = view.changed() => changed,
                    changed = position.changed() => changed,
                };
                changed.map_err(|_| shutting_down())?;
            }
        });
        match waited.await {
            Ok(passed) => passed,
            Err(_) => Err(not_everywhere(&behind)),
        }
    }
}

fn describe(replicas: &[(DocumentId, Replica)]) -> Vec<Epoch> {
    let mut epochs = Vec::new();
    for (number, (id, replica)) in (0..).zip(replicas) {
        let next = replicas.get(number as usize + 1).map(|(_, replica)| replica);
        let sealed = replica.sealed.as_ref();
        let late = match (sealed, next) {
            (Some(sealed), Some(next)) => replica.document.carry(&sealed.closings, &next.document),
            _ => Vec::new(),
        };
        let late = late.into_iter().map(|carried| LateChange {
            leader: replica.document.admitted_by(carried.late),
            carried,
        });
        epochs.push(Epoch {
            number,
            id: *id,
            closed: sealed.map(Sealed::kind),
            closings: sealed.map(|sealed| sealed.closings.clone()).unwrap_or_default(),
            changes: replica.document.changes(),
            late: late.collect(),
        });
    }
    epochs
}

impl Replica {
    /// The document when it was closed; `None` if it was deleted, or is purged.
    fn when_closed(&self, id: DocumentId) -> Result<Option<Document>, Error> {
        let sealed = self.sealed.as_ref().filter(|s| s.kind() == ClosingKind::Compact);
        let Some(sealed) = sealed else { return Ok(None) };
        let heads: Vec<ChangeHash> = sealed.changes();
        self.at(id, &super::Point::Heads(heads))
    }
}

fn not_everywhere(behind: &[RegionName]) -> Error {
    let names: Vec<&str> = behind.iter().map(RegionName::as_str).collect();
    let message = format!(
        "not every region is past it yet: waiting for {}. Try again once they are connected, or \
         forget a region that does not return",
        names.join(", ")
    );
    Error::new(ErrorKind::Conflict, "not_everywhere", message)
}
