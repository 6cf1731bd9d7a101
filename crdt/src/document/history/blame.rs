//! Who wrote what shows.

use std::collections::BTreeMap;

use automerge::legacy::{ObjectId, OpType};
use automerge::{Automerge, Change, ChangeHash as Hash, ObjType, ReadDoc};
use serde_json::Value;

use super::leaves::{Leaf, leaves};
use super::walk::Walk;
use crate::document::register::{object_name, operation_name};
use crate::document::view::{Held, Slot, View};
use crate::document::{Document, writer};
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
            let change = touched.or_else(|| original_change(&view, leaf))?;
            let value = view.show(&leaf.slots, &mut leaf.path.tokens().to_vec())?;
            self.blamed(leaf.path.clone(), value, change)
        };
        found.iter().filter_map(blamed).collect()
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
        // What a policy wrote again was touched by whoever touched its original.
        for node in Walk::new(self, self.doc.get_heads()).filter(|node| !node.policy) {
            let Some(change) = self.doc.get_change_by_hash(&node.hash) else { continue };
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

/// Returns the change that wrote what shows. What a policy wrote again is of the change that wrote
/// it first, and what is inside an object that a policy wrote again, of the one that made that
/// object first.
fn original_change(view: &View<'_, Automerge>, leaf: &Leaf) -> Option<Hash> {
    let own = view.change_of(&leaf.winner.operation);
    let around = leaf.around.iter().rev();
    let sources =
        std::iter::once(&leaf.winner).chain(around).map(|slot| (slot, view.original(slot)));
    let mut copies = sources
        .take_while(|(slot, _)| view.change_of(&slot.operation) == own)
        .filter(|(slot, original)| object_name(original) != object_name(&slot.operation));
    copies.next().and_then(|(_, original)| view.change_of(&original)).or(own)
}

/// The operations that a text or a counter is made of, each with the one that shows.
fn parts(view: &View<'_, Automerge>, leaf: &Leaf) -> Vec<(String, String)> {
    let shows = object_name(&leaf.winner.operation);
    let chosen = object_name(&view.original(&leaf.winner));
    let chooses = view.policies().of(&leaf.path).chooses();
    let adds_up = |slot: &&Slot| {
        slot.value.is_counter() && (!chooses || object_name(&view.original(slot)) == chosen)
    };
    match &leaf.winner.value {
        Held::Object(ObjType::Text) => {
            [shows.clone(), chosen.clone()].map(|part| (part, shows.clone())).into()
        }
        Held::Scalar(_) if leaf.winner.value.is_counter() => {
            let counters =
                leaf.slots.iter().filter(adds_up).map(|slot| object_name(&slot.operation));
            counters.chain([chosen.clone()]).map(|part| (part, shows.clone())).collect()
        }
        Held::Object(_) | Held::Scalar(_) => Vec::new(),
    }
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
