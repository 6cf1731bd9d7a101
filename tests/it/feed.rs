//! The change feed: nothing is missed and nothing is told twice, over reconnects too.

use std::collections::BTreeMap;

use hyper::header::CONTENT_TYPE;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;

use crate::support::client::Lines;
use crate::support::{Client, Cluster, Plan, soon};

/// Follows the feed as lines of JSON.
async fn follow(client: &Client, query: &str) -> Lines {
    client.get(format!("/v1/changes?format=ndjson&{query}")).lines().await
}

/// The next change; heartbeats are passed over.
async fn change(lines: &mut Lines) -> Value {
    loop {
        let line = lines.next().await.expect("the feed goes on");
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line.get("error"), None, "{line}");
        if line.get("heartbeat").is_none() {
            return line;
        }
    }
}

async fn write(client: &Client, name: &str, count: u64) {
    for n in 0..count {
        client.put(name, &json!({"n": n})).ok().await;
    }
}

fn dot(change: &Value) -> (String, u64) {
    (change["origin"].as_str().unwrap().to_owned(), change["sequence"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_tells_every_change_of_every_region_once() {
    let cluster = Cluster::of(&["eu", "us"]).await;
    let (eu, us) = (cluster.at("eu"), cluster.at("us"));
    write(us, "notes/a", 5).await;
    write(eu, "notes/b", 5).await;
    let mut feed = follow(us, "since=start").await;
    assert_eq!(feed.headers[CONTENT_TYPE], "application/x-ndjson");
    let mut told: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for _ in 0..10 {
        let change = change(&mut feed).await;
        let name = change["document"].as_str().unwrap();
        let region = if name == "notes/a" { "us" } else { "eu" };
        assert_eq!((&change["region"], &change["deleted"]), (&json!(region), &json!(false)));
        let (origin, sequence) = dot(&change);
        told.entry(origin).or_default().push(sequence);
    }
    assert_eq!(told.into_values().collect::<Vec<_>>(), [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]);
    us.delete("notes/a").ok().await;
    let deleted = change(&mut feed).await;
    assert_eq!((&deleted["document"], &deleted["deleted"]), (&json!("notes/a"), &json!(true)));
    assert_eq!(deleted["etag"], Value::Null);
    let written = eu.put("notes/c", &json!({})).ok().await;
    let told = change(&mut feed).await;
    assert_eq!((&told["document"], &told["etag"]), (&json!("notes/c"), &json!(written.etag())));
    cluster.stop().await;
}

/// The reader leaves after every third change and comes back with the token of the last one,
/// while two regions write.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_comes_back_misses_nothing_and_hears_nothing_twice() {
    let cluster = Cluster::of(&["eu", "us"]).await;
    let (eu, us) = (cluster.at("eu"), cluster.at("us"));
    let reading = async {
        let mut since = "start".to_owned();
        let mut told = Vec::new();
        while told.len() < 60 {
            let mut feed = follow(us, &format!("since={since}")).await;
            for _ in 0..3 {
                let change = change(&mut feed).await;
                since = change["token"].as_str().unwrap().to_owned();
                told.push(dot(&change));
            }
        }
        told
    };
    let (mut told, (), ()) =
        tokio::join!(reading, write(us, "notes/a", 30), write(eu, "notes/b", 30));
    for origin in [told[0].0.clone(), told.iter().find(|(o, _)| *o != told[0].0).unwrap().0.clone()]
    {
        let of: Vec<u64> = told.iter().filter(|(o, _)| *o == origin).map(|(_, s)| *s).collect();
        assert!(of.is_sorted(), "{of:?}");
    }
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), 60);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn server_sent_events_resume_after_their_last_id() {
    let cluster = Cluster::of(&["solo"]).await;
    let solo = cluster.at("solo");
    write(solo, "notes/a", 3).await;
    let call = solo.get("/v1/changes?since=start").header("accept", "text/event-stream");
    let mut events = call.lines().await;
    assert_eq!(events.headers[CONTENT_TYPE], "text/event-stream");
    let first = event(&mut events).await;
    assert_eq!(first.1["sequence"], 1);
    let call = solo.get("/v1/changes?since=start").header("accept", "text/event-stream");
    let mut resumed = call.header("last-event-id", &first.0).lines().await;
    assert_eq!(event(&mut resumed).await.1["sequence"], 2);
    assert_eq!(event(&mut resumed).await.1["sequence"], 3);
    cluster.stop().await;
}

/// The next event: its id and its data.
async fn event(lines: &mut Lines) -> (String, Value) {
    let mut text = Vec::new();
    loop {
        match lines.next().await.expect("the feed goes on") {
            line if line.is_empty() => break,
            line => text.push(line),
        }
    }
    let [id, kind, data] = text.as_slice() else { panic!("an event has three lines: {text:?}") };
    assert_eq!(kind, "event: change");
    let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
    (id.strip_prefix("id: ").unwrap().to_owned(), data)
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_come_when_nothing_else_does_and_move_the_token() {
    let cluster = Cluster::of(&["solo"]).await;
    let solo = cluster.at("solo");
    let mut feed = follow(solo, "since=now&heartbeat=100&collection=wanted").await;
    let before: Value = serde_json::from_str(&feed.next().await.unwrap()).unwrap();
    assert_eq!(before["heartbeat"], true);
    let written = solo.put("other/a", &json!({})).ok().await.token();
    // The filter holds the change back, but a reader that comes back need not hear of it again.
    loop {
        let beat: Value = serde_json::from_str(&feed.next().await.unwrap()).unwrap();
        assert_eq!(beat["heartbeat"], true, "{beat}");
        if beat["token"] == written {
            break;
        }
    }
    solo.put("wanted/a", &json!({})).ok().await;
    assert_eq!(change(&mut feed).await["document"], "wanted/a");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_starts_now_unless_told_and_passes_its_collection_only() {
    let cluster = Cluster::of(&["solo"]).await;
    let solo = cluster.at("solo");
    write(solo, "cities/before", 3).await;
    let mut all = follow(solo, "").await;
    let mut cities = follow(solo, "collection=cities").await;
    for name in ["towns/a", "cities/b", "towns/c", "cities/d"] {
        solo.put(name, &json!({})).ok().await;
    }
    for name in ["towns/a", "cities/b", "towns/c", "cities/d"] {
        assert_eq!(change(&mut all).await["document"], name);
    }
    for name in ["cities/b", "cities/d"] {
        assert_eq!(change(&mut cities).await["document"], name);
    }
    for (query, code) in [
        ("since=abc", "bad_session_token"),
        ("format=xml", "bad_query"),
        ("heartbeat=1", "bad_query"),
        ("collection=_", "bad_query"),
    ] {
        solo.get(format!("/v1/changes?{query}")).refused(400, code).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_when_the_node_stops() {
    let mut cluster = Cluster::of(&["solo"]).await;
    let mut feed = follow(cluster.at("solo"), "since=start").await;
    let quiet = follow(cluster.at("solo"), "since=now").await;
    cluster.at("solo").put("notes/a", &json!({})).ok().await;
    change(&mut feed).await;
    soon("the node stops although feeds are open", cluster.stop_node("solo")).await;
    for mut feed in [feed, quiet] {
        while let Some(line) = feed.next().await {
            assert!(line.contains("notes/a") || line.contains("heartbeat"), "{line}");
        }
    }
    cluster.stop().await;
}

/// A reader that reads nothing holds up neither writers nor other readers, here or elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_up_nobody() {
    let cluster = Plan::new(&["eu", "us"]).start().await;
    let (eu, us) = (cluster.at("eu"), cluster.at("us"));
    let mut stuck = Vec::new();
    for _ in 0..4 {
        // The kernel keeps next to nothing for it, so the node soon finds that it cannot write.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let mut stream = socket.connect(us.address()).await.unwrap();
        let request = "GET /v1/changes?since=start HTTP/1.1\r\nhost: us\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        stuck.push(stream);
    }
    let mut quick = follow(us, "since=start").await;
    let mut elsewhere = follow(eu, "since=start").await;
    // Each quote takes two bytes, so 2,000 events are more than the kernel takes in.
    let long = format!("notes/{}", "\"".repeat(500));
    for round in 0..40_u64 {
        let writes = (0..50).map(|n| us.put(&long, &json!({"round": round, "n": n})).ok());
        futures::future::join_all(writes).await;
        for _ in 0..50 {
            assert_eq!(change(&mut quick).await["document"], long);
        }
    }
    for _ in 0..2_000 {
        assert_eq!(change(&mut elsewhere).await["document"], long);
    }
    drop(stuck);
    cluster.stop().await;
}
