//! Documents of which a commit is under way, so that none is read off the disk before its last
//! step is there: a change that is made on an earlier state would number itself like another one.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anabranch_crdt::ids::DocumentId;

/// How many commits are under way, by document.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    commits: Mutex<BTreeMap<DocumentId, u32>>,
}

impl InFlight {
    pub(super) fn start(&self, documents: &[DocumentId]) {
        let mut commits = self.lock();
        for id in documents {
            *commits.entry(*id).or_default() += 1;
        }
    }

    /// Takes note of the end of a commit, whichever it was.
    pub(super) fn end(&self, documents: &[DocumentId]) {
        let mut commits = self.lock();
        for id in documents {
            match commits.get_mut(id) {
                Some(left) if *left > 1 => *left -= 1,
                Some(_) | None => drop(commits.remove(id)),
            }
        }
    }

    /// Tells whether a commit of a document is under way.
    pub(super) fn includes(&self, document: DocumentId) -> bool {
        self.lock().contains_key(&document)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<DocumentId, u32>> {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
