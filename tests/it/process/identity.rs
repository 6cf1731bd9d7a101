//! Backups that are put back, disks that are copied, nodes that are stopped and killed: what the
//! node does about it by itself, with the program as people run it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anabranch::journal::{Journal, JournalOptions};
use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{Origin, Sequence};
use serde_json::{Value, json};

use super::http::Http;
use super::support::{Running, eventually};
use super::topology::{CLUSTER, Topology, linked};

/// The file that an operator copies, and all that is in the directory.
#[derive(Debug, Clone, Copy)]
enum Backup {
    File,
    Directory,
}

#[test]
fn an_older_file_put_back_in_place_costs_an_origin_and_nothing_else() {
    check_restored(Backup::File);
}

/// As a file system does that goes back to a snapshot: nothing in the directory betrays it.
#[test]
fn an_older_directory_put_back_in_place_is_known_by_the_peers() {
    check_restored(Backup::Directory);
}

fn check_restored(backup: Backup) {
    let topology = Topology::certified(&["east", "west"], "");
    let (mut east, west) = (topology.serve("east"), topology.serve("west"));
    let data = topology.path("east");
    write(&topology, "before");
    stop(east);
    let kept = read_all(&data);

    east = topology.serve("east");
    linked(&mut topology.http("east"), 1);
    write(&topology, "after");
    let lost = origin(&topology);
    converged(&topology);
    stop(east);

    put_back(&data, &kept, backup);
    east = topology.serve("east");
    write(&topology, "restored");
    assert_ne!(origin(&topology), lost);
    assert!(east.said().contains("WARN"), "{}", east.said());
    converged(&topology);
    for key in ["before", "after", "restored"] {
        assert_eq!(topology.http("east").get(&format!("/v1/docs/notes/{key}")), json!({"n": 2}));
    }
    stop(east);
    stop(west);
    check_entries(&topology);
}

#[test]
fn a_node_that_is_stopped_in_order_keeps_its_origin_and_writes_at_once() {
    let topology = Topology::certified(&["east", "west"], "");
    let (east, _west) = (topology.serve("east"), topology.serve("west"));
    linked(&mut topology.http("east"), 1);
    write(&topology, "a");
    let before = origin(&topology);
    converged(&topology);
    stop(east);

    let started = Instant::now();
    let _east = topology.serve("east");
    write(&topology, "b");
    println!("start to first write: {:?}", started.elapsed());
    assert_eq!(origin(&topology), before);
    let ready = topology.http("east").get("/readyz");
    assert_eq!(ready, json!({"ready": true}));
}

#[test]
fn without_its_peer_a_node_waits_for_the_bound_and_takes_a_new_origin() {
    let topology = Topology::certified(&["east", "west"], "[limits]\nsettle_within = \"500ms\"\n");
    let (east, west) = (topology.serve("east"), topology.serve("west"));
    linked(&mut topology.http("east"), 1);
    write(&topology, "a");
    let before = origin(&topology);
    stop(east);
    stop(west);

    let east = topology.serve("east");
    // Reads are answered in the meantime.
    topology.http("east").get("/v1/docs/notes/a");
    let started = Instant::now();
    write(&topology, "b");
    println!("the first write waited {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_ne!(origin(&topology), before);
    let status = topology.http("east").get("/v1/replication");
    assert_eq!((&status["settled"], &status["renewals"]), (&json!(true), &json!(1)));
    assert!(east.said().contains("west did not confirm the origin"), "{}", east.said());
}

/// Two changes to one document, in two requests.
#[track_caller]
fn write(topology: &Topology, key: &str) {
    let path = format!("/v1/docs/notes/{key}");
    topology.http("east").put(&path, &json!({"n": 1}));
    topology.http("east").put(&path, &json!({"n": 2}));
}

fn stop(node: Running) {
    node.signal("TERM");
    node.end().exits(0);
}

fn origin(topology: &Topology) -> String {
    topology.http("east").get("/v1/replication")["origin"].as_str().unwrap().to_owned()
}

/// Waits until both regions have the same.
fn converged(topology: &Topology) {
    let (mut east, mut west) = (topology.http("east"), topology.http("west"));
    eventually("both regions are equal", || {
        let (one, other) = (origins(&mut east), origins(&mut west));
        if one == other { Ok(()) } else { Err(format!("east {one:?}, west {other:?}")) }
    });
}

fn origins(http: &mut Http) -> Value {
    http.get("/v1/replication")["origins"].clone()
}

fn read_all(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Writes old bytes over the present files, whose inodes stay what they are.
fn put_back(directory: &Path, kept: &BTreeMap<PathBuf, Vec<u8>>, backup: Backup) {
    let file = directory.join("journal.redb");
    let put = |(path, bytes): (&PathBuf, &Vec<u8>)| fs::write(path, bytes).unwrap();
    match backup {
        Backup::File => put((&file, &kept[&file])),
        Backup::Directory => kept.iter().for_each(put),
    }
}

/// Checks that both disks have the same entry by every number.
fn check_entries(topology: &Topology) {
    let [east, west] = ["east", "west"].map(|region| entries(topology, region));
    assert!(east == west && east.len() == 6, "{} and {} entries", east.len(), west.len());
}

fn entries(topology: &Topology, region: &str) -> BTreeMap<Dot, Entry> {
    let options = JournalOptions {
        cluster: CLUSTER.parse().unwrap(),
        region: region.parse().unwrap(),
        cache_bytes: 1 << 20,
        new_origin: Box::new(|| Origin::from_bytes([1; 16])),
        publish: Box::new(|_| ()),
    };
    let journal = Journal::open(&topology.path(region), options).unwrap();
    let of = |origin| journal.entries(origin, Sequence::ZERO, usize::MAX, usize::MAX).unwrap();
    let all = journal.origins().into_iter().flat_map(|(origin, _)| of(origin));
    all.map(|entry| (entry.dot(), entry)).collect()
}
