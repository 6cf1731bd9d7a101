//! Regions that come back: what it takes to catch up from the log, to meet again when nothing has
//! changed, to take over every document, and to prove that all are equal.

use std::path::Path;
use std::time::{Duration, Instant};

use anabranch_crdt::ids::{DocumentName, Timestamp};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use uuid::Uuid;

use super::cluster::Cluster;
use super::load::{Measured, histogram, record};
use crate::cli::Failure;
use crate::cli::output::{note, thousands};
use crate::document::{Documents, Precondition, Write};
use crate::journal::{Allowance, Journal, JournalOptions};
use crate::node::Node;
use crate::replication::reconcile::{ReconcileStatus, Repair, VerifyReport, VerifyState};
use crate::settings::Settings;
use crate::transport::LinkState;

/// A region is down while [`MISSED`] changes are made to [`CHANGED`] documents, and comes back.
pub(super) async fn catch_up(base: &Path) -> Result<Measured, Failure> {
    let mut cluster = Cluster::start(base, 2).await?;
    let documents = cluster.documents()?;
    fill(&documents, 0..CHANGED, |n| Write::Put(small(n))).await?;
    same_entries(&cluster).await?;
    cluster.stop_one(1).await?;
    let before = change_bytes(&documents).await?;
    let numbers = 0..MISSED - CHANGED;
    fill(&documents, numbers, |n| Write::MergePatch(json!({"count": n}))).await?;
    fill(&documents, 0..CHANGED, |n| Write::MergePatch(json!({"last": n}))).await?;
    let raw = change_bytes(&documents).await?.saturating_sub(before);
    let begin = Instant::now();
    cluster.start_one(1).await?;
    same_entries(&cluster).await?;
    let time = begin.elapsed();
    let sent = datagrams(cluster.node(0)?, cluster.node(1)?)?.0;
    note(format!(
        "catch-up: {} entries in {:.1} s; {} bytes in datagrams for {} bytes of changes: {:.2} times",
        thousands(MISSED),
        time.as_secs_f64(),
        thousands(sent),
        thousands(raw),
        sent as f64 / raw.max(1) as f64
    ));
    cluster.stop().await?;
    measured(MISSED, time)
}

/// Two regions with `count` documents lose their link, change nothing, and meet again.
pub(super) async fn reconnect(base: &Path, count: u64) -> Result<Measured, Failure> {
    let cluster = Cluster::start(base, 2).await?;
    fill(&cluster.documents()?, 0..count, |n| Write::Put(small(n))).await?;
    same_entries(&cluster).await?;
    let (one, other) = (cluster.node(0)?, cluster.node(1)?);
    for state in [LinkState::Cut, LinkState::Up] {
        for (here, there) in [(one, other), (other, one)] {
            let region = region_of(there);
            here.transport().set_link(&region, state).map_err(broken)?;
        }
        linked(one, state == LinkState::Up).await?;
    }
    let begin = Instant::now();
    let linked = datagrams(one, other)?;
    same_entries(&cluster).await?;
    let time = begin.elapsed();
    // Each side says twice what it has: more than one round trip takes.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (sent, received) = datagrams(one, other)?;
    note(format!(
        "reconnect with {} documents: {} bytes in datagrams until half a second after, {} of them \
         for the handshake",
        thousands(count),
        thousands(sent + received),
        thousands(linked.0 + linked.1),
    ));
    cluster.stop().await?;
    measured(1, time)
}

/// A new region takes over `count` documents of one whose log is gone.
pub(super) async fn bootstrap(base: &Path, count: u64) -> Result<Measured, Failure> {
    let mut cluster = Cluster::start(base, 2).await?;
    cluster.stop_one(1).await?;
    fill(&cluster.documents()?, 0..count, |n| Write::Put(small(n))).await?;
    let settings = cluster.stop_one(0).await?;
    forget_log(settings).await?;
    cluster.start_one(0).await?;
    let before = peak_memory();
    let begin = Instant::now();
    cluster.start_one(1).await?;
    let replicas = cluster.node(1)?.transport().replicas();
    let mut status = replicas.follow();
    let done = |status: &std::sync::Arc<ReconcileStatus>| status.last_bootstrap.is_some();
    let status = status.wait_for(done).await.map_err(broken)?.clone();
    let time = begin.elapsed();
    let taken = status.last_bootstrap.as_ref().map_or(0, |bootstrap| bootstrap.adopted);
    note(format!(
        "bootstrap: {} documents in {:.1} s, {} bytes of frames; peak memory of both nodes {} MiB, \
         {before} MiB before",
        thousands(taken),
        time.as_secs_f64(),
        thousands(status.last_bootstrap.as_ref().map_or(0, |bootstrap| bootstrap.bytes)),
        peak_memory()
    ));
    cluster.stop().await?;
    measured(taken, time)
}

/// Two regions prove that `count` documents are equal.
pub(super) async fn verify(base: &Path, count: u64) -> Result<Measured, Failure> {
    let cluster = Cluster::start(base, 2).await?;
    fill(&cluster.documents()?, 0..count, |n| Write::Put(small(n))).await?;
    same_entries(&cluster).await?;
    applied(cluster.node(1)?, count).await?;
    let replicas = cluster.node(1)?.transport().replicas();
    let mut status = replicas.follow();
    let begin = Instant::now();
    let request = replicas.verify(None, Repair::Tell).await.map_err(broken)?;
    let of_it = |status: &ReconcileStatus| -> Option<VerifyReport> {
        let report = status.reports.iter().find(|report| report.request == Some(request));
        let ended = |report: &&VerifyReport| {
            !matches!(report.state, VerifyState::Running | VerifyState::Waiting)
        };
        report.filter(ended).cloned()
    };
    let status = status.wait_for(|status| of_it(status).is_some()).await.map_err(broken)?.clone();
    let time = begin.elapsed();
    let report = of_it(&status).ok_or_else(|| Failure::General("no report".to_owned()))?;
    note(format!(
        "verify: {} documents equal, {} broken, in {:.2} s, {} bytes of frames",
        thousands(report.equal),
        thousands(report.broken),
        time.as_secs_f64(),
        thousands(report.bytes)
    ));
    cluster.stop().await?;
    measured(report.compared, time)
}

fn measured(count: u64, time: Duration) -> Result<Measured, Failure> {
    let mut latency = histogram()?;
    record(&mut latency, time);
    Ok(Measured { rate: count as f64 / time.as_secs_f64().max(1e-9), latency })
}

/// Writes to documents in a loop over [`CHANGED`] of them, or as many as there are numbers.
async fn fill(
    documents: &Documents,
    numbers: std::ops::Range<u64>,
    write: impl Fn(u64) -> Write,
) -> Result<(), Failure> {
    let put = |n: u64| {
        let (documents, write) = (documents.clone(), write(n));
        let key = if matches!(write, Write::Put(_)) { n } else { n % CHANGED };
        async move {
            let name: DocumentName = format!("small/{key}").parse().map_err(broken)?;
            let written = documents.write(name, write, None, Precondition::None).await;
            written.map(drop).map_err(broken)
        }
    };
    stream::iter(numbers.map(put)).buffer_unordered(AT_ONCE).try_collect().await
}

fn small(number: u64) -> Value {
    json!({"name": format!("document {number}"), "count": number})
}

/// Counts the bytes of all changes of the documents that are changed.
async fn change_bytes(documents: &Documents) -> Result<u64, Failure> {
    let bytes = |n: u64| async move {
        let name: DocumentName = format!("small/{n}").parse().map_err(broken)?;
        let changes = documents.changes_since(name, Vec::new()).await.map_err(broken)?;
        Ok::<u64, Failure>(changes.iter().map(|change| change.bytes.len() as u64).sum())
    };
    stream::iter((0..CHANGED).map(bytes))
        .buffer_unordered(AT_ONCE)
        .try_fold(0, |sum, bytes| async move { Ok(sum + bytes) })
        .await
}

/// Waits until the second node has what the first one has.
async fn same_entries(cluster: &Cluster) -> Result<(), Failure> {
    let vector = cluster.node(0)?.documents().position().vector.clone();
    let other = cluster.node(1)?.documents();
    other.wait_for(&vector, Duration::from_secs(3_600)).await.map_err(broken)
}

/// Waits until documents are applied, so that nothing but their comparison is measured.
async fn applied(node: &Node, count: u64) -> Result<(), Failure> {
    for number in (0..count).rev().take(AT_ONCE) {
        let name: DocumentName = format!("small/{number}").parse().map_err(broken)?;
        node.documents().read(&name).await.map_err(broken)?;
    }
    Ok(())
}

async fn linked(node: &Node, up: bool) -> Result<(), Failure> {
    let mut status = node.transport().status();
    let all = |peers: &std::sync::Arc<Vec<crate::replication::PeerStatus>>| {
        peers.iter().all(|peer| peer.connected == up)
    };
    status.wait_for(all).await.map(drop).map_err(broken)
}

/// The bytes of datagrams of the link between two nodes, as the first one counts them.
fn datagrams(here: &Node, there: &Node) -> Result<(u64, u64), Failure> {
    let bytes = here.transport().datagram_bytes(&region_of(there)).map_err(broken)?;
    Ok(bytes.unwrap_or_default())
}

fn region_of(node: &Node) -> anabranch_crdt::ids::RegionName {
    let cluster = node.transport().replicas().cluster();
    let own = cluster.regions.first().map(|view| view.region.clone());
    own.expect("the own region is the first of every view")
}

/// Makes a stopped node's log start behind everything it has, as after years.
async fn forget_log(settings: Settings) -> Result<(), Failure> {
    let forget = move || {
        let Settings { cluster, region, data, .. } = settings;
        let options = JournalOptions {
            cluster,
            region,
            cache_bytes: 64 << 20,
            new_origin: Box::new(|| anabranch_crdt::ids::Origin(Uuid::new_v4())),
            publish: Box::new(|_| {}),
        };
        let journal = Journal::open(&data, options).map_err(broken)?;
        let vector = journal.position().borrow().vector.clone();
        for dot in vector.iter() {
            let all = (dot.sequence, Timestamp::MAX);
            let allowance =
                Allowance { origin: dot.origin, everywhere: all, elsewhere: all, excess: 0 };
            while journal.sweep(allowance).map_err(broken)?.seen > 0 {}
        }
        journal.close();
        Ok(())
    };
    tokio::task::spawn_blocking(forget).await.map_err(broken)?
}

/// The most memory that this process had at a time, in MiB; 0 where the system does not tell.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() / 1_024
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::General(error.to_string())
}

/// Documents that are changed while a region is away.
const CHANGED: u64 = 10_000;

/// Changes that the region misses.
const MISSED: u64 = 100_000;

/// Writes under way at a time.
const AT_ONCE: usize = 256;
