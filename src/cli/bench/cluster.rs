//! Nodes for one measurement: in this process, in a directory that goes away with them.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use anabranch_crdt::ids::{ClusterId, RegionName};
use uuid::Uuid;

use crate::cli::Failure;
use crate::cli::failure::with_sources;
use crate::document::Documents;
use crate::node::{Node, NodeBuilder};
use crate::settings::{Joining, Limits, Neighbours, RegionSettings, Settings};

/// Running nodes, one per region.
#[derive(Debug)]
pub(super) struct Cluster {
    /// The nodes that run, each with what it is started from.
    nodes: Vec<(Settings, Option<Node>)>,
    _dir: TemporaryDirectory,
}

impl Cluster {
    /// Starts `size` nodes with their data below `base`.
    pub(super) async fn start(base: &Path, size: usize) -> Result<Self, Failure> {
        let dir = TemporaryDirectory::create(base)?;
        let cluster = ClusterId(Uuid::new_v4());
        let regions = (1..=size).map(region).collect::<Result<Vec<_>, _>>()?;
        let names: Vec<RegionName> = regions.iter().map(|region| region.name.clone()).collect();
        let mut pki = crate::pki::ensure_development(&dir.path.join("pki"), cluster, &names)
            .map_err(|error| Failure::General(with_sources(&error)))?;
        let mut nodes = Vec::new();
        for name in names {
            let pki = pki.remove(&name).ok_or_else(|| {
                Failure::General(format!("no development certificate was made for {name}"))
            })?;
            let settings = Settings {
                cluster_name: "bench".to_owned(),
                cluster,
                data: dir.path.join(name.as_str()),
                region: name,
                regions: regions.clone(),
                collections: std::collections::BTreeMap::new(),
                limits: Limits::default(),
                pki,
                joining: Joining::default(),
            };
            let node = start(&settings).await?;
            nodes.push((settings, Some(node)));
        }
        Ok(Self { nodes, _dir: dir })
    }

    /// Returns where the nodes listen for HTTP.
    pub(super) fn authorities(&self) -> Vec<String> {
        self.running().map(|node| node.http_addr().to_string()).collect()
    }

    /// Returns the documents of the first node.
    pub(super) fn documents(&self) -> Result<Documents, Failure> {
        let first = self.running().next().map(Node::documents);
        first.ok_or_else(|| Failure::General("no node did start".to_owned()))
    }

    /// Stops the nodes and removes their data.
    pub(super) async fn stop(self) -> Result<(), Failure> {
        for node in self.nodes.into_iter().filter_map(|(_, node)| node) {
            stop(node).await?;
        }
        Ok(())
    }

    /// Returns one of the nodes, which runs.
    pub(super) fn node(&self, number: usize) -> Result<&Node, Failure> {
        let node = self.nodes.get(number).and_then(|(_, node)| node.as_ref());
        node.ok_or_else(|| Failure::General(format!("node {number} does not run")))
    }

    /// Stops one of the nodes, and returns what it is started from.
    pub(super) async fn stop_one(&mut self, number: usize) -> Result<Settings, Failure> {
        let gone = || Failure::General(format!("there is no node {number}"));
        let (settings, node) = self.nodes.get_mut(number).ok_or_else(gone)?;
        if let Some(node) = node.take() {
            stop(node).await?;
        }
        Ok(settings.clone())
    }

    /// Starts one of the nodes again.
    pub(super) async fn start_one(&mut self, number: usize) -> Result<(), Failure> {
        let gone = || Failure::General(format!("there is no node {number}"));
        let (settings, node) = self.nodes.get_mut(number).ok_or_else(gone)?;
        *node = Some(start(settings).await?);
        Ok(())
    }

    fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter_map(|(_, node)| node.as_ref())
    }
}

async fn start(settings: &Settings) -> Result<Node, Failure> {
    let node = NodeBuilder::new(settings.clone()).start().await;
    node.map_err(|error| Failure::General(with_sources(&error)))
}

async fn stop(node: Node) -> Result<(), Failure> {
    node.shutdown().await.map_err(|error| Failure::General(with_sources(&error)))
}

fn region(number: usize) -> Result<RegionSettings, Failure> {
    let failed = |error: String| Failure::General(format!("cannot plan a node: {error}"));
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    // Nodes have to know each other's ports before they start, so free ones are looked for here.
    let quic = UdpSocket::bind(loopback)
        .and_then(|socket| socket.local_addr())
        .map_err(|error| failed(error.to_string()))?;
    let name = format!("bench-{number}").parse().map_err(|error| failed(format!("{error}")))?;
    Ok(RegionSettings { name, quic, http: loopback, peers: Neighbours::All })
}

/// A directory that is removed when it is dropped.
#[derive(Debug)]
pub(super) struct TemporaryDirectory {
    /// Where it is.
    pub(super) path: PathBuf,
}

impl TemporaryDirectory {
    /// Makes a directory of a new name below `base`.
    pub(super) fn create(base: &Path) -> Result<Self, Failure> {
        let path = base.join(format!("anabranch-bench-{}", Uuid::new_v4().simple()));
        fs::create_dir_all(&path).map_err(|error| {
            Failure::General(format!("cannot make the directory {}: {error}", path.display()))
        })?;
        Ok(Self { path })
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever cleans temporary directories.
        let _ = fs::remove_dir_all(&self.path);
    }
}
