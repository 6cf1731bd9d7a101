//! Subscriptions: who is told that a document changed.

use anabranch_crdt::entry::Dot;
use anabranch_crdt::ids::{DocumentId, DocumentName};
use anabranch_crdt::version::VersionVector;

use crate::document::Digest;
use crate::error::Error;

/// One line of the change feed: a document changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeEvent {
    /// The entry that changed it.
    pub dot: Dot,
    /// The document.
    pub document: DocumentId,
    /// Its name, if it has one.
    pub name: Option<DocumentName>,
    /// The digest of its heads when the event was made; `None` when it is not applied yet.
    pub digest: Option<Digest>,
    /// Whether the document is deleted now.
    pub deleted: bool,
    /// A session token that includes this event and everything told before it.
    pub token: String,
}

/// The change feed of this node.
#[derive(Debug, Clone)]
pub struct Changes {}

impl Changes {
    /// Follows every change that `since` does not include: first what is stored, then what comes.
    /// A follower that cannot keep up is continued from the journal, so nothing is skipped and
    /// nothing is buffered without bound.
    #[must_use]
    pub fn follow(&self, since: VersionVector) -> Follower {
        let _ = since;
        todo!()
    }
}

/// One reader of the change feed.
#[derive(Debug)]
pub struct Follower {}

impl Follower {
    /// Waits for the next change.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    ///
    /// # Cancel safety
    /// No event is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<ChangeEvent, Error> {
        todo!()
    }
}
