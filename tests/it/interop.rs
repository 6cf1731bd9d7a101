//! What stock Automerge readers see: the changes of a document, given to the JavaScript package,
//! show the JSON that the API shows once policies have written what they chose, for every story of
//! a collision.
//!
//! Needs node and npm; without them the test says so and ends. CI sets `CI`, and must run it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anabranch_crdt::document::Admitted;
use serde_json::{Value, json};

use crate::collisions::{end_of, stories};

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
    let hex = |admitted: &Admitted| {
        admitted.change.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let mut input = Vec::new();
    for story in stories() {
        let leader = end_of(&story);
        let changes: Vec<String> = leader.log().iter().map(hex).collect();
        // A document that is gone is an empty one to Automerge.
        let shown = Some(leader.json()).filter(|json| !json.is_null()).unwrap_or(json!({}));
        input.push(json!({"name": story.name(), "changes": changes, "shown": shown}));
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
