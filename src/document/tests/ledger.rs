//! The ledger over real documents: what is listed, told and dropped.

use crate::subscription::{ConflictEvent, Conflicts};

use super::*;

const START: u64 = 1_800_000_000_000_000;
const HOUR: u64 = 3_600_000_000;

/// A clock that a test sets; it moves a microsecond each time it is read.
fn set_clock() -> (Arc<AtomicU64>, WallClock) {
    let now = Arc::new(AtomicU64::new(START));
    let read = Arc::clone(&now);
    (now, Arc::new(move || Timestamp(read.fetch_add(1, Ordering::Relaxed))))
}

fn timed(region: &str, limits: Limits, wall: &WallClock) -> Fixture {
    Fixture::timed(region, tempfile::tempdir().unwrap(), limits, Arc::clone(wall))
}

fn everything() -> ConflictFilter {
    ConflictFilter { limit: 100, ..Default::default() }
}

async fn paths(node: &Fixture, filter: ConflictFilter) -> Vec<String> {
    let page = node.documents.conflicts(filter).await.unwrap();
    assert_eq!(page.total, page.conflicts.len() as u64);
    let name = |named: &NamedConflict| named.name.as_ref().unwrap().to_string();
    let conflicts = page.conflicts.iter();
    conflicts.map(|named| format!("{}{}", name(named), named.conflict.path)).collect()
}

/// Two regions write different values into the same fields at once.
async fn collide(us: &Fixture, eu: &Fixture, name: &str, fields: &[&str]) {
    us.put(name, json!({})).await.unwrap();
    us.send_to(eu).await;
    for field in fields {
        us.patch(name, json!({ *field: "us" })).await.unwrap();
        eu.patch(name, json!({ *field: "eu" })).await.unwrap();
    }
    us.send_to(eu).await;
    eu.send_to(us).await;
    us.json(name).await;
    eu.json(name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_listed_newest_first_and_counted_exactly() {
    let (us, eu) = (Fixture::new("us-east"), Fixture::new("eu-west"));
    collide(&us, &eu, "notes/a", &["x", "y"]).await;
    collide(&us, &eu, "latest/b", &["x"]).await;
    collide(&us, &eu, "notes/c", &["x"]).await;
    let all = ["notes/c/x", "latest/b/x", "notes/a/y", "notes/a/x"];
    assert_eq!(paths(&us, everything()).await, all);
    assert_eq!(paths(&eu, everything()).await, all);
    let with = |change: &dyn Fn(&mut ConflictFilter)| {
        let mut filter = everything();
        change(&mut filter);
        filter
    };
    let open = |f: &mut ConflictFilter| f.state = Some(ConflictState::Open);
    assert_eq!(paths(&us, with(&open)).await, ["notes/c/x", "notes/a/y", "notes/a/x"]);
    let latest = |f: &mut ConflictFilter| f.collection = "latest".parse().ok();
    assert_eq!(paths(&us, with(&latest)).await, ["latest/b/x"]);
    let of_document = |f: &mut ConflictFilter| f.document = Some(at("notes/a"));
    assert_eq!(paths(&us, with(&of_document)).await, ["notes/a/y", "notes/a/x"]);
    let of_path = |f: &mut ConflictFilter| f.path = "/y".parse().ok();
    assert_eq!(paths(&us, with(&of_path)).await, ["notes/a/y"]);
    let of_kind = |f: &mut ConflictFilter| f.kind = Some(ConflictKind::Container);
    assert!(paths(&us, with(&of_kind)).await.is_empty());
    for (region, count) in [("us-east", 4), ("eu-west", 4), ("ap-south", 0)] {
        let of_region = |f: &mut ConflictFilter| f.region = region.parse().ok();
        assert_eq!(paths(&us, with(&of_region)).await.len(), count, "{region}");
    }
    let page = us.documents.conflicts(ConflictFilter { limit: 3, ..everything() }).await.unwrap();
    assert_eq!((page.conflicts.len(), page.total), (3, 4));
    let last = page.conflicts[1].conflict.at();
    let since = |f: &mut ConflictFilter| f.since = Some(last);
    assert_eq!(paths(&us, with(&since)).await, all[..2]);
    let until = |f: &mut ConflictFilter| f.until = Some(last);
    assert_eq!(paths(&us, with(&until)).await, all[2..]);
    let rest = ConflictFilter { after: page.next, ..everything() };
    let rest = us.documents.conflicts(rest).await.unwrap();
    assert_eq!((rest.conflicts.len(), rest.total, rest.next), (1, 4, None));
    let stats = us.documents.conflict_stats(None).await.unwrap();
    let mut counts: Vec<_> =
        stats.iter().map(|c| (c.collection.as_ref().unwrap().as_str(), c.state, c.count)).collect();
    counts.sort_unstable();
    let expected = [("latest", ConflictState::AutoResolved, 1), ("notes", ConflictState::Open, 3)];
    assert_eq!(counts, expected);
    let notes = us.documents.conflict_stats("notes".parse().ok()).await.unwrap();
    assert_eq!((notes.len(), notes[0].count), (1, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_settled_long_ago_is_dropped_and_what_is_open_stays() {
    let (now, wall) = set_clock();
    let limits = Limits { conflict_age: Duration::from_secs(3_600), ..Limits::default() };
    let us = timed("us-east", limits, &wall);
    let [eu, ap] = ["eu-west", "ap-south"].map(|region| timed(region, Limits::default(), &wall));
    us.put("latest/a", json!({"x": "first"})).await.unwrap();
    us.send_to(&ap).await;
    ap.patch("latest/a", json!({"x": "ap"})).await.unwrap();
    us.send_to(&eu).await;
    us.patch("latest/a", json!({"x": "us"})).await.unwrap();
    eu.patch("latest/a", json!({"x": "eu"})).await.unwrap();
    eu.send_to(&us).await;
    collide(&us, &eu, "notes/a", &["open"]).await;
    let both = ["notes/a/open", "latest/a/x"];
    assert_eq!(paths(&us, everything()).await, both);

    let retention = Retention::new(us.documents.clone(), || 0);
    now.store(START + HOUR / 2, Ordering::Relaxed);
    assert_eq!(retention.once().await.unwrap(), 0);
    assert_eq!(paths(&us, everything()).await, both);
    now.store(START + 2 * HOUR, Ordering::Relaxed);
    assert_eq!(retention.once().await.unwrap(), 1);
    assert_eq!(paths(&us, everything()).await, ["notes/a/open"]);
    assert_eq!(retention.once().await.unwrap(), 0);
    let shown = us.json("latest/a").await;
    let us = us.restart("us-east").await;
    assert_eq!(paths(&us, everything()).await, ["notes/a/open"]);
    assert_eq!(us.json("latest/a").await, shown);

    // What the third region wrote at that time arrives only now.
    ap.send_to(&us).await;
    us.json("latest/a").await;
    let back = ConflictFilter { document: Some(at("latest/a")), ..everything() };
    let back = us.documents.conflicts(back).await.unwrap().conflicts;
    let [row] = back.as_slice() else { panic!("{back:#?}") };
    let values: Vec<_> = row.conflict.candidates.iter().map(|c| c.value.clone().unwrap()).collect();
    for region in ["us", "eu", "ap"] {
        assert!(values.contains(&json!(region)), "{values:?}");
    }
    assert!(us.journal.scrub().unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_makes_a_conflict_young_again() {
    let (now, wall) = set_clock();
    let limits = Limits { conflict_age: Duration::from_secs(3_600), ..Limits::default() };
    let us = timed("us-east", limits, &wall);
    let eu = timed("eu-west", Limits::default(), &wall);
    collide(&us, &eu, "notes/a", &["x"]).await;
    now.store(START + 2 * HOUR, Ordering::Relaxed);
    us.patch("notes/a", json!({"y": 0})).await.unwrap();
    let id = us.open_conflicts().await[0].conflict.id;
    us.documents.settle(id, Settling::Value(json!("both")), None, None, None).await.unwrap();
    let retention = Retention::new(us.documents.clone(), || 0);
    assert_eq!(retention.once().await.unwrap(), 0);
    now.store(START + 4 * HOUR, Ordering::Relaxed);
    assert_eq!(retention.once().await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_of_too_many_are_dropped() {
    let (_, wall) = set_clock();
    let limits = Limits { conflict_rows: 2, ..Limits::default() };
    let us = timed("us-east", limits, &wall);
    let eu = timed("eu-west", Limits::default(), &wall);
    for name in ["latest/a", "latest/b", "latest/c", "notes/d"] {
        collide(&us, &eu, name, &["x", "y"]).await;
    }
    assert_eq!(Retention::new(us.documents.clone(), || 0).once().await.unwrap(), 4);
    let left = ["notes/d/y", "notes/d/x", "latest/c/y", "latest/c/x"];
    assert_eq!(paths(&us, everything()).await, left);
    assert!(us.journal.scrub().unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_the_ledger_hears_of_each_change() {
    let (us, eu) = (Fixture::new("us-east"), Fixture::new("eu-west"));
    let live = Conflicts::new(us.journal.clone(), us.documents.clone(), us.bell.clone());
    let mut all = live.follow(ConflictFilter::default());
    let filter = ConflictFilter { collection: "latest".parse().ok(), ..Default::default() };
    let mut latest = live.follow(filter);
    let states = [Some(ConflictState::Resolved), None];
    let [mut resolved, mut other] = states.map(|state| {
        let region = state.is_none().then(|| "ap-south".parse().unwrap());
        live.follow(ConflictFilter { state, region, ..Default::default() })
    });
    collide(&us, &eu, "notes/a", &["x"]).await;
    let ConflictEvent::Row(row) = all.next().await.unwrap() else { panic!("a row is told") };
    assert_eq!((row.name.clone(), row.conflict.state), (Some(at("notes/a")), ConflictState::Open));
    let id = row.conflict.id;
    us.documents.settle(id, Settling::Value(json!(1)), None, None, None).await.unwrap();
    let ConflictEvent::Row(row) = resolved.next().await.unwrap() else { panic!("a row is told") };
    assert_eq!((row.conflict.id, row.conflict.state), (id, ConflictState::Resolved));
    collide(&us, &eu, "latest/b", &["y"]).await;
    let ConflictEvent::Row(row) = latest.next().await.unwrap() else { panic!("a row is told") };
    assert_eq!(row.name, Some(at("latest/b")));

    let limits = Limits { conflict_rows: 0, ..Limits::default() };
    // Nobody of that region took part.
    assert!(futures::FutureExt::now_or_never(other.next()).is_none());
    let us = Fixture::open("us-east", stop(us).await, limits);
    let live = Conflicts::new(us.journal.clone(), us.documents.clone(), us.bell.clone());
    let filter = ConflictFilter { collection: "notes".parse().ok(), ..Default::default() };
    let mut notes = live.follow(filter);
    assert_eq!(Retention::new(us.documents.clone(), || 0).once().await.unwrap(), 2);
    assert_eq!(notes.next().await.unwrap(), ConflictEvent::Removed(id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_falls_behind_is_told_so() {
    let us = Fixture::new("us-east");
    let live = Conflicts::new(us.journal.clone(), us.documents.clone(), us.bell.clone());
    let mut slow = live.follow(ConflictFilter::default());
    let removed = |n: u64| crate::journal::LedgerChange {
        document: DocumentId::from(&at("notes/a")),
        conflict: ConflictId(u128::from(n).to_be_bytes()),
        row: None,
    };
    let batch = crate::journal::CommitBatch {
        entries: Vec::new(),
        documents: Vec::new(),
        conflicts: (0..5_000).map(removed).collect(),
        position: us.documents.position(),
    };
    us.bell.committed(&batch);
    let ConflictEvent::Lagged(missed) = slow.next().await.unwrap() else { panic!("it is behind") };
    let ConflictEvent::Removed(next) = slow.next().await.unwrap() else {
        panic!("then it goes on")
    };
    assert_eq!(next, removed(missed).conflict);
}

async fn stop(mut node: Fixture) -> TempDir {
    node.documents.stop().await;
    node.owners.take().unwrap().join().unwrap();
    node.journal.close();
    node.directory.take().unwrap()
}
