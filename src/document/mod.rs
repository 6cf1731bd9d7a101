//! Documents: the owners and the one commit path.
//!
//! Invariant: a change is journaled before it is acknowledged, published or sent.
//!
//! Reads are answered from the stored row of a document, without its owner, unless entries of
//! other regions wait to be applied. Everything else goes through the owner of the document.

mod admit;
mod bundles;
mod cache;
mod clock;
mod collections;
mod doorbell;
mod history;
mod in_flight;
mod listing;
mod loaded;
mod owner;
mod redecide;
mod request;
mod resolve;
mod retention;
mod settings;
mod simulate;
mod write;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anabranch_crdt::conflict::{Conflict, ConflictId, ConflictKind, ConflictState, Revision};
use anabranch_crdt::document::Change;
use anabranch_crdt::edit::{Edit, Path};
use anabranch_crdt::ids::{
    AuthorName, ChangeHash, CollectionName, DocumentId, DocumentName, Origin, RegionName, Timestamp,
};
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::error::{Error, ErrorKind};
use crate::journal::{DocumentRow, Journal, LedgerPosition, Position};
use crate::settings::Limits;
use owner::Owner;
use request::{Answer, Reply, Request};

pub(crate) use admit::{MAX_CHANGE_BYTES, MAX_CHANGE_OPERATIONS};
pub use bundles::Adopted;
pub use clock::{ClockStatus, MonotonicClock, NodeClock, PeerClock, WallClock};
pub use collections::{CollectionSettings, SettingsWritten};
pub use doorbell::{Doorbell, OwnerQueues, owner_queues};
pub use history::{Comparison, Point};
pub(crate) use listing::named as read_conflict;
pub use owner::HandOwners;
pub use redecide::{Redecided, Redecider};
pub use resolve::{Bulk, Choice, Fate, Settled, Settling};
pub use retention::{RETENTION_PERIOD, Retention};
pub use settings::Collections;
pub(crate) use settings::check_writable;
pub use simulate::{MAX_FLIPS, NamedFlip, Simulation};
pub(crate) use write::{check_size, check_value, edit_error};

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

/// Which conflicts to list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConflictFilter {
    /// Only of this collection.
    pub collection: Option<CollectionName>,
    /// Only of this document.
    pub document: Option<DocumentName>,
    /// Only of this path and those inside it.
    pub path: Option<Path>,
    /// Only of this kind.
    pub kind: Option<ConflictKind>,
    /// Only in this state.
    pub state: Option<ConflictState>,
    /// Only with a candidate of this region.
    pub region: Option<RegionName>,
    /// Only where the latest candidate is of this time or later.
    pub since: Option<Timestamp>,
    /// Only where the latest candidate is of an earlier time.
    pub until: Option<Timestamp>,
    /// Only behind this place in the listing.
    pub after: Option<LedgerPosition>,
    /// At most so many; 1 to 1,000.
    pub limit: usize,
}

/// One page of conflicts, newest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ConflictPage {
    /// The conflicts.
    pub conflicts: Vec<NamedConflict>,
    /// How many conflicts the filter passes, on all pages.
    pub total: u64,
    /// Where the next page starts, if there is one.
    pub next: Option<LedgerPosition>,
}

/// A conflict with the names that people know.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedConflict {
    /// The document's name, if it has one.
    pub name: Option<DocumentName>,
    /// The row of the ledger.
    pub conflict: Conflict,
}

/// What the owners work with.
pub struct Setting {
    /// The region of this node.
    pub region: RegionName,
    /// The settings of every collection.
    pub collections: Collections,
    /// What is accepted at most.
    pub limits: Limits,
    /// The number of owner threads.
    pub owners: usize,
    /// Where changes become durable.
    pub journal: Journal,
    /// What changes are timed by.
    pub clock: NodeClock,
}

impl Setting {
    fn owner_of(&self, id: DocumentId) -> usize {
        doorbell::owner_of(id, self.owners)
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting").field("region", &self.region).finish_non_exhaustive()
    }
}

/// The documents of this node: cheap to clone, safe to share.
#[derive(Debug, Clone)]
pub struct Documents {
    setting: Arc<Setting>,
    queues: Arc<[mpsc::Sender<Request>]>,
    /// Questions about the past that may be answered at a time.
    past: Arc<Semaphore>,
}

/// The owner threads. They end after [`Documents::stop`].
#[derive(Debug)]
pub struct Owners {
    threads: Vec<thread::JoinHandle<()>>,
    ended: mpsc::Receiver<()>,
}

impl Owners {
    /// Waits until an owner has ended, which without [`Documents::stop`] means that it panicked.
    pub async fn ended(&mut self) {
        self.ended.recv().await;
    }

    /// Waits for every owner. Blocks.
    ///
    /// # Errors
    /// `Internal` if one panicked.
    pub fn join(self) -> Result<(), Error> {
        let panicked = self.threads.into_iter().map(thread::JoinHandle::join);
        if panicked.filter(Result::is_err).count() > 0 {
            let message = "a document owner panicked; the log has the reason";
            return Err(Error::new(ErrorKind::Internal, "owner_panicked", message));
        }
        Ok(())
    }
}

impl Documents {
    /// Starts the owners.
    ///
    /// # Errors
    /// `Unavailable` if the system gives no threads.
    pub fn start(setting: Setting, queues: OwnerQueues) -> Result<(Self, Owners), Error> {
        let setting = Arc::new(setting);
        let (ended_sender, ended) = mpsc::channel(1);
        let mut threads = Vec::new();
        let (senders, receivers) = queues.split();
        for (number, (requests, bell)) in receivers.into_iter().enumerate() {
            let owner = Owner::new(Arc::clone(&setting), number, bell);
            let ended = Ended(ended_sender.clone());
            let span = tracing::Span::current();
            let thread = thread::Builder::new().name(format!("owner-{number}")).spawn(move || {
                let _ended = ended;
                let _entered = span.entered();
                owner.run(requests);
            });
            threads.push(thread.map_err(|error| {
                let message = format!("no thread for a document owner: {error}");
                Error::new(ErrorKind::Unavailable, "no_thread", message)
            })?);
        }
        let past = Arc::new(Semaphore::new(setting.owners.max(1)));
        let documents = Self { setting, queues: senders, past };
        Ok((documents, Owners { threads, ended }))
    }

    /// Makes owners without threads, which go on by hand.
    #[must_use]
    pub fn by_hand(setting: Setting, queues: OwnerQueues) -> (Self, HandOwners) {
        let setting = Arc::new(setting);
        let (queues, owners) = HandOwners::new(&setting, queues);
        let past = Arc::new(Semaphore::new(setting.owners.max(1)));
        (Self { setting, queues, past }, owners)
    }

    /// Lets the owners finish what is queued, and end.
    pub async fn stop(&self) {
        for queue in self.queues.iter() {
            // An owner that has ended already needs no word.
            drop(queue.send(Request::Stop).await);
        }
    }

    /// Writes a document, and returns once the write is durable here. The author is kept in the
    /// change.
    ///
    /// # Errors
    /// `Invalid`, `NotFound` (a patch of what does not exist), `Precondition`, `TooLarge`,
    /// `Forbidden` (the reserved collection), `Overloaded`, `Unavailable`.
    ///
    /// # Cancel safety
    /// A write whose future is dropped may still happen.
    pub async fn write(
        &self,
        name: DocumentName,
        write: Write,
        author: Option<AuthorName>,
        precondition: Precondition,
    ) -> Result<Written, Error> {
        settings::check_writable(&name.collection)?;
        self.write_unchecked(name, write, author, precondition).await
    }

    /// Writes a document of any collection, also of the reserved one.
    async fn write_unchecked(
        &self,
        name: DocumentName,
        write: Write,
        author: Option<AuthorName>,
        precondition: Precondition,
    ) -> Result<Written, Error> {
        let id = DocumentId::from(&name);
        let ask = |reply| Request::Write { name, write, author, precondition, reply };
        let ((document, created), position) = self.ask(id, ask).await?;
        Ok(Written { document, created, position })
    }

    /// Reads a document in a state that reflects every entry journaled so far; `None` if there is
    /// no such document or it was deleted.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub async fn read(&self, name: &DocumentName) -> Result<Option<Document>, Error> {
        self.read_id(DocumentId::from(name)).await
    }

    async fn read_id(&self, id: DocumentId) -> Result<Option<Document>, Error> {
        match self.setting.journal.row(id)? {
            (row, false) => Ok(row.and_then(|row| Document::from_row(id, &row))),
            (_, true) => Ok(self.ask(id, |reply| Request::Read { id, reply }).await?.0),
        }
    }

    /// Reads a document by its id, with its name if it has one.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub async fn named(
        &self,
        id: DocumentId,
    ) -> Result<(Option<DocumentName>, Option<Document>), Error> {
        let document = self.read_id(id).await?;
        let (row, _) = self.setting.journal.row(id)?;
        Ok((row.and_then(|row| row.name), document))
    }

    /// Settles a conflict by one ordinary, replicated change. If a revision is expected, the row
    /// has to be in it.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if the state of the conflict does not allow it, with codes such as
    /// `already_resolved`; `Precondition` with `conflict_changed`; `Invalid` for an unknown
    /// candidate, or for candidates that do not merge.
    pub async fn settle(
        &self,
        id: ConflictId,
        settling: Settling,
        expected: Option<Revision>,
        note: Option<String>,
        author: Option<AuthorName>,
    ) -> Result<(NamedConflict, Written), Error> {
        let document = self.setting.journal.conflict_document(id)?;
        let document = document.ok_or_else(|| resolve::not_found(id))?;
        let ask = |reply| Request::Settle {
            document,
            conflict: id,
            settling,
            expected,
            note,
            author,
            reply,
        };
        let (resolved, position) = self.ask(document, ask).await?;
        let conflict = NamedConflict { name: resolved.name, conflict: resolved.conflict };
        Ok((conflict, Written { document: resolved.document, created: false, position }))
    }

    /// Admits changes that an offline-first client made, as entries of this leader, and returns
    /// once they are durable. Changes that are known already are skipped.
    ///
    /// # Errors
    /// `Invalid` with the reason, and nothing is admitted; `Forbidden` (the reserved collection),
    /// `Overloaded`, `Unavailable`.
    pub async fn admit(
        &self,
        name: DocumentName,
        changes: Vec<Bytes>,
    ) -> Result<Arc<Position>, Error> {
        settings::check_writable(&name.collection)?;
        let id = DocumentId::from(&name);
        let ((), position) = self.ask(id, |reply| Request::Admit { name, changes, reply }).await?;
        Ok(position)
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
        let id = DocumentId::from(&name);
        let ask = |reply| Request::ChangesSince { id, heads, reply };
        Ok(self.ask(id, ask).await?.0)
    }

    /// Returns what is durable here now.
    #[must_use]
    pub fn position(&self) -> Arc<Position> {
        Arc::clone(&self.setting.journal.position().borrow())
    }

    /// Waits until everything in `vector` is durable here.
    ///
    /// # Errors
    /// `Stale` after `limit`, saying how many entries are missing.
    pub async fn wait_for(&self, vector: &VersionVector, limit: Duration) -> Result<(), Error> {
        let mut position = self.setting.journal.position();
        let reached = position.wait_for(|position| position.vector.includes(vector));
        let waited = tokio::time::timeout(limit, reached).await.map(|reached| reached.is_ok());
        match waited {
            Ok(true) => Ok(()),
            Ok(false) => Err(shutting_down()),
            Err(_) => {
                let behind = position.borrow().vector.behind(vector);
                let message = format!(
                    "region {} is {behind} entries behind the session token after waiting {} ms: \
                     try again, or ask another region",
                    self.setting.region,
                    limit.as_millis(),
                );
                Err(Error::new(ErrorKind::Stale, "session_behind", message))
            }
        }
    }

    /// Returns the region of an origin, if it is known.
    #[must_use]
    pub fn region_of(&self, origin: Origin) -> Option<RegionName> {
        self.setting.journal.region_of(origin)
    }

    /// Returns this node's region.
    #[must_use]
    pub fn region(&self) -> &RegionName {
        &self.setting.region
    }

    /// Asks the owner of a document, and waits for its answer.
    async fn ask<T>(&self, id: DocumentId, request: impl FnOnce(Reply<T>) -> Request) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        self.queue(id)?.try_send(request(reply)).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => {
                let message = "too many requests wait for documents: try again later";
                Error::new(ErrorKind::Overloaded, "owner_queue_full", message)
            }
            mpsc::error::TrySendError::Closed(_) => shutting_down(),
        })?;
        answer.await.unwrap_or_else(|_| Err(shutting_down()))
    }

    /// Asks the owner of a document, and waits for its answer, first for room in its queue: only
    /// for callers that are bounded themselves.
    async fn ask_patiently<T>(
        &self,
        id: DocumentId,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        self.queue(id)?.send(request(reply)).await.map_err(|_| shutting_down())?;
        answer.await.unwrap_or_else(|_| Err(shutting_down()))
    }

    fn queue(&self, id: DocumentId) -> Result<&mpsc::Sender<Request>, Error> {
        self.queues.get(self.setting.owner_of(id)).ok_or_else(shutting_down)
    }
}

impl Document {
    /// The document that a row shows; `None` for a deleted one.
    fn from_row(id: DocumentId, row: &DocumentRow) -> Option<Self> {
        let json = row.json.clone()?;
        Some(Self { id, digest: Digest(row.digest), conflicts: row.conflicts, json })
    }
}

/// Tells the supervisor that an owner has ended, however it did.
struct Ended(mpsc::Sender<()>);

impl Drop for Ended {
    fn drop(&mut self) {
        // One message is enough, so a full channel is as good.
        let _ = self.0.try_send(());
    }
}

fn shutting_down() -> Error {
    Error::new(ErrorKind::Unavailable, "shutting_down", "this node is shutting down")
}
