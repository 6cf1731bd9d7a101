//! The changes of a run, read by stock Automerge: who wrote them, after what, and which operations
//! they hold.

use std::collections::{BTreeMap, BTreeSet};

use automerge::legacy::{Key, ObjectId, OpType};
use bytes::Bytes;
use serde_json::Value;

use super::Violation;
use crate::sim::history::{CallId, DocumentNumber, History, Step};

pub(super) type Hash = [u8; 32];

/// One change.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) hash: Hash,
    pub(super) document: DocumentNumber,
    pub(super) actor: Vec<u8>,
    pub(super) sequence: u64,
    pub(super) dependencies: Vec<Hash>,
    /// The call that asked for it.
    pub(super) call: Option<CallId>,
    /// What it is for.
    pub(super) act: String,
    pub(super) operations: Vec<Operation>,
    pub(super) makes_a_counter: bool,
}

/// One operation on a field of the root; others are only counted.
#[derive(Debug)]
pub(super) struct Operation {
    /// The field of the root.
    pub(super) field: Option<String>,
    /// The text that it assigns.
    pub(super) text: Option<String>,
}

/// Every change that was ever seen.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) all: BTreeMap<Hash, Known>,
    /// Those that are in the log of a node that had to agree.
    pub(super) logged: BTreeSet<Hash>,
    /// The changes that a call led to.
    pub(super) of_call: BTreeMap<CallId, BTreeSet<Hash>>,
    unreadable: usize,
    /// Every change that came before a change, itself included.
    closures: BTreeMap<Hash, BTreeSet<Hash>>,
}

impl Changes {
    pub(super) fn read(history: &History) -> Self {
        let mut changes = Self::default();
        let mut seen: BTreeMap<Bytes, Option<Hash>> = BTreeMap::new();
        for (_, step) in &history.steps {
            if let Step::Durable { change: Some(change), document, .. } = step {
                let read = || changes.add(*document, change);
                seen.entry(change.clone()).or_insert_with(read);
            }
        }
        for last in &history.finals {
            for entry in &last.log {
                let read = || changes.add(entry.document, &entry.change);
                let hash = *seen.entry(entry.change.clone()).or_insert_with(read);
                if let Some(hash) = hash.filter(|_| !last.absent) {
                    changes.logged.insert(hash);
                }
            }
        }
        changes.close();
        changes
    }

    fn add(&mut self, document: DocumentNumber, bytes: &Bytes) -> Option<Hash> {
        let Some(known) = read(document, bytes) else {
            self.unreadable += 1;
            return None;
        };
        let hash = known.hash;
        if let Some(call) = known.call {
            self.of_call.entry(call).or_default().insert(hash);
        }
        self.all.insert(hash, known);
        Some(hash)
    }

    /// Finds what each change in the log came after.
    fn close(&mut self) {
        let mut waiting: Vec<Hash> = self.logged.iter().copied().collect();
        while let Some(hash) = waiting.pop() {
            if self.closures.contains_key(&hash) {
                continue;
            }
            let Some(known) = self.all.get(&hash) else { continue };
            let open: Vec<Hash> = known
                .dependencies
                .iter()
                .filter(|hash| !self.closures.contains_key(*hash) && self.all.contains_key(*hash))
                .copied()
                .collect();
            if !open.is_empty() {
                waiting.push(hash);
                waiting.extend(open);
                continue;
            }
            let mut closure = BTreeSet::from([hash]);
            for dependency in &known.dependencies {
                closure.extend(self.closures.get(dependency).into_iter().flatten());
            }
            self.closures.insert(hash, closure);
        }
    }

    /// Tells whether `later` was made by someone who knew `earlier`.
    pub(super) fn follows(&self, later: Hash, earlier: Hash) -> bool {
        self.closures.get(&later).is_some_and(|closure| closure.contains(&earlier))
    }

    /// The changes of a call that are in the log.
    pub(super) fn logged_of(&self, call: CallId) -> impl Iterator<Item = Hash> + '_ {
        let of_call = self.of_call.get(&call).into_iter().flatten();
        of_call.filter(|hash| self.logged.contains(*hash)).copied()
    }

    /// The changes of a document that are in the log.
    pub(super) fn of_document(&self, document: DocumentNumber) -> impl Iterator<Item = &Known> {
        let logged = self.logged.iter().filter_map(|hash| self.all.get(hash));
        logged.filter(move |known| known.document == document)
    }

    /// No two changes have one (document, actor, sequence), also of those that are lost by now; and
    /// none is there that Automerge cannot read.
    pub(super) fn one_writer(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut places: BTreeMap<(DocumentNumber, &[u8], u64), Hash> = BTreeMap::new();
        for known in self.all.values() {
            let place = (known.document, known.actor.as_slice(), known.sequence);
            let first = *places.entry(place).or_insert(known.hash);
            if first != known.hash {
                let (call, sequence) = (known.call, known.sequence);
                let what = format!("two changes are number {sequence} of one actor: call {call:?}");
                found.push(Violation::new("one-writer", what));
            }
        }
        if self.unreadable > 0 {
            let what = format!("{} changes cannot be read", self.unreadable);
            found.push(Violation::new("conservation", what));
        }
        found
    }
}

fn read(document: DocumentNumber, bytes: &Bytes) -> Option<Known> {
    let change = automerge::Change::from_bytes(bytes.to_vec()).ok()?;
    let expanded = change.decode();
    let message: Value = serde_json::from_str(change.message().unwrap_or("{}")).ok()?;
    let text = |name: &str| message.get(name).and_then(Value::as_str);
    let call = text("author").and_then(|author| author.strip_prefix('w')?.parse().ok());
    let actor = change.actor_id().to_bytes().to_vec();
    let operations = expanded.operations.iter().map(|operation| Operation {
        field: match (&operation.obj, &operation.key) {
            (ObjectId::Root, Key::Map(key)) => Some(key.to_string()),
            (ObjectId::Root | ObjectId::Id(_), Key::Map(_) | Key::Seq(_)) => None,
        },
        text: match &operation.action {
            OpType::Put(value) => value.as_str().map(str::to_owned),
            OpType::Make(_)
            | OpType::Delete
            | OpType::Increment(_)
            | OpType::MarkBegin(_)
            | OpType::MarkEnd(_) => None,
        },
    });
    let makes = |operation: &automerge::legacy::Op| {
        matches!(&operation.action, OpType::Put(automerge::ScalarValue::Counter(_)))
    };
    Some(Known {
        makes_a_counter: expanded.operations.iter().any(makes),
        hash: change.hash().0,
        document,
        sequence: change.seq(),
        dependencies: change.deps().iter().map(|hash| hash.0).collect(),
        call,
        act: text("anabranch").unwrap_or_default().to_owned(),
        operations: operations.collect(),
        actor,
    })
}
