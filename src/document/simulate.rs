//! Simulation: which values would stop showing if a collection had other settings. Nothing is
//! written, and documents are loaded beside their owners, whose time it does not take.

use std::collections::BTreeSet;

use anabranch_crdt::document::Flip;
use anabranch_crdt::ids::{CollectionName, DocumentId, DocumentKey, DocumentName};
use anabranch_crdt::policy::Policies;

use super::listing::blocking;
use super::loaded::{Loaded, damaged};
use super::{Documents, settings};
use crate::error::Error;

/// What other settings would change.
#[derive(Debug, Clone, Default)]
pub struct Simulation {
    /// Conflicts that they would decide.
    pub conflicts: u64,
    /// Conflicts of which another value would show.
    pub flipped: u64,
    /// The first [`MAX_FLIPS`] of those.
    pub flips: Vec<NamedFlip>,
}

/// A conflict of which another value would show.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedFlip {
    /// The document.
    pub document: DocumentId,
    /// Its name, if it has one.
    pub name: Option<DocumentName>,
    /// What would show instead of what.
    pub flip: Flip,
}

impl Documents {
    /// Finds out what would change if a collection had these settings. Simulations take turns.
    ///
    /// # Errors
    /// `Forbidden` for the reserved collection; `Corrupt`, `Unavailable`.
    pub async fn simulate(
        &self,
        collection: &CollectionName,
        policies: &Policies,
    ) -> Result<Simulation, Error> {
        settings::check_writable(collection)?;
        let _turn = self.setting.collections.simulation().await;
        let present = self.setting.collections.of(Some(collection));
        let mut simulation = Simulation::default();
        let mut known = BTreeSet::new();
        if !present.same_wholes(policies) {
            let mut after = None;
            loop {
                let page = self.page(collection, after).await?;
                let Some((last, _)) = page.last() else { break };
                after = Some(last.clone());
                let ids: Vec<DocumentId> = page.into_iter().map(|(_, id)| id).collect();
                self.simulate_some(&ids, policies, &mut simulation).await?;
                known.extend(ids);
            }
        }
        let (documents, name) = (self.clone(), collection.clone());
        let with_rows = blocking(move || {
            let mut found = BTreeSet::new();
            documents.each_row(&name, |id, _| {
                found.insert(id);
                Ok(())
            })?;
            Ok(found)
        });
        let rest: Vec<DocumentId> = with_rows.await?.difference(&known).copied().collect();
        for some in rest.chunks(PAGE) {
            self.simulate_some(some, policies, &mut simulation).await?;
        }
        Ok(simulation)
    }

    async fn page(
        &self,
        collection: &CollectionName,
        after: Option<DocumentKey>,
    ) -> Result<Vec<(DocumentKey, DocumentId)>, Error> {
        let (journal, name) = (self.setting.journal.clone(), collection.clone());
        let listed = blocking(move || Ok(journal.list(&name, "", after.as_ref(), PAGE)?)).await?;
        Ok(listed.into_iter().map(|listed| (listed.key, listed.document)).collect())
    }

    async fn simulate_some(
        &self,
        ids: &[DocumentId],
        policies: &Policies,
        sum: &mut Simulation,
    ) -> Result<(), Error> {
        for id in ids {
            // Has what other regions sent applied, which only the owner does.
            self.read_id(*id).await?;
        }
        let (documents, ids, policies) = (self.clone(), ids.to_vec(), policies.clone());
        let simulated = blocking(move || {
            let one = |id| documents.simulate_one(id, &policies);
            ids.into_iter().map(one).collect::<Result<Vec<_>, Error>>()
        });
        for one in simulated.await? {
            sum.conflicts = sum.conflicts.saturating_add(one.conflicts);
            sum.flipped = sum.flipped.saturating_add(one.flipped);
            let room = MAX_FLIPS.saturating_sub(sum.flips.len());
            sum.flips.extend(one.flips.into_iter().take(room));
        }
        Ok(())
    }

    fn simulate_one(&self, id: DocumentId, policies: &Policies) -> Result<Simulation, Error> {
        let journal = &self.setting.journal;
        let stored = journal.load(id)?;
        let rows: Vec<_> = journal.conflicts_of(id)?.into_iter().map(|(_, row)| row).collect();
        let name = stored.row.as_ref().and_then(|row| row.name.clone());
        let present = self.setting.policies(name.as_ref());
        let mut loaded = Loaded::from_stored(id, stored, &rows, None, &present)?;
        let flips = loaded.ledger.simulate(&loaded.document, id, &present, policies);
        let flips = flips.map_err(|error| damaged(id, error))?;
        if !present.same_wholes(policies) {
            let rebuilt = loaded.ledger.rebuild(&loaded.document, id, policies);
            rebuilt.map_err(|error| damaged(id, error))?;
        }
        let conflicts = loaded.ledger.conflicts().count() as u64;
        let flipped = flips.len() as u64;
        let named = |flip| NamedFlip { document: id, name: name.clone(), flip };
        let flips = flips.into_iter().take(MAX_FLIPS).map(named).collect();
        Ok(Simulation { conflicts, flipped, flips })
    }
}

/// Flips that a simulation names; it counts all of them.
pub const MAX_FLIPS: usize = 1_000;

/// Documents that are loaded at once.
const PAGE: usize = 64;
