//! The live ledger: who is told that a row of it changed.
//!
//! What is queued for followers are notices of a fixed size; each follower reads the row when its
//! turn comes, and so tells what the row is by then. One that falls behind by more than the queue
//! holds is told so, and lists again.

use anabranch_crdt::conflict::ConflictId;
use anabranch_crdt::ids::DocumentId;
use tokio::sync::broadcast;

use crate::document::{ConflictFilter, Documents, NamedConflict, read_conflict};
use crate::error::{Error, ErrorKind};
use crate::journal::{CommitBatch, Journal, StoredConflict};

/// Takes note of the rows that each transaction writes, for those who follow.
#[derive(Debug, Clone)]
pub struct ConflictBell {
    notices: broadcast::Sender<Notice>,
}

#[derive(Debug, Clone, Copy)]
struct Notice {
    document: DocumentId,
    conflict: ConflictId,
    removed: bool,
}

impl ConflictBell {
    /// Makes a bell that nobody hears yet.
    #[must_use]
    pub fn new() -> Self {
        Self { notices: broadcast::Sender::new(QUEUE) }
    }

    /// Takes note of what one transaction did to the ledger. It never blocks.
    pub fn committed(&self, batch: &CommitBatch) {
        if self.notices.receiver_count() == 0 {
            return;
        }
        for change in &batch.conflicts {
            let (document, conflict) = (change.document, change.conflict);
            let notice = Notice { document, conflict, removed: change.row.is_none() };
            // The last follower may be gone by now, and that is fine.
            let _ = self.notices.send(notice);
        }
    }
}

impl Default for ConflictBell {
    fn default() -> Self {
        Self::new()
    }
}

/// The live ledger of this node.
#[derive(Debug, Clone)]
pub struct Conflicts {
    journal: Journal,
    documents: Documents,
    bell: ConflictBell,
}

impl Conflicts {
    /// Makes the live ledger of a journal, which rings `bell`.
    #[must_use]
    pub fn new(journal: Journal, documents: Documents, bell: ConflictBell) -> Self {
        Self { journal, documents, bell }
    }

    /// Follows every change, from now on, of rows that `filter` passes; its times, place and limit
    /// do not matter.
    #[must_use]
    pub fn follow(&self, filter: ConflictFilter) -> ConflictFollower {
        let filter = ConflictFilter { since: None, until: None, ..filter };
        ConflictFollower { ledger: self.clone(), notices: self.bell.notices.subscribe(), filter }
    }
}

/// What happened to the ledger.
#[derive(Debug, Clone, PartialEq)]
pub enum ConflictEvent {
    /// A row is new, or has changed.
    Row(Box<NamedConflict>),
    /// A row is gone: it was dropped, or became part of another. Such a row may be one that the
    /// filter did not pass, because nobody knows any more what it said.
    Removed(ConflictId),
    /// So many changes were missed: the ledger is to be listed again.
    Lagged(u64),
}

/// One who follows the ledger.
#[derive(Debug)]
pub struct ConflictFollower {
    ledger: Conflicts,
    notices: broadcast::Receiver<Notice>,
    filter: ConflictFilter,
}

impl ConflictFollower {
    /// Waits for the next change.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    ///
    /// # Cancel safety
    /// No event is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<ConflictEvent, Error> {
        loop {
            let event = match self.notices.recv().await {
                Ok(notice) if notice.removed => self.removed(notice)?,
                Ok(notice) => self.row(notice)?,
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    Some(ConflictEvent::Lagged(missed))
                }
                Err(broadcast::error::RecvError::Closed) => {
                    let message = "the journal is closed";
                    return Err(Error::new(ErrorKind::Unavailable, "shutting_down", message));
                }
            };
            if let Some(event) = event {
                return Ok(event);
            }
        }
    }

    /// The row as it is now, if the filter passes it; one that is gone by now has its own notice.
    fn row(&self, notice: Notice) -> Result<Option<ConflictEvent>, Error> {
        let Notice { document, conflict, .. } = notice;
        // Anew each time: a region may have a new origin by now.
        let filter = self.ledger.documents.ledger_filter(&self.filter);
        if filter.documents.as_ref().is_some_and(|wanted| !wanted.contains(&document)) {
            return Ok(None);
        }
        let row = self.ledger.journal.conflict(document, conflict)?;
        let Some(row) = row.filter(|row| filter.passes(document, &row.summary)) else {
            return Ok(None);
        };
        let named = read_conflict(&StoredConflict { document, conflict, row })?;
        Ok(Some(ConflictEvent::Row(Box::new(named))))
    }

    fn removed(&self, notice: Notice) -> Result<Option<ConflictEvent>, Error> {
        let ConflictFilter { document, collection, .. } = &self.filter;
        let other = document
            .as_ref()
            .is_some_and(|name| !self.ledger.documents.epoch_ids(name).contains(&notice.document));
        let elsewhere = match collection {
            Some(wanted) if !other => {
                let (row, _) = self.ledger.journal.row(notice.document)?;
                let name = row.and_then(|row| row.name);
                name.is_none_or(|name| name.collection != *wanted)
            }
            _ => false,
        };
        Ok((!other && !elsewhere).then_some(ConflictEvent::Removed(notice.conflict)))
    }
}

/// Notices that wait for the slowest follower: some hundred kilobytes, and as many rows as a
/// region that comes back after an outage may write at once.
const QUEUE: usize = 4_096;
