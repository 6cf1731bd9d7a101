//! `anabranch conflicts`: two regions that could not hear each other, and what they made.

use serde_json::{Value, json};

use super::support::{Outcome, Running, eventually, mask, run};
use super::topology::{Topology, linked};

/// Two regions that wrote the same fields while only one of them was running at a time.
struct Collision {
    topology: Topology,
    _nodes: [Running; 2],
}

impl Collision {
    fn make() -> Self {
        let policies = "\n[collection.cities.paths]\n\"/population\" = \"lww\"\n";
        let topology = Topology::certified(&["east", "west"], policies);
        let east = topology.serve("east");
        let mut http = topology.http("east");
        // Two writes, so that these values have the greater operation ids and show under `auto`.
        http.put("/v1/docs/cities/paris", &json!({"name": "Lutetia"}));
        http.put("/v1/docs/cities/paris", &json!({"name": "Paname"}));
        http.put("/v1/docs/cities/lyon", &json!({"population": 1}));
        east.signal("TERM");
        east.end().exits(0);
        let west = topology.serve("west");
        let mut http = topology.http("west");
        http.put("/v1/docs/cities/paris", &json!({"name": "Paris"}));
        http.put("/v1/docs/cities/lyon", &json!({"population": 522250}));
        let east = topology.serve("east");
        linked(&mut topology.http("east"), 1);
        let collision = Self { topology, _nodes: [east, west] };
        for region in ["east", "west"] {
            eventually("both conflicts are known", || {
                let found = collision.list(region, &["-o", "json"]).json();
                if found.as_array().unwrap().len() == 2 { Ok(()) } else { Err(found.to_string()) }
            });
        }
        collision
    }

    fn run(&self, region: &str, arguments: &[&str]) -> Outcome {
        let url = self.topology.url(region);
        run(&[&["conflicts"], arguments, &["--url", &url]].concat())
    }

    fn list(&self, region: &str, arguments: &[&str]) -> Outcome {
        self.run(region, &[&["list"], arguments].concat())
    }

    /// Returns the conflict of a document.
    fn of(&self, region: &str, document: &str) -> Value {
        self.list(region, &["--document", document, "-o", "json"]).exits(0).json()[0].clone()
    }
}

/// Checks a table against its picture, in which ids and times are masked.
#[track_caller]
fn check_table(outcome: &Outcome, expected: &str) {
    assert_eq!(mask(&outcome.stdout), expected, "{outcome}");
    let widest = outcome.stdout.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(80), "{widest:?} columns:\n{}", outcome.stdout);
}

#[test]
fn conflicts_are_listed_shown_and_resolved_everywhere() {
    let collision = Collision::make();
    let list = collision.list("west", &["--document", "cities/paris"]).exits(0);
    check_table(
        &list,
        "\
ID        DOCUMENT      PATH   STATE  REGIONS    SHOWS
xxxxxxxx  cities/paris  /name  open   east west  \"Paname\"
",
    );
    assert_eq!(list.stderr, "");
    collision.list("west", &["--exit-code"]).exits(4).says(&[]);
    collision.list("west", &["--state", "auto-resolved", "--exit-code"]).exits(0);

    let short = list.stdout.lines().nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let show = collision.run("west", &["show", &short]).exits(0);
    check_table(&show, OPEN);
    assert_eq!(show.stderr, "");

    let take = ["resolve", &short, "--take", "1", "--note", "as the map says"];
    collision.run("west", &take).exits(0).prints("").says(&["resolved /name of cities/paris"]);
    for region in ["west", "east"] {
        let settled = eventually("the resolution is everywhere", || {
            let conflict = collision.of(region, "cities/paris");
            if conflict["state"] == "resolved" { Ok(conflict) } else { Err(conflict.to_string()) }
        });
        assert_eq!(settled["settled"]["note"], "as the map says");
        assert_eq!(settled["settled"]["region"], "west");
        let path = "/v1/docs/cities/paris";
        assert_eq!(collision.topology.http(region).get(path), json!({"name": "Paris"}));
        collision.list(region, &["--state", "open", "--exit-code"]).exits(0).prints("");
        let show = collision.run(region, &["show", &short]).exits(0).stdout;
        assert!(show.contains("settled by west (") && show.ends_with("note: as the map says\n"));
    }
    let again = ["resolve", &short, "--take", "2"];
    collision.run("east", &again).exits(1).prints("").says(&["already_resolved"]);
}

const OPEN: &str = "\
conflict  xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
document  cities/paris
path      /name
kind      value
policy    auto
state     open
shows     \"Paname\"
why       auto: Automerge's deterministic winner shows until someone chooses

#   VALUE     WRITTEN BY       AT                        CANDIDATE
1   \"Paris\"   west (xxxxxxxx)  xxxxxxxxxx xxxxxxxxxxxxZ  1@xxxxxxxxxxx…
2*  \"Paname\"  east (xxxxxxxx)  xxxxxxxxxx xxxxxxxxxxxxZ  2@xxxxxxxxxxx…

To settle it: anabranch conflicts resolve xxxxxxxx --take NUMBER
";

#[test]
fn the_last_writer_won_and_the_value_that_lost_is_in_the_ledger() {
    let collision = Collision::make();
    for region in ["east", "west"] {
        let conflict = collision.of(region, "cities/lyon");
        assert_eq!(
            (&conflict["policy"], &conflict["state"]),
            (&json!("lww"), &json!("auto-resolved"))
        );
        let mut values: Vec<&Value> =
            conflict["candidates"].as_array().unwrap().iter().map(|c| &c["value"]).collect();
        values.sort_by_key(|value| value.as_u64());
        assert_eq!(values, [1, 522_250]);
        let lyon = collision.topology.http(region).get("/v1/docs/cities/lyon");
        assert_eq!(lyon, json!({"population": 522_250}));
    }
    let east = collision.list("east", &["-o", "json"]).json();
    assert_eq!(east, collision.list("west", &["-o", "json"]).json(), "one ledger everywhere");
}

#[test]
fn a_value_can_be_given_and_ids_may_be_whole_or_short() {
    let collision = Collision::make();
    let id = collision.of("east", "cities/paris")["id"].as_str().unwrap().to_owned();
    for (arguments, code, part) in [
        (&["show", "ffffffffffffffffffffffffffffffff"][..], 3, "404"),
        (&["resolve", &id, "--take", "3"], 2, "a number from 1 to 2"),
        (&["resolve", &id, "--value", "Paris"], 2, "double quotes"),
        (&["resolve", &id], 2, "required"),
        (&["show", ""], 2, "hexadecimal"),
    ] {
        collision.run("east", arguments).exits(code).prints("").says(&[part]);
    }
    let shown = collision.run("east", &["show", &id, "-o", "json"]).exits(0).json();
    assert_eq!(shown, collision.of("east", "cities/paris"));
    let arguments = ["resolve", &id[..6], "--value", "\"PARIS\"", "-o", "json"];
    let resolved = collision.run("east", &arguments).exits(0).json();
    assert_eq!((&resolved["id"], &resolved["state"]), (&json!(id), &json!("resolved")));
    let paris = collision.topology.http("east").get("/v1/docs/cities/paris");
    assert_eq!(paris, json!({"name": "PARIS"}));
    collision
        .list("east", &["--collection", "nothing"])
        .exits(0)
        .prints("")
        .says(&["no conflicts"]);
    collision.list("east", &["--limit", "1", "-o", "json"]).exits(0).says(&["there are more"]);
}
