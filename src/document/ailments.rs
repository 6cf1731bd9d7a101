//! What is wrong with documents of this node: listed and counted until it is mended.
//!
//! It is kept in memory alone: what is still wrong after a restart is found again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anabranch_crdt::entry::Dot;
use anabranch_crdt::ids::{DocumentId, Timestamp};

/// A document that cannot be read, because stored bytes of it are damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// The document.
    pub document: DocumentId,
    /// What is wrong.
    pub reason: String,
    /// When that was found.
    pub since: Timestamp,
}

/// An entry that cannot be applied to its document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// The document.
    pub document: DocumentId,
    /// The entry.
    pub dot: Dot,
    /// What is wrong.
    pub reason: String,
    /// When that was found.
    pub since: Timestamp,
}

/// What is wrong with the documents of a node.
#[derive(Debug, Default)]
pub(super) struct Ailments {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    damaged: BTreeMap<DocumentId, Damaged>,
    quarantined: BTreeMap<(DocumentId, Dot), Quarantined>,
}

impl Ailments {
    pub(super) fn note_damage(&self, document: DocumentId, reason: &str, since: Timestamp) {
        let mut known = self.lock();
        if known.damaged.len() < MOST {
            let reason = reason.to_owned();
            known.damaged.entry(document).or_insert(Damaged { document, reason, since });
        }
    }

    pub(super) fn note_mended(&self, document: DocumentId) {
        self.lock().damaged.remove(&document);
    }

    /// Replaces what is known of the entries of a document.
    pub(super) fn note_quarantine(
        &self,
        document: DocumentId,
        entries: &BTreeMap<Dot, String>,
        since: Timestamp,
    ) {
        let mut known = self.lock();
        if !known.quarantined.is_empty() {
            known.quarantined.retain(|(id, dot), _| *id != document || entries.contains_key(dot));
        }
        for (dot, reason) in entries {
            if known.quarantined.len() < MOST {
                let (dot, reason) = (*dot, reason.clone());
                let new = Quarantined { document, dot, reason, since };
                known.quarantined.entry((document, dot)).or_insert(new);
            }
        }
    }

    pub(super) fn damaged(&self) -> Vec<Damaged> {
        self.lock().damaged.values().cloned().collect()
    }

    pub(super) fn quarantined(&self) -> Vec<Quarantined> {
        self.lock().quarantined.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of each kind so many are listed: a disk that rots further needs another disk, not a list.
const MOST: usize = 10_000;
