//! `anabranch dev`: what it prints works, what it keeps is kept, what is not its own is left alone.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use super::http::Http;
use super::support::{Outcome, Running, anabranch, eventually};
use super::topology::{Topology, linked};

const REGIONS: [&str; 3] = ["us-east", "eu-west", "ap-south"];

/// A topology that `dev` finds as ./regions.toml.
fn topology() -> Topology {
    Topology::new(&REGIONS, "\n[collection.cities]\npolicy = \"lww\"\n")
}

fn command(topology: &Topology, arguments: &[&str]) -> Command {
    let mut command = anabranch();
    command.current_dir(topology.path("")).args(["dev", "--data", "data"]).args(arguments);
    command
}

fn start(topology: &Topology, arguments: &[&str]) -> Running {
    let mut dev = Running::start(command(topology, arguments));
    dev.wait_for_data("Ctrl-C stops.");
    dev
}

fn interrupt(dev: Running) -> Outcome {
    dev.signal("INT");
    dev.end().exits(0).says(&["stopping", "stopped"])
}

#[test]
fn the_urls_and_the_three_commands_that_are_printed_work() {
    let topology = topology();
    let mut dev = start(&topology, &[]);
    let welcome = dev.wait_for_data("Ctrl-C stops.");
    for region in REGIONS {
        let line = format!("  {region:<12} {}\n", topology.url(region));
        assert!(welcome.contains(&line), "expected {line:?} in\n{welcome}");
        linked(&mut topology.http(region), 2);
    }
    let (_, commands) = welcome.split_once("Try, in another terminal:\n").expect("commands to try");
    let commands: Vec<&str> =
        commands.lines().take_while(|line| line.starts_with("  ")).map(str::trim).collect();
    assert_eq!(commands.len(), 3, "{welcome}");
    let paris = r#"{"name":"Paris","population":2102650}"#;
    assert_eq!(try_out(&topology, commands[0]).stdout, paris);
    // The second asks another region, as a person does: a moment later.
    eventually("the document is in the second region", || {
        let outcome = try_out(&topology, commands[1]);
        if outcome.stdout == paris { Ok(()) } else { Err(outcome.to_string()) }
    });
    try_out(&topology, commands[2]).prints("").says(&["no conflicts"]);
    interrupt(dev).says(&["us-east", "eu-west", "ap-south"]);
}

/// Runs a command as it was printed, in a shell.
fn try_out(topology: &Topology, command: &str) -> Outcome {
    let mut words = words(command);
    if words[0] == "curl" && !is_there("curl") {
        return instead_of_curl(&words.split_off(1));
    }
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(topology.path(""));
    Running::start_group(shell).end().exits(0)
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// Does what curl would do with the few options that are printed.
fn instead_of_curl(words: &[String]) -> Outcome {
    let (mut method, mut media_type, mut body, mut url) = ("GET", "", "", "");
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "-X" => method = words.next().unwrap(),
            "-H" => media_type = words.next().unwrap().strip_prefix("Content-Type: ").unwrap(),
            "-d" => body = words.next().unwrap(),
            _ => url = word,
        }
    }
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut http = Http::new(address.parse().unwrap());
    let reply = http.send(method, &format!("/{path}"), media_type, body).unwrap();
    Outcome { code: Some(0), stdout: reply.body, stderr: String::new() }
}

/// Splits a command into words as a shell does, as far as single quotes go.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in command.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            _ => words.last_mut().unwrap().push(c),
        }
    }
    words
}

#[test]
fn a_printed_command_is_read_as_a_shell_reads_it() {
    let command = "curl -X PUT http://127.0.0.1:1/v1 -H 'A: b c' -d '{\"a\":1}'";
    let expected =
        ["curl", "-X", "PUT", "http://127.0.0.1:1/v1", "-H", "A: b c", "-d", "{\"a\":1}"];
    assert_eq!(words(command), expected);
}

#[test]
fn data_is_kept_between_runs_until_fresh_data_is_asked_for() {
    let topology = topology();
    let path = "/v1/docs/cities/paris";
    let dev = start(&topology, &[]);
    topology.http("us-east").put(path, &json!({"name": "Paris"}));
    interrupt(dev);

    let dev = start(&topology, &[]);
    assert_eq!(topology.http("us-east").get(path), json!({"name": "Paris"}));
    let mut south = topology.http("ap-south");
    eventually("what was not sent before the stop is sent after it", || {
        match south.send("GET", path, "", "").unwrap().status {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    });
    interrupt(dev);

    let dev = start(&topology, &["--fresh"]);
    let reply = topology.http("us-east").send("GET", path, "", "").unwrap();
    assert_eq!(reply.status, 404, "{reply:?}");
    interrupt(dev);
}

#[test]
fn fresh_wipes_only_what_dev_has_made() {
    let topology = topology();
    let data = topology.path("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("thesis.txt"), "years of work").unwrap();
    for arguments in [&["--fresh"][..], &[]] {
        let refused = Running::start(command(&topology, arguments)).end();
        refused.exits(2).prints("").says(&["data is not empty", "--data", "nothing was touched"]);
        assert_eq!(names(&data), ["thesis.txt"]);
        assert_eq!(fs::read_to_string(data.join("thesis.txt")).unwrap(), "years of work");
    }
    fs::remove_file(data.join("thesis.txt")).unwrap();
    let beside = topology.path("beside");
    fs::write(&beside, "not in the data directory").unwrap();
    interrupt(start(&topology, &[]));
    interrupt(start(&topology, &["--fresh"]));
    assert!(beside.exists() && topology.path("regions.toml").exists());
    assert_eq!(names(&data), [".anabranch-dev", "ap-south", "eu-west", "pki", "us-east"]);
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_second_dev_is_told_which_port_is_taken() {
    let topology = topology();
    let _dev = start(&topology, &[]);
    let mut second = command(&topology, &[]);
    second.args(["--config", "regions.toml"]);
    let address = topology.region("us-east").http.to_string();
    let refused = Running::start(second).end().exits(1).prints("");
    refused.says(&["http address of us-east", &address, "is taken", "regions.toml"]);
}

#[test]
fn wide_area_links_take_half_a_round_trip() {
    let topology = topology();
    let mut dev = start(&topology, &["--wan"]);
    assert!(dev.wait_for_data("Ctrl-C stops.").contains("links delayed as by oceans"));
    REGIONS.iter().for_each(|region| linked(&mut topology.http(region), 2));
    for (from, to, one_way) in
        [("us-east", "eu-west", 40), ("eu-west", "ap-south", 55), ("ap-south", "us-east", 95)]
    {
        let took = propagation(&topology, from, to);
        let least = Duration::from_millis(one_way);
        assert!(took >= least, "{from} to {to} took {took:?}, faster than light: {least:?}");
        let most = least + Duration::from_secs(5);
        assert!(took < most, "{from} to {to} took {took:?}, far more than {least:?}");
    }
    interrupt(dev);
}

/// Measures how long it takes from before a write in one region until it is read in another.
fn propagation(topology: &Topology, from: &str, to: &str) -> Duration {
    let path = format!("/v1/docs/cities/from-{from}");
    let (mut from, mut to) = (topology.http(from), topology.http(to));
    let started = Instant::now();
    from.put(&path, &json!({"seen": true}));
    eventually("the write arrives", || match to.send("GET", &path, "", "").unwrap().status {
        200 => Ok(started.elapsed()),
        status => Err(status.to_string()),
    })
}
