//! Subscriptions: who is told that a document changed, or a row of the ledger.
//!
//! A follower pulls from the journal at its own pace, so a slow one holds back nobody and buffers
//! nothing: all it keeps is the vector of what it was told, and one page of entries.

mod conflicts;

use std::collections::VecDeque;
use std::sync::Arc;

use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{DocumentId, DocumentName, Sequence};
use anabranch_crdt::token;
use anabranch_crdt::version::VersionVector;
use tokio::sync::watch;

use crate::document::{Digest, Documents};
use crate::error::{Error, ErrorKind};
use crate::journal::{Journal, Position, ReadError};

pub use conflicts::{ConflictBell, ConflictEvent, ConflictFollower, Conflicts};

/// One line of the change feed: a document changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeEvent {
    /// The entry that changed it.
    pub dot: Dot,
    /// The document.
    pub document: DocumentId,
    /// Its name, if it has one.
    pub name: Option<DocumentName>,
    /// The digest of its heads when the event was made; `None` when it is deleted.
    pub digest: Option<Digest>,
    /// Whether the document is deleted now.
    pub deleted: bool,
    /// A session token that includes this event and everything told before it.
    pub token: String,
}

/// The change feed of this node.
#[derive(Debug, Clone)]
pub struct Changes {
    journal: Journal,
    documents: Documents,
}

impl Changes {
    /// Makes the feed of a journal; `documents` tells what an entry led to.
    #[must_use]
    pub fn new(journal: Journal, documents: Documents) -> Self {
        Self { journal, documents }
    }

    /// Checks that the journal reaches back to `since`.
    ///
    /// # Errors
    /// `Gone` with code `history_gone`: list the documents, then follow from a later token.
    pub fn check(&self, since: &VersionVector) -> Result<(), Error> {
        let floors = self.journal.floors();
        let Some(dot) = floors.iter().find(|dot| !since.contains(*dot)) else { return Ok(()) };
        Err(Error::from(ReadError::TooOld { origin: dot.origin, floor: dot.sequence }))
    }

    /// Follows every change that `since` does not include: first what is stored, then what comes.
    #[must_use]
    pub fn follow(&self, since: VersionVector) -> Follower {
        let position = self.journal.position();
        let told = self.journal.expand(&since);
        let short = self.journal.compact(&told);
        Follower { feed: self.clone(), position, told, short, page: VecDeque::new() }
    }
}

/// One reader of the change feed.
#[derive(Debug)]
pub struct Follower {
    feed: Changes,
    position: watch::Receiver<Arc<Position>>,
    told: VersionVector,
    /// The same in its short form, which tokens have.
    short: VersionVector,
    page: VecDeque<Entry>,
}

impl Follower {
    /// Waits for the next change.
    ///
    /// # Errors
    /// `Gone` if the journal no longer reaches back to what was told last; `Corrupt`,
    /// `Unavailable`.
    ///
    /// # Cancel safety
    /// No event is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<ChangeEvent, Error> {
        while self.page.is_empty() {
            if !self.turn()? {
                self.position.changed().await.map_err(|_| {
                    Error::new(ErrorKind::Unavailable, "shutting_down", "the journal is closed")
                })?;
            }
        }
        let Some(entry) = self.page.front().cloned() else {
            let message = "a page of the change feed was empty";
            return Err(Error::new(ErrorKind::Internal, "feed_empty", message));
        };
        let (name, shown) = self.feed.documents.named(entry.document).await?;
        self.page.pop_front();
        self.note(entry.dot());
        Ok(ChangeEvent {
            dot: entry.dot(),
            document: entry.document,
            name: name.or_else(|| entry.name.clone()),
            digest: shown.as_ref().map(|document| document.digest),
            deleted: shown.is_none(),
            token: token::encode(&self.short),
        })
    }

    /// Takes note of what was told. The first entry of an origin implies what stands before it.
    fn note(&mut self, dot: Dot) {
        let first = self.told.sequence(dot.origin) == Sequence::ZERO;
        self.told.raise(dot.origin, dot.sequence);
        self.feed.journal.lengthen(&mut self.short, &self.told, dot, first);
    }

    /// Reads the next page, if there is one. Nothing is told before what its origin implies, or a
    /// token would say that it was told already.
    fn turn(&mut self) -> Result<bool, Error> {
        let position = Arc::clone(&self.position.borrow_and_update());
        let behind = position.vector.iter().filter(|dot| !self.told.contains(*dot));
        let next = self.feed.journal.first_in_order(behind, &self.told);
        let Some(next) = next else { return Ok(false) };
        let after = self.told.sequence(next.origin);
        let entries = self.feed.journal.entries(next.origin, after, PAGE, PAGE_BYTES)?;
        self.page.extend(entries.into_iter().filter(|entry| entry.sequence <= next.sequence));
        Ok(!self.page.is_empty())
    }
}

/// Entries of one page: enough to make the read worth it, few enough to forget.
const PAGE: usize = 256;

/// Bytes of changes of one page.
const PAGE_BYTES: usize = 1 << 20;
