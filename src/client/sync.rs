//! One sync: push what is new here, then pull what is new there.
//!
//! Pushing first means that the node can tell what this client lacks, and that the replica meets
//! the resolutions which the leader makes of the collisions. Each step is stored as it is done, so
//! a sync that is cut off resumes where it stopped: a push whose answer was lost is repeated, and
//! the node skips what it knows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anabranch_crdt::ids::{ChangeHash, CollectionName, DocumentKey, DocumentName};
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;
use futures::future::{try_join, try_join3};

use super::link::{Link, Replies, Requests, Talk, unexpected};
use super::replica::{Pulled, Push, TakenIn};
use super::report::{Collision, SyncReport};
use super::{Shared, Subscription};
use crate::document::Digest;
use crate::error::{Error, ErrorKind};
use crate::leaf::{MAX_LISTED, Outlook, PAGE_BYTES, Refusal, Reply, Request, pages};

/// What a sync pulls; it always pushes what is unsynced, and pulls what it pushed.
#[derive(Debug)]
pub(super) enum Scope {
    /// Everything that is subscribed to.
    Subscribed,
    /// These documents.
    Documents(BTreeSet<DocumentName>),
}

/// Syncs once over a link.
pub(super) async fn sync(
    shared: &Arc<Shared>,
    link: &Link,
    scope: Scope,
) -> Result<SyncReport, Error> {
    let talk = link.converse().await?;
    let seen = shared.with(|replica| replica.vector()).await?;
    let mut leaders = seen.clone();
    leaders.merge(&link.vector);
    let report = SyncReport::new(link.region.clone());
    let mut sync = Sync { shared, talk, report, seen, leaders };
    let outcome = sync.run(scope).await;
    // What was confirmed counts even if the rest failed.
    let seen = sync.seen.clone();
    shared.with(move |replica| replica.raise(&seen)).await?;
    outcome?;
    sync.talk.finish();
    Ok(sync.report)
}

struct Sync<'a> {
    shared: &'a Arc<Shared>,
    talk: Talk,
    report: SyncReport,
    /// What nodes have confirmed to this client.
    seen: VersionVector,
    /// The origins in it are leaders.
    leaders: VersionVector,
}

/// Some changes of one document, as one message.
#[derive(Debug)]
struct Page {
    name: DocumentName,
    numbers: BTreeSet<u64>,
    changes: Vec<Bytes>,
}

impl Sync<'_> {
    async fn run(&mut self, scope: Scope) -> Result<(), Error> {
        let hopeless = match &scope {
            Scope::Subscribed => BTreeSet::new(),
            Scope::Documents(_) => self.hopeless().await?,
        };
        let mut wanted = self.push(&hopeless).await?;
        match scope {
            Scope::Documents(names) => {
                wanted.extend(names);
                self.pull(wanted).await
            }
            Scope::Subscribed => {
                let subscriptions = self.shared.with(|replica| replica.subscriptions()).await?;
                let mut collections = Vec::new();
                for subscription in subscriptions {
                    match subscription {
                        Subscription::Collection(collection) => collections.push(collection),
                        Subscription::Document(name) => {
                            wanted.insert(name);
                        }
                    }
                }
                self.pull(wanted).await?;
                for collection in &collections {
                    self.pull_collection(collection).await?;
                }
                Ok(())
            }
        }
    }

    /// The documents whose changes were refused as they are. They are not tried again with each
    /// event, only when everything is synced.
    async fn hopeless(&self) -> Result<BTreeSet<DocumentName>, Error> {
        let refused = self.shared.with(|replica| replica.refused()).await?.into_iter();
        let hopeless = refused.filter(|(_, refusal)| refusal.outlook == Outlook::Never);
        Ok(hopeless.map(|(name, _)| name).collect())
    }

    /// Pushes the changes that no node has accepted; returns their documents.
    async fn push(
        &mut self,
        hopeless: &BTreeSet<DocumentName>,
    ) -> Result<BTreeSet<DocumentName>, Error> {
        let (mut pushed, mut after) = (BTreeSet::new(), None::<DocumentName>);
        loop {
            let last = after.take();
            let find = move |replica: &mut super::replica::Replica| {
                replica.unsynced(last.as_ref(), WINDOW)
            };
            let mut names = self.shared.with(find).await?;
            let Some(last) = names.last() else { return Ok(pushed) };
            after = Some(last.clone());
            names.retain(|name| !hopeless.contains(name));
            let (mut batch, mut bytes) = (Vec::new(), 0_usize);
            for name in &names {
                let pages = self.pages_of(name).await?;
                bytes = bytes.saturating_add(pages.iter().map(Page::bytes).sum());
                batch.extend(pages);
                if bytes >= BATCH_BYTES {
                    bytes = 0;
                    self.push_batch(std::mem::take(&mut batch)).await?;
                }
            }
            self.push_batch(batch).await?;
            pushed.extend(names);
        }
    }

    async fn pages_of(&self, name: &DocumentName) -> Result<Vec<Page>, Error> {
        let wanted = name.clone();
        let pushes = self.shared.with(move |replica| replica.pushes(&wanted)).await?;
        let pages = pages(pushes, PAGE_BYTES, |push| push.change.len());
        Ok(pages.into_iter().map(|pushes| Page::new(name, pushes)).collect())
    }

    async fn push_batch(&mut self, batch: Vec<Page>) -> Result<(), Error> {
        let answers = self.exchange(&batch).await?;
        let mut refused: BTreeMap<DocumentName, (Refusal, BTreeSet<u64>)> = BTreeMap::new();
        for (page, answer) in batch.into_iter().zip(answers) {
            match answer {
                Ok(vector) => self.accepted(page.name, page.numbers, &vector).await?,
                Err(refusal) => {
                    // The first refusal is the cause of those that follow.
                    let (_, numbers) =
                        refused.entry(page.name).or_insert_with(|| (refusal, BTreeSet::new()));
                    numbers.extend(page.numbers);
                }
            }
        }
        for (name, (refusal, numbers)) in refused {
            let refusal = match refusal.code.as_str() {
                WAITS => self.push_history(&name, &numbers).await?,
                _ => Some(refusal),
            };
            if let Some(refusal) = refusal {
                self.refused(name, refusal).await?;
            }
        }
        Ok(())
    }

    /// Pushes all that the replica knows of a document, because the node lacks changes that
    /// another one accepted. Changes that leaders made travel between leaders alone; where such
    /// a one is missing, the push has to wait.
    async fn push_history(
        &mut self,
        name: &DocumentName,
        numbers: &BTreeSet<u64>,
    ) -> Result<Option<Refusal>, Error> {
        let (wanted, mut leaders) = (name.clone(), self.leaders.clone());
        leaders.merge(&self.seen);
        let history = self.shared.with(move |replica| replica.history(&wanted, &leaders)).await?;
        let page = |changes| Page { name: name.clone(), numbers: BTreeSet::new(), changes };
        let pages: Vec<_> = pages(history, PAGE_BYTES, Bytes::len).into_iter().map(page).collect();
        let mut vector = VersionVector::new();
        for answer in self.exchange(&pages).await? {
            match answer {
                Ok(durable) => vector.merge(&durable),
                Err(refusal) => return Ok(Some(refusal)),
            }
        }
        self.accepted(name.clone(), numbers.clone(), &vector).await?;
        Ok(None)
    }

    /// Sends pages, and returns the answers to each.
    async fn exchange(
        &mut self,
        pages: &[Page],
    ) -> Result<Vec<Result<VersionVector, Refusal>>, Error> {
        let Talk { requests, replies } = &mut self.talk;
        let send = async {
            for Page { name, changes, .. } in pages {
                let request = Request::Push { name: name.clone(), changes: changes.clone() };
                requests.send(&request).await?;
            }
            Ok(())
        };
        let receive = async {
            let mut answers = Vec::new();
            for _ in pages {
                let reply = replies.next().await?;
                if let Reply::Refused(refusal) = reply {
                    answers.push(Err(refusal));
                    continue;
                }
                let Reply::Accepted { vector } = reply else { return Err(unexpected(reply)) };
                answers.push(Ok(vector));
            }
            Ok(answers)
        };
        try_join(send, receive).await.map(|((), answers)| answers)
    }

    async fn accepted(
        &mut self,
        name: DocumentName,
        numbers: BTreeSet<u64>,
        vector: &VersionVector,
    ) -> Result<(), Error> {
        self.seen.merge(vector);
        self.report.of(&name).pushed += numbers.len();
        self.shared.with(move |replica| replica.accept(&name, &numbers)).await
    }

    async fn refused(&mut self, name: DocumentName, refusal: Refusal) -> Result<(), Error> {
        tracing::warn!(%name, code = refusal.code, reason = refusal.message, "changes are refused");
        self.report.of(&name).refused = Some(refusal.clone());
        self.shared.with(move |replica| replica.refuse(&name, &refusal)).await
    }

    async fn pull(&mut self, names: BTreeSet<DocumentName>) -> Result<(), Error> {
        let mut names = names.into_iter();
        loop {
            let window: Vec<_> = names.by_ref().take(WINDOW).collect();
            if window.is_empty() {
                return Ok(());
            }
            self.pull_window(window).await?;
        }
    }

    /// Asks for some documents at once, and takes in what comes while it comes.
    async fn pull_window(&mut self, window: Vec<DocumentName>) -> Result<(), Error> {
        let wanted = window.clone();
        let heads = self.shared.with(move |replica| {
            let heads = |name| replica.heads(name);
            // A document that cannot be read is pulled whole; taking it in tells what is wrong.
            Ok(wanted.iter().map(heads).map(Result::unwrap_or_default).collect::<Vec<_>>())
        });
        let wanted: Vec<_> = window.iter().cloned().zip(heads.await?).collect();
        let Talk { requests, replies } = &mut self.talk;
        let (come, mut comes) = tokio::sync::mpsc::channel(1);
        let send = ask(requests, wanted);
        let receive = receive(replies, window, come);
        let (shared, report, seen) = (self.shared, &mut self.report, &mut self.seen);
        let take_in = async {
            while let Some(batch) = comes.recv().await {
                take_in(shared, report, seen, batch).await?;
            }
            Ok(())
        };
        try_join3(send, receive, take_in).await.map(|_| ())
    }

    /// Pulls the documents of a collection that differ.
    async fn pull_collection(&mut self, collection: &CollectionName) -> Result<(), Error> {
        let wanted = collection.clone();
        let here = self.shared.with(move |replica| replica.names(&wanted)).await?;
        let mut here: BTreeSet<_> = here.into_iter().collect();
        let mut after = None;
        loop {
            let (documents, more) = self.list(collection, after.take()).await?;
            after = documents.last().map(|(key, _)| key.clone());
            let named =
                |(key, digest)| (DocumentName { collection: collection.clone(), key }, digest);
            let listed: Vec<_> = documents.into_iter().map(named).collect();
            for (name, _) in &listed {
                here.remove(name);
            }
            let differing = self.differing(listed).await?;
            self.pull(differing).await?;
            if !more || after.is_none() {
                break;
            }
        }
        // What exists here and not there was deleted there, or has not got there yet.
        let missing = self.shared.with(move |replica| {
            let exists = |name: &DocumentName| {
                replica.digest(name).is_ok_and(|digest| digest.is_some_and(|(_, exists)| exists))
            };
            Ok(here.into_iter().filter(exists).collect())
        });
        let missing = missing.await?;
        self.pull(missing).await
    }

    async fn list(
        &mut self,
        collection: &CollectionName,
        after: Option<DocumentKey>,
    ) -> Result<(Vec<(DocumentKey, Digest)>, bool), Error> {
        let (collection, prefix) = (collection.clone(), String::new());
        let request = Request::List { collection, prefix, after, limit: MAX_LISTED };
        self.talk.requests.send(&request).await?;
        let reply = self.talk.replies.next().await?;
        let Reply::Listed { documents, more } = reply else { return Err(unexpected(reply)) };
        Ok((documents, more))
    }

    async fn differing(
        &self,
        listed: Vec<(DocumentName, Digest)>,
    ) -> Result<BTreeSet<DocumentName>, Error> {
        let differs = |replica: &mut super::replica::Replica| {
            let mut differing = BTreeSet::new();
            for (name, there) in listed {
                if replica.digest(&name)?.is_none_or(|(here, _)| here != there) {
                    differing.insert(name);
                }
            }
            Ok(differing)
        };
        self.shared.with(differs).await
    }
}

impl Page {
    fn new(name: &DocumentName, pushes: Vec<Push>) -> Self {
        let (numbers, changes) = pushes.into_iter().map(|push| (push.number, push.change)).unzip();
        Self { name: name.clone(), numbers, changes }
    }

    fn bytes(&self) -> usize {
        self.changes.iter().map(Bytes::len).sum()
    }
}

/// What came for some documents.
#[derive(Debug, Default)]
struct Come {
    pulled: Vec<Pulled>,
    refused: Vec<(DocumentName, Refusal)>,
    vector: VersionVector,
    bytes: usize,
}

async fn ask(
    requests: &mut Requests,
    wanted: Vec<(DocumentName, Vec<ChangeHash>)>,
) -> Result<(), Error> {
    for (name, heads) in wanted {
        requests.send(&Request::Pull { name, heads }).await?;
    }
    Ok(())
}

/// Receives what comes for each document, and hands it on in batches of bounded size.
async fn receive(
    replies: &mut Replies,
    window: Vec<DocumentName>,
    come: tokio::sync::mpsc::Sender<Come>,
) -> Result<(), Error> {
    let ended = |_| Error::new(ErrorKind::Internal, "sync_ended", "the sync has ended");
    let mut batch = Come::default();
    for name in window {
        receive_one(replies, name, &mut batch).await?;
        if batch.bytes >= BATCH_BYTES {
            come.send(std::mem::take(&mut batch)).await.map_err(ended)?;
        }
    }
    come.send(batch).await.map_err(ended)
}

async fn receive_one(
    replies: &mut Replies,
    name: DocumentName,
    batch: &mut Come,
) -> Result<(), Error> {
    let mut all = Vec::new();
    loop {
        let reply = replies.next().await?;
        if let Reply::Refused(refusal) = reply {
            batch.refused.push((name, refusal));
            return Ok(());
        }
        let Reply::Changes { document, changes, more, vector, .. } = reply else {
            return Err(unexpected(reply));
        };
        batch.bytes += changes.iter().map(Bytes::len).sum::<usize>();
        batch.vector.merge(&vector);
        // A change keeps its whole frame alive, so it is copied.
        all.extend(changes.iter().map(|change| Bytes::copy_from_slice(change)));
        if !more {
            batch.pulled.push(Pulled { name, document, changes: all });
            return Ok(());
        }
    }
}

async fn take_in(
    shared: &Arc<Shared>,
    report: &mut SyncReport,
    seen: &mut VersionVector,
    batch: Come,
) -> Result<(), Error> {
    let Come { pulled, refused, vector, .. } = batch;
    let (taken, own) =
        shared.with(move |replica| Ok((replica.take_in(pulled)?, replica.writer()))).await?;
    seen.merge(&vector);
    for (name, refusal) in refused {
        report.of(&name).not_pulled = Some(refusal);
    }
    for TakenIn { name, outcome } in taken {
        match outcome {
            Ok((0, conflicts)) if conflicts.is_empty() => {}
            Ok((pulled, conflicts)) => {
                let document = report.of(&name);
                document.pulled += pulled;
                let collisions = conflicts.into_iter().map(|c| Collision::new(c, own));
                document.collisions.extend(collisions);
            }
            Err(error) => report.of(&name).not_pulled = Some(Refusal::from(&error)),
        }
    }
    Ok(())
}

/// Tells whether something in a report may go better later.
pub(super) fn has_to_be_repeated(report: &SyncReport) -> bool {
    let later = |refusal: &Refusal| refusal.outlook == Outlook::Later;
    report
        .documents
        .values()
        .any(|document| document.refused.iter().chain(&document.not_pulled).any(later))
}

/// The code of the refusal of changes whose dependencies the node does not have.
const WAITS: &str = "change_waits";

/// Documents that are asked for, or pushed, before the first answer is read: enough to fill a
/// long way, and few enough to be read into memory.
const WINDOW: usize = 32;

/// Bytes of changes that are held before they are stored or sent.
const BATCH_BYTES: usize = 4 << 20;
