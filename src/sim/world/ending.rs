//! The end of a run: everything is healed, the nodes find together, and what they have is noted.

use std::collections::BTreeMap;
use std::time::Duration;

use anabranch_crdt::clock::{ClockOffset, Verdict, judge};
use anabranch_crdt::document::Ledger;
use anabranch_crdt::entry::Entry;
use anabranch_crdt::ids::{DocumentName, Sequence};
use anabranch_crdt::version::VersionVector;
use rand::Rng;

use super::World;
use super::effects::logged;
use crate::journal::Journal;
use crate::replication::PeerStatus;
use crate::settings::Limits;
use crate::sim::history::{DocumentNumber, Final, FinalConflict, FinalDocument, FinalEntry};
use crate::sim::node::Process;
use crate::sim::nodes::NodeId;
use crate::sim::plan::Topology;

impl World {
    pub(super) fn heal(&mut self) {
        self.healed = true;
        self.network.blocked.clear();
        self.release();
        for node in self.nodes.ids() {
            self.nodes[node].disk.make_space();
            self.nodes[node].disk.lie(0);
        }
        if self.plan.leaves_one_down {
            let absent = NodeId(self.rng.random_range(0..self.plan.nodes));
            self.stop(absent, "it stays down");
            self.absent = Some(absent);
        }
        let mut spread = self.present().into_iter().cycle();
        for session in &mut self.sessions {
            session.node = spread.next().unwrap_or(session.node);
        }
        // A fuse that is lit still burns down.
        for node in self.present() {
            self.start(node);
        }
    }

    /// Returns the nodes that must agree in the end.
    fn present(&self) -> Vec<NodeId> {
        self.nodes.ids().filter(|node| self.absent != Some(*node)).collect()
    }

    /// Waits until the nodes agree, for a bounded time.
    pub(super) fn converge(&mut self) {
        let slow = self.plan.disk_delay * LIVENESS_SYNCS + self.plan.latency * LIVENESS_TRIPS;
        let deadline = self.now + self.plan.interval * LIVENESS_INTERVALS + LIVENESS_FLOOR + slow;
        while self.violations.is_empty() && !self.has_converged() {
            if self.now >= deadline {
                let differences = self.differences();
                return self.violated("liveness", format!("no convergence: {differences}"));
            }
            self.run_until(self.now + self.plan.interval / 2);
        }
        self.judge_clocks();
    }

    fn has_converged(&self) -> bool {
        let processes: Vec<Option<&Process>> =
            self.present().iter().map(|node| self.nodes[*node].process.as_ref()).collect();
        let Some(Some(first)) = processes.first() else { return false };
        let position = first.position();
        let level = |process: &Option<&Process>| {
            process.is_some_and(|process| {
                process.is_idle()
                    && process.waiting.is_empty()
                    && process.position().vector == position.vector
                    && process.journal.pending(None, 1).is_ok_and(|pending| pending.is_empty())
            })
        };
        processes.iter().all(level) && self.present().iter().all(|node| self.status_is_clean(*node))
    }

    /// Tells whether a node sees itself level with every peer that it can have a link to.
    fn status_is_clean(&self, node: NodeId) -> bool {
        let Some(process) = &self.nodes[node].process else { return false };
        let status = process.replication.status(self.clocks(node));
        status.iter().all(|peer| {
            let other = self.nodes.iter().find(|(_, other)| other.region == peer.region);
            let Some((other, _)) = other else { return true };
            let joined = self.plan.topology.joins(node.0, other.0, self.plan.nodes);
            !joined || self.absent == Some(other) || self.is_level(node, other, peer)
        })
    }

    fn is_level(&self, node: NodeId, other: NodeId, peer: &PeerStatus) -> bool {
        self.is_measured_rightly(node, other, peer)
            && peer.entries_behind == 0
            && peer.seconds_behind == 0.0
            && peer.entries_missing == 0
            && peer.connected
    }

    /// Tells whether a node knows a peer's clock as well as it must: to half the round trip.
    fn is_measured_rightly(&self, node: NodeId, other: NodeId, peer: &PeerStatus) -> bool {
        peer.clock.is_some_and(|clock| {
            let truth = self.nodes[other].skew - self.nodes[node].skew;
            let error = clock.round_trip / 2 + Duration::from_micros(2);
            u128::from(clock.offset.0.abs_diff(truth)) <= error.as_micros()
        })
    }

    /// Checks that nodes which have all heard each other go by one time, however wrong their wall
    /// clocks are.
    fn judge_clocks(&mut self) {
        let all = self.plan.topology == Topology::Mesh && self.absent.is_none();
        if !all || !self.violations.is_empty() {
            return;
        }
        let judged: Vec<Option<(i64, Duration)>> =
            self.nodes.ids().map(|node| self.time_of(node)).collect();
        let Some(judged) = judged.into_iter().collect::<Option<Vec<_>>>() else {
            return self.violated("clocks", "a node has heard everybody and is undecided");
        };
        let times = || judged.iter().map(|(time, _)| *time);
        let apart = times().max().unwrap_or_default().abs_diff(times().min().unwrap_or_default());
        let slowest = judged.iter().map(|(_, round_trip)| *round_trip).max().unwrap_or_default();
        let skew = Limits::default().clock_skew;
        if u128::from(apart) > (skew + slowest).as_micros() {
            self.violated("clocks", format!("corrected clocks are {apart} us apart: {judged:?}"));
        }
    }

    /// Returns how far the corrected clock of a node is ahead of the truth, and the longest round
    /// trip over which it was judged.
    fn time_of(&self, node: NodeId) -> Option<(i64, Duration)> {
        let process = self.nodes[node].process.as_ref()?;
        let status = process.replication.status(self.clocks(node));
        let clocks: Option<Vec<_>> = status.into_iter().map(|peer| peer.clock).collect();
        let clocks = clocks?;
        let offsets: Vec<ClockOffset> = clocks.iter().map(|clock| clock.offset).collect();
        let longest = clocks.iter().map(|clock| clock.round_trip).max()?;
        let skew = u64::try_from(Limits::default().clock_skew.as_micros()).ok()?;
        match judge(ClockOffset::default(), &offsets, self.plan.nodes, skew) {
            Verdict::Undecided => None,
            Verdict::Believed => Some((self.nodes[node].skew, longest)),
            Verdict::Corrected(by) => Some((self.nodes[node].skew + by.0, longest)),
        }
    }

    fn differences(&self) -> String {
        let line = |node: NodeId| {
            let Some(process) = &self.nodes[node].process else { return format!("{node} is down") };
            let position = process.position();
            let dots = position.vector.iter();
            let dots = dots.map(|dot| format!("{:.4}: {}", dot.origin.to_string(), dot.sequence));
            let pending = process.journal.pending(None, 9).map(|pending| pending.len());
            let status = process.replication.status(self.clocks(node));
            let (idle, waiting) = (process.is_idle(), process.waiting.len());
            format!(
                "{node} has {:?}, {pending:?} documents pending, idle {idle}, {waiting} requests, \
                 sees {status:?}",
                dots.collect::<Vec<_>>()
            )
        };
        self.nodes.ids().map(line).collect::<Vec<_>>().join("\n")
    }

    // What is there

    /// Takes note of what every node has.
    pub(super) fn look_at_the_end(&mut self) {
        if !self.violations.is_empty() {
            return;
        }
        // What a node that stays down has counts as well.
        let absent = self.absent.take();
        absent.into_iter().for_each(|node| self.start(node));
        for node in self.nodes.ids() {
            let documents: Vec<(DocumentNumber, DocumentName)> =
                self.subjects.0.iter().map(|t| (t.number, t.name.clone())).collect();
            let Some(process) = self.nodes[node].process.as_mut() else { continue };
            let is_absent = absent == Some(node);
            let log = log_of(&process.journal, &process.position().vector);
            let mut last = Final {
                node: node.0,
                absent: is_absent,
                log,
                documents: BTreeMap::new(),
                conflicts: Vec::new(),
                pending: pending_of(&process.journal),
            };
            if !is_absent {
                for (number, name) in documents {
                    last.documents.insert(number, document_of(process, name));
                }
                last.conflicts = conflicts_of(&process.journal);
            }
            self.history.finals.push(last);
        }
        self.absent = absent;
    }
}

fn log_of(journal: &Journal, vector: &VersionVector) -> Vec<FinalEntry> {
    let mut log = Vec::new();
    for dot in vector.iter() {
        let mut after = Sequence::ZERO;
        while let Ok(page) = journal.entries(dot.origin, after, PAGE, usize::MAX)
            && let Some(last) = page.last()
        {
            after = last.sequence;
            log.extend(page.iter().map(final_entry));
        }
    }
    log
}

fn final_entry(entry: &Entry) -> FinalEntry {
    FinalEntry {
        origin: entry.origin.0.as_u128(),
        sequence: entry.sequence.0,
        document: entry.document.0.as_u128(),
        admitted: entry.admitted.0,
        content: logged(entry).content,
        change: entry.change.clone(),
    }
}

fn pending_of(journal: &Journal) -> Vec<DocumentNumber> {
    let pending = journal.pending(None, PAGE).unwrap_or_default();
    pending.into_iter().map(|document| document.0.as_u128()).collect()
}

fn document_of(process: &mut Process, name: DocumentName) -> FinalDocument {
    let documents = process.documents.clone();
    let asked = process.finish(async move {
        let shown = documents.read(&name).await.ok().flatten();
        let changes = documents.changes_since(name, Vec::new()).await.unwrap_or_default();
        (shown, changes)
    });
    let Some((shown, changes)) = asked else { return FinalDocument::default() };
    let json = shown.as_ref().map(|shown| String::from_utf8_lossy(&shown.json).into_owned());
    let digest = shown.map(|shown| shown.digest.0).unwrap_or_default();
    FinalDocument { json, digest, changes: changes.iter().map(|change| change.hash.0).collect() }
}

fn conflicts_of(journal: &Journal) -> Vec<FinalConflict> {
    let rows = journal.ledger(None, usize::MAX).unwrap_or_default();
    let mut conflicts = Vec::new();
    for row in rows {
        let Ok(conflict) = Ledger::read_conflict(&row.row.bytes) else { continue };
        let value = |value: &Option<serde_json::Value>| value.as_ref().map(ToString::to_string);
        conflicts.push(FinalConflict {
            document: row.document.0.as_u128(),
            id: conflict.id.to_string(),
            path: conflict.path.to_string(),
            state: conflict.state.to_string(),
            policy: conflict.policy.to_string(),
            candidates: conflict.candidates.iter().map(|c| value(&c.value)).collect(),
            winner: conflict.winner,
        });
    }
    conflicts
}

/// Entries that are read at once.
const PAGE: usize = 512;

/// After healing, all is equal within so many digest intervals, so many syncs, so many trips, and a
/// floor for links to come up.
const LIVENESS_INTERVALS: u32 = 60;
const LIVENESS_SYNCS: u32 = 200;
const LIVENESS_TRIPS: u32 = 100;
const LIVENESS_FLOOR: Duration = Duration::from_secs(60);
