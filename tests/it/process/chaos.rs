//! Three processes that reach each other only through a bad network.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::http::Http;
use super::kill::{merged, seed, vector, wait_for_writes};
use super::load::{COLLECTION, Traffic, Writer};
use super::proxy::{Proxy, Weather};
use super::support::{Running, eventually};
use super::topology::{Topology, free, linked, ready};

const NAMES: [&str; 3] = ["east", "north", "west"];
const EAST: usize = 0;
const NORTH: usize = 1;
const WEST: usize = 2;

/// Three nodes and the network between them.
struct Cluster {
    topology: Topology,
    proxy: Proxy,
    /// Where the nodes listen, behind their fronts.
    homes: Vec<SocketAddr>,
    nodes: BTreeMap<usize, Running>,
    writers: Vec<(usize, Writer)>,
}

impl Cluster {
    fn start(seed: u64, limits: &str) -> Self {
        let topology = Topology::certified(&NAMES, limits);
        let homes: Vec<SocketAddr> = NAMES.iter().map(|_| free()).collect();
        let fronts = NAMES.iter().map(|name| topology.region(name).quic);
        let places: Vec<_> = fronts.zip(homes.iter().copied()).collect();
        let proxy = Proxy::start(&places, seed);
        let mut cluster =
            Self { topology, proxy, homes, nodes: BTreeMap::new(), writers: Vec::new() };
        (0..NAMES.len()).for_each(|node| cluster.serve(node));
        NAMES.iter().for_each(|name| linked(&mut cluster.topology.http(name), 2));
        cluster
    }

    fn serve(&mut self, node: usize) {
        let mut command: Command = self.topology.command(NAMES[node]);
        command.args(["--quic", &self.homes[node].to_string()]);
        let mut running = Running::start(command);
        ready(&mut running, self.address(node));
        self.nodes.insert(node, running);
    }

    fn address(&self, node: usize) -> SocketAddr {
        self.topology.region(NAMES[node]).http
    }

    fn http(&self, node: usize) -> Http {
        self.topology.http(NAMES[node])
    }

    /// Puts a writer with counters of its own on every node.
    fn recruit(&mut self, random: &mut ChaCha8Rng) {
        for node in 0..NAMES.len() {
            let mut writer = Writer::new(format!("w{node}"), random.random());
            writer.make_counters(self.address(node), node == 0);
            self.writers.push((node, writer));
        }
        self.converged();
    }

    /// Has everyone write until so many writes are acknowledged, while something happens.
    fn under_load(&mut self, writes: u64, meanwhile: impl FnOnce(&mut Self)) {
        let traffic = Traffic::default();
        let mut writers = std::mem::take(&mut self.writers);
        let addresses: Vec<_> = (0..NAMES.len()).map(|node| self.address(node)).collect();
        thread::scope(|scope| {
            for (node, writer) in &mut writers {
                let (address, traffic) = (addresses[*node], &traffic);
                scope.spawn(move || writer.run(address, traffic));
            }
            wait_for_writes(&traffic, writes);
            meanwhile(self);
            traffic.stop.store(true, Ordering::Relaxed);
        });
        self.writers = writers;
    }

    /// Waits until all regions hold the same.
    fn converged(&self) {
        let mut nodes: Vec<Http> = (0..NAMES.len()).map(|node| self.http(node)).collect();
        eventually("all regions are equal", || {
            let vectors: Vec<_> = nodes.iter_mut().map(vector).collect();
            let equal = vectors.windows(2).all(|pair| pair[0] == pair[1]);
            if equal { Ok(()) } else { Err(format!("{vectors:?}")) }
        });
        // A listing may be behind what is durable while much of it waits to be applied.
        eventually("all regions show the same", || {
            let found: Vec<_> = nodes.iter_mut().map(|node| node.all(COLLECTION)).collect();
            let equal = found.windows(2).all(|pair| pair[0] == pair[1]);
            let sizes: Vec<usize> = found.iter().map(Vec::len).collect();
            if equal { Ok(()) } else { Err(format!("unequal, of {sizes:?} documents")) }
        });
    }

    /// Checks that all regions are equal and that nothing acknowledged is lost.
    fn check(&self) {
        self.converged();
        let memory = merged(self.writers.iter().map(|(_, writer)| writer));
        memory.check(self.http(EAST).all(COLLECTION)).unwrap();
    }

    /// Waits until a node says that it has a link to another one, or that it has none.
    fn sees(&self, node: usize, other: usize, up: bool) {
        let mut http = self.http(node);
        eventually("waiting for a link to change", || {
            let status = http.get("/v1/replication");
            let peers = status["peers"].as_array().unwrap();
            let peer = peers.iter().find(|peer| peer["region"] == NAMES[other]).unwrap();
            if peer["connected"] == up { Ok(()) } else { Err(peer.to_string()) }
        });
    }
}

#[test]
fn a_cut_in_rough_weather_heals_with_writes_on_both_sides() {
    let seed = seed();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut cluster = Cluster::start(seed, "");
    cluster.recruit(&mut random);
    cluster.proxy.set_all(Weather::ROUGH);
    cluster.under_load(60, |cluster| {
        cluster.proxy.set_both(EAST, NORTH, Weather::CUT);
        cluster.proxy.set_both(EAST, WEST, Weather::CUT);
        cluster.sees(EAST, WEST, false);
    });
    let mut here = cluster.http(EAST);
    assert_ne!(vector(&mut here), vector(&mut cluster.http(WEST)), "nothing was written apart");
    cluster.proxy.set_all(Weather::ROUGH);
    cluster.check();
}

/// What one node sends to another is lost, the other way is open: QUIC cannot live on that, and
/// neither side may be deceived by what it still hears.
#[test]
fn a_link_that_carries_one_way_is_routed_around() {
    let seed = seed();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut cluster = Cluster::start(seed, "");
    cluster.recruit(&mut random);
    cluster.under_load(30, |cluster| {
        cluster.proxy.set(EAST, WEST, Weather::CUT);
        cluster.sees(EAST, WEST, false);
        cluster.sees(WEST, EAST, false);
    });
    cluster.check();
    cluster.proxy.set_all(Weather::CLEAR);
    cluster.sees(EAST, WEST, true);
    cluster.check();
}

#[test]
fn a_killed_and_a_stopped_process_cost_nobody_else_anything() {
    let seed = seed();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut cluster = Cluster::start(seed, "");
    cluster.recruit(&mut random);
    cluster.proxy.set_all(Weather::ROUGH);
    cluster.under_load(60, |cluster| {
        cluster.nodes.remove(&NORTH).unwrap().kill();
        cluster.serve(NORTH);
    });
    cluster.check();

    // A process that is stopped keeps its sockets and hears nothing. Its own writer has to wait;
    // the others must not.
    let stopped: Vec<_> = cluster.writers.extract_if(.., |(node, _)| *node == WEST).collect();
    cluster.nodes[&WEST].signal("STOP");
    cluster.under_load(60, |cluster| cluster.sees(EAST, WEST, false));
    cluster.nodes[&WEST].signal("CONT");
    cluster.writers.extend(stopped);
    cluster.check();
}

/// East writes far more than the way to west takes. Its own clients must not feel that, its memory
/// must not grow by it, and west has to get everything in the end.
#[test]
fn a_slow_link_slows_nobody_but_itself() {
    let seed = seed();
    let mut cluster = Cluster::start(seed, "");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let before = flood(&cluster, "before", &mut random);
    let slow = Weather { rate: Some(150_000), delay: Duration::from_millis(20), ..Weather::CLEAR };
    cluster.proxy.set_both(EAST, WEST, slow);
    cluster.proxy.set_both(NORTH, WEST, slow);
    let during = flood(&cluster, "during", &mut random);
    let resident = cluster.nodes[&EAST].resident_bytes();
    println!(
        "p50 {:?} before, {:?} during; {} MB resident; {} MB carried",
        before,
        during,
        resident >> 20,
        cluster.proxy.carried() >> 20
    );
    assert!(resident < 600 << 20, "{} MB resident", resident >> 20);
    let generous = before.max(Duration::from_millis(5)) * 10;
    assert!(during < generous, "writes take {during:?}, on a fast link {before:?}");
    // What is fresh still comes through, behind no more than its share of what catches up.
    cluster.http(NORTH).put("/v1/docs/load/fresh", &json!({"fresh": true}));
    cluster.proxy.set_all(Weather::CLEAR);
    cluster.converged();
    cluster.nodes.clear();
}

/// Writes some megabytes that do not compress, and returns the median time of a write.
fn flood(cluster: &Cluster, name: &str, random: &mut ChaCha8Rng) -> Duration {
    let mut http = cluster.http(EAST);
    let mut times: Vec<Duration> = (0..FLOOD)
        .map(|n| {
            let noise: String = (0..20_000).map(|_| random.random_range('!'..='~')).collect();
            let began = Instant::now();
            http.put(&format!("/v1/docs/{COLLECTION}/{name}-{n}"), &json!({ "noise": noise }));
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// Documents of 20 KB in one flood.
const FLOOD: usize = 150;
