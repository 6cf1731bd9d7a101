//! Deleting, purging and compacting over real nodes: with regions that are cut off, and return.

use serde_json::{Value, json};

use crate::support::{Client, Cluster, Reply, encoded, eventually, seen};

impl Client {
    async fn act(&self, verb: &str, name: &str, body: &Value) -> Reply {
        let (collection, key) = name.split_once('/').unwrap();
        let path = format!("/v1/{verb}/{collection}/{}", encoded(key));
        self.call(hyper::Method::POST, path).json(body).send().await
    }

    async fn epochs(&self, name: &str) -> Vec<Value> {
        let told = self.get(format!("/v1/epochs/{name}")).ok().await.value();
        told["epochs"].as_array().unwrap().clone()
    }

    async fn shows(&self, name: &str, wanted: Option<Value>) {
        eventually("the document shows it", async || {
            let found = self.value(name).await;
            seen(found == wanted, || format!("{found:?}"))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_is_undone_in_another_region() {
    let cluster = Cluster::of(&["eu", "us"]).await;
    let (eu, us) = (cluster.at("eu"), cluster.at("us"));
    eu.put("cities/paris", &json!({"name": "Paris", "n": [1, 2]})).ok().await;
    us.shows("cities/paris", Some(json!({"name": "Paris", "n": [1, 2]}))).await;
    eu.delete("cities/paris").ok().await;
    us.shows("cities/paris", None).await;
    let back = us.act("undelete", "cities/paris", &json!({"note": "oops"})).await.expect(201);
    assert_eq!(back.header("location"), "/v1/docs/cities/paris");
    eu.shows("cities/paris", Some(json!({"name": "Paris", "n": [1, 2]}))).await;
    let again = us.act("undelete", "cities/paris", &json!({})).await.expect(409);
    assert_eq!(again.value()["code"], "not_deleted");
    let history = eu.get("/v1/history/cities/paris").ok().await.value();
    assert_eq!(
        (&history["changes"][0]["act"], &history["changes"][0]["note"]),
        (&json!("undelete"), &json!("oops"))
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_waits_for_a_region_that_is_cut_off_and_nothing_brings_the_document_back() {
    let cluster = Cluster::of(&["ap", "eu", "us"]).await;
    let (ap, eu, us) = (cluster.at("ap"), cluster.at("eu"), cluster.at("us"));
    eu.put("cities/paris", &json!({"name": "Paris"})).ok().await;
    ap.shows("cities/paris", Some(json!({"name": "Paris"}))).await;
    cluster.isolate("ap").await;
    eu.delete("cities/paris").ok().await;
    us.shows("cities/paris", None).await;
    let refused = eu.act("purge", "cities/paris", &json!({"wait_seconds": 0})).await.expect(409);
    assert_eq!(refused.value()["code"], "not_everywhere");
    assert!(refused.value()["detail"].as_str().unwrap().contains("ap"), "{refused:?}");
    // What the region does meanwhile knows nothing of the delete: it is a conflict, not lost.
    cluster.rejoin("ap");
    ap.shows("cities/paris", None).await;
    eu.act("purge", "cities/paris", &json!({"wait_seconds": 60})).await.expect(204);
    for region in [ap, eu, us] {
        eventually("the purge is known", async || {
            let state = region.epochs("cities/paris").await[0]["state"].clone();
            seen(state == "purged", || format!("{state}"))
        })
        .await;
        let gone = region.act("undelete", "cities/paris", &json!({})).await.expect(404);
        assert_eq!(gone.value()["code"], "document_purged");
        eventually("its content is dropped", async || {
            let text = region.get("/metrics").ok().await;
            let text = String::from_utf8(text.body.to_vec()).unwrap();
            seen(text.contains("\nanabranch_purged_documents_dropped 1\n"), || text.clone())
        })
        .await;
    }
    ap.put("cities/paris", &json!({"name": "Paris again"})).ok().await;
    us.shows("cities/paris", Some(json!({"name": "Paris again"}))).await;
    cluster.agreed(&["cities"]).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_document_goes_on_and_edits_of_a_region_that_was_cut_off_are_merged() {
    let cluster = Cluster::of(&["ap", "eu", "us"]).await;
    let (ap, eu, us) = (cluster.at("ap"), cluster.at("eu"), cluster.at("us"));
    for n in 0..20 {
        us.put("cities/paris", &json!({"name": "Paris", "n": n, "mayor": "A"})).ok().await;
    }
    cluster.agreed(&["cities"]).await;
    cluster.isolate("us").await;
    us.merge("cities/paris", &json!({"mayor": "from us", "n": "from us"})).ok().await;
    let other = eu.act("compact", "cities/paris", &json!({})).await.expect(409);
    assert_eq!(other.value()["code"], "other_leader");
    assert!(other.value()["leader"].as_str().unwrap().starts_with("http://"), "{other:?}");
    let compacted = ap.act("compact", "cities/paris", &json!({"note": "long"})).await.expect(200);
    assert_eq!(
        (&compacted.value()["epoch"], &compacted.value()["archived_changes"]),
        (&json!(1), &json!(20))
    );
    eu.shows("cities/paris", Some(json!({"name": "Paris", "n": 19, "mayor": "A"}))).await;
    eventually("the new epoch is in the other region", async || {
        let epochs = eu.epochs("cities/paris").await.len();
        seen(epochs == 2, || format!("{epochs}"))
    })
    .await;
    eu.merge("cities/paris", &json!({"n": "from eu"})).ok().await;
    cluster.rejoin("us");
    for region in [ap, eu, us] {
        eventually("the late edit is merged", async || {
            let shown = region.value("cities/paris").await.unwrap();
            seen(shown["mayor"] == "from us", || format!("{shown}"))
        })
        .await;
        eventually("what collided is in the ledger", async || {
            let open = region.conflicts("document=cities/paris&state=open").await;
            seen(open.len() == 1 && open[0]["path"] == "/n", || format!("{open:?}"))
        })
        .await;
        let archived = region.get("/v1/docs/cities/paris?epoch=0").ok().await.value();
        assert_eq!(archived, json!({"name": "Paris", "n": 19, "mayor": "A"}));
        let epochs = region.epochs("cities/paris").await;
        assert_eq!(epochs[0]["late"][0]["became"], "merged", "{epochs:?}");
        assert_eq!(epochs[0]["late"][0]["region"], "us");
    }
    cluster.agreed(&["cities"]).await;
    cluster.stop().await;
}
