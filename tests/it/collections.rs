//! The settings of collections over HTTP: set anywhere, the same everywhere, and every winner with
//! them.

use anabranch_crdt::policy::Policy;
use hyper::Method;
use serde_json::{Value, json};

use crate::support::client::{Call, Client, Reply};
use crate::support::{Cluster, Plan, eventually, seen};

fn settings<'a>(client: &'a Client, collection: &str) -> Call<'a> {
    client.get(format!("/v1/collections/{collection}"))
}

fn set<'a>(client: &'a Client, collection: &str, settings: &Value) -> Call<'a> {
    client.call(Method::PUT, format!("/v1/collections/{collection}")).json(settings)
}

fn simulate<'a>(client: &'a Client, collection: &str, settings: &Value) -> Call<'a> {
    let path = format!("/v1/collections/{collection}:simulate");
    client.call(Method::POST, path).json(settings)
}

/// Waits until all regions have decided a collection by the same settings, and returns those.
async fn decided(cluster: &Cluster, regions: &[&str], collection: &str, version: &Value) -> Value {
    eventually(&format!("{collection} is decided by {version} in {regions:?}"), async || {
        let mut found = Value::Null;
        for region in regions {
            found = settings(cluster.at(region), collection).ok().await.value();
            let done = found["version"] == *version && found["redeciding"].is_null();
            seen(done, || format!("{region}: {found}"))?;
        }
        Ok(found)
    })
    .await
}

/// Two regions that wrote `/n` of some documents at once: `us` the greater number, `eu` the later.
async fn disputed(names: &[String]) -> Cluster {
    let cluster = Cluster::of(&["eu", "us"]).await;
    for name in names {
        cluster.at("us").put(name, &json!({"n": 0})).ok().await;
    }
    cluster.agreed(&["notes"]).await;
    cluster.cut("eu", "us").await;
    for (region, number) in [("us", 9), ("eu", 1)] {
        for name in names {
            cluster.at(region).merge(name, &json!({"n": number})).ok().await;
        }
    }
    cluster.heal("eu", "us");
    cluster.agreed(&["notes"]).await;
    cluster
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("notes/{number:03}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_read_set_and_taken_back() {
    let cluster = Cluster::of(&["us"]).await;
    let us = cluster.at("us");
    let found = settings(us, "notes").ok().await;
    assert_eq!((found.find("etag"), found.find("session-token").is_some()), (None, true));
    let default = json!({
        "name": "notes", "settings": {"policy": "auto"}, "version": "default", "source": "default",
        "redeciding": null,
    });
    assert_eq!(found.value(), default);
    let wanted = json!({
        "policy": "lww",
        "paths": {"/a/*": "max", "/address": {"policy": "lww", "whole": true}},
        "regions": ["eu-west", "us-east"],
    });
    let reply = set(us, "notes", &wanted).header("author", "ada").ok().await;
    let value = reply.value();
    assert_eq!((&value["settings"], &value["source"]), (&wanted, &json!("set")));
    assert_eq!(value["redecided"], json!({"documents": 0, "conflicts": 0, "flipped": 0}));
    assert_eq!(value["version"].as_str().unwrap().len(), 16);
    let found = settings(us, "notes").ok().await;
    assert_eq!((found.etag(), &found.value()["version"]), (reply.etag(), &value["version"]));
    let unchanged = settings(us, "notes").header("if-none-match", reply.etag()).send().await;
    assert_eq!(unchanged.status, 304);
    us.put("cities/paris", &json!({})).ok().await;
    let listed = us.get("/v1/collections").ok().await.value();
    assert_eq!(
        (&listed["collections"][0]["name"], &listed["next"]),
        (&json!("cities"), &Value::Null)
    );
    assert_eq!(listed["collections"][1], found.value());
    let page = us.get("/v1/collections?limit=1").ok().await.value();
    assert_eq!(page["next"], "cities");
    let page = us.get("/v1/collections?limit=1&cursor=cities").ok().await.value();
    assert_eq!(
        (page["collections"][0]["name"].as_str(), &page["next"]),
        (Some("notes"), &Value::Null)
    );
    let reset = us.call(Method::DELETE, "/v1/collections/notes").ok().await;
    let mut expected = default;
    expected["redecided"] = json!({"documents": 0, "conflicts": 0, "flipped": 0});
    assert_eq!(reset.value(), expected);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_conditions_and_bad_settings_are_refused() {
    let cluster = Cluster::of(&["us"]).await;
    let us = cluster.at("us");
    let first = set(us, "notes", &json!({"policy": "lww"})).header("if-none-match", "*").ok().await;
    set(us, "notes", &json!({"policy": "max"})).header("if-match", first.etag()).ok().await;
    let stale = set(us, "notes", &json!({})).header("if-match", first.etag());
    stale.refused(412, "precondition_failed").await;
    let stale = us.call(Method::DELETE, "/v1/collections/notes").header("if-match", first.etag());
    stale.refused(412, "precondition_failed").await;
    set(us, "notes", &json!({}))
        .header("if-none-match", "*")
        .refused(412, "precondition_failed")
        .await;
    settings(us, "other").header("if-match", "*").refused(412, "precondition_failed").await;
    for (bad, cure) in [
        (json!({"policy": "newest"}), "write auto, lww, first"),
        (json!({"paths": {"title": "lww"}}), "write a JSON pointer"),
        (json!({"paths": {"/a": {"whole": true}}}), "for a container as one value"),
        (json!({"policy": "region-priority"}), "needs 'regions'"),
        (json!({"colour": "red"}), "there are policy, paths, regions"),
        (json!([]), "a JSON object"),
    ] {
        for call in [set(us, "notes", &bad), simulate(us, "notes", &bad)] {
            let problem = call.refused(422, "bad_settings").await.value();
            assert!(problem["detail"].as_str().unwrap().contains(cure), "{bad}: {problem}");
        }
    }
    let rules: serde_json::Map<String, Value> =
        (0..1_001).map(|number| (format!("/{number}"), json!("lww"))).collect();
    set(us, "notes", &json!({"paths": rules})).refused(422, "bad_settings").await;
    us.call(Method::POST, "/v1/collections/notes").refused(405, "method_not_allowed").await;
    set(us, "a%2Fb", &json!({})).refused(400, "bad_collection").await;
    us.get("/v1/collections/notes?x=1").refused(400, "bad_query").await;
    set(us, "notes?wait=61", &json!({})).refused(400, "bad_query").await;
    assert_eq!(settings(us, "notes").ok().await.value()["settings"], json!({"policy": "max"}));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reserved_collection_is_read_and_not_written() {
    let cluster = Cluster::of(&["us"]).await;
    let us = cluster.at("us");
    let wanted = json!({"policy": "lww", "paths": {"/n": "max"}});
    let reply = set(us, "notes", &wanted).ok().await;
    let read = us.read("_collections/notes").ok().await;
    assert_eq!((read.value(), read.etag()), (wanted, reply.etag()));
    let listed = us.get("/v1/docs/_collections").ok().await.value();
    assert_eq!(listed["documents"][0]["key"], "notes");
    let mut feed = us.get("/v1/changes?since=start").header("accept", "application/x-ndjson");
    feed = feed.header("session-token", reply.token());
    let line = feed.lines().await.next().await.unwrap();
    let change: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(change["document"], "_collections/notes", "{change}");
    for name in ["_collections/notes", "_collections/other"] {
        us.put(name, &json!({})).refused(403, "reserved_collection").await;
        us.merge(name, &json!({"policy": "max"})).refused(403, "reserved_collection").await;
        us.delete(name).refused(403, "reserved_collection").await;
    }
    us.put("_other/a", &json!({})).refused(400, "bad_collection").await;
    set(us, "_collections", &json!({})).refused(403, "reserved_collection").await;
    simulate(us, "_collections", &json!({})).refused(403, "reserved_collection").await;
    let own = us.call(Method::DELETE, "/v1/collections/_collections");
    own.refused(403, "reserved_collection").await;
    let own = settings(us, "_collections").ok().await.value();
    assert_eq!(own["settings"], json!({"policy": "lww"}));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_region_sets_every_region_decides_by() {
    let cluster = disputed(&names(3)).await;
    let both = ["eu", "us"];
    for (policy, value) in [("lww", 1), ("max", 9), ("manual", 0), ("lww", 1)] {
        let reply = set(cluster.at("eu"), "notes", &json!({"policy": policy})).ok().await;
        assert_eq!(reply.status, 200);
        let value_of_reply = reply.value();
        assert_eq!(value_of_reply["redecided"]["documents"], 3, "{value_of_reply}");
        decided(&cluster, &both, "notes", &value_of_reply["version"]).await;
        let picture = cluster.agreed(&["notes"]).await;
        let rows = picture.conflicts();
        assert_eq!(rows.len(), 3);
        for row in &rows {
            assert_eq!(
                (&row["policy"], &row["policy_version"]),
                (&json!(policy), &value_of_reply["version"])
            );
            assert_eq!(row["candidates"].as_array().unwrap().len(), 2, "{row:#}");
            let state = if policy == "manual" { "open" } else { "auto-resolved" };
            assert_eq!(row["state"], state, "{row:#}");
        }
        if policy != "manual" {
            assert!(picture.listed().iter().all(|listed| listed["value"] == json!({"n": value})));
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulation_writes_nothing_and_tells_what_setting_does() {
    let cluster = disputed(&names(5)).await;
    let us = cluster.at("us");
    set(us, "notes", &json!({"policy": "lww"})).ok().await;
    let before = cluster.agreed(&["notes"]).await;
    let wanted = json!({"policy": "max"});
    let told = simulate(us, "notes", &wanted).ok().await.value();
    assert_eq!(cluster.agreed(&["notes"]).await, before);
    assert_eq!((&told["conflicts"], &told["flipped"]), (&json!(5), &json!(5)));
    for flip in told["flips"].as_array().unwrap() {
        assert!(flip["document"].as_str().unwrap().starts_with("notes/"), "{flip}");
        let (from, to) = (&flip["from"], &flip["to"]);
        assert_eq!((&from["policy"], &from["value"]), (&json!("lww"), &json!(1)));
        assert_eq!((&to["policy"], &to["value"]), (&json!("max"), &json!(9)));
    }
    let done = set(us, "notes", &wanted).ok().await.value();
    assert_eq!((&done["version"], &done["redecided"]["flipped"]), (&told["version"], &json!(5)));
    let again = simulate(us, "notes", &wanted).ok().await.value();
    assert_eq!((&again["flipped"], &again["flips"]), (&json!(0), &json!([])));
    for flip in told["flips"].as_array().unwrap() {
        let id = flip["id"].as_str().unwrap();
        let row = us.get(format!("/v1/conflicts/{id}")).ok().await.value();
        assert_eq!(row["winner"], flip["to"]["candidate"]);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_two_regions_at_once_converge() {
    let cluster = Cluster::of(&["eu", "us"]).await;
    set(cluster.at("us"), "notes", &json!({"policy": "lww"})).ok().await;
    cluster.agreed(&["_collections"]).await;
    cluster.cut("eu", "us").await;
    let us = json!({"policy": "max", "paths": {"/a": "min"}});
    set(cluster.at("us"), "notes", &us).ok().await;
    let eu = json!({"policy": "lww", "paths": {"/b": "first"}});
    set(cluster.at("eu"), "notes", &eu).ok().await;
    cluster.heal("eu", "us");
    cluster.agreed(&["_collections"]).await;
    let merged = json!({"policy": "max", "paths": {"/a": "min", "/b": "first"}});
    let here = settings(cluster.at("us"), "notes").ok().await.value();
    assert_eq!(here["settings"], merged);
    decided(&cluster, &["eu", "us"], "notes", &here["version"]).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_in_three_regions_makes_one_change() {
    let plan = Plan::new(&["ap", "eu", "us"]).bare("ap");
    let mut cluster = plan
        .policy("notes", Policy::Max, &[("/a", Policy::Lww), ("/b", Policy::Min)])
        .policy("latest", Policy::Lww, &[])
        .start()
        .await;
    let file = json!({"policy": "max", "paths": {"/a": "lww", "/b": "min"}});
    let found = settings(cluster.at("us"), "notes").ok().await.value();
    assert_eq!(found["settings"], file);
    decided(&cluster, &["ap", "eu", "us"], "notes", &found["version"]).await;
    let picture = cluster.agreed(&["_collections"]).await;
    assert_eq!((picture.listed().len(), picture.conflicts().len()), (2, 0));
    // What is set holds against the file, also after a restart with it.
    let reply = set(cluster.at("ap"), "notes", &json!({"policy": "first"})).ok().await.value();
    decided(&cluster, &["ap", "eu", "us"], "notes", &reply["version"]).await;
    cluster.restart("us").await;
    let found = decided(&cluster, &["ap", "eu", "us"], "notes", &reply["version"]).await;
    assert_eq!(found["settings"], json!({"policy": "first"}));
    cluster.stop().await;
}

/// The settings are durable before the documents are decided by them, so a node may stop in
/// between; it goes on when it starts again.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_while_it_decides_goes_on() {
    let mut cluster = disputed(&names(60)).await;
    let path = "/v1/collections/notes?wait=0";
    let call = cluster.at("us").call(Method::PUT, path).json(&json!({"policy": "max"}));
    let reply: Reply = call.ok().await;
    let told = reply.value();
    match reply.status {
        202 => assert!(told["redeciding"]["documents_left"].is_u64(), "{told}"),
        _ => assert_eq!(told["redecided"]["documents"], 60, "{told}"),
    }
    let version = told["version"].clone();
    cluster.restart("us").await;
    decided(&cluster, &["eu", "us"], "notes", &version).await;
    let picture = cluster.agreed(&["notes"]).await;
    assert!(picture.listed().iter().all(|listed| listed["value"] == json!({"n": 9})));
    let rows = picture.conflicts();
    assert_eq!(rows.len(), 60);
    assert!(rows.iter().all(|row| row["policy_version"] == version), "{rows:#?}");
    cluster.stop().await;
}
