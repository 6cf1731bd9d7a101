//! Whole documents that come from other regions, or go there.
//!
//! A region that was away for longer than the journal reaches back is given documents instead of
//! entries. What it makes of them is what the entries would have led to: the same history, the same
//! times of admission, hence the same winners and the same ledger. The changes are not entries
//! here; they are durable as the snapshot that is written with the row.

use std::sync::Arc;

use anabranch_crdt::bundle::Bundle;
use anabranch_crdt::document::{Admitted, Collisions};
use anabranch_crdt::ids::{ChangeHash, DocumentId, Origin};
use anabranch_crdt::version::VersionVector;
use futures::future::try_join_all;
use tokio::sync::oneshot;
use tracing::warn;

use super::loaded::{Loaded, Outcome, Scene};
use super::owner::{Owner, answer};
use super::request::{Reply, Request};
use super::{Documents, shutting_down};
use crate::error::Error;
use crate::journal::Row;

/// What became of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adopted {
    /// The document has everything that it had where the bundle comes from.
    Whole,
    /// It has what the bundle brought; these are its heads now, and what follows them is to come.
    Partial(Vec<ChangeHash>),
    /// The bundle builds on changes that are not here, these; nothing of it was taken.
    Waiting(Vec<ChangeHash>),
    /// It cannot be taken; the text says why. Nothing of it was.
    Refused(String),
}

impl Documents {
    /// Returns what someone lacks of a document who has these changes and all before them (unknown
    /// ones count as nothing), with the admission of each. A large document comes in parts, see
    /// [`Bundle::heads`]: ask again with what is there then. An unknown document has no heads.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub async fn export(&self, id: DocumentId, have: Vec<ChangeHash>) -> Result<Bundle, Error> {
        let ask = |reply| Request::Export { id, have, reply };
        let (mut bundle, _) = self.ask_patiently(id, ask).await?;
        // By now everything that the bundle holds is durable, so none of its entries is left out.
        bundle.dots = self.setting.journal.document_dots(id)?;
        Ok(bundle)
    }

    /// Returns the heads of a document, in ascending order; none of one that is not known.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub async fn heads(&self, id: DocumentId) -> Result<Vec<ChangeHash>, Error> {
        if matches!(self.setting.journal.row(id)?, (None, false)) {
            return Ok(Vec::new());
        }
        Ok(self.ask_patiently(id, |reply| Request::Heads { id, reply }).await?.0)
    }

    /// Takes in documents of another region, and answers for each of them in their order, once all
    /// that was taken is durable. What is known already is skipped, so that a bundle may come
    /// twice. The bundles of one call are in memory together, and are committed together.
    ///
    /// # Errors
    /// `Unavailable`; what was asked for may have happened in part.
    pub async fn adopt(&self, bundles: Vec<Bundle>) -> Result<Vec<Adopted>, Error> {
        let count = bundles.len();
        let mut of_owners: Vec<(Vec<usize>, Vec<Bundle>)> = Vec::new();
        of_owners.resize_with(self.queues.len(), Default::default);
        for (place, bundle) in bundles.into_iter().enumerate() {
            let owner = self.setting.owner_of(bundle.document);
            if let Some((places, bundles)) = of_owners.get_mut(owner) {
                places.push(place);
                bundles.push(bundle);
            }
        }
        let asked = self.queues.iter().zip(of_owners);
        let asked = asked.filter(|(_, (places, _))| !places.is_empty());
        let answers = try_join_all(asked.map(async |(queue, (places, bundles))| {
            let (reply, answer) = oneshot::channel();
            let request = Request::Adopt { bundles, reply };
            queue.send(request).await.map_err(|_| shutting_down())?;
            let (adopted, _) = answer.await.unwrap_or_else(|_| Err(shutting_down()))?;
            Ok::<_, Error>((places, adopted))
        }));
        let mut all = vec![Adopted::Partial(Vec::new()); count];
        for (place, adopted) in
            answers.await?.into_iter().flat_map(|(places, adopted)| places.into_iter().zip(adopted))
        {
            all.get_mut(place).into_iter().for_each(|slot| *slot = adopted.clone());
        }
        Ok(all)
    }
}

impl Owner {
    pub(super) fn export(&mut self, id: DocumentId, have: &[ChangeHash], reply: Reply<Bundle>) {
        let bytes = self.setting.limits.frame_bytes / 2;
        let bundle = |loaded: &Loaded| {
            loaded.document.bundle(id, loaded.name.clone(), Vec::new(), have, bytes)
        };
        self.look_at(id, reply, bundle);
    }

    /// Answers from a document that is up to date. One that was not in memory is not kept there,
    /// because whoever goes through all documents would drive out those that are in use.
    pub(super) fn look_at<T: Send + 'static>(
        &mut self,
        id: DocumentId,
        reply: Reply<T>,
        look: impl FnOnce(&Loaded) -> T,
    ) {
        let origin = self.setting.journal.origin();
        let held = self.cache.holds(id);
        match self.up_to_date(id, None, origin) {
            Ok((loaded, outcome)) => {
                let answer = look(&loaded);
                let changed = !outcome.rows.is_empty();
                self.submit(outcome, origin, reply, answer);
                if held || changed {
                    self.keep(loaded);
                }
            }
            Err(error) => answer(reply, Err(error)),
        }
    }

    pub(super) fn adopt(&mut self, bundles: &[Bundle], reply: Reply<Vec<Adopted>>) {
        let origin = self.setting.journal.origin();
        let (mut whole, mut all) = (Outcome::default(), Vec::new());
        for bundle in bundles {
            let (adopted, outcome) = self.adopt_one(bundle, origin);
            if let Adopted::Refused(reason) = &adopted {
                warn!(document = %bundle.document, reason, "a document of another region is refused");
            }
            whole.extend(outcome);
            all.push(adopted);
        }
        self.submit(whole, origin, reply, all);
    }

    fn adopt_one(&mut self, bundle: &Bundle, origin: Origin) -> (Adopted, Outcome) {
        let id = bundle.document;
        let held = self.cache.holds(id);
        let refused = |reason: String| (Adopted::Refused(reason), Outcome::default());
        let (mut loaded, mut outcome) = match self.up_to_date(id, bundle.name.clone(), origin) {
            Ok(refreshed) => refreshed,
            Err(error) => return refused(error.to_string()),
        };
        match loaded.document.missing(&bundle.changes) {
            Ok(missing) if missing.is_empty() => {}
            Ok(missing) => {
                self.keep(loaded);
                return (Adopted::Waiting(missing), outcome);
            }
            Err(error) => return refused(error.to_string()),
        }
        let setting = Arc::clone(&self.setting);
        let policies = setting.policies(loaded.name.as_ref());
        let took = setting.scene(&policies, origin, |scene| loaded.take_in(bundle, scene));
        match took {
            Ok(taken) if taken.rows.is_empty() => {}
            Ok(taken) => {
                outcome.extend(taken);
                match self.snapshot(&loaded) {
                    Ok(rows) => outcome.rows.extend(rows),
                    Err(error) => return refused(error.to_string()),
                }
                loaded.unsaved_changes = 0;
            }
            Err(reason) => return refused(reason),
        }
        let whole = loaded.document.contains_all(&bundle.heads);
        if whole && !self.reached(id).includes(&bundle.dots.iter().copied().collect()) {
            outcome.rows.push(Row::Reached(id, bundle.dots.clone()));
        }
        let adopted = match whole {
            true => Adopted::Whole,
            false => Adopted::Partial(loaded.document.heads()),
        };
        if held {
            self.keep(loaded);
        }
        (adopted, outcome)
    }

    /// The last entry of each origin that a document is known to reflect.
    fn reached(&self, id: DocumentId) -> VersionVector {
        let dots = self.setting.journal.document_dots(id);
        dots.unwrap_or_default().into_iter().collect()
    }
}

impl Loaded {
    /// Applies the changes of a bundle that are new, and decides what follows from them. Errors say
    /// why not; the document must be dropped then.
    fn take_in(&mut self, bundle: &Bundle, scene: Scene<'_>) -> Result<Outcome, String> {
        let most = scene.limits.change_bytes();
        if bundle.changes.iter().any(|change| change.change.len() > most) {
            return Err(format!("a change has more than {most} bytes"));
        }
        let before = self.document.digest();
        let mut collisions = Collisions::default();
        for some in bundle.changes.chunks(BATCH) {
            let some: Vec<Admitted> = some.iter().map(Admitted::from).collect();
            let applied = self.document.apply(&some, scene.policies);
            collisions.extend(applied.map_err(|error| error.to_string())?.collisions);
        }
        let mut outcome = Outcome::default();
        if self.document.digest() == before && !collisions.readmits() {
            return Ok(outcome);
        }
        let judged = self.judge(&collisions, scene, &mut outcome);
        judged.map_err(|error| error.to_string())?;
        self.show(scene, &mut outcome);
        Ok(outcome)
    }
}

/// Changes that are applied at once, as of entries.
const BATCH: usize = 512;
