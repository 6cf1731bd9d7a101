//! Who wrote what shows.

use std::collections::BTreeMap;
use std::iter;

use automerge::legacy::{ObjectId, OpType};
use automerge::{Automerge, Change, ChangeHash as Hash, ObjType};
use serde_json::Value;

use super::leaves::{Leaf, leaves};
use super::walk::{Reader, Walk};
use crate::document::register::{object_name, operation_name};
use crate::document::view::{Held, Slot, View};
use crate::document::{Document, message, writer};
use crate::edit::Path;
use crate::ids::{AuthorName, ChangeHash, Origin, Timestamp};
use crate::message::Message;
use crate::policy::Policies;

/// Something that shows, and the change that it is from.
#[derive(Debug, Clone, PartialEq)]
pub struct Blamed {
    /// Where it shows.
    pub path: Path,
    /// What shows; an object or a list only if it is empty.
    pub value: Value,
    /// The change: of a text or a counter the latest that touched it.
    pub change: ChangeHash,
    /// The writer: the leader's origin, or the client's own id.
    pub writer: Origin,
    /// The leader that admitted it, which tells the region.
    pub leader: Origin,
    /// Who asked for it, if the request said so.
    pub author: Option<AuthorName>,
    /// When, by the writer's clock, never later than its admission.
    pub at: Timestamp,
}

impl Document {
    /// Tells for every leaf that shows at `within` or inside it which change it is from, in the
    /// order of paths. A document that is not there shows nothing.
    #[must_use]
    pub fn blame(&self, policies: &Policies, within: Option<&Path>) -> Vec<Blamed> {
        if !self.exists() {
            return Vec::new();
        }
        let view = View::new(&self.doc, policies, &self.admissions);
        let inside =
            |leaf: &Leaf| within.is_none_or(|w| *w == leaf.path || w.is_around(&leaf.path));
        let mut found = leaves(&self.doc, &view, within);
        found.retain(inside);
        let latest = self.latest_touches(&view, &found);
        let blamed = |leaf: &Leaf| {
            let touched = latest.get(&object_name(&leaf.winner.operation)).copied();
            let change = touched.or_else(|| self.original_change(&view, leaf))?;
            let value = view.show(&leaf.slots, &mut leaf.path.tokens().to_vec())?;
            self.blamed(leaf.path.clone(), value, change)
        };
        found.iter().filter_map(blamed).collect()
    }

    /// Returns the change that wrote what shows. What a policy wrote again is of the change that
    /// wrote it first, and what is inside an object that a policy wrote again, of the one that made
    /// that object first.
    fn original_change(&self, view: &View<'_, Automerge>, leaf: &Leaf) -> Option<Hash> {
        let own = view.change_of(&leaf.winner.operation)?;
        if !self.is_of_policy(own) {
            return Some(own);
        }
        let slots = iter::once(&leaf.winner).chain(leaf.around.iter().rev());
        let own_slots = slots.take_while(|slot| view.change_of(&slot.operation) == Some(own));
        let mut sources = own_slots.filter_map(|slot| {
            let original = view.original(slot);
            let copied = object_name(&original) != object_name(&slot.operation);
            copied.then(|| view.change_of(&original)).flatten()
        });
        sources.next().or(Some(own))
    }

    fn is_of_policy(&self, change: Hash) -> bool {
        let meta = self.doc.get_change_meta_by_hash(&change);
        meta.and_then(|meta| meta.message).is_some_and(|text| message::is_policy(&text))
    }

    fn blamed(&self, path: Path, value: Value, change: Hash) -> Option<Blamed> {
        let meta = self.doc.get_change_meta_by_hash(&change)?;
        let writer = writer(&meta.actor);
        Some(Blamed {
            path,
            value,
            change: ChangeHash(change.0),
            writer,
            leader: self.admissions.leader(&change, writer),
            author: Message::read(meta.message.as_deref()).author,
            at: self.admissions.effective(&change, meta.timestamp),
        })
    }

    /// Finds the latest change that touched each text and each counter, by the name of the
    /// operation that shows.
    fn latest_touches(
        &self,
        view: &View<'_, Automerge>,
        leaves: &[Leaf],
    ) -> BTreeMap<String, Hash> {
        let parts = |leaf| parts(view, leaf);
        let mut wanted: BTreeMap<String, String> = leaves.iter().flat_map(parts).collect();
        let mut latest = BTreeMap::new();
        if wanted.is_empty() {
            return latest;
        }
        let mut reader = Reader::new(self);
        // What a policy wrote again was touched by whoever touched its original.
        for node in Walk::new(self, self.doc.get_heads()).filter(|node| !node.policy) {
            let Some(change) = reader.change(&node.hash) else { continue };
            for part in touched(&change) {
                let Some(leaf) = wanted.remove(&part) else { continue };
                wanted.retain(|_, other| *other != leaf);
                latest.insert(leaf, node.hash);
            }
            if wanted.is_empty() {
                break;
            }
        }
        latest
    }
}

/// The operations that a text or a counter is made of, each with the one that shows.
fn parts(view: &View<'_, Automerge>, leaf: &Leaf) -> Vec<(String, String)> {
    let shows = object_name(&leaf.winner.operation);
    let is_text = matches!(leaf.winner.value, Held::Object(ObjType::Text));
    if !is_text && !leaf.winner.value.is_counter() {
        return Vec::new();
    }
    let chosen = object_name(&view.original(&leaf.winner));
    let chooses = view.policies().of(&leaf.path).chooses();
    let adds_up = |slot: &&Slot| {
        slot.value.is_counter() && (!chooses || object_name(&view.original(slot)) == chosen)
    };
    let counters = leaf.slots.iter().filter(adds_up).map(|slot| object_name(&slot.operation));
    let parts = counters.chain([chosen.clone(), shows.clone()]);
    parts.map(|part| (part, shows.clone())).collect()
}

/// The texts, counters and other things that a change made or touched.
fn touched(change: &Change) -> Vec<String> {
    let decoded = change.decode();
    let mut touched = Vec::new();
    for (counter, operation) in (decoded.start_op.get()..).zip(&decoded.operations) {
        if let ObjectId::Id(object) = &operation.obj {
            touched.push(operation_name(object));
        }
        match &operation.action {
            OpType::Increment(_) => touched.extend(operation.pred.iter().map(operation_name)),
            OpType::Put(_) | OpType::Make(_) => {
                touched.push(format!("{counter}@{}", decoded.actor_id.to_hex_string()));
            }
            OpType::Delete | OpType::MarkBegin(_) | OpType::MarkEnd(_) => {}
        }
    }
    touched.sort_unstable();
    touched.dedup();
    touched
}
