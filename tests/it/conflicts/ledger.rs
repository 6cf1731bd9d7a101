//! The ledger: listed, filtered, settled.

use anabranch::settings::Limits;
use anabranch_crdt::policy::Policy;
use serde_json::{Value, json};

use super::{candidates, healed, pair};
use crate::support::{Client, Cluster, Plan, eventually, seen};

/// Writes `/title` of each document in both regions at once, and heals.
async fn disputed(names: &[&str]) -> Cluster {
    let cluster = pair().await;
    dispute(&cluster, names).await;
    cluster
}

async fn dispute(cluster: &Cluster, names: &[&str]) {
    for name in names {
        cluster.at("us").put(name, &json!({"title": "t"})).ok().await;
    }
    cluster.agreed(&["notes", "latest"]).await;
    cluster.cut("eu", "us").await;
    for region in ["us", "eu"] {
        for name in names {
            cluster.at(region).merge(name, &json!({"title": region})).ok().await;
        }
    }
    healed(cluster, &["notes", "latest"]).await;
}

async fn only(client: &Client) -> Value {
    let [conflict] = client.conflicts("").await.try_into().unwrap();
    conflict
}

pub(super) fn candidate_of<'a>(conflict: &'a Value, region: &str) -> &'a str {
    let candidates = conflict["candidates"].as_array().unwrap();
    candidates.iter().find(|c| c["region"] == region).unwrap()["id"].as_str().unwrap()
}

/// Waits until a region knows that the conflict is settled, and returns it.
pub(super) async fn settled(client: &Client, id: &str) -> Value {
    eventually("the conflict is resolved there too", async || {
        let conflict = client.get(format!("/v1/conflicts/{id}")).ok().await.value();
        seen(conflict["state"] == "resolved", || conflict.to_string())?;
        Ok(conflict)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn taking_a_candidate_closes_the_conflict_everywhere() {
    let cluster = disputed(&["notes/a"]).await;
    let (us, eu) = (cluster.at("us"), cluster.at("eu"));
    assert_eq!(us.read("notes/a").ok().await.header("conflicts"), "1");
    let conflict = only(us).await;
    let body = json!({"take": candidate_of(&conflict, "us"), "note": "as agreed: ✓"});
    let reply = eu.resolve(&conflict, &body).ok().await;
    assert_eq!((reply.header("conflicts"), reply.header("region")), ("0", "eu"));
    let resolved = reply.value();
    assert_eq!((&resolved["state"], &resolved["winner"]), (&json!("resolved"), &Value::Null));
    assert_eq!(candidates(&resolved), candidates(&conflict), "what lost is not forgotten");
    let id = conflict["id"].as_str().unwrap();
    let there = settled(us, id).await;
    assert_eq!(there, resolved);
    assert_eq!(
        (&there["settled"]["note"], &there["settled"]["region"]),
        (&json!("as agreed: ✓"), &json!("eu"))
    );
    let read = us.read("notes/a").header("session-token", reply.token()).ok().await;
    assert_eq!((read.value(), read.header("conflicts")), (json!({"title": "us"}), "0"));
    assert_eq!(read.etag(), reply.etag());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn giving_another_value_closes_it_too() {
    let cluster = disputed(&["notes/a"]).await;
    let conflict = only(cluster.at("us")).await;
    let reply = cluster.at("us").resolve(&conflict, &json!({"value": {"of": "both"}})).ok().await;
    let there = settled(cluster.at("eu"), conflict["id"].as_str().unwrap()).await;
    assert_eq!(there["settled"]["note"], Value::Null);
    let read = cluster.at("eu").read("notes/a").header("session-token", reply.token()).ok().await;
    assert_eq!(read.value(), json!({"title": {"of": "both"}}));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_resolver_is_told_what_the_first_one_did() {
    let cluster = disputed(&["notes/a"]).await;
    let us = cluster.at("us");
    let conflict = only(us).await;
    let first = us.resolve(&conflict, &json!({"value": "first"})).ok().await.value();
    let body = json!({"take": candidate_of(&conflict, "eu")});
    let second = us.resolve(&conflict, &body).refused(409, "already_resolved").await.value();
    assert_eq!(second["conflict"], first);
    assert_eq!(us.value("notes/a").await, Some(json!({"title": "first"})));
    cluster.stop().await;
}

/// An ordinary write over an open conflict settles it as well: it saw both values.
#[tokio::test(flavor = "multi_thread")]
async fn a_later_write_supersedes_every_candidate() {
    let cluster = disputed(&["notes/a"]).await;
    let conflict = only(cluster.at("eu")).await;
    let written = cluster.at("eu").merge("notes/a", &json!({"title": "later"})).ok().await;
    assert_eq!(written.header("conflicts"), "0");
    settled(cluster.at("us"), conflict["id"].as_str().unwrap()).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_resolutions_are_refused() {
    let cluster = disputed(&["notes/a"]).await;
    let us = cluster.at("us");
    let conflict = only(us).await;
    for body in [
        json!({}),
        json!([]),
        json!({"take": 1}),
        json!({"take": "x", "value": 1}),
        json!({"value": 1, "because": "x"}),
        json!({"value": 1, "note": 2}),
    ] {
        us.resolve(&conflict, &body).refused(422, "bad_resolution").await;
    }
    us.resolve(&conflict, &json!({"take": "1@00"})).refused(422, "unknown_candidate").await;
    let unknown = json!({"id": "0".repeat(32)});
    us.resolve(&unknown, &json!({"value": 1})).refused(404, "conflict_not_found").await;
    assert_eq!(only(us).await, conflict);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_is_filtered_and_counted() {
    let cluster = disputed(&["notes/a", "notes/b", "notes/c", "latest/a", "latest/b"]).await;
    let us = cluster.at("us");
    for (query, count) in [
        ("collection=notes", 3),
        ("collection=latest", 2),
        ("collection=none", 0),
        ("document=notes%2Fb", 1),
        ("document=notes/none", 0),
        ("state=open", 3),
        ("state=auto-resolved", 2),
        ("state=resolved", 0),
        ("state=open&collection=latest", 0),
        ("state=dismissed", 0),
        ("path=/title", 5),
        ("path=/ti", 0),
        ("kind=value", 5),
        ("kind=whole&state=open", 0),
        ("region=us", 5),
        ("region=nowhere", 0),
        ("since=2020-01-01T00:00:00Z", 5),
        ("until=2020-01-01T00:00:00Z", 0),
    ] {
        let page = us.get(format!("/v1/conflicts?{query}")).ok().await.value();
        assert_eq!(page["conflicts"].as_array().unwrap().len(), count, "{query}");
        assert_eq!(page["total"], count, "{query}");
    }
    let stats = us.get("/v1/conflicts/stats").ok().await.value();
    assert_eq!(
        (&stats["total"], &stats["open"], &stats["region"]),
        (&json!(5), &json!(3), &json!("us"))
    );
    let stats = us.get("/v1/conflicts/stats?collection=latest").ok().await.value();
    let expected =
        json!([{"collection": "latest", "state": "auto-resolved", "kind": "value", "count": 2}]);
    assert_eq!((&stats["total"], &stats["by"]), (&json!(2), &expected));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_is_paged_and_shown() {
    let names = ["notes/a", "notes/b", "notes/c", "latest/a", "latest/b"];
    let cluster = disputed(&names).await;
    let us = cluster.at("us");
    let all = us.conflicts("").await;
    assert_eq!(all.len(), 5);
    for limit in 1..6 {
        let mut listed = Vec::new();
        let mut query = format!("limit={limit}");
        loop {
            let page = us.get(format!("/v1/conflicts?{query}")).ok().await.value();
            listed.extend(page["conflicts"].as_array().unwrap().clone());
            match page["next"].as_str() {
                Some(next) => query = format!("limit={limit}&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(listed, all, "by {limit}");
    }
    for query in [
        "state=shut",
        "limit=0",
        "limit=1001",
        "cursor=x",
        "document=notes",
        "sort=1",
        "path=x",
        "since=now",
        "kind=x",
    ] {
        us.get(format!("/v1/conflicts?{query}")).refused(400, "bad_query").await;
    }
    let one = us.conflicts("document=notes/b").await.remove(0);
    let shown = us.get(format!("/v1/conflicts/{}", one["id"].as_str().unwrap())).ok().await;
    assert_eq!(shown.value(), one);
    us.resolve(&one, &json!({"value": "x"})).ok().await;
    assert_eq!(us.conflicts("state=open").await.len(), 2);
    assert_eq!(us.conflicts("state=resolved").await.len(), 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_ledger_tells_what_changes() {
    let cluster = disputed(&["notes/a", "latest/a"]).await;
    let (us, eu) = (cluster.at("us"), cluster.at("eu"));
    let conflict = us.conflicts("collection=notes").await.remove(0);
    let mut lines = us.get("/v1/conflicts/stream?collection=notes").lines().await;
    let call = us.get("/v1/conflicts/stream?state=resolved&heartbeat=60000&region=us");
    let mut events = call.header("accept", "text/event-stream").lines().await;
    eu.resolve(&conflict, &json!({"value": "both"})).ok().await;
    let line: Value = serde_json::from_str(&lines.next().await.unwrap()).unwrap();
    assert_eq!(line["event"], "conflict");
    assert_eq!(line["conflict"]["id"], conflict["id"]);
    assert_eq!(line["conflict"]["state"], "resolved");
    assert_eq!(events.next().await.unwrap(), "event: conflict");
    let data = events.next().await.unwrap();
    let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(data, line["conflict"]);
    let shown = us.get(format!("/v1/conflicts/{}", conflict["id"].as_str().unwrap())).ok().await;
    assert_eq!(shown.value(), data);
    for query in ["since=2026-01-01T00:00:00Z", "format=xml", "heartbeat=1", "kind=x"] {
        us.get(format!("/v1/conflicts/stream?{query}")).refused(400, "bad_query").await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settled_conflicts_beyond_the_limit_are_dropped_by_a_node_that_starts() {
    let limits = Limits { conflict_rows: 1, ..Limits::default() };
    let plan = Plan::new(&["eu", "us"]).limits(limits).policy("latest", Policy::Lww, &[]);
    let mut cluster = plan.start().await;
    dispute(&cluster, &["notes/a", "latest/a", "latest/b", "latest/c"]).await;
    let all = cluster.at("us").conflicts("").await;
    assert_eq!(all.len(), 4);
    cluster.restart("us").await;
    let newest = all.iter().find(|conflict| conflict["state"] == "auto-resolved").unwrap();
    let open = all.iter().find(|conflict| conflict["state"] == "open").unwrap();
    eventually("all but one settled conflict are dropped", async || {
        let left = cluster.at("us").conflicts("").await;
        seen(left.len() == 2, || format!("{left:?}"))?;
        assert!(left.contains(newest) && left.contains(open), "{left:?}");
        Ok(())
    })
    .await;
    assert_eq!(cluster.at("eu").conflicts("").await.len(), 4, "each region keeps its own ledger");
    cluster.stop().await;
}
