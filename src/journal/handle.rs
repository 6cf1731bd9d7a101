//! The handle: what the other parts hold of the journal.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anabranch_crdt::bundle::IdRange;
use anabranch_crdt::conflict::ConflictId;
use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{
    CollectionName, DocumentId, DocumentKey, Origin, RegionName, Sequence, Timestamp,
};
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;
use redb::ReadTransaction;
use tokio::sync::{mpsc, watch};

use super::by_hand::HandWriter;
use super::digests::DocumentDigest;
use super::ledger::read;
use super::recovery::{self, Recovered};
use super::shared::Shared;
use super::store::{Store, unreadable};
use super::table::{CONFLICT_COUNTS, CONFLICT_INDEX};
use super::writer::{Order, Writer, encoded};
use super::{
    Commit, CommitError, DocumentRow, Identity, JournalOptions, LedgerCount, LedgerFilter,
    LedgerPage, LedgerPosition, LedgerRow, Listed, OpenError, Position, ReadError, ScrubReport,
    SettledConflict, StoredConflict, StoredDocument, digests, reader, scrub,
};

/// A handle to the journal; clones are cheap and share the writer thread. The last one that is
/// dropped closes it.
#[derive(Debug, Clone)]
pub struct Journal {
    pub(super) inner: Arc<Inner>,
}

impl Journal {
    /// Opens the journal in `directory`, creating it under a temporary name if there is none.
    ///
    /// A file that was copied from elsewhere (its device or inode differs) gets a new origin.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(directory: &Path, mut options: JournalOptions) -> Result<Self, OpenError> {
        let (store, recovered) = recovery::open_directory(directory, &mut options)?;
        Self::start(store, recovered, options)
    }

    /// Opens a journal on a storage backend of the caller, for tests that crash the disk.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_backend(
        backend: impl redb::StorageBackend,
        mut options: JournalOptions,
    ) -> Result<Self, OpenError> {
        let (store, recovered) = recovery::open_backend(backend, &mut options)?;
        Self::start(store, recovered, options)
    }

    /// Returns who this node is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.inner.shared.identity()
    }

    /// Returns this incarnation, which changes only by [`Journal::renew_origin`].
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.inner.shared.origin()
    }

    /// Retires the present origin, because a peer knows more of it than this journal does, and
    /// goes on under a new one. Durable on return; blocks.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub fn renew_origin(&self) -> Result<Identity, CommitError> {
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        self.order(Order::Renew(answer))?;
        answered.recv().unwrap_or(Err(CommitError::Closed))
    }

    /// Hands a commit to the writer thread, waiting while its queue is full.
    /// For owner threads; async code uses [`Journal::submit`].
    ///
    /// # Errors
    /// [`CommitError::Closed`]; `done` is then called too.
    pub fn submit_blocking(&self, commit: Commit) -> Result<(), CommitError> {
        let Some(orders) = self.orders() else { return refuse(Order::Commit(commit)) };
        if orders.capacity() == 0 {
            self.step();
        }
        orders.blocking_send(Order::Commit(commit)).or_else(|refused| refuse(refused.0))
    }

    /// Waits until everything that was handed over before is durable, or has failed. Blocks.
    pub fn settle(&self) {
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        let told = move |_| {
            // Whoever asked waits for it below.
            let _ = answer.send(());
        };
        // Where the journal is closed, everything has failed already.
        if self.submit_blocking(Commit::of_entries(Vec::new(), told)).is_ok() {
            while self.step() {}
            // An answer that does not come says that the journal has failed, and it has settled.
            let _ = answered.recv();
        }
    }

    /// Makes one transaction of what is queued, if the writer is driven by hand; tells whether
    /// there was anything.
    pub fn step(&self) -> bool {
        self.inner.by_hand().is_some_and(HandWriter::step)
    }

    /// Tells whether nothing is queued, if the writer is driven by hand.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.inner.by_hand().is_none_or(HandWriter::is_idle)
    }

    /// Hands a commit to the writer thread, waiting while its queue is full.
    ///
    /// # Errors
    /// [`CommitError::Closed`]; `done` is then called too.
    ///
    /// # Cancel safety
    /// A commit whose future is dropped while the queue is full does not happen, and `done` is
    /// dropped with it.
    pub async fn submit(&self, commit: Commit) -> Result<(), CommitError> {
        let Some(orders) = self.orders() else { return refuse(Order::Commit(commit)) };
        orders.send(Order::Commit(commit)).await.or_else(|refused| refuse(refused.0))
    }

    /// Remembers which region an origin belongs to. Idempotent; durable with the next commit.
    pub fn name_origin(&self, origin: Origin, region: &RegionName) {
        self.inner.shared.name_origin(origin, region);
    }

    /// Returns the region of an origin, if one was ever named.
    #[must_use]
    pub fn region_of(&self, origin: Origin) -> Option<RegionName> {
        let origins = self.inner.shared.origins();
        origins.known.get(&origin).and_then(|known| known.region.clone())
    }

    /// Returns every origin with its region, as far as named.
    #[must_use]
    pub fn origins(&self) -> Vec<(Origin, Option<RegionName>)> {
        let origins = self.inner.shared.origins();
        origins.known.iter().map(|(origin, known)| (*origin, known.region.clone())).collect()
    }

    /// Returns what is durable, and a way to wait for more. Waiting fails once the writer thread
    /// has ended.
    #[must_use]
    pub fn position(&self) -> watch::Receiver<Arc<Position>> {
        self.inner.position.clone()
    }

    /// Returns the greatest admission time of this region's own entries that was durable at open.
    #[must_use]
    pub fn clock_floor(&self) -> Timestamp {
        self.inner.clock_floor
    }

    /// Returns the greatest admission time that was durable at open, whoever admitted it: one
    /// leader with a wrong clock is enough to make it wrong.
    #[must_use]
    pub fn latest_admission(&self) -> Timestamp {
        self.inner.latest_admission
    }

    /// Reads a document's row, and whether pending entries wait (then the row is behind).
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn row(&self, document: DocumentId) -> Result<(Option<DocumentRow>, bool), ReadError> {
        reader::row(&self.inner.shared, document)
    }

    /// Reads all parts of a document in one read transaction.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn load(&self, document: DocumentId) -> Result<StoredDocument, ReadError> {
        reader::load(&self.inner.shared, document)
    }

    /// Reads the entries of a document that its row does not reflect yet.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn pending_of(&self, document: DocumentId) -> Result<Vec<Entry>, ReadError> {
        reader::pending_of(&self.inner.shared, document)
    }

    /// Names the entries of a document that its row reflects and its snapshot does not hold.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn tail_of(&self, document: DocumentId) -> Result<Vec<Dot>, ReadError> {
        reader::tail_of(&self.inner.shared, document)
    }

    /// Returns the document that a conflict belongs to.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn conflict_document(&self, conflict: ConflictId) -> Result<Option<DocumentId>, ReadError> {
        reader::conflict_document(&self.inner.shared, conflict)
    }

    /// Reads the snapshot before the newest, for when the newest turns out to be of no use.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn snapshot_before(&self, document: DocumentId) -> Result<Option<Bytes>, ReadError> {
        reader::snapshot_before(&self.inner.shared, document)
    }

    /// Reads entries of an origin after `after`, in order, until `entries` or `bytes` (of change
    /// bytes) are reached; at least one, if there is one.
    ///
    /// # Errors
    /// See [`ReadError`]; [`ReadError::TooOld`] if `after` is below the floor.
    pub fn entries(
        &self,
        origin: Origin,
        after: Sequence,
        entries: usize,
        bytes: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        reader::entries(&self.inner.shared, origin, after, entries, bytes)
    }

    /// Returns per origin the last entry that may be gone from the log, because it was dropped or
    /// never came as an entry. Nobody may rely on entries up to there.
    #[must_use]
    pub fn floors(&self) -> VersionVector {
        self.inner.shared.floors()
    }

    /// Notes that everything up to `vector` is here, in documents that came whole: what is durable
    /// and the floors rise to it together. The own origin stays as it is. Returns what is durable
    /// now; blocks.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub fn raise(&self, vector: VersionVector) -> Result<Arc<Position>, CommitError> {
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        self.order(Order::Raise(vector, answer))?;
        answered.recv().unwrap_or(Err(CommitError::Closed))
    }

    /// Lists documents in the order of their ids with the digest of their heads, deleted ones
    /// included; at most `limit`. See [`DocumentDigest`].
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn digests(&self, range: IdRange, limit: usize) -> Result<Vec<DocumentDigest>, ReadError> {
        digests::digests(&self.inner.shared, range, limit)
    }

    /// Returns the last entry of each origin that a document reflects or waits for: it is durable
    /// wherever these are. Of what an earlier release wrote into a snapshot, nothing is said.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn document_dots(&self, document: DocumentId) -> Result<Vec<Dot>, ReadError> {
        digests::document_dots(&self.inner.shared, document)
    }

    /// Lists live documents of a collection whose key starts with `prefix` and is greater than
    /// `after`, in key order.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn list(
        &self,
        collection: &CollectionName,
        prefix: &str,
        after: Option<&DocumentKey>,
        limit: usize,
    ) -> Result<Vec<Listed>, ReadError> {
        reader::list(&self.inner.shared, collection, prefix, after, limit)
    }

    /// Counts the live documents of a collection whose key starts with `prefix`, by reading all
    /// their names.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn count(&self, collection: &CollectionName, prefix: &str) -> Result<u64, ReadError> {
        reader::count(&self.inner.shared, collection, prefix)
    }

    /// Lists the collections that have a live document and whose name is greater than `after`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn collections(
        &self,
        after: Option<&CollectionName>,
        limit: usize,
    ) -> Result<Vec<CollectionName>, ReadError> {
        reader::collections(&self.inner.shared, after, limit)
    }

    /// Reads what [`super::Row::Redecided`] remembered of each collection.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn redecided(&self) -> Result<Vec<(CollectionName, Bytes)>, ReadError> {
        reader::redecided(&self.inner.shared)
    }

    /// Returns documents with pending entries, at most `limit`, in the order of their ids, those
    /// after `after`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn pending(
        &self,
        after: Option<DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentId>, ReadError> {
        reader::pending(&self.inner.shared, after, limit)
    }

    /// Reads the ledger rows of a document.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn conflicts_of(
        &self,
        document: DocumentId,
    ) -> Result<Vec<(ConflictId, Bytes)>, ReadError> {
        reader::conflicts_of(&self.inner.shared, document)
    }

    /// Reads ledger rows of all documents in the order of (document, conflict), after `after`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn ledger(
        &self,
        after: Option<(DocumentId, ConflictId)>,
        limit: usize,
    ) -> Result<Vec<StoredConflict>, ReadError> {
        reader::ledger(&self.inner.shared, after, limit)
    }

    /// Reads one row of the ledger.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn conflict(
        &self,
        document: DocumentId,
        conflict: ConflictId,
    ) -> Result<Option<LedgerRow>, ReadError> {
        let store = &self.inner.shared.store;
        store.read(|transaction| read::row(transaction, document, conflict))
    }

    /// Lists the rows of the ledger that `filter` passes, newest first, those behind `after`, and
    /// counts all that it passes. Costs time with the page alone where the filter says no more
    /// than collection, state and kind, or a document; else with the rows of the collection, state
    /// and time that it names. Blocks.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn conflicts(
        &self,
        filter: &LedgerFilter,
        after: Option<LedgerPosition>,
        limit: usize,
    ) -> Result<LedgerPage, ReadError> {
        self.mended(|transaction| read::page(transaction, filter, after, limit))
    }

    /// Counts the rows of the ledger by collection, state and kind. Blocks.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn conflict_counts(&self) -> Result<Vec<LedgerCount>, ReadError> {
        self.mended(read::counts)
    }

    /// Lists conflicts that are settled, the oldest first, those behind `after`; only those to
    /// which nothing happened since `before`, if it is given. Blocks.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn settled_conflicts(
        &self,
        before: Option<Timestamp>,
        after: Option<LedgerPosition>,
        limit: usize,
    ) -> Result<Vec<SettledConflict>, ReadError> {
        self.mended(|transaction| read::settled(transaction, before, after, limit))
    }

    /// Reads every record once and reports damage. Takes as long as reading the whole file.
    ///
    /// # Errors
    /// [`ReadError::Storage`] where damage kept the scrub from going on.
    pub fn scrub(&self) -> Result<ScrubReport, ReadError> {
        scrub::scrub(&self.inner.shared.store)
    }

    /// Commits what is queued, then ends the writer thread and closes the file. Blocks.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Opens the journal of a medium without a thread: the writer is driven by hand, by
    /// [`Journal::step`], and by whoever waits for it. A medium whose fingerprint differs from the last time is a copy. `monotonic` times the pauses after faults.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_by_hand<B: redb::StorageBackend>(
        medium: impl Fn() -> B + Send + Sync + 'static,
        fingerprint: &str,
        mut options: JournalOptions,
        monotonic: impl Fn() -> Duration + Send + 'static,
    ) -> Result<Self, OpenError> {
        let (store, recovered) = recovery::open_medium(medium, fingerprint, &mut options)?;
        let (journal, writer, orders) = Self::assemble(store, recovered, options);
        let writer = writer.timed_by(Box::new(monotonic));
        drop(journal.inner.by_hand.set(HandWriter::new(writer, orders)));
        Ok(journal)
    }

    pub(super) fn start(
        store: Store,
        recovered: Recovered,
        options: JournalOptions,
    ) -> Result<Self, OpenError> {
        let (journal, writer, orders) = Self::assemble(store, recovered, options);
        let span = tracing::Span::current();
        let thread = thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || {
                let _entered = span.entered();
                writer.run(orders);
            })
            .map_err(|error| OpenError::Storage(error.to_string()))?;
        *journal.inner.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(journal)
    }

    fn assemble(
        store: Store,
        recovered: Recovered,
        options: JournalOptions,
    ) -> (Self, Writer, mpsc::Receiver<Order>) {
        let (clock_floor, latest_admission) = recovered.clocks(&options.region);
        let shared = Arc::new(Shared::new(store, &recovered));
        let (announce, position) = watch::channel(encoded(recovered.vector));
        let (sender, orders) = mpsc::channel(QUEUE);
        let JournalOptions { publish, new_origin, .. } = options;
        let writer = Writer::new(Arc::clone(&shared), announce, publish, new_origin);
        let inner = Inner {
            shared,
            position,
            clock_floor,
            latest_admission,
            orders: RwLock::new(Some(sender)),
            thread: Mutex::default(),
            by_hand: OnceLock::new(),
        };
        (Self { inner: Arc::new(inner) }, writer, orders)
    }

    /// Reads from the index of the ledger. If that is damaged it is made anew, and read once more.
    fn mended<T>(
        &self,
        read: impl Fn(&ReadTransaction) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let store = &self.inner.shared.store;
        match store.read(&read) {
            Err(ReadError::Corrupt { table })
                if [CONFLICT_INDEX.name, CONFLICT_COUNTS.name].contains(&table) =>
            {
                self.mend().map_err(unreadable)?;
                store.read(&read)
            }
            result => result,
        }
    }

    /// Has the index of the ledger made anew.
    fn mend(&self) -> Result<(), CommitError> {
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        self.order(Order::Mend(answer))?;
        answered.recv().unwrap_or(Err(CommitError::Closed))
    }

    /// Hands an order to the writer, which by hand is driven until it has obeyed.
    fn order(&self, order: Order) -> Result<(), CommitError> {
        let orders = self.orders().ok_or(CommitError::Closed)?;
        orders.blocking_send(order).map_err(|_| CommitError::Closed)?;
        while self.step() {}
        Ok(())
    }

    fn orders(&self) -> Option<mpsc::Sender<Order>> {
        self.inner.orders.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    position: watch::Receiver<Arc<Position>>,
    clock_floor: Timestamp,
    latest_admission: Timestamp,
    orders: RwLock<Option<mpsc::Sender<Order>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The writer, where it has no thread.
    by_hand: OnceLock<HandWriter>,
}

impl Inner {
    fn by_hand(&self) -> Option<&HandWriter> {
        self.by_hand.get()
    }

    /// The writer thread ends once nobody can send it anything and its queue is empty.
    fn close(&self) {
        drop(self.orders.write().unwrap_or_else(PoisonError::into_inner).take());
        let mut slot = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(thread) = slot.take() else { return };
        // A handle that is dropped by a callback is on the writer thread, which cannot wait for
        // itself; it ends when the callback returns.
        if thread.thread().id() != thread::current().id() && thread.join().is_err() {
            tracing::error!("the writer thread of the journal panicked");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("shared", &self.shared).finish_non_exhaustive()
    }
}

fn refuse(order: Order) -> Result<(), CommitError> {
    if let Order::Commit(commit) = order {
        (commit.done)(Err(CommitError::Closed));
    }
    Err(CommitError::Closed)
}

/// Orders that wait for the writer thread: one transaction's worth.
const QUEUE: usize = 1_024;
