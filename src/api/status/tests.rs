use std::collections::BTreeSet;
use std::time::Duration;

use anabranch_crdt::clock::MeasuredClock;
use serde_json::{Value, json};

use super::*;
use crate::replication::{EntryBytes, Standing};

fn openapi() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// Returns every operation as method, path and description.
fn operations(openapi: &Value) -> Vec<(String, String, Value)> {
    let paths = openapi["paths"].as_object().unwrap();
    let methods = ["get", "head", "put", "post", "patch", "delete"];
    let of_path = |(path, item): (&String, &Value)| {
        let found = methods.iter().filter_map(|&method| Some((method, item.get(method)?)));
        found
            .map(|(method, operation)| (method.to_owned(), path.clone(), operation.clone()))
            .collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

#[test]
fn every_route_is_described_and_every_description_has_a_route() {
    let routed: BTreeSet<(String, String)> = super::super::routes()
        .described
        .into_iter()
        .map(|(method, path)| (method.as_str().to_lowercase(), path.to_owned()))
        .collect();
    // Every route that takes GET takes HEAD.
    let described: BTreeSet<(String, String)> = operations(&openapi())
        .into_iter()
        .map(|(method, path, _)| (method.replace("head", "get"), path))
        .collect();
    assert_eq!(routed, described);
}

#[test]
fn every_operation_says_what_it_does_and_answers() {
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&openapi()) {
        let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
        assert!(!id.is_empty() && ids.insert(id), "{method} {path}: operationId");
        assert!(operation["summary"].is_string(), "{method} {path}: summary");
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{method} {path}");
    }
}

#[test]
fn every_placeholder_of_a_path_is_a_parameter() {
    let openapi = openapi();
    for (path, item) in openapi["paths"].as_object().unwrap() {
        let parameters = item.get("parameters").map(Value::to_string).unwrap_or_default();
        for placeholder in path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
            let reference = format!("#/components/parameters/{placeholder}\"");
            assert!(parameters.contains(&reference), "{path}: {placeholder}");
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let openapi = openapi();
    let mut references = Vec::new();
    collect_references(&openapi, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(openapi.pointer(pointer).is_some(), "{reference}");
    }
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|member| collect_references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn peers_are_told_with_every_figure() {
    let peer = PeerStatus {
        region: "ap-south".parse().unwrap(),
        standing: Standing::ACTIVE,
        neighbour: true,
        connected: false,
        entries_behind: 12,
        seconds_behind: 1.5,
        entries_missing: 3,
        last_error: Some("timed out".into()),
        clock: Some(MeasuredClock {
            offset: ClockOffset(-1_250),
            round_trip: Duration::from_micros(80_500),
        }),
        entries: EntryBytes {
            entry_bytes_sent: 7,
            entry_bytes_received: 9,
            duplicate_bytes_received: 1,
        },
        traffic: Default::default(),
    };
    let expected = json!({
        "region": "ap-south",
        "state": "active",
        "neighbour": true,
        "connected": false,
        "entries_behind": 12,
        "seconds_behind": 1.5,
        "entries_missing": 3,
        "last_error": "timed out",
        "clock_offset_ms": -1.25,
        "round_trip_ms": 80.5,
        "entry_bytes_sent": 7,
        "entry_bytes_received": 9,
        "duplicate_bytes_received": 1,
    });
    assert_eq!(serde_json::to_value(PeerJson::new(&peer)).unwrap(), expected);
}
