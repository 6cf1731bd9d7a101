//! What documents show: every element of a set that is in the log and no other, never there and
//! then gone; and sums of exactly the increments that are in the log.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Violation;
use super::changes::Changes;
use crate::sim::history::{Answer, Call, CallId, DocumentNumber, History, Intent, Kind, Step};

pub(super) fn check(history: &History, changes: &Changes) -> Vec<Violation> {
    let mut found = Vec::new();
    for (number, subject) in &history.documents {
        match subject.kind {
            Kind::Set | Kind::NestedSet => {
                found.extend(final_sets(history, changes, *number));
                found.extend(flickers(history, changes, *number));
            }
            Kind::Counter => {
                found.extend(final_counters(history, changes, *number));
                found.extend(impossible_sums(history, *number));
            }
            Kind::Register | Kind::Wild => {}
        }
    }
    found
}

fn final_sets(history: &History, changes: &Changes, number: DocumentNumber) -> Vec<Violation> {
    let mut expected = BTreeSet::new();
    for (id, call) in calls_of(history, number) {
        if call.intent == Intent::Add && changes.logged_of(*id).next().is_some() {
            expected.insert(*id);
        }
    }
    let mut found = Vec::new();
    for last in history.present() {
        let Some(document) = last.documents.get(&number) else { continue };
        let shown = elements(document.json.as_deref());
        if shown != expected {
            let lost: Vec<_> = expected.difference(&shown).collect();
            let invented: Vec<_> = shown.difference(&expected).collect();
            let what = format!(
                "region-{} does not show {lost:?}, and shows {invented:?} that nobody added",
                last.node
            );
            found.push(Violation::new("sets", what));
        }
    }
    found
}

/// What a node once showed it shows again, unless its disk was replaced in between.
fn flickers(history: &History, changes: &Changes, number: DocumentNumber) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut shown: BTreeMap<usize, (usize, BTreeSet<CallId>)> = BTreeMap::new();
    let mut reads: Vec<&Call> = calls_of(history, number).map(|(_, call)| call).collect();
    reads.retain(|call| matches!(call.answer, Answer::Shown(_)));
    reads.sort_by_key(|call| call.answered_step);
    for call in reads {
        let Answer::Shown(json) = &call.answer else { continue };
        let now = elements(json.as_deref());
        if let Some(early) = now.iter().find(|id| !asked_before(history, **id, call)) {
            let what = format!("region-{} shows element {early} ahead of time", call.node);
            found.push(Violation::new("sets", what));
        }
        let entry = shown.entry(call.node).or_default();
        let replaced = was_replaced(history, call.node, entry.0, call.answered_step);
        if !replaced && entry.0 <= call.after_step {
            let kept = |id: &&CallId| changes.logged_of(**id).next().is_some();
            let gone: Vec<&CallId> = entry.1.difference(&now).filter(kept).collect();
            if !gone.is_empty() {
                let what = format!("region-{} showed {gone:?}, and then did not", call.node);
                found.push(Violation::new("sets", what));
            }
        }
        *entry = (call.answered_step, now);
    }
    found
}

fn asked_before(history: &History, id: CallId, read: &Call) -> bool {
    history.calls.get(&id).is_some_and(|call| call.after_step <= read.answered_step)
}

fn was_replaced(history: &History, of: usize, from: usize, to: usize) -> bool {
    let steps = history.steps.get(from..to.min(history.steps.len())).unwrap_or_default();
    steps.iter().any(|(_, step)| matches!(step, Step::Replaced { node, .. } if *node == of))
}

/// A counter that several regions made at once is left to the checker of convergence: what it comes
/// to depends on which of them the others' increments were folded into.
fn final_counters(history: &History, changes: &Changes, number: DocumentNumber) -> Vec<Violation> {
    if changes.of_document(number).filter(|known| known.makes_a_counter).count() > 1 {
        return Vec::new();
    }
    let counted = |(id, call): (&CallId, &Call)| match call.intent {
        Intent::Count(by) if changes.logged_of(*id).next().is_some() => by,
        Intent::Count(_)
        | Intent::Read
        | Intent::Add
        | Intent::Assign(_)
        | Intent::Erase(_)
        | Intent::Other
        | Intent::Upload(_)
        | Intent::Attack(_) => 0,
    };
    let expected: i64 = calls_of(history, number).map(counted).sum();
    let mut found = Vec::new();
    for last in history.present() {
        let Some(document) = last.documents.get(&number) else { continue };
        let shown = sum(document.json.as_deref());
        if shown != expected {
            let what = format!("region-{} counts {shown} instead of {expected}", last.node);
            found.push(Violation::new("counters", what));
        }
    }
    found
}

/// A sum on the way lies between that of all decrements and that of all increments so far.
fn impossible_sums(history: &History, number: DocumentNumber) -> Vec<Violation> {
    let mut found = Vec::new();
    for (_, read) in calls_of(history, number) {
        let Answer::Shown(json) = &read.answer else { continue };
        let (mut least, mut most) = (0, 0);
        for (_, call) in calls_of(history, number) {
            if let Intent::Count(by) = call.intent
                && call.after_step <= read.answered_step
            {
                least += by.min(0);
                most += by.max(0);
            }
        }
        let shown = sum(json.as_deref());
        if shown < least || shown > most {
            let node = read.node;
            let what = format!("region-{node} counts {shown}, not in {least} to {most}");
            found.push(Violation::new("counters", what));
        }
    }
    found
}

fn calls_of(history: &History, number: DocumentNumber) -> impl Iterator<Item = (&CallId, &Call)> {
    history.calls.iter().filter(move |(_, call)| call.document == number)
}

/// The elements that a set shows.
pub(super) fn elements(json: Option<&str>) -> BTreeSet<CallId> {
    let content: Value = json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    let members = content.get("inside").unwrap_or(&content);
    let members = members.as_object().into_iter().flat_map(|members| members.keys());
    members.filter_map(|key| key.strip_prefix('e')?.parse().ok()).collect()
}

fn sum(json: Option<&str>) -> i64 {
    let content: Option<Value> = json.and_then(|json| serde_json::from_str(json).ok());
    content.as_ref().and_then(|content| content.get("n")?.as_i64()).unwrap_or_default()
}
