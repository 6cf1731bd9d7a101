//! Regions that were away for longer than any log goes back, and replicas that are not what they
//! should be: taken over, found, told and repaired.

use std::fs;
use std::path::Path;

use anabranch::journal::{Allowance, Journal, JournalOptions};
use anabranch_crdt::ids::{ClusterId, DocumentId, Origin, RegionName, Timestamp};
use redb::{Database, ReadableTable, TableDefinition};
use serde_json::{Value, json};

use crate::support::{Client, Cluster, eventually, seen};

const DOCUMENTS: TableDefinition<'static, &[u8; 16], &[u8]> = TableDefinition::new("documents-1");
const SNAPSHOTS: TableDefinition<'static, &[u8; 17], &[u8]> = TableDefinition::new("snapshots-1");

async fn write_many(client: &Client, prefix: &str, count: u64) {
    for n in 0..count {
        client.put(&format!("many/{prefix}-{n}"), &json!({"n": n, "by": prefix})).ok().await;
    }
}

/// Whose entries a log is to have no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Everybodys,
    Others,
}

/// Makes the log of a stopped region start behind what it has, as after years. Blocks.
pub(crate) fn sweep_log(data: &Path, cluster: ClusterId, region: RegionName, whose: Whose) {
    let options = JournalOptions {
        cluster,
        region,
        cache_bytes: 1 << 20,
        new_origin: Box::new(|| Origin::from_bytes([7; 16])),
        publish: Box::new(|_| {}),
    };
    let journal = Journal::open(data, options).unwrap();
    let own = journal.origin();
    let vector = journal.position().borrow().vector.clone();
    let swept = |origin: Origin| whose == Whose::Everybodys || origin != own;
    for dot in vector.iter().filter(|dot| swept(dot.origin)) {
        let all = (dot.sequence, Timestamp::MAX);
        let allowance =
            Allowance { origin: dot.origin, everywhere: all, elsewhere: all, excess: 0 };
        while journal.sweep(allowance).unwrap().seen > 0 {}
        assert_eq!(journal.floors().sequence(dot.origin), dot.sequence);
    }
    journal.close();
}

async fn forget_the_log_of_others(cluster: &Cluster, name: &str) {
    let data = cluster.data(name);
    let settings = cluster.settings(name);
    let sweep = move || sweep_log(&data, settings.cluster, settings.region, Whose::Others);
    tokio::task::spawn_blocking(sweep).await.unwrap();
}

/// Loses a document of a stopped region, or makes its record rot.
fn lose(cluster: &Cluster, name: &str, document: &str, how: Loss) {
    let id = DocumentId::from(&document.parse().unwrap());
    let file = fs::read_dir(cluster.data(name)).unwrap().map(|entry| entry.unwrap().path());
    let file = file.into_iter().find(|path| path.extension().is_some_and(|e| e == "redb"));
    let database = Database::open(file.expect("a journal")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut documents = transaction.open_table(DOCUMENTS).unwrap();
        let record = documents.remove(id.as_bytes()).unwrap().expect("a record").value().to_vec();
        if how == Loss::Rots {
            let rotten: Vec<u8> = record.iter().map(|byte| byte ^ 1).collect();
            documents.insert(id.as_bytes(), rotten.as_slice()).unwrap();
        }
        let mut snapshots = transaction.open_table(SNAPSHOTS).unwrap();
        let of_it = |key: &[u8; 17]| key[..16] == id.as_bytes()[..];
        snapshots.retain(|key, _| !of_it(key)).unwrap();
        assert!(snapshots.iter().unwrap().all(|pair| !of_it(pair.unwrap().0.value())));
    }
    transaction.commit().unwrap();
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Vanishes,
    Rots,
}

/// Compares a region with the others now, and returns the line that sums up.
async fn verify(client: &Client, body: &Value) -> Value {
    let call = client.call(hyper::Method::POST, "/v1/replication:verify").json(body);
    let reply = call.ok().await;
    let text = std::str::from_utf8(&reply.body).unwrap();
    serde_json::from_str(text.lines().last().expect("a line")).unwrap()
}

async fn replication(client: &Client) -> Value {
    client.get("/v1/replication").ok().await.value()
}

/// The region that admitted everything is gone, the one that is left has documents but no log of
/// them, and a new one joins: it takes over the documents, is written to meanwhile, and says what
/// it does.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_region_takes_over_what_no_log_goes_back_to() {
    let mut cluster = Cluster::of(&["eu", "us", "ap"]).await;
    write_many(cluster.at("us"), "us", 300).await;
    cluster.at("us").merge("many/us-1", &json!({"again": true})).ok().await;
    cluster.agreed(&["many"]).await;
    for name in ["us", "ap", "eu"] {
        cluster.stop_node(name).await;
    }
    forget_the_log_of_others(&cluster, "eu").await;
    fs::remove_dir_all(cluster.data("ap")).unwrap();
    cluster.start_node("eu").await;
    cluster.start_node("ap").await;
    write_many(cluster.at("ap"), "ap", 20).await;
    write_many(cluster.at("eu"), "eu", 20).await;

    eventually("the new region has taken over", async || {
        let status = replication(cluster.at("ap")).await;
        let last = &status["last_bootstrap"];
        seen(last["finished"] == true && status["bootstrap"].is_null(), || status.to_string())
    })
    .await;
    let status = replication(cluster.at("ap")).await;
    assert_eq!(status["last_bootstrap"]["source"], "eu");
    assert!(status["last_bootstrap"]["documents_adopted"].as_u64().unwrap() >= 300, "{status}");
    let picture = cluster.agreed(&["many"]).await;
    assert_eq!(picture.listed().len(), 340);
    let ready = cluster.at("ap").get("/readyz").ok().await.value();
    assert_eq!(ready["ready"], true);

    // The one with the log comes back, and everything goes on as ever.
    cluster.start_node("us").await;
    write_many(cluster.at("us"), "later", 20).await;
    let picture = cluster.agreed(&["many"]).await;
    assert_eq!(picture.listed().len(), 360);
    for name in ["ap", "eu", "us"] {
        let sum = verify(cluster.at(name), &json!({})).await;
        assert_eq!((&sum["broken"], &sum["failed"]), (&json!(0), &json!(0)), "{name}: {sum}");
        assert_eq!(sum["regions"], 2);
    }
    cluster.stop().await;
}

/// A region was away, everybody has dropped what it lacks, and it has news of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_returns_after_the_log_is_gone_takes_over_what_changed() {
    let mut cluster = Cluster::of(&["eu", "us", "ap"]).await;
    write_many(cluster.at("us"), "us", 100).await;
    cluster.agreed(&["many"]).await;
    cluster.isolate("ap").await;
    cluster.at("ap").merge("many/us-5", &json!({"ap": "away"})).ok().await;
    for n in 0..30 {
        let name = format!("many/us-{}", n * 3);
        cluster.at("us").merge(&name, &json!({"us": "present"})).ok().await;
    }
    cluster.agreed_among(&["eu", "us"], &["many"]).await;
    cluster.stop_node("us").await;
    cluster.stop_node("eu").await;
    forget_the_log_of_others(&cluster, "eu").await;
    cluster.restart("ap").await;
    cluster.start_node("eu").await;
    let picture = cluster.agreed(&["many"]).await;
    assert_eq!(picture.listed().len(), 100);
    let status = eventually("it says that it has taken over", async || {
        let status = replication(cluster.at("ap")).await;
        seen(!status["last_bootstrap"].is_null(), || status.to_string())?;
        Ok(status)
    })
    .await;
    let adopted = status["last_bootstrap"]["documents_adopted"].as_u64().unwrap();
    assert!((30..40).contains(&adopted), "{status}");
    let both = cluster.at("eu").value("many/us-5").await.unwrap();
    assert_eq!(both["ap"], "away");
    cluster.stop().await;
}

/// A document is lost on one disk, and another one rots: nobody notices until they are compared.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_replica_is_found_and_repaired() {
    let mut cluster = Cluster::of(&["eu", "us"]).await;
    write_many(cluster.at("us"), "us", 50).await;
    let before = cluster.agreed(&["many"]).await;
    cluster.stop_node("eu").await;
    lose(&cluster, "eu", "many/us-7", Loss::Vanishes);
    lose(&cluster, "eu", "many/us-9", Loss::Rots);
    cluster.start_node("eu").await;
    cluster.meshed().await;

    let told = verify(cluster.at("us"), &json!({"peer": "eu"})).await;
    assert_eq!((&told["broken"], &told["repaired"]), (&json!(2), &json!(0)), "{told}");
    let differences = cluster.at("us").get("/v1/replication/differences").ok().await.value();
    let mut names: Vec<&str> = differences["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|difference| difference["document"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["many/us-7", "many/us-9"], "{differences}");

    let mended = verify(cluster.at("us"), &json!({"repair": true})).await;
    assert_eq!((&mended["broken"], &mended["repaired"]), (&json!(2), &json!(2)), "{mended}");
    let after = cluster.agreed(&["many"]).await;
    assert_eq!(after, before);
    let clean = verify(cluster.at("eu"), &json!({})).await;
    assert_eq!((&clean["broken"], &clean["compared"]), (&json!(0), &json!(50)), "{clean}");
    let metrics = cluster.at("us").get("/metrics").ok().await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(metrics.contains("anabranch_reconcile_repaired_documents_total 2"), "{metrics}");
    cluster.stop().await;
}

/// How a document stands is told by each region, and what is on its way can be seen.
#[tokio::test(flavor = "multi_thread")]
async fn each_region_tells_how_a_document_stands() {
    let cluster = Cluster::of(&["eu", "us"]).await;
    cluster.at("us").put("cities/paris", &json!({"population": 1})).ok().await;
    cluster.agreed(&["cities"]).await;
    cluster.isolate("eu").await;
    cluster.at("us").merge("cities/paris", &json!({"population": 2})).ok().await;
    let here = cluster.at("us").get("/v1/sync/cities/paris").ok().await.value();
    let there = cluster.at("eu").get("/v1/sync/cities/paris").ok().await.value();
    assert_eq!((&here["changes"], &there["changes"]), (&json!(2), &json!(1)));
    assert_ne!(here["heads"], there["heads"]);
    let of = |name: &str| {
        let regions = here["regions"].as_array().unwrap();
        regions.iter().find(|region| region["region"] == name).unwrap().clone()
    };
    assert_eq!(of("us")["durable"], true);
    assert_eq!((&of("eu")["durable"], &of("eu")["connected"]), (&json!(false), &json!(false)));
    cluster.rejoin("eu");
    eventually("it is durable in both", async || {
        let here = cluster.at("us").get("/v1/sync/cities/paris").ok().await.value();
        let all = here["regions"].as_array().unwrap().iter().all(|r| r["durable"] == true);
        seen(all, || here.to_string())
    })
    .await;
    let nobody = cluster.at("us").get("/v1/sync/cities/rome").ok().await.value();
    assert_eq!((&nobody["live"], &nobody["heads"]), (&json!(false), &json!([])));
    cluster.stop().await;
}
