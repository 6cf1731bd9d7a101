//! While it is not settled under whom a leader admits changes: it answers reads, and nothing more;
//! what it has to admit by its policies it admits afterwards.

use tokio::task::JoinSet;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn reads_go_on_writes_wait_and_resolutions_follow() {
    let (us, eu) = (Fixture::new("us-east"), Fixture::new("eu-west"));
    us.put("latest/a", json!({"title": "one"})).await.unwrap();
    us.send_to(&eu).await;
    eu.json("latest/a").await;
    us.patch("latest/a", json!({"title": "earlier"})).await.unwrap();
    eu.patch("latest/a", json!({"title": "x"})).await.unwrap();
    eu.patch("latest/a", json!({"title": "later"})).await.unwrap();

    us.journal.hold();
    let own = us.journal.origin();
    let admitted = || us.journal.position().borrow().vector.sequence(own);
    let before = admitted();
    eu.send_to(&us).await;
    assert_eq!(us.json("latest/a").await, json!({"title": "later"}));
    let waits = us.patch("latest/b", json!({"n": 1}));
    assert!(futures::poll!(Box::pin(waits)).is_pending());
    let id = DocumentId::from(&at("latest/a"));
    assert_eq!(us.documents.changes_since(at("latest/a"), vec![]).await.unwrap().len(), 4);
    assert_eq!((admitted(), us.journal.row(id).unwrap().1), (before, true), "nothing is stored");

    let mut looking = JoinSet::new();
    looking.spawn(us.documents.clone().look_when_settled());
    us.journal.settle();
    us.put("latest/c", json!({})).await.unwrap();
    // Its owner looks it up before anything that is asked of it later.
    let mut position = us.journal.position();
    position.wait_for(|_| !us.journal.row(id).unwrap().1).await.unwrap();
    assert!(admitted().0 > before.0 + 1, "the resolution is admitted, too");
    assert_eq!(us.json("latest/a").await, json!({"title": "later"}));
}
