//! What incoming changes collide with.
//!
//! Two operations collide when they touch one register, or one of them edits inside an object
//! that the other removes, and neither change knows the other. Which pairs collide depends on the
//! set of changes alone, not on the order in which they arrive or on how they are batched.
//!
//! A batch that follows everything known costs one comparison of heads for each change. Otherwise
//! the changes that the batch does not know are decoded once, and their operations indexed.

use std::collections::{BTreeMap, BTreeSet};

use automerge::legacy::{Op, OpType};
use automerge::{Automerge, ChangeHash, ObjType, ScalarValue};

use super::register::{Places, Register, operation_name, register_in};
use super::{Admissions, Admitted, ApplyError, Document, advance, guarded, parse, writer};
use crate::conflict::ConflictId;
use crate::ids::{Origin, Timestamp};
use crate::message::{self, Message};

/// What became of a batch of changes.
#[derive(Debug, Default)]
pub struct Applied {
    /// The changes that were new, as indices into the batch.
    pub new: Vec<usize>,
    /// The changes that wait for dependencies, as indices into the batch; they are not applied.
    pub waiting: Vec<usize>,
    /// What the batch collided with.
    pub collisions: Collisions,
}

/// Pairs of operations that collided, and conflicts that the batch settled.
#[derive(Debug, Default)]
pub struct Collisions {
    pub(super) pairs: Vec<(Touch, Touch)>,
    pub(super) settled: Vec<(ConflictId, ChangeHash)>,
    /// Changes of which an earlier admission was heard of than the one that counted.
    pub(super) readmitted: BTreeSet<ChangeHash>,
}

impl Collisions {
    /// What an edit of this node tells the ledger when it settles a conflict.
    #[must_use]
    pub fn settling(conflict: ConflictId, change: crate::ids::ChangeHash) -> Self {
        Self { settled: vec![(conflict, ChangeHash(change.0))], ..Self::default() }
    }

    /// Adds what a later batch collided with.
    pub fn extend(&mut self, later: Self) {
        self.pairs.extend(later.pairs);
        self.settled.extend(later.settled);
        self.readmitted.extend(later.readmitted);
    }

    /// Tells whether the ledger has nothing to learn.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty() && self.settled.is_empty() && self.readmitted.is_empty()
    }
}

/// One operation as the ledger sees it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Touch {
    /// `counter@actor`.
    pub(super) operation: String,
    pub(super) counter: u64,
    pub(super) writer: Origin,
    pub(super) at: Timestamp,
    pub(super) change: ChangeHash,
    pub(super) register: Register,
    pub(super) action: Action,
    /// The operations that it replaced.
    pub(super) replaced: Vec<String>,
}

/// What an operation did to its register.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    Put(ScalarValue),
    Make(ObjType),
    Increment(i64),
    Delete,
}

/// Applies a batch; see [`Document::apply`].
pub(super) fn apply(document: &mut Document, batch: &[Admitted]) -> Result<Applied, ApplyError> {
    let parsed: Result<Vec<_>, _> = batch.iter().map(|admitted| parse(&admitted.change)).collect();
    let parsed = parsed?;
    let (order, waiting) = causal_order(&document.doc, &parsed);
    let changes: Vec<_> = order.iter().filter_map(|&index| parsed.get(index).cloned()).collect();
    let concurrent = Concurrent::find(&document.doc, &changes);
    guarded(|| document.doc.apply_changes(changes.iter().cloned()))?
        .map_err(|error| ApplyError::Unfit(error.to_string()))?;
    let mut readmitted = BTreeSet::new();
    for (change, admitted) in parsed.iter().zip(batch) {
        if document.admissions.note(change, admitted.at, admitted.by) {
            readmitted.insert(change.hash());
        }
    }
    let pairs = concurrent.pairs(&document.doc, &document.admissions, &changes);
    let settled = changes.iter().filter_map(settles).collect();
    Ok(Applied { new: order, waiting, collisions: Collisions { pairs, settled, readmitted } })
}

/// Sorts new changes so that each follows its dependencies; the second list waits for more.
fn causal_order(doc: &Automerge, parsed: &[automerge::Change]) -> (Vec<usize>, Vec<usize>) {
    let known = |hash: &ChangeHash| doc.get_change_meta_by_hash(hash).is_some();
    let mut ready: BTreeSet<ChangeHash> = BTreeSet::new();
    let mut left: Vec<usize> = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, change) in parsed.iter().enumerate() {
        if !known(&change.hash()) && seen.insert(change.hash()) {
            left.push(index);
        }
    }
    let mut order = Vec::new();
    loop {
        let before = left.len();
        left.retain(|&index| {
            let Some(change) = parsed.get(index) else { return false };
            if change.deps().iter().all(|dep| ready.contains(dep) || known(dep)) {
                ready.insert(change.hash());
                order.push(index);
                return false;
            }
            true
        });
        if left.is_empty() || left.len() == before {
            return (order, left);
        }
    }
}

fn settles(change: &automerge::Change) -> Option<(ConflictId, ChangeHash)> {
    let id = Message::read(change.message()).act.conflict()?;
    Some((id, change.hash()))
}

/// What was concurrent to a batch before it was applied.
struct Concurrent {
    /// For each change of the batch, the group of stored changes that it does not know.
    group_of: Vec<usize>,
    /// The groups, each with its stored changes.
    groups: Vec<Vec<automerge::Change>>,
    /// For each change of the batch, the ones before it in the batch that it follows.
    follows: Vec<BTreeSet<usize>>,
    /// Whether anything is concurrent at all.
    any: bool,
}

impl Concurrent {
    fn find(doc: &Automerge, batch: &[automerge::Change]) -> Self {
        let mut frontier: BTreeSet<_> = doc.get_heads().into_iter().collect();
        let mut any = false;
        for change in batch {
            any |= frontier.iter().any(|head| !change.deps().contains(head));
            advance(&mut frontier, change);
        }
        let mut concurrent =
            Self { group_of: Vec::new(), groups: Vec::new(), follows: Vec::new(), any };
        if any {
            concurrent.group(doc, batch);
        }
        concurrent
    }

    /// Groups the batch by what it knows of the document, so that each group is read once.
    fn group(&mut self, doc: &Automerge, batch: &[automerge::Change]) {
        let mut index_of: BTreeMap<ChangeHash, usize> = BTreeMap::new();
        let mut knows: Vec<BTreeSet<ChangeHash>> = Vec::new();
        let mut group_by: BTreeMap<BTreeSet<ChangeHash>, usize> = BTreeMap::new();
        for (index, change) in batch.iter().enumerate() {
            let (mut stored, mut before) = (BTreeSet::new(), BTreeSet::new());
            for dep in change.deps() {
                match index_of.get(dep).map(|at| (at, knows.get(*at), self.follows.get(*at))) {
                    Some((&at, Some(known), Some(followed))) => {
                        before.insert(at);
                        stored.extend(known.iter().copied());
                        before.extend(followed.iter().copied());
                    }
                    Some(_) | None => drop(stored.insert(*dep)),
                }
            }
            let group = *group_by.entry(stored.clone()).or_insert_with(|| {
                let deps: Vec<_> = stored.iter().copied().collect();
                self.groups.push(doc.get_changes(&deps));
                self.groups.len().saturating_sub(1)
            });
            self.group_of.push(group);
            self.follows.push(before);
            knows.push(stored);
            index_of.insert(change.hash(), index);
        }
    }

    /// Returns the pairs that collide, once the batch is applied.
    fn pairs(
        &self,
        doc: &Automerge,
        admissions: &Admissions,
        batch: &[automerge::Change],
    ) -> Vec<(Touch, Touch)> {
        if !self.any {
            return Vec::new();
        }
        let mut places = Places::new(doc);
        let mut touches = |change: &automerge::Change| touches(&mut places, admissions, change);
        let stored: Vec<Index> = self
            .groups
            .iter()
            .map(|group| Index::of(group.iter().flat_map(&mut touches).map(|t| (t, None))))
            .collect();
        let incoming: Vec<Vec<Located>> = batch.iter().map(&mut touches).collect();
        let numbered = incoming.iter().enumerate();
        let batched = Index::of(numbered.flat_map(|(index, touches)| {
            touches.iter().cloned().map(move |touch| (touch, Some(index)))
        }));
        let mut pairs = Vec::new();
        for (index, touches) in incoming.iter().enumerate() {
            let group = self.group_of.get(index).and_then(|group| stored.get(*group));
            let follows = self.follows.get(index);
            let earlier = |other: Option<usize>| {
                other.is_some_and(|o| o < index && follows.is_none_or(|f| !f.contains(&o)))
            };
            for touch in touches {
                group.into_iter().for_each(|group| group.collide(touch, |_| true, &mut pairs));
                batched.collide(touch, earlier, &mut pairs);
            }
        }
        pairs
    }
}

/// A touch, and the objects around it.
#[derive(Debug, Clone)]
struct Located {
    touch: Touch,
    /// Register and making operation of each object around the register, outermost first.
    around: Vec<(Register, String)>,
    /// Whether the touch inserted a list element, which collides with nothing but a removal of
    /// the list.
    insertion: bool,
}

/// Touches by register, and by the objects around them.
struct Index {
    touches: Vec<(Located, Option<usize>)>,
    by_register: BTreeMap<Register, Vec<usize>>,
    by_object: BTreeMap<String, Vec<usize>>,
}

impl Index {
    fn of(touches: impl Iterator<Item = (Located, Option<usize>)>) -> Self {
        let mut index =
            Self { touches: Vec::new(), by_register: BTreeMap::new(), by_object: BTreeMap::new() };
        for (at, (located, batch)) in touches.enumerate() {
            let register = located.touch.register.clone();
            index.by_register.entry(register).or_default().push(at);
            for (_, object) in &located.around {
                index.by_object.entry(object.clone()).or_default().push(at);
            }
            index.touches.push((located, batch));
        }
        index
    }

    /// Adds the pairs that `one` makes with those touches here that are concurrent to it.
    fn collide(
        &self,
        one: &Located,
        concurrent: impl Fn(Option<usize>) -> bool,
        pairs: &mut Vec<(Touch, Touch)>,
    ) {
        let here = self.at(self.by_register.get(&one.touch.register), &concurrent);
        for other in here.filter(|other| !one.insertion && !other.insertion) {
            if differ(&one.touch, &other.touch) {
                pairs.push((one.touch.clone(), other.touch.clone()));
            }
        }
        for (register, object) in &one.around {
            for remover in self.at(self.by_register.get(register), &concurrent) {
                if remover.touch.replaced.contains(object) {
                    pairs.push((removal(&remover.touch, &one.touch), one.touch.clone()));
                }
            }
        }
        for object in &one.touch.replaced {
            for inside in self.at(self.by_object.get(object), &concurrent) {
                pairs.push((removal(&one.touch, &inside.touch), inside.touch.clone()));
            }
        }
    }

    fn at<'a>(
        &'a self,
        indices: Option<&'a Vec<usize>>,
        concurrent: &'a impl Fn(Option<usize>) -> bool,
    ) -> impl Iterator<Item = &'a Located> {
        let touches = indices.into_iter().flatten().filter_map(|&at| self.touches.get(at));
        touches.filter(|(_, batch)| concurrent(*batch)).map(|(located, _)| located)
    }
}

/// What the removal of an object means to a register inside it: a delete there.
fn removal(remover: &Touch, inside: &Touch) -> Touch {
    Touch {
        register: inside.register.clone(),
        action: Action::Delete,
        replaced: Vec::new(),
        ..remover.clone()
    }
}

/// Tells whether two concurrent operations on one register are a conflict: equal values are none,
/// two deletes are none, and two increments add up.
fn differ(one: &Touch, other: &Touch) -> bool {
    match (&one.action, &other.action) {
        (Action::Delete, Action::Delete) | (Action::Increment(_), Action::Increment(_)) => false,
        (Action::Put(one), Action::Put(other)) => one != other,
        (_, _) => one.operation != other.operation,
    }
}

fn touches(
    places: &mut Places<'_>,
    admissions: &Admissions,
    change: &automerge::Change,
) -> Vec<Located> {
    if change.message().is_some_and(|text| message::is_policy(text)) {
        return Vec::new();
    }
    let at = admissions.effective(&change.hash(), change.timestamp());
    let decoded = change.decode();
    let mut inserted_into = BTreeSet::new();
    let mut touches = Vec::new();
    for (counter, operation) in (decoded.start_op.get()..).zip(&decoded.operations) {
        let Some(action) = action(operation) else { continue };
        let Some(ancestors) = places.ancestors(&operation.obj) else { continue };
        let name = format!("{counter}@{}", decoded.actor_id.to_hex_string());
        let around: Vec<_> =
            ancestors.iter().map(|a| (a.register.clone(), a.object.clone())).collect();
        let list = around.last().map(|(_, object)| object.clone());
        if operation.insert && !inserted_into.insert(list) {
            continue;
        }
        let inserted = operation.insert.then_some(name.as_str());
        touches.push(Located {
            touch: Touch {
                register: register_in(&ancestors, &operation.key, inserted),
                operation: name,
                counter,
                writer: writer(&decoded.actor_id),
                at,
                change: change.hash(),
                action,
                replaced: operation.pred.iter().map(operation_name).collect(),
            },
            around,
            insertion: operation.insert,
        });
    }
    touches
}

fn action(operation: &Op) -> Option<Action> {
    match &operation.action {
        OpType::Put(value) => Some(Action::Put(value.clone())),
        OpType::Make(kind) => Some(Action::Make(*kind)),
        OpType::Increment(by) => Some(Action::Increment(*by)),
        OpType::Delete => Some(Action::Delete),
        OpType::MarkBegin(_) | OpType::MarkEnd(_) => None,
    }
}
