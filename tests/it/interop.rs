//! What stock Automerge readers see: the changes of a document, given to the JavaScript package,
//! show the JSON that the API shows once `lww` has written its resolutions.
//!
//! Needs node and npm; without them the test says so and ends. CI sets `CI`, and must run it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anabranch_crdt::document::{Admitted, Author, Collisions, Document, Ledger};
use anabranch_crdt::edit::Edit;
use anabranch_crdt::ids::{DocumentId, Origin, Timestamp};
use anabranch_crdt::policy::{Policies, Policy};
use serde_json::{Value, json};
use uuid::Uuid;

/// One leader with one document.
struct Leader {
    origin: Origin,
    document: Document,
    ledger: Ledger,
    log: Vec<Admitted>,
    policies: Policies,
}

impl Leader {
    fn new(number: u8, policy: Policy) -> Self {
        Self {
            origin: Origin::from_bytes([number; 16]),
            document: Document::new(),
            ledger: Ledger::default(),
            log: Vec::new(),
            policies: Policies::new(policy, Vec::new(), Vec::new()),
        }
    }

    fn edit(&mut self, at: u64, edits: &[Edit]) {
        let author = Author {
            origin: self.origin,
            at: Timestamp(BASE + at),
            message: anabranch_crdt::message::Message::default(),
        };
        let change = self.document.edit(edits, &author, &self.policies).unwrap().unwrap();
        let made = Collisions::made(&self.document, change.hash);
        let id = DocumentId(Uuid::nil());
        self.ledger.absorb(&self.document, id, &self.policies, &made);
        self.log.push(Admitted { change: change.bytes, at: author.at, by: Some(self.origin) });
    }

    fn receive(&mut self, changes: &[Admitted]) {
        let applied = self.document.apply(changes, &self.policies).unwrap();
        self.log.extend(applied.new.iter().map(|index| changes[*index].clone()));
        self.settle(&applied.collisions);
    }

    fn settle(&mut self, collisions: &Collisions) {
        let id = DocumentId(Uuid::nil());
        self.ledger.absorb(&self.document, id, &self.policies, collisions);
        let policies = &self.policies;
        let made = self.document.resolutions(&mut self.ledger, id, policies, |_| true).unwrap();
        let (at, origin) = (Timestamp(BASE), self.origin);
        self.log.extend(made.into_iter().map(|change| Admitted {
            change: change.bytes,
            at,
            by: Some(origin),
        }));
        self.ledger.unsaved();
    }
}

/// A collision: what both leaders start from, and what each then writes.
struct Case {
    name: &'static str,
    policy: Policy,
    start: Value,
    one: Vec<Edit>,
    other: Vec<Edit>,
}

fn set(path: &str, value: Value) -> Edit {
    Edit::Set { path: path.parse().unwrap(), value }
}

fn remove(path: &str) -> Edit {
    Edit::Remove { path: path.parse().unwrap() }
}

fn cases() -> Vec<Case> {
    let case = |name, policy, start, one: Vec<Edit>, other: Vec<Edit>| Case {
        name,
        policy,
        start,
        one,
        other,
    };
    vec![
        case(
            "auto, scalar",
            Policy::Auto,
            json!({"t": 1}),
            vec![set("/t", json!(2))],
            vec![set("/t", json!(3))],
        ),
        case(
            "lww, the higher operation id is the later write",
            Policy::Lww,
            json!({"t": 1}),
            vec![set("/t", json!(2))],
            vec![set("/u", json!(1)), set("/t", json!(3))],
        ),
        case(
            "lww, the higher operation id is the earlier write",
            Policy::Lww,
            json!({"t": 1}),
            vec![set("/u", json!(1)), set("/t", json!(2))],
            vec![set("/t", json!("later"))],
        ),
        case(
            "lww, nested",
            Policy::Lww,
            json!({"a": {"b": {"t": 1}}}),
            vec![set("/x", json!(0)), set("/a/b/t", json!(null))],
            vec![set("/a/b/t", json!(true))],
        ),
        case(
            "lww, list element",
            Policy::Lww,
            json!({"l": ["a", "b", "c"]}),
            vec![set("/x", json!(0)), set("/l/1", json!("B"))],
            vec![set("/l/1", json!("later"))],
        ),
        case(
            "lww, a later delete",
            Policy::Lww,
            json!({"t": 1, "u": 2}),
            vec![set("/t", json!(2))],
            vec![remove("/t")],
        ),
        case(
            "lww, an earlier delete",
            Policy::Lww,
            json!({"t": 1, "u": 2}),
            vec![remove("/t")],
            vec![set("/t", json!("later"))],
        ),
        case(
            "lww, an object against a number",
            Policy::Lww,
            json!({"t": 1}),
            vec![set("/x", json!(0)), set("/t", json!({"deep": [1]}))],
            vec![set("/t", json!(7))],
        ),
    ]
}

/// Lets both leaders write without knowing of each other, exchange, and settle.
fn collide(case: &Case) -> [Leader; 2] {
    let (mut one, mut other) = (Leader::new(1, case.policy), Leader::new(2, case.policy));
    let fields = case.start.as_object().unwrap().iter();
    let start: Vec<_> = fields.map(|(key, value)| set(&format!("/{key}"), value.clone())).collect();
    one.edit(1, &start);
    other.receive(&one.log);
    one.edit(10, &case.one);
    other.edit(20, &case.other);
    for _ in 0..2 {
        let (from_one, from_other) = (one.log.clone(), other.log.clone());
        one.receive(&from_other);
        other.receive(&from_one);
    }
    [one, other]
}

fn npm(directory: &Path) -> Result<(), String> {
    fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    if directory.join("node_modules/@automerge/automerge").exists() {
        return Ok(());
    }
    fs::write(directory.join("package.json"), "{\"private\":true,\"type\":\"module\"}").unwrap();
    let install = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--silent", PACKAGE])
        .current_dir(directory)
        .output();
    match install {
        Ok(done) if done.status.success() => Ok(()),
        Ok(failed) => Err(String::from_utf8_lossy(&failed.stderr).into_owned()),
        Err(error) => Err(format!("npm: {error}")),
    }
}

#[test]
fn stock_javascript_readers_see_what_the_api_shows() {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("interop");
    if let Err(reason) = npm(&directory) {
        assert!(std::env::var_os("CI").is_none(), "CI must run the interop check: {reason}");
        eprintln!("skipped: the interop check needs node and npm ({})", reason.trim());
        return;
    }
    let mut input = Vec::new();
    for case in cases() {
        let [one, other] = collide(&case);
        let shown = one.document.value(&one.policies).unwrap();
        assert_eq!(other.document.value(&other.policies), Some(shown.clone()), "{}", case.name);
        let hex = |admitted: &Admitted| {
            admitted.change.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let changes: Vec<String> = one.log.iter().map(hex).collect();
        input.push(json!({"name": case.name, "changes": changes, "shown": shown}));
    }
    let file = directory.join("cases.json");
    fs::write(&file, serde_json::to_vec(&input).unwrap()).unwrap();
    fs::write(directory.join("read.js"), READ).unwrap();
    let read = Command::new("node").arg("read.js").current_dir(&directory).output().unwrap();
    let seen: Vec<Value> = serde_json::from_slice(&read.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&read.stderr));
    });
    assert_eq!(seen.len(), input.len());
    for (case, seen) in input.iter().zip(seen) {
        assert_eq!(seen, case["shown"], "{}", case["name"]);
    }
}

const BASE: u64 = 1_700_000_000_000_000;

const PACKAGE: &str = "@automerge/automerge@3.5.0";

const READ: &str = r#"
import { readFileSync } from "node:fs";
import * as Automerge from "@automerge/automerge";
const cases = JSON.parse(readFileSync("cases.json", "utf8"));
const seen = cases.map(({ changes }) => {
  const bytes = changes.map((hex) => Uint8Array.from(Buffer.from(hex, "hex")));
  const [doc] = Automerge.applyChanges(Automerge.init(), bytes);
  return JSON.parse(JSON.stringify(doc));
});
console.log(JSON.stringify(seen));
"#;
