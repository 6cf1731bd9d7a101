//! `anabranch serve` with something wrong: every message names the culprit and the cure.

use std::net::{TcpListener, UdpSocket};
use std::process::Command;

use anabranch::pki::{Authority, Overwrite, Validity};

use super::support::{Outcome, Running, anabranch, eventually, program, run};
use super::topology::{Topology, free, linked};

fn fails(command: Command) -> Outcome {
    Running::start(command).end().prints("")
}

#[test]
fn an_unknown_region_is_answered_with_the_known_ones() {
    let topology = Topology::certified(&["us-east", "eu-west"], "");
    fails(topology.command("eu-wst")).exits(2).says(&[
        "regions.toml",
        "no region 'eu-wst'",
        "did you mean 'eu-west'?",
    ]);
    assert!(!topology.path("eu-wst").exists(), "nothing is made for a mistake");
}

#[test]
fn missing_certificates_are_made_by_the_commands_that_the_messages_name() {
    let topology = Topology::new(&["solo"], "");
    for file in ["ca.pem", "solo.pem"] {
        let outcome = fails(topology.command("solo"));
        let outcome = outcome.exits(2).says(&["is missing", file, "regions.toml"]);
        let cure = outcome.stderr.split('`').nth(1).expect("a command between backticks");
        let cure = cure.replacen("anabranch", &program(), 1);
        let mut shell = Command::new("sh");
        shell.args(["-c", &cure]).current_dir(topology.path(""));
        Running::start_group(shell).end().exits(0);
    }
    std::fs::remove_file(topology.path("pki/solo.key")).unwrap();
    fails(topology.command("solo")).exits(2).says(&["the key of solo is missing", "solo.key"]);
    std::fs::remove_file(topology.path("pki/solo.pem")).unwrap();
    let pki = topology.path("pki");
    run(&["pki", "issue", "--region", "solo", "--dir", pki.to_str().unwrap()]).exits(0);
    topology.serve("solo");
}

#[test]
fn data_of_another_region_or_cluster_is_refused_and_left_alone() {
    let topology = Topology::certified(&["one", "two"], "");
    topology.serve("one").kill();
    let wrong_region = fails(with_data(&topology, "two", "one"));
    wrong_region.exits(1).says(&[
        "one: ",
        "region 'one'",
        "region 'two'",
        "another data directory",
    ]);

    let other = Topology::certified(&["one"], "");
    let text = other.text().replacen("0d4f8a52", "99998a52", 1);
    let other_id = "99998a52-3c1e-4b7a-9f60-2b8c7d5e6a10";
    other.write("regions.toml", &text);
    let pki = other.path("pki");
    let pki = pki.to_str().unwrap();
    run(&["pki", "init", "--cluster-id", other_id, "--dir", pki, "--force"]).exits(0);
    run(&["pki", "issue", "--region", "one", "--dir", pki, "--force"]).exits(0);
    let data = topology.path("one");
    fails(with_data(&other, "one", data.to_str().unwrap())).exits(1).says(&["cluster", other_id]);

    topology.serve("one");
}

fn with_data(topology: &Topology, region: &str, data: &str) -> Command {
    let mut command = anabranch();
    command.current_dir(topology.path(""));
    command.args(["serve", "--region", region, "--data", data]);
    command
}

#[test]
fn a_second_process_on_the_same_data_is_refused_and_the_first_goes_on() {
    let topology = Topology::certified(&["solo"], "");
    let mut first = topology.serve("solo");
    let mut second = topology.command("solo");
    second.args(["--http", &free().to_string(), "--quic", &free().to_string()]);
    fails(second).exits(1).says(&["solo", "in use by another process"]);
    assert!(first.ended().is_none());
    topology.http("solo").get("/readyz");
}

#[test]
fn a_taken_port_is_named_with_the_cure() {
    let topology = Topology::certified(&["solo"], "");
    let region = topology.region("solo");
    let taken = TcpListener::bind(region.http).unwrap();
    let http = region.http.to_string();
    fails(topology.command("solo")).exits(1).says(&["HTTP", &http, "in use", "--http"]);
    drop(taken);
    let _taken = UdpSocket::bind(region.quic).unwrap();
    let quic = region.quic.to_string();
    fails(topology.command("solo")).exits(1).says(&[&quic, "in use", "--quic"]);
}

#[test]
fn a_broken_file_is_answered_with_line_and_cure() {
    let topology = Topology::certified(&["solo"], "");
    let good = topology.text();
    for (from, to, parts) in [
        ("quic =", "qiuc =", ["regions.toml:7:1", "unknown key 'qiuc'", "did you mean 'quic'"]),
        ("name = \"solo\"", "name = solo", ["regions.toml:6:", "string", "toml.io"]),
        ("[cluster]", "[cluster", ["regions.toml:1:", "TOML", "help:"]),
        ("http = \"127.0.0.1", "http = \"localhost", ["regions.toml:8:8", "localhost", "help:"]),
    ] {
        assert!(good.contains(from), "{from}");
        topology.write("regions.toml", &good.replacen(from, to, 1));
        fails(topology.command("solo")).exits(2).says(&parts);
    }
    std::fs::remove_file(topology.path("regions.toml")).unwrap();
    fails(topology.command("solo")).exits(2).says(&["regions.toml: cannot read", "--config"]);
}

#[test]
fn an_expired_certificate_is_told_on_both_sides_until_it_is_renewed() {
    let topology = Topology::certified(&["east", "west"], "");
    let pki = topology.path("pki");
    let authority = Authority::load(&pki).unwrap();
    let expired = authority.issue_node(&"west".parse().unwrap(), Validity::days(-1)).unwrap();
    expired.store(&pki, Overwrite::Replace).unwrap();

    let mut east = topology.serve("east");
    let mut west = topology.serve("west");
    west.wait_for_message("peers will refuse this node's certificate");
    let said = west.said();
    assert!(said.contains("west.pem") && said.contains("expired"), "{said}");
    assert!(said.contains("pki issue --region west"), "{said}");
    // It goes on serving alone, and its peer says why it stays alone.
    topology.http("west").put("/v1/docs/c/k", &serde_json::json!({"alone": true}));
    east.wait_for_message("expired");
    let mut http = topology.http("east");
    eventually("the status says why", || {
        let peers = http.get("/v1/replication")["peers"].clone();
        let told = peers[0]["last_error"].as_str().is_some_and(|error| error.contains("expired"));
        if told && peers[0]["connected"] == false { Ok(()) } else { Err(peers.to_string()) }
    });

    west.signal("TERM");
    west.end().exits(0);
    let pki = pki.to_str().unwrap();
    run(&["pki", "issue", "--region", "west", "--dir", pki, "--force"]).exits(0);
    let _west = topology.serve("west");
    linked(&mut http, 1);
    eventually("what west wrote alone", || {
        let reply = http.send("GET", "/v1/docs/c/k", "", "").unwrap();
        if reply.status == 200 { Ok(()) } else { Err(format!("{reply:?}")) }
    });
}
