//! Limits on the way between regions. They cut what is sent into pieces; they never stop it.

use anabranch::settings::Limits;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::support::{Cluster, Plan};

async fn pair(limits: Limits) -> Cluster {
    let cluster = Plan::new(&["eu", "us"]).limits(limits).start().await;
    cluster.meshed().await;
    cluster
}

/// Text that no encoding makes shorter.
fn noise(bytes: usize) -> String {
    let mut random = ChaCha8Rng::seed_from_u64(bytes as u64);
    (0..bytes).map(|_| char::from(b'0' + (random.next_u32() % 64) as u8)).collect()
}

/// A change that is larger than a frame, by far, travels alone in a longer one; what is written
/// before and after it arrives as well. Both when it is pushed and when it is pulled.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_larger_than_a_frame_is_replicated() {
    let cluster = pair(Limits { frame_bytes: 8 << 10, ..Limits::default() }).await;
    let us = cluster.at("us");
    for (round, bytes) in [9_000, 100_000, 3_000_000].into_iter().enumerate() {
        if round == 1 {
            cluster.cut("eu", "us").await;
        }
        us.put("notes/before", &json!({"round": round})).ok().await;
        us.put(&format!("notes/large-{round}"), &json!({"text": noise(bytes)})).ok().await;
        us.put("notes/after", &json!({"round": round})).ok().await;
    }
    cluster.heal("eu", "us");
    us.put("notes/large-0", &json!({"text": noise(2_000_000)})).ok().await;
    let listed = cluster.agreed(&["notes"]).await.listed();
    assert_eq!(listed.len(), 5);
    assert_eq!(listed[1]["value"], json!({"round": 2}));
    cluster.stop().await;
}

/// What could be sent to no peer is not admitted either.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_no_frame_could_hold_is_refused() {
    let limits = Limits { frame_bytes: 1_000, document_bytes: 1_000, ..Limits::default() };
    let cluster = pair(limits).await;
    let us = cluster.at("us");
    us.put("notes/a", &json!({"n": 0})).ok().await;
    // Its texts come and go, so the document stays small and the change does not.
    let mut edits: Vec<Value> = Vec::new();
    for n in 0..10 {
        edits.push(json!({"op": "set", "path": "/text", "value": noise(500 + n)}));
    }
    us.edit("notes/a", &json!(edits)).refused(413, "change_too_large").await;
    assert_eq!(us.value("notes/a").await, Some(json!({"n": 0})));
    us.merge("notes/a", &json!({"n": 1})).ok().await;
    assert_eq!(cluster.agreed(&["notes"]).await.listed()[0]["value"], json!({"n": 1}));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_entries_than_a_batch_holds_are_replicated() {
    let cluster = pair(Limits { batch_entries: 2, ..Limits::default() }).await;
    cluster.cut("eu", "us").await;
    for n in 0..60 {
        cluster.at("us").put(&format!("notes/{}", n % 7), &json!({"n": n})).ok().await;
        cluster.at("eu").put(&format!("notes/eu-{}", n % 7), &json!({"n": n})).ok().await;
    }
    cluster.heal("eu", "us");
    assert_eq!(cluster.agreed(&["notes"]).await.listed().len(), 14);
    cluster.stop().await;
}

/// A region whose queue of requests is short takes what other regions send all the same: notices
/// that find no room become the order to look on disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_queue_holds_up_no_replication() {
    let cluster = pair(Limits { queue: 1, ..Limits::default() }).await;
    cluster.cut("eu", "us").await;
    for n in 0..200 {
        cluster.at("us").put(&format!("notes/{n}"), &json!({"n": n})).ok().await;
    }
    cluster.heal("eu", "us");
    assert_eq!(cluster.agreed(&["notes"]).await.listed().len(), 200);
    cluster.stop().await;
}

/// The longest note of a resolution replicates; a longer one is refused.
#[tokio::test(flavor = "multi_thread")]
async fn the_length_of_a_note() {
    let cluster = pair(Limits::default()).await;
    let (eu, us) = (cluster.at("eu"), cluster.at("us"));
    us.put("notes/a", &json!({"v": 0})).ok().await;
    cluster.agreed(&["notes"]).await;
    cluster.cut("eu", "us").await;
    us.merge("notes/a", &json!({"v": 1})).ok().await;
    eu.merge("notes/a", &json!({"v": 2})).ok().await;
    cluster.heal("eu", "us");
    let conflict = cluster.agreed(&["notes"]).await.conflicts().remove(0);
    let body = |bytes: usize| json!({"value": 3, "note": "n".repeat(bytes)});
    us.resolve(&conflict, &body(1_025)).refused(422, "bad_resolution").await;
    us.resolve(&conflict, &body(1_024)).ok().await;
    let ledger = cluster.agreed(&["notes"]).await.conflicts();
    assert_eq!(ledger[0]["settled"]["note"], "n".repeat(1_024));
    cluster.stop().await;
}
