//! `anabranch conflicts`: two regions that could not hear each other, and what they made.

use serde_json::{Value, json};

use super::support::{Outcome, Running, anabranch, eventually, mask, run};
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
ID        DOCUMENT      PATH   KIND   STATE  SHOWS     REGIONS
xxxxxxxx  cities/paris  /name  value  open   \"Paname\"  east west
",
    );
    list.says(&["1 conflict in all"]);
    collision.list("west", &["--exit-code"]).exits(4).says(&[]);
    collision.list("west", &["--state", "auto-resolved", "--exit-code"]).exits(0);

    let list = collision.list("west", &["--document", "cities/paris"]).exits(0);
    let short = list.stdout.lines().nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let show = collision.run("west", &["show", &short]).exits(0);
    let why = collision.of("west", "cities/paris")["why"].as_str().unwrap().to_owned();
    check_table(&show, &OPEN.replace("WHY", &why));
    assert_eq!(show.stderr, "");
    let told = collision.run("east", &["explain", &short]).exits(0).stdout;
    assert!(told.contains(" wrote \"Paname\" (side 2)") && told.contains("Side 2 shows"), "{told}");

    let take = ["resolve", &short, "--take", "1", "--note", "as the map says", "--author", "zoë"];
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
        assert!(show.contains("- resolved by zoë in west at "), "{show}");
        assert!(show.contains(": as the map says\n"), "{show}");
    }
    let again = ["resolve", &short, "--take", "2"];
    collision.run("east", &again).exits(1).prints("").says(&[
        "already resolved by zoë in west",
        "as the map says",
        "already_resolved",
    ]);
    let undo = ["undo", &short, "--author", "ben"];
    collision.run("east", &undo).exits(0).says(&["undid the resolution of /name"]);
    let paris = collision.topology.http("east").get("/v1/docs/cities/paris");
    assert_eq!(paris, json!({"name": "Paname"}), "what showed before shows again");
    collision.run("east", &["undo", &short]).exits(1).says(&["not_resolved"]);
}

#[test]
fn all_that_match_are_dismissed_and_reopened_and_watched() {
    let collision = Collision::make();
    let mut watch = anabranch();
    watch.args(["conflicts", "watch", "-o", "json", "--url", &collision.topology.url("west")]);
    let mut watch = Running::start(watch);
    watch.wait_for_message("watching");
    let east = |arguments: &[&str]| collision.run("east", arguments);
    let filter = ["--all-matching", "--collection", "cities"];
    let dismiss = [&["dismiss"], &filter[..]].concat();
    let dry = east(&[&dismiss[..], &["--dry-run"]].concat()).exits(0);
    assert!(dry.stdout.contains("would-dismiss"), "{dry}");
    dry.says(&["1 conflict matched: 1 would be dismissed"]);
    east(&[&dismiss[..], &["--note", "fine"]].concat()).exits(0).says(&["1 dismissed, 0 skipped"]);
    let line = watch.wait_for_data("\"dismissed\"");
    let event: Value = serde_json::from_str(line.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&event["event"], &event["conflict"]["path"]),
        (&json!("conflict"), &json!("/name"))
    );
    watch.signal("INT");
    watch.end().exits(130);
    let reopen = [&["reopen"], &filter[..], &["--state", "dismissed", "-o", "json"]].concat();
    let lines = east(&reopen).exits(0).stdout;
    let sum: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!((&sum["done"], &sum["changed"]), (&json!(true), &json!(1)), "{lines}");
    let stats = east(&["stats"]).exits(0).says(&["2 conflicts in east, 1 of them open"]);
    assert!(stats.stdout.starts_with("COLLECTION  STATE"), "{stats}");
}

#[test]
fn a_conflict_that_has_changed_since_it_was_read_is_left_alone() {
    let collision = Collision::make();
    let row = collision.of("east", "cities/paris");
    let (id, revision) = (row["id"].as_str().unwrap(), row["revision"].as_str().unwrap());
    collision.run("east", &["dismiss", id, "--if-match", revision]).exits(0);
    collision.run("east", &["reopen", id, "--if-match", revision]).exits(1).prints("").says(&[
        "changed since it was read",
        "conflict_changed",
        "look again: anabranch conflicts show",
    ]);
}

const OPEN: &str = "\
conflict  xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
document  cities/paris
path      /name
kind      value
policy    auto (settings xxxxxxxxxxxxxxxx)
state     open
why       WHY

BASE              │ SIDE 1            │ SIDE 2 *          │ RESULT
(nothing was      │ west (xxxxxxxx)   │ east (xxxxxxxx)   │ open
there)            │ xxxxxxxxxx        │ xxxxxxxxxx        │ side 2 shows
                  │ xxxxxxxxxxxxZ     │ xxxxxxxxxxxxZ     │
                  │                   │                   │
                  │ \"Paris\"           │ \"Paname\"          │ \"Paname\"

Next:
  anabranch conflicts resolve xxxxxxxx --take NUMBER   take a side
  anabranch conflicts resolve xxxxxxxx --value JSON    write another value
  anabranch conflicts dismiss xxxxxxxx                 leave it as it is
  anabranch conflicts explain xxxxxxxx                 what happened, in words
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
