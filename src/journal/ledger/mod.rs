//! The ledger on disk: rows by document, an index of them by time, and counts.
//!
//! A row is stored once, in `conflicts-2`, with a summary in front of the bytes that only its
//! owner can read. The index and the counts follow from the summaries and are written in the
//! transaction of the row, so they never disagree with it; what rots there is made anew.
//!
//! `keys` fixes the order of the index, `record` the bytes, `index` keeps it in step, `read`
//! answers, `legacy` converts the ledger of format 1.

pub(super) mod index;
pub(super) mod keys;
pub(super) mod legacy;
pub(super) mod read;
pub(super) mod record;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use anabranch_crdt::conflict::{Conflict, ConflictId, ConflictKind, ConflictState};
use anabranch_crdt::edit::Path;
use anabranch_crdt::ids::{CollectionName, DocumentId, DocumentName, Origin, Timestamp};
use bytes::Bytes;

/// A row of the ledger as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRow {
    /// What rows are found and counted by.
    pub summary: ConflictSummary,
    /// The row as its owner encoded it.
    pub bytes: Bytes,
}

/// What rows of the ledger are found and counted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflictSummary {
    /// The name of the document, if it has one.
    pub name: Option<DocumentName>,
    /// The path inside the document.
    pub path: Path,
    /// What collided.
    pub kind: ConflictKind,
    /// Where the conflict stands.
    pub state: ConflictState,
    /// The time of the latest candidate.
    pub at: Timestamp,
    /// The leaders that admitted the candidates, each once.
    pub leaders: Vec<Origin>,
    /// When something was done about the conflict last, if anything was.
    pub acted_at: Option<Timestamp>,
}

impl ConflictSummary {
    /// Sums up a conflict of the document that `name` names.
    #[must_use]
    pub fn of(conflict: &Conflict, name: Option<DocumentName>) -> Self {
        let leaders: BTreeSet<Origin> = conflict.candidates.iter().map(|c| c.leader).collect();
        let acts = conflict.acts.iter().chain(&conflict.settled);
        Self {
            name,
            path: conflict.path.clone(),
            kind: conflict.kind,
            state: conflict.state,
            at: conflict.at(),
            leaders: leaders.into_iter().collect(),
            acted_at: acts.map(|act| act.at).max(),
        }
    }

    /// The collection of the document, if it has a name.
    #[must_use]
    pub fn collection(&self) -> Option<&CollectionName> {
        self.name.as_ref().map(|name| &name.collection)
    }

    /// Since when nothing happened to the conflict.
    #[must_use]
    pub fn rests_since(&self) -> Timestamp {
        self.acted_at.map_or(self.at, |acted| acted.max(self.at))
    }
}

/// Which rows of the ledger are wanted. What is `None` does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerFilter {
    /// The collection of the document.
    pub collection: Option<CollectionName>,
    /// The documents: one, and those that are earlier epochs of it.
    pub documents: Option<BTreeSet<DocumentId>>,
    /// The path, or one around it.
    pub path: Option<Path>,
    /// What collided.
    pub kind: Option<ConflictKind>,
    /// Where the conflict stands.
    pub state: Option<ConflictState>,
    /// Any of the leaders that admitted candidates.
    pub leaders: Option<BTreeSet<Origin>>,
    /// The earliest time of the latest candidate.
    pub since: Option<Timestamp>,
    /// The first time of the latest candidate that is too late.
    pub until: Option<Timestamp>,
}

impl LedgerFilter {
    /// Tells whether the filter passes a row of a document.
    #[must_use]
    pub fn passes(&self, document: DocumentId, summary: &ConflictSummary) -> bool {
        self.documents.as_ref().is_none_or(|wanted| wanted.contains(&document))
            && self.collection.as_ref().is_none_or(|wanted| summary.collection() == Some(wanted))
            && self.state.is_none_or(|wanted| wanted == summary.state)
            && self.kind.is_none_or(|wanted| wanted == summary.kind)
            && self.since.is_none_or(|since| summary.at >= since)
            && self.until.is_none_or(|until| summary.at < until)
            && self.path.as_ref().is_none_or(|wanted| starts_with(&summary.path, wanted))
            && self.leaders.as_ref().is_none_or(|wanted| any_of(&summary.leaders, wanted))
    }
}

fn starts_with(path: &Path, wanted: &Path) -> bool {
    path.tokens().starts_with(wanted.tokens())
}

fn any_of(leaders: &[Origin], wanted: &BTreeSet<Origin>) -> bool {
    leaders.iter().any(|leader| wanted.contains(leader))
}

/// The place of a row in a listing, which goes from the newest to the oldest. As text it is a
/// cursor, which holds its place while rows come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerPosition {
    /// The time of the latest candidate.
    pub at: Timestamp,
    /// The conflict.
    pub conflict: ConflictId,
}

impl fmt::Display for LedgerPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{}", self.at.0, self.conflict)
    }
}

impl FromStr for LedgerPosition {
    type Err = LedgerPositionError;

    fn from_str(text: &str) -> Result<Self, LedgerPositionError> {
        let parts = text.is_ascii().then(|| text.split_at_checked(16)).flatten();
        let parsed = parts.and_then(|(at, conflict)| {
            let digits = at.bytes().all(|byte| byte.is_ascii_hexdigit());
            let at = u64::from_str_radix(at, 16).ok().filter(|_| digits)?;
            Some(Self { at: Timestamp(at), conflict: conflict.parse().ok()? })
        });
        parsed.ok_or(LedgerPositionError)
    }
}

/// The text is no place in a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no cursor: take `next` of the page before as it is")]
pub struct LedgerPositionError;

/// A row of the ledger, and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredConflict {
    /// The document.
    pub document: DocumentId,
    /// The conflict.
    pub conflict: ConflictId,
    /// The row.
    pub row: LedgerRow,
}

impl StoredConflict {
    /// Its place in a listing.
    #[must_use]
    pub fn position(&self) -> LedgerPosition {
        LedgerPosition { at: self.row.summary.at, conflict: self.conflict }
    }
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LedgerPage {
    /// The rows, newest first.
    pub rows: Vec<StoredConflict>,
    /// How many rows the filter passes, on all pages.
    pub total: u64,
    /// After which row the next page starts, if there is one.
    pub next: Option<LedgerPosition>,
}

/// How many rows are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerCount {
    /// The collection of their documents, or `None` for documents without a name.
    pub collection: Option<CollectionName>,
    /// Where they stand.
    pub state: ConflictState,
    /// What collided.
    pub kind: ConflictKind,
    /// How many.
    pub count: u64,
}

/// A conflict that is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettledConflict {
    /// Its place in the listing.
    pub position: LedgerPosition,
    /// The document.
    pub document: DocumentId,
}

/// A row of the ledger that a transaction wrote, or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerChange {
    /// The document.
    pub document: DocumentId,
    /// The conflict.
    pub conflict: ConflictId,
    /// The row, or `None` if it was removed.
    pub row: Option<LedgerRow>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_they_are_written() {
        let position = LedgerPosition { at: Timestamp::MAX, conflict: ConflictId([0xab; 16]) };
        assert_eq!(position.to_string().parse(), Ok(position));
        let text = position.to_string();
        for bad in
            ["", "x", &text[1..], &format!("{text}0"), &text.replace('a', "é"), &"+".repeat(48)]
        {
            assert_eq!(bad.parse::<LedgerPosition>(), Err(LedgerPositionError), "{bad}");
        }
    }
}
