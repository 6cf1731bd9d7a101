//! Session tokens: what a client was shown in one region it is shown in every other one, or it is
//! told how far behind that region is.

use std::time::Duration;

use anabranch::settings::Limits;
use serde_json::json;

use crate::support::{Cluster, Plan, eventually, seen};

/// A cluster whose reads do not wait long.
async fn impatient() -> Cluster {
    let limits = Limits { session_wait: Duration::from_millis(100), ..Limits::default() };
    Plan::new(&["eu", "us"]).limits(limits).start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_until_what_its_token_names_arrives() {
    let limits = Limits { session_wait: Duration::from_secs(50), ..Limits::default() };
    let cluster = Plan::new(&["eu", "us"]).limits(limits).start().await;
    let (eu, us) = (cluster.at("eu"), cluster.at("us"));
    cluster.meshed().await;
    cluster.cut("eu", "us").await;
    let token = us.put("notes/a", &json!({"n": 1})).ok().await.token();
    assert_eq!(eu.value("notes/a").await, None, "without a token nothing is waited for");
    let waiting = eu.read("notes/a").header("session-token", &token).send();
    let listing = eu.get("/v1/docs/notes").header("session-token", &token).send();
    let writing = eu.merge("notes/a", &json!({"m": 2})).header("session-token", &token).send();
    // All three are sent before the link is healed, because futures are polled in their order.
    let (read, listed, written, ()) =
        tokio::join!(waiting, listing, writing, async { cluster.heal("eu", "us") });
    assert_eq!(read.expect(200).value()["n"], 1);
    assert_eq!(listed.expect(200).value()["documents"][0]["key"], "a");
    assert_eq!(written.expect(200).value(), json!({"n": 1, "m": 2}));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_does_not_catch_up_says_how_far_behind_it_is() {
    let cluster = impatient().await;
    let (eu, us) = (cluster.at("eu"), cluster.at("us"));
    cluster.meshed().await;
    cluster.cut("eu", "us").await;
    us.put("notes/a", &json!({"n": 1})).ok().await;
    let token = us.merge("notes/a", &json!({"n": 2})).ok().await.token();
    for call in [
        eu.read("notes/a"),
        eu.get("/v1/docs/notes"),
        eu.get("/v1/conflicts"),
        eu.put("notes/a", &json!({})),
        eu.delete("notes/a"),
    ] {
        let problem = call.header("session-token", &token);
        let problem = problem.refused(503, "session_behind").await;
        assert_eq!(problem.value()["behind"], 2);
        assert_eq!(problem.header("retry-after"), "1");
    }
    let at_once = eu.read("notes/a").header("session-token", &token).header("session-wait", "0");
    at_once.refused(503, "session_behind").await;
    cluster.heal("eu", "us");
    eventually("the read is answered", async || {
        let reply = eu.read("notes/a").header("session-token", &token).send().await;
        seen(reply.status == 200, || format!("{reply:?}"))
    })
    .await;
    assert_eq!(eu.value("notes/a").await, Some(json!({"n": 2})), "what was refused is not written");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_tokens_are_refused() {
    let cluster = impatient().await;
    let us = cluster.at("us");
    let token = us.put("notes/a", &json!({})).ok().await.token();
    let damaged = format!("{}A", &token[..token.len() - 1]);
    let flipped =
        if damaged == token { format!("{}B", &token[..token.len() - 1]) } else { damaged };
    for bad in ["x", "!", &token[1..], &token[..8], &flipped] {
        us.read("notes/a").header("session-token", bad).refused(400, "bad_session_token").await;
    }
    let both = us.read("notes/a").header("session-token", format!("{token}, {token}"));
    both.send().await.expect(200);
    for wait in ["-1", "1s", ""] {
        let call = us.read("notes/a").header("session-token", &token).header("session-wait", wait);
        call.refused(400, "bad_session_wait").await;
    }
    cluster.stop().await;
}

/// A client that goes from region to region, and takes its token along, never sees a counter go
/// back, although it asks a region that is behind.
#[tokio::test(flavor = "multi_thread")]
async fn reads_are_monotonic_for_a_client_that_changes_region() {
    let cluster = Cluster::of(&["ap", "eu", "us"]).await;
    cluster.meshed().await;
    let mut token = cluster.at("us").put("notes/a", &json!({"n": 0})).ok().await.token();
    for n in 1..=30_u64 {
        let (writer, reader) = (REGIONS[n as usize % 3], REGIONS[(n as usize + 1) % 3]);
        let write = cluster.at(writer).merge("notes/a", &json!({"n": n}));
        token = write.header("session-token", &token).ok().await.token();
        let read = cluster.at(reader).read("notes/a").header("session-token", &token).ok().await;
        assert_eq!(read.value(), json!({"n": n}), "{writer} wrote, {reader} read");
        token = read.token();
    }
    let ledger = cluster.agreed(&["notes"]).await.conflicts();
    assert!(ledger.is_empty(), "each write followed the one before: {ledger:?}");
    cluster.stop().await;
}

const REGIONS: [&str; 3] = ["ap", "eu", "us"];
