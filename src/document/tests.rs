//! The owners over real journals: what is answered is durable, what is refused leaves no trace,
//! and what other regions send is reflected by the next read.

mod bundles;
mod ledger;
mod settings;
mod settling;

use std::sync::atomic::{AtomicU64, Ordering};

use anabranch_crdt::document::{Author, Document as Replica};
use anabranch_crdt::entry::Entry;
use anabranch_crdt::ids::{ClusterId, Sequence, Timestamp};
use anabranch_crdt::policy::{Policies, Policy};
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::journal::{Commit, JournalOptions};
use crate::subscription::ConflictBell;

/// One node without network: owners over a journal in a temporary directory.
struct Fixture {
    directory: Option<TempDir>,
    journal: Journal,
    documents: Documents,
    owners: Option<Owners>,
    bell: ConflictBell,
    clock: NodeClock,
}

impl Fixture {
    fn new(region: &str) -> Self {
        Self::open(region, tempfile::tempdir().unwrap(), Limits::default())
    }

    fn open(region: &str, directory: TempDir, limits: Limits) -> Self {
        Self::timed(region, directory, limits, ticking())
    }

    fn timed(region: &str, directory: TempDir, limits: Limits, wall: WallClock) -> Self {
        let bell = ConflictBell::new();
        let rung = bell.clone();
        let (doorbell, queues) = owner_queues(2, 64);
        let lww = Policies::new(Policy::Lww, Vec::new(), Vec::new());
        let paths = json!({"/address": {"policy": "manual", "whole": true}});
        let whole = Policies::read(&json!({ "paths": paths })).unwrap();
        let seeds = [("latest".parse().unwrap(), lww), ("homes".parse().unwrap(), whole)];
        let collections = Collections::new(seeds);
        let heard = collections.clone();
        let leader: RegionName = region.parse().unwrap();
        let options = JournalOptions {
            cluster: ClusterId(Uuid::nil()),
            region: region.parse().unwrap(),
            cache_bytes: 1 << 20,
            new_origin: Box::new(move || Origin::of_region(&leader, *Uuid::new_v4().as_bytes())),
            publish: Box::new(move |batch| {
                heard.committed(batch);
                doorbell.committed(batch);
                rung.committed(batch);
            }),
        };
        let journal = Journal::open(directory.path(), options).unwrap();
        let region: RegionName = region.parse().unwrap();
        journal.name_origin(journal.identity().origin, &region);
        collections.load(&journal).unwrap();
        let setting = Setting {
            region,
            collections,
            limits,
            owners: 2,
            journal: journal.clone(),
            clock: NodeClock::new(wall, Timestamp(0), Duration::from_secs(1)),
        };
        let clock = setting.clock.clone();
        let (documents, owners) = Documents::start(setting, queues).unwrap();
        let (directory, owners) = (Some(directory), Some(owners));
        Self { directory, journal, documents, owners, bell, clock }
    }

    async fn restart(mut self, region: &str) -> Self {
        self.documents.stop().await;
        self.owners.take().unwrap().join().unwrap();
        self.journal.close();
        Self::open(region, self.directory.take().unwrap(), Limits::default())
    }

    async fn put(&self, name: &str, value: Value) -> Result<Written, Error> {
        self.documents.write(at(name), Write::Put(value), None, Precondition::None).await
    }

    async fn patch(&self, name: &str, patch: Value) -> Result<Written, Error> {
        self.documents.write(at(name), Write::MergePatch(patch), None, Precondition::None).await
    }

    async fn json(&self, name: &str) -> Value {
        let document = self.documents.read(&at(name)).await.unwrap();
        document.map_or(Value::Null, |document| serde_json::from_slice(&document.json).unwrap())
    }

    async fn open_conflicts(&self) -> Vec<NamedConflict> {
        let filter =
            ConflictFilter { state: Some(ConflictState::Open), limit: 100, ..Default::default() };
        self.documents.conflicts(filter).await.unwrap().conflicts
    }

    /// Sends every entry that `other` lacks, as replication would.
    async fn send_to(&self, other: &Self) {
        let own = self.journal.position().borrow().vector.clone();
        for dot in own.iter() {
            let after = other.journal.position().borrow().vector.sequence(dot.origin);
            let entries = self.journal.entries(dot.origin, after, 10_000, usize::MAX).unwrap();
            if let Some(region) = self.journal.region_of(dot.origin) {
                other.journal.name_origin(dot.origin, &region);
            }
            other.append(entries).await;
        }
    }

    async fn append(&self, entries: Vec<Entry>) {
        let (done, durable) = oneshot::channel();
        let commit = Commit::of_entries(entries, move |outcome| {
            done.send(outcome.is_ok()).expect("the test waits");
        });
        self.journal.submit(commit).await.unwrap();
        assert!(durable.await.unwrap());
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.journal.close();
    }
}

/// One wall clock for all regions, which moves a millisecond each time it is read.
fn ticking() -> WallClock {
    static NOW: AtomicU64 = AtomicU64::new(1_700_000_000_000_000);
    Arc::new(move || Timestamp(NOW.fetch_add(1_000, Ordering::Relaxed)))
}

fn at(name: &str) -> DocumentName {
    name.parse().unwrap()
}

fn code<T: fmt::Debug>(outcome: Result<T, Error>) -> &'static str {
    outcome.unwrap_err().code()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_read_back_also_after_a_restart() {
    let node = Fixture::new("us-east");
    let value = json!({"title": "one", "n": 1.5, "list": [1, {"a": null}], "deep": {"x": true}});
    let written = node.put("notes/a", value.clone()).await.unwrap();
    assert!(written.created);
    let again = node.put("notes/a", value.clone()).await.unwrap();
    assert!(!again.created);
    assert_eq!(again.document, written.document, "writing the same again changes nothing");
    node.patch("notes/a", json!({"title": "two"})).await.unwrap();
    let node = node.restart("us-east").await;
    let mut expected = value;
    expected["title"] = json!("two");
    assert_eq!(node.json("notes/a").await, expected);
    let deleted =
        node.documents.write(at("notes/a"), Write::Delete, None, Precondition::None).await;
    assert_eq!(deleted.unwrap().document, None);
    assert_eq!(node.json("notes/a").await, Value::Null);
    assert_eq!(code(node.patch("notes/a", json!({"title": "x"})).await), "document_not_found");
    assert!(node.put("notes/a", json!({})).await.unwrap().created);
    assert_eq!(node.json("notes/a").await, json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn preconditions_hold_writers_apart() {
    let node = Fixture::new("us-east");
    let create = || Precondition::NoneMatch(Vec::new());
    let name = at("notes/a");
    let put =
        |value, condition| node.documents.write(name.clone(), Write::Put(value), None, condition);
    let first = put(json!({"v": 1}), create()).await.unwrap().document.unwrap();
    assert_eq!(code(put(json!({"v": 2}), create()).await), "precondition_failed");
    let held = Precondition::Match(vec![first.digest]);
    put(json!({"v": 2}), held.clone()).await.unwrap();
    assert_eq!(code(put(json!({"v": 3}), held).await), "precondition_failed");
    assert_eq!(node.json("notes/a").await, json!({"v": 2}));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_enforced_and_leave_the_document_as_it_was() {
    let limits = Limits { document_bytes: 200, nesting: 3, ..Limits::default() };
    let node = Fixture::open("us-east", tempfile::tempdir().unwrap(), limits);
    node.put("notes/a", json!({"v": "x"})).await.unwrap();
    let large = json!({"large": "x".repeat(300)});
    assert_eq!(code(node.patch("notes/a", large).await), "document_too_large");
    let deep = json!({"a": {"b": {"c": {"d": 1}}}});
    assert_eq!(code(node.patch("notes/a", deep).await), "too_deep");
    let edits = Write::Edits(vec![Edit::Remove { path: "/nope".parse().unwrap() }]);
    let unfit = node.documents.write(at("notes/a"), edits, None, Precondition::None).await;
    assert_eq!(code(unfit), "unfit_edit");
    assert_eq!(code(node.put("notes/a", json!([1])).await), "not_an_object");
    assert_eq!(node.json("notes/a").await, json!({"v": "x"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_regions_become_equal_and_list_what_collided() {
    let (us, eu) = (Fixture::new("us-east"), Fixture::new("eu-west"));
    us.put("notes/a", json!({"title": "one", "tags": []})).await.unwrap();
    us.put("latest/a", json!({"title": "one"})).await.unwrap();
    us.send_to(&eu).await;
    let listed = eu.documents.list(&"notes".parse().unwrap(), "", None, 10).await.unwrap();
    assert_eq!(listed.len(), 1, "a listing shows what a read would");
    assert_eq!(eu.documents.count(&"notes".parse().unwrap(), "").await.unwrap(), 1);
    assert_eq!(eu.documents.count(&"notes".parse().unwrap(), "b").await.unwrap(), 0);
    assert_eq!(eu.json("notes/a").await, json!({"title": "one", "tags": []}));
    us.patch("notes/a", json!({"title": "from us"})).await.unwrap();
    eu.patch("notes/a", json!({"title": "from eu", "only": "eu"})).await.unwrap();
    us.patch("latest/a", json!({"title": "earlier"})).await.unwrap();
    eu.patch("latest/a", json!({"title": "x"})).await.unwrap();
    eu.patch("latest/a", json!({"title": "later"})).await.unwrap();
    for _ in 0..3 {
        us.send_to(&eu).await;
        eu.send_to(&us).await;
        for node in [&us, &eu] {
            node.json("notes/a").await;
            node.json("latest/a").await;
        }
    }
    assert_eq!(us.json("notes/a").await, eu.json("notes/a").await);
    assert_eq!(us.json("latest/a").await, json!({"title": "later"}));
    assert_eq!(eu.json("latest/a").await, json!({"title": "later"}));
    let (seen_us, seen_eu) = (us.open_conflicts().await, eu.open_conflicts().await);
    assert_eq!(seen_us, seen_eu);
    let [conflict] = seen_us.as_slice() else { panic!("one is open: {seen_us:#?}") };
    assert_eq!(conflict.name, Some(at("notes/a")));
    assert_eq!(us.documents.read(&at("notes/a")).await.unwrap().unwrap().conflicts, 1);

    let id = conflict.conflict.id;
    let wrong = Settling::Take("nobody".into());
    assert_eq!(code(us.documents.settle(id, wrong, None, None, None).await), "unknown_candidate");
    let take = conflict.conflict.candidates[0].clone();
    let note = Some("agreed on the phone".to_owned());
    let resolved = us.documents.settle(id, Settling::Take(take.id), None, note.clone(), None).await;
    let (resolved, _) = resolved.unwrap();
    assert_eq!(resolved.conflict.state, ConflictState::Resolved);
    let twice = us.documents.settle(id, Settling::Value(json!(1)), None, None, None).await;
    assert_eq!(code(twice), "already_resolved");
    us.send_to(&eu).await;
    assert_eq!(eu.json("notes/a").await["title"], take.value.unwrap());
    assert!(eu.open_conflicts().await.is_empty());
    let settled = eu.documents.conflict(id).await.unwrap().conflict.settled.unwrap();
    assert_eq!(settled.note, note);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_history_is_saved_as_a_snapshot_and_loads_back() {
    let node = Fixture::new("us-east");
    node.put("notes/a", json!({"n": 0})).await.unwrap();
    for n in 1..200 {
        node.patch("notes/a", json!({"n": n})).await.unwrap();
    }
    let id = DocumentId::from(&at("notes/a"));
    let stored = node.journal.load(id).unwrap();
    assert!(stored.snapshot.is_some() && stored.tail.len() < 150, "{}", stored.tail.len());
    let node = node.restart("us-east").await;
    node.patch("notes/a", json!({"last": true})).await.unwrap();
    assert_eq!(node.json("notes/a").await, json!({"n": 199, "last": true}));
    assert!(node.journal.scrub().unwrap().is_clean());
}

/// Nothing is left to write then; once only the region that was asked heard of the decision.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_for_what_shows_already_is_heard_of_everywhere() {
    let (us, eu) = (Fixture::new("us-east"), Fixture::new("eu-west"));
    us.put("latest/a", json!({"gone": 1, "kept": 1})).await.unwrap();
    us.send_to(&eu).await;
    eu.patch("latest/a", json!({"gone": 2, "kept": 2})).await.unwrap();
    us.patch("latest/a", json!({"gone": null, "kept": 3})).await.unwrap();
    for _ in 0..2 {
        us.send_to(&eu).await;
        eu.send_to(&us).await;
        assert_eq!(us.json("latest/a").await, eu.json("latest/a").await);
    }
    assert_eq!(us.json("latest/a").await, json!({"kept": 3}));
    let filter = ConflictFilter { limit: 10, ..Default::default() };
    let found = us.documents.conflicts(filter.clone()).await.unwrap().conflicts;
    assert_eq!(found.len(), 2);
    for NamedConflict { conflict, .. } in found {
        assert_eq!(conflict.state, ConflictState::AutoResolved);
        let take = Settling::Take(conflict.candidates[conflict.winner.unwrap()].id.clone());
        us.documents.settle(conflict.id, take, None, None, None).await.unwrap();
    }
    us.send_to(&eu).await;
    for node in [&us, &eu] {
        assert_eq!(node.json("latest/a").await, json!({"kept": 3}));
        let settled = node.documents.conflicts(filter.clone()).await.unwrap().conflicts;
        assert!(settled.iter().all(|named| named.conflict.state == ConflictState::Resolved));
    }
    assert_eq!(
        us.documents.conflicts(filter.clone()).await.unwrap(),
        eu.documents.conflicts(filter).await.unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_separation_is_caught_up_in_batches() {
    let (us, eu) = (Fixture::new("us-east"), Fixture::new("eu-west"));
    us.put("notes/a", json!({"us": 0, "eu": 0, "both": 0})).await.unwrap();
    us.send_to(&eu).await;
    for n in 1..=700 {
        us.patch("notes/a", json!({"us": n})).await.unwrap();
        if n % 7 == 0 {
            eu.patch("notes/a", json!({"eu": n, "both": n})).await.unwrap();
        }
    }
    us.patch("notes/a", json!({"both": "us"})).await.unwrap();
    us.send_to(&eu).await;
    eu.send_to(&us).await;
    let (seen_us, seen_eu) = (us.json("notes/a").await, eu.json("notes/a").await);
    assert_eq!(seen_us, seen_eu);
    assert_eq!((&seen_us["us"], &seen_us["eu"]), (&json!(700), &json!(700)));
    let conflicts = us.open_conflicts().await;
    assert_eq!(conflicts, eu.open_conflicts().await);
    let [conflict] = conflicts.as_slice() else { panic!("one field collided: {conflicts:#?}") };
    let values: Vec<_> = conflict.conflict.candidates.iter().map(|c| c.value.clone()).collect();
    assert_eq!(values.len(), 2);
    assert!(values.contains(&Some(json!("us"))) && values.contains(&Some(json!(700))));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_cannot_be_applied_is_set_aside_and_everything_else_goes_on() {
    let node = Fixture::new("us-east");
    let origin = Origin(Uuid::new_v4());
    let name = at("notes/a");
    let mut replica = Replica::new();
    let author = |at| Author {
        origin,
        at: Timestamp(at),
        message: anabranch_crdt::message::Message::default(),
    };
    let edit = |text: &str| [Edit::Set { path: "/t".parse().unwrap(), value: json!(text) }];
    let policies = Policies::default();
    let one = replica.edit(&edit("one"), &author(1), &policies).unwrap().unwrap();
    let two = replica.edit(&edit("two"), &author(2), &policies).unwrap().unwrap();
    let three = replica.edit(&edit("three"), &author(3), &policies).unwrap().unwrap();
    let entry = |sequence, name: Option<&DocumentName>, change: &Bytes| Entry {
        origin,
        sequence: Sequence(sequence),
        document: DocumentId::from(&at("notes/a")),
        name: name.cloned(),
        admitted: Timestamp(sequence),
        change: change.clone(),
    };
    let noise = Bytes::from_static(b"this is no change");
    let entries = vec![entry(1, Some(&name), &one.bytes), entry(2, None, &noise)];
    node.append(entries).await;
    assert_eq!(node.json("notes/a").await, json!({"t": "one"}));
    node.append(vec![entry(3, None, &three.bytes)]).await;
    assert_eq!(node.json("notes/a").await, json!({"t": "one"}), "it waits for the one before");
    node.append(vec![entry(4, None, &two.bytes)]).await;
    assert_eq!(node.json("notes/a").await, json!({"t": "three"}));
    node.patch("notes/a", json!({"u": 1})).await.unwrap();
    let node = node.restart("us-east").await;
    assert_eq!(node.json("notes/a").await, json!({"t": "three", "u": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_a_client_are_admitted_once_and_checked() {
    let node = Fixture::new("us-east");
    node.put("notes/a", json!({"title": "one"})).await.unwrap();
    let known = node.documents.changes_since(at("notes/a"), Vec::new()).await.unwrap();
    let mut replica = Replica::new();
    let admitted = |change: &Change| anabranch_crdt::document::Admitted {
        by: None,
        change: change.bytes.clone(),
        at: Timestamp::MAX,
    };
    replica.apply(&known.iter().map(admitted).collect::<Vec<_>>(), &Policies::default()).unwrap();
    let edits = [Edit::Set { path: "/title".parse().unwrap(), value: json!("offline") }];
    let write = |replica: &mut Replica, origin| {
        let author = Author {
            origin,
            at: Timestamp(1_700_000_000_000_001),
            message: anabranch_crdt::message::Message::default(),
        };
        replica.edit(&edits, &author, &Policies::default()).unwrap().unwrap().bytes
    };
    let forged = write(&mut replica.clone(), node.journal.identity().origin);
    let refused = node.documents.admit(at("notes/a"), vec![forged]).await;
    assert_eq!(code(refused), "change_refused");
    let change = write(&mut replica, Origin(Uuid::new_v4()));
    let cut = change.slice(..change.len() - 1);
    assert_eq!(code(node.documents.admit(at("notes/a"), vec![cut]).await), "change_refused");
    let elsewhere = node.documents.admit(at("notes/b"), vec![change.clone()]).await;
    assert_eq!(code(elsewhere), "change_waits", "what it depends on is not there");
    let first = node.documents.admit(at("notes/a"), vec![change.clone()]).await.unwrap();
    let second = node.documents.admit(at("notes/a"), vec![change]).await.unwrap();
    assert_eq!(first, second);
    assert_eq!(node.json("notes/a").await, json!({"title": "offline"}));
}

/// Two clients change one field while they are offline, one with a clock that is 31 years ahead:
/// its change counts as made when it was admitted, so it does not win over what came after that.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_future_wins_nothing_after_its_admission() {
    let node = Fixture::new("us-east");
    let name = at("latest/a");
    node.put("latest/a", json!({"title": "one"})).await.unwrap();
    let known = node.documents.changes_since(name.clone(), Vec::new()).await.unwrap();
    let admitted = |change: &Change| anabranch_crdt::document::Admitted {
        by: None,
        change: change.bytes.clone(),
        at: Timestamp::MAX,
    };
    let offline = |title: &str, claimed: u64| {
        let mut replica = Replica::new();
        let known: Vec<_> = known.iter().map(admitted).collect();
        replica.apply(&known, &Policies::default()).unwrap();
        let edits = [Edit::Set { path: "/title".parse().unwrap(), value: json!(title) }];
        let message = anabranch_crdt::message::Message::default();
        let author = Author { origin: Origin(Uuid::new_v4()), at: Timestamp(claimed), message };
        replica.edit(&edits, &author, &Policies::default()).unwrap().unwrap().bytes
    };
    let future = offline("future", 2_700_000_000_000_000);
    node.documents.admit(name.clone(), vec![future]).await.unwrap();
    assert_eq!(node.clock.status().clamped, 1);
    let now = node.clock.tick().0;
    node.documents.admit(name, vec![offline("later", now)]).await.unwrap();
    assert_eq!(node.clock.status().clamped, 1);
    assert_eq!(node.json("latest/a").await, json!({"title": "later"}));
}
