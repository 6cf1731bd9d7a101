//! A region's node inside a program: no second process, no network hop for the program itself.
//!
//! It starts one node on free ports of this machine, writes, patches and reads a document in
//! process, reads the same document over HTTP, follows the change feed, and shuts down.
//!
//! ```text
//! cargo run --example region_node
//! ```

#![allow(clippy::print_stdout, reason = "an example says what it does")]

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;

use anabranch::document::{Precondition, Write};
use anabranch::node::NodeBuilder;
use anabranch::settings::{Joining, Limits, Neighbours, RegionSettings, Settings};
use anabranch_crdt::edit::Edit;
use anabranch_crdt::ids::{ClusterId, DocumentName, RegionName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let home = tempfile::tempdir()?;
    let node = NodeBuilder::new(settings(home.path())?).start().await?;
    println!("The node serves HTTP at http://{}", node.http_addr());

    let documents = node.documents();
    let mut changes = node.changes().follow(documents.position().vector.clone());
    let paris: DocumentName = "cities/paris".parse()?;

    // A write returns once it is on disk, as it does over HTTP.
    let put = Write::Put(json!({"name": "Paris", "population": 2_102_650, "visits": 0}));
    let written = documents.write(paris.clone(), put, None, Precondition::None).await?;
    assert!(written.created);
    println!("Created {paris}; its session token is {}", written.position.token);

    let patch = Write::MergePatch(json!({"river": "Seine"}));
    documents.write(paris.clone(), patch, None, Precondition::None).await?;
    // An increment keeps its intent: two regions that count at once both count.
    let count = Edit::Increment { path: "/visits".parse()?, by: 1 };
    documents.write(paris.clone(), Write::Edits(vec![count]), None, Precondition::None).await?;

    let document = documents.read(&paris).await?.ok_or("the document is gone")?;
    println!("In process: {}", String::from_utf8_lossy(&document.json));
    let over_http = fetch(node.http_addr(), "/v1/docs/cities/paris").await?;
    println!("Over HTTP:  {over_http}");
    let expected = json!({"name": "Paris", "population": 2_102_650, "river": "Seine", "visits": 1});
    assert_eq!(serde_json::from_slice::<Value>(&document.json)?, expected);
    assert_eq!(serde_json::from_str::<Value>(&over_http)?, expected);

    for _ in 0..3 {
        let event = changes.next().await?;
        let name = event.name.map_or_else(|| event.document.to_string(), |name| name.to_string());
        println!("Change {} of this region touched {name}", event.dot.sequence);
    }

    node.shutdown().await?;
    println!("The node has stopped; what it wrote is in {}", home.path().display());
    Ok(())
}

/// Describes a cluster of one region, with development certificates below `home`.
fn settings(home: &Path) -> Result<Settings, Box<dyn Error>> {
    let region: RegionName = "us-east".parse()?;
    let cluster = ClusterId(Uuid::new_v4());
    let names = std::slice::from_ref(&region);
    let mut certificates = anabranch::pki::ensure_development(&home.join("pki"), cluster, names)?;
    // Port 0 takes a free one; in a cluster of one region, nobody has to know it beforehand.
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    Ok(Settings {
        cluster_name: "example".to_owned(),
        cluster,
        regions: vec![RegionSettings {
            name: region.clone(),
            quic: free,
            http: free,
            peers: Neighbours::All,
        }],
        collections: BTreeMap::new(),
        limits: Limits::default(),
        data: home.join("data"),
        pki: certificates.remove(&region).ok_or("no certificate was made")?,
        joining: Joining::default(),
        region,
    })
}

/// Asks for a path as any HTTP client would, and returns the body of the answer.
async fn fetch(address: SocketAddr, path: &str) -> Result<String, Box<dyn Error>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    let (head, body) = reply.split_once("\r\n\r\n").ok_or("the reply has no body")?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(format!("unexpected reply: {head}").into());
    }
    Ok(body.to_owned())
}
