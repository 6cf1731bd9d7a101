//! `kill -9` while documents are compacted and purged: every document is there, once, in one epoch.

use std::thread;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::http::Http;
use super::support::eventually;
use super::topology::{Topology, linked};

const ROUNDS: u64 = 6;

#[test]
fn a_node_that_is_killed_while_it_compacts_and_purges_loses_and_doubles_nothing() {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let topology = Topology::certified(&["east", "west"], "");
    let (mut east, _west) = (topology.serve("east"), topology.serve("west"));
    let address = topology.region("east").http;
    linked(&mut topology.http("east"), 1);
    for round in 0..ROUNDS {
        let mut http = topology.http("east");
        http.put("/v1/docs/cities/kept", &json!({"round": round, "list": [round]}));
        http.put("/v1/docs/cities/gone", &json!({"round": round}));
        http.send("DELETE", "/v1/docs/cities/gone", "", "").unwrap();
        let pause = Duration::from_micros(random.random_range(0..30_000));
        thread::scope(|scope| {
            for path in ["/v1/compact/cities/kept", "/v1/purge/cities/gone"] {
                // Whether it is answered depends on when the node dies.
                scope.spawn(move || {
                    drop(Http::new(address).send("POST", path, "application/json", "{}"));
                });
            }
            thread::sleep(pause);
            east.kill();
        });
        east = topology.serve("east");
        linked(&mut topology.http("east"), 1);
        let wanted = json!({"round": round, "list": [round]});
        for region in ["east", "west"] {
            let mut http = topology.http(region);
            eventually("the document is there, and the other is not", || {
                let kept = http.send("GET", "/v1/docs/cities/kept", "", "").unwrap();
                let gone = http.send("GET", "/v1/docs/cities/gone", "", "").unwrap();
                match kept.status == 200 && kept.json() == wanted && gone.status == 404 {
                    true => Ok(()),
                    false => Err(format!("{region}, round {round}: {kept:?} {gone:?}")),
                }
            });
        }
    }
    let mut http = topology.http("east");
    let patient = "{\"wait_seconds\": 30}";
    let reply = http.send("POST", "/v1/compact/cities/kept", "application/json", patient).unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    eventually("both regions have the same epochs", || {
        let [east, west] = ["east", "west"].map(|region| told(&mut topology.http(region)));
        if east == west { Ok(()) } else { Err(format!("{east} {west}")) }
    });
    let told = told(&mut http);
    let epochs = told.as_array().unwrap();
    let (last, closed) = epochs.split_last().unwrap();
    assert_eq!((&last["state"], &last["changes"]), (&json!("current"), &json!(1)));
    for epoch in closed {
        assert_eq!(epoch["state"], "compacted");
        assert_eq!(epoch["closed"].as_array().unwrap().len(), 1, "closed once: {epoch}");
    }
}

fn told(http: &mut Http) -> Value {
    http.get("/v1/epochs/cities/kept")["epochs"].clone()
}
