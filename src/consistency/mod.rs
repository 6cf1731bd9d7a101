//! Consistency that a request asks for: waiting for other regions, and saying how old their data
//! may be here.
//!
//! It sits between the HTTP edge and what replication knows of the regions. It never decides what
//! is sent where, and nothing that it waits for is ever taken back: a write whose concern is not
//! met in time stays written.

mod concern;
mod waiting;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anabranch_crdt::ids::RegionName;
use anabranch_crdt::version::VersionVector;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

pub use concern::{Asked, ConcernError, ReadConcern, WriteConcern};

use crate::error::{Error, ErrorKind};
use crate::journal::Position;
use crate::replication::{ClusterView, RegionView};
use crate::transport::TransportHandle;
use waiting::{Waiting, has};

/// Waits for other regions on behalf of requests; clones are cheap.
#[derive(Clone)]
pub struct Consistency {
    shared: Arc<Shared>,
}

struct Shared {
    region: RegionName,
    cluster: watch::Receiver<Arc<ClusterView>>,
    transport: TransportHandle,
    waiting: Waiting,
    oldest: AtomicU64,
    counts: Counts,
}

/// How far a write has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// The regions in which it is known to be durable, the own one first.
    pub regions: Vec<RegionName>,
    /// Whether that is what was asked for.
    pub met: bool,
}

/// How old the data of other regions may be here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub enum Lag {
    /// So old at most, for the region that is furthest behind.
    Known(Duration),
    /// Some region was not heard since this node started.
    Unknown,
}

/// What requests asked for, and whether they got it; all since the node started.
#[derive(Debug, Default)]
pub struct Counts {
    /// Writes that asked for more than the own region and got it.
    pub writes_met: AtomicU64,
    /// Writes whose time was over before.
    pub writes_unmet: AtomicU64,
    /// Majority reads that were answered.
    pub reads_met: AtomicU64,
    /// Majority reads that were refused.
    pub reads_unmet: AtomicU64,
}

impl Consistency {
    /// Makes one for a node of `region`. [`Consistency::run`] has to run for it to be of use.
    #[must_use]
    pub fn new(region: RegionName, transport: TransportHandle) -> Self {
        let shared = Shared {
            region,
            cluster: transport.cluster(),
            transport,
            waiting: Waiting::new(),
            oldest: AtomicU64::new(UNKNOWN),
            counts: Counts::default(),
        };
        let consistency = Self { shared: Arc::new(shared) };
        consistency.measure(&consistency.view());
        consistency
    }

    /// Releases what waits whenever more is known of the regions; never ends by itself.
    pub async fn run(self) {
        let mut cluster = self.shared.cluster.clone();
        let mut ticks = interval(HELD_UP_CHECK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asking = JoinSet::new();
        loop {
            tokio::select! {
                Ok(()) = cluster.changed() => {
                    let view = Arc::clone(&cluster.borrow_and_update());
                    self.measure(&view);
                    self.shared.waiting.release(&view);
                }
                Some(_) = asking.join_next() => {}
                _ = ticks.tick() => {
                    if asking.is_empty() && self.shared.waiting.is_held_up(&self.view()) {
                        let transport = self.shared.transport.clone();
                        // Its answers count as acknowledgements; that they came is all.
                        asking.spawn(async move { drop(transport.ask(HELD_UP_WAIT).await) });
                    }
                }
            }
        }
    }

    /// Returns what is known of the regions.
    #[must_use]
    pub fn view(&self) -> Arc<ClusterView> {
        Arc::clone(&self.shared.cluster.borrow())
    }

    /// Checks a write concern before the write, and keeps a place for it to wait in.
    ///
    /// # Errors
    /// `Invalid` if the cluster can never meet it, `Overloaded` if too many wait.
    pub fn admit(&self, concern: &WriteConcern) -> Result<Option<OwnedSemaphorePermit>, Error> {
        if *concern == WriteConcern::Local {
            return Ok(None);
        }
        concern.check(&self.view())?;
        self.shared.waiting.place().map(Some)
    }

    /// Waits until a write that is durable here is where `concern` wants it, for `limit` at most.
    ///
    /// A region counts once it has the write and everything that was durable here when it was
    /// made, because the write may build on any of it.
    ///
    /// # Cancel safety
    /// The write stays what it is when the future is dropped.
    pub async fn written(
        &self,
        position: &Arc<Position>,
        concern: &WriteConcern,
        limit: Duration,
    ) -> Reached {
        if let Some(mut queue) = self.shared.waiting.enter(concern, position, || self.view()) {
            // Over time or not, what is known then is what is told.
            drop(timeout(limit, queue.released()).await);
        }
        let reached = self.reached(position, concern);
        if *concern != WriteConcern::Local {
            let counts = &self.shared.counts;
            let count = if reached.met { &counts.writes_met } else { &counts.writes_unmet };
            count.fetch_add(1, Ordering::Relaxed);
        }
        reached
    }

    fn reached(&self, position: &Position, concern: &WriteConcern) -> Reached {
        let view = self.view();
        let has = has(position);
        let has = |region: &RegionView| region.region == self.shared.region || has(region);
        let regions = view.regions.iter().filter(|region| has(region));
        Reached {
            regions: regions.map(|region| region.region.clone()).collect(),
            met: concern.is_met(&view, has),
        }
    }

    /// Asks the regions what is durable there now, and returns everything that is durable in a
    /// majority; a read that includes it misses no write that a majority had when it began.
    ///
    /// # Errors
    /// `Stale` with `no_majority`, naming the regions that did not answer within `limit`;
    /// `Unavailable` while the node shuts down.
    pub async fn majority(&self, limit: Duration) -> Result<VersionVector, Error> {
        let asked = timeout(limit, self.shared.transport.ask(limit)).await;
        let missing = match asked {
            Ok(Some(Ok(vector))) => return Ok(vector),
            Ok(Some(Err(missing))) => missing,
            Ok(None) => {
                let message = "this node is shutting down";
                return Err(Error::new(ErrorKind::Unavailable, "shutting_down", message));
            }
            Err(_) => Vec::new(),
        };
        Err(self.no_majority(limit, &missing))
    }

    fn no_majority(&self, limit: Duration, missing: &[RegionName]) -> Error {
        let view = self.view();
        let cut_off = view.voters().filter(|voter| !voter.connected);
        let names: Vec<&str> = match missing {
            [] => cut_off.map(|voter| voter.region.as_str()).collect(),
            _ => missing.iter().map(RegionName::as_str).collect(),
        };
        let names = if names.is_empty() { "some region".to_owned() } else { names.join(", ") };
        let message = format!(
            "no majority of the regions said within {} ms what it has; no answer from {names}",
            limit.as_millis()
        );
        Error::new(ErrorKind::Stale, "no_majority", message)
    }

    /// Takes note of how a majority read ended.
    pub fn note_read(&self, met: bool) {
        let counts = &self.shared.counts;
        let count = if met { &counts.reads_met } else { &counts.reads_unmet };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns what requests asked for so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Returns how old the data of other regions may be here; costs one read of a clock.
    #[must_use]
    pub fn lag(&self) -> Lag {
        match self.shared.oldest.load(Ordering::Relaxed) {
            ALONE => Lag::Known(Duration::ZERO),
            UNKNOWN => Lag::Unknown,
            oldest => Lag::Known(self.clock().saturating_sub(Duration::from_micros(oldest))),
        }
    }

    /// Returns the region that is furthest behind here; `None` without other regions.
    #[must_use]
    pub fn slowest(&self) -> Option<RegionName> {
        let view = self.view();
        let others = view.voters().filter(|voter| voter.region != self.shared.region);
        others.min_by_key(|voter| voter.current).map(|voter| voter.region.clone())
    }

    fn clock(&self) -> Duration {
        Instant::now().saturating_duration_since(self.shared.transport.began())
    }

    /// Keeps what [`Consistency::lag`] answers from.
    fn measure(&self, view: &ClusterView) {
        let others = view.voters().filter(|voter| voter.region != self.shared.region);
        let moments = others.map(|voter| match voter.current {
            None => UNKNOWN,
            Some(moment) => u64::try_from(moment.as_micros()).unwrap_or(ALONE).max(1),
        });
        // Before the first view nothing is known of any region.
        let oldest = if view.regions.is_empty() { UNKNOWN } else { moments.min().unwrap_or(ALONE) };
        self.shared.oldest.store(oldest, Ordering::Relaxed);
    }
}

impl fmt::Debug for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consistency").field("region", &self.shared.region).finish_non_exhaustive()
    }
}

/// Stands for a moment when there are no other regions.
const ALONE: u64 = u64::MAX;

/// Stands for a moment that is not known.
const UNKNOWN: u64 = 0;

/// How often it is looked for writes that are held up.
const HELD_UP_CHECK: Duration = Duration::from_millis(50);

/// How long regions are waited for that are asked because writes are held up.
const HELD_UP_WAIT: Duration = Duration::from_millis(500);
