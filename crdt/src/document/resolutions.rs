//! The changes that policies call for, so that every Automerge reader sees what the API shows.
//!
//! Such a change is built from nothing but the operations that it settles: its writer is a hash of
//! its content, its dependencies are their changes, its time is the winner's. So all leaders that
//! know the same build the same bytes, and however many of them do, there is one change. Leaders
//! that knew different things may build different ones; once both are known, what is left to do
//! follows from both, and is again one change.

use std::collections::BTreeSet;

use automerge::legacy::{ElementId, Key, ObjectId};
use automerge::{ChangeHash, ObjId, Prop, ROOT, ReadDoc};

use super::collisions::apply_parsed;
use super::ledger::{Ledger, Row, What, best, later_write};
use super::register::{Standing, Step, object_name, operation, operation_name, standing_in};
use super::standin::parse_operation;
use super::view::{Slot, View, operation_order};
use super::{ApplyError, Change, Document, stored};
use crate::conflict::{Candidate, Conflict};
use crate::ids::{DocumentId, Origin, Timestamp};
use crate::message::Act;
use crate::policy::Policies;
use draft::{Content, Draft, Holder};

mod draft;
mod mirror;
mod rewrite;

impl Document {
    /// Decides the ledger, and makes and applies the changes that the policies call for. `admits`
    /// says, from the writers involved, whether this leader is to admit a change; if not, another
    /// one will.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub fn resolutions(
        &mut self,
        ledger: &mut Ledger,
        id: DocumentId,
        policies: &Policies,
        admits: impl Fn(&BTreeSet<Origin>) -> bool,
    ) -> Result<Vec<Change>, ApplyError> {
        let mut made = Vec::new();
        for _ in 0..ROUNDS {
            ledger.decide(self, id, policies);
            let before = made.len();
            let due: Vec<Row> = ledger.fresh().cloned().collect();
            for row in due {
                let Some((change, writers)) = self.resolution(&row, policies) else { continue };
                let known = self.contains(crate::ids::ChangeHash(change.hash().0));
                if known || !admits(&writers) {
                    continue;
                }
                // It does not follow everything that is known here, so it may collide as any other.
                let applied = apply_parsed(self, std::slice::from_ref(&change), policies)?;
                ledger.absorb(self, id, policies, &applied.collisions);
                made.push(stored(&change));
            }
            if made.len() == before {
                break;
            }
        }
        Ok(made)
    }

    /// The change that is due for a row, and the writers that it is between.
    fn resolution(
        &self,
        row: &Row,
        policies: &Policies,
    ) -> Option<(automerge::Change, BTreeSet<Origin>)> {
        let conflict = row.conflict.as_ref()?;
        let view = View::new(&self.doc, policies, &self.admissions);
        let standing = standing_in(&self.doc, &view, &row.register, &conflict.path);
        let case = Case { document: self, view, row, conflict, standing };
        let draft = case.draft()?;
        let writers = match draft.only_for() {
            Some(leader) => BTreeSet::from([leader]),
            None => row.members.values().map(|member| member.leader).collect(),
        };
        Some((draft.build()?, writers))
    }
}

/// One row, and what stands in its register.
struct Case<'a> {
    document: &'a Document,
    view: View<'a, automerge::Automerge>,
    row: &'a Row,
    conflict: &'a Conflict,
    standing: Standing,
}

impl<'a> Case<'a> {
    fn draft(&self) -> Option<Draft<'a>> {
        self.due().or_else(|| self.without_stale())
    }

    fn due(&self) -> Option<Draft<'a>> {
        let merged = || mirror::draft(self);
        // Whether somebody is to look at a conflict does not change what shows meanwhile.
        let looked = |act: &Act| matches!(act, Act::Dismiss(_) | Act::Reopen(_));
        if let Some(settled) = self.conflict.settled.as_ref().filter(|s| !looked(&s.act)) {
            return self.only_the_act(ChangeHash(settled.change.0)).or_else(merged);
        }
        if self.row.is_of_parts() {
            return rewrite::draft(self).or_else(merged).or_else(|| self.seen());
        }
        if self.conflict.policy.chooses() {
            return self.chosen().or_else(merged);
        }
        merged().or_else(|| self.shown())
    }

    fn new_draft(&self, at: Timestamp) -> Draft<'a> {
        Draft::new(&self.document.doc, at)
    }

    /// Of several resolutions that were made at once, leaves what the one that counts wrote.
    fn only_the_act(&self, counts: ChangeHash) -> Option<Draft<'a>> {
        let wrote = |slot: &Slot| self.view.change_of(&slot.operation);
        let slots = &self.standing.slots;
        let others = |slot: &&Slot| {
            wrote(slot).is_some_and(|change| {
                change != counts && self.row.acts.contains_key(&crate::ids::ChangeHash(change.0))
            })
        };
        let losers: Vec<&Slot> = slots.iter().filter(others).collect();
        let stands = slots.iter().any(|slot| wrote(slot) == Some(counts));
        let deleted = !stands && losers.len() == slots.len();
        if losers.is_empty() || !(stands || deleted) {
            return None;
        }
        let at = self.conflict.settled.as_ref()?.at;
        let mut draft = self.new_draft(at);
        draft.follows(counts);
        self.delete(&mut draft, &losers)?;
        Some(draft)
    }

    /// Under a policy that chooses: leaves the winner alone in the register.
    fn chosen(&self) -> Option<Draft<'a>> {
        let winner = self.conflict.winning()?;
        let slots = &self.standing.slots;
        if !slots.is_empty() && self.has_stranger() {
            return self.no_stand_ins(winner.at);
        }
        let mut draft = self.new_draft(winner.at);
        draft.follows(ChangeHash(winner.change.0));
        if winner.value.is_none() {
            let removed = self.member(winner).is_none_or(|what| what == What::Removed);
            let losers: Vec<&Slot> = slots.iter().filter(|_| !removed).collect();
            self.delete(&mut draft, &losers)?;
            return (!losers.is_empty()).then_some(draft);
        }
        let mut winning = self.of(winner);
        winning.sort_by(|a, b| operation_order(&b.operation).cmp(&operation_order(&a.operation)));
        let Some(shows) = winning.first() else {
            return self.stand_in(winner, draft, slots.iter().collect());
        };
        let map = shows.value.is_map();
        let loses =
            |slot: &&Slot| slot.operation != shows.operation && !(map && slot.value.is_map());
        let losers: Vec<&Slot> = slots.iter().filter(loses).collect();
        self.delete(&mut draft, &losers)?;
        (!losers.is_empty()).then_some(draft)
    }

    /// Under a policy that keeps every value: makes the one that shows the one that other readers
    /// see, and takes away what stands in for something superseded.
    fn shown(&self) -> Option<Draft<'a>> {
        let winner = self.conflict.winning()?;
        let slots = &self.standing.slots;
        if slots.is_empty() || self.has_stranger() {
            return self.no_stand_ins(winner.at);
        }
        let deed = self.member(winner)?;
        if winner.value.is_none() || deed == What::Increment {
            return None;
        }
        let last = slots.last().map(|slot| object_name(&self.view.original(slot)));
        if last.as_deref() == Some(&winner.id) {
            return None;
        }
        let draft = self.new_draft(winner.at);
        self.stand_in(winner, draft, self.of(winner))
    }

    /// Of values that are more than single fields: makes the one that shows the one that other
    /// readers see; of a document, in every field.
    fn seen(&self) -> Option<Draft<'a>> {
        let mut draft = self.new_draft(self.conflict.at());
        match self.key() {
            Some(_) if self.conflict.policy.chooses() => return None,
            Some(key) => {
                let path = self.conflict.path.tokens();
                self.show_to_all(&mut draft, key, &self.standing.slots, path)?;
            }
            None => self.conflicting_fields().try_for_each(|(name, slots)| {
                let key = Key::Map(name.as_str().into());
                // Maps that were restored at once have no row that would merge them.
                let restored = |slot: &Slot| self.view.original(slot) != slot.operation;
                if slots.iter().all(|slot| slot.value.is_map() && restored(slot)) {
                    return mirror::merge(self, &mut draft, &slots, &[name]);
                }
                self.show_to_all(&mut draft, key, &slots, &[name])
            })?,
        }
        (!draft.is_empty()).then_some(draft)
    }

    /// Writes what shows in a register again, if other readers see something else there.
    fn show_to_all(
        &self,
        draft: &mut Draft<'a>,
        key: Key,
        slots: &[Slot],
        path: &[String],
    ) -> Option<()> {
        let shown = self.view.winner(slots, path)?;
        if slots.last().is_none_or(|last| last.operation == shown.operation) {
            return Some(());
        }
        let content = rewrite::current(self, shown)?;
        self.follow_all(draft, slots);
        let source = object_name(&self.view.original(shown));
        let replaced = std::slice::from_ref(&shown.operation);
        draft.put(Holder::Object(shown.holder.clone()), key, replaced, content, &source);
        Some(())
    }

    /// The fields of the document with more than one value.
    fn conflicting_fields(&self) -> impl Iterator<Item = (String, Vec<Slot>)> {
        let fields = self.document.doc.map_range(ROOT, ..).filter(|field| field.conflict);
        fields.map(|field| field.key.into_owned()).map(|name| {
            let slots = self.view.slots(&[ROOT], &Prop::Map(name.clone()));
            (name, slots)
        })
    }

    /// Writes the value of a candidate in place of some values.
    fn stand_in(
        &self,
        winner: &Candidate,
        mut draft: Draft<'a>,
        replaced: Vec<&Slot>,
    ) -> Option<Draft<'a>> {
        let gone = || !self.document.exists() || later_write(self.row, self.document).is_some();
        if self.standing.slots.is_empty() && gone() {
            return None;
        }
        let holder = self.standing.holders.first()?;
        let content = rewrite::content(self, winner)?;
        draft.follows(ChangeHash(winner.change.0));
        self.row.changes().into_iter().for_each(|change| draft.follows(change));
        self.follow_all(&mut draft, &self.standing.slots);
        if replaced.is_empty() {
            // The same may be due again after it was taken away under other settings.
            draft.follows_all();
        }
        let (here, elsewhere): (Vec<&Slot>, Vec<&Slot>) =
            replaced.into_iter().partition(|slot| slot.holder == *holder);
        let here: Vec<ObjId> = here.into_iter().map(|slot| slot.operation.clone()).collect();
        draft.put(Holder::Object(holder.clone()), self.key()?, &here, content, &winner.id);
        self.delete(&mut draft, &elsewhere)?;
        Some(draft)
    }

    /// Makes a change follow everything that stands in a register: other readers see the value
    /// whose operation has the greatest number.
    fn follow_all(&self, draft: &mut Draft<'a>, slots: &[Slot]) {
        let there = slots.iter().filter_map(|slot| self.view.change_of(&slot.operation));
        there.for_each(|change| draft.follows(change));
    }

    /// Deletes values, each from the object that holds it.
    fn delete(&self, draft: &mut Draft<'a>, losers: &[&Slot]) -> Option<()> {
        let key = self.key()?;
        for holder in &self.standing.holders {
            let here: Vec<ObjId> = losers
                .iter()
                .filter(|slot| slot.holder == *holder)
                .map(|slot| slot.operation.clone())
                .collect();
            if !here.is_empty() {
                draft.delete(holder.clone(), key.clone(), &here);
            }
        }
        Some(())
    }

    /// Takes away what stands in for a side of the conflict after something superseded it.
    fn no_stand_ins(&self, at: Timestamp) -> Option<Draft<'a>> {
        let slots = &self.standing.slots;
        let stands_in = |slot: &&Slot| {
            let original = self.view.original(slot);
            original != slot.operation && self.is_side(&object_name(&original))
        };
        let stale: Vec<&Slot> = slots.iter().filter(stands_in).collect();
        if stale.is_empty() || stale.len() == slots.len() {
            return None;
        }
        let mut draft = self.new_draft(at);
        self.delete(&mut draft, &stale)?;
        Some(draft)
    }

    /// The candidate that the policy chooses, also where several show.
    fn best(&self) -> Option<&Candidate> {
        let candidates = self.row.candidates(self.document);
        let policies = self.view.policies();
        let best = best(self.row, &candidates, self.conflict.policy, policies)?;
        self.conflict.candidates.get(best)
    }

    /// Takes away what stands in for something that was superseded since; of a document, from
    /// every field.
    fn without_stale(&self) -> Option<Draft<'a>> {
        let mut draft = self.new_draft(self.conflict.at());
        if let Some(key) = self.key() {
            self.delete_stale(&mut draft, &key, &self.standing.slots);
            self.delete_replaced(&mut draft, &key);
        } else {
            for (name, slots) in self.conflicting_fields() {
                self.delete_stale(&mut draft, &Key::Map(name.into()), &slots);
            }
        }
        (!draft.is_empty()).then_some(draft)
    }

    fn delete_stale(&self, draft: &mut Draft<'a>, key: &Key, slots: &[Slot]) {
        for slot in self.view.stale(slots) {
            let operation = std::slice::from_ref(&slot.operation);
            draft.delete(slot.holder.clone(), key.clone(), operation);
        }
    }

    /// Deletes what stands in for a side that another side replaced, also if that was a delete.
    fn delete_replaced(&self, draft: &mut Draft<'a>, key: &Key) {
        let candidate = |name: &str| self.conflict.candidates.iter().any(|c| c.id == name);
        let stale: Vec<&ObjId> =
            self.view.stale(&self.standing.slots).iter().map(|slot| &slot.operation).collect();
        for slot in &self.standing.slots {
            let original = self.view.original(slot);
            let name = object_name(&original);
            let stands_in = original != slot.operation && !stale.contains(&&slot.operation);
            if stands_in && self.is_side(&name) && !candidate(&name) && !self.counts(&name) {
                let operation = std::slice::from_ref(&slot.operation);
                draft.delete(slot.holder.clone(), key.clone(), operation);
            }
        }
    }

    /// Tells whether an operation is a counter that a candidate adds to.
    fn counts(&self, operation: &str) -> bool {
        let mut candidates = self.conflict.candidates.iter();
        candidates.any(|candidate| {
            let mut members = self.row.members.iter();
            let member = members.find(|((_, known), _)| *known == candidate.id);
            member.is_some_and(|(_, m)| {
                m.what == What::Increment && m.replaced.iter().any(|name| name == operation)
            })
        })
    }

    fn of(&self, candidate: &Candidate) -> Vec<&Slot> {
        let slots = self.standing.slots.iter();
        let counter = |operation: &String| {
            let mut members = self.row.members.iter();
            let member = members.find(|((_, known), _)| *known == candidate.id);
            member.is_some_and(|(_, m)| m.what == What::Increment && m.replaced.contains(operation))
        };
        let is_of = |slot: &&Slot| {
            let original = object_name(&self.view.original(slot));
            self.side_of(&original) == Some(candidate.id.as_str()) || counter(&original)
        };
        slots.filter(is_of).collect()
    }

    /// The register as operations name it.
    fn key(&self) -> Option<Key> {
        match self.row.register.0.last()? {
            Step::Key(key) => Some(Key::Map(key.as_str().into())),
            Step::Element(element) => Some(Key::Seq(ElementId::Id(parse_operation(element)?))),
        }
    }

    fn is_side(&self, operation: &str) -> bool {
        self.side_of(operation).is_some()
    }

    /// The side that an operation is, or the container that it is inside of: under settings that
    /// took the container as one value, something may stand in for what was edited inside it.
    fn side_of(&self, name: &str) -> Option<&str> {
        let side = |name: &str| self.row.members.iter().find(|((_, known), _)| known == name);
        if let Some(((_, side), _)) = side(name) {
            return Some(side);
        }
        let mut name = name.to_owned();
        loop {
            match operation(&self.document.doc, &name)?.obj {
                ObjectId::Root => return None,
                ObjectId::Id(around) => name = operation_name(&around),
            }
            if let Some(((_, side), member)) = side(&name) {
                let container = matches!(member.what, What::Map | What::List | What::Text);
                return container.then_some(side);
            }
        }
    }

    /// Tells whether something stands there that is no side of the conflict.
    fn has_stranger(&self) -> bool {
        let stranger = |slot: &Slot| !self.is_side(&object_name(&self.view.original(slot)));
        self.standing.slots.iter().any(stranger)
    }

    fn member(&self, candidate: &Candidate) -> Option<What> {
        let mut members = self.row.members.iter();
        members.find(|((_, known), _)| *known == candidate.id).map(|(_, member)| member.what)
    }
}

/// How often what one resolution leads to is looked at again at once.
const ROUNDS: usize = 8;
