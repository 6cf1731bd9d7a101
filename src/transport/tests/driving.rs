//! The whole transport: two and three nodes with real journals, and the replication between them.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anabranch_crdt::entry::Dot;
use anabranch_crdt::ids::{DocumentId, DocumentName, Origin, Sequence, Timestamp};
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use super::rig::{Pki, nowhere, region, settings, soon};
use crate::journal::{Commit, Draft, Journal, JournalOptions, Standing};
use crate::replication::PeerStatus;
use crate::transport::{LinkState, Transport, TransportHooks, commit_channel};

/// A journal and the transport above it.
struct Site {
    journal: Journal,
    transport: Transport,
    clock: Arc<Mutex<Timestamp>>,
    renewed: watch::Receiver<Option<Origin>>,
    home: TempDir,
}

impl Site {
    fn start(pki: &Pki, name: &str, peers: &[(&str, SocketAddr)]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), pki, name, peers)
    }

    fn start_in(home: TempDir, pki: &Pki, name: &str, peers: &[(&str, SocketAddr)]) -> Self {
        let (sender, commits) = commit_channel();
        let options = JournalOptions {
            cluster: pki.authority.cluster(),
            region: region(name),
            cache_bytes: 4 << 20,
            new_origin: Box::new(|| Origin(Uuid::new_v4())),
            publish: Box::new(move |batch| sender.committed(batch)),
        };
        let journal = Journal::open(home.path(), options).unwrap();
        let clock = Arc::new(Mutex::new(Timestamp::default()));
        let seen = Arc::clone(&clock);
        let (renewal, renewed) = watch::channel(None);
        let hooks = TransportHooks {
            observe_clock: Arc::new(move |timestamp| {
                let mut clock = seen.lock().unwrap();
                *clock = timestamp.max(*clock);
            }),
            wall: Arc::new(|| Timestamp(1_790_000_000_000_000)),
            judge_clock: Arc::new(|_, _| {}),
            origin_renewed: Arc::new(move |identity| {
                renewal.send_replace(Some(identity.origin));
            }),
            standing: Arc::new(|_| {}),
            leaf: None,
            documents: None,
        };
        let settings = settings(pki, name, peers);
        let transport = Transport::start(&settings, journal.clone(), commits, hooks).unwrap();
        Self { journal, transport, clock, renewed, home }
    }

    /// Stops everything and hands back the directory of the journal.
    async fn stop(self) -> TempDir {
        self.transport.shutdown().await;
        self.journal.close();
        self.home
    }

    fn address(&self) -> SocketAddr {
        self.transport.handle().local_addr().unwrap()
    }

    /// Commits `count` changes, and returns what is durable then.
    async fn write(&self, count: usize) -> VersionVector {
        let mut standing = self.journal.standing();
        soon(standing.wait_for(|standing| *standing == Standing::Settled)).await.unwrap();
        let mut last = None;
        for n in 0..count {
            let (done, outcome) = oneshot::channel();
            let commit = Commit {
                drafts: vec![draft(n)],
                entries: Vec::new(),
                rows: Vec::new(),
                lineage: None,
                origin: None,
                done: Box::new(move |position| drop(done.send(position))),
            };
            self.journal.submit(commit).await.unwrap();
            last = Some(outcome);
        }
        soon(last.unwrap()).await.unwrap().unwrap().vector.clone()
    }

    fn vector(&self) -> VersionVector {
        self.journal.position().borrow().vector.clone()
    }

    async fn has(&self, vector: &VersionVector) {
        let mut position = self.journal.position();
        soon(position.wait_for(|position| position.vector.includes(vector))).await.unwrap();
    }

    async fn sees(&self, found: impl Fn(&PeerStatus) -> bool) -> PeerStatus {
        let mut status = self.transport.handle().status();
        let seen = soon(status.wait_for(|peers| peers.iter().any(&found))).await.unwrap();
        seen.iter().find(|peer| found(peer)).unwrap().clone()
    }

    fn cut(&self, peer: &str, state: LinkState) {
        self.transport.handle().set_link(&region(peer), state).unwrap();
    }
}

fn draft(n: usize) -> Draft {
    let name: DocumentName = format!("things/{n}").parse().unwrap();
    Draft {
        document: DocumentId::from(&name),
        name: Some(name),
        admitted: Timestamp(1_700_000_000_000_000 + n as u64),
        change: Bytes::from(vec![n as u8; 100]),
    }
}

async fn pair(pki: &Pki) -> (Site, Site) {
    let b = Site::start(pki, "b", &[("a", nowhere())]);
    let a = Site::start(pki, "a", &[("b", b.address())]);
    b.transport.handle().set_peer_address(&region("a"), a.address()).unwrap();
    a.sees(|peer| peer.connected).await;
    b.sees(|peer| peer.connected).await;
    (a, b)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_in_one_region_becomes_durable_in_the_other() {
    let (a, b) = pair(&Pki::new()).await;
    let (from_a, from_b) = (a.write(20).await, b.write(10).await);
    a.has(&from_b).await;
    b.has(&from_a).await;
    a.sees(|peer| peer.entries_behind == 0 && peer.entries_missing == 0).await;

    let origin = a.journal.identity().origin;
    let read = |site: &Site| site.journal.entries(origin, Sequence::ZERO, 100, 1 << 20).unwrap();
    assert_eq!(read(&b), read(&a));
    assert_eq!(b.journal.region_of(origin), Some(region("a")));
    assert!(*b.clock.lock().unwrap() >= Timestamp(1_700_000_000_000_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_shows_in_the_status_and_heals_without_loss() {
    let (a, b) = pair(&Pki::new()).await;
    a.cut("b", LinkState::Cut);
    let peer = a.sees(|peer| !peer.connected).await;
    assert!(peer.last_error.unwrap().contains("cut by an operator"));
    let (from_a, from_b) = (a.write(50).await, b.write(50).await);
    a.sees(|peer| peer.entries_behind >= 50).await;
    assert!(!b.vector().includes(&from_a));

    a.cut("b", LinkState::Up);
    a.has(&from_b).await;
    b.has(&from_a).await;
    a.sees(|peer| peer.connected && peer.entries_behind == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_between_two_others_relays() {
    let pki = Pki::new();
    let b = Site::start(&pki, "b", &[("a", nowhere()), ("c", nowhere())]);
    let a = Site::start(&pki, "a", &[("b", b.address()), ("c", nowhere())]);
    let c = Site::start(&pki, "c", &[("a", nowhere()), ("b", b.address())]);
    let (from_a, from_c) = (a.write(5).await, c.write(5).await);
    c.has(&from_a).await;
    a.has(&from_c).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_backlog_is_caught_up_over_an_ocean() {
    let pki = Pki::new();
    let b = Site::start(&pki, "b", &[("a", nowhere())]);
    let a = Site::start(&pki, "a", &[("b", nowhere())]);
    let written = a.write(3_000).await;
    for (site, peer) in [(&a, "b"), (&b, "a")] {
        site.transport.handle().set_delay(&region(peer), Duration::from_millis(40)).unwrap();
    }
    a.transport.handle().set_peer_address(&region("b"), b.address()).unwrap();
    b.has(&written).await;
    let dot = Dot { origin: a.journal.identity().origin, sequence: Sequence(3_000) };
    assert!(b.vector().contains(dot));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_journal_is_told_to_whoever_waits() {
    let pki = Pki::new();
    let mut a = Site::start(&pki, "a", &[]);
    a.journal.close();
    let error = soon(a.transport.wait()).await;
    assert_eq!(error.code(), "journal_closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_ends_the_links_and_frees_the_port() {
    let pki = Pki::new();
    let (a, b) = pair(&pki).await;
    let (at, kept) = (b.address(), b.transport.handle());
    b.transport.shutdown().await;
    let peer = a.sees(|peer| !peer.connected).await;
    assert!(peer.last_error.unwrap().contains("shutting down"));
    let free = std::net::UdpSocket::bind(at);
    assert!(free.is_ok(), "{free:?}");
    drop(kept);
}

/// A backup put back in place looks like the same journal. Only the peers know that its origin
/// has admitted more already, and what it admits next must not carry the same numbers again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_was_rolled_back_goes_on_under_a_new_origin() {
    let pki = Pki::new();
    let b = Site::start(&pki, "b", &[("a", nowhere())]);
    let peers = [("b", b.address())];
    let a = Site::start(&pki, "a", &peers);
    b.has(&a.write(2).await).await;
    let home = a.stop().await;
    let backup = files(&home);

    let a = Site::start_in(home, &pki, "a", &peers);
    let old = a.journal.identity().origin;
    let lost = a.write(3).await;
    b.has(&lost).await;
    let home = a.stop().await;
    // In place, so that not even the inode tells.
    backup.iter().for_each(|(file, bytes)| fs::write(file, bytes).unwrap());

    let mut a = Site::start_in(home, &pki, "a", &peers);
    assert_eq!(a.journal.identity().origin, old);
    let renewed = *soon(a.renewed.wait_for(Option::is_some)).await.unwrap();
    assert_eq!(renewed, Some(a.journal.identity().origin));
    assert_ne!(renewed, Some(old));
    // What the backup had lost comes back, and what is written now is new to everyone.
    a.has(&lost).await;
    b.has(&a.write(1).await).await;
}

fn files(home: &TempDir) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}
