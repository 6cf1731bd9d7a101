//! Changes that settle conflicts: those that `lww` calls for, and the mark of those that people
//! make.
//!
//! A resolution under `lww` deletes the operations that lost and leaves the winner as it is. It
//! is built from nothing but those operations: its writer is a hash of their ids, its dependencies
//! are their changes, its time is the winner's. So all leaders build the same bytes, and however
//! many of them do, there is one change.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId, OpType};
use automerge::{ActorId, ChangeHash, ExpandedChange, ObjId};
use uuid::Uuid;

use super::ledger::{Ledger, Row};
use super::register::{Step, object_name, slots_in};
use super::view::{Slot, View};
use super::{ApplyError, Change, Document, guarded, stored, writer};
use crate::conflict::Conflict;
use crate::ids::Origin;
use crate::message::{Act, Message};
use crate::policy::Policies;

impl Document {
    /// Makes and applies the changes that `lww` calls for after a batch was absorbed and decided.
    /// `admits` says, from the writers involved, whether this leader is to admit the change; if
    /// not, another one will.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub fn resolutions(
        &mut self,
        ledger: &Ledger,
        policies: &Policies,
        admits: impl Fn(&BTreeSet<Origin>) -> bool,
    ) -> Result<Vec<Change>, ApplyError> {
        let mut made = Vec::new();
        for row in ledger.fresh() {
            let Some((change, writers)) = self.resolution(row, policies) else { continue };
            let known = self.contains(crate::ids::ChangeHash(change.hash().0));
            if known || !admits(&writers) {
                continue;
            }
            guarded(|| self.doc.apply_changes([change.clone()]))?
                .map_err(|error| ApplyError::Unfit(error.to_string()))?;
            made.push(stored(&change));
        }
        Ok(made)
    }

    fn resolution(
        &self,
        row: &Row,
        policies: &Policies,
    ) -> Option<(automerge::Change, BTreeSet<Origin>)> {
        let conflict = row.conflict.as_ref().filter(|c| c.policy.chooses())?;
        let view = View::new(&self.doc, policies, &self.admissions);
        let slots = slots_in(&self.doc, &view, &row.register, &conflict.path);
        let winner = winning_operation(&view, conflict, &slots)?;
        let losers: Vec<&Slot> = slots.iter().filter(|slot| loses(slot, &winner)).collect();
        let mut operations: Vec<OpId> = losers.iter().filter_map(|s| op_id(&s.operation)).collect();
        operations.push(winner.operation.clone());
        let writers = operations.iter().map(|op| writer(op.actor())).collect();
        let change = self.build(row, &winner, &losers, &operations)?;
        (!losers.is_empty()).then_some((change, writers))
    }

    fn build(
        &self,
        row: &Row,
        winner: &Winner,
        losers: &[&Slot],
        operations: &[OpId],
    ) -> Option<automerge::Change> {
        let mut deps: BTreeSet<ChangeHash> = BTreeSet::from([winner.change]);
        deps.extend(losers.iter().filter_map(|slot| self.doc.hash_for_opid(&slot.operation)));
        let metas = deps.iter().filter_map(|dep| self.doc.get_change_meta_by_hash(dep));
        let start = metas.map(|meta| meta.max_op).max()?.checked_add(1)?;
        let names: Vec<String> = losers.iter().map(|slot| object_name(&slot.operation)).collect();
        let seed = format!("{}|{:?}|{}", row.register.id(), operations.last(), names.join("|"));
        let change = ExpandedChange {
            operations: deletions(row, losers)?,
            actor_id: ActorId::from(Uuid::new_v5(&WRITER_NAMESPACE, seed.as_bytes()).as_bytes()),
            hash: None,
            seq: 1,
            start_op: NonZeroU64::new(start)?,
            time: i64::try_from(winner.at.0).ok()?,
            message: Message::of(Act::Policy).text(),
            deps: deps.into_iter().collect(),
            extra_bytes: Vec::new(),
            author: None,
        };
        Some(automerge::Change::from(change))
    }
}

struct Winner {
    operation: OpId,
    change: ChangeHash,
    at: crate::ids::Timestamp,
    /// Whether the winner is an object of which the other maps are a part.
    map: bool,
    /// Of a delete: the operations that it wins over; of a value: all others.
    over: Option<BTreeSet<String>>,
}

fn winning_operation(
    view: &View<'_, automerge::Automerge>,
    conflict: &Conflict,
    slots: &[Slot],
) -> Option<Winner> {
    let best = conflict.candidates.get(conflict.winner?)?;
    if best.value.is_none() {
        let over = conflict.candidates.iter().filter(|c| c.id != best.id).map(|c| c.id.clone());
        return Some(Winner {
            operation: parse_operation(&best.id)?,
            change: ChangeHash(best.change.0),
            at: best.at,
            map: false,
            over: Some(over.collect()),
        });
    }
    let slot = view.winner(slots, conflict.path.tokens())?;
    let (at, _, _) = view.rank(&slot.operation);
    Some(Winner {
        operation: op_id(&slot.operation)?,
        change: view.change_of(&slot.operation)?,
        at,
        map: slot.value.is_map(),
        over: None,
    })
}

fn loses(slot: &Slot, winner: &Winner) -> bool {
    let name = object_name(&slot.operation);
    match &winner.over {
        Some(over) => over.contains(&name),
        None => {
            op_id(&slot.operation).as_ref() != Some(&winner.operation)
                && !(winner.map && slot.value.is_map())
        }
    }
}

/// One delete for each object that holds losers.
fn deletions(row: &Row, losers: &[&Slot]) -> Option<Vec<Op>> {
    let key = match row.register.0.last()? {
        Step::Key(key) => Key::Map(key.as_str().into()),
        Step::Element(element) => Key::Seq(ElementId::Id(parse_operation(element)?)),
    };
    let mut by_holder: BTreeMap<String, (ObjectId, Vec<OpId>)> = BTreeMap::new();
    for slot in losers {
        let holder = match op_id(&slot.holder) {
            Some(id) => ObjectId::Id(id),
            None => ObjectId::Root,
        };
        let entry = by_holder.entry(object_name(&slot.holder)).or_insert((holder, Vec::new()));
        entry.1.push(op_id(&slot.operation)?);
    }
    let delete = |(obj, pred): (ObjectId, Vec<OpId>)| Op {
        action: OpType::Delete,
        obj,
        key: key.clone(),
        pred: pred.into(),
        insert: false,
    };
    Some(by_holder.into_values().map(delete).collect())
}

fn op_id(id: &ObjId) -> Option<OpId> {
    match id {
        ObjId::Root => None,
        ObjId::Id(counter, actor, _) => Some(OpId::new(*counter, actor)),
    }
}

fn parse_operation(name: &str) -> Option<OpId> {
    let (counter, actor) = name.split_once('@')?;
    Some(OpId::new(counter.parse().ok()?, &ActorId::try_from(actor).ok()?))
}

/// The UUID namespace of the writers of resolutions; it never changes, because hashes follow
/// from it.
const WRITER_NAMESPACE: Uuid = Uuid::from_bytes([
    0x21, 0x7d, 0xc8, 0x4a, 0x05, 0xee, 0x43, 0x19, 0x92, 0x6b, 0xd7, 0x38, 0x60, 0x1f, 0xaa, 0x54,
]);
