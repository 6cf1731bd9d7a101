//! A cluster in one process: nodes on directories of their own, linked over loopback.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anabranch::node::{Node, NodeBuilder};
use anabranch::pki;
use anabranch::settings::{Joining, Limits, Neighbours, PkiPaths, RegionSettings, Settings};
use anabranch::transport::LinkState;
use anabranch_crdt::clock::ClockOffset;
use anabranch_crdt::ids::{ClusterId, RegionName, Timestamp};
use anabranch_crdt::policy::{Extent, PathRule, Policies, Policy};
use bytes::Bytes;
use hyper::Method;
use serde_json::Value;
use tempfile::TempDir;
use tracing::{Instrument, info_span};
use uuid::Uuid;

use super::{Call, Client, eventually, log, seen};

/// What a cluster is to be like.
#[derive(Debug)]
pub(crate) struct Plan {
    regions: Vec<RegionName>,
    limits: Limits,
    collections: BTreeMap<String, Policies>,
    /// Regions whose file says nothing of collections.
    bare: Vec<RegionName>,
    /// How far wall clocks are ahead of the true time, in microseconds.
    clocks: BTreeMap<RegionName, Arc<AtomicI64>>,
    /// Regions that have links with some others only.
    links: BTreeMap<RegionName, Neighbours>,
    /// Regions that have a certificate and are in nobody's file.
    strangers: Vec<RegionName>,
}

impl Plan {
    pub(crate) fn new(regions: &[&str]) -> Self {
        Self {
            regions: regions.iter().map(|name| region(name)).collect(),
            limits: Limits::default(),
            collections: BTreeMap::new(),
            bare: Vec::new(),
            clocks: BTreeMap::new(),
            links: BTreeMap::new(),
            strangers: Vec::new(),
        }
    }

    /// Gives a certificate to a region that is in nobody's file; see [`Cluster::join`].
    pub(crate) fn stranger(mut self, name: &str) -> Self {
        self.strangers.push(region(name));
        self
    }

    /// Lets a region have links with these alone.
    pub(crate) fn peers(mut self, name: &str, peers: &[&str]) -> Self {
        let peers = Neighbours::Only(peers.iter().map(|peer| region(peer)).collect());
        self.links.insert(region(name), peers);
        self
    }

    /// Leaves the collections out of the file of one region.
    pub(crate) fn bare(mut self, name: &str) -> Self {
        self.bare.push(region(name));
        self
    }

    /// Sets the wall clock of a region ahead of the true time, or behind it.
    pub(crate) fn clock(mut self, name: &str, ahead: i64) -> Self {
        self.clocks.insert(region(name), Arc::new(AtomicI64::new(ahead)));
        self
    }

    pub(crate) fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how a collection resolves conflicts; `paths` are exceptions.
    pub(crate) fn policy(mut self, collection: &str, of: Policy, paths: &[(&str, Policy)]) -> Self {
        let rule = |(path, policy): &(&str, Policy)| PathRule {
            pattern: path.parse().unwrap(),
            policy: *policy,
            extent: Extent::Parts,
        };
        let rules = paths.iter().map(rule).collect();
        self.collections.insert(collection.to_owned(), Policies::new(of, rules, Vec::new()));
        self
    }

    pub(crate) async fn start(self) -> Cluster {
        log::capture();
        let home = tempfile::tempdir().unwrap();
        let id = ClusterId(Uuid::new_v4());
        let certified = [&self.regions[..], &self.strangers].concat();
        let pki = pki::ensure_development(&home.path().join("pki"), id, &certified).unwrap();
        let names = self.regions.clone();
        let mut cluster =
            Cluster { home, id, plan: self, pki, asks: Vec::new(), running: BTreeMap::new() };
        // The lower region of two dials first, so it is better off when it starts second.
        for name in names.iter().rev() {
            cluster.start_node(name.as_str()).await;
        }
        cluster
    }
}

/// A running cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    home: TempDir,
    id: ClusterId,
    plan: Plan,
    pki: BTreeMap<RegionName, PkiPaths>,
    /// Whom the next node asks to be taken in.
    asks: Vec<SocketAddr>,
    running: BTreeMap<RegionName, Running>,
}

#[derive(Debug)]
struct Running {
    node: Node,
    client: Client,
}

/// Everything that a region shows of some collections, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picture {
    /// Pages of documents, with their entity tags and values.
    pub(crate) documents: Vec<Bytes>,
    /// Pages of the ledger.
    pub(crate) ledger: Vec<Bytes>,
}

impl Cluster {
    /// Starts regions with default settings.
    pub(crate) async fn of(regions: &[&str]) -> Self {
        Plan::new(regions).start().await
    }

    pub(crate) fn at(&self, name: &str) -> &Client {
        &self.running(name).client
    }

    pub(crate) fn node(&self, name: &str) -> &Node {
        &self.running(name).node
    }

    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    pub(crate) fn directory(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn settings(&self, name: &str) -> Settings {
        let address = |name: &RegionName| {
            let running = self.running.get(name);
            running.map_or((Ipv4Addr::LOCALHOST, NOBODY).into(), |r| r.node.quic_addr())
        };
        let own = region(name);
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let of = |name: &RegionName| RegionSettings {
            name: name.clone(),
            quic: if *name == own { any } else { address(name) },
            http: any,
            peers: self.plan.links.get(name).cloned().unwrap_or_default(),
        };
        let named =
            |(name, policies): (&String, &Policies)| (name.parse().unwrap(), policies.clone());
        Settings {
            cluster_name: "test".to_owned(),
            cluster: self.id,
            regions: match self.plan.strangers.contains(&own) {
                true => vec![of(&own)],
                false => self.plan.regions.iter().map(of).collect(),
            },
            collections: match self.plan.bare.contains(&own) {
                true => BTreeMap::new(),
                false => self.plan.collections.iter().map(named).collect(),
            },
            limits: self.plan.limits.clone(),
            data: self.data(name),
            pki: self.pki[&own].clone(),
            joining: Joining {
                ask: self.asks.clone(),
                unlisted: self.plan.strangers.contains(&own),
                ..Joining::default()
            },
            region: own,
        }
    }

    /// Starts a region on its directory, and tells the others where it is.
    pub(crate) async fn start_node(&mut self, name: &str) {
        let span = info_span!("node", region = name);
        let mut builder = NodeBuilder::new(self.settings(name));
        if let Some(ahead) = self.plan.clocks.get(&region(name)).cloned() {
            builder = builder.wall_clock(Arc::new(move || {
                ClockOffset(ahead.load(Ordering::Relaxed)).add_to(true_time())
            }));
        }
        let started = builder.start().instrument(span).await;
        let node = started.unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        for other in self.running.values() {
            // A region that has not joined yet is nobody's peer.
            drop(other.node.transport().set_peer_address(&region(name), node.quic_addr()));
        }
        let client = Client::new(node.http_addr());
        self.running.insert(region(name), Running { node, client });
    }

    /// Starts a region that asks another one to be taken in.
    pub(crate) async fn join(&mut self, name: &str, through: &str) {
        self.asks = vec![self.node(through).quic_addr()];
        self.start_node(name).await;
        self.asks.clear();
    }

    /// Waits until every running region says that a region stands like this.
    pub(crate) async fn stands(&self, name: &str, state: &str) {
        for here in self.names() {
            eventually(&format!("{here} knows that {name} is {state}"), async || {
                let listed = self.at(&here).get("/v1/regions").ok().await.value();
                let regions = listed["regions"].as_array().unwrap();
                let found = regions.iter().find(|region| region["name"] == name);
                seen(found.is_some_and(|found| found["state"] == state), || listed.to_string())
            })
            .await;
        }
    }

    /// Does what an operator asks one region to do with a region.
    pub(crate) fn steer(&self, at: &str, name: &str, act: &str) -> Call<'_> {
        let path = format!("/v1/regions/{name}:{act}");
        self.at(at).call(Method::POST, path).header("author", "operator")
    }

    /// Sets the wall clock of a region that was planned with one of its own.
    pub(crate) fn set_clock(&self, name: &str, ahead: i64) {
        self.plan.clocks[&region(name)].store(ahead, Ordering::Relaxed);
    }

    /// Keeps every other region from having a link to this one, which may be down.
    pub(crate) fn refuse(&self, name: &str) {
        for other in self.others(name) {
            self.node(&other).transport().set_link(&region(name), LinkState::Cut).unwrap();
        }
    }

    /// Lets the links come up again that were refused.
    pub(crate) fn admit(&self, name: &str) {
        for other in self.others(name) {
            self.node(&other).transport().set_link(&region(name), LinkState::Up).unwrap();
        }
    }

    /// Stops a region cleanly.
    pub(crate) async fn stop_node(&mut self, name: &str) {
        let running = self.running.remove(&region(name)).expect("it runs");
        drop(running.client);
        running.node.shutdown().await.unwrap();
    }

    pub(crate) async fn restart(&mut self, name: &str) {
        self.stop_node(name).await;
        self.start_node(name).await;
    }

    /// Stops every region cleanly: a test that passes leaves nothing behind.
    pub(crate) async fn stop(mut self) {
        let names: Vec<RegionName> = self.running.keys().cloned().collect();
        for name in names {
            self.stop_node(name.as_str()).await;
        }
    }

    /// Cuts the link between two regions, and waits until both have noticed.
    pub(crate) async fn cut(&self, one: &str, other: &str) {
        self.set_link(one, other, LinkState::Cut);
        for (here, there) in [(one, other), (other, one)] {
            self.linked(here, there, false).await;
        }
    }

    /// Lets the link between two regions come up again.
    pub(crate) fn heal(&self, one: &str, other: &str) {
        self.set_link(one, other, LinkState::Up);
    }

    /// Cuts a region off from all others.
    pub(crate) async fn isolate(&self, name: &str) {
        for other in self.others(name) {
            self.cut(name, &other).await;
        }
    }

    pub(crate) fn rejoin(&self, name: &str) {
        self.others(name).iter().for_each(|other| self.heal(name, other));
    }

    /// Waits until a region says that its link to another one is up or down.
    pub(crate) async fn linked(&self, here: &str, there: &str, up: bool) {
        eventually(&format!("the link from {here} to {there} up: {up}"), async || {
            let peer = self.peer(here, there).await;
            seen(peer["connected"] == up, || peer.to_string())
        })
        .await;
    }

    /// What one region says of another.
    pub(crate) async fn peer(&self, here: &str, there: &str) -> Value {
        let status = self.at(here).get("/v1/replication").ok().await.value();
        let peers = status["peers"].as_array().unwrap();
        peers.iter().find(|peer| peer["region"] == there).cloned().unwrap_or_default()
    }

    /// Waits until every running region is linked to every other one.
    pub(crate) async fn meshed(&self) {
        for here in self.names() {
            for there in self.names().iter().filter(|there| **there != here) {
                self.linked(&here, there, true).await;
            }
        }
    }

    /// Waits until all running regions hold the same entries and show the same, byte for byte.
    pub(crate) async fn agreed(&self, collections: &[&str]) -> Picture {
        let names = self.names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.agreed_among(&names, collections).await
    }

    /// Waits until some regions hold the same entries and show the same, byte for byte.
    pub(crate) async fn agreed_among(&self, regions: &[&str], collections: &[&str]) -> Picture {
        eventually(&format!("{regions:?} agree"), async || {
            self.same_entries(regions).await?;
            let mut pictures = Vec::new();
            for name in regions {
                pictures.push(self.picture(name, collections).await);
            }
            // Only now: reading may have led to entries, where a policy decides a conflict.
            self.same_entries(regions).await?;
            let first = pictures[0].clone();
            seen(pictures.iter().all(|picture| *picture == first), || format!("{pictures:#?}"))?;
            Ok(first)
        })
        .await
    }

    async fn same_entries(&self, regions: &[&str]) -> Result<(), String> {
        let mut all = Vec::new();
        for name in regions {
            let status = self.at(name).get("/v1/replication").ok().await.value();
            all.push(status["token"].clone());
        }
        let equal = all.iter().all(|token| *token == all[0]);
        if equal { Ok(()) } else { Err(self.replication(regions).await) }
    }

    /// The state of replication, for people who look for a mistake.
    async fn replication(&self, regions: &[&str]) -> String {
        let mut text = String::new();
        for name in regions {
            let status = self.at(name).get("/v1/replication").ok().await.value();
            text.push_str(&format!("{name}: {status:#}\n"));
        }
        text
    }

    /// Everything that a region shows of some collections.
    pub(crate) async fn picture(&self, name: &str, collections: &[&str]) -> Picture {
        let client = self.at(name);
        let mut documents = Vec::new();
        for collection in collections {
            documents.extend(pages(client, &format!("/v1/docs/{collection}?values=true")).await);
        }
        let ledger = pages(client, "/v1/conflicts?").await;
        Picture { documents, ledger }
    }

    fn set_link(&self, one: &str, other: &str, state: LinkState) {
        let (low, high) = if one < other { (one, other) } else { (other, one) };
        // The lower one dials, so it is told last that it may.
        for (here, there) in [(high, low), (low, high)] {
            self.node(here).transport().set_link(&region(there), state).unwrap();
        }
    }

    fn running(&self, name: &str) -> &Running {
        self.running.get(&region(name)).unwrap_or_else(|| panic!("{name} does not run"))
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.running.keys().map(ToString::to_string).collect()
    }

    fn others(&self, name: &str) -> Vec<String> {
        self.names().into_iter().filter(|other| other != name).collect()
    }
}

impl Picture {
    /// The documents, without their pages.
    pub(crate) fn listed(&self) -> Vec<Value> {
        members(&self.documents, "documents")
    }

    /// The conflicts, without their pages.
    pub(crate) fn conflicts(&self) -> Vec<Value> {
        members(&self.ledger, "conflicts")
    }
}

fn members(pages: &[Bytes], member: &str) -> Vec<Value> {
    let of = |page: &Bytes| {
        let page: Value = serde_json::from_slice(page).unwrap();
        page[member].as_array().unwrap().clone()
    };
    pages.iter().flat_map(of).collect()
}

/// Reads a listing page by page.
pub(crate) async fn pages(client: &Client, path: &str) -> Vec<Bytes> {
    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = client.get(format!("{path}&limit=1000{cursor}")).ok().await;
        let next = page.value()["next"].as_str().map(|next| format!("&cursor={next}"));
        pages.push(page.body);
        match next {
            Some(next) => cursor = next,
            None => return pages,
        }
    }
}

/// What a clock shows that is right.
pub(crate) fn true_time() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(u64::try_from(since.as_micros()).unwrap())
}

pub(crate) fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

/// The discard port: nobody answers there.
const NOBODY: u16 = 9;
