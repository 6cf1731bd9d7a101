//! Settling many conflicts: what is under way at once, what is given up, what fails alone.

use anabranch_crdt::document::{Admitted, Author, Document as Replica};
use anabranch_crdt::message::Message;
use futures::TryStreamExt as _;

use super::*;

/// What two clients write into the same fields without hearing of each other.
fn sides(fields: &[&str]) -> Vec<Bytes> {
    let policies = Policies::default();
    let edit = |replica: &mut Replica, number: u8, value: &str| {
        let set = |field: &&str| Edit::Set {
            path: format!("/{field}").parse().unwrap(),
            value: json!(value),
        };
        let author = Author {
            origin: Origin::from_bytes([number; 16]),
            at: Timestamp(1_700_000_000_000_000 + u64::from(number)),
            message: Message::default(),
        };
        let edits: Vec<Edit> = fields.iter().map(set).collect();
        replica.edit(&edits, &author, &policies).unwrap().unwrap().bytes
    };
    let (mut one, mut other) = (Replica::new(), Replica::new());
    let start = edit(&mut one, 1, "start");
    let known = Admitted { change: start.clone(), at: Timestamp::MAX, by: None };
    other.apply(&[known], &policies).unwrap();
    vec![start, edit(&mut one, 1, "one"), edit(&mut other, 2, "other")]
}

fn every(choice: Choice) -> Bulk {
    let filter =
        ConflictFilter { state: Some(ConflictState::Open), limit: 10_000, ..Default::default() };
    Bulk { filter, choice, note: None, author: None, rehearsal: false }
}

async fn settle(node: &Fixture, bulk: Bulk) -> Vec<Settled> {
    node.documents.settle_all(bulk).try_collect().await.unwrap()
}

/// The owners' queues of the fixture are shorter than what is under way at once, and whoever goes
/// away in the middle leaves the rest as it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_dropped_settles_no_more() {
    let node = Fixture::new("us-east");
    let changes = sides(&["title"]);
    for number in 0..400 {
        node.documents.admit(at(&format!("notes/{number}")), changes.clone()).await.unwrap();
    }
    let mut settled = Box::pin(node.documents.settle_all(every(Choice::Latest)));
    let first = settled.try_next().await.unwrap().unwrap();
    assert_eq!((first.fate, first.value), (Fate::Done, Some(json!("other"))));
    drop(settled);
    let rest = settle(&node, every(Choice::Earliest)).await;
    assert!(rest.len() >= 100, "{} were left", rest.len());
    let done = rest.iter().filter(|one| one.fate == Fate::Done).count();
    assert!(done >= 100, "{done} of {} were done", rest.len());
    let by_others = |one: &Settled| matches!(&one.fate, Fate::Skipped(why) if why.contains("now"));
    let odd: Vec<_> = rest.iter().filter(|one| one.fate != Fate::Done && !by_others(one)).collect();
    assert!(odd.is_empty(), "{odd:#?}");
    assert!(node.open_conflicts().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_fails_alone() {
    let limits = Limits { document_bytes: 1_000, ..Limits::default() };
    let node = Fixture::open("us-east", tempfile::tempdir().unwrap(), limits);
    node.documents.admit(at("notes/a"), sides(&["x", "y", "z"])).await.unwrap();
    let long = json!("long ".repeat(120));
    let settled = settle(&node, every(Choice::Each(Settling::Value(long.clone())))).await;
    let fates = |wanted: fn(&Fate) -> bool| settled.iter().filter(|one| wanted(&one.fate)).count();
    assert_eq!(fates(|fate| *fate == Fate::Done), 1, "{settled:#?}");
    assert_eq!(fates(|fate| matches!(fate, Fate::Failed(_))), 2, "{settled:#?}");
    assert_eq!(node.open_conflicts().await.len(), 2);
    let fields = node.json("notes/a").await;
    assert_eq!(fields.as_object().unwrap().values().filter(|value| **value == long).count(), 1);
    let settled = settle(&node, every(Choice::Latest)).await;
    assert_eq!(settled.iter().filter(|one| one.fate == Fate::Done).count(), 2, "{settled:#?}");
    let node = node.restart("us-east").await;
    assert!(node.open_conflicts().await.is_empty());
}

/// Two regions edit different parts of an address, which counts as one value: one of the two
/// addresses is taken as a whole, or what both changed is merged.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_counts_as_one_value_is_settled_as_one() {
    let merged = json!({"street": "New Street", "town": "York", "zip": 1});
    let taken = json!({"street": "Old Street", "town": "York", "zip": 1});
    for (how, expected) in [(None, taken), (Some(Settling::Merge), merged)] {
        let (us, eu) = (Fixture::new("us-east"), Fixture::new("eu-west"));
        let start = json!({"street": "Old Street", "town": "Leeds", "zip": 1});
        us.put("homes/a", json!({"address": start})).await.unwrap();
        us.send_to(&eu).await;
        us.patch("homes/a", json!({"address": {"street": "New Street"}})).await.unwrap();
        eu.patch("homes/a", json!({"address": {"town": "York"}})).await.unwrap();
        us.send_to(&eu).await;
        eu.send_to(&us).await;
        us.json("homes/a").await;
        let [NamedConflict { conflict, .. }] = us.open_conflicts().await.try_into().unwrap();
        assert_eq!(
            (conflict.kind, conflict.path.to_string().as_str()),
            (ConflictKind::Whole, "/address")
        );
        let york = |candidate: &&anabranch_crdt::conflict::Candidate| {
            candidate.value.as_ref().is_some_and(|value| value["town"] == "York")
        };
        let york = conflict.candidates.iter().find(york).unwrap();
        let how = how.unwrap_or_else(|| Settling::Take(york.id.clone()));
        us.documents.settle(conflict.id, how, None, None, None).await.unwrap();
        assert_eq!(us.json("homes/a").await, json!({ "address": expected }));
        us.send_to(&eu).await;
        assert_eq!(eu.json("homes/a").await, json!({ "address": expected }));
        assert!(eu.open_conflicts().await.is_empty());
        let undo = us.documents.settle(conflict.id, Settling::Undo, None, None, None).await;
        let (undone, _) = undo.unwrap();
        assert_eq!(undone.conflict.state, ConflictState::Open);
    }
}
