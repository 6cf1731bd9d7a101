//! The four session guarantees, of every session that shows its token, whichever region it is in:
//! it reads its own writes, never less than before, and its writes come after what it wrote and
//! read.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::changes::Changes;
use super::values::elements;
use crate::sim::history::{Answer, Call, CallId, DocumentNumber, History, Intent, Kind};
use crate::sim::tally::Tally;

/// What a session knows of a document.
#[derive(Debug, Default)]
struct Knowledge {
    written: BTreeSet<CallId>,
    read: BTreeSet<CallId>,
}

pub(super) fn check(history: &History, changes: &Changes, tally: &mut Tally) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut known: BTreeMap<(usize, DocumentNumber), Knowledge> = BTreeMap::new();
    for (id, call) in &history.calls {
        let kind = history.documents.get(&call.document).map(|subject| subject.kind);
        if !matches!(kind, Some(Kind::Set | Kind::NestedSet)) || call.session == usize::MAX {
            continue;
        }
        let knowledge = known.entry((call.session, call.document)).or_default();
        match (&call.answer, &call.intent) {
            (Answer::Shown(json), _) => {
                let shown = elements(json.as_deref());
                if call.with_token {
                    found.extend(stale_read(*id, call, knowledge, &shown, changes));
                    tally.session_pairs += knowledge.written.len() as u64;
                    tally.session_pairs += knowledge.read.len() as u64;
                }
                knowledge.read.extend(shown);
            }
            (Answer::Done, Intent::Add) => {
                if call.with_token {
                    found.extend(early_write(*id, call, knowledge, changes));
                }
                knowledge.written.insert(*id);
            }
            (Answer::Done | Answer::Unknown | Answer::Refused(_), _) => {}
        }
    }
    found
}

/// A read that shows less than the session wrote or read before.
fn stale_read(
    id: CallId,
    call: &Call,
    knowledge: &Knowledge,
    shown: &BTreeSet<CallId>,
    changes: &Changes,
) -> Vec<Violation> {
    let kept = |id: &&CallId| changes.logged_of(**id).next().is_some();
    let mut found = Vec::new();
    for (what, before) in [("its own writes", &knowledge.written), ("its reads", &knowledge.read)] {
        let gone: Vec<&CallId> = before.difference(shown).filter(kept).collect();
        if !gone.is_empty() {
            let (session, node) = (call.session, call.node);
            let what =
                format!("session {session} misses {what} {gone:?} in call {id} at region-{node}");
            found.push(Violation::new("sessions", what));
        }
    }
    found
}

/// A write whose change does not follow what the session wrote or read before.
fn early_write(
    id: CallId,
    call: &Call,
    knowledge: &Knowledge,
    changes: &Changes,
) -> Option<Violation> {
    let change = changes.logged_of(id).next()?;
    let before = knowledge.written.union(&knowledge.read);
    let unknown: Vec<&CallId> = before
        .filter(|before| {
            let mut earlier = changes.logged_of(**before).peekable();
            earlier.peek().is_some() && !earlier.any(|hash| changes.follows(change, hash))
        })
        .collect();
    let session = call.session;
    let what = format!("call {id} of session {session} does not follow {unknown:?}");
    (!unknown.is_empty()).then(|| Violation::new("sessions", what))
}
