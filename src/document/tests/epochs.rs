//! Deleting, purging and compacting over real journals: regions exchange entries by hand.

use anabranch_crdt::document::{Carrying, ClosingKind};
use anabranch_crdt::message::Message;
use tokio::sync::watch;

use super::*;
use crate::document::epoch::Cleaner;
use crate::replication::{ClusterView, MemberState, RegionView, views};

const PATIENCE: Duration = Duration::from_millis(50);

impl Fixture {
    async fn delete(&self, name: &str) {
        let deleted = self.documents.write(at(name), Write::Delete, None, Precondition::None).await;
        deleted.unwrap();
    }

    async fn undelete(&self, name: &str) -> Result<Written, Error> {
        self.documents.undelete(at(name), None, None, Precondition::None).await
    }

    async fn compact(&self, name: &str) -> Result<Compacted, Error> {
        let ada = "ada".parse().ok();
        let note = Some("too long".to_owned());
        self.documents.compact(at(name), note, ada, Precondition::None, PATIENCE).await
    }

    async fn purge(&self, name: &str) -> Result<Written, Error> {
        self.documents.purge(at(name), None, None, PATIENCE).await
    }

    async fn increment(&self, name: &str, path: &str) {
        let edit = Edit::Increment { path: path.parse().unwrap(), by: 1 };
        let write = Write::Edits(vec![edit]);
        self.documents.write(at(name), write, None, Precondition::None).await.unwrap();
    }

    async fn late(&self, name: &str, epoch: usize) -> Vec<Carrying> {
        let epochs = self.documents.epochs(&at(name)).await.unwrap();
        epochs[epoch].late.iter().map(|late| late.carried.became.clone()).collect()
    }

    /// Tells the node which regions there are; each has what it has by itself.
    fn meet(&self, regions: &[(&Self, MemberState)]) -> watch::Sender<Arc<ClusterView>> {
        let view = |(node, state): &(&Self, MemberState)| {
            let held = node.journal.position().borrow().vector.clone();
            let origin = Some(node.journal.origin());
            RegionView { origin, ..views::region(node.documents.region().as_str(), *state, held) }
        };
        let regions = regions.iter().map(view).collect();
        let (sender, receiver) = watch::channel(Arc::new(ClusterView { regions }));
        self.documents.follow_cluster(receiver);
        sender
    }

    /// Lets the cleaner run to its end.
    async fn clean(&self, regions: &[(&Self, MemberState)]) {
        let view = self.meet(regions);
        let mut cleaner = Cleaner::new(self.documents.clone(), view.subscribe());
        for _ in 0..4 {
            cleaner.once().await.unwrap();
        }
    }
}

async fn exchange(one: &Fixture, other: &Fixture) {
    one.send_to(other).await;
    other.send_to(one).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_document_comes_back_as_it_was() {
    let node = Fixture::new("eu-west");
    assert_eq!(code(node.undelete("notes/a").await), "document_not_found");
    node.put("notes/a", json!({"title": "one", "n": 1})).await.unwrap();
    assert_eq!(code(node.undelete("notes/a").await), "not_deleted");
    node.delete("notes/a").await;
    let written = node.undelete("notes/a").await.unwrap();
    assert!(written.created);
    assert_eq!(node.json("notes/a").await, json!({"title": "one", "n": 1}));
    let page = node.documents.history(&at("notes/a"), None, None, None, 9).await.unwrap();
    assert_eq!(page.changes[0].message.act.to_string(), "undelete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_beats_older_edits_and_collides_with_concurrent_ones() {
    let (eu, us) = (Fixture::new("eu-west"), Fixture::new("us-east"));
    eu.put("notes/a", json!({"v": 1})).await.unwrap();
    eu.put("notes/b", json!({"v": 1, "w": 1})).await.unwrap();
    exchange(&eu, &us).await;
    eu.delete("notes/a").await;
    eu.delete("notes/b").await;
    us.patch("notes/b", json!({"v": 2})).await.unwrap();
    exchange(&eu, &us).await;
    for node in [&eu, &us] {
        assert_eq!(node.json("notes/a").await, Value::Null);
        let filter = ConflictFilter { limit: 9, ..ConflictFilter::default() };
        let rows = node.documents.conflicts(filter).await.unwrap().conflicts;
        assert!(rows.iter().any(|row| row.conflict.kind == ConflictKind::Document), "{rows:?}");
        assert!(rows.iter().all(|row| row.name == Some(at("notes/b"))));
        assert_eq!(node.json("notes/b").await, json!({"v": 2, "w": 1}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_document_starts_anew_and_keeps_its_archive() {
    let node = Fixture::new("eu-west");
    for n in 0..9 {
        node.put("notes/a", json!({"n": n, "list": [n]})).await.unwrap();
    }
    node.increment("notes/a", "/hits").await;
    let before = node.json("notes/a").await;
    let compacted = node.compact("notes/a").await.unwrap();
    assert_eq!(compacted.changes, 10);
    assert_eq!(node.json("notes/a").await, before);
    node.increment("notes/a", "/hits").await;
    node.patch("notes/a", json!({"n": "new"})).await.unwrap();
    let node = node.restart("eu-west").await;
    assert_eq!(node.json("notes/a").await, json!({"n": "new", "list": [8], "hits": 2}));
    let archived = node.documents.archived(&at("notes/a"), 0).await.unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&archived.json).unwrap(), before);
    let history = async |epoch| {
        let name = at("notes/a");
        node.documents.history(&name, epoch, None, None, 99).await.unwrap().changes
    };
    let (new, old) = (history(None).await, history(Some(0)).await);
    assert_eq!((new.len(), old.len()), (3, 11));
    let closing = old.iter().find(|change| change.message.act.to_string() == "compact").unwrap();
    assert_eq!(closing.message.note.as_deref(), Some("too long"));
    assert_eq!(new[2].message.author, "ada".parse().ok());
    let listed = node.documents.list(&"notes".parse().unwrap(), "", None, 9).await.unwrap();
    assert_eq!(listed.len(), 1, "the archive is not listed");
    let missing = node.documents.archived(&at("notes/a"), 2).await;
    assert_eq!(code(missing), "epoch_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_regions_follow_into_the_new_epoch_and_late_edits_are_merged_once() {
    let (eu, us) = (Fixture::new("eu-west"), Fixture::new("us-east"));
    eu.put("notes/a", json!({"title": "x", "n": 1})).await.unwrap();
    eu.increment("notes/a", "/hits").await;
    exchange(&eu, &us).await;
    // What us writes now comes after eu has closed the epoch.
    us.patch("notes/a", json!({"title": "late"})).await.unwrap();
    us.increment("notes/a", "/hits").await;
    eu.compact("notes/a").await.unwrap();
    eu.patch("notes/a", json!({"n": 2})).await.unwrap();
    eu.increment("notes/a", "/hits").await;
    eu.send_to(&us).await;
    let merged = json!({"title": "late", "n": 2, "hits": 3});
    assert_eq!(us.json("notes/a").await, merged, "the region that admitted them merges them");
    exchange(&eu, &us).await;
    assert_eq!(eu.json("notes/a").await, merged);
    let known = eu.late("notes/a", 0).await;
    assert!(known.len() == 2 && known.iter().all(|one| matches!(one, Carrying::Known(_))));
    let us = us.restart("us-east").await;
    exchange(&eu, &us).await;
    assert_eq!(us.json("notes/a").await, merged);
    assert!(eu.open_conflicts().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn late_edits_of_fields_written_since_are_in_the_ledger() {
    let (eu, us) = (Fixture::new("eu-west"), Fixture::new("us-east"));
    eu.put("notes/a", json!({"title": "x"})).await.unwrap();
    exchange(&eu, &us).await;
    us.patch("notes/a", json!({"title": "late"})).await.unwrap();
    eu.compact("notes/a").await.unwrap();
    eu.patch("notes/a", json!({"title": "new"})).await.unwrap();
    exchange(&eu, &us).await;
    assert_eq!(us.json("notes/a").await, us.json("notes/a").await);
    exchange(&eu, &us).await;
    for node in [&eu, &us] {
        let open = node.open_conflicts().await;
        assert_eq!(open.len(), 1);
        let mut values: Vec<_> =
            open[0].conflict.candidates.iter().map(|one| one.value.clone().unwrap()).collect();
        values.sort_by_key(Value::to_string);
        assert_eq!(values, [json!("late"), json!("new")]);
        let filter =
            ConflictFilter { document: Some(at("notes/a")), limit: 9, ..ConflictFilter::default() };
        assert_eq!(node.documents.conflicts(filter).await.unwrap().total, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compacting_waits_for_every_region_and_is_done_by_the_first() {
    let (eu, us) = (Fixture::new("eu-west"), Fixture::new("us-east"));
    eu.put("notes/a", json!({"v": 1})).await.unwrap();
    let _view = eu.meet(&[(&eu, MemberState::Active), (&us, MemberState::Active)]);
    let refused = eu.compact("notes/a").await.unwrap_err();
    assert_eq!(refused.code(), "not_everywhere");
    assert!(refused.to_string().contains("us-east"), "{refused}");
    exchange(&eu, &us).await;
    let _view = us.meet(&[(&us, MemberState::Active), (&eu, MemberState::Active)]);
    assert_eq!(code(us.compact("notes/a").await), "other_leader");
    let _view = eu.meet(&[(&eu, MemberState::Active), (&us, MemberState::Active)]);
    eu.compact("notes/a").await.unwrap();
    assert_eq!(code(eu.compact("notes/none").await), "document_not_found");
    assert_eq!(code(eu.compact("_collections/notes").await), "reserved_collection");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_with_open_conflicts_is_not_closed() {
    let (eu, us) = (Fixture::new("eu-west"), Fixture::new("us-east"));
    eu.put("notes/a", json!({"v": 1})).await.unwrap();
    exchange(&eu, &us).await;
    eu.patch("notes/a", json!({"v": 2})).await.unwrap();
    us.patch("notes/a", json!({"v": 3})).await.unwrap();
    exchange(&eu, &us).await;
    let open = eu.open_conflicts().await;
    let refused = eu.compact("notes/a").await.unwrap_err();
    assert_eq!(refused.code(), "open_conflicts");
    assert!(refused.to_string().contains(&open[0].conflict.id.to_string()), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn late_edits_of_a_forgotten_region_are_merged_by_the_first_that_counts() {
    let regions = ["eu-west", "us-east", "ap-south"].map(Fixture::new);
    let [eu, us, ap] = &regions;
    eu.put("notes/a", json!({"title": "x"})).await.unwrap();
    exchange(eu, us).await;
    exchange(eu, ap).await;
    ap.patch("notes/a", json!({"title": "late"})).await.unwrap();
    let members =
        [(eu, MemberState::Active), (us, MemberState::Active), (ap, MemberState::Forgotten)];
    let _views = [eu.meet(&members), us.meet(&members)];
    eu.compact("notes/a").await.unwrap();
    exchange(eu, us).await;
    ap.send_to(us).await;
    assert_eq!(us.json("notes/a").await, json!({"title": "x"}), "another region merges it");
    us.send_to(eu).await;
    assert_eq!(eu.late("notes/a", 0).await.len(), 1);
    assert_eq!(eu.json("notes/a").await, json!({"title": "late"}));
    exchange(eu, us).await;
    exchange(us, ap).await;
    for region in &regions {
        assert_eq!(region.json("notes/a").await, json!({"title": "late"}));
        assert!(matches!(region.late("notes/a", 0).await.as_slice(), [Carrying::Known(_)]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_offline_pushes_into_the_epoch_that_it_knows() {
    let node = Fixture::new("eu-west");
    node.put("notes/a", json!({"title": "x", "n": 1})).await.unwrap();
    let mut client = Replica::new();
    let known = node.documents.changes_since(at("notes/a"), Vec::new()).await.unwrap();
    let known: Vec<_> = known.into_iter().map(|change| admitted(change.bytes)).collect();
    client.apply(&known, &Policies::default()).unwrap();
    let origin = Origin(Uuid::new_v4());
    let author = Author { origin, at: Timestamp(1), message: Message::default() };
    let edit = Edit::Set { path: "/title".parse().unwrap(), value: json!("offline") };
    let change = client.edit(&[edit], &author, &Policies::default()).unwrap().unwrap();
    node.compact("notes/a").await.unwrap();
    node.patch("notes/a", json!({"n": 2})).await.unwrap();
    node.documents.admit(at("notes/a"), vec![change.bytes.clone()]).await.unwrap();
    let merged = json!({"title": "offline", "n": 2});
    assert_eq!(node.json("notes/a").await, merged);
    node.documents.admit(at("notes/a"), vec![change.bytes]).await.unwrap();
    assert_eq!(node.json("notes/a").await, merged, "a push that is repeated counts once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_needs_a_delete_and_leaves_nothing_but_a_tombstone() {
    let (eu, us) = (Fixture::new("eu-west"), Fixture::new("us-east"));
    eu.put("notes/a", json!({"secret": "word"})).await.unwrap();
    assert_eq!(code(eu.purge("notes/a").await), "not_deleted");
    assert_eq!(code(eu.purge("notes/none").await), "document_not_found");
    eu.delete("notes/a").await;
    let members = [(&eu, MemberState::Active), (&us, MemberState::Active)];
    let _view = eu.meet(&members);
    assert_eq!(code(eu.purge("notes/a").await), "not_everywhere");
    exchange(&eu, &us).await;
    let _view = eu.meet(&members);
    eu.purge("notes/a").await.unwrap();
    assert_eq!(code(eu.undelete("notes/a").await), "document_purged");
    assert_eq!(code(eu.purge("notes/a").await), "document_purged");
    eu.clean(&members).await;
    assert_eq!(eu.journal.epoch_counts().unwrap().emptied, 0, "us does not know of it yet");
    exchange(&eu, &us).await;
    assert_eq!(us.json("notes/a").await, Value::Null);
    for node in [&eu, &us] {
        node.clean(&members).await;
        let counts = node.journal.epoch_counts().unwrap();
        assert_eq!((counts.purged, counts.emptied), (1, 1));
        let kept = node.journal.entries(eu.journal.origin(), Sequence::ZERO, 99, usize::MAX);
        let holds = |entry: &Entry| entry.change.windows(4).any(|bytes| bytes == b"word");
        assert!(!kept.unwrap().iter().any(holds), "{}", node.documents.region());
    }
    let row = |node: &Fixture| {
        let id = DocumentId::from(&at("notes/a"));
        node.journal.row(id).unwrap().0.unwrap().digest
    };
    assert_eq!(row(&eu), row(&us));
    let eu = eu.restart("eu-west").await;
    eu.put("notes/a", json!({"new": true})).await.unwrap();
    exchange(&eu, &us).await;
    assert_eq!(us.json("notes/a").await, json!({"new": true}));
    assert!(eu.journal.scrub().unwrap().damaged.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_comes_late_learns_of_a_purge_from_what_is_left_in_the_log() {
    let (eu, us) = (Fixture::new("eu-west"), Fixture::new("us-east"));
    eu.put("notes/a", json!({"v": 1})).await.unwrap();
    eu.put("notes/b", json!({"v": 1})).await.unwrap();
    eu.delete("notes/a").await;
    eu.purge("notes/a").await.unwrap();
    eu.clean(&[(&eu, MemberState::Active)]).await;
    exchange(&eu, &us).await;
    assert_eq!(us.json("notes/a").await, Value::Null);
    assert_eq!(us.json("notes/b").await, json!({"v": 1}));
    us.put("notes/a", json!({"v": 2})).await.unwrap();
    exchange(&eu, &us).await;
    assert_eq!(eu.json("notes/a").await, json!({"v": 2}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_stayed_away_brings_nothing_back() {
    let (eu, ap) = (Fixture::new("eu-west"), Fixture::new("ap-south"));
    eu.put("notes/a", json!({"v": 1})).await.unwrap();
    exchange(&eu, &ap).await;
    ap.patch("notes/a", json!({"v": "stale"})).await.unwrap();
    eu.delete("notes/a").await;
    let members = [(&eu, MemberState::Active), (&ap, MemberState::Forgotten)];
    let _view = eu.meet(&members);
    eu.purge("notes/a").await.unwrap();
    eu.clean(&members).await;
    exchange(&eu, &ap).await;
    for node in [&eu, &ap] {
        assert_eq!(node.json("notes/a").await, Value::Null, "{}", node.documents.region());
    }
    let aside = eu.documents.set_aside(None, 9).await.unwrap();
    assert_eq!(aside.len(), 1);
    assert_eq!(aside[0].entry.origin, ap.journal.origin());
    assert_eq!(aside[0].name, Some(at("notes/a")));
    let late = ap.late("notes/a", 0).await;
    assert!(late.contains(&Carrying::Purged) && late.iter().all(|one| *one == Carrying::Purged));
    assert_eq!(ap.journal.epoch_counts().unwrap().late as usize, late.len());
    let eu = eu.restart("eu-west").await;
    assert_eq!(eu.json("notes/a").await, Value::Null);
    assert_eq!(eu.documents.set_aside(None, 9).await.unwrap(), aside);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_by_someone_who_knew_of_the_delete_is_a_new_document() {
    let (eu, us) = (Fixture::new("eu-west"), Fixture::new("us-east"));
    eu.put("notes/a", json!({"v": 1})).await.unwrap();
    eu.delete("notes/a").await;
    exchange(&eu, &us).await;
    // Both at once: us does not know of the purge, and knows of the delete.
    us.put("notes/a", json!({"v": "again"})).await.unwrap();
    eu.purge("notes/a").await.unwrap();
    exchange(&eu, &us).await;
    assert_eq!(us.json("notes/a").await, json!({"v": "again"}));
    exchange(&eu, &us).await;
    assert_eq!(eu.json("notes/a").await, json!({"v": "again"}));
    assert!(eu.documents.set_aside(None, 9).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_told_that_its_document_is_purged() {
    let node = Fixture::new("eu-west");
    node.put("notes/a", json!({"v": 1})).await.unwrap();
    let known = node.documents.changes_since(at("notes/a"), Vec::new()).await.unwrap();
    let mut client = Replica::new();
    let known: Vec<_> = known.into_iter().map(|change| admitted(change.bytes)).collect();
    client.apply(&known, &Policies::default()).unwrap();
    let origin = Origin(Uuid::new_v4());
    let author = Author { origin, at: Timestamp(1), message: Message::default() };
    let edit = Edit::Set { path: "/v".parse().unwrap(), value: json!("offline") };
    let change = client.edit(&[edit], &author, &Policies::default()).unwrap().unwrap().bytes;
    node.delete("notes/a").await;
    node.purge("notes/a").await.unwrap();
    let push = || node.documents.admit(at("notes/a"), vec![change.clone()]);
    assert_eq!(code(push().await), "document_purged");
    node.clean(&[(&node, MemberState::Active)]).await;
    assert_eq!(code(push().await), "document_purged");
    assert_eq!(node.json("notes/a").await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_long_ago_is_purged_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { purge_age: Duration::from_millis(200), ..Limits::default() };
    let node = Fixture::open("eu-west", directory, limits);
    node.put("notes/a", json!({"v": 1})).await.unwrap();
    node.put("notes/b", json!({"v": 1})).await.unwrap();
    node.delete("notes/a").await;
    let members = [(&node, MemberState::Active)];
    node.clean(&members).await;
    assert_eq!(node.journal.epoch_counts().unwrap().purged, 0, "it is not old enough");
    for n in 0..300 {
        node.patch("notes/b", json!({"v": n})).await.unwrap();
    }
    node.clean(&members).await;
    assert_eq!(node.journal.epoch_counts().unwrap().purged, 1);
    assert_eq!(node.json("notes/b").await, json!({"v": 299}));
    assert_eq!(code(node.undelete("notes/a").await), "document_purged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_decides_about_late_edits_as_if_they_had_been_in_time() {
    for late_is_latest in [true, false] {
        let (eu, us) = (Fixture::new("eu-west"), Fixture::new("us-east"));
        eu.put("latest/a", json!({"v": 0, "w": 0})).await.unwrap();
        exchange(&eu, &us).await;
        let [first, second] = if late_is_latest { [&eu, &us] } else { [&us, &eu] };
        first.patch("latest/a", json!({"v": "first"})).await.unwrap();
        second.patch("latest/a", json!({"v": "second"})).await.unwrap();
        eu.compact("latest/a").await.unwrap();
        eu.patch("latest/a", json!({"w": 1})).await.unwrap();
        for _ in 0..4 {
            exchange(&eu, &us).await;
            for node in [&eu, &us] {
                node.documents.epochs(&at("latest/a")).await.unwrap();
            }
        }
        let wanted = json!({"v": "second", "w": 1});
        assert_eq!(eu.json("latest/a").await, wanted, "late is latest: {late_is_latest}");
        assert_eq!(us.json("latest/a").await, wanted, "late is latest: {late_is_latest}");
        let rows = eu.documents.conflicts(ConflictFilter { limit: 9, ..Default::default() }).await;
        assert!(rows.unwrap().total > 0, "the value that lost is in the ledger");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_compacted_again_and_again() {
    let (eu, us) = (Fixture::new("eu-west"), Fixture::new("us-east"));
    eu.put("notes/a", json!({"v": 0})).await.unwrap();
    exchange(&eu, &us).await;
    us.patch("notes/a", json!({"late": true})).await.unwrap();
    for n in 1..4 {
        eu.patch("notes/a", json!({"v": n})).await.unwrap();
        eu.compact("notes/a").await.unwrap();
    }
    exchange(&eu, &us).await;
    assert_eq!(us.json("notes/a").await, json!({"v": 3, "late": true}));
    exchange(&eu, &us).await;
    assert_eq!(eu.json("notes/a").await, json!({"v": 3, "late": true}));
    let epochs = eu.documents.epochs(&at("notes/a")).await.unwrap();
    let kinds: Vec<_> = epochs.iter().map(|epoch| epoch.closed).collect();
    let compact = Some(ClosingKind::Compact);
    assert_eq!(kinds, [compact, compact, compact, None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_travel_whole_bring_their_epochs_along() {
    let (eu, us) = (Fixture::new("eu-west"), Fixture::new("us-east"));
    for name in ["notes/a", "notes/b", "notes/c"] {
        eu.put(name, json!({"v": name})).await.unwrap();
    }
    us.send_to(&eu).await;
    eu.compact("notes/a").await.unwrap();
    eu.patch("notes/a", json!({"w": 1})).await.unwrap();
    eu.delete("notes/b").await;
    eu.purge("notes/b").await.unwrap();
    eu.clean(&[(&eu, MemberState::Active)]).await;
    let digests =
        |node: &Fixture| node.journal.digests(anabranch_crdt::bundle::IdRange::all(), 99).unwrap();
    let mut bundles = Vec::new();
    for (id, ..) in digests(&eu) {
        bundles.push(eu.documents.export(id, Vec::new()).await.unwrap());
    }
    us.documents.adopt(bundles.clone()).await.unwrap();
    assert_eq!(us.json("notes/a").await, json!({"v": "notes/a", "w": 1}));
    assert_eq!(us.json("notes/b").await, Value::Null);
    assert_eq!(us.json("notes/c").await, json!({"v": "notes/c"}));
    assert_eq!(digests(&us), digests(&eu));
    let us = us.restart("us-east").await;
    assert_eq!(us.documents.newest(&at("notes/b")), eu.documents.newest(&at("notes/b")));
    // What another region has not purged yet does not come back by travelling.
    let ap = Fixture::new("ap-south");
    ap.put("notes/d", json!({"v": 1})).await.unwrap();
    let whole = ap.documents.export(DocumentId::from(&at("notes/d")), Vec::new()).await.unwrap();
    ap.delete("notes/d").await;
    ap.purge("notes/d").await.unwrap();
    ap.documents.adopt(vec![whole]).await.unwrap();
    assert_eq!(ap.json("notes/d").await, Value::Null);
    let tombstone = ap.documents.export(DocumentId::from(&at("notes/d")), Vec::new()).await;
    assert_eq!(tombstone.unwrap().changes.len(), 1);
}

fn admitted(change: Bytes) -> anabranch_crdt::document::Admitted {
    anabranch_crdt::document::Admitted { change, at: Timestamp::MAX, by: None }
}
