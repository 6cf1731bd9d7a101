//! Carrying over: what a closed document leaves to its next epoch.
//!
//! All epochs of a document have one owner, so an epoch is closed and the next one opened by one
//! commit, and late edits are done again in the commit that brings them, or by the next look.
//! Nothing has to be remembered in between: what is done again is known by the change it stands
//! for, so after a crash the next look finds what is left to do.

use std::sync::Arc;

use anabranch_crdt::document::{
    Admitted, Carried, Carrying, Change, ClosingKind, Collisions, inspect,
};
use anabranch_crdt::ids::{DocumentId, DocumentName, Origin};
use bytes::Bytes;
use tracing::{info, warn};

use super::super::loaded::{Loaded, Outcome, Scene, damaged};
use super::super::owner::{Owner, Target, answer};
use super::super::request::{EpochRequest, Reply};
use super::super::{Setting, admit, write};
use super::closed;
use crate::error::{Error, ErrorKind};

impl Owner {
    pub(in crate::document) fn serve_epoch(&mut self, request: EpochRequest) {
        match request {
            EpochRequest::Undelete { name, message, precondition, reply } => {
                let step = |loaded: &mut Loaded, scene: Scene<'_>| {
                    closed::undelete(loaded, scene, message, &precondition)
                };
                self.step(Target::Newest(name), reply, step);
            }
            EpochRequest::Compact { name, by, precondition, reply } => {
                let step = |loaded: &mut Loaded, scene: Scene<'_>| {
                    closed::compact(loaded, scene, by, &precondition)
                };
                self.step(Target::Newest(name), reply, step);
            }
            EpochRequest::Purge { document, by, before, reply } => {
                let step = |loaded: &mut Loaded, scene: Scene<'_>| {
                    closed::purge(loaded, scene, by, before)
                };
                self.step(Target::Id(document), reply, step);
            }
            EpochRequest::Empty { document, reply } => {
                self.step(Target::Id(document), reply, closed::empty);
            }
            EpochRequest::CarryOver { id, reply } => {
                self.carry_again(id);
                answer(reply, Ok(((), self.durable())));
            }
        }
    }

    /// Returns the id under which a name is written now.
    pub(in crate::document) fn newest(&self, name: &DocumentName) -> DocumentId {
        let mut id = DocumentId::from(name);
        while self.is_closed(id) {
            id = id.next_epoch();
        }
        id
    }

    fn is_closed(&self, id: DocumentId) -> bool {
        self.closing.contains(&id) || self.setting.journal.closed(id).is_some()
    }

    /// Brings over to the next epoch, and to those after it, what a closed document has left to
    /// it. Returns the documents, which are to be kept once the outcome is on its way to the disk.
    pub(in crate::document) fn carry_over(
        &mut self,
        loaded: Loaded,
        outcome: &mut Outcome,
        origin: Origin,
    ) -> Vec<Loaded> {
        let (mut kept, mut closed) = (Vec::new(), loaded);
        while closed.closed.is_some() {
            self.closing.insert(closed.id);
            if !closed.leaves_something() {
                break;
            }
            let id = closed.id.next_epoch();
            let opened = self.up_to_date(id, closed.name.clone(), origin);
            let carried = opened.and_then(|(mut next, more)| {
                let setting = Arc::clone(&self.setting);
                let policies = setting.policies(closed.name.as_ref());
                let carry = |scene: Scene<'_>| carry(&setting, &mut closed, &mut next, scene);
                let carried = setting.scene(&policies, origin, carry)?;
                Ok((next, more, carried))
            });
            match carried {
                Ok((next, more, mut carried)) => {
                    // What a closing leads to stands before it in the log, so nobody who has the
                    // closing lacks what the document goes on with.
                    carried.drafts.splice(0..0, more.drafts);
                    carried.drafts.append(&mut outcome.drafts);
                    outcome.drafts = carried.drafts;
                    outcome.rows.extend(more.rows.into_iter().chain(carried.rows));
                    kept.push(std::mem::replace(&mut closed, next));
                }
                Err(error) => {
                    warn!(document = %closed.id, %error, "late changes are not carried over yet");
                    break;
                }
            }
        }
        kept.push(closed);
        kept
    }

    /// Looks again for what a closed document has left to its next epoch.
    pub(in crate::document) fn carry_again(&mut self, id: DocumentId) {
        let origin = self.setting.journal.origin();
        match self.up_to_date(id, None, origin) {
            Ok((mut loaded, mut outcome)) => {
                if let Some(sealed) = &mut loaded.closed {
                    sealed.looked = None;
                }
                let kept = self.carry_over(loaded, &mut outcome, origin);
                self.store(outcome, origin);
                kept.into_iter().for_each(|loaded| self.keep(loaded));
            }
            Err(error) => warn!(document = %id, %error, "late changes are not carried over yet"),
        }
    }

    /// Admits changes of a client into the epoch that they were made in.
    pub(in crate::document) fn admit_at_home(
        &mut self,
        name: DocumentName,
        changes: &[Bytes],
        reply: Reply<()>,
    ) {
        match self.home_of(&name, changes) {
            Ok(id) => {
                let step =
                    |loaded: &mut Loaded, scene: Scene<'_>| admit::admit(loaded, scene, changes);
                self.step(Target::Epoch(id, name), reply, step);
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// The epoch that changes of a client belong to: the newest that knows one of them, or one
    /// that they follow.
    fn home_of(&mut self, name: &DocumentName, changes: &[Bytes]) -> Result<DocumentId, Error> {
        let mut epochs = vec![DocumentId::from(name)];
        while let Some(closed) = epochs.last().filter(|id| self.is_closed(**id)) {
            epochs.push(closed.next_epoch());
        }
        let newest = epochs.last().copied().unwrap_or_else(|| DocumentId::from(name));
        if epochs.len() < 2 {
            return Ok(newest);
        }
        let changes: Vec<_> = changes.iter().filter_map(|change| inspect(change).ok()).collect();
        let origin = self.setting.journal.origin();
        let mut purged = false;
        for id in epochs.into_iter().rev() {
            let (loaded, outcome) = self.up_to_date(id, Some(name.clone()), origin)?;
            let known = changes.iter().any(|change| {
                let own = std::iter::once(&change.hash);
                own.chain(&change.deps).any(|hash| loaded.document.contains(*hash))
            });
            let is_purged = loaded.closed.as_ref().is_some_and(|s| s.kind() == ClosingKind::Purge);
            purged |= is_purged;
            self.store(outcome, origin);
            self.keep(loaded);
            if known {
                return if is_purged { Err(was_purged(name)) } else { Ok(id) };
            }
        }
        let ours = |hash| changes.iter().any(|change| change.hash == hash);
        let follows = changes.iter().flat_map(|change| &change.deps).any(|dep| !ours(*dep));
        if purged && follows { Err(was_purged(name)) } else { Ok(newest) }
    }
}

impl Loaded {
    /// Tells whether there may be something that belongs into the next epoch.
    fn leaves_something(&self) -> bool {
        let Some(sealed) = &self.closed else { return false };
        if self.opening.is_some() {
            return true;
        }
        sealed.looked != Some(self.document.digest())
            && !self.document.late(&sealed.closings).is_empty()
    }

    /// Takes in a change that was made here, as an entry of this leader.
    fn take_over(
        &mut self,
        change: Change,
        scene: Scene<'_>,
        outcome: &mut Outcome,
    ) -> Result<Collisions, Error> {
        let at = scene.clock.tick();
        let admitted = Admitted { change: change.bytes.clone(), at, by: Some(scene.origin) };
        let applied = self.document.apply(&[admitted], scene.policies);
        let applied = applied.map_err(|error| damaged(self.id, error))?;
        if !applied.new.is_empty() {
            let draft = self.draft(change, at);
            outcome.drafts.push(draft);
        }
        Ok(applied.collisions)
    }
}

/// Does in the next epoch what is left to it; the documents are ahead of the disk after an error.
fn carry(
    setting: &Setting,
    closed: &mut Loaded,
    next: &mut Loaded,
    scene: Scene<'_>,
) -> Result<Outcome, Error> {
    let mut outcome = Outcome::default();
    let mut collisions = Collisions::default();
    if let Some(opening) = closed.opening.take() {
        collisions.extend(next.take_over(opening, scene, &mut outcome)?);
    }
    let closings = closed.closed.as_ref().map(|sealed| sealed.closings.clone());
    let carried = closed.document.carry(&closings.unwrap_or_default(), &next.document);
    let gone = next.closed.as_ref().is_some_and(|s| s.kind() == ClosingKind::Purge);
    let ours = !gone && is_ours(setting, closed, &carried);
    let (mut left, mut made) = (0_u32, 0_u32);
    for Carried { late, became } in carried {
        match became {
            Carrying::Made(change) if ours => {
                collisions.extend(next.take_over(change, scene, &mut outcome)?);
                made = made.saturating_add(1);
            }
            Carrying::Made(_) | Carrying::Waiting | Carrying::Purged => {
                left = left.saturating_add(1);
            }
            Carrying::Unplaced(reason) => {
                warn!(document = %closed.id, change = %late, reason, "a late change has no place");
            }
            Carrying::Known(_) | Carrying::Nothing => {}
        }
    }
    if !outcome.drafts.is_empty() {
        write::conclude(next, scene, &collisions, &mut outcome)?;
    }
    tell(closed, made, left);
    if let Some(sealed) = &mut closed.closed {
        sealed.late = left;
        sealed.looked = Some(closed.document.digest());
    }
    outcome.rows.extend(closed.epoch_row());
    Ok(outcome)
}

fn tell(closed: &Loaded, made: u32, left: u32) {
    let name = closed.name.as_ref().map(ToString::to_string);
    if made > 0 {
        warn!(
            document = %closed.id,
            name,
            changes = made,
            "changes came for an epoch that was closed before, and are merged into the next one"
        );
    }
    let known = closed.closed.as_ref().map_or(0, |sealed| sealed.late);
    if left > known {
        info!(document = %closed.id, name, changes = left, "late changes are left where they came");
    }
}

/// Tells whether it is this leader that does late changes again: the region that admitted them
/// does, and for regions that are no members any more the first of those that are. That another
/// one does it too harms nothing; it only costs an entry.
fn is_ours(setting: &Setting, closed: &Loaded, carried: &[Carried]) -> bool {
    let own = &setting.region;
    let members = setting.cluster.members();
    let first = members.as_ref().is_none_or(|members| members.first() == Some(own));
    carried.iter().filter(|one| matches!(one.became, Carrying::Made(_))).any(|one| {
        let leader = closed.document.admitted_by(one.late);
        let region = leader.and_then(|leader| setting.journal.region_of(leader));
        match region {
            Some(region) if region == *own => true,
            Some(region) => {
                first && members.as_ref().is_some_and(|members| !members.contains(&region))
            }
            None => first,
        }
    })
}

fn was_purged(name: &DocumentName) -> Error {
    let message = format!(
        "{name} was deleted and purged: these changes follow what is gone. Discard them, or write \
         the document anew"
    );
    Error::new(ErrorKind::Conflict, "document_purged", message)
}
