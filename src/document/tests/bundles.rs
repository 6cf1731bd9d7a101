//! Documents that travel whole: what comes of them is what entries would have led to.

use anabranch_crdt::bundle::{Bundle, IdRange};

use super::*;

/// Everything that a node has, document by document.
async fn all(from: &Fixture) -> Vec<Bundle> {
    let mut bundles = Vec::new();
    for (id, ..) in from.journal.digests(IdRange::all(), usize::MAX).unwrap() {
        bundles.push(from.documents.export(id, Vec::new()).await.unwrap());
    }
    bundles
}

/// Gives `to` every document of `from`, and says that it has everything now.
async fn give_all(from: &Fixture, to: &Fixture) {
    let vector = from.documents.position().vector.clone();
    for (origin, region) in from.journal.origins() {
        region.iter().for_each(|region| to.journal.name_origin(origin, region));
    }
    let adopted = to.documents.adopt(all(from).await).await.unwrap();
    assert!(adopted.iter().all(|adopted| *adopted == Adopted::Whole), "{adopted:?}");
    let journal = to.journal.clone();
    tokio::task::spawn_blocking(move || journal.raise(vector)).await.unwrap().unwrap();
}

/// Checks that two nodes show the same documents with the same conflicts.
async fn check_equal(one: &Fixture, other: &Fixture) {
    for of in [one, other] {
        // Reading a document applies what waits.
        for (id, ..) in of.journal.digests(IdRange::all(), usize::MAX).unwrap() {
            of.documents.named(id).await.unwrap();
        }
    }
    let documents = |of: &Fixture| of.journal.digests(IdRange::all(), usize::MAX).unwrap();
    let (here, there) = (documents(one), documents(other));
    assert_eq!(here, there);
    for (id, ..) in here {
        assert_eq!(one.journal.row(id).unwrap(), other.journal.row(id).unwrap());
        let conflicts = |of: &Fixture| of.journal.conflicts_of(id).unwrap();
        assert_eq!(conflicts(one), conflicts(other), "the ledgers differ");
        assert_eq!(
            one.journal.document_dots(id).unwrap(),
            other.journal.document_dots(id).unwrap()
        );
    }
}

#[tokio::test]
async fn a_region_that_is_given_documents_is_equal_and_goes_on() {
    let (one, other) = (Fixture::new("eu-west"), Fixture::new("us-east"));
    for number in 0..20 {
        one.put(&format!("notes/{number}"), json!({"n": number})).await.unwrap();
    }
    one.documents.write(at("notes/3"), Write::Delete, None, Precondition::None).await.unwrap();
    one.send_to(&other).await;
    one.put("latest/a", json!({"title": "one"})).await.unwrap();
    other.put("latest/a", json!({"title": "other"})).await.unwrap();
    other.patch("notes/4", json!({"n": "other"})).await.unwrap();
    one.patch("notes/4", json!({"n": "one"})).await.unwrap();
    other.send_to(&one).await;
    assert_eq!(one.open_conflicts().await.len(), 1);

    let late = Fixture::new("ap-south");
    give_all(&one, &late).await;
    check_equal(&one, &late).await;
    assert_eq!(late.documents.position().vector, one.documents.position().vector);
    // The same bundles once more change nothing.
    give_all(&one, &late).await;
    check_equal(&one, &late).await;
    assert!(late.journal.scrub().unwrap().is_clean());

    one.patch("notes/7", json!({"later": true})).await.unwrap();
    one.send_to(&late).await;
    assert_eq!(late.json("notes/7").await, json!({"n": 7, "later": true}));
    late.patch("notes/7", json!({"late": true})).await.unwrap();
    late.send_to(&one).await;
    check_equal(&one, &late).await;
    let late = late.restart("ap-south").await;
    assert_eq!(late.json("notes/7").await, json!({"n": 7, "later": true, "late": true}));
    check_equal(&one, &late).await;
}

#[tokio::test]
async fn what_builds_on_changes_that_are_not_here_waits() {
    let (one, other) = (Fixture::new("eu-west"), Fixture::new("us-east"));
    one.put("notes/a", json!({"n": 1})).await.unwrap();
    let id = DocumentId::from(&at("notes/a"));
    let first = one.documents.heads(id).await.unwrap();
    one.patch("notes/a", json!({"n": 2})).await.unwrap();
    let second = one.documents.export(id, first.clone()).await.unwrap();
    assert_eq!(second.changes.len(), 1);
    let adopted = other.documents.adopt(vec![second.clone()]).await.unwrap();
    assert_eq!(adopted, [Adopted::Waiting(first.clone())]);
    assert_eq!(other.journal.row(id).unwrap(), (None, false));

    let whole = one.documents.export(id, Vec::new()).await.unwrap();
    let begin = Bundle { changes: whole.changes[..1].to_vec(), ..whole };
    let adopted = other.documents.adopt(vec![begin, second]).await.unwrap();
    assert_eq!(adopted, [Adopted::Partial(first), Adopted::Whole]);
    assert_eq!(other.json("notes/a").await, json!({"n": 2}));
    assert_eq!(other.journal.document_dots(id).unwrap(), one.journal.document_dots(id).unwrap());
}

#[tokio::test]
async fn bytes_that_are_no_change_are_refused_alone() {
    let (one, other) = (Fixture::new("eu-west"), Fixture::new("us-east"));
    one.put("notes/a", json!({"n": 1})).await.unwrap();
    one.put("notes/b", json!({"n": 2})).await.unwrap();
    let mut bundles = Vec::new();
    for name in ["notes/a", "notes/b"] {
        let id = DocumentId::from(&at(name));
        bundles.push(one.documents.export(id, Vec::new()).await.unwrap());
    }
    bundles[0].changes[0].change = Bytes::from_static(b"no change");
    let adopted = other.documents.adopt(bundles).await.unwrap();
    assert!(matches!(adopted.as_slice(), [Adopted::Refused(_), Adopted::Whole]), "{adopted:?}");
    assert_eq!(other.json("notes/a").await, Value::Null);
    assert_eq!(other.json("notes/b").await, json!({"n": 2}));
}

/// Entries below the vector of a bootstrap never come; those above may tell of changes that came
/// in a bundle already.
#[tokio::test]
async fn an_entry_of_a_change_that_came_in_a_bundle_is_settled() {
    let (one, late) = (Fixture::new("eu-west"), Fixture::new("ap-south"));
    one.put("notes/a", json!({"n": 1})).await.unwrap();
    let before = one.documents.position().vector.clone();
    one.patch("notes/a", json!({"n": 2})).await.unwrap();
    late.documents.adopt(all(&one).await).await.unwrap();
    let journal = late.journal.clone();
    tokio::task::spawn_blocking(move || journal.raise(before)).await.unwrap().unwrap();
    let row = late.journal.row(DocumentId::from(&at("notes/a"))).unwrap().0;
    one.send_to(&late).await;
    assert_eq!(late.json("notes/a").await, json!({"n": 2}));
    let id = DocumentId::from(&at("notes/a"));
    assert_eq!(late.journal.row(id).unwrap(), (row, false));
    check_equal(&one, &late).await;
    assert!(late.journal.scrub().unwrap().is_clean());
}

#[tokio::test]
async fn a_large_document_comes_in_parts() {
    let limits = || Limits { frame_bytes: 4_096, ..Limits::default() };
    let directory = || tempfile::tempdir().unwrap();
    let one = Fixture::open("eu-west", directory(), limits());
    let other = Fixture::open("us-east", directory(), limits());
    for number in 0..40 {
        let value = json!({"n": number, "text": format!("{number:0200}")});
        one.put("notes/a", value).await.unwrap();
    }
    let id = DocumentId::from(&at("notes/a"));
    let mut parts = 0;
    loop {
        let have = other.documents.heads(id).await.unwrap();
        let bundle = one.documents.export(id, have).await.unwrap();
        parts += 1;
        let adopted = other.documents.adopt(vec![bundle]).await.unwrap();
        match adopted.as_slice() {
            [Adopted::Whole] => break,
            [Adopted::Partial(_)] => assert!(other.journal.document_dots(id).unwrap().is_empty()),
            other => panic!("{other:?}"),
        }
    }
    assert!(parts > 3, "{parts}");
    check_equal(&one, &other).await;
}
