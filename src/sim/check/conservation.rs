//! Every request came to what its client was told, and nothing is there that nobody asked for.

use std::collections::BTreeSet;

use super::Violation;
use super::changes::{Changes, Known};
use super::durable::Excused;
use crate::sim::history::{Answer, Call, CallId, History, Intent};
use crate::sim::tally::Tally;

pub(super) fn check(
    history: &History,
    changes: &Changes,
    excused: &Excused,
    tally: &mut Tally,
) -> Vec<Violation> {
    let absent = of_absent(history, changes);
    let lost = lost(changes, excused);
    let mut found = Vec::new();
    for (id, call) in &history.calls {
        let present = changes.logged_of(*id).next().is_some();
        let waits = absent.contains(id);
        match call.answer {
            Answer::Done if always_changes(&call.intent) && !present && !waits => {
                if lost.contains(id) {
                    tally.lost_with_disks += 1;
                } else {
                    let what = format!("{} was acknowledged and is gone", named(*id, call));
                    found.push(Violation::new("conservation", what));
                }
            }
            Answer::Done if matches!(call.intent, Intent::Attack(_)) => {
                let what = format!("{} was admitted", named(*id, call));
                found.push(Violation::new("conservation", what));
            }
            Answer::Refused(code) if present || waits => {
                let what = format!("{} was refused ({code}) and happened", named(*id, call));
                found.push(Violation::new("conservation", what));
            }
            Answer::Done | Answer::Refused(_) | Answer::Unknown | Answer::Shown(_) => {}
        }
    }
    let logged = changes.logged.iter().filter_map(|hash| changes.all.get(hash));
    found.extend(logged.filter_map(|known| uncalled(history, known)));
    found
}

/// Calls of which the change is on the disk of a node that stays down.
fn of_absent(history: &History, changes: &Changes) -> BTreeSet<CallId> {
    let logs = history.finals.iter().filter(|last| last.absent).flat_map(|last| &last.log);
    let there: BTreeSet<&[u8]> = logs.map(|entry| entry.change.as_ref()).collect();
    if there.is_empty() {
        return BTreeSet::new();
    }
    let unlogged = changes.all.values().filter(|known| !changes.logged.contains(&known.hash));
    unlogged.filter_map(|known| known.call).collect()
}

/// Calls of which the last copy went with a disk.
fn lost(changes: &Changes, excused: &Excused) -> BTreeSet<CallId> {
    let hash =
        |bytes: &bytes::Bytes| Some(automerge::Change::from_bytes(bytes.to_vec()).ok()?.hash().0);
    let known = excused.changes.iter().filter_map(hash).filter_map(|hash| changes.all.get(&hash));
    known.filter_map(|known| known.call).collect()
}

/// Tells whether a request that was done must have left a change.
pub(super) fn always_changes(intent: &Intent) -> bool {
    match intent {
        Intent::Add | Intent::Count(_) | Intent::Assign(_) => true,
        Intent::Read | Intent::Erase(_) | Intent::Other | Intent::Upload(_) | Intent::Attack(_) => {
            false
        }
    }
}

/// Finds a change that nobody asked for, or not there.
fn uncalled(history: &History, known: &Known) -> Option<Violation> {
    let Some(call) = known.call else {
        let by_policy = known.act == "policy" || known.operations.is_empty();
        let what = format!("a change that nobody asked for, to {}", known.act);
        return (!by_policy).then(|| Violation::new("conservation", what));
    };
    let asked = history.calls.get(&call).is_some_and(|call| call.document == known.document);
    let what = format!("a change of call {call}, which asked for no such thing");
    (!asked).then(|| Violation::new("conservation", what))
}

fn named(id: CallId, call: &Call) -> String {
    format!("call {id} ({:?} at region-{}, at {:?})", call.intent, call.node, call.asked)
}
