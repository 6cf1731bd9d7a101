//! An offline-first client: a shopping list on a laptop that goes offline while the region goes
//! on, and both sides merged when it comes back.
//!
//! Run it with `cargo run --example offline_client`. It needs nothing: it starts a real node with
//! its own authority, certificates and journal in a temporary directory, talks to it over HTTP as
//! any program would, and lets the client sync over QUIC as a leaf. It ends with exit code 1 if
//! client and node do not agree.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anabranch::client::{Client, ClientSettings, Side, SyncReport};
use anabranch::node::{Node, NodeBuilder};
use anabranch::pki::{self, Authority, Overwrite, Validity};
use anabranch::settings::{Joining, Limits, Neighbours, PkiPaths, RegionSettings, Settings};
use anabranch_crdt::edit::Edit;
use anabranch_crdt::ids::{ClusterId, DocumentName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("offline_client failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Outcome<()> {
    let home = Home::new()?;
    let cluster = ClusterId(Uuid::new_v4());
    let node = start_region(&home.0, cluster).await?;
    let laptop = open_client(&home.0, cluster, &node)?;
    let outcome = story(&node, &laptop).await;
    drop(laptop);
    node.shutdown().await?;
    outcome
}

async fn story(node: &Node, laptop: &Client) -> Outcome<()> {
    let list: DocumentName = "lists/shopping".parse()?;
    laptop.subscribe(&list.collection)?;

    heading("1. Online: the laptop writes a shopping list, and syncs");
    laptop.put(&list, &json!({ "title": "Saturday", "milk": 1, "items": ["bread", "apples"] }))?;
    report(&laptop.sync_once().await?);
    show("region, over HTTP", &http_get(node, &list).await?);

    heading("2. The laptop goes offline, and its user goes on writing");
    laptop.offline();
    laptop.edit(&list, &[set("/milk", json!(2))?, append("/items", json!("cheese"))?])?;
    laptop.put(&"lists/hardware".parse()?, &json!({ "items": ["nails"] }))?;
    match laptop.sync_once().await {
        Err(error) => println!("   a sync is not possible now: {error}"),
        Ok(_) => return Err("a sync went through although the network is off".into()),
    }
    let waiting: Vec<_> = laptop.unsynced()?.iter().map(ToString::to_string).collect();
    println!("   durable on the laptop, waiting for a network: {}", waiting.join(", "));

    heading("3. Meanwhile, someone else edits the same list in the region");
    let patch = json!([
        { "op": "replace", "path": "/milk", "value": 3 },
        { "op": "add", "path": "/items/0", "value": "coffee" },
        { "op": "add", "path": "/shop", "value": "market hall" },
    ]);
    http_patch(node, &list, &patch).await?;

    heading("4. Both sides, before they meet");
    show("laptop", &read(laptop, &list)?);
    show("region", &http_get(node, &list).await?);

    heading("5. The laptop is back, and syncs over QUIC");
    laptop.online();
    let synced = laptop.sync_once().await?;
    report(&synced);

    heading("6. Both sides, merged");
    let (here, there) = (read(laptop, &list)?, http_get(node, &list).await?);
    show("laptop", &here);
    show("region", &there);
    check(&synced, laptop, &list, &here, &there)?;
    println!("\nBoth sides agree, nothing was lost, and the one collision was told.");
    Ok(())
}

/// Fails unless both sides agree, nothing waits, every edit is there, and the collision was told.
fn check(
    synced: &SyncReport,
    laptop: &Client,
    list: &DocumentName,
    here: &Value,
    there: &Value,
) -> Outcome<()> {
    let items = json!(["coffee", "bread", "apples", "cheese"]);
    let collisions = synced.documents.get(list).map(|document| document.collisions.as_slice());
    let collided = match collisions {
        Some([only]) if only.path.to_string() == "/milk" => {
            let of = |side| only.value_of(side).and_then(|value| value.value.clone());
            of(Side::Own) == Some(json!(2)) && of(Side::Other) == Some(json!(3))
        }
        Some(_) | None => false,
    };
    let expectations = [
        (here == there, "laptop and region show the same"),
        (!laptop.has_unsynced_changes()?, "nothing waits on the laptop"),
        (there.get("items") == Some(&items), "items of both sides are in the list"),
        (there.get("shop") == Some(&json!("market hall")), "the region's new field is there"),
        (collided, "the collision on /milk was told with both values"),
    ];
    match expectations.iter().find(|(holds, _)| !holds) {
        None => Ok(()),
        Some((_, expectation)) => Err(format!("this does not hold: {expectation}").into()),
    }
}

async fn start_region(home: &Path, cluster: ClusterId) -> Outcome<Node> {
    let region = "eu-west".parse()?;
    let authority = Authority::create(cluster, "example")?;
    authority.store(home, Overwrite::Refuse)?;
    let validity = Validity::days(1);
    authority.issue_node(&region, validity)?.store(home, Overwrite::Refuse)?;
    authority.issue_client(&"laptop".parse()?, validity)?.store(home, Overwrite::Refuse)?;
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let settings = Settings {
        cluster_name: "example".to_owned(),
        cluster,
        region: region.clone(),
        regions: vec![RegionSettings {
            name: region,
            quic: free,
            http: free,
            peers: Neighbours::All,
        }],
        collections: BTreeMap::new(),
        limits: Limits::default(),
        data: home.join("node"),
        pki: pki::paths(home, "eu-west"),
        joining: Joining::default(),
    };
    let node = NodeBuilder::new(settings).start().await?;
    println!(
        "Region eu-west serves HTTP on {} and leaves on {} (QUIC).",
        node.http_addr(),
        node.quic_addr()
    );
    Ok(node)
}

fn open_client(home: &Path, cluster: ClusterId, node: &Node) -> Outcome<Client> {
    let pki: PkiPaths = pki::paths(home, "laptop");
    let nodes = vec![node.quic_addr()];
    let client = Client::open(ClientSettings::new(home.join("laptop"), cluster, nodes, pki))?;
    println!("The laptop has a replica of its own, and writes as {}.", client.writer());
    Ok(client)
}

fn read(client: &Client, name: &DocumentName) -> Outcome<Value> {
    Ok(client.read(name)?.ok_or("the document is not on the laptop")?)
}

fn set(path: &str, value: Value) -> Outcome<Edit> {
    Ok(Edit::Set { path: path.parse()?, value })
}

fn append(path: &str, value: Value) -> Outcome<Edit> {
    Ok(Edit::Insert { path: format!("{path}/-").parse()?, value })
}

fn heading(text: &str) {
    println!("\n{text}");
}

fn show(side: &str, value: &Value) {
    println!("   {side:<18} {value}");
}

fn report(report: &SyncReport) {
    println!("   synced with region {}:", report.region);
    for (name, document) in &report.documents {
        println!("   {name}: {} pushed, {} pulled", document.pushed, document.pulled);
        for collision in &document.collisions {
            println!("   both sides wrote {} ({}):", collision.path, collision.state);
            for value in &collision.values {
                let side = if value.side == Side::Own { "laptop" } else { "region" };
                let written = value.value.as_ref().map_or("deleted".to_owned(), Value::to_string);
                let shows = if value.shows { "  <- shows" } else { "" };
                println!("      {side} wrote {written}{shows}");
            }
        }
    }
}

async fn http_get(node: &Node, name: &DocumentName) -> Outcome<Value> {
    let answer = http(node, "GET", name, "", "").await?;
    Ok(serde_json::from_str(&answer)?)
}

async fn http_patch(node: &Node, name: &DocumentName, patch: &Value) -> Outcome<()> {
    println!("   PATCH /v1/docs/{name}  {patch}");
    http(node, "PATCH", name, "application/json-patch+json", &patch.to_string()).await.map(drop)
}

/// One HTTP request, written out, because the example needs no HTTP library for it.
async fn http(
    node: &Node,
    method: &str,
    name: &DocumentName,
    kind: &str,
    body: &str,
) -> Outcome<String> {
    let kind = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
    let request = format!(
        "{method} /v1/docs/{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{kind}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(node.http_addr()).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer is cut off")?;
    if head.starts_with("HTTP/1.1 2") {
        Ok(body.to_owned())
    } else {
        Err(format!("{method} {name} is refused: {answer}").into())
    }
}

/// A temporary directory that is gone at the end.
struct Home(PathBuf);

impl Home {
    fn new() -> Outcome<Self> {
        let path = std::env::temp_dir().join(format!("anabranch-example-{}", Uuid::new_v4()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // A directory that stays behind in the place for temporary ones harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}
