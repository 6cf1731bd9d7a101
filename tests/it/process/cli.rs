//! The commands that talk to a node: documents, regions, certificates.

use serde_json::json;

use super::support::{Outcome, Running, anabranch, mask, run};
use super::topology::{Topology, free, linked};

/// Runs commands against one node.
struct Node {
    topology: Topology,
    _running: Running,
}

impl Node {
    fn start() -> Self {
        let topology = Topology::certified(&["solo"], "");
        let _running = topology.serve("solo");
        Self { topology, _running }
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        self.run_with_input(arguments, "")
    }

    fn run_with_input(&self, arguments: &[&str], input: &str) -> Outcome {
        let mut command = anabranch();
        command.args(arguments).env("ANABRANCH_URL", self.topology.url("solo"));
        command.current_dir(self.topology.path(""));
        Running::start_with_input(command, input).end()
    }
}

#[test]
fn documents_are_put_patched_read_and_deleted() {
    let node = Node::start();
    node.run(&["doc", "put", "cities/paris", r#"{"name": "Paris", "n": 1, "tags": ["a"]}"#])
        .exits(0)
        .prints("")
        .says(&["created cities/paris in solo"]);
    node.run(&["doc", "put", "cities/paris", "-"]).exits(2).prints("").says(&["no JSON"]);
    node.run_with_input(&["doc", "put", "cities/paris", "-"], r#"{"name":"Paris","n":2}"#)
        .exits(0)
        .says(&["saved cities/paris in solo"]);
    node.topology.write("patch.json", r#"{"name": null, "mayor": {"since": 2014}}"#);
    node.run(&["doc", "patch", "cities/paris", "--file", "patch.json"]).exits(0).prints("");
    let patch = r#"[{"op": "replace", "path": "/mayor/since", "value": 2020}]"#;
    node.run(&["doc", "patch", "cities/paris", "--type", "json", patch]).exits(0);
    let edits = r#"[{"op": "increment", "path": "/n", "by": 40}]"#;
    node.run(&["doc", "patch", "cities/paris", "--type", "edits", edits]).exits(0);
    node.run(&["doc", "get", "cities/paris"])
        .exits(0)
        .prints("{\"mayor\":{\"since\":2020},\"n\":42}\n");
    node.run(&["doc", "delete", "cities/paris"]).exits(0).prints("").says(&["deleted"]);
    node.run(&["doc", "get", "cities/paris"]).exits(3).prints("").says(&["cities/paris", "404"]);
    node.run(&["doc", "delete", "cities/paris"]).exits(3).prints("");
    node.run(&["doc", "patch", "cities/paris", "{}"]).exits(3).prints("");
}

#[test]
fn what_a_node_refuses_is_an_error_and_not_data() {
    let node = Node::start();
    node.run(&["doc", "put", "c/k", "[1]"]).exits(1).prints("").says(&["object"]);
    node.run(&["doc", "put", "c/k", r#"{"n": 1e999}"#]).exits(1).prints("").says(&["1e999"]);
    node.run(&["doc", "put", "c/k", r#"{"n": 9007199254740993}"#]).exits(1).prints("");
    node.run(&["doc", "put", "c/k", "--file", "nowhere.json"]).exits(1).says(&["nowhere.json"]);
    node.run(&["doc", "put", "c/k", r#"{"n": "x"}"#]).exits(0);
    let edits = r#"[{"op": "increment", "path": "/n"}]"#;
    node.run(&["doc", "patch", "c/k", "--type", "edits", edits]).exits(1).says(&["/n", "string"]);
    node.run(&["doc", "get", "c/k", "--token", "nonsense"]).exits(1).prints("").says(&["token"]);
    let nowhere = format!("http://{}", free());
    for arguments in [
        &["doc", "get", "c/k"][..],
        &["doc", "ls", "c"],
        &["doc", "put", "c/k", "{}"],
        &["conflicts", "list"],
        &["regions", "status"],
        &["export", "--collection", "c"],
    ] {
        run(&[arguments, &["--url", &nowhere]].concat()).exits(5).prints("").says(&[
            "cannot reach",
            &nowhere,
            "--url",
        ]);
    }
}

#[test]
fn if_match_keeps_writers_from_overwriting_each_other() {
    let node = Node::start();
    let put =
        |value: &str, more: &[&str]| node.run(&[&["doc", "put", "c/k", value], more].concat());
    put(r#"{"n":1}"#, &["--if-match", "*"]).exits(1).says(&["412"]);
    let created = put(r#"{"n":1}"#, &["-o", "json"]).exits(0).json();
    assert_eq!(
        (&created["outcome"], &created["region"], &created["conflicts"]),
        (&json!("created"), &json!("solo"), &json!(0))
    );
    let etag = created["etag"].as_str().unwrap();
    // The quotes of an ETag are easily lost to a shell.
    put(r#"{"n":2}"#, &["--if-match", etag.trim_matches('"')]).exits(0);
    put(r#"{"n":3}"#, &["--if-match", etag]).exits(1).prints("").says(&["412"]);
    node.run(&["doc", "delete", "c/k", "--if-match", etag]).exits(1).says(&["412"]);
    node.run(&["doc", "get", "c/k"]).exits(0).prints("{\"n\":2}\n");
    let token = put(r#"{"n":4}"#, &["-o", "json"]).json()["token"].as_str().unwrap().to_owned();
    node.run(&["doc", "get", "c/k", "--token", &token]).exits(0).prints("{\"n\":4}\n");
}

#[test]
fn answers_to_writes_come_as_tables_too() {
    let node = Node::start();
    let outcome = node.run(&["doc", "put", "c/k", "{}", "-o", "table"]).exits(0);
    let names: Vec<&str> =
        outcome.stdout.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["document", "outcome", "region", "durable", "etag", "token", "conflicts"]);
    assert!(outcome.stdout.starts_with("document   c/k\noutcome    created\nregion     solo\n"));
    assert_eq!(outcome.stderr, "");
}

#[test]
fn listings_have_keys_in_order_and_pages_to_follow() {
    let node = Node::start();
    let mut http = node.topology.http("solo");
    for key in ["b", "a%2F1", "a%2F2", "c"] {
        http.put(&format!("/v1/docs/cities/{key}"), &json!({"key": key}));
    }
    let table = node.run(&["doc", "ls", "cities"]).exits(0);
    assert_eq!(table.stderr, "");
    let expected = "\
KEY  CONFLICTS  ETAG
a/1  0          \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"
a/2  0          \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"
b    0          \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"
c    0          \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"
";
    assert_eq!(mask(&table.stdout), expected);
    node.run(&["doc", "ls", "cities", "--prefix", "a/", "--values"]).exits(0).prints(
        "KEY  CONFLICTS  VALUE\na/1  0          {\"key\":\"a%2F1\"}\na/2  0          {\"key\":\"a%2F2\"}\n",
    );
    let json = node.run(&["doc", "ls", "cities", "--limit", "3", "-o", "json"]).exits(0);
    let keys: Vec<_> =
        json.json().as_array().unwrap().iter().map(|row| row["key"].clone()).collect();
    assert_eq!(keys, ["a/1", "a/2", "b"]);
    json.says(&["the first 3 documents; there are more"]);
    node.run(&["doc", "ls", "nothing", "-o", "json"]).exits(0).prints("[]\n");
}

#[test]
fn the_status_of_regions_is_a_table_or_json() {
    let topology = Topology::certified(&["east", "west", "gone"], "");
    let _nodes = ["east", "west"].map(|region| topology.serve(region));
    linked(&mut topology.http("east"), 1);
    let url = topology.url("east");
    let status = |format| run(&["regions", "status", "--url", &url, "-o", format]).exits(0);
    let table = status("table").says(&["region east, origin "]);
    let rows: Vec<Vec<&str>> =
        table.stdout.lines().map(|line| line.split_whitespace().take(3).collect()).collect();
    assert_eq!(
        rows,
        [["REGION", "CONNECTED", "BEHIND"], ["gone", "NO", "0"], ["west", "yes", "0"]],
        "{table}"
    );
    let json = status("json");
    assert_eq!(json.stderr, "", "{json}");
    let peers = json.json()["peers"].clone();
    let of = |n: usize| (peers[n]["region"].clone(), peers[n]["connected"].clone());
    assert_eq!([of(0), of(1)], [(json!("gone"), json!(false)), (json!("west"), json!(true))]);
}

#[test]
fn certificates_are_shown_as_who_until_when_by_whom() {
    let topology = Topology::certified(&["solo"], "");
    let file = topology.path("pki/solo.pem");
    let outcome = run(&["pki", "show", file.to_str().unwrap()]).exits(0);
    assert_eq!(outcome.stderr, "");
    let expected = "\
identity    anabranch://xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx/region/solo
issuer      CN=anabranch, O=anabranch xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
not before  xxxxxxxxxxTxxxxxxxxZ
not after   xxxxxxxxxxTxxxxxxxxZ (valid for 364 more days)
";
    assert_eq!(mask(&outcome.stdout), expected);
    run(&["pki", "show", "nowhere.pem"]).exits(3).prints("").says(&["nowhere.pem is missing"]);
    let config = topology.path("regions.toml");
    run(&["pki", "show", config.to_str().unwrap()]).prints("").exits(1).says(&["regions.toml"]);
}
