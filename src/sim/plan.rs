//! What one seed does: the shape of the cluster, the faults that exist in it at all, how strong
//! they are, and the settings of its nodes.

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

/// The knobs of one run. Probabilities are per event; a time is the mean between two events of a
/// kind, and `None` if there are none.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    pub(crate) topology: Topology,
    /// How long faults and writes go on.
    pub(crate) trouble: Duration,
    /// How long clients go on after everything is healed.
    pub(crate) calm: Duration,
    pub(crate) interval: Duration,
    pub(crate) batch_entries: usize,
    pub(crate) frame_bytes: usize,
    /// Bytes of loaded documents that a node keeps.
    pub(crate) cache_bytes: usize,
    /// Requests that may wait for a document.
    pub(crate) queue: usize,
    pub(crate) documents: u64,
    pub(crate) sessions: usize,
    /// Between two requests of a session.
    pub(crate) think: Duration,
    /// Share of the requests before which a session goes to another region.
    pub(crate) moves: f64,
    /// How long a request with a token waits for the region to catch up.
    pub(crate) patience: Duration,
    pub(crate) offline_clients: usize,
    pub(crate) hostile: Option<Duration>,
    pub(crate) latency: Duration,
    /// Per frame, without the link going down: worse than QUIC ever is.
    pub(crate) loss: f64,
    pub(crate) duplication: f64,
    pub(crate) reordering: f64,
    pub(crate) partitions: Option<Duration>,
    pub(crate) one_way: bool,
    pub(crate) flaps: Option<Duration>,
    pub(crate) crashes: Option<Duration>,
    /// Share of the crashes at the n-th next operation of the disk.
    pub(crate) torn: f64,
    /// Share of the restarts that the power fails in.
    pub(crate) failing_restarts: f64,
    /// Share of the crashes that bring back an older disk.
    pub(crate) rollbacks: f64,
    /// Share of the crashes after which the disk is empty.
    pub(crate) destroyed: f64,
    pub(crate) clock_jumps: Option<Duration>,
    pub(crate) disk_delay: Duration,
    pub(crate) full_disks: Option<Duration>,
    /// Of a hundred syncs, so many are lies.
    pub(crate) lies: u64,
    /// Share of the reads of the journal that fail.
    pub(crate) failed_reads: f64,
    /// Share of the commits whose news leave out their entries.
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
        let topology = pick(rng, &topologies).unwrap_or(Topology::Mesh);
        let harsh = rng.random_bool(0.4);
        let small = rng.random_bool(0.5);
        let slow_disk = rng.random_bool(0.25);
        // One entry per slow sync would only show that a backlog takes its time.
        let fewest = if slow_disk { 32 } else { 1 };
        // An honest disk is what most promises are about.
        let lying = rng.random_bool(0.08);
        Self {
            nodes: rng.random_range(3..=5),
            topology,
            leaves_one_down: topology == Topology::Mesh && rng.random_bool(0.4),
            trouble: millis(rng, 5_000, 14_000),
            calm: Duration::from_secs(2),
            interval: millis(rng, 200, 1_000),
            batch_entries: if small { rng.random_range(fewest..fewest + 8) } else { 256 },
            frame_bytes: if small { rng.random_range(200..2_000) * fewest } else { 64 * 1024 },
            cache_bytes: pick(rng, &[1, 60_000, 64 << 20]).unwrap_or(1),
            queue: pick(rng, &[4, 64, 1_024]).unwrap_or(64),
            documents: rng.random_range(1..=3),
            sessions: rng.random_range(4..=10),
            think: millis(rng, 40, 250),
            moves: share(rng, true, 0.4),
            patience: millis(rng, 200, 2_000),
            offline_clients: if rng.random_bool(0.4) { rng.random_range(1..=2) } else { 0 },
            hostile: rng.random_bool(0.3).then(|| millis(rng, 200, 1_500)),
            latency: millis(rng, 1, 150),
            loss: share(rng, harsh, 0.2),
            duplication: share(rng, harsh, 0.2),
            reordering: share(rng, harsh, 0.3),
            partitions: every(rng, 600, 4_000),
            one_way: rng.random_bool(0.5),
            flaps: every(rng, 500, 4_000),
            crashes: every(rng, 500, 3_000),
            torn: rng.random_range(0.0..0.8),
            failing_restarts: share(rng, true, 0.5),
            rollbacks: share(rng, true, 0.6),
            destroyed: share(rng, true, 0.2),
            clock_jumps: every(rng, 1_000, 6_000),
            disk_delay: if slow_disk { millis(rng, 50, 500) } else { millis(rng, 1, 10) },
            full_disks: rng.random_bool(0.25).then(|| millis(rng, 1_500, 6_000)),
            lies: if lying { rng.random_range(1..=50) } else { 0 },
            failed_reads: share(rng, true, 0.05),
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
            cache_bytes: 64 << 20,
            queue: 1_024,
            hostile: None,
            loss: 0.0,
            duplication: 0.0,
            reordering: 0.0,
            partitions: None,
            flaps: None,
            crashes: None,
            clock_jumps: None,
            full_disks: None,
            lies: 0,
            failed_reads: 0.0,
            second_links: 0.0,
            leaves_one_down: false,
            disk_delay: Duration::from_millis(5),
            interval: Duration::from_secs(1),
            trouble: Duration::from_secs(10),
            sessions: 8,
            think: Duration::from_millis(60),
            ..Self::draw(rng)
        }
    }

    /// Tells whether a disk may lose what it said was safe.
    pub(crate) fn disks_may_lose(&self) -> bool {
        self.lies > 0
    }
}

/// Draws one of some things.
pub(crate) fn pick<T: Copy>(rng: &mut ChaCha8Rng, of: &[T]) -> Option<T> {
    of.get(rng.random_range(0..of.len().max(1))).copied()
}

pub(crate) fn millis(rng: &mut ChaCha8Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.random_range(from..=to))
}

fn every(rng: &mut ChaCha8Rng, from: u64, to: u64) -> Option<Duration> {
    rng.random_bool(0.65).then(|| millis(rng, from, to))
}

fn share(rng: &mut ChaCha8Rng, possible: bool, most: f64) -> f64 {
    let exists = rng.random_bool(0.4) && possible;
    let share = rng.random_range(0.0..most);
    if exists { share } else { 0.0 }
}
