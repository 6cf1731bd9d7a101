//! `kill -9` of a region while it takes over what it lacks.

use serde_json::{Value, json};

use super::http::Http;
use super::support::{Running, eventually};
use super::topology::{CLUSTER, Topology};
use crate::reconcile::{Whose, sweep_log};

/// Documents that the new region takes over.
const COUNT: usize = 1_500;

/// How often it is killed on the way.
const KILLS: usize = 4;

fn adopted(status: &Value) -> u64 {
    status["bootstrap"]["documents_adopted"].as_u64().unwrap_or_default()
}

/// Starts the region, and returns when it has taken over something more, or everything.
fn start_and_wait(topology: &Topology) -> (Running, bool) {
    let node = Running::start(topology.command("west"));
    let mut http = topology.http("west");
    let mut ended = false;
    eventually("it takes over documents", || {
        let Ok(reply) = http.send("GET", "/v1/replication", "", "") else {
            return Err("it does not answer yet".to_owned());
        };
        let status = reply.json();
        // The one before may have ended between the last look and the kill.
        let has =
            status["origins"].as_array().unwrap().iter().any(|origin| origin["region"] == "east");
        ended = has || !status["last_bootstrap"].is_null();
        if ended || adopted(&status) > 0 { Ok(()) } else { Err(status.to_string()) }
    });
    (node, ended)
}

/// It has taken over a part, is killed with SIGKILL, and begins again, until it has everything. It
/// never says that it has what it has not, and is written to all the while.
#[test]
fn a_region_that_is_killed_while_it_takes_over_begins_again_and_ends() {
    let topology = Topology::certified(&["east", "west"], "");
    let east = topology.serve("east");
    let mut http = topology.http("east");
    for n in 0..COUNT {
        http.put(&format!("/v1/docs/many/{n}"), &json!({"n": n}));
    }
    east.signal("TERM");
    east.end().exits(0);
    let region = "east".parse().unwrap();
    sweep_log(&topology.path("east"), CLUSTER.parse().unwrap(), region, Whose::Everybodys);
    let _east = topology.serve("east");
    let mut http = topology.http("east");

    let mut killed = 0;
    let west = loop {
        let (node, ended) = start_and_wait(&topology);
        if ended || killed == KILLS {
            break node;
        }
        let mut http = topology.http("west");
        http.put(&format!("/v1/docs/own/{killed}"), &json!({"written": "meanwhile"}));
        let origins = http.get("/v1/replication")["origins"].as_array().unwrap().clone();
        let foreign = origins.iter().filter(|origin| origin["region"] != "west").count();
        let ready = http.send("GET", "/readyz", "", "").unwrap();
        if ready.status == 503 {
            assert_eq!(ready.json()["code"], "bootstrapping");
            assert_eq!(foreign, 0, "it claims its own entries, and no others: {origins:?}");
        }
        node.kill();
        killed += 1;
    };
    println!("killed {killed} times");
    let same = |here: &mut Http, there: &mut Http, collection: &str| {
        let (here, there) = (here.all(collection), there.all(collection));
        if here == there { Ok(here.len()) } else { Err(format!("{} {}", here.len(), there.len())) }
    };
    let mut there = topology.http("west");
    for (collection, count) in [("many", COUNT), ("own", killed)] {
        eventually("both have the same", || match same(&mut http, &mut there, collection)? {
            found if found == count => Ok(()),
            found => Err(format!("{found} of {count}")),
        });
    }
    eventually("it is ready", || match there.send("GET", "/readyz", "", "") {
        Ok(reply) if reply.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    west.signal("TERM");
    west.end().exits(0);
}
