//! Collisions of objects, lists and texts.

use serde_json::{Value, json};

use super::super::story::{Ends, Kind, Row};
use super::{ap, document, eu, row, set, shows, type_at_the_start, us, wrote};

pub(super) fn kinds() -> Vec<Kind> {
    vec![objects(), lists(), texts(), whole()]
}

/// The objects merge under every policy, which decides each of their fields.
fn objects() -> Kind {
    let two = |name| json!({"name": name, "town": "London", "year": 1815});
    let three = |name| json!({"name": name, "pet": "cat", "town": "London", "year": 1815});
    let of = |profile: Value| json!({"profile": profile, "x": 0});
    let [a, m, z] = [
        json!({"name": "a", "year": 1815}),
        json!({"name": "m", "town": "London"}),
        json!({"name": "z", "pet": "cat"}),
    ];
    Kind {
        name: "two objects under one key",
        told: "A profile is made in several regions at once, each time with other fields.",
        before: document(&json!({"x": 0})),
        whole: None,
        sides: [
            eu(set("/profile", a.clone())),
            us(set("/profile", m.clone())),
            ap(set("/profile", z.clone())),
        ],
        two: Ends {
            shows: shows(["m", "a", "m", "m", "a", "m", "a"], |name| of(two(name))),
            rows: vec![
                merged(vec![wrote("eu", a.clone()), wrote("us", m.clone())]),
                row(
                    "/profile/name",
                    "value",
                    None,
                    vec![wrote("eu", "a"), wrote("us", "m")],
                    ["us", "eu", "us", "us", "eu", "us", "eu"],
                    "open",
                ),
            ],
        },
        three: Ends {
            shows: shows(["m", "a", "z", "z", "a", "m", "z"], |name| of(three(name))),
            rows: vec![
                merged(vec![wrote("eu", a), wrote("us", m), wrote("ap", z)]),
                row(
                    "/profile/name",
                    "value",
                    None,
                    vec![wrote("eu", "a"), wrote("us", "m"), wrote("ap", "z")],
                    ["us", "eu", "ap", "ap", "eu", "us", "ap"],
                    "open",
                ),
            ],
        },
    }
}

fn merged(candidates: Vec<(&'static str, Option<Value>)>) -> Row {
    let why = "auto: all sides show, merged";
    let row = row("/profile", "container", None, candidates, ["-"; 7], why);
    Row { chosen: Some("all sides show, merged"), ..row }
}

/// Lists are no values that could be compared, so under `max` and `min` the latest wins.
fn lists() -> Kind {
    let frame = |list: &str| json!({"list": [list], "x": 0});
    Kind {
        name: "two lists under one key",
        told: "A list is started in several regions at once.",
        before: document(&json!({"x": 0})),
        whole: None,
        sides: [
            eu(set("/list", json!(["a"]))),
            us(set("/list", json!(["m"]))),
            ap(set("/list", json!(["z"]))),
        ],
        two: Ends {
            shows: shows(["m", "a", "m", "a", "a", "m", "a"], frame),
            rows: vec![row(
                "/list",
                "container",
                None,
                vec![wrote("eu", json!(["a"])), wrote("us", json!(["m"]))],
                ["us", "eu", "us", "eu", "eu", "us", "eu"],
                "open",
            )],
        },
        three: Ends {
            shows: shows(["m", "a", "z", "a", "a", "m", "z"], frame),
            rows: vec![row(
                "/list",
                "container",
                None,
                vec![
                    wrote("eu", json!(["a"])),
                    wrote("us", json!(["m"])),
                    wrote("ap", json!(["z"])),
                ],
                ["us", "eu", "ap", "eu", "eu", "us", "ap"],
                "open",
            )],
        },
    }
}

fn texts() -> Kind {
    let frame = |text: &str| json!({"text": text});
    let base = || Some(json!("t"));
    Kind {
        name: "two texts under one key",
        told: "A string becomes an editable text in several regions at once, as somebody types.",
        before: document(&json!({"text": "t"})),
        whole: None,
        sides: [
            eu(type_at_the_start("/text", "a")),
            us(type_at_the_start("/text", "m")),
            ap(type_at_the_start("/text", "z")),
        ],
        two: Ends {
            shows: shows(["mt", "at", "mt", "at", "at", "mt", "at"], frame),
            rows: vec![row(
                "/text",
                "container",
                base(),
                vec![wrote("eu", "at"), wrote("us", "mt")],
                ["us", "eu", "us", "eu", "eu", "us", "eu"],
                "open",
            )],
        },
        three: Ends {
            shows: shows(["mt", "at", "zt", "at", "at", "mt", "zt"], frame),
            rows: vec![row(
                "/text",
                "container",
                base(),
                vec![wrote("eu", "at"), wrote("us", "mt"), wrote("ap", "zt")],
                ["us", "eu", "ap", "eu", "eu", "us", "ap"],
                "open",
            )],
        },
    }
}

/// The parts merge until somebody decides, but under a policy that chooses one side is all there
/// is.
fn whole() -> Kind {
    let address =
        |street: &str, town: &str, zip: u32| json!({"street": street, "town": town, "zip": zip});
    let base = || Some(address("s", "t", 1));
    let [a, m, z] = [address("a", "t", 1), address("s", "m", 1), address("s", "t", 9)];
    let frame = |address: Value| json!({"address": address});
    let both = || address("a", "m", 1);
    let all = || address("a", "m", 9);
    Kind {
        name: "parts of a container that counts as one value",
        told: "An address is policed as one value; other parts of it are changed in each region.",
        before: document(&json!({"address": address("s", "t", 1)})),
        whole: Some("/address"),
        sides: [
            eu(set("/address/street", json!("a"))),
            us(set("/address/town", json!("m"))),
            ap(set("/address/zip", json!(9))),
        ],
        two: Ends {
            shows: shows(
                [both(), a.clone(), m.clone(), a.clone(), a.clone(), both(), a.clone()],
                frame,
            ),
            rows: vec![row(
                "/address",
                "whole",
                base(),
                vec![wrote("eu", a.clone()), wrote("us", m.clone())],
                ["-", "eu", "us", "eu", "eu", "-", "eu"],
                "open",
            )],
        },
        three: Ends {
            shows: shows(
                [all(), a.clone(), z.clone(), a.clone(), a.clone(), all(), z.clone()],
                frame,
            ),
            rows: vec![row(
                "/address",
                "whole",
                base(),
                vec![wrote("eu", a), wrote("us", m), wrote("ap", z)],
                ["-", "eu", "ap", "eu", "eu", "-", "ap"],
                "open",
            )],
        },
    }
}
