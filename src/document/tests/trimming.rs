//! What goes from the journal is not missed: documents, ledgers and decisions stay what they are.

use anabranch_crdt::bundle::IdRange;
use anabranch_crdt::clock::{ClockOffset, MeasuredClock};
use anabranch_crdt::ids::DocumentKey;
use tokio::sync::watch;

use super::*;
use crate::replication::{ClusterView, MemberState, RegionView, views};
use crate::subscription::Changes;

fn limits() -> Limits {
    Limits { journal_keep: Duration::ZERO, ..Limits::default() }
}

fn fixture(region: &str, limits: Limits) -> Fixture {
    Fixture::open(region, tempfile::tempdir().unwrap(), limits)
}

fn view(of: &Fixture, region: &str, connected: bool) -> RegionView {
    let held = of.documents.position().vector.clone();
    RegionView { connected, ..views::region(region, MemberState::Active, held) }
}

/// Trims the journal of a node that knows these regions.
async fn trim(node: &Fixture, regions: Vec<RegionView>) -> u64 {
    let (_sender, cluster) = watch::channel(Arc::new(ClusterView { regions }));
    let trimmer = Trimmer::new(node.documents.clone(), cluster);
    trimmer.patience(Duration::ZERO).once().await.unwrap()
}

/// A document with more changes than two snapshots of it are large.
async fn write_much(node: &Fixture, name: &str) {
    node.put(name, json!({"title": "a", "n": 0})).await.unwrap();
    for number in 1..30 {
        node.patch(name, json!({"n": number})).await.unwrap();
    }
}

/// Everything that readers see of a node.
async fn all(node: &Fixture) -> Vec<(DocumentId, DocumentRow, Vec<(ConflictId, Bytes)>)> {
    let mut found = Vec::new();
    for (id, ..) in node.journal.digests(IdRange::all(), usize::MAX).unwrap() {
        node.documents.named(id).await.unwrap();
        let row = node.journal.row(id).unwrap().0.unwrap();
        found.push((id, row, node.journal.conflicts_of(id).unwrap()));
    }
    found
}

#[tokio::test]
async fn what_every_region_has_goes_and_nothing_is_missed() {
    let one = fixture("eu-west", limits());
    let other = fixture("us-east", limits());
    for number in 0..4 {
        write_much(&one, &format!("notes/{number}")).await;
    }
    one.put("notes/small", json!({"n": 1})).await.unwrap();
    one.put("latest/a", json!({"title": "one"})).await.unwrap();
    other.put("latest/a", json!({"title": "other"})).await.unwrap();
    other.put("notes/5", json!({"title": "other"})).await.unwrap();
    one.put("notes/5", json!({"title": "one"})).await.unwrap();
    one.send_to(&other).await;
    other.send_to(&one).await;
    assert_eq!(all(&other).await.len(), all(&one).await.len());
    one.send_to(&other).await;
    other.send_to(&one).await;
    let before = all(&one).await;
    assert_eq!(all(&other).await, before);

    let regions = || vec![view(&one, "eu-west", true), view(&other, "us-east", true)];
    assert_eq!(trim(&one, regions()).await, 0, "nobody has said what time it is");
    tell_time(&one);
    let dropped = trim(&one, regions()).await;
    assert!(dropped >= 120, "{dropped}");
    assert_eq!(one.journal.floors(), one.documents.position().vector);
    assert_eq!(trim(&one, regions()).await, 0, "once more does nothing");
    let figures = one.documents.journal_figures();
    assert_eq!((figures.entries, figures.bytes, figures.dropped_entries), (0, 0, dropped));
    assert!(one.journal.scrub().unwrap().is_clean());
    assert_eq!(all(&one).await, before);

    let one = one.restart("eu-west").await;
    assert_eq!(all(&one).await, before);
    one.patch("notes/1", json!({"n": "later"})).await.unwrap();
    one.patch("notes/small", json!({"n": "later"})).await.unwrap();
    // Both go on from where they are, by entries.
    one.send_to(&other).await;
    assert_eq!(all(&other).await, all(&one).await);
    assert!(one.journal.scrub().unwrap().is_clean());
}

/// Has the clock of a node judged by three others that agree with it.
fn tell_time(node: &Fixture) {
    let clock = MeasuredClock { offset: ClockOffset(0), round_trip: Duration::from_millis(1) };
    let peers = ["us-east", "ap-south", "sa-east"].map(|name| (name.parse().unwrap(), Some(clock)));
    node.clock.judge(&peers, Duration::from_secs(1));
    assert!(node.clock.judged().is_some());
}

#[tokio::test]
async fn a_region_that_lacks_entries_holds_them_back_until_they_are_too_old() {
    let one = fixture("eu-west", limits());
    let other = fixture("us-east", limits());
    tell_time(&one);
    write_much(&one, "notes/a").await;
    let own = || view(&one, "eu-west", true);
    assert_eq!(trim(&one, vec![own(), view(&other, "us-east", true)]).await, 0);
    assert_eq!(trim(&one, vec![own(), view(&other, "us-east", false)]).await, 0);
    assert_eq!(one.documents.journal_figures().left_behind, 0);

    let limits = Limits { journal_age: Duration::ZERO, ..limits() };
    let one = Fixture::open("eu-west", close(one).await, limits);
    tell_time(&one);
    let own = || view(&one, "eu-west", true);
    assert_eq!(trim(&one, vec![own(), view(&other, "us-east", true)]).await, 0, "it is there");
    assert!(trim(&one, vec![own(), view(&other, "us-east", false)]).await >= 30);
    assert_eq!(one.documents.journal_figures().left_behind, 1);
}

#[tokio::test]
async fn a_journal_that_is_too_large_waits_for_nobody_who_is_away() {
    let limits = Limits { journal_bytes: 2_000, ..Limits::default() };
    let (one, other) = (fixture("eu-west", limits), fixture("us-east", self::limits()));
    write_much(&one, "notes/a").await;
    let bytes = one.documents.journal_figures().bytes;
    assert!(bytes > 3_000, "{bytes}");
    let regions = vec![view(&one, "eu-west", true), view(&other, "us-east", false)];
    trim(&one, regions).await;
    let figures = one.documents.journal_figures();
    assert!(figures.bytes <= 2_000 && figures.entries > 5, "{figures:?}");
    let dropped = one.journal.floors().sequence(one.journal.origin()).0;
    assert!(dropped >= figures.dropped_entries && figures.dropped_entries > 0, "{figures:?}");
}

async fn close(mut node: Fixture) -> TempDir {
    node.documents.stop().await;
    node.owners.take().unwrap().join().unwrap();
    node.journal.close();
    node.directory.take().unwrap()
}

#[tokio::test]
async fn a_small_document_keeps_its_entry_below_the_floor() {
    let one = fixture("eu-west", limits());
    for number in 0..40 {
        one.put(&format!("notes/{number}"), json!({"n": number})).await.unwrap();
    }
    let regions = || vec![view(&one, "eu-west", true)];
    assert_eq!(trim(&one, regions()).await, 0, "two snapshots would take more room");
    assert_eq!(one.journal.floors(), one.documents.position().vector);
    for _ in 0..30 {
        one.documents
            .write(at("notes/7"), Write::MergePatch(json!({"n": null})), None, Precondition::None)
            .await
            .unwrap();
        one.patch("notes/7", json!({"n": 7})).await.unwrap();
    }
    assert!(trim(&one, regions()).await > 50);
    assert_eq!(one.json("notes/7").await, json!({"n": 7}));
    let listed = one.documents.list(&"notes".parse().unwrap(), "", None::<&DocumentKey>, 100).await;
    assert_eq!(listed.unwrap().len(), 40);
    assert!(one.journal.scrub().unwrap().is_clean());
}

/// A client whose token is too old once got no changes and no word about it.
#[tokio::test]
async fn a_feed_that_comes_too_late_hears_so() {
    let one = fixture("eu-west", limits());
    write_much(&one, "notes/a").await;
    let changes = Changes::new(one.journal.clone(), one.documents.clone());
    let mut early = changes.follow(Default::default());
    early.next().await.unwrap();
    trim(&one, vec![view(&one, "eu-west", true)]).await;
    let error = changes.check(&Default::default()).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Gone, "history_gone"));
    let late = changes.follow(Default::default()).next().await.unwrap_err();
    assert_eq!(late.code(), "history_gone");
    let position = one.documents.position().vector.clone();
    changes.check(&position).unwrap();
    let mut now = changes.follow(position);
    one.patch("notes/a", json!({"n": "new"})).await.unwrap();
    assert_eq!(now.next().await.unwrap().name, Some(at("notes/a")));
    // Who had read that page already misses nothing, and is told nothing.
    for _ in 0..30 {
        early.next().await.unwrap();
    }
}
