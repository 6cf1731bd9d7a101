//! A client that was offline while its document was compacted or purged.

use std::time::Duration;

use super::*;
use crate::leaf::Outlook;

async fn compact(node: &Node, of: &str) {
    let wait = Duration::from_secs(10);
    let compacted = node.documents().compact(name(of), None, None, Precondition::None, wait).await;
    compacted.unwrap();
}

#[tokio::test]
async fn a_client_follows_into_a_new_epoch_with_what_it_wrote_offline() {
    let cluster = Cluster::new();
    let node = cluster.node("eu").await;
    let client = cluster.client("laptop", &[&node]);
    client.put(&name("notes/a"), &json!({ "title": "x", "n": 1, "list": [1] })).unwrap();
    sync(&client).await;
    client.offline();
    client.edit(&name("notes/a"), &[set("/title", json!("offline"))]).unwrap();
    compact(&node, "notes/a").await;
    write(&node.documents(), "notes/a", Write::Edits(vec![set("/n", json!(2))])).await;

    client.online();
    let report = sync(&client).await;
    assert_eq!(report.documents[&name("notes/a")].pushed, 1);
    let merged = json!({ "title": "offline", "n": 2, "list": [1] });
    assert_eq!(there(&node.documents(), "notes/a").await, merged);
    assert_eq!(here(&client, "notes/a"), merged);
    drop(client);

    let client = cluster.client("laptop", &[&node]);
    client.edit(&name("notes/a"), &[set("/n", json!(3))]).unwrap();
    assert_eq!(sync(&client).await.pushed(), 1);
    let merged = json!({ "title": "offline", "n": 3, "list": [1] });
    assert_eq!(there(&node.documents(), "notes/a").await, merged);
    assert!(sync(&client).await.documents.is_empty());
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_client_brings_no_purged_document_back_and_keeps_what_it_wrote() {
    let cluster = Cluster::new();
    let node = cluster.node("eu").await;
    let client = cluster.client("laptop", &[&node]);
    client.put(&name("notes/a"), &json!({ "v": 1 })).unwrap();
    sync(&client).await;
    client.offline();
    client.edit(&name("notes/a"), &[set("/v", json!("stale"))]).unwrap();
    write(&node.documents(), "notes/a", Write::Delete).await;
    let wait = Duration::from_secs(10);
    node.documents().purge(name("notes/a"), None, None, wait).await.unwrap();

    client.online();
    let report = sync(&client).await;
    let refusal = report.documents[&name("notes/a")].refused.clone().unwrap();
    assert_eq!((refusal.code.as_str(), refusal.outlook), ("document_purged", Outlook::Never));
    assert_eq!(there(&node.documents(), "notes/a").await, Value::Null);
    assert_eq!(here(&client, "notes/a"), json!({ "v": "stale" }), "nothing of it is lost");

    assert_eq!(client.discard(&name("notes/a")).unwrap(), 1);
    soon(client.sync_once()).await.unwrap();
    client.subscribe_document(&name("notes/a")).unwrap();
    sync(&client).await;
    assert_eq!(here(&client, "notes/a"), Value::Null);
    client.put(&name("notes/a"), &json!({ "v": "new" })).unwrap();
    assert_eq!(sync(&client).await.pushed(), 1);
    assert_eq!(there(&node.documents(), "notes/a").await, json!({ "v": "new" }));
    node.shutdown().await.unwrap();
}
