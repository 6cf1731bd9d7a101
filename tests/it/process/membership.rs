//! `anabranch serve --join`: a process that no file names becomes a region, and `anabranch regions`
//! is how people deal with it.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use serde_json::json;

use super::http::Http;
use super::support::{Running, anabranch, eventually, run};
use super::topology::{Topology, free, linked, ready};

/// Prepares a node that gets everything but its certificate and addresses by gossip.
fn stranger(topology: &Topology, http: SocketAddr, quic: SocketAddr, join: &[&str]) -> Command {
    let mut command = anabranch();
    command.current_dir(topology.path("mars-home"));
    let [http, quic] = [http, quic].map(|address| address.to_string());
    command.args(["serve", "--pki", "pki", "--data", "data", "--http", &http, "--quic", &quic]);
    command.args(join);
    command
}

#[test]
fn a_process_joins_without_a_file_and_survives_its_restart() {
    let topology = Topology::certified(&["eu-west", "us-east"], "");
    let pki = topology.path("pki");
    let pki = pki.to_str().unwrap();
    run(&["pki", "issue", "--region", "mars", "--dir", pki]).exits(0);
    // What is carried to its machine: the authority's certificate, its own, and its key.
    let home = topology.path("mars-home");
    fs::create_dir_all(home.join("pki")).unwrap();
    for file in ["ca.pem", "mars.pem", "mars.key"] {
        fs::copy(topology.path("pki").join(file), home.join("pki").join(file)).unwrap();
    }
    let nodes = ["eu-west", "us-east"].map(|region| topology.serve(region));
    let (http, quic) = (free(), free());
    let at = format!("{},{}", topology.region("us-east").quic, topology.region("eu-west").quic);
    let mut mars = Running::start(stranger(&topology, http, quic, &["--join", &at]));
    ready(&mut mars, http);
    linked(&mut topology.http("eu-west"), 2);
    Http::new(http).put("/v1/docs/rocks/olympus", &json!({"height": 21_900}));
    let arrived = |node: &mut Http, count: usize| {
        eventually("the document arrives", || match node.all("rocks").len() {
            n if n == count => Ok(()),
            n => Err(format!("{n} documents")),
        });
    };
    arrived(&mut topology.http("us-east"), 1);

    mars.signal("TERM");
    mars.end().exits(0);
    let mut mars = Running::start(stranger(&topology, http, quic, &[]));
    ready(&mut mars, http);
    topology.http("us-east").put("/v1/docs/rocks/everest", &json!({"height": 8_849}));
    arrived(&mut Http::new(http), 2);

    let url = topology.url("eu-west");
    let listed = run(&["regions", "list", "--url", &url]).exits(0).stdout;
    assert!(listed.contains("mars") && listed.contains(&quic.to_string()), "{listed}");
    run(&["regions", "forget", "mars", "--url", &url]).exits(2).says(&["--yes"]);
    run(&["regions", "drain", "mars", "--url", &url]).exits(0).says(&["mars is draining"]);
    run(&["regions", "undrain", "mars", "--url", &url]).exits(0).says(&["mars is active"]);
    run(&["regions", "leave", "mars", "--url", &url]).exits(0).says(&["mars is left"]);
    for node in nodes {
        node.signal("TERM");
        node.end().exits(0);
    }
    mars.signal("TERM");
    mars.end().exits(0);
}

#[test]
fn a_node_that_cannot_be_reached_is_told_what_is_missing() {
    let topology = Topology::certified(&["solo"], "");
    let home = topology.path("mars-home");
    fs::create_dir_all(&home).unwrap();
    let mut command = anabranch();
    command.current_dir(&home);
    command.args(["serve", "--join", "127.0.0.1:9", "--data", "d", "--pki"]);
    command.arg(topology.path("pki"));
    let ended = Running::start(command).end();
    ended.exits(2).says(&["no file says where solo listens for http", "--http ADDRESS"]);
}
