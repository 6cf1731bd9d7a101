//! The table: every kind of conflict, what the sides do, and what each policy makes of it.
//!
//! `eu` is the latest to write, `ap` the earliest; of equal operation counters that of `us` is the
//! greatest, so it is the one that Automerge shows. Policies stand in the order `auto`, `lww`,
//! `first`, `max`, `min`, `manual`, `region-priority` (`ap` before `eu` before `us`).

mod containers;
mod fields;
mod parts;

use anabranch_crdt::edit::Edit;
use serde_json::{Value, json};

use super::story::{Deed, Kind, Row, Side};

pub(crate) fn kinds() -> Vec<Kind> {
    let mut kinds = fields::kinds();
    kinds.extend(containers::kinds());
    kinds.extend(parts::kinds());
    kinds
}

fn eu(edits: Vec<Edit>) -> Side {
    Side { region: "eu", at: 3_000, deed: Deed::Edits(edits) }
}

fn us(edits: Vec<Edit>) -> Side {
    Side { region: "us", at: 2_000, deed: Deed::Edits(edits) }
}

fn ap(edits: Vec<Edit>) -> Side {
    Side { region: "ap", at: 1_000, deed: Deed::Edits(edits) }
}

fn deletes(side: Side) -> Side {
    Side { deed: Deed::Delete, ..side }
}

fn set(path: &str, value: Value) -> Vec<Edit> {
    vec![Edit::Set { path: path.parse().unwrap(), value }]
}

fn remove(path: &str) -> Vec<Edit> {
    vec![Edit::Remove { path: path.parse().unwrap() }]
}

fn increment(path: &str, by: i64) -> Vec<Edit> {
    vec![Edit::Increment { path: path.parse().unwrap(), by }]
}

fn type_at_the_start(path: &str, text: &str) -> Vec<Edit> {
    vec![Edit::Splice { path: path.parse().unwrap(), at: 0, delete: 0, insert: text.to_owned() }]
}

/// The edits that make a document.
fn document(json: &Value) -> Vec<Edit> {
    let members = json.as_object().unwrap().iter();
    members.flat_map(|(key, value)| set(&format!("/{key}"), value.clone())).collect()
}

/// What shows under each policy, in the frame of the document around it.
fn shows<T>(values: [T; 7], frame: impl Fn(T) -> Value) -> [Value; 7] {
    values.map(frame)
}

/// The same under every policy.
fn always<T: Clone>(value: T) -> [T; 7] {
    std::array::from_fn(|_| value.clone())
}

fn row(
    path: &'static str,
    kind: &'static str,
    base: Option<Value>,
    candidates: Vec<(&'static str, Option<Value>)>,
    winners: [&'static str; 7],
    auto: &'static str,
) -> Row {
    Row { path, kind, base, candidates, winners, auto, chosen: None }
}

fn wrote(region: &'static str, value: impl Into<Value>) -> (&'static str, Option<Value>) {
    (region, Some(value.into()))
}

fn removed(region: &'static str) -> (&'static str, Option<Value>) {
    (region, None)
}

/// A document with a field that may be gone.
fn titled(title: Option<&str>) -> Value {
    title.map_or_else(|| json!({"x": 0}), |title| json!({"title": title, "x": 0}))
}

/// A write is there, so a delete is not.
const WRITE_WINS: &str = "auto: a write wins over a concurrent delete";
