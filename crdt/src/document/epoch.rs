//! Epochs: how a document is closed, how it goes on, and what becomes of edits that come too late.
//!
//! A closing change ends an epoch. It writes nothing; its message says that the document goes on
//! in its next epoch (`compact`), whose first change holds everything that showed, or that it is
//! gone (`purge`). What a closing change does not cover is late.
//!
//! # Why late edits are done again as they were, and not as a patch of what is there now
//!
//! The next epoch starts with what the closed one showed. So an edit that came late is made once
//! more right behind that start, by the difference it made to the closed epoch, concurrent to
//! everything written since. That *is* the three-way merge: the start is the base, and Automerge,
//! the policies and the ledger do with the two sides what they do with any others. What is made is
//! a pure function of the closed epoch, whatever the order in which late edits arrive: leaders that
//! make it twice make the same bytes, hence the same hash, so nothing counts twice.

mod carry;
mod opening;

use automerge::Automerge;
use uuid::Uuid;

use super::{Author, Change, Document, write};
use crate::clock;
use crate::edit::Path;
use crate::ids::{AuthorName, ChangeHash, Origin, Timestamp};
use crate::message::{self, Act, Message};

pub use carry::{Carried, Carrying};

/// How an epoch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClosingKind {
    /// The document goes on in the next epoch.
    Compact,
    /// The document is gone.
    Purge,
}

/// A change that ended an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// How.
    pub kind: ClosingKind,
    /// Its name.
    pub change: ChangeHash,
    /// These changes and everything before them are not late.
    pub covers: Vec<ChangeHash>,
    /// When it was made.
    pub at: Timestamp,
    /// Who asked for it.
    pub author: Option<AuthorName>,
    /// Why.
    pub note: Option<String>,
}

/// Why a document cannot be carried over into a new epoch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpeningError {
    /// There is no document.
    #[error("the document is not there")]
    NotThere,
    /// A text has marks or blocks, which another Automerge client made; they would be lost.
    #[error("the text at '{0}' has formatting, which a new epoch could not keep")]
    RichText(Path),
}

impl Document {
    /// Makes the change after which the document goes on in its next epoch.
    pub fn close(&mut self, author: &Author) -> Change {
        let message = Message { act: Act::Compact, ..author.message.clone() };
        write::mark(self, &Author { message, ..author.clone() })
    }

    /// Makes the first change of the next epoch: everything that shows under the policies, with
    /// counters as counters and texts as texts. Equal documents make equal changes.
    ///
    /// # Errors
    /// See [`OpeningError`].
    pub fn opening(
        &self,
        author: Option<AuthorName>,
        note: Option<String>,
        policies: &crate::policy::Policies,
    ) -> Result<Change, OpeningError> {
        opening::make(self, Message { act: Act::Open, author, note }, policies)
    }

    /// Makes the change that purges a document whose heads these are. It stands alone, so it is
    /// there when everything else of the document is gone. Equal heads make equal changes.
    #[must_use]
    pub fn purging(&self, author: Option<AuthorName>, note: Option<&str>) -> Change {
        let covers = self.heads();
        let message = Message { act: Act::Purge, author, note: Some(covering(&covers, note)) };
        let at = self.time_of(&covers);
        by_content(|origin| {
            let author = Author { origin, at, message: message.clone() };
            write::delete(&mut Self::new(), &author)
        })
    }

    /// Returns the changes that close the document, in the order of their hashes. Reads the whole
    /// history.
    #[must_use]
    pub fn closings(&self) -> Vec<Closing> {
        let closes = |meta: &automerge::ChangeMetadata<'_>| {
            meta.message.as_deref().is_some_and(message::is_closing)
        };
        let metas = self.doc.get_changes_meta(&[]);
        let mut closings: Vec<_> =
            metas.iter().filter(|meta| closes(meta)).filter_map(closing).collect();
        closings.sort_by_key(|closing| closing.change);
        closings
    }

    /// Returns what no closing covers and is none itself, in causal order.
    #[must_use]
    pub fn late(&self, closings: &[Closing]) -> Vec<ChangeHash> {
        let known = |hash: &ChangeHash| self.contains(*hash);
        let covered: Vec<_> =
            covers(closings).filter(known).map(|hash| automerge::ChangeHash(hash.0)).collect();
        let late = self.doc.get_changes_meta(&covered).into_iter();
        let late = late.map(|meta| ChangeHash(meta.hash.0));
        late.filter(|hash| closings.iter().all(|closing| closing.change != *hash)).collect()
    }

    /// Tells whether a change that depends on `deps` knows all of `others`; a change that is not
    /// here is not known.
    #[must_use]
    pub fn knows_all(&self, deps: &[ChangeHash], others: &[ChangeHash]) -> bool {
        others.iter().all(|other| {
            let other = automerge::ChangeHash(other.0);
            let knows = |dep: &ChangeHash| {
                super::standin::knows(&self.doc, &automerge::ChangeHash(dep.0), &other)
            };
            self.contains(ChangeHash(other.0)) && deps.iter().any(knows)
        })
    }

    /// Returns a document that has nothing but these changes of its own that stand alone.
    #[must_use]
    pub fn only(&self, changes: &[ChangeHash]) -> Self {
        self.past(changes).unwrap_or_default()
    }

    /// Returns the heads before the delete that ended the document, sorted; `None` if it exists or
    /// was never written.
    #[must_use]
    pub fn heads_before_delete(&self) -> Option<Vec<ChangeHash>> {
        if self.exists() || self.changes() == 0 {
            return None;
        }
        let mut before: Vec<ChangeHash> = Vec::new();
        for head in self.doc.get_heads() {
            let meta = self.doc.get_change_meta_by_hash(&head)?;
            let deletes = meta.message.as_deref().is_some_and(message::is_delete);
            match deletes {
                true => before.extend(meta.deps.iter().map(|dep| ChangeHash(dep.0))),
                false => before.push(ChangeHash(head.0)),
            }
        }
        // A change that writes nothing may stand behind the delete; what it follows is deleted too.
        let heads = self.heads_of(&before)?;
        let past = self.past(&heads)?;
        if past.exists() { Some(heads) } else { past.heads_before_delete() }
    }

    /// Returns when the change that the document ends with was made, as it claims.
    #[must_use]
    pub fn deleted_at(&self) -> Timestamp {
        self.time_of(&self.heads())
    }

    /// Returns the leader that admitted a change of the history.
    #[must_use]
    pub fn admitted_by(&self, change: ChangeHash) -> Option<Origin> {
        let hash = automerge::ChangeHash(change.0);
        let meta = self.doc.get_change_meta_by_hash(&hash)?;
        Some(self.admissions.leader(&hash, super::writer(&meta.actor)))
    }

    /// The latest time that one of these changes claims.
    fn time_of(&self, changes: &[ChangeHash]) -> Timestamp {
        let meta =
            |hash: &ChangeHash| self.doc.get_change_meta_by_hash(&automerge::ChangeHash(hash.0));
        let times = changes.iter().filter_map(meta).map(|meta| clock::normalise(meta.timestamp));
        times.max().unwrap_or_default()
    }
}

/// Tells whether a change, as it is stored, closes the document that it belongs to, and how.
#[must_use]
pub fn closes(summary: &super::ChangeSummary) -> Option<ClosingKind> {
    summary.message.act.closes()
}

fn covers(closings: &[Closing]) -> impl Iterator<Item = ChangeHash> {
    closings.iter().flat_map(|closing| closing.covers.iter().copied())
}

fn closing(meta: &automerge::ChangeMetadata<'_>) -> Option<Closing> {
    let Message { act, author, note } = Message::read(meta.message.as_deref());
    let change = ChangeHash(meta.hash.0);
    let kind = act.closes()?;
    let (covers, note) = match kind {
        ClosingKind::Compact => (vec![change], note),
        ClosingKind::Purge => covered(note.as_deref().unwrap_or_default())?,
    };
    Some(Closing { kind, change, covers, at: clock::normalise(meta.timestamp), author, note })
}

/// The note of a change that covers others: their hashes, then what people wrote.
fn covering(covers: &[ChangeHash], note: Option<&str>) -> String {
    let hashes: Vec<String> = covers.iter().map(ToString::to_string).collect();
    match note {
        Some(note) => format!("{}: {note}", hashes.join(",")),
        None => hashes.join(","),
    }
}

fn covered(note: &str) -> Option<(Vec<ChangeHash>, Option<String>)> {
    let (hashes, note) = match note.split_once(": ") {
        Some((hashes, note)) => (hashes, Some(note.to_owned())),
        None => (note, None),
    };
    let hashes: Result<Vec<ChangeHash>, _> = hashes.split(',').map(str::parse).collect();
    Some((hashes.ok()?, note))
}

/// Makes a change under an id that follows from its content, so that no two different changes are
/// ever of one writer.
fn by_content(make: impl Fn(Origin) -> Change) -> Change {
    let draft = make(Origin::from_bytes([0; 16]));
    make(Origin(Uuid::new_v5(&WRITER_NAMESPACE, &draft.bytes)))
}

fn hashes(doc: &Automerge) -> Vec<ChangeHash> {
    let mut heads: Vec<_> = doc.get_heads().into_iter().map(|head| ChangeHash(head.0)).collect();
    heads.sort_unstable();
    heads
}

/// The UUID namespace of writers that follow from what they write; it never changes, because equal
/// content must make equal changes.
const WRITER_NAMESPACE: Uuid = Uuid::from_bytes([
    0x2b, 0x9f, 0x64, 0x1d, 0xe7, 0x50, 0x4a, 0x83, 0x96, 0xbe, 0x0a, 0xd3, 0x7c, 0x48, 0xf1, 0x25,
]);

#[cfg(test)]
mod tests;
