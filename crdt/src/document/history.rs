//! What a document was at earlier points.
//!
//! A point is a list of heads: it stands for these changes and everything before them. Nothing is
//! kept for it besides the history itself, so any point can be gone back to.
//!
//! # Why a point is read from a replica of its own
//!
//! Automerge can read at heads, but each such read works out the clock of the heads again, and its
//! operations look at the whole history. A replica that has the changes up to the point, and no
//! others, shows what every replica showed at that point, by the very code that shows the present.
//! It costs what applying those changes in one batch costs.

use std::collections::BTreeSet;

use automerge::{Automerge, ChangeHash as Hash};
use serde_json::Value;

use super::{Document, guarded};
use crate::ids::ChangeHash;
use crate::policy::Policies;

impl Document {
    /// Returns the JSON that showed when the heads were these, under the policies given; `None`
    /// if the document was not there then, or if a head is unknown.
    #[must_use]
    pub fn value_at(&self, heads: &[ChangeHash], policies: &Policies) -> Option<Value> {
        self.past(heads)?.value(policies)
    }

    /// Returns the document as it was when its heads were these; `None` if one is unknown.
    #[must_use]
    pub fn past(&self, heads: &[ChangeHash]) -> Option<Self> {
        if !heads.iter().all(|head| self.contains(*head)) {
            return None;
        }
        if self.heads().iter().all(|head| heads.contains(head)) {
            return Some(self.clone());
        }
        let known = self.ancestors(heads);
        let mut changes = self.doc.get_changes(&[]);
        changes.retain(|change| known.contains(&change.hash()));
        let mut doc = Automerge::new();
        guarded(|| doc.apply_changes(changes)).ok()?.ok()?;
        Some(Self { doc, admissions: self.admissions.clone() })
    }

    /// Returns these changes and everything before them.
    fn ancestors(&self, heads: &[ChangeHash]) -> BTreeSet<Hash> {
        let mut known = BTreeSet::new();
        let mut open: Vec<Hash> = heads.iter().map(|head| Hash(head.0)).collect();
        while let Some(hash) = open.pop() {
            if known.insert(hash) {
                let meta = self.doc.get_change_meta_by_hash(&hash);
                open.extend(meta.into_iter().flat_map(|meta| meta.deps));
            }
        }
        known
    }
}

#[cfg(test)]
mod tests;
