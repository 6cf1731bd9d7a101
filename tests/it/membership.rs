//! Regions join by gossip, leave, are forgotten and return, and nobody edits a file.

use serde_json::{Value, json};

use crate::support::{Cluster, Plan, eventually, seen};

const FILED: [&str; 3] = ["ap", "eu", "us"];
const ALL: [&str; 4] = ["ap", "eu", "mars", "us"];

async fn write_each(cluster: &Cluster, regions: &[&str], round: u64) {
    for name in regions {
        let value = json!({"round": round, "by": name});
        cluster.at(name).put(&format!("own/{name}-{round}"), &value).ok().await;
    }
}

/// Waits until a node refuses writes with a code, and checks that it goes on reading.
async fn takes_no_writes(cluster: &Cluster, name: &str, code: &str) -> Value {
    let client = cluster.at(name);
    eventually(&format!("{name} answers {code}"), async || {
        let reply = client.get("/readyz").send().await;
        seen(reply.value()["code"] == code, || format!("{:?}", reply.value()))
    })
    .await;
    let refused = client.put("own/late", &json!({})).refused(503, code).await.value();
    client.read(&format!("own/{name}-1")).ok().await;
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_joins_leaves_is_forgotten_and_returns() {
    let mut cluster = Plan::new(&FILED).stranger("mars").start().await;
    write_each(&cluster, &FILED, 1).await;

    // It joins through one region, and gets everything from all.
    cluster.join("mars", "eu").await;
    cluster.stands("mars", "active").await;
    cluster.meshed().await;
    write_each(&cluster, &["mars"], 1).await;
    write_each(&cluster, &ALL, 2).await;
    assert_eq!(cluster.agreed(&["own"]).await.listed().len(), 8);

    // Every node restarts; nobody is asked again.
    for name in ALL {
        cluster.restart(name).await;
    }
    write_each(&cluster, &ALL, 3).await;
    assert_eq!(cluster.agreed(&["own"]).await.listed().len(), 12);

    // It leaves, by a word to another region.
    cluster.steer("us", "mars", "leave").ok().await;
    cluster.stands("mars", "left").await;
    let refused = takes_no_writes(&cluster, "mars", "region_left").await;
    assert_eq!(refused["regions"].as_array().unwrap().len(), 3, "{refused}");
    cluster.stop_node("mars").await;
    write_each(&cluster, &FILED, 4).await;

    // It returns.
    cluster.join("mars", "ap").await;
    cluster.stands("mars", "active").await;
    write_each(&cluster, &["mars"], 4).await;
    assert_eq!(cluster.agreed(&["own"]).await.listed().len(), 16);

    // It is lost, and forgotten; when it comes back unasked, it is told so.
    cluster.stop_node("mars").await;
    cluster.steer("ap", "mars", "forget").ok().await;
    cluster.stands("mars", "forgotten").await;
    write_each(&cluster, &FILED, 5).await;
    cluster.start_node("mars").await;
    let refused = takes_no_writes(&cluster, "mars", "region_forgotten").await;
    assert!(refused["detail"].as_str().unwrap().contains("--join"), "{refused}");
    for name in FILED {
        let status = cluster.at(name).get("/v1/replication").ok().await.value();
        let peers = status["peers"].as_array().unwrap();
        assert!(peers.iter().all(|peer| peer["region"] != "mars"), "nobody waits: {status}");
    }
    cluster.stop_node("mars").await;
    cluster.join("mars", "us").await;
    cluster.stands("mars", "active").await;
    write_each(&cluster, &["mars"], 5).await;
    assert_eq!(cluster.agreed(&["own"]).await.listed().len(), 20);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_region_sends_writers_elsewhere_until_it_is_undrained() {
    let cluster = Cluster::of(&["eu", "us"]).await;
    write_each(&cluster, &["eu", "us"], 1).await;
    cluster.steer("us", "eu", "drain").ok().await;
    cluster.stands("eu", "draining").await;
    let refused = takes_no_writes(&cluster, "eu", "draining").await;
    assert_eq!(refused["regions"][0]["name"], "us", "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("write at http://"), "{refused}");
    write_each(&cluster, &["us"], 2).await;
    cluster.agreed(&["own"]).await;

    cluster.steer("eu", "us", "drain").refused(409, "last_region").await;
    cluster.steer("us", "us", "forget").refused(409, "own_region").await;
    cluster.steer("us", "nowhere", "drain").refused(404, "unknown_region").await;
    cluster.steer("eu", "eu", "undrain").ok().await;
    cluster.stands("eu", "active").await;
    write_each(&cluster, &["eu"], 3).await;
    cluster.agreed(&["own"]).await;
    cluster.stop().await;
}

/// A chain, a hub and a ring of real nodes: every region gets everything, over the links that the
/// topology has and no others.
#[tokio::test(flavor = "multi_thread")]
async fn chains_hubs_and_rings_carry_every_change() {
    type Links = &'static [(&'static str, &'static [&'static str])];
    let chain: Links = &[("a", &["b"]), ("b", &["a", "c"]), ("c", &["b", "d"]), ("d", &["c"])];
    let hub: Links = &[("a", &["b"]), ("b", &["a", "c", "d"]), ("c", &["b"]), ("d", &["b"])];
    let ring: Links =
        &[("a", &["b", "d"]), ("b", &["a", "c"]), ("c", &["b", "d"]), ("d", &["a", "c"])];
    for links in [chain, hub, ring] {
        let plan = Plan::new(&["a", "b", "c", "d"]);
        let plan = links.iter().fold(plan, |plan, (name, peers)| plan.peers(name, peers));
        let cluster = plan.start().await;
        for round in 1..4 {
            write_each(&cluster, &["a", "b", "c", "d"], round).await;
        }
        assert_eq!(cluster.agreed(&["own"]).await.listed().len(), 12);
        for (name, peers) in links {
            let status = cluster.at(name).get("/v1/replication").ok().await.value();
            for peer in status["peers"].as_array().unwrap() {
                let wanted = peers.contains(&peer["region"].as_str().unwrap());
                assert_eq!(peer["neighbour"], wanted, "{name}: {peer}");
                assert!(wanted || peer["connected"] == false, "{name}: {peer}");
            }
        }
        cluster.stop().await;
    }
}

/// Three regions write at once; what comes to a region that has it already is counted, once every
/// region has heard by a digest that the others hear each other.
#[tokio::test(flavor = "multi_thread")]
async fn in_a_mesh_a_change_crosses_each_link_once() {
    let cluster = Cluster::of(&FILED).await;
    cluster.meshed().await;
    for round in 0..20 {
        write_each(&cluster, &FILED, round).await;
    }
    for name in FILED {
        eventually("digests have come and gone", async || {
            let status = cluster.at(name).get("/v1/replication").ok().await.value();
            let peers = status["peers"].as_array().unwrap();
            let measured = peers.iter().all(|peer| peer["round_trip_ms"].is_number());
            if measured { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    }
    cluster.agreed(&["own"]).await;
    let (all_before, again_before) = received(&cluster).await;
    for round in 20..140 {
        write_each(&cluster, &FILED, round).await;
    }
    cluster.agreed(&["own"]).await;
    let (all, again) = received(&cluster).await;
    let (all, again) = (all - all_before, again - again_before);
    assert!(all > 50_000, "{all} bytes are no load");
    assert!(again * 50 < all, "{again} of {all} bytes came again");
    cluster.stop().await;
}

/// Counts bytes of entries that came to all regions, and those of them that came again.
async fn received(cluster: &Cluster) -> (u64, u64) {
    let (mut all, mut again) = (0, 0);
    for name in FILED {
        let status = cluster.at(name).get("/v1/replication").ok().await.value();
        for peer in status["peers"].as_array().unwrap() {
            all += peer["entry_bytes_received"].as_u64().unwrap();
            again += peer["duplicate_bytes_received"].as_u64().unwrap();
        }
    }
    (all, again)
}
