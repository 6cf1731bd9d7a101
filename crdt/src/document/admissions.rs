//! What is known of how changes were admitted, beyond what they say themselves.
//!
//! A change of a leader, made under a sane clock, says everything itself. What has to be kept is
//! the admission of changes that clients wrote, and of those whose writer's clock was ahead of the
//! admitting leader's. Of several admissions of one change the earliest counts, so it does not
//! matter which of them is heard of first.

use std::collections::BTreeMap;

use automerge::ChangeHash;

use super::{ApplyError, writer};
use crate::clock;
use crate::ids::{Origin, Timestamp};
use crate::message;

/// When and by whom a change was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Admission {
    at: Timestamp,
    by: Origin,
}

/// The admissions that are worth keeping.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Admissions(BTreeMap<ChangeHash, Admission>);

impl Admissions {
    /// Takes note of an admission; tells whether another one of the same change counted until now.
    pub(super) fn note(
        &mut self,
        change: &automerge::Change,
        at: Timestamp,
        by: Option<Origin>,
    ) -> bool {
        // What policies call for has the time of what it settles, and no leader in particular.
        if change.message().is_some_and(message::is_policy) {
            return false;
        }
        let ahead = clock::normalise(change.timestamp()) > at;
        let writer = writer(change.actor_id());
        if ahead || by.is_some_and(|by| by != writer) {
            let heard = Admission { at, by: by.unwrap_or(writer) };
            let known = self.0.entry(change.hash()).or_insert(heard);
            let overtakes = heard < *known;
            *known = heard.min(*known);
            return overtakes;
        }
        false
    }

    /// Returns when a change was made, by its writer's clock, no later than it was admitted.
    pub(super) fn effective(&self, hash: &ChangeHash, claimed: i64) -> Timestamp {
        let claimed = clock::normalise(claimed);
        self.0.get(hash).map_or(claimed, |admission| admission.at.min(claimed))
    }

    /// Returns the leader that admitted a change of `writer`.
    pub(super) fn leader(&self, hash: &ChangeHash, writer: Origin) -> Origin {
        self.0.get(hash).map_or(writer, |admission| admission.by)
    }

    /// Returns an admission that counts for as much as the one that is known: where the change says
    /// everything itself, its own time and its writer.
    pub(super) fn of(&self, change: &automerge::Change) -> (Timestamp, Origin) {
        match self.0.get(&change.hash()) {
            Some(admission) => (admission.at, admission.by),
            None => (clock::normalise(change.timestamp()), writer(change.actor_id())),
        }
    }

    /// Returns the bytes that [`Admissions::read`] takes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let count = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&count.to_be_bytes());
        for (hash, admission) in self.0.iter().take(count as usize) {
            bytes.extend_from_slice(&hash.0);
            bytes.extend_from_slice(&admission.at.0.to_be_bytes());
            bytes.extend_from_slice(admission.by.as_bytes());
        }
        bytes
    }

    /// Reads what stands in front of a snapshot, and returns the rest.
    pub(super) fn read(snapshot: &[u8]) -> Result<(Self, &[u8]), ApplyError> {
        let short = || ApplyError::Malformed("the snapshot is cut short".into());
        let (&[format], rest) = snapshot.split_first_chunk::<1>().ok_or_else(short)?;
        if format != FORMAT {
            return Err(ApplyError::Malformed(format!("snapshot format {format} is not known")));
        }
        let (count, mut rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let mut admissions = BTreeMap::new();
        for _ in 0..u32::from_be_bytes(*count) {
            let (hash, after) = rest.split_first_chunk::<32>().ok_or_else(short)?;
            let (at, after) = after.split_first_chunk::<8>().ok_or_else(short)?;
            let (by, after) = after.split_first_chunk::<16>().ok_or_else(short)?;
            let at = Timestamp(u64::from_be_bytes(*at));
            admissions.insert(ChangeHash(*hash), Admission { at, by: Origin::from_bytes(*by) });
            rest = after;
        }
        Ok((Self(admissions), rest))
    }
}

/// The format of a snapshot: this byte, the admissions, then what Automerge saves.
const FORMAT: u8 = 2;
