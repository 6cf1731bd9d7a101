//! The journal: redb on disk, one writer thread, group commit, a hash on every record.
//!
//! Raw change bytes are the truth. Everything else that is stored here (document rows, snapshots,
//! the ledger) is a cache that can be rebuilt from the entries. An entry is stored once, in
//! `entries-1`; `pending-1` and the tail in `documents-1` only refer to it.
//!
//! The journal never looks into a change or a row, never talks to another node, and tells nobody
//! of a change before it is durable. It sits between `document`, which makes and applies changes,
//! and the disk; `node` passes on what it publishes.
//!
//! # Layout
//!
//! `handle` is what others hold; `writer` is the thread that commits what `plan` numbered and
//! `apply` writes; `ledger` has the conflicts; `reader` answers; `recovery` opens; `scrub` looks for rot; `store` keeps the
//! database; `table` and `record` fix what the bytes on disk mean.
//!
//! # Tables
//!
//! | table | key | value |
//! |---|---|---|
//! | `entries-1` | origin, sequence | document, name, admission time, change bytes |
//! | `pending-1` | document, origin, sequence | nothing: an entry from elsewhere that no row reflects yet |
//! | `snapshots-1` | document, generation (0 newest, 1 the one before) | `save()` bytes |
//! | `documents-1` | document | its tail (entries that the row reflects and the snapshot lacks), which other entries it is made of, and its [`DocumentRow`] |
//! | `names-1` | collection, NUL, key | document, for listing; only live documents |
//! | `conflicts-2` | document, conflict | summary of a ledger row, then its opaque bytes |
//! | `conflict-index-1` | scope, state, inverted time, conflict | document, and what else a filter asks for |
//! | `conflict-counts-1` | scope, state, kind | how many rows |
//! | `conflict-documents-1` | conflict | document |
//! | `origins-1` | origin | highest contiguous sequence, greatest admission time, region, what is left of its log |
//! | `meta-1` | text | format; cluster, region, own origin; file fingerprint; how far each collection is re-decided |

mod apply;
mod by_hand;
mod digests;
mod handle;
mod ledger;
mod plan;
mod reader;
mod record;
mod recovery;
mod scrub;
mod shared;
mod store;
mod table;
#[cfg(all(test, feature = "server"))]
mod tests;
mod writer;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anabranch_crdt::conflict::ConflictId;
use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{
    ClusterId, CollectionName, DocumentId, DocumentKey, DocumentName, Origin, RegionName, Sequence,
    Timestamp,
};
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;

pub use digests::{DocumentDigest, NO_DIGEST};
pub use handle::Journal;
pub use ledger::{
    ConflictSummary, LedgerChange, LedgerCount, LedgerFilter, LedgerPage, LedgerPosition,
    LedgerPositionError, LedgerRow, SettledConflict, StoredConflict,
};
pub use scrub::ScrubReport;

/// Hears of each durable transaction.
pub type Publish = Box<dyn FnMut(&Arc<CommitBatch>) + Send>;

/// How to open a journal.
pub struct JournalOptions {
    /// The cluster that the data belongs to; another cluster's data is refused.
    pub cluster: ClusterId,
    /// The region that the data belongs to; another region's data is refused.
    pub region: RegionName,
    /// Bytes of redb's page cache.
    pub cache_bytes: usize,
    /// Draws the origin of a new incarnation.
    pub new_origin: Box<dyn FnMut() -> Origin + Send>,
    /// Called on the writer thread after each durable commit and before anyone else hears of it.
    pub publish: Publish,
}

impl fmt::Debug for JournalOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournalOptions").field("region", &self.region).finish_non_exhaustive()
    }
}

/// A change that this leader admits; the journal numbers it.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The document.
    pub document: DocumentId,
    /// Its name, when the change starts the document.
    pub name: Option<DocumentName>,
    /// The admission time.
    pub admitted: Timestamp,
    /// The change.
    pub change: Bytes,
}

/// What a read of a document answers, kept ready.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DocumentRow {
    /// Where the document is found; `None` for one that was made without a name.
    pub name: Option<DocumentName>,
    /// The digest of the heads, which is the ETag.
    pub digest: [u8; 16],
    /// Open conflicts in the ledger.
    pub conflicts: u32,
    /// Changes in the history.
    pub changes: u64,
    /// Canonical JSON; `None` for a deleted document.
    pub json: Option<Bytes>,
}

/// One write to a cache table, committed together with the entries it follows from.
#[derive(Debug, Clone)]
pub enum Row {
    /// Replaces the row of a document, and keeps `names-1` in step.
    Document(DocumentId, DocumentRow),
    /// Moves entries of a document from pending to tail, because the row reflects them now.
    Applied(DocumentId, Vec<Dot>),
    /// Replaces the snapshot of a document, keeps the one before, and drops the tail it covers.
    Snapshot {
        /// The document.
        document: DocumentId,
        /// `save()` bytes, already loaded back and compared.
        bytes: Bytes,
        /// The entries that the snapshot holds; drafts of this commit go to the tail as ever.
        covers: Vec<Dot>,
    },
    /// Notes that a document has everything of each origin up to an entry, because it came whole
    /// from another region; the entries themselves need not be here.
    Reached(DocumentId, Vec<Dot>),
    /// Writes a row of the ledger (`None` removes it).
    Conflict(DocumentId, ConflictId, Option<LedgerRow>),
    /// Remembers how far a collection is decided by its settings, in bytes of their owner.
    Redecided(CollectionName, Bytes),
}

/// Commits that build on each other. Once one of them has failed, the rest must not be durable:
/// their changes would depend on one that is lost.
#[derive(Debug, Clone, Default)]
pub struct Lineage {
    broken: Arc<AtomicBool>,
}

impl Lineage {
    /// Notes that a commit of the lineage has failed.
    pub fn break_off(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// Tells whether a commit of the lineage has failed.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }
}

/// What one caller wants committed, all or none.
pub struct Commit {
    /// Changes that this leader admits, numbered in this order.
    pub drafts: Vec<Draft>,
    /// The origin under which the drafts were made; the commit is refused if it has been renewed
    /// since, because a peer may have other changes of that writer.
    pub origin: Option<Origin>,
    /// Entries of other origins; those already there are skipped, and each origin's sequence must
    /// go on without a gap.
    pub entries: Vec<Entry>,
    /// Cache rows. They are written after drafts and entries.
    pub rows: Vec<Row>,
    /// The commits that this one was built on; it is refused if one of them failed.
    pub lineage: Option<Lineage>,
    /// Called on the writer thread once the commit is durable, or has failed. It must not block.
    pub done: Box<dyn FnOnce(Result<Arc<Position>, CommitError>) + Send>,
}

impl Commit {
    /// Makes a commit of entries that other leaders admitted, and of nothing else.
    pub fn of_entries(
        entries: Vec<Entry>,
        done: impl FnOnce(Result<Arc<Position>, CommitError>) + Send + 'static,
    ) -> Self {
        Self {
            drafts: Vec::new(),
            origin: None,
            entries,
            rows: Vec::new(),
            lineage: None,
            done: Box::new(done),
        }
    }
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commit")
            .field("drafts", &self.drafts.len())
            .field("entries", &self.entries.len())
            .field("rows", &self.rows.len())
            .finish_non_exhaustive()
    }
}

/// Why a commit did not happen. Nothing of it is stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// The entries of an origin would leave a gap, or they are of this node's own origin: nobody
    /// else continues that one, see [`Journal::renew_origin`].
    #[error("entries of {origin} start at {found}, expected {expected}")]
    Gap {
        /// Whose entries.
        origin: Origin,
        /// The sequence that must come next.
        expected: Sequence,
        /// The sequence that came.
        found: Sequence,
    },
    /// The disk or the database failed. It is uncertain whether the commit will be there later;
    /// its documents must be loaded again. The journal tries to write again by itself.
    #[error("the journal cannot write: {0}")]
    Storage(String),
    /// A commit that this one was built on has failed, or the origin has been renewed since.
    #[error("a write before this one failed, or this node took a new identity: try again")]
    Superseded,
    /// The writer thread has ended.
    #[error("the journal is closed")]
    Closed,
}

/// What is durable here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// Every entry that is durable.
    pub vector: VersionVector,
    /// The same as a session token.
    pub token: String,
}

/// Where an entry came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// This leader admitted it.
    Local,
    /// Another region sent it.
    Remote,
}

/// What one durable transaction added.
#[derive(Debug)]
pub struct CommitBatch {
    /// The entries, in the order of their commit.
    pub entries: Vec<(Source, Entry)>,
    /// Documents whose row was replaced.
    pub documents: Vec<(DocumentId, DocumentRow)>,
    /// Rows of the ledger that were written or removed, in the order of their commit.
    pub conflicts: Vec<LedgerChange>,
    /// What is durable now.
    pub position: Arc<Position>,
}

/// Who this node is, as its journal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The region.
    pub region: RegionName,
    /// This incarnation.
    pub origin: Origin,
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the data directory is in use by another process")]
    Locked,
    /// The data belongs elsewhere; the message says where.
    #[error("{0}")]
    Foreign(String),
    /// The file was written by a release that this one does not know.
    #[error("the journal has format {0}, which this release does not know")]
    Format(String),
    /// The disk or the database failed.
    #[error("the journal cannot be opened: {0}")]
    Storage(String),
}

/// Why stored bytes cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The hash of a record does not match its bytes.
    #[error("a record of table {table} is damaged")]
    Corrupt {
        /// The table.
        table: &'static str,
    },
    /// The entries that were asked for may be gone: every region has them, or was given up on. Who
    /// still lacks them takes the documents instead.
    #[error("entries of {origin} up to {floor} are no longer in the journal")]
    TooOld {
        /// Whose entries.
        origin: Origin,
        /// The last one that may be gone.
        floor: Sequence,
    },
    /// The disk or the database failed.
    #[error("the journal cannot be read: {0}")]
    Storage(String),
}

/// The stored parts of one document, enough to load it.
#[derive(Debug, Clone, Default)]
pub struct StoredDocument {
    /// The row, if the document is known.
    pub row: Option<DocumentRow>,
    /// The newest snapshot.
    pub snapshot: Option<Bytes>,
    /// Entries after the snapshot that the row reflects.
    pub tail: Vec<Entry>,
    /// Entries that the row does not reflect yet.
    pub pending: Vec<Entry>,
}

/// One document of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The key.
    pub key: DocumentKey,
    /// The document.
    pub document: DocumentId,
    /// Its row.
    pub row: DocumentRow,
}
