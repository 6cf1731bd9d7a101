//! Listings: in the order of keys, by prefix, page by page.

use serde_json::{Value, json};

use super::one;
use crate::support::{Client, encoded};

async fn keys(solo: &Client, query: &str) -> (Vec<String>, Option<String>) {
    let page = solo.get(format!("/v1/docs/cities{query}")).ok().await.value();
    let listed = page["documents"].as_array().unwrap();
    let keys = listed.iter().map(|document| document["key"].as_str().unwrap().to_owned());
    (keys.collect(), page["next"].as_str().map(str::to_owned))
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_listed_page_by_page() {
    let cluster = one().await;
    let solo = cluster.at("solo");
    assert_eq!(keys(solo, "").await, (vec![], None), "an empty collection is no error");
    for key in ["fr/paris", "fr/lyon", "de/köln", "de/bonn", "at/wien"] {
        solo.put(&format!("cities/{key}"), &json!({"key": key})).ok().await;
    }
    solo.put("villages/fr/eze", &json!({})).ok().await;
    solo.delete("cities/de/bonn").ok().await;
    let all = ["at/wien", "de/köln", "fr/lyon", "fr/paris"];
    assert_eq!(keys(solo, "").await, (all.map(str::to_owned).to_vec(), None));
    let french = keys(solo, "?prefix=fr%2F").await;
    assert_eq!(french, (all[2..].iter().map(|key| (*key).to_owned()).collect(), None));
    assert_eq!(keys(solo, &format!("?prefix={}", encoded("de/kö"))).await.0, ["de/köln"]);

    let counted = solo.get("/v1/docs/cities?limit=1&total=true&prefix=fr%2F").ok().await;
    assert_eq!(counted.value()["total"], 2);

    let mut seen = Vec::new();
    let mut query = "?limit=3".to_owned();
    loop {
        let (page, next) = keys(solo, &query).await;
        assert!(page.len() <= 3);
        seen.extend(page);
        match next {
            Some(next) => query = format!("?limit=3&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, all);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_tells_entity_tags_and_values() {
    let cluster = one().await;
    let solo = cluster.at("solo");
    let written = solo.put("cities/paris", &json!({"b": 1, "a": [1.5]})).ok().await;
    let page = solo.get("/v1/docs/cities").ok().await;
    assert_eq!(page.token(), written.token());
    let plain = json!([{"key": "paris", "etag": written.etag(), "conflicts": 0}]);
    assert_eq!(page.value()["documents"], plain);
    let page = solo.get("/v1/docs/cities?values=true").ok().await.value();
    assert_eq!(page["documents"][0]["value"], json!({"b": 1, "a": [1.5]}));
    assert_eq!(page["next"], Value::Null);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_queries_are_refused() {
    let cluster = one().await;
    let solo = cluster.at("solo");
    for query in
        ["limit=0", "limit=x", "limit=1&limit=2", "cursor=zz", "values=1", "sort=key", "prefix=%ff"]
    {
        solo.get(format!("/v1/docs/cities?{query}")).refused(400, "bad_query").await;
    }
    solo.get("/v1/docs/cities/paris?pretty").refused(400, "bad_query").await;
    solo.get("/v1/docs/-cities").refused(400, "bad_collection").await;
    cluster.stop().await;
}
