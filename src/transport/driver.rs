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
use anabranch_crdt::ids::{BootId, DocumentId, Origin, RegionName, Sequence};
use anabranch_crdt::version::VersionVector;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};
use tracing::Instrument;

use super::commits::{CommitReceiver, News};
use super::link::{Credit, LinkEvent, LinkHandle};
use super::questions::{Asker, Questions, questions};
use super::reconciling::Reconciling;
use super::refusal::CloseCode;
use super::replicas::Replicas;
use super::{TransportHooks, TransportSettings, pass_on_panic};

use crate::document::Documents;
use crate::error::{Error, ErrorKind};
use crate::journal::{self, Commit, CommitError, Identity, Journal, ReadError, Row, Start};
use crate::replication::reconcile::{ReconcileInput, ReconcileStatus};
use crate::replication::{
    ClusterView, Effect, Incarnation, Input, LinkId, MemberAct, Members, Now, PeerStatus,
    Replication, ReplicationSettings, SteerError, Ticket, Traffic,
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
    questions: Questions,
    /// The member table, as the link layer and everybody else follow it.
    table: watch::Sender<Arc<Members>>,
    storing: Storing,
    reconciling: Reconciling,
    /// What operators ask of reconciliation.
    requests: mpsc::Receiver<ReconcileInput>,
    floors: VersionVector,
    /// When damaged documents were told of.
    damage_told: Instant,
    /// Told when a link has room for what is read for it.
    room: Arc<Notify>,
    /// What links may not receive yet, because they have asked for too much.
    held: BTreeMap<LinkId, Vec<Credit>>,
    /// What the last link to each region has carried.
    traffic: BTreeMap<RegionName, Traffic>,
    effects: Vec<Effect>,
    status: watch::Sender<Arc<Vec<PeerStatus>>>,
    cluster: watch::Sender<Arc<ClusterView>>,
    reconciliation: watch::Sender<Arc<ReconcileStatus>>,
    /// What of the knowledge of the state machine is published.
    knowledge: u64,
    began: Instant,
}

/// What an operator wants done to a member.
#[derive(Debug)]
pub(crate) struct Steering {
    pub(crate) region: RegionName,
    pub(crate) act: MemberAct,
    pub(crate) reply: oneshot::Sender<Result<(), Error>>,
}

/// How the storing of the member table stands: one write at a time, the newest table always.
#[derive(Debug, Default)]
struct Storing {
    under_way: bool,
    /// Whether the table has changed since the write under way began.
    stale: bool,
    /// Who waits for the write under way, and for the one after it.
    waiting: Vec<oneshot::Sender<Result<(), Error>>>,
    next: Vec<oneshot::Sender<Result<(), Error>>>,
}

/// What a driver publishes.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) status: watch::Receiver<Arc<Vec<PeerStatus>>>,
    pub(crate) cluster: watch::Receiver<Arc<ClusterView>>,
    pub(crate) asker: Asker,
    /// The monotonic clock of the view is counted from here.
    pub(crate) began: Instant,
    pub(crate) replicas: Replicas,
}

/// An answer to an effect.
#[derive(Debug)]
enum Done {
    Appended { ticket: Ticket, error: Option<String> },
    Read { ticket: Ticket, entries: Vec<Entry> },
    Renewed(Result<Identity, CommitError>),
    Stored(Result<(), String>),
    Vouched { ticket: Ticket, error: Option<String> },
}

impl Driver {
    /// Makes a driver, and the receivers of what it knows of the regions.
    pub(crate) fn new(
        settings: &TransportSettings,
        journal: Journal,
        mut commits: CommitReceiver,
        hooks: TransportHooks,
        (table, room): (watch::Sender<Arc<Members>>, Arc<Notify>),
    ) -> (Self, Published) {
        // What was committed before now is no news; but the position may not yet say so.
        let mut vector = journal.position().borrow().vector.clone();
        while let Some(news) = commits.try_next() {
            vector.merge(&news.vector);
        }
        let members = Members::clone(&table.borrow());
        let replication = replication_settings(settings, &journal);
        let replication = Replication::with_members(replication, vector, members);
        let (status, statuses) = watch::channel(Arc::default());
        let (cluster, clusters) = watch::channel(Arc::default());
        let (asker, questions) = questions();
        let began = Instant::now();
        let (reconciliation, reconciliations) = watch::channel(Arc::default());
        let (requests_sender, requests) = mpsc::channel(MAX_REQUESTS);
        let mut driver = Self {
            replication,
            reconciling: Reconciling::new(journal.clone(), hooks.documents.clone()),
            requests,
            floors: VersionVector::new(),
            damage_told: Instant::now(),
            reconciliation,
            appends: Appends::new(journal.clone()),
            reads: Reads::new(journal.clone()),
            journal,
            commits,
            hooks,
            links: BTreeMap::new(),
            failures: BTreeMap::new(),
            questions,
            room,
            held: BTreeMap::new(),
            traffic: BTreeMap::new(),
            effects: Vec::new(),
            status,
            cluster,
            table,
            storing: Storing::default(),
            knowledge: 0,
            began,
        };
        // The peers are known before the first tick, linked or not.
        driver.publish_status();
        driver.publish_cluster();
        (driver.hooks.standing)(driver.replication.members());
        driver.tell_floors();
        let replicas = Replicas {
            cluster: clusters.clone(),
            reconciliation: reconciliations,
            requests: requests_sender,
        };
        let published = Published { status: statuses, cluster: clusters, replicas, asker, began };
        (driver, published)
    }

    /// Runs until the journal or the link layer is gone.
    pub(crate) async fn run(
        mut self,
        mut events: mpsc::Receiver<LinkEvent>,
        mut steering: mpsc::Receiver<Steering>,
    ) -> Result<(), Error> {
        let mut ticks = ticks();
        self.store_members();
        loop {
            let deadline = self.deadline();
            tokio::select! {
                news = self.commits.next() => self.on_news(news.ok_or_else(closed)?),
                done = self.appends.next() => self.on_done(done)?,
                Some(done) = self.reads.next() => self.on_done(done)?,
                Some(question) = self.questions.next() => {
                    self.questions.take(question);
                    self.ask_questions();
                }
                Some(input) = self.reconciling.next() => self.on_reconciled(input),
                Some(input) = self.requests.recv() => self.handle(Input::Reconcile(input)),
                event = events.recv() => self.on_event(event.ok_or_else(closed)?),
                () = sleep_until(deadline.unwrap_or(self.began)), if deadline.is_some() => {
                    self.hear_commits();
                    self.handle(Input::Timeout);
                }
                () = self.room.notified() => self.start_reads(),
                Some(steering) = steering.recv() => self.on_steering(steering),
                _ = ticks.tick() => self.on_tick(),
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.replication.poll_timeout().map(|timeout| self.began + timeout)
    }

    /// Starts the reads whose links have room for what they bring, and lets those links go on
    /// whose peers had asked for too many.
    fn start_reads(&mut self) {
        let links = &self.links;
        self.reads.fill(|link| links.get(&link).map(LinkHandle::has_room));
        let reads = &self.reads;
        self.held.retain(|link, _| reads.waiting_for(*link) >= BUSY_READS);
    }

    fn on_tick(&mut self) {
        self.tell_floors();
        self.publish_status();
        self.publish_reconciliation();
        if self.damage_told.elapsed() >= DAMAGE_INTERVAL {
            self.damage_told = Instant::now();
            self.tell_damage();
        }
    }

    fn publish_reconciliation(&self) {
        let status = self.replication.reconciliation(self.now());
        self.reconciliation.send_if_modified(|published| {
            let changed = **published != status;
            if changed {
                *published = Arc::new(status);
            }
            changed
        });
    }

    /// Tells the state machine which own documents cannot be read: other regions have them whole.
    fn tell_damage(&mut self) {
        let damaged = self.hooks.documents.as_ref().map(Documents::damaged).unwrap_or_default();
        let documents: Vec<DocumentId> = damaged.iter().map(|damaged| damaged.document).collect();
        if !documents.is_empty() {
            self.handle(Input::Reconcile(ReconcileInput::Damaged { documents }));
        }
    }

    /// Tells the state machine how far back the own log goes, if that has changed.
    fn tell_floors(&mut self) {
        let floors = self.journal.floors();
        if floors != self.floors {
            self.floors.clone_from(&floors);
            self.handle(Input::Reconcile(ReconcileInput::Floors { floors }));
        }
    }

    fn on_reconciled(&mut self, input: ReconcileInput) {
        if let ReconcileInput::Raised { .. } = input {
            // The state machine wants to hear first of what it raised.
            self.tell_floors();
            let vector = self.journal.position().borrow().vector.clone();
            self.handle(Input::Committed { local: Vec::new(), vector });
        }
        let raised = matches!(input, ReconcileInput::Raised { .. });
        self.handle(Input::Reconcile(input));
        if raised {
            self.publish_reconciliation();
        }
    }

    fn on_news(&mut self, news: News) {
        self.handle(Input::Committed { local: news.local, vector: news.vector });
    }

    /// Takes all news of commits. What a node says to have at a moment must include whatever it
    /// had acknowledged to anyone before.
    fn hear_commits(&mut self) {
        while let Some(news) = self.commits.try_next() {
            self.on_news(news);
        }
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
                self.hear_commits();
                self.handle(Input::Frame { link, bytes });
                // The peer that asks for more than is read for it waits, and no other one.
                if self.reads.waiting_for(link) >= BUSY_READS {
                    self.held.entry(link).or_default().push(credit);
                }
            }
            LinkEvent::Down { link, reason } => {
                self.links.remove(&link);
                self.held.remove(&link);
                self.handle(Input::Disconnected { link, reason });
                self.publish_status();
            }
            LinkEvent::Failed { region, reason } => {
                self.failures.insert(region, reason);
            }
            LinkEvent::Joining { member, decided } => {
                tracing::info!(region = %member.region, "a region asks to join");
                self.handle(Input::Joining { member });
                drop(decided);
            }
            LinkEvent::Told { by, members, heard } => {
                self.handle(Input::Told { by, members });
                drop(heard);
            }
        }
    }

    fn on_done(&mut self, done: Done) -> Result<(), Error> {
        match done {
            Done::Appended { ticket, error } => {
                // The state machine wants to hear of the commit first.
                self.hear_commits();
                self.handle(Input::Appended { ticket, error });
            }
            Done::Read { ticket, entries } => {
                self.handle(Input::Read { ticket, entries });
                self.start_reads();
            }
            Done::Renewed(renewed) => {
                let identity = renewed.map_err(|error| no_origin(&error))?;
                (self.hooks.origin_renewed)(&identity);
                let after = self.journal.chains().after(identity.origin).to_vec();
                self.handle(Input::Renewed { origin: identity.origin, after });
            }
            Done::Stored(stored) => self.on_stored(stored),
            Done::Vouched { ticket, error } => self.handle(Input::Vouched { ticket, error }),
        }
        Ok(())
    }

    fn on_steering(&mut self, steering: Steering) {
        let Steering { region, act, reply } = steering;
        if let Err(error) = self.replication.members().judge(&region, act) {
            // Whoever asked may have gone; then nobody is told.
            return drop(reply.send(Err(not_steered(&error))));
        }
        self.storing.next.push(reply);
        self.handle(Input::Steer { region, act });
        self.store_members();
    }

    /// Follows a change of the member table: tells it here, and stores it.
    fn on_members(&mut self, members: Arc<Members>) {
        tracing::info!(%members, "the member table has changed");
        (self.hooks.standing)(&members);
        self.table.send_replace(members);
        self.publish_status();
        self.store_members();
    }

    fn store_members(&mut self) {
        self.storing.stale = self.storing.under_way;
        if !self.storing.under_way {
            self.storing.under_way = true;
            self.storing.waiting = std::mem::take(&mut self.storing.next);
            self.reads.store_members(self.replication.members().encode());
        }
    }

    fn on_stored(&mut self, stored: Result<(), String>) {
        self.storing.under_way = false;
        if let Err(error) = &stored {
            tracing::error!("the member table cannot be stored: {error}");
        }
        for waiting in self.storing.waiting.drain(..) {
            let outcome = stored.clone().map_err(|error| {
                let message = format!("the member table cannot be stored: {error}");
                Error::new(ErrorKind::Unavailable, "journal_cannot_write", message)
            });
            // Whoever asked may have gone.
            drop(waiting.send(outcome));
        }
        if self.storing.stale || !self.storing.next.is_empty() {
            self.store_members();
        }
    }

    fn handle(&mut self, input: Input) {
        self.step(input);
        self.ask_questions();
        if self.replication.knowledge() != self.knowledge {
            self.publish_cluster();
        }
    }

    fn ask_questions(&mut self) {
        while let Some(input) = self.questions.start() {
            self.step(input);
        }
    }

    fn step(&mut self, input: Input) {
        let mut effects = std::mem::take(&mut self.effects);
        self.replication.handle(input, self.now(), &mut effects);
        for effect in effects.drain(..) {
            self.execute(effect);
        }
        self.effects = effects;
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
            Effect::Send { link, bytes, lane } => {
                if let Some(link) = self.links.get(&link) {
                    link.send(bytes, lane);
                }
            }
            Effect::Close { link, reason } => {
                if let Some(link) = self.links.get(&link) {
                    link.close(CloseCode::Protocol, &reason);
                }
            }
            Effect::Append { ticket, entries } => self.appends.start(ticket, entries),
            Effect::Read { ticket, link, origin, after, entries, bytes } => {
                self.reads.add(Read { ticket, link, origin, after, entries, bytes });
                self.start_reads();
            }
            Effect::NameOrigin { origin, region, after } => {
                self.journal.name_chained(origin, &region, after);
            }
            Effect::ObserveClock { seen } => (self.hooks.observe_clock)(seen),
            Effect::Asked { ticket, vector } => self.questions.answer(ticket, &vector),
            Effect::Members { members } => self.on_members(members),
            Effect::RenewOrigin { reason } => self.renew_origin(&reason),
            Effect::ConfirmOrigin => {
                tracing::info!(origin = %self.journal.origin(), "every region confirms the origin");
                self.journal.settle();
            }
            Effect::Vouch { ticket, origin, boot } => self.reads.vouch(ticket, origin, boot),
            Effect::Reconcile(effect) => self.reconciling.start(effect),
        }
    }

    /// Admits nothing more under the present origin, and has a new one taken.
    fn renew_origin(&mut self, reason: &str) {
        self.journal.hold();
        tracing::warn!(
            origin = %self.journal.origin(),
            reason,
            "this node takes a new origin, and what its peers have of the old one comes back by \
             itself; nothing is to be done, unless two nodes run for this region: then stop one"
        );
        self.reads.renew_origin();
    }

    fn publish_status(&mut self) {
        let now = self.now();
        let mut peers = self.replication.status(now);
        self.note_traffic(&mut peers);
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

    /// Adds what the links carry; of a link that is gone, what it had carried.
    fn note_traffic(&mut self, peers: &mut [PeerStatus]) {
        for link in self.links.values() {
            self.traffic.insert(link.region().clone(), link.traffic());
        }
        for peer in peers {
            let seen = self.traffic.get(&peer.region).copied().unwrap_or_default();
            let gone = Traffic { fresh_waiting: 0, bulk_waiting: 0, round_trip: None, ..seen };
            peer.traffic = if peer.connected { seen } else { gone };
        }
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
    link: LinkId,
    origin: Origin,
    after: Sequence,
    entries: usize,
    bytes: usize,
}

impl Reads {
    fn new(journal: Journal) -> Self {
        Self { journal, running: JoinSet::new(), waiting: VecDeque::new() }
    }

    fn add(&mut self, read: Read) {
        self.waiting.push_back(read);
    }

    fn waiting_for(&self, link: LinkId) -> usize {
        self.waiting.iter().filter(|read| read.link == link).count()
    }

    /// Starts reads of links that have room, the oldest first, and drops those of links that are
    /// gone, which nobody waits for any more.
    fn fill(&mut self, has_room: impl Fn(LinkId) -> Option<bool>) {
        self.waiting.retain(|read| has_room(read.link).is_some());
        while self.running.len() < RUNNING_READS
            && let Some(place) =
                self.waiting.iter().position(|read| has_room(read.link) == Some(true))
            && let Some(read) = self.waiting.remove(place)
        {
            let journal = self.journal.clone();
            self.running.spawn_blocking(move || read.run(&journal));
        }
    }

    fn renew_origin(&mut self) {
        let journal = self.journal.clone();
        self.running.spawn_blocking(move || Done::Renewed(journal.renew_origin()));
    }

    fn store_members(&mut self, table: Vec<u8>) {
        let journal = self.journal.clone();
        self.running.spawn(async move { Done::Stored(store(&journal, table).await) });
    }

    fn vouch(&mut self, ticket: Ticket, origin: Origin, boot: BootId) {
        let journal = self.journal.clone();
        self.running.spawn_blocking(move || {
            let error = journal.vouch(origin, boot).err().map(|error| error.to_string());
            Done::Vouched { ticket, error }
        });
    }

    async fn next(&mut self) -> Option<Done> {
        let ended: Result<Done, JoinError> = self.running.join_next().await?;
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
            let (origin, after) = (self.origin, self.after);
            match error {
                // The log was swept since; the floors say so to whoever asks again.
                ReadError::TooOld { .. } => tracing::debug!(%origin, %after, "{error}"),
                ReadError::Corrupt { .. } | ReadError::Storage(_) => {
                    tracing::error!(%origin, %after, "entries lost: {error}");
                }
            }
            Vec::new()
        });
        Done::Read { ticket: self.ticket, entries }
    }
}

async fn store(journal: &Journal, table: Vec<u8>) -> Result<(), String> {
    let (done, stored) = oneshot::channel();
    let commit = Commit::of_rows(vec![Row::Members(table.into())], move |outcome| {
        // The node stops if nobody waits any more.
        drop(done.send(outcome.err().map_or(Ok(()), |error| Err(error.to_string()))));
    });
    let closed = |_| "the journal is closed".to_owned();
    // `done` is called in any case.
    let _ = journal.submit(commit).await;
    stored.await.map_err(closed)?
}

fn replication_settings(settings: &TransportSettings, journal: &Journal) -> ReplicationSettings {
    let named = |(origin, region): (Origin, Option<RegionName>)| Some((origin, region?));
    ReplicationSettings {
        packing: settings.packing,
        names: journal.origins().into_iter().filter_map(named).collect(),
        incarnation: incarnation(settings, journal),
        region: settings.region.clone(),
        origin: journal.origin(),
        peers: settings.regions.iter().map(|region| region.name.clone()).collect(),
        frame_bytes: settings.filled_frame(),
        batch_entries: settings.batch_entries,
        digest_interval: settings.digest_interval,
        reconcile: settings.reconcile.clone(),
    }
}

/// What the state machine has to know of this process; one that is held has to be confirmed.
fn incarnation(settings: &TransportSettings, journal: &Journal) -> Incarnation {
    let journal::Incarnation { boot, start } = journal.incarnation();
    let before = match start {
        Start::Kept { before } if !journal.is_settled() => Some(before),
        Start::Kept { .. } | Start::Fresh | Start::Broken => None,
    };
    Incarnation {
        boot,
        before,
        vouched: journal.vouched(),
        chains: journal.chains(),
        settle_within: settings.settle_within,
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

fn not_steered(error: &SteerError) -> Error {
    let (kind, code) = match error {
        SteerError::Unknown(_) => (ErrorKind::NotFound, "unknown_region"),
        SteerError::Last(_) => (ErrorKind::Conflict, "last_region"),
        SteerError::Gone(..) => (ErrorKind::Conflict, "region_gone"),
        SteerError::Own(_) => (ErrorKind::Conflict, "own_region"),
    };
    Error::new(kind, code, error.to_string())
}

fn no_origin(error: &CommitError) -> Error {
    let message = format!("this node cannot take a new origin: {error}");
    Error::new(ErrorKind::Unavailable, "origin_not_renewed", message)
}

/// Appends that can be under way, and answers that can wait; more are refused at once.
const MAX_APPENDS: usize = 256;

/// Reads at once; each holds one batch in memory.
const RUNNING_READS: usize = 4;

/// From so many waiting reads of one link on, its frames wait: more than an honest peer asks for.
const BUSY_READS: usize = 16;

/// Requests of operators that wait; more wait with whoever asks.
const MAX_REQUESTS: usize = 16;

/// How often damaged documents are told of, as long as there are any.
const DAMAGE_INTERVAL: Duration = Duration::from_secs(10);

/// How often what is known of the peers is published.
const STATUS_INTERVAL: Duration = Duration::from_millis(200);
