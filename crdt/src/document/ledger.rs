//! The ledger of one document: every conflict, as a pure function of the document's changes.
//!
//! Operations that collide, directly or through others, form one row. A row is named after its
//! register and its first operation, so every region gives it the same id. Its winner follows
//! from its members and the policy alone; whether it is still open follows from what stands in
//! the register now.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{ObjId, ObjType, ReadDoc, ScalarValue, hydrate};
use serde_json::Value;
use uuid::Uuid;

use super::collisions::{Action, Collisions, Touch};
use super::register::{Register, Step, object_name, path_at, path_now, slots_in};
use super::view::{View, scalar_json};
use super::{Document, writer};
use crate::conflict::{Candidate, Conflict, ConflictId, ConflictKind, ConflictState, Settlement};
use crate::edit::Path;
use crate::ids::{ChangeHash, DocumentId, Origin, Timestamp};
use crate::message::Message;
use crate::policy::{Policies, Policy};

mod founder;
mod stored;

pub use founder::Flip;
pub use stored::StoredConflictError;

/// The conflicts of one document.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Rows by their register, which is all that a new collision has to look at.
    rows: BTreeMap<Register, Vec<Row>>,
    /// Rows that were merged into others since the ledger was read.
    removed: BTreeSet<ConflictId>,
}

/// One conflict with everything that is needed to decide it again.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) register: Register,
    pub(super) members: BTreeMap<(u64, String), Member>,
    pub(super) settled: Option<Settlement>,
    pub(super) conflict: Option<Conflict>,
    /// Whether the row differs from what is stored.
    pub(super) changed: bool,
}

/// One operation of a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Member {
    pub(super) writer: Origin,
    pub(super) at: Timestamp,
    pub(super) change: ChangeHash,
    pub(super) what: What,
    pub(super) value: Option<Value>,
    pub(super) replaced: Vec<String>,
}

/// What a member did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Scalar,
    Counter,
    Map,
    List,
    Text,
    Increment,
    /// The field was deleted.
    Deleted,
    /// An object around the field was deleted or replaced, and the field with it.
    Removed,
}

impl Ledger {
    /// Reads the stored rows of a document.
    ///
    /// # Errors
    /// A row is damaged or has a format that this release does not know.
    pub fn read<'a>(
        stored: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, StoredConflictError> {
        let mut rows: BTreeMap<Register, Vec<Row>> = BTreeMap::new();
        for row in stored {
            let row = stored::decode(row)?;
            rows.entry(row.register.clone()).or_default().push(row);
        }
        Ok(Self { rows, removed: BTreeSet::new() })
    }

    /// Reads one stored row.
    ///
    /// # Errors
    /// The row is damaged or has a format that this release does not know.
    pub fn read_conflict(stored: &[u8]) -> Result<Conflict, StoredConflictError> {
        stored::decode(stored)?.conflict.ok_or_else(StoredConflictError::undecided)
    }

    /// Takes in what a batch of changes collided with.
    pub fn absorb(&mut self, document: &Document, id: DocumentId, collisions: &Collisions) {
        for (one, other) in &collisions.pairs {
            self.join(document, id, [one, other]);
        }
        for (conflict, change) in &collisions.settled {
            self.settle(document, id, *conflict, *change);
        }
    }

    /// Decides every row that changed, or whose state depends on what stands in its register now:
    /// a value that an outer winner hides comes back when that winner goes.
    pub fn decide(&mut self, document: &Document, id: DocumentId, policies: &Policies) {
        for row in self.rows.values_mut().flatten() {
            let fixed = row.conflict.as_ref().is_some_and(|conflict| {
                conflict.state == ConflictState::AutoResolved || conflict.settled.is_some()
            });
            // FOUNDER
            let stale = row.conflict.as_ref().is_some_and(|c| c.version != policies.version());
            if row.changed || !fixed || stale {
                let decided = decide(row, document, id, policies);
                row.changed |= row.conflict.as_ref() != Some(&decided);
                row.conflict = Some(decided);
            }
        }
    }

    /// Iterates over the conflicts that were decided.
    pub fn conflicts(&self) -> impl Iterator<Item = &Conflict> {
        self.rows.values().flatten().filter_map(|row| row.conflict.as_ref())
    }

    /// Returns where the field of a conflict is now, which for a list element may be another index
    /// than the conflict was listed under.
    #[must_use]
    pub fn place(&self, document: &Document, conflict: ConflictId) -> Option<Path> {
        let has_id = |row: &&Row| row.conflict.as_ref().is_some_and(|c| c.id == conflict);
        let row = self.rows.values().flatten().find(has_id)?;
        Some(path_now(&document.doc, &row.register))
    }

    /// Counts the open conflicts.
    #[must_use]
    pub fn open(&self) -> u32 {
        let open = self.conflicts().filter(|c| c.state == ConflictState::Open).count();
        u32::try_from(open).unwrap_or(u32::MAX)
    }

    /// Tells whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the rows to store (`None`: to remove) since the last call.
    pub fn unsaved(&mut self) -> Vec<(ConflictId, Option<Vec<u8>>)> {
        let mut unsaved = Vec::new();
        for row in self.rows.values_mut().flatten().filter(|row| row.changed) {
            let Some(conflict) = &row.conflict else { continue };
            self.removed.remove(&conflict.id);
            unsaved.push((conflict.id, Some(stored::encode(row))));
            row.changed = false;
        }
        unsaved.extend(std::mem::take(&mut self.removed).into_iter().map(|id| (id, None)));
        unsaved
    }

    /// Drops rows that are settled, and returns how many. A row that is open stays; one that was
    /// dropped comes back when a change arrives late that collides with what it was about.
    pub fn forget(&mut self, conflicts: &[ConflictId]) -> usize {
        let before = self.removed.len();
        let settled = |row: &mut Row| {
            let conflict = row.conflict.as_ref();
            conflict
                .filter(|c| c.state != ConflictState::Open && conflicts.contains(&c.id))
                .cloned()
        };
        self.rows.retain(|_, rows| {
            rows.retain_mut(|row| match settled(row) {
                Some(conflict) => {
                    self.removed.insert(conflict.id);
                    false
                }
                None => true,
            });
            !rows.is_empty()
        });
        self.removed.len() - before
    }

    /// Rows that a resolution may be due for.
    pub(super) fn fresh(&self) -> impl Iterator<Item = &Row> {
        self.rows.values().flatten().filter(|row| row.changed)
    }

    /// Puts two operations into one row, merging the rows that have either.
    fn join(&mut self, document: &Document, id: DocumentId, pair: [&Touch; 2]) {
        let [register, _] = pair.map(|touch| &touch.register);
        let keys = pair.map(|touch| (touch.counter, touch.operation.clone()));
        let mut joined = Row::new(register.clone());
        let rows = self.rows.entry(register.clone()).or_default();
        rows.retain_mut(|row| {
            let related = keys.iter().any(|key| row.members.contains_key(key));
            if related {
                if !row.members.is_empty() {
                    self.removed.insert(row.id(id));
                }
                joined.take_in(row, id);
            }
            !related
        });
        for (key, touch) in keys.into_iter().zip(pair) {
            joined.members.entry(key).or_insert_with(|| member(document, touch));
        }
        joined.changed = true;
        rows.push(joined);
    }

    fn settle(
        &mut self,
        document: &Document,
        id: DocumentId,
        conflict: ConflictId,
        change: automerge::ChangeHash,
    ) {
        let mut rows = self.rows.values_mut().flatten();
        let Some(row) = rows.find(|row| row.id(id) == conflict) else { return };
        let Some(settlement) = settlement(document, change) else { return };
        let earlier = |known: &Settlement| (known.at, known.change);
        let first = row
            .settled
            .as_ref()
            .is_none_or(|known| (settlement.at, settlement.change) < earlier(known));
        if first {
            row.settled = Some(settlement);
            row.changed = true;
        }
    }
}

impl Row {
    fn new(register: Register) -> Self {
        Self { register, members: BTreeMap::new(), settled: None, conflict: None, changed: true }
    }

    /// The id that the row has with its present members.
    fn id(&self, document: DocumentId) -> ConflictId {
        let first = self.members.keys().next().map(|(_, operation)| operation.as_str());
        let name = format!("{}|{}|{}", document, self.register.id(), first.unwrap_or_default());
        ConflictId(*Uuid::new_v5(&ROW_NAMESPACE, name.as_bytes()).as_bytes())
    }

    /// Where the register was for the writer of the first member.
    pub(super) fn path(&self, document: &Document) -> Path {
        let first = self.members.values().next();
        let heads: Vec<_> = first.map(|m| automerge::ChangeHash(m.change.0)).into_iter().collect();
        path_at(&document.doc, &self.register, &heads)
    }

    /// Takes the members of `other`; its settlement stays only while the row keeps its id.
    fn take_in(&mut self, other: &mut Self, document: DocumentId) {
        let settled_as = other.settled.take().map(|settled| (other.id(document), settled));
        self.members.append(&mut other.members);
        if let Some((id, settled)) = settled_as
            && self.id(document) == id
        {
            self.settled = Some(settled);
        }
    }

    /// The settlement, unless something turned out to be concurrent to it.
    fn settlement(&self) -> Option<&Settlement> {
        let settled = self.settled.as_ref()?;
        let known = |member: &Member| member.change == settled.change;
        (!self.members.values().any(known)).then_some(settled)
    }

    /// The members that no other member replaced, in the order of their operations.
    fn candidates(&self) -> Vec<(&str, &Member)> {
        let replaced: BTreeSet<&str> =
            self.members.values().flat_map(|m| m.replaced.iter().map(String::as_str)).collect();
        let mut last: BTreeMap<Origin, u64> = BTreeMap::new();
        for ((counter, _), member) in &self.members {
            last.insert(member.writer, *counter);
        }
        let stands = |((counter, operation), member): &(&(u64, String), &Member)| {
            !replaced.contains(operation.as_str()) && last.get(&member.writer) == Some(counter)
        };
        let standing = self.members.iter().filter(stands);
        standing.map(|((_, operation), member)| (operation.as_str(), member)).collect()
    }
}

fn decide(row: &Row, document: &Document, id: DocumentId, policies: &Policies) -> Conflict {
    let view = View::new(&document.doc, policies, &document.admissions);
    let path = row.path(document);
    let slots = slots_in(&document.doc, &view, &row.register, &path);
    let policy = policies.of(&path);
    let candidates = row.candidates();
    let winner = candidates
        .iter()
        .enumerate()
        .max_by_key(|(_, (operation, member))| rank(member, operation, policy));
    let visible: BTreeSet<String> = slots.iter().map(|s| object_name(&s.operation)).collect();
    let state = state(row, &candidates, policy, &visible);
    Conflict {
        id: row.id(id),
        document: id,
        path,
        kind: kind(&candidates),
        base: None,
        policy,
        version: policies.version(),
        winner: winner.map(|(index, _)| index).filter(|_| state != ConflictState::Resolved),
        candidates: candidates.iter().map(|(operation, m)| candidate(operation, m)).collect(),
        settled: row.settlement().cloned(),
        acts: row.settlement().into_iter().cloned().collect(),
        state,
    }
}

/// What the policy compares: the greatest wins. An increment never wins over what replaced its
/// counter, and nothing brings back a field whose object was deleted.
fn rank<'a>(
    member: &Member,
    operation: &'a str,
    policy: Policy,
) -> (u8, Timestamp, Origin, (u64, &'a str)) {
    let class = match (member.what, policy) {
        (What::Removed, _) => 3,
        (What::Deleted, Policy::Auto | Policy::Manual) => 1,
        (What::Increment, _) => 0,
        (_, _) => 2,
    };
    let (counter, actor) = operation.split_once('@').unwrap_or_default();
    let order = (counter.parse().unwrap_or_default(), actor);
    match policy {
        Policy::Auto | Policy::Manual => {
            (class, Timestamp::default(), Origin::from_bytes([0; 16]), order)
        }
        _ => (class, member.at, member.writer, order),
    }
}

fn state(
    row: &Row,
    candidates: &[(&str, &Member)],
    policy: Policy,
    visible: &BTreeSet<String>,
) -> ConflictState {
    if row.settlement().is_some() {
        return ConflictState::Resolved;
    }
    let written = |what: What| !matches!(what, What::Deleted | What::Removed | What::Increment);
    let writes: Vec<What> =
        candidates.iter().map(|(_, m)| m.what).filter(|w| written(*w)).collect();
    let merges = |what| writes.iter().all(|write| *write == what);
    let removed = candidates.iter().any(|(_, m)| m.what == What::Removed);
    if policy == Policy::Lww
        || removed
        || writes.len() < 2
        || merges(What::Map)
        || merges(What::Counter)
    {
        return ConflictState::AutoResolved;
    }
    let left = candidates.iter().filter(|(operation, _)| visible.contains(*operation)).count();
    if left < 2 { ConflictState::Resolved } else { ConflictState::Open }
}

fn kind(candidates: &[(&str, &Member)]) -> ConflictKind {
    let any = |wanted: &[What]| candidates.iter().any(|(_, m)| wanted.contains(&m.what));
    let container = any(&[What::Map, What::List, What::Text]);
    let first = candidates.first().map(|(_, member)| member.what);
    if any(&[What::Deleted, What::Removed]) {
        ConflictKind::Delete
    } else if !container {
        ConflictKind::Value
    } else if candidates.iter().all(|(_, member)| Some(member.what) == first) {
        ConflictKind::Container
    } else {
        ConflictKind::Type
    }
}

fn candidate(operation: &str, member: &Member) -> Candidate {
    Candidate {
        id: operation.to_owned(),
        value: member.value.clone(),
        origin: member.writer,
        leader: member.writer,
        author: None,
        at: member.at,
        change: member.change,
    }
}

fn member(document: &Document, touch: &Touch) -> Member {
    let removed = touch.replaced.is_empty() && touch.action == Action::Delete;
    let (what, value) = match &touch.action {
        Action::Delete if removed => (What::Removed, None),
        Action::Delete => (What::Deleted, None),
        Action::Increment(by) => (What::Increment, Some(serde_json::json!({ "$increment": by }))),
        Action::Put(scalar @ ScalarValue::Counter(_)) => (What::Counter, Some(scalar_json(scalar))),
        Action::Put(scalar) => (What::Scalar, Some(scalar_json(scalar))),
        Action::Make(kind) => (made(*kind), Some(as_made(document, touch))),
    };
    Member {
        writer: touch.writer,
        at: touch.at,
        change: ChangeHash(touch.change.0),
        what,
        value,
        replaced: touch.replaced.clone(),
    }
}

fn made(kind: ObjType) -> What {
    match kind {
        ObjType::Map | ObjType::Table => What::Map,
        ObjType::List => What::List,
        ObjType::Text => What::Text,
    }
}

/// The content of an object right after the change that made it.
fn as_made(document: &Document, touch: &Touch) -> Value {
    let doc = &document.doc;
    let object = doc.import_obj(&touch.operation);
    let content =
        object.and_then(|object: ObjId| ReadDoc::hydrate(doc, object, Some(&[touch.change])));
    content.map_or(Value::Null, |content| hydrated_json(&content))
}

fn hydrated_json(content: &hydrate::Value) -> Value {
    match content {
        hydrate::Value::Scalar(scalar) => scalar_json(scalar),
        hydrate::Value::Map(map) => {
            map.iter().map(|(key, member)| (key.clone(), hydrated_json(&member.value))).collect()
        }
        hydrate::Value::List(list) => {
            list.iter().map(|element| hydrated_json(&element.value)).collect()
        }
        hydrate::Value::Text(text) => Value::String(String::from(text)),
    }
}

fn settlement(document: &Document, change: automerge::ChangeHash) -> Option<Settlement> {
    let meta = document.doc.get_change_meta_by_hash(&change)?;
    let message = Message::read(meta.message.as_deref());
    let origin = writer(&meta.actor);
    Some(Settlement {
        act: message.act,
        origin,
        leader: document.admissions.leader(&change, origin),
        author: message.author,
        at: document.admissions.effective(&change, meta.timestamp),
        change: ChangeHash(change.0),
        note: message.note,
    })
}

/// The UUID namespace of rows; it never changes, because conflict ids follow from it.
const ROW_NAMESPACE: Uuid = Uuid::from_bytes([
    0x8e, 0x31, 0xb4, 0x05, 0x7a, 0x9d, 0x4c, 0x26, 0xb8, 0xf3, 0x11, 0x6d, 0xc0, 0x52, 0x9a, 0x7f,
]);
