//! Equal replicas: the same entries, the same changes, the same JSON and the same ledger in every
//! region, and the same again from the raw changes in any order.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use crate::sim::history::{DocumentNumber, Final, History};

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    let present: Vec<&Final> = history.present().collect();
    let Some((first, others)) = present.split_first() else { return found };
    for other in others {
        found.extend(compare(history, first, other));
    }
    for last in &present {
        found.extend(complete(history, last));
    }
    found
}

fn compare(history: &History, one: &Final, other: &Final) -> Vec<Violation> {
    let mut found = Vec::new();
    let pair = format!("region-{} and region-{}", one.node, other.node);
    if one.log != other.log {
        let (a, b) = (one.log.len(), other.log.len());
        found.push(Violation::new("convergence", format!("{pair} have {a} and {b} entries")));
    }
    for (number, document) in &one.documents {
        let name = name(history, *number);
        let Some(twin) = other.documents.get(number) else { continue };
        if document.json != twin.json {
            let what = format!("{pair} show {name} as {:?} and {:?}", document.json, twin.json);
            found.push(Violation::new("convergence", what));
        }
        if document.digest != twin.digest || set(&document.changes) != set(&twin.changes) {
            let what = format!("{pair} have different changes of {name}");
            found.push(Violation::new("convergence", what));
        }
    }
    let (rows, twins) = (rows(one), rows(other));
    for id in rows.keys().chain(twins.keys()).collect::<BTreeSet<_>>() {
        if rows.get(id) != twins.get(id) {
            let what =
                format!("{pair} have the conflict {:?} and {:?}", rows.get(id), twins.get(id));
            found.push(Violation::new("convergence", what));
        }
    }
    found
}

/// What a node shows of a document is made of what is in its log, and of all of it.
fn complete(history: &History, last: &Final) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut logged: BTreeMap<DocumentNumber, BTreeSet<[u8; 32]>> = BTreeMap::new();
    for entry in &last.log {
        if let Ok(change) = automerge::Change::from_bytes(entry.change.to_vec()) {
            logged.entry(entry.document).or_default().insert(change.hash().0);
        }
    }
    for (number, document) in &last.documents {
        let expected = logged.get(number).cloned().unwrap_or_default();
        if set(&document.changes) != expected {
            let (has, name) = (document.changes.len(), name(history, *number));
            let what = format!(
                "region-{} shows {name} from {has} changes, and has stored {}",
                last.node,
                expected.len()
            );
            found.push(Violation::new("convergence", what));
        }
    }
    if !last.pending.is_empty() {
        let what = format!("region-{} leaves {} documents waiting", last.node, last.pending.len());
        found.push(Violation::new("convergence", what));
    }
    found
}

fn set(hashes: &[[u8; 32]]) -> BTreeSet<[u8; 32]> {
    hashes.iter().copied().collect()
}

fn rows(last: &Final) -> BTreeMap<&str, &crate::sim::history::FinalConflict> {
    last.conflicts.iter().map(|conflict| (conflict.id.as_str(), conflict)).collect()
}

fn name(history: &History, number: DocumentNumber) -> String {
    history.documents.get(&number).map_or_else(|| format!("{number:x}"), |s| s.name.clone())
}
