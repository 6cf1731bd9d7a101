//! In what condition one document is here: what it holds, what waits, and what cannot be applied. It is what
//! two regions compare when one document differs between them.

use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{ChangeHash, DocumentId, DocumentName, Timestamp};

use super::{Digest, Documents};
use crate::error::{Error, ErrorKind};

/// How a document stands here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The document.
    pub id: DocumentId,
    /// The digest of its heads; `None` if it is not known here.
    pub digest: Option<Digest>,
    /// Whether it is there for those who read.
    pub live: bool,
    /// Its heads, in ascending order.
    pub heads: Vec<ChangeHash>,
    /// Changes in its history.
    pub changes: u64,
    /// The last entry of each origin that it reflects or waits for.
    pub dots: Vec<Dot>,
    /// Entries that are durable here and that it does not reflect.
    pub held_back: Vec<HeldBack>,
    /// Why it cannot be read.
    pub damage: Option<String>,
}

/// An entry that a document does not reflect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldBack {
    /// The entry.
    pub dot: Dot,
    /// When it was admitted.
    pub admitted: Timestamp,
    /// Why it cannot be applied; `None` if it waits for changes that are not here.
    pub quarantined: Option<String>,
}

impl Documents {
    /// Tells how a document stands, after everything was applied to it that can be.
    ///
    /// # Errors
    /// `Unavailable`. Damage is no error here, but an answer.
    pub async fn condition(&self, name: &DocumentName) -> Result<Condition, Error> {
        let id = DocumentId::from(name);
        let (heads, damage) = match self.heads(id).await {
            Ok(heads) => (heads, None),
            Err(error) if error.kind() == ErrorKind::Corrupt => (Vec::new(), Some(error)),
            Err(error) => return Err(error),
        };
        let journal = self.setting.journal.clone();
        let read = tokio::task::spawn_blocking(move || {
            let row = journal.row(id).map(|(row, _)| row);
            (row, journal.document_dots(id), journal.pending_of(id))
        });
        let (row, dots, pending) =
            read.await.map_err(|error| super::shutting_down().with_source(error))?;
        let mut damage = damage.map(|error| error.to_string());
        let row = row.unwrap_or_else(|error| {
            damage.get_or_insert(error.to_string());
            None
        });
        let pending = pending.unwrap_or_default();
        Ok(Condition {
            id,
            digest: row.as_ref().map(|row| Digest(row.digest)),
            live: row.as_ref().is_some_and(|row| row.json.is_some()),
            changes: row.map_or(0, |row| row.changes),
            heads,
            dots: dots.unwrap_or_default(),
            held_back: pending.iter().map(|entry| self.held_back(entry)).collect(),
            damage,
        })
    }

    fn held_back(&self, entry: &Entry) -> HeldBack {
        let dot = entry.dot();
        let quarantined = self.quarantined().into_iter().find(|quarantined| quarantined.dot == dot);
        let quarantined = quarantined.map(|quarantined| quarantined.reason);
        HeldBack { dot, admitted: entry.admitted, quarantined }
    }
}
