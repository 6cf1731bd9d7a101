//! Consistency that a request asks for: where a write is durable when it is answered, what a
//! majority read reflects, and how old the data of other regions may be.

use std::time::Duration;

use anabranch::settings::Limits;
use serde_json::json;

use crate::support::client::Reply;
use crate::support::cluster::region;
use crate::support::{Client, Cluster, Plan, eventually, seen};

const THREE: [&str; 3] = ["ap", "eu", "us"];

/// Writes with a concern that the far regions can meet, and returns the reply.
async fn write(client: &Client, n: u64, concern: &str) -> Reply {
    client.put("notes/a", &json!({"n": n})).header("write-concern", concern).send().await
}

fn acked(reply: &Reply) -> Vec<&str> {
    reply.header("acked-regions").split(", ").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_answered_when_it_is_where_it_is_wanted() {
    let cluster = Cluster::of(&THREE).await;
    cluster.meshed().await;
    let eu = cluster.at("eu");
    let reply = write(eu, 1, "local").await.expect(201);
    assert_eq!(acked(&reply), ["eu"]);
    assert_eq!(reply.find("write-concern"), None, "nothing was asked for");

    for (n, concern) in (2..).zip(["majority", "regions=2", "majority; timeout=20s"]) {
        let reply = write(eu, n, concern).await.expect(200);
        let acked = acked(&reply);
        assert!(acked.len() >= 2 && acked[0] == "eu", "{acked:?}");
        assert!(reply.header("write-concern").ends_with("; met"));
        assert_eq!(reply.value(), json!({"n": n}), "the reply is the usual one");
    }
    let reply = write(eu, 7, "all; timeout=20s").await.expect(200);
    assert_eq!(acked(&reply), ["eu", "ap", "us"]);
    for far in ["ap", "us"] {
        assert_eq!(cluster.at(far).value("notes/a").await, Some(json!({"n": 7})), "{far}");
    }
    let reply = write(eu, 8, "regions=us; timeout=20s").await.expect(200);
    assert!(acked(&reply).contains(&"us"));
    assert_eq!(cluster.at("us").value("notes/a").await, Some(json!({"n": 8})));
    let reply = eu.delete("notes/a").header("write-concern", "all; timeout=20s").send().await;
    assert_eq!(acked(&reply.expect(204)), ["eu", "ap", "us"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_does_not_get_far_enough_in_time_is_accepted_and_gets_there_later() {
    let cluster = Cluster::of(&THREE).await;
    cluster.meshed().await;
    cluster.isolate("us").await;
    let eu = cluster.at("eu");
    let reply = write(eu, 1, "all; timeout=300ms").await.expect(202);
    assert_eq!((acked(&reply), reply.value()), (vec!["eu", "ap"], json!({"n": 1})));
    assert_eq!(reply.header("write-concern"), "all; unmet");
    let token = reply.token();
    let named = write(eu, 2, "regions=us; timeout=100ms").await.expect(202);
    assert!(!acked(&named).contains(&"us"));
    // The others are enough for these.
    write(eu, 3, "majority; timeout=20s").await.expect(200);
    write(eu, 4, "regions=ap; timeout=20s").await.expect(200);
    let delete = eu.delete("notes/a").header("write-concern", "all; timeout=100ms").send().await;
    assert!(delete.expect(202).body.is_empty());

    cluster.rejoin("us");
    let us = cluster.at("us");
    let read = us.read("notes/a").header("session-token", token).header("session-wait", "60000");
    eventually("the delete arrives", async || {
        seen(us.value("notes/a").await.is_none(), || "still there".to_owned())
    })
    .await;
    assert!([200, 404].contains(&read.send().await.status), "the token is of use on a 202, too");
    write(eu, 5, "all; timeout=20s").await.expect(201);
    cluster.stop().await;
}

/// The link between the writer and the far region is cut: what is acknowledged there comes back
/// over the third region.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_find_their_way_around_a_cut_link() {
    let cluster = Cluster::of(&THREE).await;
    cluster.meshed().await;
    cluster.cut("eu", "us").await;
    let eu = cluster.at("eu");
    let reply = write(eu, 1, "all; timeout=30s").await.expect(201);
    assert_eq!(acked(&reply), ["eu", "ap", "us"]);
    let read = eu.read("notes/a").header("read-concern", "majority; timeout=20s").ok().await;
    assert_eq!(read.value(), json!({"n": 1}));
    cluster.stop().await;
}

/// Whoever reads from a majority sees a write that a majority had, wherever it was made.
#[tokio::test(flavor = "multi_thread")]
async fn a_majority_read_sees_every_majority_write() {
    let cluster = Cluster::of(&THREE).await;
    cluster.meshed().await;
    let transport = cluster.node("eu").transport();
    // To the reader everything is late, and to the third region nothing.
    transport.set_delay(&region("us"), Duration::from_millis(400)).unwrap();
    let us = cluster.at("us");
    for n in 1..=5 {
        let reply = write(cluster.at("eu"), n, "majority; timeout=20s").await;
        assert!(reply.status < 202, "{reply:?}");
        let read = us.read("notes/a").header("read-concern", "majority; timeout=20s").ok().await;
        assert_eq!(read.value(), json!({"n": n}));
        let listed = us.get("/v1/docs/notes?values=true");
        let listed = listed.header("read-concern", "majority; timeout=20s").ok().await;
        assert_eq!(listed.value()["documents"][0]["value"], json!({"n": n}));
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_majority_read_is_refused_where_no_majority_can_be_asked() {
    let cluster = Cluster::of(&THREE).await;
    cluster.meshed().await;
    write(cluster.at("eu"), 1, "all; timeout=20s").await.expect(201);
    cluster.isolate("us").await;
    let us = cluster.at("us");
    let read = us.read("notes/a").header("read-concern", "majority; timeout=200ms");
    let problem = read.refused(503, "no_majority").await;
    assert_eq!(problem.header("retry-after"), "1");
    let detail = problem.value()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("ap") && detail.contains("eu"), "{detail}");
    us.read("notes/a").header("read-concern", "local").ok().await;
    // The other two are a majority.
    let read = cluster.at("ap").read("notes/a").header("read-concern", "majority").ok().await;
    assert_eq!(read.value(), json!({"n": 1}));
    let metrics = us.get("/metrics").ok().await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(text.contains("anabranch_majority_reads_total{outcome=\"refused\"} 1"), "{text}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_is_too_old_is_refused_when_the_request_says_so() {
    let cluster = Cluster::of(&THREE).await;
    cluster.meshed().await;
    let eu = cluster.at("eu");
    eu.put("notes/a", &json!({"n": 1})).ok().await;
    eventually("every region has been heard", async || {
        let reply = eu.read("notes/a").header("max-staleness", "30").send().await;
        seen(reply.status == 200, || format!("{reply:?}"))
    })
    .await;
    let lag = |reply: &Reply| reply.header("data-lag").parse::<f64>().unwrap();
    assert!(lag(&eu.read("notes/a").ok().await) < 30.0);
    cluster.isolate("us").await;
    eventually("the data of us is too old", async || {
        let reply = eu.read("notes/a").header("max-staleness", "1.5").send().await;
        seen(reply.status == 503, || format!("{reply:?}"))
    })
    .await;
    let listing = eu.get("/v1/docs/notes").header("max-staleness", "1.5");
    let problem = listing.refused(503, "too_stale").await;
    assert_eq!(problem.value()["region"], "us");
    assert!(problem.value()["lag"].as_f64().unwrap() > 1.5);
    assert!(lag(&problem) > 1.5);
    let write = eu.put("notes/a", &json!({})).header("max-staleness", "1.5");
    write.refused(503, "too_stale").await;
    eu.read("notes/a").header("max-staleness", "600").ok().await;
    cluster.rejoin("us");
    eventually("the data of us is fresh again", async || {
        let reply = eu.read("notes/a").header("max-staleness", "5").send().await;
        seen(reply.status == 200, || format!("{reply:?}"))
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_for_is_refused_before_anything_is_written() {
    let limits = Limits { concern_wait: Duration::from_secs(10), ..Limits::default() };
    let cluster = Plan::new(&["eu", "us"]).limits(limits).start().await;
    let eu = cluster.at("eu");
    for (concern, code) in [
        ("most", "bad_write_concern"),
        ("regions=0", "bad_write_concern"),
        ("majority; timeout=500", "bad_write_concern"),
        ("majority; timeout=11s", "bad_write_concern"),
        ("regions=3", "concern_out_of_reach"),
        ("regions=eu,mars", "unknown_region"),
    ] {
        let put = eu.put("notes/a", &json!({})).header("write-concern", concern);
        put.refused(400, code).await;
        eu.delete("notes/a").header("write-concern", concern).refused(400, code).await;
    }
    let read = |name, value: &str| eu.read("notes/a").header(name, value);
    read("read-concern", "all").refused(400, "bad_read_concern").await;
    read("read-concern", "majority; timeout=1h").refused(400, "bad_read_concern").await;
    read("max-staleness", "1s").refused(400, "bad_max_staleness").await;
    assert_eq!(eu.value("notes/a").await, None);
    cluster.stop().await;
}

/// Every way to write takes a concern and says where the write is.
#[tokio::test(flavor = "multi_thread")]
async fn every_write_says_where_it_is() {
    let cluster = Cluster::of(&["eu", "us"]).await;
    cluster.meshed().await;
    cluster.cut("eu", "us").await;
    let (eu, us) = (cluster.at("eu"), cluster.at("us"));
    for name in ["notes/a", "notes/b"] {
        eu.put(name, &json!({"n": 1})).ok().await;
        us.put(name, &json!({"n": 2})).ok().await;
    }
    cluster.heal("eu", "us");
    let ledger = cluster.agreed(&["notes"]).await.conflicts();
    assert_eq!(ledger.len(), 2, "{ledger:?}");
    let all = ("write-concern", "all; timeout=20s");
    let everywhere = |reply: &Reply| assert_eq!(acked(reply), ["eu", "us"], "{reply:?}");

    let head = eu.get("/v1/history/notes/a").ok().await.value()["changes"][0]["hash"].clone();
    let resolve = eu.resolve(&ledger[0], &json!({"merge": false, "value": 3}));
    resolve.send().await.expect(422);
    let resolve = eu.resolve(&ledger[0], &json!({"value": 3})).header(all.0, all.1);
    everywhere(&resolve.ok().await);
    let revert = eu.call(axum::http::Method::POST, "/v1/revert/notes/a");
    let revert = revert.json(&json!({"to": head})).header(all.0, all.1);
    everywhere(&revert.ok().await);
    let settings = eu.call(axum::http::Method::PUT, "/v1/collections/notes");
    let settings = settings.json(&json!({"policy": "lww"})).header(all.0, all.1);
    everywhere(&settings.ok().await);
    let settings = eu.call(axum::http::Method::DELETE, "/v1/collections/notes");
    everywhere(&settings.header(all.0, all.1).ok().await);
    let bulk = eu.call(axum::http::Method::POST, "/v1/conflicts:dismiss");
    let bulk = bulk.json(&json!({"all": true})).header(all.0, all.1).ok().await;
    let text = String::from_utf8(bulk.body.to_vec()).unwrap();
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["acked_regions"], &last["write_concern_met"]),
        (&json!(["eu", "us"]), &json!(true))
    );
    let token = last["session_token"].as_str().unwrap();
    us.read("notes/b").header("session-token", token).ok().await;
    let merge = eu.merge("notes/b", &json!({"m": 1})).header(all.0, all.1);
    everywhere(&merge.ok().await);
    cluster.stop().await;
}

/// A refusal shows what is there, so a client that goes on elsewhere must see no older state.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_shows_the_state_has_a_token_for_it() {
    let cluster = Cluster::of(&["eu", "us"]).await;
    cluster.meshed().await;
    let (eu, us) = (cluster.at("eu"), cluster.at("us"));
    eu.put("notes/a", &json!({"n": 1})).ok().await;
    let refused = eu.put("notes/a", &json!({"n": 2})).header("if-none-match", "*");
    let token = refused.refused(412, "precondition_failed").await.token();
    let read = us.read("notes/a").header("session-token", token).ok().await;
    assert_eq!(read.value(), json!({"n": 1}));
    cluster.stop().await;
}
