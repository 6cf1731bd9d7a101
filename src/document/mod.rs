//! Documents: the owners and the one commit path.
//!
//! Invariant: a change is journaled before it is acknowledged, published or sent.
//!
//! Reads are answered from the stored row of a document, without its owner, unless entries of
//! other regions wait to be applied. Everything else goes through the owner of the document.

mod admit;
mod ailments;
mod bundles;
mod cache;
mod clock;
mod collections;
mod condition;
mod door;
mod doorbell;
mod epoch;
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
mod trim;
mod turns;
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
use crate::journal::{
    CommitError, DocumentRow, Journal, LedgerPosition, Position, ReadError, Standing,
};
use crate::settings::Limits;
use ailments::Ailments;
use owner::Owner;
use request::{Answer, Reply, Request};

pub(crate) use admit::{MAX_CHANGE_BYTES, MAX_CHANGE_OPERATIONS};
pub use ailments::{Damaged, Quarantined};
pub use bundles::Adopted;
pub use clock::{ClockStatus, NodeClock, PeerClock, WallClock};
pub use collections::{CollectionSettings, Seeded, SettingsWritten};
pub use condition::{Condition, HeldBack};
pub use door::{Closed, Door};
pub use doorbell::{Doorbell, OwnerQueues, owner_queues};
pub use epoch::{Cleaner, Cluster, Compacted, Epoch, LateChange};
pub use history::{Comparison, Point};
pub(crate) use listing::named as read_conflict;
pub use redecide::{Redecided, Redecider};
pub use resolve::{Bulk, Choice, Fate, Settled, Settling};
pub use retention::{RETENTION_PERIOD, Retention};
pub use settings::Collections;
pub(crate) use settings::check_writable;
pub use simulate::{MAX_FLIPS, NamedFlip, Simulation};
use trim::TrimFigures;
pub use trim::{JournalFigures, Trimmer};
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

/// What an operator sees of the origin of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OriginStatus {
    /// Whether changes are admitted under it. Otherwise writes wait, see [`Documents::settled`].
    pub settled: bool,
    /// Origins that the region has left behind.
    pub renewals: u64,
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
    /// Whether this node takes writes.
    pub door: Door,
    /// What is known of the other regions.
    pub cluster: Cluster,
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
    ailments: Arc<Ailments>,
    trimmed: Arc<TrimFigures>,
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
        let ailments: Arc<Ailments> = Arc::default();
        let (ended_sender, ended) = mpsc::channel(1);
        let mut threads = Vec::new();
        let (senders, receivers) = queues.split();
        for (number, (requests, rescan)) in receivers.into_iter().enumerate() {
            let waiting = requests.max_capacity();
            let ailments = Arc::clone(&ailments);
            let owner = Owner::new(Arc::clone(&setting), number, rescan, (waiting, ailments));
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
        let trimmed = Arc::default();
        let documents = Self { setting, queues: senders, past, ailments, trimmed };
        Ok((documents, Owners { threads, ended }))
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
        let id = self.newest(&name);
        let ask = |reply| Request::Write { name, write, author, precondition, reply };
        let ((document, created), position) = self.ask_to_write(id, ask).await?;
        Ok(Written { document, created, position })
    }

    /// Reads a document in a state that reflects every entry journaled so far; `None` if there is
    /// no such document or it was deleted.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub async fn read(&self, name: &DocumentName) -> Result<Option<Document>, Error> {
        loop {
            let id = self.newest(name);
            let read = self.read_id(id).await?;
            // What waited to be applied may have closed it.
            if self.newest(name) == id {
                return Ok(read);
            }
        }
    }

    async fn read_id(&self, id: DocumentId) -> Result<Option<Document>, Error> {
        match self.setting.journal.row(id).inspect_err(|error| self.note_damage(id, error))? {
            (row, false) => Ok(row.and_then(|row| Document::from_row(id, &row))),
            (_, true) => Ok(self.ask(id, |reply| Request::Read { id, reply }).await?.0),
        }
    }

    /// Lists the documents that cannot be read because they are damaged, as far as that was met
    /// since the start. A bundle of another region mends one, see [`Documents::adopt`].
    #[must_use]
    pub fn damaged(&self) -> Vec<Damaged> {
        self.ailments.damaged()
    }

    /// Lists the entries that cannot be applied; replication goes on without them.
    #[must_use]
    pub fn quarantined(&self) -> Vec<Quarantined> {
        self.ailments.quarantined()
    }

    fn note_damage(&self, id: DocumentId, error: &ReadError) {
        if matches!(error, ReadError::Corrupt { .. }) {
            self.ailments.note_damage(id, &error.to_string(), self.setting.clock.wall());
        }
    }

    /// Reads a document by its id, or by that of an earlier epoch, with its name if it has one.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub async fn named(
        &self,
        id: DocumentId,
    ) -> Result<(Option<DocumentName>, Option<Document>), Error> {
        let closed = match self.setting.journal.closed(id) {
            Some(_) => self.setting.journal.epoch(id)?,
            None => None,
        };
        let mut newest = self.newest_of(id);
        let mut document = self.read_id(newest).await?;
        while newest != self.newest_of(id) {
            newest = self.newest_of(id);
            document = self.read_id(newest).await?;
        }
        let id = newest;
        let (row, _) = self.setting.journal.row(id)?;
        let name = row.and_then(|row| row.name).or_else(|| closed.and_then(|closed| closed.name));
        Ok((name, document))
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
        let (resolved, position) = self.ask_to_write(document, ask).await?;
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
        let id = self.newest(&name);
        let ask = |reply| Request::Admit { name, changes, reply };
        let ((), position) = self.ask_to_write(id, ask).await?;
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
        Ok(self.changes_beyond(&name, heads).await?.1)
    }

    /// Returns the id of the newest epoch of a document, and its changes as
    /// [`Documents::changes_since`] does.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub async fn changes_beyond(
        &self,
        name: &DocumentName,
        heads: Vec<ChangeHash>,
    ) -> Result<(DocumentId, Vec<Change>), Error> {
        let id = self.current(name).await?;
        let ask = |reply| Request::ChangesSince { id, heads, reply };
        Ok((id, self.ask(id, ask).await?.0))
    }

    /// Returns what is durable here now.
    #[must_use]
    pub fn position(&self) -> Arc<Position> {
        Arc::clone(&self.setting.journal.position().borrow())
    }

    /// Returns what is durable here now, in the short form that tokens have.
    #[must_use]
    pub fn session(&self) -> VersionVector {
        self.session_of(&self.position())
    }

    /// Returns a position in the short form that tokens have.
    #[must_use]
    pub fn session_of(&self, position: &Position) -> VersionVector {
        self.setting.journal.compact(&position.vector)
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

    /// Returns whether this leader admits changes, and how many origins its region has left behind.
    #[must_use]
    pub fn origin_status(&self) -> OriginStatus {
        let journal = &self.setting.journal;
        OriginStatus { settled: journal.is_settled(), renewals: journal.renewals() }
    }

    /// Waits until this leader admits changes: until every region has confirmed its origin, or it
    /// has taken a new one, which is no longer than `settle_within` and a write to the disk.
    ///
    /// # Errors
    /// `Unavailable` if that does not come about.
    pub async fn settled(&self) -> Result<(), Error> {
        let mut standing = self.setting.journal.standing();
        let settled = standing.wait_for(|standing| *standing == Standing::Settled);
        let patience = self.setting.limits.settle_within.saturating_add(SETTLE_PATIENCE);
        match tokio::time::timeout(patience, settled).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(shutting_down()),
            Err(_) => Err(CommitError::Unsettled.into()),
        }
    }

    /// Has the owners look up what waited until this leader admits changes, whenever it does again;
    /// for ever.
    pub async fn look_when_settled(self) {
        let mut standing = self.setting.journal.standing();
        loop {
            if *standing.borrow_and_update() == Standing::Settled {
                for queue in self.queues.iter() {
                    // An owner that has ended looks up nothing.
                    drop(queue.send(Request::Look).await);
                }
            }
            if standing.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Asks the owner of a document to change it, once this leader admits changes.
    async fn ask_to_write<T>(
        &self,
        id: DocumentId,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Answer<T> {
        self.settled().await?;
        self.ask(id, request).await
    }

    /// Asks the owner of a document, and waits for its answer.
    async fn ask<T>(&self, id: DocumentId, request: impl FnOnce(Reply<T>) -> Request) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        let request = request(reply);
        self.setting.door.check(&request)?;
        self.queue(id)?.try_send(request).map_err(|refused| match refused {
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
        let request = request(reply);
        self.setting.door.check(&request)?;
        self.queue(id)?.send(request).await.map_err(|_| shutting_down())?;
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

/// How much longer than `settle_within` a write waits for the disk to take a new origin.
const SETTLE_PATIENCE: Duration = Duration::from_secs(5);

fn shutting_down() -> Error {
    Error::new(ErrorKind::Unavailable, "shutting_down", "this node is shutting down")
}
