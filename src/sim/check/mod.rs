//! The checkers: pure functions over the history of a run, written from what is promised and not
//! from how it is kept. They share no code with the server: causality is found from the changes
//! themselves, by stock Automerge, and what is durable from what disks have lost.
//!
//! | checker | finds |
//! |---|---|
//! | `durable` | something that was durable is gone after a restart |
//! | `journal-first` | a reply or a frame that speaks of what is not durable |
//! | `one-writer` | two entries under one number, two changes under one (document, actor, sequence) |
//! | `conservation` | a lost write, a refused write that happened, a change that nobody asked for |
//! | `convergence` | regions that differ in entries, changes, JSON or ledger; a replay that differs |
//! | `sets` | elements lost, invented or flickering |
//! | `counters` | sums that are not those of the increments |
//! | `sessions` | one of the four session guarantees |
//! | `ledger` | a value that was overwritten concurrently, and is in no row |

mod changes;
mod conservation;
mod convergence;
mod durable;
mod ledger;
mod sessions;
mod values;

use std::any::Any;
use std::fmt;

use super::history::{Answer, History, Intent};
use super::tally::Tally;
use changes::Changes;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// Which checker found it.
    pub check: &'static str,
    /// What it found.
    pub what: String,
}

impl Violation {
    pub(crate) fn new(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, what: what.into() }
    }

    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self::new("panic", text.unwrap_or("no message"))
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.what)
    }
}

/// Judges a run by its history.
pub(crate) fn check(history: &History, tally: &mut Tally) -> Vec<Violation> {
    let (mut found, excused) = durable::check(history);
    let changes = Changes::read(history);
    found.extend(changes.one_writer());
    if !history.finals.is_empty() {
        found.extend(conservation::check(history, &changes, &excused, tally));
        found.extend(convergence::check(history));
        found.extend(values::check(history, &changes));
        found.extend(sessions::check(history, &changes, tally));
        found.extend(ledger::check(history, &changes, tally));
    }
    count(history, tally);
    found.truncate(MOST_VIOLATIONS);
    found
}

fn count(history: &History, tally: &mut Tally) {
    for call in history.calls.values() {
        let reported = !matches!(call.intent, Intent::Upload(_) | Intent::Attack(_));
        match &call.answer {
            Answer::Shown(_) => tally.reads += 1,
            Answer::Done if reported => tally.acknowledged += 1,
            Answer::Refused(_) if reported => tally.refused += 1,
            Answer::Unknown if reported && call.intent.writes() => tally.unknown += 1,
            Answer::Done | Answer::Refused(_) | Answer::Unknown => {}
        }
    }
    let rows = history.finals.iter().map(|last| last.conflicts.len() as u64);
    tally.conflicts += rows.sum::<u64>();
}

/// Violations of one run that are reported: the first ones say enough.
const MOST_VIOLATIONS: usize = 8;
