//! Clients and real nodes, over real QUIC.

mod epochs;

use anabranch_crdt::edit::Edit;
use anabranch_crdt::ids::RegionName;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::timeout;
use uuid::Uuid;

use super::*;
use crate::document::{Documents, Precondition, Write};
use crate::node::{Node, NodeBuilder};
use crate::pki::{self, Authority, Overwrite, Validity};
use crate::settings::{Joining, Neighbours, RegionSettings, Settings};
use crate::transport::LinkState;

/// A cluster's authority and directory; its nodes do not know each other.
struct Cluster {
    home: TempDir,
    authority: Authority,
}

impl Cluster {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let authority = Authority::create(ClusterId(Uuid::from_u128(1)), "test").unwrap();
        authority.store(home.path(), Overwrite::Refuse).unwrap();
        Self { home, authority }
    }

    fn settings(&self, region: &str, quic: SocketAddr) -> Settings {
        let name = region.parse().unwrap();
        let issued = self.authority.issue_node(&name, Validity::days(1)).unwrap();
        issued.store(self.home.path(), Overwrite::Replace).unwrap();
        let http = any_port();
        Settings {
            cluster_name: "test".to_owned(),
            cluster: self.authority.cluster(),
            region: name.clone(),
            regions: vec![RegionSettings { name, quic, http, peers: Neighbours::All }],
            collections: BTreeMap::new(),
            limits: Limits::default(),
            data: self.home.path().join(format!("data-{region}")),
            pki: pki::paths(self.home.path(), region),
            joining: Joining::default(),
        }
    }

    async fn node(&self, region: &str) -> Node {
        NodeBuilder::new(self.settings(region, any_port())).start().await.unwrap()
    }

    /// Starts a node where one was before.
    async fn node_at(&self, region: &str, quic: SocketAddr) -> Node {
        NodeBuilder::new(self.settings(region, quic)).start().await.unwrap()
    }

    /// Starts two regions that know each other, with the link between them cut.
    async fn cut_pair(&self) -> (Node, Node) {
        let mut settings = self.settings("eu", any_port());
        settings.regions.push(elsewhere("us", "127.0.0.1:9".parse().unwrap()));
        let eu = NodeBuilder::new(settings).start().await.unwrap();
        eu.transport().set_link(&"us".parse().unwrap(), LinkState::Cut).unwrap();
        let mut settings = self.settings("us", any_port());
        settings.regions.push(elsewhere("eu", eu.quic_addr()));
        let us = NodeBuilder::new(settings).start().await.unwrap();
        us.transport().set_link(&"eu".parse().unwrap(), LinkState::Cut).unwrap();
        (eu, us)
    }

    fn client(&self, client: &str, nodes: &[&Node]) -> Client {
        let name = client.parse().unwrap();
        let issued = self.authority.issue_client(&name, Validity::days(1)).unwrap();
        issued.store(self.home.path(), Overwrite::Replace).unwrap();
        let nodes = nodes.iter().map(|node| node.quic_addr()).collect();
        let directory = self.home.path().join(format!("replica-{client}"));
        let pki = pki::paths(self.home.path(), client);
        let settings = ClientSettings::new(directory, self.authority.cluster(), nodes, pki);
        Client::open(settings).unwrap()
    }
}

fn elsewhere(region: &str, quic: SocketAddr) -> RegionSettings {
    RegionSettings { name: region.parse().unwrap(), quic, http: any_port(), peers: Neighbours::All }
}

/// Lets the link between two regions come up, and waits until each has what the other had.
async fn heal(eu: &Node, us: &Node) {
    let (eu_name, us_name) = ("eu".parse().unwrap(), "us".parse().unwrap());
    eu.transport().set_peer_address(&us_name, us.quic_addr()).unwrap();
    eu.transport().set_link(&us_name, LinkState::Up).unwrap();
    us.transport().set_link(&eu_name, LinkState::Up).unwrap();
    caught_up(eu, us).await;
    caught_up(us, eu).await;
}

/// Waits until a node has everything that another one has now.
async fn caught_up(node: &Node, with: &Node) {
    let vector = with.documents().position().vector.clone();
    node.documents().wait_for(&vector, Duration::from_secs(60)).await.unwrap();
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn name(text: &str) -> DocumentName {
    text.parse().unwrap()
}

fn set(path: &str, value: Value) -> Edit {
    Edit::Set { path: path.parse().unwrap(), value }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), future).await.expect("it takes too long")
}

async fn write(documents: &Documents, to: &str, write: Write) {
    soon(documents.write(name(to), write, None, Precondition::None)).await.unwrap();
}

async fn there(documents: &Documents, of: &str) -> Value {
    let document = soon(documents.read(&name(of))).await.unwrap();
    document.map_or(Value::Null, |document| serde_json::from_slice(&document.json).unwrap())
}

fn here(client: &Client, of: &str) -> Value {
    client.read(&name(of)).unwrap().unwrap_or(Value::Null)
}

async fn sync(client: &Client) -> SyncReport {
    soon(client.sync_once()).await.unwrap()
}

#[tokio::test]
async fn offline_edits_on_both_sides_merge_and_collisions_are_told() {
    let cluster = Cluster::new();
    let node = cluster.node("eu").await;
    let client = cluster.client("laptop", &[&node]);
    client.put(&name("lists/shopping"), &json!({ "milk": 1, "bread": 1 })).unwrap();
    assert!(client.has_unsynced_changes().unwrap());
    let report = sync(&client).await;
    assert_eq!((report.region.as_str(), report.pushed(), report.pulled()), ("eu", 1, 0));
    assert!(!client.has_unsynced_changes().unwrap());
    let documents = node.documents();
    assert_eq!(there(&documents, "lists/shopping").await, json!({ "milk": 1, "bread": 1 }));

    client.offline();
    let edits = [set("/milk", json!(2)), set("/eggs", json!(6))];
    client.edit(&name("lists/shopping"), &edits).unwrap();
    let refused = soon(client.sync_once()).await.unwrap_err();
    assert_eq!(refused.code(), "client_offline");
    let edits = vec![set("/milk", json!(3)), set("/tea", json!(1))];
    write(&documents, "lists/shopping", Write::Edits(edits)).await;
    assert_eq!(client.unsynced().unwrap(), [name("lists/shopping")]);

    client.online();
    let report = sync(&client).await;
    let document = &report.documents[&name("lists/shopping")];
    assert_eq!((document.pushed, document.pulled), (1, 1));
    let [collision] = document.collisions.as_slice() else { panic!("{document:?}") };
    assert_eq!(collision.path.to_string(), "/milk");
    assert_eq!(collision.value_of(Side::Own).unwrap().value, Some(json!(2)));
    assert_eq!(collision.value_of(Side::Other).unwrap().value, Some(json!(3)));
    let merged = here(&client, "lists/shopping");
    assert_eq!(merged, there(&documents, "lists/shopping").await);
    let shown: Vec<_> = collision.values.iter().filter(|value| value.shows).collect();
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0].value.as_ref(), Some(&merged["milk"]));
    assert_eq!((&merged["eggs"], &merged["tea"]), (&json!(6), &json!(1)));
    assert_eq!(client.collisions(&name("lists/shopping")).unwrap().len(), 1);

    let quiet = sync(&client).await;
    assert!(quiet.documents.is_empty(), "{quiet:?}");
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_node_that_dies_in_the_middle_of_a_sync_loses_nothing() {
    let cluster = Cluster::new();
    let node = cluster.node("eu").await;
    let quic = node.quic_addr();
    let client = cluster.client("laptop", &[&node]);
    for n in 0..300 {
        client.put(&name(&format!("notes/{n}")), &json!({ "n": n })).unwrap();
    }
    let mut changes = node.changes().follow(Default::default());
    let dies = async {
        soon(changes.next()).await.unwrap();
        node.shutdown().await.unwrap();
    };
    let (outcome, ()) = tokio::join!(soon(client.sync_once()), dies);
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Unavailable);
    let left = client.unsynced().unwrap().len();
    assert!(left > 0, "the node died after the sync");

    drop(client);
    let node = cluster.node_at("eu", quic).await;
    let client = cluster.client("laptop", &[&node]);
    assert_eq!(client.unsynced().unwrap().len(), left);
    assert_eq!(sync(&client).await.pushed(), left);
    assert!(!client.has_unsynced_changes().unwrap());
    let documents = node.documents();
    for n in 0..300 {
        assert_eq!(there(&documents, &format!("notes/{n}")).await, json!({ "n": n }));
    }
    let changes = documents.changes_since(name("notes/0"), Vec::new()).await.unwrap();
    assert_eq!(changes.len(), 1, "what was pushed twice is there once");
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_sync_that_is_switched_off_in_the_middle_resumes() {
    let cluster = Cluster::new();
    let node = cluster.node("eu").await;
    let client = cluster.client("laptop", &[&node]);
    for n in 0..300 {
        client.put(&name(&format!("notes/{n}")), &json!({ "n": n })).unwrap();
    }
    let mut changes = node.changes().follow(Default::default());
    let switched = async {
        soon(changes.next()).await.unwrap();
        client.offline();
    };
    let (outcome, ()) = tokio::join!(soon(client.sync_once()), switched);
    assert_eq!(outcome.unwrap_err().code(), "client_offline");
    client.online();
    sync(&client).await;
    assert!(!client.has_unsynced_changes().unwrap());
    let listed = node.documents().list(&"notes".parse().unwrap(), "", None, 1_000).await.unwrap();
    assert_eq!(listed.len(), 300);
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn refused_changes_stay_and_are_told_and_hold_up_nothing_else() {
    let cluster = Cluster::new();
    let mut settings = cluster.settings("eu", any_port());
    settings.limits.document_bytes = 1_000;
    let node = NodeBuilder::new(settings).start().await.unwrap();
    let client = cluster.client("laptop", &[&node]);
    let large = json!({ "text": "x".repeat(2_000) });
    client.put(&name("notes/large"), &large).unwrap();
    client.put(&name("notes/small"), &json!({ "text": "x" })).unwrap();
    let report = sync(&client).await;
    assert_eq!(report.documents[&name("notes/small")].pushed, 1);
    let refusal = report.documents[&name("notes/large")].refused.clone().unwrap();
    assert_eq!((refusal.code.as_str(), refusal.outlook), ("document_too_large", Outlook::Never));
    assert_eq!(there(&node.documents(), "notes/large").await, Value::Null);

    drop(client);
    let client = cluster.client("laptop", &[&node]);
    assert_eq!(here(&client, "notes/large"), large);
    let refused = RefusedDocument { name: name("notes/large"), refusal };
    assert_eq!(client.refused().unwrap(), [refused]);
    assert_eq!(client.unsynced().unwrap(), [name("notes/large")]);

    assert_eq!(client.discard(&name("notes/large")).unwrap(), 1);
    assert_eq!(here(&client, "notes/large"), Value::Null);
    client.put(&name("notes/large"), &json!({ "text": "short" })).unwrap();
    assert_eq!(sync(&client).await.pushed(), 1);
    assert!(client.refused().unwrap().is_empty());
    assert_eq!(there(&node.documents(), "notes/large").await, json!({ "text": "short" }));
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_collection_is_copied_and_follows_deletes() {
    let cluster = Cluster::new();
    let node = cluster.node("eu").await;
    let documents = node.documents();
    for n in 0..40 {
        write(&documents, &format!("notes/{n:02}"), Write::Put(json!({ "n": n }))).await;
    }
    write(&documents, "other/a", Write::Put(json!({}))).await;
    let client = cluster.client("laptop", &[&node]);
    client.subscribe(&"notes".parse().unwrap()).unwrap();
    assert_eq!(sync(&client).await.pulled(), 40);
    let notes = client.list(&"notes".parse().unwrap()).unwrap();
    assert_eq!((notes.len(), notes[7].to_string()), (40, "notes/07".to_owned()));
    assert_eq!(here(&client, "notes/39"), json!({ "n": 39 }));
    assert_eq!(here(&client, "other/a"), Value::Null);

    write(&documents, "notes/07", Write::Delete).await;
    write(&documents, "notes/08", Write::Put(json!({ "n": "eight" }))).await;
    client.delete(&name("notes/09")).unwrap();
    client.subscribe_document(&name("other/a")).unwrap();
    let report = sync(&client).await;
    assert_eq!((report.pushed(), report.pulled()), (1, 3), "{report:?}");
    assert_eq!(here(&client, "notes/07"), Value::Null);
    assert_eq!(here(&client, "notes/08"), json!({ "n": "eight" }));
    assert_eq!(here(&client, "other/a"), json!({}));
    assert_eq!(there(&documents, "notes/09").await, Value::Null);
    assert!(sync(&client).await.documents.is_empty());
    node.shutdown().await.unwrap();
}

/// The region that accepted a client's changes is cut off, and the client goes on with another
/// one that has not heard of them.
#[tokio::test]
async fn a_client_that_changes_region_brings_its_changes_along() {
    let cluster = Cluster::new();
    let (eu, us) = cluster.cut_pair().await;
    let client = cluster.client("laptop", &[&eu]);
    client.put(&name("notes/own"), &json!({ "step": 1 })).unwrap();
    client.put(&name("notes/shared"), &json!({ "step": 1 })).unwrap();
    sync(&client).await;
    let token = client.token().unwrap();
    write(&eu.documents(), "notes/shared", Write::Put(json!({ "step": 2 }))).await;
    client.subscribe(&"notes".parse().unwrap()).unwrap();
    sync(&client).await;
    assert_ne!(client.token().unwrap(), token, "the token includes what was pulled");
    drop(client);

    let client = cluster.client("laptop", &[&us]);
    client.put(&name("notes/own"), &json!({ "step": 3 })).unwrap();
    client.put(&name("notes/shared"), &json!({ "step": 3 })).unwrap();
    let report = sync(&client).await;
    assert_eq!(report.region.as_str(), "us");
    assert_eq!(report.documents[&name("notes/own")].pushed, 1);
    assert_eq!(there(&us.documents(), "notes/own").await, json!({ "step": 3 }));
    // What a leader wrote travels between leaders alone, so this has to wait for it.
    let refusal = report.documents[&name("notes/shared")].refused.clone().unwrap();
    assert_eq!((refusal.code.as_str(), refusal.outlook), ("change_waits", Outlook::Later));
    assert_eq!(here(&client, "notes/shared"), json!({ "step": 3 }));
    drop(client);

    heal(&eu, &us).await;
    let client = cluster.client("laptop", &[&us]);
    sync(&client).await;
    assert!(!client.has_unsynced_changes().unwrap());
    assert!(client.refused().unwrap().is_empty());
    caught_up(&eu, &us).await;
    for node in [&eu, &us] {
        assert_eq!(there(&node.documents(), "notes/own").await, json!({ "step": 3 }));
        assert_eq!(there(&node.documents(), "notes/shared").await, json!({ "step": 3 }));
    }
    eu.shutdown().await.unwrap();
    us.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_next_region_is_taken_when_the_first_does_not_answer() {
    let cluster = Cluster::new();
    let (eu, us) = (cluster.node("eu").await, cluster.node("us").await);
    let client = cluster.client("laptop", &[&eu, &us]);
    eu.shutdown().await.unwrap();
    client.put(&name("notes/a"), &json!({})).unwrap();
    assert_eq!(sync(&client).await.region.as_str(), "us");
    us.shutdown().await.unwrap();
}

/// Waits until a document shows a value here.
async fn shows(client: &Client, of: &str, wanted: Value) {
    let mut status = client.status();
    soon(async {
        while here(client, of) != wanted {
            status.changed().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn in_the_background_both_sides_follow_each_other() {
    let cluster = Cluster::new();
    let node = cluster.node("eu").await;
    let (laptop, phone) = (cluster.client("laptop", &[&node]), cluster.client("phone", &[&node]));
    let (stop, stopped) = watch::channel(false);
    let stopped = || {
        let mut stopped = stopped.clone();
        async move {
            stopped.wait_for(|stopped| *stopped).await.unwrap();
        }
    };
    laptop.subscribe(&"notes".parse().unwrap()).unwrap();
    let story = async {
        phone.put(&name("notes/a"), &json!({ "from": "phone" })).unwrap();
        shows(&laptop, "notes/a", json!({ "from": "phone" })).await;
        write(&node.documents(), "notes/a", Write::Put(json!({ "from": "region" }))).await;
        shows(&laptop, "notes/a", json!({ "from": "region" })).await;
        let connected = ConnectionState::Connected("eu".parse().unwrap());
        assert_eq!(laptop.status().borrow().connection, connected);

        laptop.offline();
        let mut status = laptop.status();
        let offline = |status: &SyncStatus| status.connection == ConnectionState::Offline;
        soon(status.wait_for(offline)).await.unwrap();
        laptop.put(&name("notes/b"), &json!({ "made": "offline" })).unwrap();
        phone.subscribe_document(&name("notes/b")).unwrap();
        laptop.online();
        shows(&phone, "notes/b", json!({ "made": "offline" })).await;
        stop.send_replace(true);
    };
    let ((), (), ()) = tokio::join!(laptop.run(stopped()), phone.run(stopped()), story);
    assert_eq!(laptop.status().borrow().connection, ConnectionState::Idle);
    node.shutdown().await.unwrap();
}

/// A user can be told that a change survives the loss of the region that took it.
#[tokio::test]
async fn a_client_waits_until_more_regions_have_what_it_wrote() {
    let cluster = Cluster::new();
    let (eu, us) = cluster.cut_pair().await;
    let laptop = cluster.client("laptop", &[&eu]);
    laptop.put(&name("notes/a"), &json!({ "n": 1 })).unwrap();
    laptop.sync_once().await.unwrap();
    let (eu_name, us_name): (RegionName, RegionName) =
        ("eu".parse().unwrap(), "us".parse().unwrap());
    let wait = Duration::from_millis(100);
    let reached = laptop.confirm(&WriteConcern::Majority, wait).await.unwrap();
    assert_eq!(reached, Reached { regions: vec![eu_name.clone()], met: false });
    let refused = laptop.confirm(&WriteConcern::Regions(3), wait).await.unwrap_err();
    assert!(refused.to_string().contains("concern_out_of_reach"), "{refused}");

    heal(&eu, &us).await;
    let wait = Duration::from_secs(30);
    let reached = laptop.confirm(&WriteConcern::All, wait).await.unwrap();
    assert_eq!(reached, Reached { regions: vec![eu_name, us_name], met: true });
    let shown = us.documents().read(&name("notes/a")).await.unwrap().unwrap();
    assert_eq!(shown.json, r#"{"n":1}"#);
    eu.shutdown().await.unwrap();
    us.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_node_answers_what_breaks_the_protocol_and_ends_the_conversation() {
    use crate::leaf::{PROTOCOL, Reply, Request};
    use crate::transport::leaf;
    use bytes::Bytes;

    let cluster = Cluster::new();
    let node = cluster.node("eu").await;
    let _client = cluster.client("laptop", &[&node]);
    let pki = pki::paths(cluster.home.path(), "laptop");
    let connection =
        leaf::connect(node.quic_addr(), &pki, cluster.authority.cluster(), 1 << 20).await.unwrap();
    let hello = Request::Hello { protocol: PROTOCOL }.encode();
    let check = async |said: Vec<Bytes>, code: &str| {
        let mut stream = connection.open().await.unwrap();
        for frame in said {
            stream.send(frame).await.unwrap();
        }
        let refusal = loop {
            let frame = soon(stream.receive()).await.unwrap().unwrap();
            let reply = Reply::decode(&frame).unwrap();
            if let Reply::Refused(refusal) = reply {
                break refusal;
            }
            assert!(matches!(reply, Reply::Welcome { .. }), "{reply:?}");
        };
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(soon(stream.receive()).await.unwrap().is_none(), "the conversation has ended");
    };
    check(vec![Bytes::from_static(b"junk")], "protocol_violated").await;
    check(vec![hello.clone(), hello.clone()], "protocol_violated").await;
    let pull = Request::Pull { name: name("notes/a"), heads: Vec::new() }.encode();
    check(vec![pull], "protocol_violated").await;
    check(vec![hello, Bytes::from(vec![0xff; 500_000])], "protocol_violated").await;
    check(vec![Request::Hello { protocol: 9 }.encode()], "protocol_unknown").await;
    soon(connection.close()).await;
    node.shutdown().await.unwrap();
}
