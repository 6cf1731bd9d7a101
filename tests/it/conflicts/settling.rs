//! Settling: every way, by one and by many, at once and again.

use anabranch_crdt::policy::Policy;
use hyper::Method;
use serde_json::{Value, json};

use super::ledger::{candidate_of, settled};
use super::{healed, pair};
use crate::support::client::Call;
use crate::support::{Client, Cluster, Plan, eventually, seen};

/// Writes different values to the fields of one document in both regions at once, `eu` later than
/// `us`; `null` deletes.
async fn dispute(cluster: &Cluster, name: &str, start: Value, us: Value, eu: Value) {
    cluster.at("us").put(name, &start).ok().await;
    cluster.agreed(&["notes"]).await;
    cluster.cut("eu", "us").await;
    cluster.at("us").merge(name, &us).ok().await;
    cluster.at("eu").merge(name, &eu).ok().await;
    healed(cluster, &["notes"]).await;
}

async fn disputed(start: Value, us: Value, eu: Value) -> Cluster {
    let cluster = pair().await;
    dispute(&cluster, "notes/a", start, us, eu).await;
    cluster
}

async fn disputed_title() -> Cluster {
    disputed(json!({"title": "t"}), json!({"title": "us"}), json!({"title": "eu"})).await
}

async fn conflict_at(client: &Client, path: &str) -> Value {
    let all = client.conflicts("limit=1000").await;
    let found = all.iter().find(|conflict| conflict["path"] == path);
    found.unwrap_or_else(|| panic!("no conflict at '{path}': {all:#?}")).clone()
}

async fn read(client: &Client, conflict: &Value) -> Value {
    client.get(format!("/v1/conflicts/{}", id(conflict))).ok().await.value()
}

fn id(conflict: &Value) -> &str {
    conflict["id"].as_str().unwrap()
}

fn act<'a>(client: &'a Client, conflict: &Value, verb: &str, body: &Value) -> Call<'a> {
    client.call(Method::POST, format!("/v1/conflicts/{}:{verb}", id(conflict))).json(body)
}

/// The acts of a row as (act, region).
fn acts(conflict: &Value) -> Vec<(&str, &str)> {
    fn of(act: &Value) -> (&str, &str) {
        assert!(act["at"].is_string() && act["change"].is_string(), "{act}");
        (act["act"].as_str().unwrap(), act["region"].as_str().unwrap())
    }
    conflict["acts"].as_array().unwrap().iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_settled_in_every_way() {
    let text = "one two three";
    let field = |region: &str, text: &str, list: Value| {
        json!({"take": region, "value": region, "delete": region, "policy": region,
            "merge": text, "in": {"a": 1, "list": list}})
    };
    let start = field("t", text, json!([]));
    let us = field("us", "one two three four", json!([1]));
    let cluster = disputed(start, us, field("eu", "zero one two three", json!([]))).await;
    let (us, eu) = (cluster.at("us"), cluster.at("eu"));
    let take = candidate_of(&conflict_at(us, "/take").await, "us").to_owned();
    let mut ids = Vec::new();
    for (path, body) in [
        ("/take", json!({"take": take, "note": "us knows best"})),
        ("/value", json!({"value": {"both": [1, 2]}})),
        ("/delete", json!({"delete": true})),
        ("/policy", json!({"policy": "lww"})),
        ("/merge", json!({"merge": true})),
    ] {
        let conflict = conflict_at(us, path).await;
        assert_eq!(conflict["state"], "open", "{conflict:#}");
        let reply = us.resolve(&conflict, &body).header("author", "Ada").ok().await.value();
        assert_eq!(reply["state"], "resolved", "{reply:#}");
        assert_eq!(acts(&reply), [("resolve", "us")]);
        assert_eq!(reply["settled"]["author"], "Ada");
        assert_eq!(reply["candidates"], conflict["candidates"], "what lost is not forgotten");
        ids.push(id(&conflict).to_owned());
    }
    for id in ids {
        let there = settled(eu, &id).await;
        assert_eq!(there, settled(us, &id).await);
    }
    let picture = cluster.agreed(&["notes"]).await;
    let expected = json!({"take": "us", "value": {"both": [1, 2]}, "policy": "eu",
        "merge": "zero one two three four", "in": {"a": 1, "list": [1]}});
    assert_eq!(picture.listed()[0]["value"], expected);
    cluster.stop().await;
}

/// Two people resolve one conflict at once, in regions that do not hear of each other.
#[tokio::test(flavor = "multi_thread")]
async fn two_resolutions_at_once_are_one() {
    for values in [["x", "y"], ["same", "same"]] {
        let cluster = disputed_title().await;
        let conflict = conflict_at(cluster.at("us"), "/title").await;
        cluster.cut("eu", "us").await;
        for (region, value) in ["us", "eu"].into_iter().zip(values) {
            cluster.at(region).resolve(&conflict, &json!({"value": value})).ok().await;
        }
        let picture = healed(&cluster, &["notes"]).await;
        let title = picture.listed()[0]["value"]["title"].clone();
        assert!(values.map(Value::from).contains(&title), "{title}");
        assert_eq!(picture.listed()[0]["conflicts"], 0);
        let [row] = picture.conflicts().try_into().unwrap();
        assert_eq!((id(&row), &row["state"]), (id(&conflict), &json!("resolved")), "{row:#}");
        let mut regions: Vec<_> = acts(&row).into_iter().map(|(_, region)| region).collect();
        regions.sort_unstable();
        assert_eq!(regions, ["eu", "us"], "{row:#}");
        cluster.stop().await;
    }
}

/// The same in three regions, where the third one dismisses.
#[tokio::test(flavor = "multi_thread")]
async fn three_regions_that_settle_at_once_agree() {
    let cluster = Cluster::of(&["ap", "eu", "us"]).await;
    cluster.at("us").put("notes/a", &json!({"title": "t"})).ok().await;
    cluster.agreed(&["notes"]).await;
    apart(&cluster, &["ap", "eu", "us"]).await;
    for region in ["us", "eu", "ap"] {
        cluster.at(region).merge("notes/a", &json!({"title": region})).ok().await;
    }
    together(&cluster, &["ap", "eu", "us"]);
    cluster.agreed(&["notes"]).await;
    let conflict = conflict_at(cluster.at("us"), "/title").await;
    assert_eq!(conflict["candidates"].as_array().unwrap().len(), 3);
    apart(&cluster, &["ap", "eu", "us"]).await;
    for region in ["eu", "us"] {
        let body = json!({"value": format!("by {region}"), "note": region});
        cluster.at(region).resolve(&conflict, &body).ok().await;
    }
    act(cluster.at("ap"), &conflict, "dismiss", &json!({})).ok().await;
    together(&cluster, &["ap", "eu", "us"]);
    let picture = cluster.agreed(&["notes"]).await;
    let [row] = picture.conflicts().try_into().unwrap();
    assert_eq!(acts(&row).len(), 3, "{row:#}");
    assert_eq!(row["state"], "dismissed", "the dismissal was the last: {row:#}");
    cluster.stop().await;
}

async fn apart(cluster: &Cluster, regions: &[&str]) {
    for (place, one) in regions.iter().enumerate() {
        for other in &regions[place + 1..] {
            cluster.cut(one, other).await;
        }
    }
}

fn together(cluster: &Cluster, regions: &[&str]) {
    for (place, one) in regions.iter().enumerate() {
        regions[place + 1..].iter().for_each(|other| cluster.heal(one, other));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_dismissed_and_reopened() {
    let cluster = disputed_title().await;
    let (us, eu) = (cluster.at("us"), cluster.at("eu"));
    let conflict = conflict_at(us, "/title").await;
    act(us, &conflict, "reopen", &json!({})).refused(409, "already_open").await;
    let before = us.value("notes/a").await;
    let reply = act(us, &conflict, "dismiss", &json!({"note": "never mind"})).ok().await;
    assert_eq!(reply.header("conflicts"), "0");
    assert_eq!(reply.value()["state"], "dismissed");
    assert_eq!(us.value("notes/a").await, before, "what shows goes on showing");
    let picture = cluster.agreed(&["notes"]).await;
    assert_eq!(picture.conflicts()[0]["settled"]["note"], "never mind");
    for body in [json!({"value": 1}), json!({"delete": true})] {
        let refused = eu.resolve(&conflict, &body).refused(409, "already_dismissed").await;
        assert_eq!(refused.value()["conflict"], picture.conflicts()[0]);
    }
    act(eu, &conflict, "dismiss", &json!({})).refused(409, "already_dismissed").await;
    let reopened = act(eu, &conflict, "reopen", &json!({})).ok().await;
    assert_eq!((reopened.header("conflicts"), &reopened.value()["state"]), ("1", &json!("open")));
    let picture = cluster.agreed(&["notes"]).await;
    let [row] = picture.conflicts().try_into().unwrap();
    assert_eq!(acts(&row), [("dismiss", "us"), ("reopen", "eu")]);
    us.resolve(&row, &json!({"value": "done"})).ok().await;
    let resolved = settled(eu, id(&row)).await;
    assert_eq!(acts(&resolved).len(), 3);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resolution_is_undone() {
    let mut cluster = disputed_title().await;
    let us = cluster.at("us");
    let conflict = conflict_at(us, "/title").await;
    act(us, &conflict, "undo", &json!({})).refused(409, "not_resolved").await;
    let before = us.value("notes/a").await;
    us.resolve(&conflict, &json!({"value": "wrong"})).ok().await;
    settled(cluster.at("eu"), id(&conflict)).await;
    cluster.restart("eu").await;
    let eu = cluster.at("eu");
    let reply = act(eu, &conflict, "undo", &json!({"note": "that was wrong"})).ok().await;
    assert_eq!((reply.header("conflicts"), &reply.value()["state"]), ("1", &json!("open")));
    assert_eq!(eu.value("notes/a").await, before);
    let picture = cluster.agreed(&["notes"]).await;
    let [row] = picture.conflicts().try_into().unwrap();
    assert_eq!(acts(&row), [("resolve", "us"), ("undo", "eu")]);

    let (us, eu) = (cluster.at("us"), cluster.at("eu"));
    us.resolve(&row, &json!({"value": "right"})).ok().await;
    us.merge("notes/a", &json!({"title": "later"})).ok().await;
    let picture = cluster.agreed(&["notes"]).await;
    let refused = act(eu, &row, "undo", &json!({})).refused(409, "changed_since").await.value();
    assert_eq!(refused["conflict"], picture.conflicts()[0]);
    assert_eq!(eu.value("notes/a").await, Some(json!({"title": "later"})));
    cluster.stop().await;
}

/// Somebody decides about two values, and a third one arrives before the decision does.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_about_what_has_changed_is_refused() {
    let cluster = Cluster::of(&["ap", "eu", "us"]).await;
    let us = cluster.at("us");
    us.put("notes/a", &json!({"title": "t"})).ok().await;
    cluster.agreed(&["notes"]).await;
    apart(&cluster, &["ap", "eu", "us"]).await;
    for region in ["us", "eu", "ap"] {
        cluster.at(region).merge("notes/a", &json!({"title": region})).ok().await;
    }
    cluster.heal("eu", "us");
    cluster.agreed_among(&["eu", "us"], &["notes"]).await;
    let conflict = conflict_at(us, "/title").await;
    let shown = us.get(format!("/v1/conflicts/{}", id(&conflict))).ok().await;
    let tag = shown.etag();
    assert_eq!(tag, format!("\"{}\"", conflict["revision"].as_str().unwrap()));
    together(&cluster, &["ap", "eu", "us"]);
    cluster.agreed(&["notes"]).await;
    let row = conflict_at(us, "/title").await;
    assert_eq!(row["candidates"].as_array().unwrap().len(), 3);
    let body = json!({"take": candidate_of(&conflict, "us")});
    for (verb, body) in [("resolve", &body), ("dismiss", &json!({}))] {
        let call = act(us, &row, verb, body).header("if-match", &tag);
        let refused = call.refused(412, "conflict_changed").await.value();
        assert_eq!(refused["conflict"], row);
    }
    let foreign = us.resolve(&row, &body).header("if-match", "\"x\"");
    foreign.refused(412, "conflict_changed").await;
    us.resolve(&row, &body).header("if-match", "x").refused(400, "bad_precondition").await;
    let tag = format!("\"{}\"", row["revision"].as_str().unwrap());
    us.resolve(&row, &body).header("if-match", &tag).ok().await;
    let refused = us.resolve(&row, &body).header("if-match", &tag).refused(409, "already_resolved");
    assert_eq!(refused.await.value()["conflict"], read(us, &row).await);
    cluster.stop().await;
}

/// What was taken goes on being what it was: both regions count and write on, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn counters_and_texts_stay_what_they_are() {
    let cluster = pair().await;
    cluster.at("us").put("notes/a", &json!({"x": 0})).ok().await;
    cluster.agreed(&["notes"]).await;
    cluster.cut("eu", "us").await;
    let counted = json!([
        {"op": "increment", "path": "/n", "by": 3},
        {"op": "set", "path": "/t", "value": ""},
        {"op": "splice", "path": "/t", "at": 0, "insert": "the cat"},
    ]);
    cluster.at("us").edit("notes/a", &counted).ok().await;
    cluster.at("eu").merge("notes/a", &json!({"n": "many", "t": 7})).ok().await;
    healed(&cluster, &["notes"]).await;
    let us = cluster.at("us");
    for path in ["/n", "/t"] {
        let conflict = conflict_at(us, path).await;
        let body = json!({"take": candidate_of(&conflict, "us")});
        us.resolve(&conflict, &body).ok().await;
    }
    let picture = cluster.agreed(&["notes"]).await;
    assert_eq!(picture.listed()[0]["value"], json!({"x": 0, "n": 3, "t": "the cat"}));
    cluster.cut("eu", "us").await;
    for (region, at, word) in [("us", 0, "so "), ("eu", 7, " sat")] {
        let edits = json!([
            {"op": "increment", "path": "/n", "by": 10},
            {"op": "splice", "path": "/t", "at": at, "insert": word},
        ]);
        cluster.at(region).edit("notes/a", &edits).ok().await;
    }
    let picture = healed(&cluster, &["notes"]).await;
    let expected = json!({"x": 0, "n": 23, "t": "so the cat sat"});
    assert_eq!(picture.listed()[0]["value"], expected);
    let open = picture.conflicts().into_iter().filter(|row| row["state"] == "open").count();
    assert_eq!(open, 0, "{:#?}", picture.conflicts());
    cluster.stop().await;
}

/// A counter is set in one region while the other one counts: the count can be taken.
#[tokio::test(flavor = "multi_thread")]
async fn an_increment_can_be_taken() {
    let cluster = pair().await;
    cluster.at("us").put("notes/a", &json!({"x": 0})).ok().await;
    let count = |by: i64| json!([{"op": "increment", "path": "/n", "by": by}]);
    cluster.at("us").edit("notes/a", &count(5)).ok().await;
    cluster.agreed(&["notes"]).await;
    cluster.cut("eu", "us").await;
    cluster.at("us").edit("notes/a", &count(2)).ok().await;
    cluster.at("eu").merge("notes/a", &json!({"n": "reset"})).ok().await;
    healed(&cluster, &["notes"]).await;
    let us = cluster.at("us");
    let conflict = conflict_at(us, "/n").await;
    assert_eq!(conflict["kind"], "counter", "{conflict:#}");
    us.resolve(&conflict, &json!({"merge": true})).refused(422, "not_mergeable").await;
    us.resolve(&conflict, &json!({"take": candidate_of(&conflict, "us")})).ok().await;
    us.edit("notes/a", &count(1)).ok().await;
    let picture = cluster.agreed(&["notes"]).await;
    assert_eq!(picture.listed()[0]["value"], json!({"x": 0, "n": 8}));
    cluster.stop().await;
}

/// One region edits inside a list element that the other one removes, and the edit is taken: it
/// comes back as an element, next to the others and over none of them.
#[tokio::test(flavor = "multi_thread")]
async fn an_edit_inside_a_removed_element_can_be_taken() {
    let cluster = pair().await;
    let start = json!({"items": [{"name": "a"}, {"name": "b"}]});
    cluster.at("us").put("notes/a", &start).ok().await;
    cluster.agreed(&["notes"]).await;
    cluster.cut("eu", "us").await;
    let edit = json!([{"op": "set", "path": "/items/0/name", "value": "A"}]);
    cluster.at("us").edit("notes/a", &edit).ok().await;
    cluster.at("eu").edit("notes/a", &json!([{"op": "remove", "path": "/items/0"}])).ok().await;
    let picture = healed(&cluster, &["notes"]).await;
    assert_eq!(picture.listed()[0]["value"], json!({"items": [{"name": "b"}]}));
    let conflict = conflict_at(cluster.at("eu"), "/items/0/name").await;
    assert_eq!(conflict["state"], "auto-resolved");
    let body = json!({"take": candidate_of(&conflict, "us")});
    cluster.at("eu").resolve(&conflict, &body).ok().await;
    let picture = cluster.agreed(&["notes"]).await;
    assert_eq!(picture.listed()[0]["value"], json!({"items": [{"name": "A"}, {"name": "b"}]}));
    cluster.stop().await;
}

/// A document is deleted in one region and edited in the other one; either can be taken.
#[tokio::test(flavor = "multi_thread")]
async fn the_delete_of_a_document_can_be_taken_and_so_can_the_edit() {
    let cluster = pair().await;
    let names = ["notes/edit", "notes/delete"];
    for name in names {
        cluster.at("us").put(name, &json!({"title": "t", "x": 0})).ok().await;
    }
    cluster.agreed(&["notes"]).await;
    cluster.cut("eu", "us").await;
    for name in names {
        cluster.at("us").delete(name).ok().await;
        cluster.at("eu").merge(name, &json!({"title": "eu"})).ok().await;
    }
    healed(&cluster, &["notes"]).await;
    let us = cluster.at("us");
    for (name, region) in [("notes/edit", "eu"), ("notes/delete", "us")] {
        let rows = us.conflicts(&format!("document={name}&kind=document")).await;
        let [row] = rows.try_into().unwrap();
        assert_eq!(row["path"], "", "{row:#}");
        us.resolve(&row, &json!({"take": candidate_of(&row, region)})).ok().await;
    }
    let picture = cluster.agreed(&["notes"]).await;
    let listed = picture.listed();
    assert_eq!(listed.len(), 1, "{listed:#?}");
    assert_eq!(listed[0]["value"], json!({"title": "eu", "x": 0}));
    let row = us.conflicts("document=notes/delete&kind=document").await.remove(0);
    assert_eq!(row["state"], "resolved", "{row:#}");
    act(us, &row, "undo", &json!({})).ok().await;
    let undone = us.value("notes/delete").await.unwrap();
    assert_eq!(undone["title"], "eu");
    act(us, &row, "dismiss", &json!({})).ok().await;
    cluster.agreed(&["notes"]).await;
    cluster.stop().await;
}

/// One region takes the delete of a document and the other one the edit, at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_kept_and_deleted_at_once_is_one_of_them() {
    let cluster = pair().await;
    cluster.at("us").put("notes/a", &json!({"title": "t", "x": 0})).ok().await;
    cluster.agreed(&["notes"]).await;
    cluster.cut("eu", "us").await;
    cluster.at("us").delete("notes/a").ok().await;
    cluster.at("eu").merge("notes/a", &json!({"title": "eu"})).ok().await;
    healed(&cluster, &["notes"]).await;
    let [row] = cluster.at("us").conflicts("kind=document").await.try_into().unwrap();
    cluster.cut("eu", "us").await;
    for region in ["eu", "us"] {
        let body = json!({"take": candidate_of(&row, region)});
        cluster.at(region).resolve(&row, &body).ok().await;
    }
    let picture = healed(&cluster, &["notes"]).await;
    let listed = picture.listed();
    let kept = json!({"title": "eu", "x": 0});
    assert!(listed.is_empty() || listed[0]["value"] == kept, "{listed:#?}");
    let open = picture.conflicts().into_iter().filter(|row| row["state"] == "open").count();
    assert_eq!(open, 0, "{:#?}", picture.conflicts());
    let row = cluster.at("eu").conflicts("kind=document").await.remove(0);
    assert_eq!((&row["state"], acts(&row).len()), (&json!("resolved"), 2), "{row:#}");
    cluster.stop().await;
}

/// Writes `/title` and `/text` of some documents in both regions at once.
async fn many(documents: usize) -> Cluster {
    let cluster = Plan::new(&["eu", "us"]).policy("latest", Policy::Lww, &[]).start().await;
    for number in 0..documents {
        let start = json!({"title": "t", "text": "a b"});
        cluster.at("us").put(&format!("notes/{number}"), &start).ok().await;
    }
    cluster.agreed(&["notes"]).await;
    cluster.cut("eu", "us").await;
    for (region, text) in [("us", "a b us"), ("eu", "eu a b")] {
        for number in 0..documents {
            let patch = json!({"title": region, "text": text});
            cluster.at(region).merge(&format!("notes/{number}"), &patch).ok().await;
        }
    }
    healed(&cluster, &["notes"]).await;
    cluster
}

/// Settles in bulk; returns the lines but the last one, and the last one.
async fn bulk(client: &Client, verb: &str, body: Value) -> (Vec<Value>, Value) {
    let reply = client.call(Method::POST, format!("/v1/conflicts:{verb}")).json(&body).ok().await;
    assert_eq!(reply.header("content-type"), "application/x-ndjson");
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    let mut lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.pop().unwrap();
    assert_eq!(last["done"], true, "{last}");
    assert_eq!(last["matched"], lines.len(), "{last}");
    (lines, last)
}

fn outcomes(lines: &[Value], outcome: &str) -> usize {
    lines.iter().filter(|line| line["outcome"] == outcome).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_conflicts_are_settled_by_one_rule() {
    let cluster = many(7).await;
    let us = cluster.at("us");
    let titles = json!({"collection": "notes", "path": "/title"});
    let rehearsed = json!({"filter": titles, "take": "region:us", "dry_run": true});
    let (lines, last) = bulk(us, "resolve", rehearsed).await;
    assert_eq!((outcomes(&lines, "would-resolve"), &last["changed"]), (7, &json!(0)), "{lines:#?}");
    assert!(lines.iter().all(|line| line["value"] == "us"), "{lines:#?}");
    assert_eq!(us.conflicts("state=open&limit=1000").await.len(), 14, "nothing was written");

    let some = json!({"filter": titles, "take": "region:us", "limit": 3, "note": "bulk"});
    let (lines, last) = bulk(us, "resolve", some).await;
    assert_eq!((outcomes(&lines, "resolved"), &last["changed"]), (3, &json!(3)), "{lines:#?}");
    let (lines, _) = bulk(us, "resolve", json!({"filter": titles, "take": "region:ap"})).await;
    assert_eq!((lines.len(), outcomes(&lines, "skipped")), (4, 4), "{lines:#?}");
    let (lines, _) = bulk(us, "resolve", json!({"filter": titles, "take": "earliest"})).await;
    assert_eq!(outcomes(&lines, "resolved"), 4);
    let (lines, _) = bulk(us, "resolve", json!({"all": true, "merge": true})).await;
    assert_eq!(outcomes(&lines, "resolved"), 7, "{lines:#?}");
    assert!(lines.iter().all(|line| line["value"] == "eu a b us"), "{lines:#?}");

    let picture = cluster.agreed(&["notes"]).await;
    for document in picture.listed() {
        assert_eq!(document["value"], json!({"title": "us", "text": "eu a b us"}));
    }
    let rows = picture.conflicts();
    assert!(rows.iter().all(|row| row["state"] == "resolved" && acts(row).len() == 1), "{rows:#?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_conflicts_are_dismissed_and_reopened() {
    let cluster = many(3).await;
    let (us, eu) = (cluster.at("us"), cluster.at("eu"));
    let one = us.conflicts("document=notes/0&path=/text").await.remove(0);
    us.resolve(&one, &json!({"value": "x"})).ok().await;
    let (lines, last) = bulk(us, "dismiss", json!({"all": true, "note": "all of them"})).await;
    assert_eq!(outcomes(&lines, "dismissed"), 5, "{lines:#?}");
    assert_eq!(last["skipped"], 0);
    eventually("the other region knows", async || {
        let left = eu.conflicts("state=open").await;
        seen(left.is_empty(), || format!("{left:#?}"))
    })
    .await;
    let filter = json!({"filter": {"document": "notes/0"}});
    let (lines, last) = bulk(eu, "reopen", filter.clone()).await;
    assert_eq!(outcomes(&lines, "reopened"), 2, "{lines:#?}");
    assert_eq!((&last["changed"], &last["failed"]), (&json!(2), &json!(0)));
    let (lines, last) = bulk(eu, "reopen", filter).await;
    assert_eq!((outcomes(&lines, "skipped"), &last["changed"]), (2, &json!(0)), "{lines:#?}");
    let picture = cluster.agreed(&["notes"]).await;
    let open = picture.conflicts().into_iter().filter(|row| row["state"] == "open").count();
    assert_eq!(open, 2);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settlements_are_refused() {
    let cluster = disputed(json!({"n": 1}), json!({"n": 2}), json!({"n": 3})).await;
    let us = cluster.at("us");
    let conflict = conflict_at(us, "/n").await;
    let refused =
        us.resolve(&conflict, &json!({"merge": true})).refused(422, "not_mergeable").await;
    assert!(refused.value()["detail"].as_str().unwrap().contains("numbers"), "{refused:?}");
    us.resolve(&conflict, &json!({"policy": "manual"})).refused(422, "bad_resolution").await;
    us.resolve(&conflict, &json!({"take": "1@00"})).refused(422, "unknown_candidate").await;
    let ordered = us.resolve(&conflict, &json!({"policy": "region-priority"}));
    ordered.refused(422, "not_decidable").await;
    let call = us.resolve(&conflict, &json!({"delete": true})).header("author", "");
    call.refused(400, "bad_author").await;
    for verb in ["dismiss", "reopen", "undo"] {
        act(us, &conflict, verb, &json!({"take": "1@00"})).refused(422, "bad_resolution").await;
        let path = format!("/v1/conflicts/{}:{verb}", id(&conflict));
        us.get(path).refused(405, "method_not_allowed").await;
        let unknown = json!({"id": "0".repeat(32)});
        act(us, &unknown, verb, &json!({})).refused(404, "conflict_not_found").await;
    }
    act(us, &conflict, "forget", &json!({})).refused(400, "bad_conflict_id").await;
    for (body, code) in [
        (json!({"take": "latest"}), "empty_filter"),
        (json!({"take": "latest", "filter": {}}), "empty_filter"),
        (json!({"take": "1@00", "all": true}), "bad_resolution"),
        (json!({"take": "latest", "all": true, "limit": 0}), "bad_resolution"),
    ] {
        let call = us.call(Method::POST, "/v1/conflicts:resolve").json(&body);
        call.refused(422, code).await;
    }
    assert_eq!(conflict_at(us, "/n").await, conflict, "nothing was done");
    cluster.stop().await;
}
