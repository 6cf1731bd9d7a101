//! `import` and `export`: what goes in comes out, and what is wrong is named by line.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::support::{Outcome, Running, anabranch};
use super::topology::Topology;

fn node() -> (Topology, Running) {
    let topology = Topology::certified(&["solo"], "");
    let running = topology.serve("solo");
    (topology, running)
}

fn command(topology: &Topology, arguments: &[&str]) -> Command {
    let mut command = anabranch();
    command.current_dir(topology.path("")).args(arguments).arg("--url").arg(topology.url("solo"));
    command
}

fn run(topology: &Topology, arguments: &[&str]) -> Outcome {
    Running::start(command(topology, arguments)).end()
}

fn import(topology: &Topology, arguments: &[&str]) -> Outcome {
    let fixed = ["import", "--collection", "c", "--key-field", "id"];
    run(topology, &[&fixed, arguments].concat()).prints("")
}

/// Documents of every JSON type, in the order of their keys, one per line.
fn lines(count: usize) -> String {
    let line = |n: usize| {
        let id = format!("fr/é {n:04}");
        json!({
            "id": id, "n": n, "f": n as f64 + 0.5, "text": "\u{1f30d} \"quoted\"\n", "none": null,
            "yes": true, "list": [1, [2, {"a": []}]], "object": {"": {"/~": -7}}, "empty": {},
        })
        .to_string()
    };
    (0..count).map(|n| line(n) + "\n").collect()
}

#[test]
fn settings_are_exported_and_not_imported() {
    let (topology, _node) = node();
    topology.write("in.jsonl", "{\"id\": \"c\", \"policy\": \"lww\"}\n");
    let arguments = ["import", "--collection", "_collections", "--key-field", "id", "in.jsonl"];
    run(&topology, &arguments).exits(2).prints("").says(&["anabranch collections set"]);
    run(&topology, &["export", "--collection", "_collections"]).exits(0).prints("");
}

#[test]
fn what_was_imported_is_exported_equal() {
    let (topology, _node) = node();
    // More than one page of the listing.
    let text = lines(1_200);
    topology.write("in.jsonl", &text);
    import(&topology, &["in.jsonl"]).exits(0).says(&["1,200 created, 0 updated, 0 lines bad"]);
    import(&topology, &["in.jsonl"]).exits(0).says(&["0 created, 1,200 updated, 0 lines bad"]);
    let export = |more: &[&str]| run(&topology, &[&["export", "--collection", "c"], more].concat());
    let values = export(&["--values"]).exits(0).says(&["1,200 documents"]).stdout;
    let parse = |text: &str| -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert_eq!(parse(&values), parse(&text));
    export(&["-o", "out.jsonl"]).exits(0).prints("");
    let keyed = fs::read_to_string(topology.path("out.jsonl")).unwrap();
    let rewrapped = parse(&keyed).into_iter().map(|line| {
        assert_eq!(line["key"], line["value"]["id"]);
        line["value"].clone()
    });
    assert_eq!(rewrapped.collect::<Vec<_>>(), parse(&text));
    let one = export(&["--prefix", "fr/é 0007", "--values"]).exits(0).stdout;
    assert_eq!(parse(&one), parse(&text)[7..8]);

    let again = ["import", "-", "--collection", "d", "--key-field", "/value/id"];
    let outcome = Running::start_with_input(command(&topology, &again), &keyed).end();
    outcome.exits(0).prints("").says(&["1,200 created"]);
    run(&topology, &["export", "--collection", "empty"]).exits(0).prints("");
}

const BAD: &str = "{\"id\": \"a\"}\nnonsense\n\n{\"no\": \"id\"}\n{\"id\": \"b\"}\n[]\n";

#[test]
fn a_bad_line_ends_an_import_and_is_named() {
    let (topology, _node) = node();
    topology.write("bad.jsonl", BAD);
    let outcome = import(&topology, &["bad.jsonl"]).exits(1);
    outcome.says(&["bad.jsonl:2: ", "--keep-going", "1 line bad"]);
    import(&topology, &["nowhere.jsonl"]).exits(3).says(&["nowhere.jsonl"]);
    topology.write("list.jsonl", "{\"id\": \"x\", \"n\": 9007199254740993}\n");
    import(&topology, &["list.jsonl"]).exits(1).says(&["list.jsonl:1: "]);
}

#[test]
fn an_import_can_keep_going_and_still_fails() {
    let (topology, _node) = node();
    topology.write("bad.jsonl", BAD);
    let outcome = import(&topology, &["bad.jsonl", "--keep-going"]).exits(1);
    outcome.says(&[
        "bad.jsonl:2: ",
        "bad.jsonl:4: there is no key field /id",
        "bad.jsonl:6: a document is a JSON object",
        "2 created, 0 updated, 3 lines bad",
    ]);
    let keys: Vec<String> =
        topology.http("solo").all("c").into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["a", "b"]);
}

#[test]
fn a_dry_run_writes_nothing_and_needs_no_node() {
    let topology = Topology::new(&["solo"], "");
    topology.write("good.jsonl", &lines(3));
    let outcome = import(&topology, &["good.jsonl", "--dry-run"]).exits(0);
    outcome.says(&["checked 3, 0 lines bad, wrote nothing"]);
    topology.write("bad.jsonl", BAD);
    import(&topology, &["bad.jsonl", "--dry-run"]).exits(1).says(&["bad.jsonl:2: "]);
    import(&topology, &["good.jsonl"]).exits(5).says(&["cannot reach"]);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let (topology, _node) = node();
    topology.write("in.jsonl", &lines(300));
    import(&topology, &["in.jsonl"]).exits(0);
    for arguments in [
        &["export", "--collection", "c"][..],
        &["doc", "ls", "c", "-o", "json"],
        &["doc", "ls", "c"],
        &["doc", "get", "c/fr/é 0001"],
        &["regions", "status", "-o", "json"],
    ] {
        let mut command = command(&topology, arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        assert!(!said.contains("panicked") && !said.contains("error"), "{arguments:?}: {said}");
    }
}

#[test]
fn an_export_that_fails_leaves_no_file() {
    let topology = Topology::new(&["solo"], "");
    run(&topology, &["export", "--collection", "c", "-o", "out.jsonl"]).exits(5).prints("");
    assert!(!topology.path("out.jsonl").exists());
    assert!(!topology.path("out.jsonl.partial").exists());
}
