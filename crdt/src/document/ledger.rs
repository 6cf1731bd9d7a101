//! The ledger of one document: every conflict, as a pure function of the document's changes and of
//! the settings of its collection.
//!
//! Operations that collide, directly or through others, form one row. A row is named after its
//! register and its first operation, so every region gives it the same id. Its winner follows
//! from its members and the policy alone; whether it is still open follows from what was done
//! about it, and from what stands in the register now.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{ObjType, ScalarValue};
use serde_json::Value;
use uuid::Uuid;

use super::collisions::{self, Action, Collisions, Touch};
use super::register::{Register, Step, path_at, value_at};
use super::view::{hydrated_json, scalar_json};
use super::{ApplyError, Document, standin, writer};
use crate::conflict::{Candidate, Conflict, ConflictId, ConflictState, Settlement};
use crate::edit::Path;
use crate::ids::{AuthorName, ChangeHash, DocumentId, Origin, Timestamp};
use crate::message::{Act, Message};
use crate::policy::{Policies, Policy, PolicyVersion};

mod decide;
mod stored;

pub(super) use decide::{best, later_write};
pub use stored::StoredConflictError;

/// The conflicts of one document.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Rows by their register, which is all that a new collision has to look at.
    rows: BTreeMap<Register, Vec<Row>>,
    /// Where the row of a conflict is.
    places: BTreeMap<ConflictId, Register>,
    /// Registers to whose rows something happened since the rows were last saved: what an edit
    /// costs must not grow with the rows that it has nothing to do with.
    dirty: BTreeSet<Register>,
    /// The settings under which every row is decided, if they are the same for all.
    decided: Option<PolicyVersion>,
    /// How many conflicts are open.
    open: u32,
    /// Rows that were merged into others since the ledger was read.
    removed: BTreeSet<ConflictId>,
}

/// One conflict with everything that is needed to decide it again.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) register: Register,
    pub(super) members: BTreeMap<(u64, String), Member>,
    /// What was done about it, by the hash of the change.
    pub(super) acts: BTreeMap<ChangeHash, Settlement>,
    pub(super) conflict: Option<Conflict>,
    /// Whether members or acts came since the row was decided.
    grown: bool,
    /// Whether the row is decided for the first time, after it grew, or under other settings.
    pub(super) stirred: bool,
    /// Whether something was written in, around or inside the register since.
    pub(super) near: bool,
    /// The changes that did.
    news: BTreeSet<automerge::ChangeHash>,
    /// Whether the row differs from what is stored.
    changed: bool,
}

/// One operation of a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Member {
    pub(super) writer: Origin,
    pub(super) leader: Origin,
    pub(super) author: Option<AuthorName>,
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
    /// A part of a container that counts as one value was edited.
    Edited,
    /// A write left nothing of other values but itself.
    Cleared,
    /// The field was deleted.
    Deleted,
    /// An object around the field was deleted or replaced, and the field with it.
    Removed,
}

/// What is kept ready of a decided row.
type Listed = (ConflictId, ConflictState);

/// A row as it is stored, and what it says.
pub type StoredRow = (Vec<u8>, Conflict);

/// What other settings would change about a conflict.
#[derive(Debug, Clone, PartialEq)]
pub struct Flip {
    /// The conflict.
    pub conflict: ConflictId,
    /// Where it is.
    pub path: Path,
    /// The policy that holds, and the candidate that wins; `None` where all of them show merged.
    pub from: (Policy, Option<Candidate>),
    /// The policy that would hold, and the candidate that would win.
    pub to: (Policy, Option<Candidate>),
}

impl Ledger {
    /// Reads the stored rows of a document.
    ///
    /// # Errors
    /// A row is damaged or has a format that this release does not know.
    pub fn read<'a>(
        stored: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, StoredConflictError> {
        let mut ledger = Self::default();
        for row in stored {
            let row = stored::decode(row)?;
            ledger.list(None, row.listed(), &row.register);
            ledger.rows.entry(row.register.clone()).or_default().push(row);
        }
        Ok(ledger)
    }

    /// Reads one stored row.
    ///
    /// # Errors
    /// The row is damaged or has a format that this release does not know.
    pub fn read_conflict(stored: &[u8]) -> Result<Conflict, StoredConflictError> {
        stored::decode(stored)?.conflict.ok_or_else(StoredConflictError::undecided)
    }

    /// Takes in what a batch of changes collided with.
    pub fn absorb(
        &mut self,
        document: &Document,
        id: DocumentId,
        policies: &Policies,
        collisions: &Collisions,
    ) {
        self.touch(document, policies, &collisions.new);
        for (one, other) in &collisions.pairs {
            self.join(document, id, [one, other]);
        }
        self.tie(document, id, &collisions.ties);
        for (conflict, change) in &collisions.acts {
            self.act(document, id, *conflict, *change);
        }
        if !collisions.readmitted.is_empty() {
            self.redate(document, &collisions.readmitted);
        }
    }

    /// Has the rows of some changes decided again by the times that count for these now.
    fn redate(&mut self, document: &Document, changes: &BTreeSet<automerge::ChangeHash>) {
        for row in self.rows.values_mut().flatten() {
            for member in row.members.values_mut() {
                let change = automerge::ChangeHash(member.change.0);
                if !changes.contains(&change) {
                    continue;
                }
                if let Some(meta) = document.doc.get_change_meta_by_hash(&change) {
                    member.at = document.admissions.effective(&change, meta.timestamp);
                    member.leader = document.admissions.leader(&change, member.writer);
                    row.grown = true;
                    self.dirty.insert(row.register.clone());
                }
            }
        }
    }

    /// Notes where changes wrote, so that the rows there are decided again.
    pub(super) fn touch(
        &mut self,
        document: &Document,
        policies: &Policies,
        changes: &[automerge::ChangeHash],
    ) {
        if self.rows.is_empty() {
            return;
        }
        for change in changes {
            for register in collisions::registers(document, policies, &[*change]) {
                for place in self.near(&register) {
                    for row in self.rows.get_mut(&place).into_iter().flatten() {
                        row.near = true;
                        row.news.insert(*change);
                    }
                    self.dirty.insert(place);
                }
            }
        }
    }

    /// Returns the registers with rows that are this one, around it, or inside it.
    fn near(&self, register: &Register) -> Vec<Register> {
        let around = (0..register.0.len())
            .map(|depth| Register(register.0.iter().take(depth).cloned().collect()))
            .filter(|around| self.rows.contains_key(around));
        let inside = self.rows.range(register..).map(|(place, _)| place);
        let inside = inside.take_while(|place| place.is_near(register)).cloned();
        around.chain(inside).collect()
    }

    /// Decides every row that something happened to, and those that were decided under other
    /// settings.
    pub fn decide(&mut self, document: &Document, id: DocumentId, policies: &Policies) {
        let all = self.decided.replace(policies.version()) != Some(policies.version());
        if all {
            self.dirty.extend(self.rows.keys().cloned());
        }
        for register in self.dirty.clone() {
            let mut rows = self.rows.remove(&register).unwrap_or_default();
            for row in &mut rows {
                let before = row.listed();
                row.decide(document, id, policies);
                self.list(before, row.listed(), &register);
            }
            if !rows.is_empty() {
                self.rows.insert(register, rows);
            }
        }
    }

    /// Keeps the index and the count in step with a row that is decided, or gone.
    fn list(&mut self, before: Option<Listed>, after: Option<Listed>, register: &Register) {
        if before == after {
            return;
        }
        let open = |listed: Option<Listed>| {
            u32::from(listed.is_some_and(|(_, state)| state == ConflictState::Open))
        };
        self.open = self.open.saturating_sub(open(before)).saturating_add(open(after));
        if let Some((conflict, _)) = before {
            self.places.remove(&conflict);
        }
        if let Some((conflict, _)) = after {
            self.places.insert(conflict, register.clone());
        }
    }

    /// Finds every collision again from the whole history, as settings need that take other
    /// containers as one value.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub fn rebuild(
        &mut self,
        document: &Document,
        id: DocumentId,
        policies: &Policies,
    ) -> Result<(), ApplyError> {
        let known: BTreeSet<_> = self.conflicts().map(|conflict| conflict.id).collect();
        let mut again = Self::default();
        again.absorb(document, id, policies, &collisions::all(document, policies)?);
        again.decide(document, id, policies);
        let found: BTreeSet<_> = again.conflicts().map(|conflict| conflict.id).collect();
        again.removed = known.difference(&found).copied().chain(self.removed.clone()).collect();
        again.removed.retain(|id| !found.contains(id));
        *self = again;
        Ok(())
    }

    /// Returns what other settings would change.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub fn simulate(
        &self,
        document: &Document,
        id: DocumentId,
        policies: &Policies,
        next: &Policies,
    ) -> Result<Vec<Flip>, ApplyError> {
        let mut other = self.clone();
        if policies.same_wholes(next) {
            other.decide(document, id, next);
        } else {
            other.rebuild(document, id, next)?;
        }
        let known: BTreeMap<_, _> = self.conflicts().map(|c| (c.id, c)).collect();
        let flip = |to: &Conflict| {
            let from = known.get(&to.id).copied();
            let differs = from.is_none_or(|from| {
                let id = |conflict: &Conflict| conflict.winning().map(|winner| winner.id.clone());
                id(from) != id(to)
            });
            let from = from.map_or((policies.of(&to.path), None), |from| {
                (from.policy, from.winning().cloned())
            });
            differs.then(|| Flip {
                conflict: to.id,
                path: to.path.clone(),
                from,
                to: (to.policy, to.winning().cloned()),
            })
        };
        let undecided = |c: &&Conflict| c.settled.is_none();
        Ok(other.conflicts().filter(undecided).filter_map(flip).collect())
    }

    /// Returns the candidate that would win under other settings, as an index.
    #[must_use]
    pub fn winner_under(
        &self,
        document: &Document,
        conflict: ConflictId,
        policies: &Policies,
    ) -> Option<usize> {
        let row = self.row(conflict)?;
        decide::best(
            row,
            &row.candidates(document),
            policies.of(&row.conflict.as_ref()?.path),
            policies,
        )
    }

    /// Iterates over the conflicts that were decided.
    pub fn conflicts(&self) -> impl Iterator<Item = &Conflict> {
        self.rows.values().flatten().filter_map(|row| row.conflict.as_ref())
    }

    /// Counts the open conflicts.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.open
    }

    /// Tells whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the rows to store (`None`: to remove) since the last call.
    pub fn unsaved(&mut self) -> Vec<(ConflictId, Option<StoredRow>)> {
        let mut unsaved = Vec::new();
        for register in std::mem::take(&mut self.dirty) {
            for row in self.rows.get_mut(&register).into_iter().flatten() {
                (row.near, row.stirred) = (false, false);
                row.news.clear();
                let Some(conflict) = row.conflict.clone().filter(|_| row.changed) else { continue };
                self.removed.remove(&conflict.id);
                unsaved.push((conflict.id, Some((stored::encode(row), conflict))));
                row.changed = false;
            }
        }
        unsaved.extend(std::mem::take(&mut self.removed).into_iter().map(|id| (id, None)));
        unsaved
    }

    /// Drops rows that are settled, and returns how many. A row that is open stays; one that was
    /// dropped comes back when a change arrives late that collides with what it was about.
    pub fn forget(&mut self, conflicts: &[ConflictId]) -> usize {
        let before = self.removed.len();
        for conflict in conflicts {
            let Some(register) = self.places.get(conflict).cloned() else { continue };
            let Some(rows) = self.rows.get_mut(&register) else { continue };
            let settled = |row: &Row| {
                row.listed()
                    .is_some_and(|(id, state)| id == *conflict && state != ConflictState::Open)
            };
            rows.retain(|row| !settled(row));
            let gone = !rows.iter().any(|row| row.listed().is_some_and(|(id, _)| id == *conflict));
            if rows.is_empty() {
                self.rows.remove(&register);
            }
            if gone {
                self.places.remove(conflict);
                self.removed.insert(*conflict);
            }
        }
        self.removed.len() - before
    }

    /// Rows that a resolution may be due for.
    pub(super) fn fresh(&self) -> impl Iterator<Item = &Row> {
        let rows = self.dirty.iter().filter_map(|register| self.rows.get(register));
        rows.flatten().filter(|row| row.near)
    }

    fn row(&self, conflict: ConflictId) -> Option<&Row> {
        let has_id = |row: &&Row| row.conflict.as_ref().is_some_and(|c| c.id == conflict);
        self.rows.get(self.places.get(&conflict)?)?.iter().find(has_id)
    }

    /// Puts deletes into the rows of what they are concurrent to, if they knew a side there that
    /// the other did not: then that side is gone.
    fn tie(&mut self, document: &Document, id: DocumentId, ties: &[(Touch, Touch)]) {
        let mut left: Vec<_> = ties.iter().collect();
        loop {
            let before = left.len();
            left.retain(|(one, other)| {
                let joins = self.ends(document, one, other) || self.ends(document, other, one);
                if joins {
                    self.join(document, id, [one, other]);
                }
                !joins
            });
            if left.len() == before {
                return;
            }
        }
    }

    fn ends(&self, document: &Document, delete: &Touch, side: &Touch) -> bool {
        let key = (side.counter, side.operation.clone());
        let rows = self.rows.get(&side.register).into_iter().flatten();
        let members = rows
            .filter(|row| row.members.contains_key(&key))
            .flat_map(|row| row.members.values().filter(|member| member.value.is_some()));
        let knows = |touch: &Touch, member: &Member| {
            let change = automerge::ChangeHash(member.change.0);
            touch.change != change && standin::knows(&document.doc, &touch.change, &change)
        };
        members.into_iter().any(|member| {
            delete.action == Action::Delete && knows(delete, member) && !knows(side, member)
        })
    }

    /// Puts two operations into one row, merging the rows that have either.
    fn join(&mut self, document: &Document, id: DocumentId, pair: [&Touch; 2]) {
        let [register, _] = pair.map(|touch| &touch.register);
        let keys = pair.map(|touch| (touch.counter, touch.operation.clone()));
        let mut joined = Row::new(register.clone());
        let rows = self.rows.remove(register).unwrap_or_default();
        let related = |row: &Row| keys.iter().any(|key| row.members.contains_key(key));
        let (related, mut rows): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(related);
        for mut row in related {
            self.removed.insert(row.id(id));
            self.list(row.listed(), None, register);
            joined.members.append(&mut row.members);
            joined.acts.append(&mut row.acts);
        }
        for (key, touch) in keys.into_iter().zip(pair) {
            joined.members.entry(key).or_insert_with(|| member(document, touch));
        }
        rows.push(joined);
        self.rows.insert(register.clone(), rows);
        self.dirty.insert(register.clone());
    }

    /// Notes what was done about a conflict. The row may have been named after any of its members
    /// by the time it was done.
    fn act(
        &mut self,
        document: &Document,
        id: DocumentId,
        conflict: ConflictId,
        change: automerge::ChangeHash,
    ) {
        let is_named = |row: &Row| row.listed().is_some_and(|(id, _)| id == conflict);
        let was_named = |row: &Row| row.was_named(id, conflict);
        let found = match self.places.get(&conflict) {
            Some(place) => {
                self.rows.get_mut(place).and_then(|r| r.iter_mut().find(|r| is_named(r)))
            }
            None => self.rows.values_mut().flatten().find(|row| was_named(row)),
        };
        let Some(row) = found else { return };
        if let Some(settlement) = settlement(document, &row.register, change) {
            row.grown |= row.acts.insert(settlement.change, settlement).is_none();
            self.dirty.insert(row.register.clone());
        }
    }
}

impl Row {
    fn new(register: Register) -> Self {
        Self {
            register,
            members: BTreeMap::new(),
            acts: BTreeMap::new(),
            conflict: None,
            grown: true,
            stirred: true,
            near: true,
            news: BTreeSet::new(),
            changed: true,
        }
    }

    /// Decides the row, if something happened to it or if it was decided under other settings.
    fn decide(&mut self, document: &Document, id: DocumentId, policies: &Policies) {
        let version = self.conflict.as_ref().map(|conflict| conflict.version);
        self.stirred |= self.grown || version != Some(policies.version());
        self.near |= self.stirred;
        if self.grown {
            self.find_acts(document, id);
        }
        if self.stirred || self.near && self.depends_on_what_stands() {
            let decided = decide::decide(self, document, id, policies);
            self.changed |= self.conflict.as_ref() != Some(&decided);
            self.grown = false;
            self.conflict = Some(decided);
        }
    }

    fn listed(&self) -> Option<Listed> {
        self.conflict.as_ref().map(|conflict| (conflict.id, conflict.state))
    }

    /// Takes in what was done about the conflict before it was one here: under settings that take
    /// other containers as one value it may have been one elsewhere.
    fn find_acts(&mut self, document: &Document, id: DocumentId) {
        let heads: Vec<_> = self.changes().into_iter().collect();
        for meta in document.doc.get_changes_meta(&heads) {
            let Some(text) = meta.message.as_deref() else { continue };
            let conflict = Message::read(Some(text)).act.conflict();
            if conflict.is_some_and(|conflict| self.was_named(id, conflict))
                && let Some(settlement) = settlement(document, &self.register, meta.hash)
            {
                self.acts.insert(settlement.change, settlement);
            }
        }
    }

    /// The id that the row has with its present members.
    fn id(&self, document: DocumentId) -> ConflictId {
        let first = self.members.keys().next().map(|(_, operation)| operation.as_str());
        self.named_after(document, first.unwrap_or_default())
    }

    fn was_named(&self, document: DocumentId, conflict: ConflictId) -> bool {
        let mut names = self.members.keys().map(|(_, operation)| operation);
        names.any(|name| self.named_after(document, name) == conflict)
    }

    fn named_after(&self, document: DocumentId, operation: &str) -> ConflictId {
        let name = format!("{}|{}|{}", document, self.register.id(), operation);
        ConflictId(*Uuid::new_v5(&ROW_NAMESPACE, name.as_bytes()).as_bytes())
    }

    /// Where the register was for the writer of the first member.
    fn path(&self, document: &Document) -> Path {
        let first = self.members.values().next();
        let heads: Vec<_> = first.map(|m| automerge::ChangeHash(m.change.0)).into_iter().collect();
        path_at(&document.doc, &self.register, &heads)
    }

    /// The changes of the members.
    pub(super) fn changes(&self) -> BTreeSet<automerge::ChangeHash> {
        self.members.values().map(|member| automerge::ChangeHash(member.change.0)).collect()
    }

    /// Tells whether a write may change the state of the row.
    fn depends_on_what_stands(&self) -> bool {
        self.conflict.as_ref().is_none_or(|conflict| match conflict.state {
            ConflictState::Open => true,
            ConflictState::Resolved => {
                conflict.settled.as_ref().is_none_or(|settled| settled.act.conflict().is_none())
            }
            ConflictState::AutoResolved | ConflictState::Dismissed => false,
        })
    }

    /// Tells whether a part of the container was edited, or any part of the document.
    pub(super) fn is_of_parts(&self) -> bool {
        self.members.values().any(|member| member.what == What::Edited)
    }

    /// The members that no other member replaced, in the order of their operations: of each
    /// writer the last one.
    pub(super) fn candidates(&self, document: &Document) -> Vec<(&str, &Member)> {
        let replaced: BTreeSet<&str> =
            self.members.values().flat_map(|m| m.replaced.iter().map(String::as_str)).collect();
        let mut last: BTreeMap<Origin, u64> = BTreeMap::new();
        let written = || self.members.iter().filter(|(_, member)| member.what != What::Cleared);
        for ((counter, _), member) in written() {
            last.insert(member.writer, *counter);
        }
        let stands = |((counter, operation), member): &(&(u64, String), &Member)| {
            !replaced.contains(operation.as_str()) && last.get(&member.writer) == Some(counter)
        };
        let standing: Vec<_> = written().filter(stands).collect();
        let edits = self.is_of_parts();
        let change = |member: &Member| automerge::ChangeHash(member.change.0);
        let known = |member: &Member| {
            standing.iter().any(|(_, other)| {
                other.change != member.change
                    && standin::knows(&document.doc, &change(other), &change(member))
            })
        };
        let last = standing.iter().filter(|(_, member)| !edits || !known(member));
        last.map(|((_, operation), member)| (operation.as_str(), *member)).collect()
    }
}

fn member(document: &Document, touch: &Touch) -> Member {
    let (what, value) = deed(document, touch);
    Member {
        writer: touch.writer,
        leader: touch.leader,
        author: touch.author.clone(),
        at: touch.at,
        change: ChangeHash(touch.change.0),
        what,
        value,
        replaced: touch.replaced.clone(),
    }
}

/// What an operation did, and the value that its writer saw once it was done.
fn deed(document: &Document, touch: &Touch) -> (What, Option<Value>) {
    let seen = || {
        let value = value_at(&document.doc, &touch.register, &[touch.change]);
        Some(value.map_or(Value::Null, |value| hydrated_json(&value)))
    };
    let whole = touch.register.0.is_empty();
    match &touch.action {
        Action::Delete if touch.replaced.is_empty() && !whole => (What::Removed, None),
        Action::Delete if touch.clears(document) => (What::Cleared, None),
        Action::Delete => (What::Deleted, None),
        Action::Increment => (What::Increment, seen()),
        Action::Edit => (What::Edited, seen()),
        Action::Put(ScalarValue::Counter(_)) => (What::Counter, seen()),
        Action::Put(scalar) => (What::Scalar, Some(scalar_json(scalar))),
        Action::Make(ObjType::Map | ObjType::Table) => (What::Map, seen()),
        Action::Make(ObjType::List) => (What::List, seen()),
        Action::Make(ObjType::Text) => (What::Text, seen()),
    }
}

/// Reads what a change did about the conflict of a register.
fn settlement(
    document: &Document,
    register: &Register,
    change: automerge::ChangeHash,
) -> Option<Settlement> {
    let meta = document.doc.get_change_meta_by_hash(&change)?;
    let message = Message::read(meta.message.as_deref());
    let origin = writer(&meta.actor);
    let value = match message.act {
        Act::Dismiss(_) | Act::Reopen(_) => None,
        Act::Write | Act::Delete | Act::Resolve(_) | Act::Undo(_) | Act::Revert | Act::Policy => {
            value_at(&document.doc, register, &[change]).map(|value| hydrated_json(&value))
        }
    };
    Some(Settlement {
        act: message.act,
        origin,
        leader: document.admissions.leader(&change, origin),
        author: message.author,
        at: document.admissions.effective(&change, meta.timestamp),
        change: ChangeHash(change.0),
        note: message.note,
        value,
    })
}

/// The UUID namespace of rows; it never changes, because conflict ids follow from it.
const ROW_NAMESPACE: Uuid = Uuid::from_bytes([
    0x8e, 0x31, 0xb4, 0x05, 0x7a, 0x9d, 0x4c, 0x26, 0xb8, 0xf3, 0x11, 0x6d, 0xc0, 0x52, 0x9a, 0x7f,
]);
