//! Regions become equal: over partitions, restarts, missing links and outages.

use serde_json::{Value, json};

use crate::support::{Client, Cluster, eventually, seen};

const ALL: [&str; 3] = ["ap", "eu", "us"];

async fn write_each(cluster: &Cluster, regions: &[&str], round: u64) {
    for name in regions {
        let client = cluster.at(name);
        for n in 0..5 {
            let value = json!({"round": round, "by": name, "n": n});
            client.put(&format!("own/{name}-{n}"), &value).ok().await;
            client
                .put(&format!("shared/{n}"), &json!({"round": round, *name: {"n": n}}))
                .ok()
                .await;
        }
    }
}

async fn titles(client: &Client, name: &str) -> Value {
    client.value(name).await.unwrap_or_default()["title"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_regions_become_equal() {
    let cluster = Cluster::of(&ALL).await;
    write_each(&cluster, &ALL, 1).await;
    let picture = cluster.agreed(&["own", "shared"]).await;
    assert_eq!(picture.listed().len(), 20);
    cluster.stop().await;
}

/// One region is cut off, all three go on writing, one of them restarts in between, and the link
/// comes back: the same documents, byte for byte, and the same ledger.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_with_writes_on_both_sides_heals() {
    let mut cluster = Cluster::of(&ALL).await;
    write_each(&cluster, &ALL, 1).await;
    cluster.at("us").put("shared/title", &json!({"title": "before"})).ok().await;
    cluster.agreed(&["own", "shared"]).await;
    cluster.isolate("ap").await;
    write_each(&cluster, &ALL, 2).await;
    cluster.at("ap").merge("shared/title", &json!({"title": "from ap"})).ok().await;
    cluster.at("us").merge("shared/title", &json!({"title": "from us"})).ok().await;
    cluster.agreed_among(&["eu", "us"], &["own", "shared"]).await;
    cluster.restart("eu").await;
    cluster.node("eu").transport().set_link(&"ap".parse().unwrap(), CUT).unwrap();
    write_each(&cluster, &["eu"], 3).await;
    let apart = cluster.at("ap").value("shared/0").await.unwrap();
    assert_eq!(apart["round"], 2, "what the others write does not reach it");
    cluster.rejoin("ap");
    let picture = cluster.agreed(&["own", "shared"]).await;
    let ledger = picture.conflicts();
    let title = ledger.iter().find(|conflict| conflict["document"] == "shared/title").unwrap();
    assert_eq!((&title["state"], &title["path"]), (&json!("open"), &json!("/title")));
    let mut values: Vec<_> =
        title["candidates"].as_array().unwrap().iter().map(|c| c["value"].to_string()).collect();
    values.sort();
    assert_eq!(values, ["\"from ap\"", "\"from us\""]);
    let document = picture.listed().into_iter().find(|d| d["key"] == "title").unwrap();
    assert_eq!(document["conflicts"], 1);
    cluster.stop().await;
}

/// The link between two of three regions stays cut from the start: the third passes everything on.
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_relays_in_both_directions() {
    let cluster = Cluster::of(&ALL).await;
    cluster.cut("ap", "us").await;
    write_each(&cluster, &["ap", "us"], 1).await;
    cluster.agreed(&["own", "shared"]).await;
    assert_eq!(cluster.peer("ap", "us").await["connected"], false);
    let token = cluster.at("us").put("own/far", &json!({"title": "far"})).ok().await.token();
    eventually("the far end has it", async || {
        let reply = cluster.at("ap").read("own/far").header("session-token", &token).send().await;
        seen(reply.status == 200, || format!("{reply:?}"))
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_names_every_peer_from_the_start() {
    let cluster = Cluster::of(&ALL).await;
    let status = cluster.at("eu").get("/v1/replication").ok().await.value();
    let peers = status["peers"].as_array().unwrap().iter().map(|peer| peer["region"].clone());
    assert_eq!(peers.collect::<Vec<_>>(), ["ap", "us"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_tells_who_is_behind_and_by_how_much() {
    let cluster = Cluster::of(&["eu", "us"]).await;
    cluster.meshed().await;
    let us = cluster.at("us");
    let behind = async |entries: u64, connected: bool| {
        eventually(&format!("eu is {entries} entries behind"), async || {
            let peer = cluster.peer("us", "eu").await;
            let holds = peer["entries_behind"] == entries && peer["connected"] == connected;
            seen(holds, || peer.to_string())?;
            Ok(peer)
        })
        .await
    };
    cluster.cut("eu", "us").await;
    for n in 1..=3 {
        us.put("notes/a", &json!({"n": n})).ok().await;
    }
    let cut = behind(3, false).await;
    assert!(cut["last_error"].as_str().is_some_and(|error| error.contains("cut")), "{cut}");
    eventually("the lag grows", async || {
        let peer = cluster.peer("us", "eu").await;
        seen(peer["seconds_behind"].as_f64().unwrap() > 0.3, || peer.to_string())
    })
    .await;
    cluster.heal("eu", "us");
    let level = behind(0, true).await;
    assert_eq!((&level["seconds_behind"], &level["entries_missing"]), (&json!(0.0), &json!(0)));
    let status = us.get("/v1/replication").ok().await.value();
    let own = status["origins"].as_array().unwrap().iter().find(|o| o["region"] == "us").unwrap();
    assert_eq!((&own["origin"], &own["sequence"]), (&status["origin"], &json!(3)));
    cluster.stop().await;
}

/// A region that was down while the others wrote gets what it missed, and what it had itself
/// written just before it went down is not lost either.
#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_was_down_catches_up() {
    let mut cluster = Cluster::of(&ALL).await;
    write_each(&cluster, &ALL, 1).await;
    cluster.agreed(&["own", "shared"]).await;
    cluster.isolate("ap").await;
    cluster.at("ap").put("own/last", &json!({"title": "last words"})).ok().await;
    cluster.stop_node("ap").await;
    for round in 2..6 {
        write_each(&cluster, &["eu", "us"], round).await;
    }
    cluster.agreed_among(&["eu", "us"], &["own", "shared"]).await;
    assert_eq!(cluster.at("us").value("own/last").await, None);
    for name in ["eu", "us"] {
        let up = anabranch::transport::LinkState::Up;
        cluster.node(name).transport().set_link(&"ap".parse().unwrap(), up).unwrap();
    }
    cluster.start_node("ap").await;
    let picture = cluster.agreed(&["own", "shared"]).await;
    assert_eq!(titles(cluster.at("us"), "own/last").await, "last words");
    assert_eq!(picture.listed().len(), 21);
    cluster.stop().await;
}

/// A cluster that is started again as a whole is the same cluster.
#[tokio::test(flavor = "multi_thread")]
async fn all_regions_restart_one_after_the_other_while_clients_write() {
    let mut cluster = Cluster::of(&ALL).await;
    for (round, name) in ALL.into_iter().enumerate() {
        write_each(&cluster, &ALL, round as u64).await;
        cluster.restart(name).await;
    }
    write_each(&cluster, &ALL, 9).await;
    let picture = cluster.agreed(&["own", "shared"]).await;
    let shared = picture.listed().into_iter().filter(|d| !d["key"].as_str().unwrap().contains('-'));
    for document in shared {
        assert_eq!(document["value"]["round"], 9, "{document}");
    }
    cluster.stop().await;
}

const CUT: anabranch::transport::LinkState = anabranch::transport::LinkState::Cut;
