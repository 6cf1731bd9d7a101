//! One simulated node: the real journal on a simulated disk, the real owners of real documents,
//! and the real state machine of replication, driven by hand on virtual time.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use anabranch_crdt::entry::Entry;
use anabranch_crdt::ids::{ClusterId, CollectionName, Origin, RegionName, Timestamp};
use anabranch_crdt::policy::Policies;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use uuid::Uuid;

use super::disk::SimDisk;
use super::history::{CallId, Reach};
use super::nodes::NodeId;
use super::plan::Plan;
use crate::document::{
    Collections, Documents, HandOwners, NodeClock, PeerClock, Setting, owner_queues,
};
use crate::error::Error;
use crate::journal::{Commit, CommitBatch, Journal, JournalOptions, Position, Source};
use crate::replication::{Now, PeerStatus, Replication, ReplicationSettings, Ticket};
use crate::settings::Limits;

/// A place where a node runs, crashes and starts again.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) region: RegionName,
    pub(crate) disk: SimDisk,
    /// The number of the file on the disk: a copy of a file is another file.
    pub(crate) file: u64,
    /// An older image of the disk, and what it holds.
    pub(crate) image: Option<(Vec<u8>, Reach)>,
    pub(crate) process: Option<Process>,
    /// Counts up with each end of a process; what was meant for an earlier life is dropped.
    pub(crate) life: u64,
    /// How wrong the wall clock is, in microseconds.
    pub(crate) skew: i64,
}

/// What the clocks of a process show, set by the world before it lets the process do anything.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    wall: AtomicU64,
    monotonic: AtomicU64,
}

impl Clocks {
    pub(crate) fn set(&self, now: Now) {
        self.wall.store(now.wall.0, Ordering::Relaxed);
        let monotonic = u64::try_from(now.monotonic.as_micros()).unwrap_or(u64::MAX);
        self.monotonic.store(monotonic, Ordering::Relaxed);
    }

    fn wall(&self) -> Timestamp {
        Timestamp(self.wall.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.monotonic.load(Ordering::Relaxed))
    }
}

/// What a node is started with.
#[derive(Debug, Clone)]
pub(crate) struct Start<'a> {
    pub(crate) region: &'a RegionName,
    pub(crate) peers: Vec<RegionName>,
    pub(crate) plan: &'a Plan,
    pub(crate) policies: &'a [(CollectionName, Policies)],
    /// What the origins of this process follow from.
    pub(crate) seed: u64,
    pub(crate) booted: Duration,
    pub(crate) now: Now,
}

/// A node that runs; a crash drops it.
pub(crate) struct Process {
    pub(crate) replication: Replication,
    pub(crate) journal: Journal,
    pub(crate) documents: Documents,
    pub(crate) clock: NodeClock,
    pub(crate) clocks: Arc<Clocks>,
    owners: HandOwners,
    published: Arc<Mutex<Vec<Arc<CommitBatch>>>>,
    appended: Arc<Mutex<Vec<Appended>>>,
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) booted: Duration,
    pub(crate) timer: Option<Duration>,
    /// Timeouts in a row that asked for another one at the same moment.
    pub(crate) hurried: u32,
    /// Whether the owners, and the disk, will go on by an event that is scheduled.
    pub(crate) serving: bool,
    pub(crate) committing: bool,
}

/// How an append ended.
pub(crate) type Appended = (Ticket, Option<String>);

/// A request that is under way.
pub(crate) struct Waiting {
    pub(crate) call: CallId,
    pub(crate) asking: Asking,
}

/// The answer of a node to one request, still to come.
pub(crate) type Asking = Pin<Box<dyn Future<Output = Reply>>>;

/// What a node answers.
#[derive(Debug)]
pub(crate) struct Reply {
    /// What a read showed, if it was one.
    pub(crate) outcome: Result<Option<String>, Error>,
    pub(crate) position: Arc<Position>,
}

impl Process {
    /// Starts a node on a disk.
    ///
    /// # Errors
    /// Why the journal cannot be opened; for instance, the power fails again.
    pub(crate) fn start(disk: &SimDisk, file: u64, start: Start<'_>) -> Result<Self, String> {
        let clocks = Arc::new(Clocks::default());
        clocks.set(start.now);
        let (doorbell, queues) = owner_queues(1, start.plan.queue);
        let collections = Collections::new(start.policies.iter().cloned());
        let published: Arc<Mutex<Vec<Arc<CommitBatch>>>> = Arc::default();
        let (heard, settings) = (Arc::clone(&published), collections.clone());
        let publish = move |batch: &Arc<CommitBatch>| {
            settings.committed(batch);
            doorbell.committed(batch);
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(batch));
        };
        let (medium, time) = (disk.clone(), Arc::clone(&clocks));
        let opened = Journal::open_by_hand(
            move || medium.backend(),
            &format!("file {file}"),
            journal_options(&start, publish),
            move || time.monotonic(),
        );
        let journal = opened.map_err(|error| error.to_string())?;
        let clock = node_clock(&clocks, &journal);
        journal.name_origin(journal.origin(), start.region);
        let setting = Setting {
            region: start.region.clone(),
            collections,
            limits: limits(start.plan),
            owners: 1,
            journal: journal.clone(),
            clock: clock.clone(),
        };
        let (documents, owners) = Documents::by_hand(setting, queues);
        let vector = journal.position().borrow().vector.clone();
        let replication = Replication::new(replication_settings(&start, &journal), vector);
        Ok(Self {
            replication,
            journal,
            documents,
            clock,
            clocks,
            owners,
            published,
            appended: Arc::default(),
            waiting: Vec::new(),
            booted: start.booted,
            timer: None,
            hurried: 0,
            serving: false,
            committing: false,
        })
    }

    /// Tells whether neither owners nor disk have anything to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.owners.is_idle() && self.journal.is_idle()
    }

    pub(crate) fn wants_to_serve(&self) -> bool {
        !self.owners.is_idle()
    }

    pub(crate) fn wants_to_commit(&self) -> bool {
        !self.journal.is_idle()
    }

    /// Lets the owner of the documents take its next step.
    pub(crate) fn serve(&mut self) -> bool {
        self.owners.step()
    }

    /// Makes one transaction of what waits for the disk.
    pub(crate) fn commit(&mut self) -> bool {
        self.journal.step()
    }

    /// Takes what has become durable since the last time.
    pub(crate) fn take_published(&self) -> Vec<Arc<CommitBatch>> {
        std::mem::take(&mut *self.published.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes how appends have ended since the last time.
    pub(crate) fn take_appended(&self) -> Vec<Appended> {
        std::mem::take(&mut *self.appended.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has entries of other origins stored.
    pub(crate) fn append(&self, ticket: Ticket, entries: Vec<Entry>) {
        let appended = Arc::clone(&self.appended);
        let commit = Commit::of_entries(entries, move |outcome| {
            let error = outcome.err().map(|error| error.to_string());
            appended.lock().unwrap_or_else(PoisonError::into_inner).push((ticket, error));
        });
        // It is answered in any case.
        let _ = self.journal.submit_blocking(commit);
    }

    /// Takes a new origin.
    ///
    /// # Errors
    /// The disk does not take it.
    pub(crate) fn renew_origin(&mut self) -> Result<Origin, String> {
        let identity = self.journal.renew_origin().map_err(|error| error.to_string())?;
        self.journal.name_origin(identity.origin, &identity.region);
        Ok(identity.origin)
    }

    /// Lets the clock be judged by those of the other regions.
    pub(crate) fn judge_clock(&self, now: Now) {
        let peers = self.replication.status(now);
        let clock = |peer: &PeerStatus| (peer.region.clone(), peer.clock);
        let clocks: Vec<PeerClock> = peers.iter().map(clock).collect();
        self.clock.judge(&clocks, now.monotonic);
    }

    /// Returns the answers that have come.
    pub(crate) fn poll(&mut self) -> Vec<(CallId, Reply)> {
        let mut context = Context::from_waker(Waker::noop());
        let mut replies = Vec::new();
        self.waiting.retain_mut(|waiting| match waiting.asking.as_mut().poll(&mut context) {
            Poll::Ready(reply) => {
                replies.push((waiting.call, reply));
                false
            }
            Poll::Pending => true,
        });
        replies
    }

    /// Drives a request to its end at once, outside of virtual time.
    pub(crate) fn finish<T>(&mut self, asking: impl Future<Output = T>) -> Option<T> {
        let mut asking = Box::pin(asking);
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..MAX_STEPS {
            if let Poll::Ready(value) = asking.as_mut().poll(&mut context) {
                return Some(value);
            }
            self.owners.step();
            self.journal.step();
        }
        None
    }

    /// Returns what is durable here, as the node says.
    pub(crate) fn position(&self) -> Arc<Position> {
        self.documents.position()
    }

    pub(crate) fn reach(&self) -> Reach {
        reach(&self.position())
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("booted", &self.booted).finish_non_exhaustive()
    }
}

impl Node {
    pub(crate) fn new(id: NodeId, seed: u64, skew: i64) -> Self {
        Self {
            region: id.to_string().parse().expect("the name of a simulated region is sound"),
            disk: SimDisk::new(seed),
            file: 0,
            image: None,
            process: None,
            life: 0,
            skew,
        }
    }
}

/// How far a position reaches, as plain numbers.
pub(crate) fn reach(position: &Position) -> Reach {
    position.vector.iter().map(|dot| (dot.origin.0.as_u128(), dot.sequence.0)).collect()
}

/// The own entries of batches.
pub(crate) fn local(batches: &[Arc<CommitBatch>]) -> Vec<Entry> {
    let entries = batches.iter().flat_map(|batch| &batch.entries);
    let own = entries.filter(|(source, _)| *source == Source::Local);
    own.map(|(_, entry)| entry.clone()).collect()
}

fn journal_options(
    start: &Start<'_>,
    publish: impl FnMut(&Arc<CommitBatch>) + Send + 'static,
) -> JournalOptions {
    let mut rng = ChaCha8Rng::seed_from_u64(start.seed);
    let region = start.region.clone();
    JournalOptions {
        cluster: ClusterId(Uuid::from_u128(1)),
        region: region.clone(),
        cache_bytes: PAGE_CACHE,
        new_origin: Box::new(move || Origin::of_region(&region, rng.random())),
        publish: Box::new(publish),
    }
}

fn node_clock(clocks: &Arc<Clocks>, journal: &Journal) -> NodeClock {
    let (wall, monotonic) = (Arc::clone(clocks), Arc::clone(clocks));
    let wall = Arc::new(move || wall.wall());
    let clock = NodeClock::new(wall, journal.clock_floor(), Limits::default().clock_skew);
    let clock = clock.timed_by(Arc::new(move || monotonic.monotonic()));
    clock.observe(journal.latest_admission());
    clock
}

fn limits(plan: &Plan) -> Limits {
    Limits {
        frame_bytes: plan.frame_bytes.max(SMALLEST_FRAME),
        batch_entries: plan.batch_entries,
        queue: plan.queue,
        cache_bytes: plan.cache_bytes,
        ..Limits::default()
    }
}

fn replication_settings(start: &Start<'_>, journal: &Journal) -> ReplicationSettings {
    let named = |(origin, region): (Origin, Option<RegionName>)| Some((origin, region?));
    ReplicationSettings {
        names: journal.origins().into_iter().filter_map(named).collect(),
        region: start.region.clone(),
        origin: journal.origin(),
        peers: start.peers.clone(),
        frame_bytes: start.plan.frame_bytes,
        batch_entries: start.plan.batch_entries,
        digest_interval: start.plan.interval,
    }
}

/// Bytes of redb's page cache.
const PAGE_CACHE: usize = 1 << 20;

/// What clients may write follows from the frame, and it must not become the test.
const SMALLEST_FRAME: usize = 64 * 1024;

/// Steps after which a request that has no answer will not get one.
const MAX_STEPS: usize = 10_000;
