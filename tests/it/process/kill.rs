//! `kill -9` under load: whatever a client was told is saved is there afterwards.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::http::Http;
use super::load::{COLLECTION, Memory, SHARED, Traffic, Writer};
use super::support::{PATIENCE, Running, eventually};
use super::topology::{Topology, linked};

#[test]
fn nothing_acknowledged_is_lost_when_a_node_is_killed() {
    let mut random = ChaCha8Rng::seed_from_u64(seed());
    let topology = Topology::certified(&["solo"], "");
    let address = topology.region("solo").http;
    let mut node = topology.serve("solo");
    let mut writers: Vec<Writer> =
        (0..4).map(|n| Writer::new(format!("w{n}"), random.random())).collect();
    for (n, writer) in writers.iter_mut().enumerate() {
        writer.make_counters(address, n == 0);
    }
    let started = Instant::now();
    let mut rounds = 0;
    while rounds < MIN_ROUNDS || started.elapsed() < BUDGET {
        let (writes, jitter) = moment(&mut random);
        println!("round {rounds}: killed after {writes} writes and {jitter:?}");
        let traffic = Traffic::default();
        thread::scope(|scope| {
            for writer in &mut writers {
                scope.spawn(|| writer.run(address, &traffic));
            }
            wait_for_writes(&traffic, writes);
            thread::sleep(jitter);
            node.kill();
        });
        node = topology.serve("solo");
        let mut http = topology.http("solo");
        check_token(&mut http);
        check(rounds, &merged(&writers), http.all(COLLECTION));
        rounds += 1;
    }
    node.signal("TERM");
    node.end().exits(0);
    let _node = topology.serve("solo");
    check(rounds, &merged(&writers), topology.http("solo").all(COLLECTION));
    println!("{rounds} rounds");
}

#[test]
fn a_killed_region_converges_with_its_peer_and_nothing_acknowledged_is_lost() {
    let mut random = ChaCha8Rng::seed_from_u64(seed());
    let topology = Topology::certified(&REGIONS, "");
    let mut pair = Pair::start(&topology, &mut random);
    let started = Instant::now();
    let mut rounds = 0;
    while rounds < MIN_PAIR_ROUNDS || started.elapsed() < BUDGET {
        let (writes, jitter) = moment(&mut random);
        let victims: &[&'static str] = match random.random_range(0..4) {
            0 => &REGIONS,
            1 => &["east"],
            _ => &["west"],
        };
        println!("round {rounds}: {victims:?} killed after {writes} writes and {jitter:?}");
        pair.crash(victims, writes, jitter);
        let found = pair.converged();
        check(rounds, &merged(pair.writers.iter().map(|(_, writer)| writer)), found);
        rounds += 1;
    }
    println!("{rounds} rounds");
}

/// Every document of a collection by its key.
type Listing = Vec<(String, Value)>;

/// Two regions with two writers each.
struct Pair<'t> {
    topology: &'t Topology,
    nodes: BTreeMap<&'static str, Running>,
    writers: Vec<(&'static str, Writer)>,
}

impl<'t> Pair<'t> {
    fn start(topology: &'t Topology, random: &mut ChaCha8Rng) -> Self {
        let nodes = REGIONS.map(|region| (region, topology.serve(region))).into();
        let mut writers = Vec::new();
        for n in 0..4 {
            let region = *REGIONS.choose(random).unwrap();
            let mut writer = Writer::new(format!("w{n}"), random.random());
            writer.make_counters(topology.region(region).http, n == 0);
            writers.push((region, writer));
        }
        // From here on both regions add to the one shared counter, not to two of one name.
        linked(&mut topology.http("east"), 1);
        for region in REGIONS {
            let path = format!("/v1/docs/{COLLECTION}/{SHARED}");
            let mut http = topology.http(region);
            eventually("the shared counter", || match http.send("GET", &path, "", "") {
                Ok(reply) if reply.body.contains("count") => Ok(()),
                other => Err(format!("{other:?}")),
            });
        }
        Self { topology, nodes, writers }
    }

    /// Kills nodes while all write, and starts them again while the others go on writing.
    fn crash(&mut self, victims: &[&'static str], writes: u64, jitter: Duration) {
        let traffic = Traffic::default();
        let (topology, nodes) = (self.topology, &mut self.nodes);
        thread::scope(|scope| {
            for (region, writer) in &mut self.writers {
                let address = topology.region(region).http;
                let traffic = &traffic;
                scope.spawn(move || writer.run(address, traffic));
            }
            wait_for_writes(&traffic, writes);
            thread::sleep(jitter);
            for victim in victims {
                nodes.remove(victim).unwrap().kill();
            }
            for victim in victims {
                nodes.insert(victim, topology.serve(victim));
            }
            traffic.stop.store(true, Ordering::Relaxed);
        });
    }

    /// Waits until both regions hold the same, and returns it.
    fn converged(&self) -> Listing {
        let [mut east, mut west] = REGIONS.map(|region| self.topology.http(region));
        [&mut east, &mut west].into_iter().for_each(check_token);
        eventually("both regions are equal", || {
            let (one, other) = (vector(&mut east), vector(&mut west));
            if one == other { Ok(()) } else { Err(format!("east {one:?}, west {other:?}")) }
        });
        let (found, other) = (east.all(COLLECTION), west.all(COLLECTION));
        let unequal = difference(&found, &other);
        assert!(unequal.is_empty(), "equal vectors, unequal documents: {unequal:#?}");
        found
    }
}

/// Draws when to kill: after so many writes, and a little later, to hit every step of a write.
fn moment(random: &mut ChaCha8Rng) -> (u64, Duration) {
    (random.random_range(1..=80), Duration::from_micros(random.random_range(0..4_000)))
}

/// Returns what is in one list and not in the other.
fn difference(east: &Listing, west: &Listing) -> Vec<String> {
    let only = |region: &str, one: &Listing, other: &Listing| {
        let missing = one.iter().filter(|document| !other.contains(document));
        missing
            .map(|(key, value)| format!("{region}: {key} {:.200}", value.to_string()))
            .collect::<Vec<_>>()
    };
    [only("east", east, west), only("west", west, east)].concat()
}

pub(super) fn wait_for_writes(traffic: &Traffic, writes: u64) {
    let deadline = Instant::now() + PATIENCE;
    while traffic.acknowledged.load(Ordering::Relaxed) < writes {
        assert!(Instant::now() < deadline, "{writes} writes took longer than {PATIENCE:?}");
        thread::yield_now();
    }
}

pub(super) fn merged<'w>(writers: impl IntoIterator<Item = &'w Writer>) -> Memory {
    let mut all = Memory::default();
    writers.into_iter().for_each(|writer| all.merge(writer.memory()));
    all
}

#[track_caller]
fn check(round: usize, memory: &Memory, found: Listing) {
    memory.check(found).unwrap_or_else(|error| panic!("after round {round}: {error}"));
}

/// Each kill costs an origin, and tokens do not grow with them.
#[track_caller]
fn check_token(http: &mut Http) {
    let status = http.get("/v1/replication");
    let token = status["token"].as_str().unwrap();
    assert!(token.len() < 256, "{} origins, token {token}", status["renewals"]);
}

/// Returns the last sequence of every origin.
pub(super) fn vector(http: &mut Http) -> BTreeMap<String, u64> {
    let status = http.get("/v1/replication");
    let origins = status["origins"].as_array().unwrap().iter();
    origins
        .map(|dot| (dot["origin"].as_str().unwrap().to_owned(), dot["sequence"].as_u64().unwrap()))
        .collect()
}

/// A run is repeated, up to the timing of threads, with `SEED=n`.
pub(super) fn seed() -> u64 {
    let given = std::env::var("SEED").ok().map(|text| text.parse().expect("SEED is a number"));
    let drawn = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into();
    let seed = given.unwrap_or_else(drawn);
    println!("SEED={seed}");
    seed
}

const REGIONS: [&str; 2] = ["east", "west"];

/// Rounds go on for so long, and on a slow machine at least so often.
const BUDGET: Duration = Duration::from_secs(12);
const MIN_ROUNDS: usize = 20;
const MIN_PAIR_ROUNDS: usize = 10;
