//! Stories of two and three regions.

pub(super) mod laws;

mod forget;

mod admissions;
mod bundles;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use super::view::hydrated_json;
use super::*;
use crate::conflict::{Conflict, ConflictKind, ConflictState};
use crate::edit::{self, Path};
use crate::ids::{DocumentId, RegionName};
use crate::policy::Policy;

/// One region: a document, its ledger, and every change it has.
#[derive(Debug, Clone)]
pub(super) struct Region {
    pub(super) origin: Origin,
    pub(super) document: Document,
    rows: BTreeMap<[u8; 16], Vec<u8>>,
    pub(super) log: Vec<Admitted>,
    pub(super) policies: Policies,
    now: u64,
}

impl Region {
    pub(super) fn new(number: u8, policies: &Policies) -> Self {
        Self {
            origin: Origin::of_region(&region_name(number), [number; 16]),
            document: Document::new(),
            rows: BTreeMap::new(),
            log: Vec::new(),
            policies: policies.clone(),
            now: 1_700_000_000_000_000 + u64::from(number),
        }
    }

    pub(super) fn author(&mut self, message: Message) -> Author {
        self.now += 10;
        Author { origin: self.origin, at: Timestamp(self.now), message }
    }

    pub(super) fn at(&mut self, microseconds: u64) -> &mut Self {
        self.now = 1_700_000_000_000_000 + microseconds;
        self
    }

    pub(super) fn edit(&mut self, edits: &[Edit]) -> Result<(), EditError> {
        self.edit_with(edits, Message::default())
    }

    pub(super) fn edit_with(&mut self, edits: &[Edit], message: Message) -> Result<(), EditError> {
        let author = self.author(message);
        let change = self.document.edit(edits, &author, &self.policies)?;
        let made = change.as_ref().map(|change| Collisions::made(&self.document, change.hash));
        self.keep(change, author.at);
        self.decide(&made.unwrap_or_default());
        Ok(())
    }

    pub(super) fn set(&mut self, path: &str, value: Value) -> &mut Self {
        self.edit(&[set(path, value)]).unwrap();
        self
    }

    pub(super) fn remove(&mut self, path: &str) -> &mut Self {
        self.edit(&[Edit::Remove { path: path.parse().unwrap() }]).unwrap();
        self
    }

    pub(super) fn increment(&mut self, path: &str, by: i64) -> &mut Self {
        self.edit(&[Edit::Increment { path: path.parse().unwrap(), by }]).unwrap();
        self
    }

    pub(super) fn delete(&mut self) -> &mut Self {
        let author = self.author(Message::default());
        let change = self.document.delete(&author);
        let made = change.as_ref().map(|change| Collisions::made(&self.document, change.hash));
        self.keep(change, author.at);
        self.decide(&made.unwrap_or_default());
        self
    }

    fn keep(&mut self, change: Option<Change>, at: Timestamp) {
        let origin = self.origin;
        self.log.extend(change.map(|change| Admitted {
            change: change.bytes,
            at,
            by: Some(origin),
        }));
    }

    fn decide(&mut self, collisions: &Collisions) {
        let mut ledger = Ledger::read(self.rows.values().map(Vec::as_slice)).unwrap();
        ledger.absorb(&self.document, ID, &self.policies, collisions);
        self.settle(ledger);
    }

    fn settle(&mut self, mut ledger: Ledger) {
        let origin = self.origin;
        let made = self
            .document
            .resolutions(&mut ledger, ID, &self.policies, |writers| writers.contains(&origin))
            .unwrap();
        let at = Timestamp(self.now);
        made.into_iter().for_each(|change| self.keep(Some(change), at));
        for (id, row) in ledger.unsaved() {
            match row {
                Some((row, _)) => drop(self.rows.insert(id.0, row)),
                None => drop(self.rows.remove(&id.0)),
            }
        }
    }

    pub(super) fn receive(&mut self, changes: &[Admitted]) {
        let applied = self.document.apply(changes, &self.policies).unwrap();
        for index in applied.new {
            self.log.push(changes[index].clone());
        }
        self.decide(&applied.collisions);
    }

    pub(super) fn json(&self) -> Value {
        self.document.value(&self.policies).unwrap_or(Value::Null)
    }

    /// What other Automerge readers show.
    fn stock(&self) -> Value {
        let shown = hydrated_json(&self.document.doc.hydrate(None));
        if self.document.exists() { shown } else { Value::Null }
    }

    /// Takes other settings, and decides everything again.
    pub(super) fn set_policies(&mut self, policies: &Policies) {
        let same = self.policies.same_wholes(policies);
        self.policies = policies.clone();
        let mut ledger = Ledger::read(self.rows.values().map(Vec::as_slice)).unwrap();
        if !same {
            ledger.rebuild(&self.document, ID, policies).unwrap();
        }
        self.settle(ledger);
    }

    pub(super) fn conflicts(&self) -> Vec<Conflict> {
        self.rows.values().map(|row| Ledger::read_conflict(row).unwrap()).collect()
    }
}

fn region_name(number: u8) -> RegionName {
    format!("region-{number}").parse().unwrap()
}

/// Exchanges everything until nobody has anything new.
pub(super) fn exchange(regions: &mut [Region]) {
    for _ in 0..8 {
        let all: Vec<Admitted> = regions.iter().flat_map(|r| r.log.clone()).collect();
        regions.iter_mut().for_each(|region| region.receive(&all));
    }
}

pub(super) fn pair(policy: Policy) -> [Region; 2] {
    let policies = Policies::new(policy, Vec::new(), Vec::new());
    [Region::new(1, &policies), Region::new(2, &policies)]
}

pub(super) fn set(path: &str, value: Value) -> Edit {
    Edit::Set { path: path.parse().unwrap(), value }
}

/// Checks that both regions show `json` and have one conflict row with these values.
#[track_caller]
fn check(regions: &[Region], json: &Value, state: ConflictState, values: &[Value]) -> Conflict {
    for region in regions {
        assert_eq!(region.json(), *json);
        assert_eq!(region.conflicts(), regions[0].conflicts(), "ledgers differ");
        assert_eq!(region.document.heads(), regions[0].document.heads());
    }
    let conflicts = regions[0].conflicts();
    let [conflict] = conflicts.as_slice() else { panic!("expected one row: {conflicts:#?}") };
    let mut found: Vec<_> = conflict
        .candidates
        .iter()
        .map(|c| c.value.clone().unwrap_or_else(|| json!("<deleted>")))
        .collect();
    found.sort_by_key(Value::to_string);
    assert_eq!(found, values);
    assert_eq!(conflict.state, state);
    conflict.clone()
}

const ID: DocumentId = DocumentId(Uuid::from_bytes([7; 16]));

/// Automerge reads a change whose value was damaged on the way as another change.
#[test]
fn a_damaged_change_is_no_other_change() {
    let mut region = Region::new(1, &Policies::default());
    region.set("/a", json!("a long enough value"));
    let mut bytes = region.log[0].change.to_vec();
    let at = bytes.windows(4).position(|part| part == b"long").unwrap();
    bytes[at] = b'L';
    let damaged = Admitted { change: bytes.into(), ..region.log[0].clone() };
    let error = Document::new().apply(&[damaged], &Policies::default()).unwrap_err();
    assert!(matches!(error, ApplyError::Malformed(_)), "{error}");
}

#[test]
fn concurrent_values_stay_open_under_auto_until_someone_writes() {
    let mut regions = pair(Policy::Auto);
    regions[0].set("/title", json!("one")).set("/kept", json!(1));
    exchange(&mut regions);
    regions[0].set("/title", json!("two"));
    regions[1].set("/title", json!("three"));
    exchange(&mut regions);
    let shown = regions[0].json()["title"].clone();
    let json = json!({"title": shown, "kept": 1});
    let conflict = check(&regions, &json, ConflictState::Open, &[json!("three"), json!("two")]);
    assert_eq!(conflict.path, "/title".parse::<Path>().unwrap());
    assert_eq!(conflict.candidates[conflict.winner.unwrap()].value, Some(shown));

    regions[1].set("/title", json!("four"));
    exchange(&mut regions);
    let json = json!({"title": "four", "kept": 1});
    check(&regions, &json, ConflictState::Resolved, &[json!("three"), json!("two")]);
}

#[test]
fn the_later_write_wins_under_lww_wherever_it_was_made() {
    let mut regions = pair(Policy::Lww);
    regions[0].set("/title", json!("one"));
    exchange(&mut regions);
    // The second region writes twice, so that Automerge's own winner is the earlier write.
    regions[1]
        .at(1_000)
        .set("/other", json!(1))
        .set("/other", json!(2))
        .set("/title", json!("early"));
    regions[0].at(2_000).set("/title", json!("late"));
    exchange(&mut regions);
    let json = json!({"title": "late", "other": 2});
    let values = [json!("early"), json!("late")];
    check(&regions, &json, ConflictState::AutoResolved, &values);
    let stock: Policies = Policies::default();
    assert_eq!(regions[0].document.value(&stock), Some(json), "stock readers see the same");
}

#[test]
fn a_fast_clock_of_a_client_counts_no_more_than_its_admission() {
    let mut regions = pair(Policy::Lww);
    regions[0].set("/title", json!("one"));
    exchange(&mut regions);
    let mut client = regions[0].clone();
    client.origin = Origin::from_bytes([9; 16]);
    client.at(1_000_000_000_000).set("/title", json!("from the future"));
    let mut admitted = client.log.last().unwrap().clone();
    admitted.at = Timestamp(1_700_000_000_000_000 + 1_000);
    regions[0].receive(&[admitted]);
    regions[1].at(2_000).set("/title", json!("later in truth"));
    exchange(&mut regions);
    assert_eq!(regions[0].json(), json!({"title": "later in truth"}));
    assert_eq!(regions[0].json(), regions[1].json());
    let again = Document::load(&regions[1].document.save()).unwrap();
    assert_eq!(again.value(&regions[1].policies), Some(regions[0].json()));
}

#[test]
fn equal_values_are_no_conflict() {
    let mut regions = pair(Policy::Auto);
    regions[0].set("/title", json!("one"));
    exchange(&mut regions);
    regions[0].set("/title", json!("same"));
    regions[1].set("/title", json!("same"));
    exchange(&mut regions);
    assert_eq!(regions[0].json(), json!({"title": "same"}));
    assert!(regions[0].conflicts().is_empty() && regions[1].conflicts().is_empty());
}

#[test]
fn a_write_survives_a_concurrent_delete_under_auto_and_is_listed() {
    let mut regions = pair(Policy::Auto);
    regions[0].set("/title", json!("one")).set("/x", json!(0));
    exchange(&mut regions);
    regions[0].remove("/title");
    regions[1].set("/title", json!("two"));
    exchange(&mut regions);
    let values = [json!("<deleted>"), json!("two")];
    let json = json!({"title": "two", "x": 0});
    let conflict = check(&regions, &json, ConflictState::AutoResolved, &values);
    assert_eq!(conflict.kind, ConflictKind::Delete);
}

#[test]
fn a_later_delete_wins_under_lww() {
    let mut regions = pair(Policy::Lww);
    regions[0].set("/title", json!("one")).set("/x", json!(0));
    exchange(&mut regions);
    regions[1].at(1_000).set("/title", json!("two"));
    regions[0].at(2_000).remove("/title");
    exchange(&mut regions);
    let values = [json!("<deleted>"), json!("two")];
    check(&regions, &json!({"x": 0}), ConflictState::AutoResolved, &values);
}

#[test]
fn maps_created_concurrently_under_one_key_merge_key_by_key() {
    let mut regions = pair(Policy::Auto);
    regions[0].set("/x", json!(0));
    exchange(&mut regions);
    regions[0].set("/profile", json!({"name": "Ada", "age": 36}));
    regions[1].set("/profile", json!({"name": "Ada", "town": "London"}));
    exchange(&mut regions);
    let merged = json!({"x": 0, "profile": {"name": "Ada", "age": 36, "town": "London"}});
    assert_eq!(regions[0].json(), merged);
    assert_eq!(regions[1].json(), merged);
    regions[0].set("/profile/town", json!("Paris")).remove("/profile/age");
    exchange(&mut regions);
    let edited = json!({"x": 0, "profile": {"name": "Ada", "town": "Paris"}});
    assert_eq!(regions[0].json(), edited);
    assert_eq!(regions[1].json(), edited);
}

#[test]
fn fields_of_merged_maps_collide_too() {
    let mut regions = pair(Policy::Lww);
    regions[0].set("/x", json!(0));
    exchange(&mut regions);
    regions[0].at(1_000).set("/profile", json!({"name": "Ada"}));
    regions[1].at(2_000).set("/profile", json!({"name": "Grace"}));
    exchange(&mut regions);
    for region in &regions {
        assert_eq!(region.json(), json!({"x": 0, "profile": {"name": "Grace"}}));
        let paths: Vec<_> = region.conflicts().iter().map(|c| c.path.to_string()).collect();
        assert!(paths.contains(&"/profile/name".to_owned()), "{paths:?}");
    }
}

#[test]
fn an_edit_inside_a_deleted_object_is_listed() {
    let mut regions = pair(Policy::Auto);
    regions[0].set("/profile", json!({"name": "Ada"})).set("/x", json!(0));
    exchange(&mut regions);
    regions[0].remove("/profile");
    regions[1].set("/profile/name", json!("Grace"));
    exchange(&mut regions);
    let values = [json!("<deleted>"), json!("Grace")];
    let sorted = {
        let mut v = values.clone();
        v.sort_by_key(Value::to_string);
        v
    };
    let conflict = check(&regions, &json!({"x": 0}), ConflictState::AutoResolved, &sorted);
    assert_eq!(conflict.path, "/profile/name".parse::<Path>().unwrap());
}

#[test]
fn counters_add_up_also_when_both_regions_create_them() {
    let mut regions = pair(Policy::Auto);
    regions[0].set("/x", json!(0));
    exchange(&mut regions);
    regions[0].increment("/likes", 1);
    regions[1].increment("/likes", 1).increment("/likes", 1);
    exchange(&mut regions);
    assert_eq!(regions[0].json(), json!({"x": 0, "likes": 3}));
    regions[0].increment("/likes", 10);
    regions[1].increment("/likes", 100);
    exchange(&mut regions);
    assert_eq!(regions[0].json(), json!({"x": 0, "likes": 113}));
    assert_eq!(regions[1].json(), regions[0].json());
}

#[test]
fn list_elements_set_concurrently_collide() {
    let mut regions = pair(Policy::Auto);
    regions[0].set("/list", json!(["a", "b", "c"]));
    exchange(&mut regions);
    regions[0].set("/list/1", json!("B"));
    regions[1]
        .edit(&[Edit::Insert { path: "/list/0".parse().unwrap(), value: json!("first") }])
        .unwrap();
    regions[1].set("/list/2", json!("bee"));
    exchange(&mut regions);
    let shown = regions[0].json()["list"][2].clone();
    let json = json!({"list": ["first", "a", shown, "c"]});
    let conflict = check(&regions, &json, ConflictState::Open, &[json!("B"), json!("bee")]);
    assert_eq!(conflict.path, "/list/1".parse::<Path>().unwrap(), "as its first writer saw it");
}

#[test]
fn settling_a_conflict_closes_it_everywhere() {
    let mut regions = pair(Policy::Auto);
    regions[0].set("/title", json!("one"));
    exchange(&mut regions);
    regions[0].set("/title", json!("two"));
    regions[1].set("/title", json!("three"));
    exchange(&mut regions);
    let id = regions[0].conflicts()[0].id;
    let note = Some("asked the author".to_owned());
    let message = Message { act: crate::message::Act::Resolve(id), author: None, note };
    regions[0].edit_with(&[set("/title", json!("two"))], message).unwrap();
    let change = regions[0].log.last().unwrap().clone();
    let mut again = regions[0].document.clone();
    again.apply(&[change], &Policies::default()).unwrap();
    exchange(&mut regions);
    let settled = regions[1].conflicts()[0].clone();
    assert_eq!(settled.state, ConflictState::Resolved);
    assert_eq!(settled.settled.unwrap().note.as_deref(), Some("asked the author"));
    assert_eq!(regions[1].json(), json!({"title": "two"}));
}

#[test]
fn a_deleted_document_is_gone_and_can_be_written_again() {
    let mut regions = pair(Policy::Auto);
    regions[0].set("/title", json!("one"));
    exchange(&mut regions);
    regions[1].delete();
    exchange(&mut regions);
    assert!(!regions[0].document.exists());
    regions[0].edit(&[]).unwrap();
    exchange(&mut regions);
    assert_eq!(regions[1].json(), json!({}));
    regions[1].set("/title", json!("again"));
    exchange(&mut regions);
    assert_eq!(regions[0].json(), json!({"title": "again"}));
}

/// Automerge's own way to write many fields at once puts them behind the operations of what was
/// inside deleted objects; then nothing showed, and no other replica took the change.
#[test]
fn a_deleted_document_with_objects_is_written_again_as_a_whole() {
    let mut regions = pair(Policy::Auto);
    regions[0].set("/list", json!([{"x": 1}])).set("/map", json!({"y": [2]})).delete();
    let again = json!({"list": [3], "other": {"z": 4}});
    let edits = edit::difference(&json!({}), &again);
    regions[0].edit(&edits).unwrap();
    assert_eq!(regions[0].json(), again);
    exchange(&mut regions);
    assert_eq!(regions[1].json(), again);
    let loaded = Document::load(&regions[0].document.save()).unwrap();
    assert_eq!(loaded.value(&regions[0].policies), Some(again));
}

#[test]
fn a_failed_edit_leaves_the_document_as_it_was() {
    let mut regions = pair(Policy::Auto);
    regions[0].set("/title", json!("one"));
    let before = regions[0].document.heads();
    let edits = [set("/title", json!("two")), set("/missing/deep", json!(1))];
    assert!(matches!(regions[0].edit(&edits), Err(EditError::Unfit(_))));
    assert_eq!(regions[0].document.heads(), before);
    assert_eq!(regions[0].json(), json!({"title": "one"}));
}

#[test]
fn changes_that_wait_for_others_are_reported_and_not_applied() {
    let mut regions = pair(Policy::Auto);
    regions[0].set("/a", json!(1)).set("/b", json!(2));
    let log = regions[0].log.clone();
    let applied = regions[1].document.apply(&log[1..], &Policies::default()).unwrap();
    assert_eq!((applied.new, applied.waiting), (vec![], vec![0]));
    regions[1].receive(&[log[1].clone(), log[0].clone()]);
    assert_eq!(regions[1].json(), json!({"a": 1, "b": 2}));
}
