//! Who wrote what shows.

use std::collections::BTreeMap;

use automerge::legacy::{ObjectId, OpType};
use automerge::{Change, ChangeHash as Hash, ObjType, ReadDoc};
use serde_json::Value;

use super::leaves::{Leaf, leaves};
use super::walk::Walk;
use crate::document::register::{object_name, operation_name};
use crate::document::view::{Held, View};
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
        let latest = self.latest_touches(&found);
        let blamed = |leaf: &Leaf| {
            let operation = object_name(&leaf.winner.operation);
            let change = latest.get(&operation).copied();
            let change = change.or_else(|| self.doc.hash_for_opid(&leaf.winner.operation))?;
            let value = view.show(&leaf.slots, &mut leaf.path.tokens().to_vec())?;
            self.blamed(leaf.path.clone(), value, self.original_of(change))
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

    /// Returns the change that first wrote what `change` wrote. Policies only take values away so
    /// far, and what is left keeps its writer, so this is the change itself. A policy that writes a
    /// value again has to lead from here to where the value was written first.
    fn original_of(&self, change: Hash) -> Hash {
        change
    }

    /// Finds the latest change that touched each text and each counter, by the name of the
    /// operation that shows.
    fn latest_touches(&self, leaves: &[Leaf]) -> BTreeMap<String, Hash> {
        let mut wanted: BTreeMap<String, String> = leaves.iter().flat_map(parts).collect();
        let mut latest = BTreeMap::new();
        if wanted.is_empty() {
            return latest;
        }
        for node in Walk::new(self, self.doc.get_heads()) {
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

/// The operations that a text or a counter is made of, each with the one that shows.
fn parts(leaf: &Leaf) -> Vec<(String, String)> {
    let shows = object_name(&leaf.winner.operation);
    match &leaf.winner.value {
        Held::Object(ObjType::Text) => vec![(shows.clone(), shows)],
        Held::Scalar(_) if leaf.winner.value.is_counter() => {
            let counters = leaf.slots.iter().filter(|slot| slot.value.is_counter());
            counters.map(|slot| (object_name(&slot.operation), shows.clone())).collect()
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
