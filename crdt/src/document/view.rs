//! The JSON that a document shows, and where in the document a path leads.
//!
//! A field without concurrent values costs one iteration step. A field with several is decided by
//! the policy of its path; maps that were created concurrently under one key show as one map.

use std::collections::BTreeSet;

use automerge::{
    ActorId, Automerge, ChangeHash, ObjId, ObjType, Prop, ROOT, ReadDoc, ScalarValue,
    ScalarValueRef, Value, ValueRef, hydrate, transaction::Transaction,
};
use serde_json::{Map, Number, Value as Json};

use super::ranking::{self, Claim, Deed, Weight};
use super::{Admissions, standin, writer};
use crate::edit::Path;
use crate::ids::{Origin, Timestamp};
use crate::message;
use crate::policy::{Policies, Policy};

/// A document, or a transaction on it.
pub(super) trait Replica: ReadDoc {
    /// Returns the change that holds an operation; `None` inside the transaction that makes it.
    fn change_of(&self, operation: &ObjId) -> Option<ChangeHash>;

    /// Returns what a change says besides its operations.
    fn header(&self, change: &ChangeHash) -> Option<Header>;
}

/// What a change says besides its operations.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub(super) start: u64,
    pub(super) max: u64,
    pub(super) timestamp: i64,
    pub(super) deps: Vec<ChangeHash>,
    /// Whether a policy called for the change.
    pub(super) policy: bool,
}

impl Header {
    /// Reads it where all of the change need not be read, which takes ten times as long.
    pub(super) fn of(doc: &Automerge, change: &ChangeHash) -> Option<Self> {
        let meta = doc.get_change_meta_by_hash(change)?;
        Some(Self {
            start: meta.start_op,
            max: meta.max_op,
            timestamp: meta.timestamp,
            policy: meta.message.as_deref().is_some_and(message::is_policy),
            deps: meta.deps,
        })
    }
}

impl Replica for Automerge {
    fn change_of(&self, operation: &ObjId) -> Option<ChangeHash> {
        self.hash_for_opid(operation)
    }

    fn header(&self, change: &ChangeHash) -> Option<Header> {
        Header::of(self, change)
    }
}

impl Replica for Transaction<'_> {
    fn change_of(&self, operation: &ObjId) -> Option<ChangeHash> {
        self.hash_for_opid(operation)
    }

    fn header(&self, change: &ChangeHash) -> Option<Header> {
        let change = self.get_change_by_hash(change)?;
        Some(Header {
            start: change.start_op().get(),
            max: change.max_op(),
            timestamp: change.timestamp(),
            policy: change.message().is_some_and(message::is_policy),
            deps: change.deps().to_vec(),
        })
    }
}

/// One of the values that stand at a place.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) value: Held,
    /// The operation that wrote the value; for an object also its id.
    pub(super) operation: ObjId,
    /// The object that holds the value.
    pub(super) holder: ObjId,
}

/// What a slot holds.
#[derive(Debug, Clone)]
pub(super) enum Held {
    Object(ObjType),
    Scalar(ScalarValue),
}

impl Held {
    pub(super) fn is_map(&self) -> bool {
        matches!(self, Self::Object(ObjType::Map | ObjType::Table))
    }

    pub(super) fn is_counter(&self) -> bool {
        matches!(self, Self::Scalar(ScalarValue::Counter(_)))
    }
}

/// Reads a document under its policies.
pub(super) struct View<'a, D> {
    doc: &'a D,
    policies: &'a Policies,
    admissions: &'a Admissions,
}

impl<'a, D: Replica> View<'a, D> {
    pub(super) fn new(doc: &'a D, policies: &'a Policies, admissions: &'a Admissions) -> Self {
        Self { doc, policies, admissions }
    }

    /// Returns the whole document.
    pub(super) fn root(&self) -> Json {
        Json::Object(self.map(&[ROOT], &mut Vec::new()))
    }

    /// Tells whether the policy of a path chooses among several values.
    fn chooses(&self, slots: &[Slot], path: &[String]) -> bool {
        slots.len() > 1 && self.policies.of(&Path::from(path.to_vec())).chooses()
    }

    /// Returns the policies that the document is read under.
    pub(super) fn policies(&self) -> &'a Policies {
        self.policies
    }

    /// Returns every value at `prop` of the holders, in the order of operation ids.
    pub(super) fn slots(&self, holders: &[ObjId], prop: &Prop) -> Vec<Slot> {
        let mut slots: Vec<_> = holders.iter().flat_map(|h| self.slots_of(h, prop)).collect();
        if holders.len() > 1 {
            slots.sort_by(|a, b| operation_order(&a.operation).cmp(&operation_order(&b.operation)));
        }
        slots
    }

    /// Returns the slot that shows under the policy of the path.
    pub(super) fn winner<'s>(&self, slots: &'s [Slot], path: &[String]) -> Option<&'s Slot> {
        if slots.len() < 2 {
            return slots.first();
        }
        let policy = self.policies.of(&Path::from(path.to_vec()));
        let plain = self.are_plain(slots);
        if plain && matches!(policy, Policy::Auto | Policy::Manual) {
            return slots.last();
        }
        let claims: Vec<(Claim, Option<ChangeHash>)> =
            slots.iter().map(|slot| self.claim(slot, policy)).collect();
        let live = slots.iter().zip(&claims);
        let live = live.filter(|(_, claim)| plain || !self.is_stale(claim, &claims));
        live.max_by(|(_, one), (_, other)| ranking::compare(policy, &one.0, &other.0))
            .map(|(slot, _)| slot)
    }

    /// Tells whether slots are of one object and none of them stands in for another operation. Then
    /// they are concurrent, or Automerge would show one of them only.
    fn are_plain(&self, slots: &[Slot]) -> bool {
        let first = slots.first().map(|slot| &slot.holder);
        let by_policy = |slot: &Slot| self.policy_change(&slot.operation).is_some();
        slots.iter().all(|slot| Some(&slot.holder) == first && !by_policy(slot))
    }

    /// Returns the change that holds an operation, if a policy called for it.
    fn policy_change(&self, operation: &ObjId) -> Option<ChangeHash> {
        let change = self.change_of(operation)?;
        self.doc.header(&change)?.policy.then_some(change)
    }

    /// Returns the slots that stand in for what something else there knew.
    pub(super) fn stale<'s>(&self, slots: &'s [Slot]) -> Vec<&'s Slot> {
        if slots.len() < 2 {
            return Vec::new();
        }
        let claims: Vec<_> = slots.iter().map(|slot| self.claim(slot, Policy::Auto)).collect();
        let stale = slots.iter().zip(&claims).filter(|(slot, claim)| {
            !claim.0.is_of(&slot.operation) && self.is_stale(claim, &claims)
        });
        stale.map(|(slot, _)| slot).collect()
    }

    /// Returns the operation that a slot's stands in for, or its own.
    pub(super) fn original(&self, slot: &Slot) -> ObjId {
        self.original_of(&slot.operation)
    }

    /// Returns the operation that an operation stands in for, or itself.
    pub(super) fn original_of(&self, operation: &ObjId) -> ObjId {
        let change = self.policy_change(operation);
        let change = change.and_then(|hash| self.doc.get_change_by_hash(&hash));
        let source = change.as_ref().and_then(|change| standin::source(change, operation));
        source.unwrap_or_else(|| operation.clone())
    }

    /// Everything that a policy looks at, and the change; a stand-in's are its original's.
    fn claim(&self, slot: &Slot, policy: Policy) -> (Claim, Option<ChangeHash>) {
        let original = self.original(slot);
        let hash = self.change_of(&original);
        let (at, writer, leader) = self.written(&original);
        let operation = match &original {
            ObjId::Root => (0, ActorId::from([].as_slice())),
            ObjId::Id(counter, actor, _) => (*counter, actor.clone()),
        };
        let weight = match &slot.value {
            Held::Object(_) => Weight::Container,
            Held::Scalar(scalar) => Weight::of_scalar(scalar),
        };
        let class = ranking::class(Deed::Write, policy);
        let place = self.policies.priority(leader);
        (Claim { class, weight, at, writer, place, operation }, hash)
    }

    /// Tells whether something else that stands there knew what was claimed.
    fn is_stale(
        &self,
        (claim, hash): &(Claim, Option<ChangeHash>),
        others: &[(Claim, Option<ChangeHash>)],
    ) -> bool {
        let Some(hash) = hash else { return false };
        others.iter().any(|(other, later)| {
            let knows = |later: &ChangeHash| standin::knows(self.doc, later, hash);
            other.operation != claim.operation && later.as_ref().is_some_and(knows)
        })
    }

    /// Returns the change that holds an operation.
    pub(super) fn change_of(&self, operation: &ObjId) -> Option<ChangeHash> {
        self.doc.change_of(operation)
    }

    /// Returns what the slots show together.
    pub(super) fn show(&self, slots: &[Slot], path: &mut Vec<String>) -> Option<Json> {
        let winner = self.winner(slots, path)?;
        Some(match &winner.value {
            Held::Object(ObjType::Map | ObjType::Table) => {
                Json::Object(self.map(&merged_maps(slots), path))
            }
            Held::Object(ObjType::List) => self.list(&winner.operation, path),
            Held::Object(ObjType::Text) => self.text(&winner.operation),
            Held::Scalar(ScalarValue::Counter(_)) if self.chooses(slots, path) => {
                let chosen = self.original(winner);
                let same = slots.iter().filter(|slot| self.original(slot) == chosen);
                self.counter(&same.cloned().collect::<Vec<_>>(), winner)
            }
            Held::Scalar(ScalarValue::Counter(_)) => self.counter(slots, winner),
            Held::Scalar(scalar) => scalar_json(scalar),
        })
    }

    /// Returns the leader through which an operation was written.
    pub(super) fn leader(&self, operation: &ObjId) -> Origin {
        self.written(operation).2
    }

    /// When, by whom, and through which leader an operation was written. What a running
    /// transaction writes is newer than everything else.
    fn written(&self, operation: &ObjId) -> (Timestamp, Origin, Origin) {
        let origin = match operation {
            ObjId::Root => Origin::from_bytes([0; 16]),
            ObjId::Id(_, actor, _) => writer(actor),
        };
        let change = self.doc.change_of(operation);
        match change.and_then(|hash| Some((hash, self.doc.header(&hash)?))) {
            None => (Timestamp::MAX, origin, origin),
            Some((hash, header)) => {
                let at = self.admissions.effective(&hash, header.timestamp);
                (at, origin, self.admissions.leader(&hash, origin))
            }
        }
    }

    fn slots_of(&self, holder: &ObjId, prop: &Prop) -> Vec<Slot> {
        let values = self.doc.get_all(holder, prop.clone()).unwrap_or_default();
        let slot = |(value, operation): (Value<'_>, ObjId)| Slot {
            value: match value {
                Value::Object(kind) => Held::Object(kind),
                Value::Scalar(scalar) => Held::Scalar(scalar.into_owned()),
            },
            operation,
            holder: holder.clone(),
        };
        values.into_iter().map(slot).collect()
    }

    fn map(&self, objects: &[ObjId], path: &mut Vec<String>) -> Map<String, Json> {
        match objects {
            [only] => self.single_map(only, path),
            several => self.merged_map(several, path),
        }
    }

    fn single_map(&self, object: &ObjId, path: &mut Vec<String>) -> Map<String, Json> {
        let mut json = Map::new();
        for item in self.doc.map_range(object, ..) {
            if let (false, ValueRef::Scalar(scalar)) = (item.conflict, &item.value) {
                json.insert(item.key.into_owned(), scalar_ref_json(scalar));
                continue;
            }
            let key = item.key.clone().into_owned();
            path.push(key.clone());
            let shown = match item.value {
                ValueRef::Object(kind) if !item.conflict => {
                    Some(self.object(&item.id(), kind, path))
                }
                ValueRef::Object(_) | ValueRef::Scalar(_) => {
                    let slots = self.slots_of(object, &Prop::Map(key.clone()));
                    self.show(&slots, path)
                }
            };
            path.pop();
            json.extend(shown.map(|shown| (key, shown)));
        }
        json
    }

    fn merged_map(&self, objects: &[ObjId], path: &mut Vec<String>) -> Map<String, Json> {
        let keys: BTreeSet<String> =
            objects.iter().flat_map(|object| self.doc.keys(object)).collect();
        let mut json = Map::new();
        for key in keys {
            let slots = self.slots(objects, &Prop::Map(key.clone()));
            path.push(key.clone());
            let shown = self.show(&slots, path);
            path.pop();
            json.extend(shown.map(|shown| (key, shown)));
        }
        json
    }

    fn list(&self, object: &ObjId, path: &mut Vec<String>) -> Json {
        let element = |item: automerge::iter::ListRangeItem<'_>| {
            if let (false, ValueRef::Scalar(scalar)) = (item.conflict, &item.value) {
                return scalar_ref_json(scalar);
            }
            path.push(item.index.to_string());
            let shown = match item.value {
                ValueRef::Object(kind) if !item.conflict => self.object(&item.id(), kind, path),
                ValueRef::Object(_) | ValueRef::Scalar(_) => {
                    let slots = self.slots_of(object, &Prop::Seq(item.index));
                    self.show(&slots, path).unwrap_or(Json::Null)
                }
            };
            path.pop();
            shown
        };
        Json::Array(self.doc.list_range(object, ..).map(element).collect())
    }

    fn object(&self, object: &ObjId, kind: ObjType, path: &mut Vec<String>) -> Json {
        match kind {
            ObjType::Map | ObjType::Table => Json::Object(self.single_map(object, path)),
            ObjType::List => self.list(object, path),
            ObjType::Text => self.text(object),
        }
    }

    fn text(&self, object: &ObjId) -> Json {
        Json::String(self.doc.text(object).unwrap_or_default())
    }

    /// Counters that were created concurrently under one key add up: they start at the greatest
    /// of their first values, and every increment counts.
    fn counter(&self, slots: &[Slot], winner: &Slot) -> Json {
        let counters = slots.iter().filter(|slot| slot.value.is_counter());
        let totals: Vec<(i64, i64)> = counters
            .filter_map(|slot| Some((self.first_count(slot)?, count(&slot.value)?)))
            .collect();
        if totals.len() < 2 {
            return Json::from(count(&winner.value).unwrap_or_default());
        }
        let start = totals.iter().map(|(first, _)| *first).max().unwrap_or_default();
        let grown =
            |sum: i64, (first, now): &(i64, i64)| sum.saturating_add(now.saturating_sub(*first));
        Json::from(totals.iter().fold(start, grown))
    }

    pub(super) fn first_count(&self, slot: &Slot) -> Option<i64> {
        let ObjId::Id(counter, _, _) = &slot.operation else { return None };
        let hash = self.doc.change_of(&slot.operation)?;
        let change = self.doc.get_change_by_hash(&hash)?;
        let index = counter.checked_sub(change.start_op().get())?;
        let operations = change.decode().operations;
        operations.get(usize::try_from(index).ok()?)?.to_i64()
    }
}

/// Returns the maps that show as one. The first is the one that other Automerge readers see.
pub(super) fn merged_maps(slots: &[Slot]) -> Vec<ObjId> {
    let mut maps: Vec<&ObjId> =
        slots.iter().filter(|slot| slot.value.is_map()).map(|slot| &slot.operation).collect();
    maps.sort_by(|one, other| operation_order(other).cmp(&operation_order(one)));
    maps.into_iter().cloned().collect()
}

/// Returns the JSON of a value that was read out of a document.
pub(super) fn hydrated_json(content: &hydrate::Value) -> Json {
    match content {
        hydrate::Value::Scalar(scalar) => scalar_json(scalar),
        hydrate::Value::Map(map) => {
            map.iter().map(|(key, member)| (key.clone(), hydrated_json(&member.value))).collect()
        }
        hydrate::Value::List(list) => {
            list.iter().map(|element| hydrated_json(&element.value)).collect()
        }
        hydrate::Value::Text(text) => Json::String(String::from(text)),
    }
}

/// Returns the value of a counter.
pub(super) fn count(held: &Held) -> Option<i64> {
    match held {
        Held::Scalar(scalar) => scalar.as_i64(),
        Held::Object(_) => None,
    }
}

/// Returns the order in which Automerge ranks operations.
pub(super) fn operation_order(operation: &ObjId) -> (u64, &[u8]) {
    match operation {
        ObjId::Root => (0, &[]),
        ObjId::Id(counter, actor, _) => (*counter, actor.to_bytes()),
    }
}

/// Returns the JSON of a scalar.
pub(super) fn scalar_json(scalar: &ScalarValue) -> Json {
    match scalar {
        ScalarValue::Str(text) => Json::String(text.to_string()),
        ScalarValue::Int(number) => Json::from(*number),
        ScalarValue::Uint(number) => Json::from(*number),
        ScalarValue::F64(number) => float(*number),
        ScalarValue::Counter(_) => Json::from(scalar.as_i64().unwrap_or_default()),
        ScalarValue::Timestamp(milliseconds) => Json::from(*milliseconds),
        ScalarValue::Boolean(truth) => Json::Bool(*truth),
        ScalarValue::Bytes(bytes) => bytes_json(bytes),
        ScalarValue::Null | ScalarValue::Unknown { .. } => Json::Null,
    }
}

fn scalar_ref_json(scalar: &ScalarValueRef<'_>) -> Json {
    match scalar {
        ScalarValueRef::Str(text) => Json::String(text.to_string()),
        ScalarValueRef::Int(number) => Json::from(*number),
        ScalarValueRef::Uint(number) => Json::from(*number),
        ScalarValueRef::F64(number) => float(*number),
        ScalarValueRef::Counter(number) | ScalarValueRef::Timestamp(number) => Json::from(*number),
        ScalarValueRef::Boolean(truth) => Json::Bool(*truth),
        ScalarValueRef::Bytes(bytes) => bytes_json(bytes),
        ScalarValueRef::Null | ScalarValueRef::Unknown { .. } => Json::Null,
    }
}

fn float(number: f64) -> Json {
    Number::from_f64(number).map_or(Json::Null, Json::Number)
}

/// Bytes have no JSON form; they show as lower-case hexadecimal under a key that says so.
fn bytes_json(bytes: &[u8]) -> Json {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Json::Object(Map::from_iter([("$bytes".to_owned(), Json::String(hex))]))
}
