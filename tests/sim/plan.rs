//! What one seed does: the shape of the cluster, and the faults that exist in it at all.

use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Who can connect to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topology {
    Mesh,
    Chain,
    Ring,
    Hub,
}

impl Topology {
    /// Tells whether two different nodes of `nodes` can connect.
    pub(crate) fn joins(self, a: usize, b: usize, nodes: usize) -> bool {
        let (low, high) = (a.min(b), a.max(b));
        match self {
            Self::Mesh => true,
            Self::Chain => high - low == 1,
            Self::Ring => high - low == 1 || (low == 0 && high == nodes - 1),
            Self::Hub => low == 0,
        }
    }
}

/// The knobs of one run. Probabilities are per event.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    pub(crate) topology: Topology,
    /// How long faults and writes go on.
    pub(crate) trouble: Duration,
    pub(crate) interval: Duration,
    pub(crate) batch_entries: usize,
    pub(crate) frame_bytes: usize,
    /// Mean time between two writes.
    pub(crate) write_every: Duration,
    pub(crate) change_bytes: usize,
    pub(crate) latency: Duration,
    /// Per frame, without the link going down: worse than QUIC ever is.
    pub(crate) loss: f64,
    pub(crate) duplication: f64,
    pub(crate) reordering: f64,
    /// Mean time between two faults of a kind; `None` if there are none.
    pub(crate) partitions: Option<Duration>,
    pub(crate) one_way: bool,
    pub(crate) flaps: Option<Duration>,
    pub(crate) crashes: Option<Duration>,
    /// Share of the crashes that bring back an older disk.
    pub(crate) rollbacks: f64,
    pub(crate) clock_jumps: Option<Duration>,
    pub(crate) disk_delay: Duration,
    pub(crate) disk_failures: f64,
    /// Share of the commits that leave out their entries.
    pub(crate) omitted: f64,
    /// Share of the dials that open a second link.
    pub(crate) second_links: f64,
    /// Whether one node stays down at the end; the others must agree without it.
    pub(crate) leaves_one_down: bool,
}

impl Plan {
    /// Draws a plan: first which faults exist, then how strong they are.
    pub(crate) fn draw(rng: &mut ChaCha8Rng) -> Self {
        let topologies = [Topology::Mesh, Topology::Chain, Topology::Ring, Topology::Hub];
        let harsh = rng.random_bool(0.4);
        let small = rng.random_bool(0.5);
        let slow_disk = rng.random_bool(0.3);
        // One entry per slow sync would only show that a backlog takes its time.
        let fewest = if slow_disk { 32 } else { 1 };
        let topology = topologies[rng.random_range(0..topologies.len())];
        Self {
            nodes: rng.random_range(3..=5),
            topology,
            leaves_one_down: topology == Topology::Mesh && rng.random_bool(0.4),
            trouble: millis(rng, 8_000, 25_000),
            interval: millis(rng, 200, 1_000),
            batch_entries: if small { rng.random_range(fewest..fewest + 8) } else { 256 },
            frame_bytes: if small { rng.random_range(100..2_000) * fewest } else { 64 * 1024 },
            write_every: millis(rng, 10, 120),
            change_bytes: rng.random_range(8..300),
            latency: millis(rng, 1, 150),
            loss: share(rng, harsh, 0.2),
            duplication: share(rng, harsh, 0.2),
            reordering: share(rng, harsh, 0.3),
            partitions: every(rng, 1_500, 8_000),
            one_way: rng.random_bool(0.5),
            flaps: every(rng, 500, 5_000),
            crashes: every(rng, 1_500, 8_000),
            rollbacks: share(rng, true, 0.5),
            clock_jumps: every(rng, 1_000, 10_000),
            disk_delay: if slow_disk { millis(rng, 50, 800) } else { millis(rng, 1, 10) },
            disk_failures: share(rng, true, 0.05),
            omitted: share(rng, true, 0.5),
            second_links: share(rng, true, 0.1),
        }
    }

    /// A full mesh in which nothing goes wrong.
    pub(crate) fn calm(rng: &mut ChaCha8Rng) -> Self {
        Self {
            topology: Topology::Mesh,
            batch_entries: 256,
            frame_bytes: 64 * 1024,
            loss: 0.0,
            duplication: 0.0,
            reordering: 0.0,
            partitions: None,
            flaps: None,
            crashes: None,
            rollbacks: 0.0,
            disk_failures: 0.0,
            second_links: 0.0,
            disk_delay: Duration::from_millis(5),
            interval: Duration::from_millis(1_000),
            write_every: Duration::from_millis(10),
            ..Self::draw(rng)
        }
    }
}

fn millis(rng: &mut ChaCha8Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.random_range(from..=to))
}

fn every(rng: &mut ChaCha8Rng, from: u64, to: u64) -> Option<Duration> {
    rng.random_bool(0.5).then(|| millis(rng, from, to))
}

fn share(rng: &mut ChaCha8Rng, possible: bool, most: f64) -> f64 {
    let exists = rng.random_bool(0.4) && possible;
    let share = rng.random_range(0.0..most);
    if exists { share } else { 0.0 }
}
