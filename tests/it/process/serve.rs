//! `anabranch serve`: certificates by `pki`, three processes, one cluster; how nodes end; what
//! overrides the file.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use super::http::Http;
use super::support::{Running, anabranch, eventually, run};
use super::topology::{CLUSTER, Topology, free, linked, ready};

#[test]
fn three_processes_form_a_cluster() {
    let regions = ["us-east", "eu-west", "ap-south"];
    let topology = Topology::new(&regions, "");
    make_certificates(&topology, &regions);
    let nodes = regions.map(|region| topology.serve(region));
    for (number, region) in regions.into_iter().enumerate() {
        let mut http = topology.http(region);
        linked(&mut http, 2);
        http.put(&format!("/v1/docs/cities/{region}"), &json!({"number": number}));
    }
    for region in regions {
        let mut http = topology.http(region);
        eventually("every region has every document", || match http.all("cities").as_slice() {
            [(ap, two), (eu, one), (us, zero)] => {
                assert_eq!([ap, eu, us], ["ap-south", "eu-west", "us-east"]);
                assert_eq!([zero, one, two].map(|value| &value["number"]), [0, 1, 2]);
                Ok(())
            }
            some => Err(format!("{region} has {some:?}")),
        });
        let status = http.get("/v1/status");
        assert_eq!(
            (&status["region"], &status["cluster"]["id"]),
            (&json!(region), &json!(CLUSTER))
        );
    }
    for node in nodes {
        node.signal("TERM");
        node.end().exits(0).prints("");
    }
}

/// As an operator does it, checking what each command prints.
fn make_certificates(topology: &Topology, regions: &[&str]) {
    let pki = topology.path("pki");
    let pki = pki.to_str().unwrap();
    run(&["pki", "init", "--cluster-id", CLUSTER, "--name", "test", "--dir", pki])
        .exits(0)
        .prints(&format!("{pki}/ca.pem\n{pki}/ca.key\n"));
    for region in regions {
        run(&["pki", "issue", "--region", region, "--dir", pki])
            .exits(0)
            .prints(&format!("{pki}/{region}.pem\n{pki}/{region}.key\n"));
    }
}

#[test]
fn a_terminated_node_ends_quickly_and_keeps_everything() {
    let topology = Topology::certified(&["solo"], "");
    let node = topology.serve("solo");
    let mut http = topology.http("solo");
    for n in 0..50 {
        http.put(&format!("/v1/docs/c/{n:02}"), &json!({"n": n}));
    }
    let before = http.all("c");
    assert_eq!(before.len(), 50);
    // The kept-alive connection is idle, and must not hold the node up.
    let asked = Instant::now();
    node.signal("TERM");
    node.end().exits(0).prints("").says(&["stopping; once more to stop at once", "stopped"]);
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(5), "a clean stop took {took:?}");
    let _node = topology.serve("solo");
    assert_eq!(topology.http("solo").all("c"), before);
}

#[test]
fn whoever_interrupts_twice_does_not_wait() {
    let topology = Topology::certified(&["solo"], "");
    let mut node = topology.serve("solo");
    topology.http("solo").put("/v1/docs/c/k", &json!({"kept": true}));
    let _stalled = stalled_request(&mut node, topology.region("solo").http);
    node.signal("INT");
    node.wait_for_message("stopping; once more to stop at once");
    let asked = Instant::now();
    node.signal("INT");
    node.end().exits(130);
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(2), "the second Ctrl-C took {took:?}");
    let _node = topology.serve("solo");
    assert_eq!(topology.http("solo").get("/v1/docs/c/k"), json!({"kept": true}));
}

/// Opens a request that never ends, for which a clean stop waits a while.
fn stalled_request(node: &mut Running, address: SocketAddr) -> TcpStream {
    let mut stalled = TcpStream::connect(address).unwrap();
    let head = "PUT /v1/docs/c/stalled HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                Content-Length: 1000\r\n\r\n{\"half\":";
    stalled.write_all(head.as_bytes()).unwrap();
    // Connections are accepted in their order, so the stalled one is held once this is answered.
    ready(node, address);
    stalled
}

#[test]
fn flags_override_variables_and_variables_override_the_file() {
    let topology = Topology::certified(&["solo", "other"], "");
    let config = topology.path("regions.toml");
    let (flag, variable, quic) = (free(), free(), free());
    let base = || {
        let mut command = anabranch();
        command.arg("serve").env("ANABRANCH_CONFIG", &config).env("ANABRANCH_REGION", "solo");
        command.env("ANABRANCH_DATA", topology.path("data"));
        command.env("ANABRANCH_QUIC", quic.to_string()).env("ANABRANCH_CACHE", "8MiB");
        command.env("ANABRANCH_HTTP", variable.to_string());
        command
    };
    let file = topology.region("solo").http;
    let mut node = Running::start(base());
    check_listens(&mut node, variable, &[file, flag]);
    let limits = Http::new(variable).get("/v1/limits");
    assert_eq!(limits["cache_bytes"], 8 << 20);
    node.wait_for_message(&quic.to_string());
    drop(node);

    let mut command = base();
    command.args(["--http", &flag.to_string(), "--region", "other", "--cache", "16MiB"]);
    command.arg("--data").arg(topology.path("others-data"));
    let mut node = Running::start(command);
    check_listens(&mut node, flag, &[file, variable]);
    let mut http = Http::new(flag);
    assert_eq!(http.get("/v1/status")["region"], "other");
    assert_eq!(http.get("/v1/limits")["cache_bytes"], 16 << 20);
    assert!(topology.path("others-data").is_dir());
}

fn check_listens(node: &mut Running, here: SocketAddr, not_there: &[SocketAddr]) {
    ready(node, here);
    for address in not_there {
        assert!(TcpStream::connect(address).is_err(), "{address} is not where it should listen");
    }
}
