//! Documents as bundles: what someone lacks of a document, with the admission of each change.

use std::collections::BTreeSet;

use automerge::Change;
use bytes::Bytes;

use super::{Admitted, ApplyError, Document, parse};
use crate::bundle::{Bundle, BundledChange, MAX_BUNDLE_CHANGES};
use crate::entry::Dot;
use crate::ids::{ChangeHash, DocumentId, DocumentName};

impl Document {
    /// Returns the changes that are no ancestors of `have` (unknown hashes count as nothing), in
    /// causal order: the first ones up to `bytes` of changes, at least one if there is one.
    /// `dots` says which entries the document reflects.
    #[must_use]
    pub fn bundle(
        &self,
        document: DocumentId,
        name: Option<DocumentName>,
        dots: Vec<Dot>,
        have: &[ChangeHash],
        bytes: usize,
    ) -> Bundle {
        let have = have.iter().map(|hash| automerge::ChangeHash(hash.0));
        let known = |hash: &automerge::ChangeHash| self.doc.get_change_meta_by_hash(hash).is_some();
        let have: Vec<_> = have.filter(known).collect();
        let (mut changes, mut taken) = (Vec::new(), 0_usize);
        for change in self.doc.get_changes(&have) {
            taken = taken.saturating_add(change.raw_bytes().len());
            let full = taken > bytes || changes.len() >= MAX_BUNDLE_CHANGES;
            if full && !changes.is_empty() {
                break;
            }
            changes.push(self.bundled(&change));
        }
        Bundle { document, name, heads: self.heads(), changes, dots }
    }

    fn bundled(&self, change: &Change) -> BundledChange {
        let (admitted, by) = self.admissions.of(change);
        BundledChange { change: Bytes::copy_from_slice(change.raw_bytes()), admitted, by }
    }

    /// Tells whether all of these are in the history.
    #[must_use]
    pub fn contains_all(&self, hashes: &[ChangeHash]) -> bool {
        hashes.iter().all(|hash| self.contains(*hash))
    }

    /// Returns what changes depend on that is neither in the history nor among them.
    ///
    /// # Errors
    /// One of them is no change, or is damaged.
    pub fn missing(&self, changes: &[BundledChange]) -> Result<Vec<ChangeHash>, ApplyError> {
        let parsed: Result<Vec<_>, _> =
            changes.iter().map(|change| parse(&change.change)).collect();
        let parsed = parsed?;
        let come: BTreeSet<_> = parsed.iter().map(Change::hash).collect();
        let wanted =
            parsed.iter().flat_map(|change| change.deps()).filter(|dep| !come.contains(dep));
        let wanted: BTreeSet<ChangeHash> = wanted.map(|dep| ChangeHash(dep.0)).collect();
        Ok(wanted.into_iter().filter(|dep| !self.contains(*dep)).collect())
    }
}

impl From<&BundledChange> for Admitted {
    fn from(bundled: &BundledChange) -> Self {
        let BundledChange { change, admitted, by } = bundled.clone();
        Self { change, at: admitted, by: Some(by) }
    }
}
