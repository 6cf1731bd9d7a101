//! The documents that are kept loaded.

use std::collections::BTreeMap;

use anabranch_crdt::ids::DocumentId;

use super::loaded::Loaded;

/// The documents that were used last.
#[derive(Debug, Default)]
pub(super) struct Cache {
    loaded: BTreeMap<DocumentId, Loaded>,
    uses: u64,
}

impl Cache {
    /// Takes a document out, for its user to put back once it is stored as it is in memory.
    pub(super) fn take(&mut self, id: DocumentId) -> Option<Loaded> {
        self.loaded.remove(&id)
    }

    pub(super) fn put(&mut self, mut loaded: Loaded) {
        self.uses = self.uses.saturating_add(1);
        loaded.used = self.uses;
        self.loaded.insert(loaded.id, loaded);
        if self.loaded.len() > MAX_LOADED {
            let oldest = self.loaded.values().min_by_key(|loaded| loaded.used).map(|l| l.id);
            oldest.and_then(|id| self.loaded.remove(&id));
        }
    }
}

/// Documents that are kept: what one person has open, and few enough for a phone.
const MAX_LOADED: usize = 32;
