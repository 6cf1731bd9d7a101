//! The driver of the replication state machine: gives it what happens on links, in the journal
//! and on the clocks, and does what it asks for.
//!
//! It never waits for the journal itself: appends go to a task of their own, in order, and reads
//! to a few blocking threads, so frames and timers are served while the disk works. While too
//! many of either are under way it takes no further frames, which slows the senders down.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anabranch_crdt::entry::Entry;
use anabranch_crdt::ids::{Origin, RegionName, Sequence};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};
use tracing::Instrument;

use super::commits::{CommitReceiver, News};
use super::link::{LinkEvent, LinkHandle};
use super::refusal::CloseCode;
use super::{TransportHooks, TransportSettings, pass_on_panic};

use crate::error::{Error, ErrorKind};
use crate::journal::{Commit, CommitError, Identity, Journal};
use crate::replication::{
    ClusterView, Effect, Input, LinkId, Now, PeerStatus, Replication, ReplicationSettings, Ticket,
};

/// Owns the state machine.
pub(crate) struct Driver {
    replication: Replication,
    journal: Journal,
    commits: CommitReceiver,
    hooks: TransportHooks,
    links: BTreeMap<LinkId, LinkHandle>,
    /// Why the last attempt to reach a region failed, as long as it is not connected.
    failures: BTreeMap<RegionName, String>,
    appends: Appends,
    reads: Reads,
    effects: Vec<Effect>,
    status: watch::Sender<Arc<Vec<PeerStatus>>>,
    cluster: watch::Sender<Arc<ClusterView>>,
    /// What of the knowledge of the state machine is published.
    knowledge: u64,
    began: Instant,
}

/// What a driver publishes.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) status: watch::Receiver<Arc<Vec<PeerStatus>>>,
    pub(crate) cluster: watch::Receiver<Arc<ClusterView>>,
}

/// An answer to an effect.
#[derive(Debug)]
enum Done {
    Appended { ticket: Ticket, error: Option<String> },
    Read { ticket: Ticket, entries: Vec<Entry> },
    Renewed(Result<Identity, CommitError>),
}

impl Driver {
    /// Makes a driver, and the receivers of what it knows of the regions.
    pub(crate) fn new(
        settings: &TransportSettings,
        journal: Journal,
        mut commits: CommitReceiver,
        hooks: TransportHooks,
    ) -> (Self, Published) {
        // What was committed before now is no news; but the position may not yet say so.
        let mut vector = journal.position().borrow().vector.clone();
        while let Some(news) = commits.try_next() {
            vector.merge(&news.vector);
        }
        let replication = Replication::new(replication_settings(settings, &journal), vector);
        let (status, statuses) = watch::channel(Arc::default());
        let (cluster, clusters) = watch::channel(Arc::default());
        let mut driver = Self {
            replication,
            appends: Appends::new(journal.clone()),
            reads: Reads::new(journal.clone()),
            journal,
            commits,
            hooks,
            links: BTreeMap::new(),
            failures: BTreeMap::new(),
            effects: Vec::new(),
            status,
            cluster,
            knowledge: 0,
            began: Instant::now(),
        };
        // The peers are known before the first tick, linked or not.
        driver.publish_status();
        driver.publish_cluster();
        (driver, Published { status: statuses, cluster: clusters })
    }

    /// Runs until the journal or the link layer is gone.
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<LinkEvent>) -> Result<(), Error> {
        let mut ticks = ticks();
        loop {
            let deadline = self.deadline();
            let takes_frames = self.takes_frames();
            tokio::select! {
                news = self.commits.next() => self.on_news(news.ok_or_else(closed)?),
                done = self.appends.next() => self.on_done(done)?,
                Some(done) = self.reads.next() => self.on_done(done)?,
                event = events.recv(), if takes_frames => self.on_event(event.ok_or_else(closed)?),
                () = sleep_until(deadline.unwrap_or(self.began)), if deadline.is_some() => {
                    self.handle(Input::Timeout);
                }
                _ = ticks.tick() => self.publish_status(),
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.replication.poll_timeout().map(|timeout| self.began + timeout)
    }

    fn takes_frames(&self) -> bool {
        self.appends.under_way < BUSY_APPENDS && self.reads.waiting.len() < BUSY_READS
    }

    fn on_news(&mut self, news: News) {
        self.handle(Input::Committed { local: news.local, vector: news.vector });
    }

    fn on_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up { region, link } => {
                let id = link.id();
                self.links.insert(id, link);
                self.failures.remove(&region);
                self.handle(Input::Connected { link: id, region });
                self.publish_status();
            }
            LinkEvent::Frame { link, bytes, credit } => {
                self.handle(Input::Frame { link, bytes });
                drop(credit);
            }
            LinkEvent::Down { link, reason } => {
                self.links.remove(&link);
                self.handle(Input::Disconnected { link, reason });
                self.publish_status();
            }
            LinkEvent::Failed { region, reason } => {
                self.failures.insert(region, reason);
            }
        }
    }

    fn on_done(&mut self, done: Done) -> Result<(), Error> {
        match done {
            Done::Appended { ticket, error } => {
                // The state machine wants to hear of the commit first.
                while let Some(news) = self.commits.try_next() {
                    self.on_news(news);
                }
                self.handle(Input::Appended { ticket, error });
            }
            Done::Read { ticket, entries } => self.handle(Input::Read { ticket, entries }),
            Done::Renewed(renewed) => {
                let identity = renewed.map_err(|error| no_origin(&error))?;
                (self.hooks.origin_renewed)(&identity);
                self.handle(Input::Renewed { origin: identity.origin });
            }
        }
        Ok(())
    }

    fn handle(&mut self, input: Input) {
        let mut effects = std::mem::take(&mut self.effects);
        self.replication.handle(input, self.now(), &mut effects);
        for effect in effects.drain(..) {
            self.execute(effect);
        }
        self.effects = effects;
        if self.replication.knowledge() != self.knowledge {
            self.publish_cluster();
        }
    }

    /// Publishes what is known of the regions: at once, because writes wait for it.
    fn publish_cluster(&mut self) {
        self.knowledge = self.replication.knowledge();
        let view = self.replication.cluster(self.now());
        self.cluster.send_replace(Arc::new(view));
    }

    fn execute(&mut self, effect: Effect) {
        match effect {
            // A link may have gone in the meantime; its end is told, or has been.
            Effect::Send { link, bytes, lane: _ } => {
                if let Some(link) = self.links.get(&link) {
                    link.send(bytes);
                }
            }
            Effect::Close { link, reason } => {
                if let Some(link) = self.links.get(&link) {
                    link.close(CloseCode::Protocol, &reason);
                }
            }
            Effect::Append { ticket, entries } => self.appends.start(ticket, entries),
            Effect::Read { ticket, origin, after, entries, bytes } => {
                self.reads.start(Read { ticket, origin, after, entries, bytes });
            }
            Effect::NameOrigin { origin, region } => self.journal.name_origin(origin, &region),
            Effect::ObserveClock { seen } => (self.hooks.observe_clock)(seen),
            Effect::RenewOrigin => self.reads.renew_origin(),
        }
    }

    fn publish_status(&self) {
        let now = self.now();
        let mut peers = self.replication.status(now);
        (self.hooks.judge_clock)(&peers, now.monotonic);
        for peer in peers.iter_mut().filter(|peer| !peer.connected) {
            if let Some(failure) = self.failures.get(&peer.region) {
                peer.last_error = Some(failure.clone());
            }
        }
        self.status.send_if_modified(|published| {
            let changed = **published != peers;
            if changed {
                *published = Arc::new(peers);
            }
            changed
        });
    }

    fn now(&self) -> Now {
        Now { monotonic: self.began.elapsed(), wall: (self.hooks.wall)() }
    }
}

/// Appends to the journal, in the order in which they were asked for.
struct Appends {
    requests: mpsc::Sender<(Ticket, Vec<Entry>)>,
    /// Keeps `done` open.
    _answers: mpsc::Sender<Done>,
    done: mpsc::Receiver<Done>,
    under_way: usize,
    refused: VecDeque<Ticket>,
    /// Owns the task that submits.
    task: JoinSet<()>,
}

impl Appends {
    fn new(journal: Journal) -> Self {
        let (requests, queue) = mpsc::channel(MAX_APPENDS);
        let (answers, done) = mpsc::channel(MAX_APPENDS);
        let mut task = JoinSet::new();
        task.spawn(submit_all(journal, queue, answers.clone()).in_current_span());
        Self { requests, _answers: answers, done, under_way: 0, refused: VecDeque::new(), task }
    }

    fn start(&mut self, ticket: Ticket, entries: Vec<Entry>) {
        let room = self.under_way < MAX_APPENDS;
        if room && self.requests.try_send((ticket, entries)).is_ok() {
            self.under_way += 1;
        } else {
            self.refused.push_back(ticket);
        }
    }

    async fn next(&mut self) -> Done {
        if let Some(ticket) = self.refused.pop_front() {
            let error = Some("too many appends at once, or the journal is closed".to_owned());
            return Done::Appended { ticket, error };
        }
        tokio::select! {
            biased;
            Some(done) = self.done.recv() => {
                self.under_way = self.under_way.saturating_sub(1);
                done
            }
            Some(ended) = self.task.join_next() => {
                pass_on_panic(ended);
                // It ends only with this driver.
                std::future::pending().await
            }
        }
    }
}

async fn submit_all(
    journal: Journal,
    mut queue: mpsc::Receiver<(Ticket, Vec<Entry>)>,
    answers: mpsc::Sender<Done>,
) {
    while let Some((ticket, entries)) = queue.recv().await {
        let answer = Answer::new(ticket, answers.clone());
        let commit = Commit::of_entries(entries, move |outcome| {
            answer.give(outcome.err().map(|error| error.to_string()));
        });
        // `done` is called in any case.
        let _ = journal.submit(commit).await;
    }
}

/// Answers an append exactly once, even when whoever should answer it is gone.
struct Answer {
    ticket: Ticket,
    error: Option<String>,
    answers: mpsc::Sender<Done>,
}

impl Answer {
    fn new(ticket: Ticket, answers: mpsc::Sender<Done>) -> Self {
        Self { ticket, error: Some("the journal is closed".to_owned()), answers }
    }

    fn give(mut self, error: Option<String>) {
        self.error = error;
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let done = Done::Appended { ticket: self.ticket, error: self.error.take() };
        if self.answers.try_send(done).is_err() {
            // The queue has room for every append that may be under way: the driver is gone.
            tracing::debug!("an append ended after its driver");
        }
    }
}

/// Reads of the journal, a few at a time.
struct Reads {
    journal: Journal,
    running: JoinSet<Done>,
    waiting: VecDeque<Read>,
}

struct Read {
    ticket: Ticket,
    origin: Origin,
    after: Sequence,
    entries: usize,
    bytes: usize,
}

impl Reads {
    fn new(journal: Journal) -> Self {
        Self { journal, running: JoinSet::new(), waiting: VecDeque::new() }
    }

    fn start(&mut self, read: Read) {
        self.waiting.push_back(read);
        self.fill();
    }

    fn fill(&mut self) {
        while self.running.len() < RUNNING_READS {
            let Some(read) = self.waiting.pop_front() else { return };
            let journal = self.journal.clone();
            self.running.spawn_blocking(move || read.run(&journal));
        }
    }

    fn renew_origin(&mut self) {
        let journal = self.journal.clone();
        self.running.spawn_blocking(move || Done::Renewed(journal.renew_origin()));
    }

    async fn next(&mut self) -> Option<Done> {
        let ended: Result<Done, JoinError> = self.running.join_next().await?;
        self.fill();
        match ended {
            Ok(done) => Some(done),
            Err(error) => {
                pass_on_panic(Err(error));
                None
            }
        }
    }
}

impl Read {
    fn run(self, journal: &Journal) -> Done {
        let read = journal.entries(self.origin, self.after, self.entries, self.bytes);
        let entries = read.unwrap_or_else(|error| {
            tracing::error!(origin = %self.origin, after = %self.after, "entries lost: {error}");
            Vec::new()
        });
        Done::Read { ticket: self.ticket, entries }
    }
}

fn replication_settings(settings: &TransportSettings, journal: &Journal) -> ReplicationSettings {
    let named = |(origin, region): (Origin, Option<RegionName>)| Some((origin, region?));
    ReplicationSettings {
        names: journal.origins().into_iter().filter_map(named).collect(),
        region: settings.region.clone(),
        origin: journal.origin(),
        peers: settings.peers.keys().cloned().collect(),
        frame_bytes: settings.frame_bytes,
        batch_entries: settings.batch_entries,
        digest_interval: settings.digest_interval,
    }
}

fn ticks() -> Interval {
    let mut ticks = interval(STATUS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "journal_closed", "the journal or the link layer is closed")
}

fn no_origin(error: &CommitError) -> Error {
    let message = format!("this node cannot take a new origin: {error}");
    Error::new(ErrorKind::Unavailable, "origin_not_renewed", message)
}

/// Appends that can be under way, and answers that can wait; more are refused at once.
const MAX_APPENDS: usize = 256;

/// From so many appends on, frames wait.
const BUSY_APPENDS: usize = 64;

/// Reads at once; each holds one batch in memory.
const RUNNING_READS: usize = 4;

/// From so many waiting reads on, frames wait; a waiting read is a few words.
const BUSY_READS: usize = 64;

/// How often what is known of the peers is published.
const STATUS_INTERVAL: Duration = Duration::from_millis(200);
