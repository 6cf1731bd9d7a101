//! What was tried, counted.

use std::collections::BTreeMap;
use std::time::Duration;

/// What runs have tried, added up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// Runs.
    pub seeds: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Writes that were refused with a reason.
    pub refused: u64,
    /// Writes of which the client never heard again.
    pub unknown: u64,
    /// Acknowledged writes that went with the only disk that held them.
    pub lost_with_disks: u64,
    /// Changes that were made offline.
    pub offline: u64,
    /// Hostile uploads.
    pub attacks: u64,
    /// Times that a session went on in another region.
    pub moves: u64,
    /// Requests that gave up waiting for what their token asks for.
    pub stale: u64,
    /// Nodes that ended at once.
    pub crashes: u64,
    /// Those of them in the middle of a write to the disk.
    pub torn_commits: u64,
    /// Restarts in which the power failed again.
    pub failed_restarts: u64,
    /// Disks that were restored from an older copy.
    pub rollbacks: u64,
    /// Disks that were destroyed.
    pub destroyed: u64,
    /// Disks that were full for a while.
    pub full_disks: u64,
    /// Clocks that were set.
    pub clock_jumps: u64,
    /// Partitions.
    pub partitions: u64,
    /// Links that were reset.
    pub flaps: u64,
    /// Origins that were renewed because a peer knew more of them.
    pub renewals: u64,
    /// Rows of the ledger, in all regions.
    pub conflicts: u64,
    /// Values of which the checker found that they were overwritten unseen.
    pub overwritten: u64,
    /// Pairs of a session's requests that were compared.
    pub session_pairs: u64,
    /// Frames that were sent.
    pub frames: u64,
    /// Digests that arrived.
    pub digests: u64,
    /// Bytes that were sent.
    pub bytes: u64,
    /// Bytes of changes that arrived.
    pub delivered_bytes: u64,
    /// Bytes of those of them that had come to the same node before.
    pub repeated_bytes: u64,
    /// Virtual time.
    pub virtual_time: Duration,
    /// How often each entry came to each node: node, origin, sequence.
    pub(crate) deliveries: BTreeMap<(usize, u128, u64), u32>,
}

impl Tally {
    /// Adds what other runs have tried.
    pub fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.acknowledged += other.acknowledged;
        self.reads += other.reads;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.lost_with_disks += other.lost_with_disks;
        self.offline += other.offline;
        self.attacks += other.attacks;
        self.moves += other.moves;
        self.stale += other.stale;
        self.crashes += other.crashes;
        self.torn_commits += other.torn_commits;
        self.failed_restarts += other.failed_restarts;
        self.rollbacks += other.rollbacks;
        self.destroyed += other.destroyed;
        self.full_disks += other.full_disks;
        self.clock_jumps += other.clock_jumps;
        self.partitions += other.partitions;
        self.flaps += other.flaps;
        self.renewals += other.renewals;
        self.conflicts += other.conflicts;
        self.overwritten += other.overwritten;
        self.session_pairs += other.session_pairs;
        self.frames += other.frames;
        self.digests += other.digests;
        self.bytes += other.bytes;
        self.delivered_bytes += other.delivered_bytes;
        self.repeated_bytes += other.repeated_bytes;
        self.virtual_time += other.virtual_time;
    }
}
