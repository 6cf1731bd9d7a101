//! The loaded documents of one owner, bounded in bytes; the least recently used go first.

use std::collections::{BTreeMap, HashMap};

use anabranch_crdt::ids::DocumentId;

use super::loaded::Loaded;

/// A bounded set of loaded documents.
#[derive(Debug)]
pub(super) struct Cache {
    documents: HashMap<DocumentId, Held>,
    /// Documents by the moment of their last use.
    by_use: BTreeMap<u64, DocumentId>,
    uses: u64,
    bytes: usize,
    limit: usize,
}

#[derive(Debug)]
struct Held {
    loaded: Loaded,
    used: u64,
    weight: usize,
}

impl Cache {
    pub(super) fn new(limit: usize) -> Self {
        Self { documents: HashMap::new(), by_use: BTreeMap::new(), uses: 0, bytes: 0, limit }
    }

    /// Takes a document out, to be worked on.
    pub(super) fn take(&mut self, id: DocumentId) -> Option<Loaded> {
        let held = self.documents.remove(&id)?;
        self.by_use.remove(&held.used);
        self.bytes = self.bytes.saturating_sub(held.weight);
        Some(held.loaded)
    }

    /// Tells whether a document is here.
    pub(super) fn holds(&self, id: DocumentId) -> bool {
        self.documents.contains_key(&id)
    }

    /// Puts a document in as the most recently used, and drops others while there is no room.
    pub(super) fn put(&mut self, loaded: Loaded) {
        self.take(loaded.id);
        self.uses = self.uses.wrapping_add(1);
        let held = Held { weight: loaded.weight(), used: self.uses, loaded };
        self.bytes = self.bytes.saturating_add(held.weight);
        self.by_use.insert(held.used, held.loaded.id);
        self.documents.insert(held.loaded.id, held);
        while self.bytes > self.limit {
            let Some((_, &oldest)) = self.by_use.first_key_value() else { return };
            self.take(oldest);
        }
    }

    /// Drops every document.
    pub(super) fn clear(&mut self) {
        self.documents.clear();
        self.by_use.clear();
        self.bytes = 0;
    }
}
