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
use automerge::{ActorId, Automerge, ChangeHash, ObjType, ReadDoc, ScalarValue};

use super::register::{Places, Register, operation_name, register_in, value_at};
use super::{Admissions, Admitted, ApplyError, Document, advance, guarded, parse, writer};
use crate::conflict::ConflictId;
use crate::ids::{AuthorName, Origin, Timestamp};
use crate::message::{self, Act, Message};
use crate::policy::{Policies, Whole};

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

/// Pairs of operations that collided, and what was done about conflicts.
#[derive(Debug, Default)]
pub struct Collisions {
    /// The changes that the batch brought.
    pub(super) new: Vec<ChangeHash>,
    pub(super) pairs: Vec<(Touch, Touch)>,
    /// Pairs that are no conflict by themselves: of deletes, or with a delete that was a part of a
    /// write. Either may have replaced a side of a conflict that the other is a side of.
    pub(super) ties: Vec<(Touch, Touch)>,
    /// Changes that are about a conflict.
    pub(super) acts: Vec<(ConflictId, ChangeHash)>,
    /// Changes of which an earlier admission was heard of than the one that counted.
    pub(super) readmitted: BTreeSet<ChangeHash>,
}

impl Collisions {
    /// What a change that was just made here tells the ledger.
    #[must_use]
    pub fn made(document: &Document, change: crate::ids::ChangeHash) -> Self {
        let hash = ChangeHash(change.0);
        let meta = document.doc.get_change_meta_by_hash(&hash);
        let act = meta.and_then(|meta| Message::read(meta.message.as_deref()).act.conflict());
        let acts = act.into_iter().map(|conflict| (conflict, hash)).collect();
        Self { new: vec![hash], acts, ..Self::default() }
    }

    /// Adds what a later batch collided with.
    pub fn extend(&mut self, later: Self) {
        self.new.extend(later.new);
        self.pairs.extend(later.pairs);
        self.ties.extend(later.ties);
        self.acts.extend(later.acts);
        self.readmitted.extend(later.readmitted);
    }

    /// Tells whether changes that were known already count from an earlier time now.
    #[must_use]
    pub fn readmits(&self) -> bool {
        !self.readmitted.is_empty()
    }

    /// Tells whether an empty ledger stays empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
}

/// One operation as the ledger sees it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Touch {
    /// `counter@actor`.
    pub(super) operation: String,
    pub(super) counter: u64,
    pub(super) writer: Origin,
    pub(super) leader: Origin,
    pub(super) author: Option<AuthorName>,
    pub(super) at: Timestamp,
    pub(super) change: ChangeHash,
    pub(super) register: Register,
    pub(super) action: Action,
    /// The operations that it replaced.
    pub(super) replaced: Vec<String>,
    /// The conflict that its change resolves.
    pub(super) resolves: Option<ConflictId>,
}

impl Touch {
    /// Tells whether a delete left another value in the register: it cleared what a write did not
    /// replace by itself, in another one of several maps that show as one.
    pub(super) fn clears(&self, document: &Document) -> bool {
        self.action == Action::Delete
            && !self.replaced.is_empty()
            && value_at(&document.doc, &self.register, &[self.change]).is_some()
    }
}

/// What an operation did to its register.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    Put(ScalarValue),
    Make(ObjType),
    Increment,
    /// It changed a part of a container that counts as one value.
    Edit,
    Delete,
}

/// Applies a batch; see [`Document::apply`].
pub(super) fn apply(
    document: &mut Document,
    batch: &[Admitted],
    policies: &Policies,
) -> Result<Applied, ApplyError> {
    let parsed: Result<Vec<_>, _> = batch.iter().map(|admitted| parse(&admitted.change)).collect();
    let parsed = parsed?;
    let mut readmitted = BTreeSet::new();
    for (change, admitted) in parsed.iter().zip(batch) {
        if document.admissions.note(change, admitted.at, admitted.by) {
            readmitted.insert(change.hash());
        }
    }
    let mut applied = apply_parsed(document, &parsed, policies)?;
    applied.collisions.readmitted = readmitted;
    Ok(applied)
}

/// Applies changes whose admissions are noted already.
pub(super) fn apply_parsed(
    document: &mut Document,
    parsed: &[automerge::Change],
    policies: &Policies,
) -> Result<Applied, ApplyError> {
    let (order, waiting) = causal_order(&document.doc, parsed);
    let changes: Vec<_> = order.iter().filter_map(|&index| parsed.get(index).cloned()).collect();
    let concurrent = Concurrent::find(&document.doc, &changes);
    let acts = changes.iter().filter_map(act).collect();
    let new = changes.iter().map(automerge::Change::hash).collect();
    let read_again = if concurrent.any { changes.clone() } else { Vec::new() };
    guarded(|| document.doc.apply_changes(changes))?
        .map_err(|error| ApplyError::Unfit(error.to_string()))?;
    let reader = Reader::new(document, policies);
    let found = concurrent.pairs(reader, &read_again);
    let (ties, pairs) = found.into_iter().partition(|(one, other)| {
        let deletes = [one, other].map(|touch| touch.action == Action::Delete);
        deletes == [true, true] || one.clears(document) || other.clears(document)
    });
    let collisions = Collisions { new, pairs, ties, acts, readmitted: BTreeSet::new() };
    Ok(Applied { new: order, waiting, collisions })
}

/// Finds everything that collides in the whole history of a document, by going through it again.
pub(super) fn all(document: &Document, policies: &Policies) -> Result<Collisions, ApplyError> {
    let mut again = Document { doc: Automerge::new(), admissions: document.admissions.clone() };
    let mut collisions = Collisions::default();
    for batch in document.doc.get_changes(&[]).chunks(BATCH) {
        collisions.extend(apply_parsed(&mut again, batch, policies)?.collisions);
    }
    Ok(collisions)
}

/// Returns the registers that changes touch.
pub(super) fn registers(
    document: &Document,
    policies: &Policies,
    changes: &[ChangeHash],
) -> BTreeSet<Register> {
    let mut reader = Reader::new(document, policies);
    let found = changes.iter().filter_map(|hash| document.doc.get_change_by_hash(hash));
    let touches: Vec<Located> = found.flat_map(|change| reader.touches(&change)).collect();
    let placed = touches.into_iter().filter(|located| located.class != Class::Edit);
    placed.map(|located| located.touch.register).collect()
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

fn act(change: &automerge::Change) -> Option<(ConflictId, ChangeHash)> {
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
    fn pairs(&self, mut reader: Reader<'_>, batch: &[automerge::Change]) -> Vec<(Touch, Touch)> {
        if !self.any {
            return Vec::new();
        }
        let mut touches = |change: &automerge::Change| reader.touches(change);
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
    class: Class,
}

/// What a touch collides with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// With others of its register, and with removals of the objects around it.
    Plain,
    /// It inserted a list element: with nothing but a removal of the list.
    Insertion,
    /// A policy called for it: it removes objects, but is no side of a conflict itself.
    Policy,
    /// It stands for any edit of the document: with nothing but the delete of the document.
    Edit,
    /// The delete of the document.
    Deletion,
}

impl Class {
    /// Tells whether touches of two classes on one register may be a conflict.
    fn meets(self, other: Self) -> bool {
        match (self, other) {
            (Self::Plain, Self::Plain | Self::Deletion)
            | (Self::Deletion, Self::Plain | Self::Edit | Self::Deletion)
            | (Self::Edit, Self::Deletion) => true,
            (Self::Plain | Self::Insertion | Self::Policy | Self::Edit | Self::Deletion, _) => {
                false
            }
        }
    }
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
        for other in here.filter(|other| one.class.meets(other.class)) {
            if differ(&one.touch, &other.touch) {
                pairs.push((one.touch.clone(), other.touch.clone()));
            }
        }
        for (register, object) in &one.around {
            for remover in self.at(self.by_register.get(register), &concurrent) {
                self.remove(remover, one, object, pairs);
            }
        }
        for object in &one.touch.replaced {
            for inside in self.at(self.by_object.get(object), &concurrent) {
                self.remove(one, inside, object, pairs);
            }
        }
    }

    fn remove(
        &self,
        remover: &Located,
        inside: &Located,
        object: &String,
        pairs: &mut Vec<(Touch, Touch)>,
    ) {
        let written = matches!(inside.class, Class::Plain | Class::Insertion);
        if written && remover.touch.replaced.contains(object) {
            pairs.push((removal(&remover.touch, &inside.touch), inside.touch.clone()));
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
        resolves: None,
        ..remover.clone()
    }
}

/// Tells whether two concurrent operations on one register have to do with each other: equal
/// values have not, two increments add up, and of two resolutions of one conflict one counts.
fn differ(one: &Touch, other: &Touch) -> bool {
    if one.resolves.is_some() && one.resolves == other.resolves {
        return false;
    }
    match (&one.action, &other.action) {
        (Action::Increment, Action::Increment) => false,
        // Counters that start alike are two all the same.
        (Action::Put(ScalarValue::Counter(_)), Action::Put(ScalarValue::Counter(_))) => true,
        (Action::Put(one), Action::Put(other)) => one != other,
        (_, _) => one.operation != other.operation,
    }
}

/// Reads changes as touches.
struct Reader<'a> {
    places: Places<'a>,
    admissions: &'a Admissions,
    policies: &'a Policies,
}

impl<'a> Reader<'a> {
    fn new(document: &'a Document, policies: &'a Policies) -> Self {
        let places = Places::new(&document.doc);
        Self { places, admissions: &document.admissions, policies }
    }

    fn touches(&mut self, change: &automerge::Change) -> Vec<Located> {
        let made = Made::new(change, self.admissions);
        let decoded = change.decode();
        let root = Register(Vec::new());
        if deletes_document(change.message(), change.len()) {
            let name = made.operation(change.start_op().get());
            let touch = made.touch(name, change.start_op().get(), root, Action::Delete, Vec::new());
            return vec![Located { touch, around: Vec::new(), class: Class::Deletion }];
        }
        let mut inserted_into = BTreeSet::new();
        let mut touches: Vec<Located> = Vec::new();
        for (counter, operation) in (change.start_op().get()..).zip(&decoded.operations) {
            let list = (&operation.obj, operation.insert);
            if operation.insert && !inserted_into.insert(format!("{list:?}")) {
                continue;
            }
            for located in self.located(&made, counter, operation) {
                let edit = located.touch.action == Action::Edit;
                let known = |known: &Located| {
                    known.touch.action == Action::Edit
                        && known.touch.register == located.touch.register
                };
                if !(edit && touches.iter().any(known)) {
                    touches.push(located);
                }
            }
        }
        let edits = touches.first().filter(|_| made.message.act != Act::Policy).map(|first| {
            let Touch { operation, counter, .. } = first.touch.clone();
            made.touch(operation, counter, root, Action::Edit, Vec::new())
        });
        let whole = self.policies.whole(&[]).is_some();
        touches.extend(edits.filter(|_| !whole).map(|touch| Located {
            touch,
            around: Vec::new(),
            class: Class::Edit,
        }));
        touches
    }

    /// Where an operation writes: in a register, and as an edit of a container around it that
    /// counts as one value. If a policy chooses among such containers, only as that.
    fn located(&mut self, made: &Made, counter: u64, operation: &Op) -> Vec<Located> {
        let Some(action) = action(operation) else { return Vec::new() };
        let Some(ancestors) = self.places.ancestors(&operation.obj) else { return Vec::new() };
        let name = made.operation(counter);
        let around: Vec<_> =
            ancestors.iter().map(|a| (a.register.clone(), a.object.clone())).collect();
        let inserted = operation.insert.then_some(name.as_str());
        let register = register_in(&ancestors, &operation.key, inserted);
        let policy = made.message.act == Act::Policy;
        let whole = self.policies.whole(&register.tokens());
        let whole = whole.filter(|whole| !policy && whole.depth < register.0.len());
        let mut located = Vec::new();
        if let Some(Whole { depth, policy }) = whole {
            let outer = Register(register.0.iter().take(depth).cloned().collect());
            let outside = around.iter().filter(|(register, _)| register.0.len() < depth);
            let touch = made.touch(name.clone(), counter, outer, Action::Edit, Vec::new());
            let around = outside.cloned().collect();
            located.push(Located { touch, around, class: Class::Plain });
            if policy.chooses() {
                return located;
            }
        }
        let replaced = operation.pred.iter().map(operation_name).collect();
        let class = match (policy, operation.insert) {
            (true, _) => Class::Policy,
            (false, true) => Class::Insertion,
            (false, false) => Class::Plain,
        };
        let touch = made.touch(name, counter, register, action, replaced);
        located.push(Located { touch, around, class });
        located
    }
}

/// What every touch of a change has in common.
struct Made {
    actor: ActorId,
    writer: Origin,
    leader: Origin,
    at: Timestamp,
    change: ChangeHash,
    message: Message,
}

impl Made {
    fn new(change: &automerge::Change, admissions: &Admissions) -> Self {
        let (hash, actor) = (change.hash(), change.actor_id().clone());
        let writer = writer(&actor);
        Self {
            writer,
            leader: admissions.leader(&hash, writer),
            at: admissions.effective(&hash, change.timestamp()),
            change: hash,
            message: Message::read(change.message()),
            actor,
        }
    }

    fn operation(&self, counter: u64) -> String {
        format!("{counter}@{}", self.actor.to_hex_string())
    }

    fn touch(
        &self,
        operation: String,
        counter: u64,
        register: Register,
        action: Action,
        replaced: Vec<String>,
    ) -> Touch {
        Touch {
            operation,
            counter,
            writer: self.writer,
            leader: self.leader,
            author: self.message.author.clone(),
            at: self.at,
            change: self.change,
            register,
            action,
            replaced,
            resolves: self.message.act.resolves(),
        }
    }
}

/// Tells whether a change, of which these are the message and the number of operations, is
/// somebody's delete of the document. One without operations has no name that is its own, and only
/// settles a conflict about a document that is not there; what a policy calls for is no side.
pub(super) fn deletes_document(message: Option<&str>, operations: usize) -> bool {
    operations > 0
        && message.is_some_and(|text| message::is_delete(text) && !message::is_policy(text))
}

fn action(operation: &Op) -> Option<Action> {
    match &operation.action {
        OpType::Put(value) => Some(Action::Put(value.clone())),
        OpType::Make(kind) => Some(Action::Make(*kind)),
        OpType::Increment(_) => Some(Action::Increment),
        OpType::Delete => Some(Action::Delete),
        OpType::MarkBegin(_) | OpType::MarkEnd(_) => None,
    }
}

/// Changes that are applied at once when a history is gone through again: what is noted about the
/// causality within a batch grows with its square.
const BATCH: usize = 512;
