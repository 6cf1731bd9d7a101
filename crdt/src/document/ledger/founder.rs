//! FOUNDER: stand-ins for what the ledger is to offer; this file goes away at the merge.

use super::{Document, Ledger};
use crate::conflict::{Candidate, ConflictId};
use crate::edit::Path;
use crate::ids::DocumentId;
use crate::policy::{Policies, Policy};

/// FOUNDER: a winner that other settings would change.
#[derive(Debug, Clone, PartialEq)]
pub struct Flip {
    /// The conflict.
    pub conflict: ConflictId,
    /// Its path.
    pub path: Path,
    /// What shows, and by which policy.
    pub from: (Policy, Option<Candidate>),
    /// What would show, and by which policy.
    pub to: (Policy, Option<Candidate>),
}

impl Ledger {
    /// FOUNDER: finds all collisions again.
    pub fn rebuild(&mut self, document: &Document, id: DocumentId, policies: &Policies) {
        self.decide(document, id, policies);
    }

    /// FOUNDER: what `policies` would change.
    #[must_use]
    pub fn simulate(&self, document: &Document, id: DocumentId, policies: &Policies) -> Vec<Flip> {
        let mut other = Self { rows: self.rows.clone(), ..Self::default() };
        other.decide(document, id, policies);
        let mut flips = Vec::new();
        for (one, two) in self.conflicts().zip(other.conflicts()) {
            let shows = |conflict: &crate::conflict::Conflict| {
                conflict.winner.and_then(|winner| conflict.candidates.get(winner)).cloned()
            };
            let (from, to) = (shows(one), shows(two));
            if from.as_ref().map(|c| &c.id) != to.as_ref().map(|c| &c.id) {
                let (conflict, path) = (one.id, one.path.clone());
                flips.push(Flip { conflict, path, from: (one.policy, from), to: (two.policy, to) });
            }
        }
        flips
    }
}
