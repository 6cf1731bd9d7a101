//! How a row of the ledger is decided: its kind, its winner, its state, and what was there before.

use std::collections::{BTreeMap, BTreeSet};

use automerge::legacy::OpType;
use automerge::{ActorId, ChangeHash, ChangeMetadata, ScalarValue};
use serde_json::Value;

use super::super::ranking::{self, Claim, Deed, Weight};
use super::super::register::{Register, operation, value_at};
use super::super::view::{hydrated_json, scalar_json};
use super::super::{Document, collisions, standin};
use super::{Member, Row, What, settlement};
use crate::conflict::{Candidate, Conflict, ConflictKind, ConflictState, Settlement};
use crate::ids::DocumentId;
use crate::message::{Act, Message};
use crate::policy::{Policies, Policy};

/// Decides a row from its members, from what was done about it, and from what stands there.
pub(super) fn decide(
    row: &Row,
    document: &Document,
    id: DocumentId,
    policies: &Policies,
) -> Conflict {
    let fixed = row.conflict.as_ref().filter(|_| !row.grown);
    let path = fixed.map_or_else(|| row.path(document), |conflict| conflict.path.clone());
    let base = match fixed {
        Some(conflict) => conflict.base.clone(),
        None => base(row, document),
    };
    let policy = policies.of(&path);
    let candidates = row.candidates(document);
    let whole = policies.whole(&row.register.tokens());
    let whole = whole.is_some_and(|whole| whole.depth == row.register.0.len());
    let case = Case { row, document, policy, candidates: &candidates, whole };
    let mut acts: Vec<Settlement> = row.acts.values().cloned().collect();
    acts.sort_by_key(|act| (act.at, act.change));
    let (state, settled) = case.state(&acts);
    let shows = state != ConflictState::Resolved && !case.merges();
    let winner = match acts.iter().rev().find(|act| case.wrote(act)) {
        // What somebody wrote shows, whatever the policy would choose.
        Some(act) => candidates.iter().rposition(|(_, m)| shows && m.value == act.value),
        None => best(row, &candidates, policy, policies)
            .filter(|best| shows && !case.shows_with_others(*best)),
    };
    let kind = kind(row, &candidates);
    Conflict {
        id: row.id(id),
        document: id,
        path,
        kind,
        base,
        policy,
        version: policies.version(),
        winner,
        candidates: candidates.iter().map(|(operation, m)| candidate(operation, m)).collect(),
        settled,
        acts,
        state,
    }
}

/// The candidate that a policy chooses, as an index.
pub(in super::super) fn best(
    row: &Row,
    candidates: &[(&str, &Member)],
    policy: Policy,
    policies: &Policies,
) -> Option<usize> {
    let claims = candidates.iter().map(|(operation, member)| {
        let deed = match member.what {
            What::Deleted => Deed::Delete,
            What::Removed => Deed::Removal,
            What::Increment if !is_of_counter(row, member) => Deed::Increment,
            What::Scalar
            | What::Counter
            | What::Map
            | What::List
            | What::Text
            | What::Increment
            | What::Edited
            | What::Cleared => Deed::Write,
        };
        let weight = match (member.what, &member.value) {
            (What::Scalar | What::Counter | What::Increment, Some(value)) => Weight::of(value),
            _ => Weight::Container,
        };
        Claim {
            class: ranking::class(deed, policy),
            weight,
            at: member.at,
            writer: member.writer,
            place: policies.priority(member.leader),
            operation: standin::parse(operation).unwrap_or((0, ActorId::from([].as_slice()))),
        }
    });
    let best = claims.enumerate().max_by(|(_, a), (_, b)| ranking::compare(policy, a, b));
    best.map(|(index, _)| index)
}

/// What the state of a row follows from.
struct Case<'a> {
    row: &'a Row,
    document: &'a Document,
    policy: Policy,
    candidates: &'a [(&'a str, &'a Member)],
    /// Whether the settings take what stands in the register as one value.
    whole: bool,
}

impl Case<'_> {
    fn state(&self, acts: &[Settlement]) -> (ConflictState, Option<Settlement>) {
        if let Some(act) = acts.iter().rev().find(|act| self.covers_all(act)) {
            let state = match act.act {
                Act::Dismiss(_) => ConflictState::Dismissed,
                Act::Reopen(_) | Act::Undo(_) => ConflictState::Open,
                Act::Write | Act::Delete | Act::Resolve(_) | Act::Revert | Act::Policy => {
                    ConflictState::Resolved
                }
            };
            return (state, Some(act.clone()));
        }
        if self.policy.chooses() {
            return (ConflictState::AutoResolved, None);
        }
        if self.policy == Policy::Auto && self.settles_itself() {
            return (ConflictState::AutoResolved, None);
        }
        match self.write_after() {
            Some(write) => (ConflictState::Resolved, Some(write)),
            None => (ConflictState::Open, None),
        }
    }

    /// Tells whether an act left a value in place of all sides.
    fn wrote(&self, act: &Settlement) -> bool {
        matches!(act.act, Act::Resolve(_) | Act::Undo(_)) && self.covers_all(act)
    }

    /// Tells whether an act knew everything that collided.
    fn covers_all(&self, act: &Settlement) -> bool {
        let act = ChangeHash(act.change.0);
        let doc = &self.document.doc;
        self.row.changes().iter().all(|change| standin::knows(doc, &act, change))
    }

    /// The first ordinary write that superseded every side.
    fn write_after(&self) -> Option<Settlement> {
        if self.row.stirred {
            return later_write(self.row, self.document);
        }
        let known = self.row.conflict.as_ref().and_then(|conflict| conflict.settled.clone());
        let news = self.row.news.iter().filter_map(|hash| later(self.row, self.document, hash));
        known.into_iter().chain(news).min_by_key(|write| (write.at, write.change))
    }

    /// Tells whether `auto` leaves nothing to decide.
    fn settles_itself(&self) -> bool {
        let any = |wanted: What| self.candidates.iter().any(|(_, m)| m.what == wanted);
        let written = |what: What| !matches!(what, What::Deleted | What::Removed | What::Increment);
        let writes = self.candidates.iter().filter(|(_, m)| written(m.what)).count();
        let deleted = any(What::Deleted) || any(What::Removed);
        any(What::Removed)
            || (any(What::Edited) && deleted)
            || (!any(What::Edited) && (writes < 2 || self.merges()))
    }

    /// Tells whether the edit that wins shows merged with other edits.
    fn shows_with_others(&self, best: usize) -> bool {
        let edits = self.candidates.iter().filter(|(_, m)| m.what == What::Edited).count();
        let won = self.candidates.get(best).is_some_and(|(_, m)| m.value.is_some());
        won && edits > 1 && !(self.policy.chooses() && self.whole)
    }

    /// Tells whether every side shows, merged with the others: maps under any policy, because it
    /// decides their fields.
    fn merges(&self) -> bool {
        if self.candidates.is_empty() || self.row.is_of_parts() {
            return false;
        }
        let counter = |m: &Member| {
            m.what == What::Counter || m.what == What::Increment && is_of_counter(self.row, m)
        };
        self.candidates.iter().all(|(_, m)| m.what == What::Map)
            || !self.policy.chooses() && self.candidates.iter().all(|(_, m)| counter(m))
    }
}

/// Tells whether an increment is of a counter that is a side of the conflict itself.
fn is_of_counter(row: &Row, member: &Member) -> bool {
    let counter = |operation: &String| {
        row.members.iter().any(|((_, known), m)| known == operation && m.what == What::Counter)
    };
    member.replaced.iter().any(counter)
}

fn kind(row: &Row, candidates: &[(&str, &Member)]) -> ConflictKind {
    let any = |wanted: &[What]| candidates.iter().any(|(_, m)| wanted.contains(&m.what));
    let container = any(&[What::Map, What::List, What::Text]);
    let first = candidates.first().map(|(_, member)| member.what);
    if row.register.0.is_empty() && any(&[What::Deleted]) {
        ConflictKind::Document
    } else if any(&[What::Edited]) {
        ConflictKind::Whole
    } else if any(&[What::Deleted, What::Removed]) {
        ConflictKind::Delete
    } else if any(&[What::Increment, What::Counter]) && !container {
        ConflictKind::Counter
    } else if !container {
        ConflictKind::Value
    } else if candidates.iter().all(|(_, member)| Some(member.what) == first) {
        ConflictKind::Container
    } else {
        ConflictKind::Type
    }
}

pub(super) fn candidate(operation: &str, member: &Member) -> Candidate {
    Candidate {
        id: operation.to_owned(),
        value: member.value.clone(),
        origin: member.writer,
        leader: member.leader,
        author: member.author.clone(),
        removal: member.what == What::Removed,
        at: member.at,
        change: member.change,
    }
}

/// What stood there at the common ancestor of all members.
fn base(row: &Row, document: &Document) -> Option<Value> {
    let doc = &document.doc;
    let whole = row.members.values().any(|member| member.what == What::Edited);
    let own = |operation: &&String| row.members.keys().any(|(_, known)| known == *operation);
    let replaced: BTreeSet<_> =
        row.members.values().flat_map(|m| &m.replaced).filter(|o| !own(o)).collect();
    if !whole {
        let last = replaced.into_iter().max_by_key(|name| standin::parse(name))?;
        if let OpType::Put(scalar) = &operation(doc, last)?.action
            && !matches!(scalar, ScalarValue::Counter(_))
        {
            return Some(scalar_json(scalar));
        }
    }
    let heads = common_ancestors(document, &row.changes());
    if heads.is_empty() {
        return None;
    }
    value_at(doc, &row.register, &heads).map(|value| hydrated_json(&value))
}

/// The frontier of what all of these changes know.
fn common_ancestors(document: &Document, changes: &BTreeSet<ChangeHash>) -> Vec<ChangeHash> {
    let doc = &document.doc;
    let mut outside = changes.clone();
    for change in changes {
        outside.extend(doc.get_changes_meta(&[*change]).into_iter().map(|meta| meta.hash));
    }
    let metas = outside.iter().filter_map(|change| doc.get_change_meta_by_hash(change));
    let deps: BTreeSet<_> = metas.flat_map(|meta| meta.deps).collect();
    deps.into_iter().filter(|dep| !outside.contains(dep)).collect()
}

/// Finds the first ordinary write to the register that knew every side of the conflict, by going
/// through everything that came after.
pub(in super::super) fn later_write(row: &Row, document: &Document) -> Option<Settlement> {
    let sides = row.changes();
    let heads: Vec<_> = sides.iter().copied().collect();
    let changes = document.doc.get_changes_meta(&heads);
    let known = after_all(&last_of(document, &row.members), &changes);
    let later = known.iter().filter_map(|hash| written(row, document, hash));
    later.min_by_key(|write| (write.at, write.change))
}

/// Returns the changes of some members that no other one of them knows.
fn last_of(document: &Document, members: &BTreeMap<(u64, String), Member>) -> Vec<ChangeHash> {
    // What one writer wrote follows what it wrote before.
    let of_writer: BTreeMap<_, _> =
        members.values().map(|member| (member.writer, ChangeHash(member.change.0))).collect();
    let last: BTreeSet<ChangeHash> = of_writer.into_values().collect();
    let doc = &document.doc;
    let known =
        |one: &ChangeHash| last.iter().any(|other| other != one && standin::knows(doc, other, one));
    last.iter().filter(|change| !known(change)).copied().collect()
}

/// Returns those of some changes, in causal order, that know all of these.
fn after_all(all: &[ChangeHash], changes: &[ChangeMetadata<'_>]) -> Vec<ChangeHash> {
    let mut knows: BTreeMap<ChangeHash, BTreeSet<usize>> = BTreeMap::new();
    let mut found = Vec::new();
    for meta in changes {
        let mut known = BTreeSet::new();
        for dep in &meta.deps {
            known.extend(all.iter().position(|side| side == dep));
            known.extend(knows.get(dep).into_iter().flatten());
        }
        if known.len() == all.len() {
            found.push(meta.hash);
        }
        if !known.is_empty() {
            knows.insert(meta.hash, known);
        }
    }
    found
}

/// Reads a change as an ordinary write that supersedes every side, if it is one.
fn later(row: &Row, document: &Document, change: &ChangeHash) -> Option<Settlement> {
    let doc = &document.doc;
    let knows = row.changes().iter().all(|side| standin::knows(doc, change, side));
    knows.then(|| written(row, document, change))?
}

/// Reads a change that knows every side as an ordinary write to the register, if it is one.
fn written(row: &Row, document: &Document, change: &ChangeHash) -> Option<Settlement> {
    let meta = document.doc.get_change_meta_by_hash(change)?;
    let text = meta.message.as_deref();
    let act = Message::read(text).act;
    if act == Act::Policy || act.conflict().is_some() || row.changes().contains(change) {
        return None;
    }
    // Of a document that was deleted here and edited there only another delete says more.
    let root = row.register.0.is_empty();
    let operations = meta.max_op.saturating_add(1).saturating_sub(meta.start_op);
    if root && !collisions::deletes_document(text, usize::try_from(operations).unwrap_or(1)) {
        return None;
    }
    let here = |register: &Register| {
        let around = register.0.len() <= row.register.0.len() || row.is_of_parts();
        around && register.is_near(&row.register)
    };
    let touched = collisions::registers(document, &Policies::default(), &[*change]);
    touched.iter().any(here).then(|| settlement(document, &row.register, *change))?
}
