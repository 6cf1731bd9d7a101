//! Building a change by hand, byte for byte the same wherever it is built.

use std::collections::BTreeSet;
use std::num::NonZeroU64;

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId, OpType};
use automerge::{
    ActorId, Automerge, ChangeHash, ChangeMetadata, ExpandedChange, ObjId, ObjType, ScalarValue,
    hydrate,
};
use uuid::Uuid;

use super::super::standin::{NOTHING, knows};
use crate::ids::{Origin, Timestamp};
use crate::message::{Act, Message, is_policy};

/// A change in the making.
pub(super) struct Draft<'a> {
    doc: &'a Automerge,
    at: Timestamp,
    deps: BTreeSet<ChangeHash>,
    steps: Vec<Step>,
    /// Whether the document is not there after the change.
    deletes: bool,
    only_for: Option<Origin>,
}

/// Where a value is written.
#[derive(Debug, Clone)]
pub(super) enum Holder {
    Object(ObjId),
    /// The object that the step with this number makes.
    Made(usize),
}

/// What is written.
#[derive(Debug, Clone)]
pub(super) enum Content {
    Value(hydrate::Value),
    /// A map without members.
    EmptyMap,
}

#[derive(Debug, Clone)]
enum Step {
    Put {
        holder: Holder,
        key: Key,
        pred: Vec<OpId>,
        content: Content,
        source: String,
    },
    Delete {
        holder: ObjId,
        key: Key,
        pred: Vec<OpId>,
    },
    Increment {
        holder: ObjId,
        key: Key,
        counter: OpId,
        by: i64,
    },
    /// Adds to the counter that the step with this number writes.
    IncrementMade {
        step: usize,
        by: i64,
    },
}

impl<'a> Draft<'a> {
    pub(super) fn new(doc: &'a Automerge, at: Timestamp) -> Self {
        Self { doc, at, deps: BTreeSet::new(), steps: Vec::new(), deletes: false, only_for: None }
    }

    /// Makes the change depend on another.
    pub(super) fn follows(&mut self, change: ChangeHash) {
        self.deps.insert(change);
    }

    /// Makes the change depend on everything that is known.
    pub(super) fn follows_all(&mut self) {
        self.deps.extend(self.doc.get_heads());
    }

    /// Leaves the change to one leader: it is not the same wherever it is built, and two of them
    /// would call for a third.
    pub(super) fn leave_to(&mut self, leader: Origin) {
        self.only_for = Some(leader);
    }

    pub(super) fn only_for(&self) -> Option<Origin> {
        self.only_for
    }

    /// Says that the document is not there after the change.
    pub(super) fn deletes(&mut self) {
        self.deletes = true;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Writes a value over others; it stands in for the operation `source`.
    pub(super) fn put(
        &mut self,
        holder: Holder,
        key: Key,
        replaced: &[ObjId],
        content: Content,
        source: &str,
    ) -> usize {
        if let Holder::Object(object) = &holder {
            self.follow_operation(&object.clone());
        }
        let pred = self.operations(replaced);
        let source = source.to_owned();
        self.steps.push(Step::Put { holder, key, pred, content, source });
        self.steps.len().saturating_sub(1)
    }

    pub(super) fn delete(&mut self, holder: ObjId, key: Key, replaced: &[ObjId]) {
        let pred = self.operations(replaced);
        self.steps.push(Step::Delete { holder, key, pred });
    }

    pub(super) fn increment(&mut self, holder: &ObjId, key: Key, counter: &ObjId, by: i64) {
        self.follow_operation(counter);
        if let Some(counter) = op_id(counter) {
            self.steps.push(Step::Increment { holder: holder.clone(), key, counter, by });
        }
    }

    pub(super) fn increment_made(&mut self, step: usize, by: i64) {
        self.steps.push(Step::IncrementMade { step, by });
    }

    /// Builds the change; `None` if there is nothing to do, or too much, or if policies have
    /// undone each other's changes too often.
    pub(super) fn build(self) -> Option<automerge::Change> {
        if self.steps.is_empty() || self.deps.is_empty() || self.takes_turns() {
            return None;
        }
        let metas = self.deps.iter().filter_map(|dep| self.doc.get_change_meta_by_hash(dep));
        let start = metas.map(|meta| meta.max_op).max()?.checked_add(1)?;
        let nobody = ActorId::from([0; 16].as_slice());
        let (operations, note) = self.operations_of(&nobody, start)?;
        let message =
            Message { act: Act::Policy, author: None, note: Some(note).filter(|n| !n.is_empty()) };
        let message = if self.deletes { Some(message.deleting_text()) } else { message.text() };
        let seed = format!("{operations:?}|{:?}|{start}|{:?}|{message:?}", self.deps, self.at);
        let id = Uuid::new_v5(&WRITER_NAMESPACE, seed.as_bytes());
        let actor = ActorId::from(id.as_bytes().as_slice());
        let (operations, _) = self.operations_of(&actor, start)?;
        let change = ExpandedChange {
            operations,
            actor_id: actor,
            hash: None,
            seq: 1,
            start_op: NonZeroU64::new(start)?,
            time: i64::try_from(self.at.0).ok()?,
            message,
            deps: self.deps.into_iter().collect(),
            extra_bytes: Vec::new(),
            author: None,
        };
        Some(automerge::Change::from(change))
    }

    /// Tells whether the change would be the last of a long line of policy changes, each made after
    /// nothing new but the one before it. No such line is known; if there is one it must end,
    /// because every region would go on with it for ever.
    fn takes_turns(&self) -> bool {
        // Counters are added up again and again, by one leader, and that ends by itself.
        let mut deps = self.deps.clone();
        for _ in 0..MAX_TURNS {
            let metas = deps.iter().filter_map(|dep| self.doc.get_change_meta_by_hash(dep));
            let policy = |meta: &ChangeMetadata<'_>| meta.message.as_deref().is_some_and(is_policy);
            let Some(before) = metas.filter(policy).max_by_key(|meta| meta.max_op) else {
                return false;
            };
            if !deps.iter().all(|dep| knows(self.doc, &before.hash, dep)) {
                return false;
            }
            deps = before.deps.iter().copied().collect();
        }
        self.only_for.is_none()
    }

    fn operations_of(&self, actor: &ActorId, start: u64) -> Option<(Vec<Op>, String)> {
        let mut writer = Writer { actor, start, operations: Vec::new() };
        let (mut made, mut sources) = (Vec::new(), Vec::new());
        for step in &self.steps {
            made.push(writer.next());
            match step {
                Step::Put { holder, key, pred, content, source } => {
                    let object = match holder {
                        Holder::Object(object) => object_id(object),
                        Holder::Made(step) => ObjectId::Id(made.get(*step)?.clone()),
                    };
                    if matches!(holder, Holder::Object(_)) {
                        sources.push(source.as_str());
                    }
                    let place = Place { object, key: key.clone(), pred: pred.clone() };
                    writer.write(place, content, false);
                }
                Step::Delete { holder, key, pred } => {
                    let place =
                        Place { object: object_id(holder), key: key.clone(), pred: pred.clone() };
                    writer.push(place, OpType::Delete, false);
                }
                Step::Increment { holder, key, counter, by } => {
                    let pred = vec![counter.clone()];
                    let place = Place { object: object_id(holder), key: key.clone(), pred };
                    writer.push(place, OpType::Increment(*by), false);
                }
                Step::IncrementMade { step, by } => {
                    let counter: &OpId = made.get(*step)?;
                    let index = counter.counter().checked_sub(start)?;
                    let put = writer.operations.get(usize::try_from(index).ok()?)?;
                    let (object, key) = (put.obj.clone(), put.key.clone());
                    let place = Place { object, key, pred: vec![counter.clone()] };
                    writer.push(place, OpType::Increment(*by), false);
                }
            }
            if writer.operations.len() > MAX_OPERATIONS {
                return None;
            }
        }
        let named = sources.iter().any(|source| *source != NOTHING);
        let note = if named { sources.join(" ") } else { String::new() };
        Some((writer.operations, note))
    }

    fn operations(&mut self, names: &[ObjId]) -> Vec<OpId> {
        names.iter().for_each(|name| self.follow_operation(name));
        names.iter().filter_map(op_id).collect()
    }

    fn follow_operation(&mut self, operation: &ObjId) {
        self.deps.extend(self.doc.hash_for_opid(operation));
    }
}

/// Where an operation writes, and over what.
struct Place {
    object: ObjectId,
    key: Key,
    pred: Vec<OpId>,
}

/// Turns steps into operations.
struct Writer<'a> {
    actor: &'a ActorId,
    start: u64,
    operations: Vec<Op>,
}

impl Writer<'_> {
    fn next(&self) -> OpId {
        let offset = u64::try_from(self.operations.len()).unwrap_or(u64::MAX);
        OpId::new(self.start.saturating_add(offset), self.actor)
    }

    fn push(&mut self, place: Place, action: OpType, insert: bool) {
        let Place { object, key, pred } = place;
        self.operations.push(Op { action, obj: object, key, pred: pred.into(), insert });
    }

    fn write(&mut self, place: Place, content: &Content, insert: bool) {
        match content {
            Content::EmptyMap => self.push(place, OpType::Make(ObjType::Map), insert),
            Content::Value(value) => self.write_value(place, value, insert),
        }
    }

    fn write_value(&mut self, place: Place, value: &hydrate::Value, insert: bool) {
        // A container with more than this change may hold is not built, so it need not be read.
        if self.operations.len() > MAX_OPERATIONS {
            return;
        }
        let object = ObjectId::Id(self.next());
        match value {
            hydrate::Value::Scalar(scalar) => {
                self.push(place, OpType::Put(scalar.clone()), insert);
            }
            hydrate::Value::Map(map) => {
                self.push(place, OpType::Make(ObjType::Map), insert);
                let mut members: Vec<_> = map.iter().collect();
                members.sort_by_key(|(key, _)| key.as_str());
                for (key, member) in members {
                    let key = Key::Map(key.as_str().into());
                    let place = Place { object: object.clone(), key, pred: Vec::new() };
                    self.write_value(place, &member.value, false);
                }
            }
            hydrate::Value::List(list) => {
                self.push(place, OpType::Make(ObjType::List), insert);
                let elements = list.iter().map(|element| element.value.clone());
                self.insert_all(&object, elements);
            }
            hydrate::Value::Text(text) => {
                self.push(place, OpType::Make(ObjType::Text), insert);
                let text = String::from(text);
                let characters = text.chars().map(|c| ScalarValue::Str(c.to_string().into()));
                self.insert_all(&object, characters.map(hydrate::Value::Scalar));
            }
        }
    }

    fn insert_all(&mut self, object: &ObjectId, elements: impl Iterator<Item = hydrate::Value>) {
        let mut last = ElementId::Head;
        for element in elements {
            let inserted = self.next();
            let place = Place { object: object.clone(), key: Key::Seq(last), pred: Vec::new() };
            self.write_value(place, &element, true);
            last = ElementId::Id(inserted);
        }
    }
}

fn object_id(object: &ObjId) -> ObjectId {
    op_id(object).map_or(ObjectId::Root, ObjectId::Id)
}

fn op_id(id: &ObjId) -> Option<OpId> {
    match id {
        ObjId::Root => None,
        ObjId::Id(counter, actor, _) => Some(OpId::new(*counter, actor)),
    }
}

/// Policy changes in a row that nothing else has led to: several times as many as it takes to move
/// nested maps, level by level.
const MAX_TURNS: usize = 64;

/// Operations of one such change: what the largest container that anybody would resolve by policy
/// takes. Beyond it the conflict stays as it is, in the ledger.
const MAX_OPERATIONS: usize = 100_000;

/// The UUID namespace of the writers of resolutions; it never changes, because hashes follow
/// from it.
const WRITER_NAMESPACE: Uuid = Uuid::from_bytes([
    0x21, 0x7d, 0xc8, 0x4a, 0x05, 0xee, 0x43, 0x19, 0x92, 0x6b, 0xd7, 0x38, 0x60, 0x1f, 0xaa, 0x54,
]);
