//! Real quinn, real mutual TLS and the real driver on a simulated network with virtual time: links
//! are cut, lose datagrams and come back, and nodes crash. Only the disks are real, and so is the
//! time that they take; everything that is bounded here is bounded in virtual time.

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use anabranch_crdt::ids::{DocumentId, DocumentName, Origin, Timestamp};
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use turmoil::Sim;
use turmoil::net::UdpSocket;
use uuid::Uuid;

use super::rig::{FRAME_BYTES, Node, Pki, region, settings};
use crate::journal::{Commit, Draft, Journal, JournalOptions};
use crate::replication::Lane;
use crate::transport::wire::Wire;
use crate::transport::{Transport, TransportHooks, commit_channel};

const NAMES: [&str; 3] = ["a", "b", "c"];
const PORT: u16 = 4_101;

/// A link that is healed carries everything across within this, in virtual time. QUIC gives up a
/// dead connection after ten seconds, and the pause between attempts to dial is at most five.
const RECOVERY: Duration = Duration::from_secs(60);

#[test]
fn three_regions_converge_through_cuts_losses_and_crashes() {
    for seed in 1..=4 {
        println!("SEED={seed}");
        Story::new(seed).run();
    }
}

/// 190 ms there and back: a window is what caps a link, not the line. And what is new passes
/// what catches up.
#[test]
fn an_ocean_is_late_and_not_narrow() {
    const BULK_FRAMES: usize = 24;
    let pki = Arc::new(Pki::new());
    let arrivals: Arc<Mutex<Vec<(usize, Duration)>>> = Arc::default();
    let mut sim = turmoil::Builder::new()
        .rng_seed(1)
        .tick_duration(Duration::from_millis(1))
        .simulation_duration(Duration::from_secs(60))
        .min_message_latency(Duration::from_millis(95))
        .max_message_latency(Duration::from_millis(95))
        .udp_capacity(65_536)
        .build();
    let (to, there) = (Arc::clone(&arrivals), Arc::clone(&pki));
    sim.host("b", move || {
        let (arrivals, pki) = (Arc::clone(&to), Arc::clone(&there));
        async move {
            let mut b = simulated(&pki, "b", "a").await?;
            b.up("a").await;
            loop {
                let bytes = b.frame().await.len();
                arrivals.lock().unwrap().push((bytes, turmoil::elapsed()));
            }
        }
    });
    sim.client("a", async move {
        let mut a = simulated(&pki, "a", "b").await?;
        let link = a.up("b").await;
        link.send(Bytes::from_static(b"hello"), Lane::Fresh);
        let start = turmoil::elapsed();
        let frame = Bytes::from(vec![7; FRAME_BYTES]);
        (0..BULK_FRAMES).for_each(|_| link.send(frame.clone(), Lane::Bulk));
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let sent = turmoil::elapsed();
        link.send(Bytes::from_static(b"new"), Lane::Fresh);
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let arrivals = arrivals.lock().unwrap().clone();
            let bulk = arrivals.iter().filter(|(bytes, _)| *bytes == FRAME_BYTES);
            if bulk.clone().count() == BULK_FRAMES {
                let fresh = arrivals.iter().find(|(bytes, _)| *bytes == 3).unwrap().1 - sent;
                let all = bulk.max().unwrap().1 - start;
                println!("24 MiB in {all:?}, what is new after {fresh:?}");
                assert!(all < Duration::from_millis(4_500), "{all:?}");
                assert!(fresh < Duration::from_millis(250), "{fresh:?}");
                return Ok(());
            }
        }
    });
    sim.run().unwrap();
}

/// Starts the link layer of a host.
async fn simulated(pki: &Pki, name: &str, peer: &str) -> io::Result<Node> {
    let peers = [(peer, SocketAddr::from((turmoil::lookup(peer), PORT)))];
    let socket = UdpSocket::bind(("0.0.0.0", PORT)).await?;
    let wire = Wire { socket: Arc::new(SimSocket::new(socket)), runtime: Arc::new(SimRuntime) };
    Node::on(Ok(wire), &settings(pki, name, &peers), None).map_err(io::Error::other)
}

/// One simulated cluster and what happens to it.
struct Story {
    random: ChaCha8Rng,
    sim: Sim<'static>,
    board: Board,
    _home: TempDir,
}

/// What the hosts tell the test: the last vector of each, and how many entries it has written
/// in all its lives.
type Board = Arc<Mutex<BTreeMap<&'static str, (VersionVector, u64)>>>;

impl Story {
    fn new(seed: u64) -> Self {
        let home = tempfile::tempdir().unwrap();
        let pki = Arc::new(Pki::new());
        let board = Board::default();
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .tick_duration(Duration::from_millis(1))
            .simulation_duration(Duration::from_secs(1_200))
            .min_message_latency(Duration::from_millis(2))
            .max_message_latency(Duration::from_millis(60))
            .udp_capacity(4_096)
            .build();
        for name in NAMES {
            let (pki, board) = (Arc::clone(&pki), Arc::clone(&board));
            let directory = home.path().join(name);
            sim.host(name, move || {
                live(name, Arc::clone(&pki), Arc::clone(&board), directory.clone())
            });
        }
        Self { random: ChaCha8Rng::seed_from_u64(seed), sim, board, _home: home }
    }

    fn run(&mut self) {
        self.until_equal("at the start");
        for _ in 0..3 {
            self.trouble();
            self.pass(Duration::from_secs(20));
            self.heal();
            self.until_equal("after healing");
        }
        let board = self.board.lock().unwrap();
        assert!(board.values().all(|(_, written)| *written > 10), "{board:?}");
    }

    /// Draws what goes wrong next.
    fn trouble(&mut self) {
        let (one, other) = (self.any(), self.any());
        let sim = &mut self.sim;
        match self.random.random_range(0..5) {
            0 if one != other => sim.partition(one, other),
            1 if one != other => sim.partition_oneway(one, other),
            2 => {
                NAMES.iter().filter(|name| **name != one).for_each(|name| sim.partition(one, *name))
            }
            3 => sim.crash(one),
            _ => sim.set_fail_rate(0.05),
        }
    }

    fn heal(&mut self) {
        let sim = &mut self.sim;
        sim.set_fail_rate(0.0);
        for (index, one) in NAMES.iter().enumerate() {
            NAMES.iter().skip(index + 1).for_each(|other| sim.repair(*one, *other));
            if !sim.is_host_running(*one) {
                sim.bounce(*one);
            }
        }
    }

    fn any(&mut self) -> &'static str {
        NAMES[self.random.random_range(0..NAMES.len())]
    }

    fn pass(&mut self, time: Duration) {
        let end = self.sim.elapsed() + time;
        while self.sim.elapsed() < end {
            self.sim.step().unwrap();
        }
    }

    /// Lets time pass until everyone has what everyone had written when this began.
    fn until_equal(&mut self, when: &str) {
        // What was said before a crash is not what there is now.
        self.pass(Duration::from_secs(1));
        let all = |board: &Board| {
            let board = board.lock().unwrap();
            let mut all = VersionVector::new();
            board.values().for_each(|(vector, _)| all.merge(vector));
            all
        };
        let wanted = all(&self.board);
        let end = self.sim.elapsed() + RECOVERY;
        let has = |board: &Board| {
            let board = board.lock().unwrap();
            board.len() == NAMES.len() && board.values().all(|(has, _)| has.includes(&wanted))
        };
        while !has(&self.board) {
            assert!(self.sim.elapsed() < end, "{when}: not within {RECOVERY:?}: {:?}", self.board);
            self.sim.step().unwrap();
        }
    }
}

/// The life of one host: it opens its journal, replicates, and writes four times a second.
async fn live(
    name: &'static str,
    pki: Arc<Pki>,
    board: Board,
    directory: PathBuf,
) -> turmoil::Result {
    let (journal, commits) = loop {
        let (sender, commits) = commit_channel();
        match open(&directory, &pki, name, sender) {
            Ok(journal) => break (journal, commits),
            // The thread of the life before may still be closing the file.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let peers = NAMES.iter().filter(|peer| **peer != name);
    let peers: Vec<(&str, SocketAddr)> =
        peers.map(|peer| (*peer, (turmoil::lookup(*peer), PORT).into())).collect();
    let socket = UdpSocket::bind(("0.0.0.0", PORT)).await?;
    let wire = Wire { socket: Arc::new(SimSocket::new(socket)), runtime: Arc::new(SimRuntime) };
    let settings = settings(&pki, name, &peers);
    let transport =
        Transport::start_on(Ok(wire), &settings, journal.clone(), commits, hooks()).unwrap();
    let mut written = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        journal.submit(commit(name, written)).await.unwrap();
        written += 1;
        let vector = journal.position().borrow().vector.clone();
        let mut board = board.lock().unwrap();
        let (seen, all) = board.entry(name).or_default();
        (*seen, *all) = (vector, *all + 1);
        let _alive = &transport;
    }
}

fn open(
    directory: &Path,
    pki: &Pki,
    name: &str,
    sender: crate::transport::CommitSender,
) -> Result<Journal, crate::journal::OpenError> {
    let options = JournalOptions {
        cluster: pki.authority.cluster(),
        region: region(name),
        cache_bytes: 4 << 20,
        new_origin: Box::new(|| Origin(Uuid::new_v4())),
        publish: Box::new(move |batch| sender.committed(batch)),
    };
    Journal::open(directory, options)
}

fn hooks() -> TransportHooks {
    TransportHooks {
        observe_clock: Arc::new(|_| {}),
        wall: Arc::new(|| Timestamp(1_790_000_000_000_000)),
        judge_clock: Arc::new(|_, _| {}),
        origin_renewed: Arc::new(|_| {}),
        standing: Arc::new(|_| {}),
        documents: None,
        leaf: None,
    }
}

fn commit(region: &str, number: u64) -> Commit {
    let name: DocumentName = format!("things/{region}-{number}").parse().unwrap();
    let draft = Draft {
        document: DocumentId::from(&name),
        name: Some(name),
        admitted: Timestamp(1_700_000_000_000_000 + number),
        change: Bytes::from(vec![number as u8; 400]),
    };
    Commit {
        drafts: vec![draft],
        entries: Vec::new(),
        rows: Vec::new(),
        lineage: None,
        origin: None,
        done: Box::new(|_| {}),
    }
}

/// A socket of turmoil as quinn wants it. What arrives is fetched by a task, because turmoil has no
/// way to poll for it.
#[derive(Debug)]
struct SimSocket {
    socket: Arc<UdpSocket>,
    arrived: Mutex<mpsc::Receiver<(Vec<u8>, SocketAddr)>>,
    _fetching: JoinSet<()>,
}

impl SimSocket {
    fn new(socket: UdpSocket) -> Self {
        let socket = Arc::new(socket);
        let (sender, arrived) = mpsc::channel(4_096);
        let mut fetching = JoinSet::new();
        fetching.spawn(fetch(Arc::clone(&socket), sender));
        Self { socket, arrived: Mutex::new(arrived), _fetching: fetching }
    }
}

async fn fetch(socket: Arc<UdpSocket>, arrived: mpsc::Sender<(Vec<u8>, SocketAddr)>) {
    let mut buffer = vec![0; 65_536];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        if arrived.send((buffer[..length].to_vec(), from)).await.is_err() {
            return;
        }
    }
}

impl AsyncUdpSocket for SimSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        // A host that is down is as silent as a network that loses everything.
        drop(self.socket.try_send_to(transmit.contents, transmit.destination));
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let Some((bytes, addr)) = ready!(self.arrived.lock().unwrap().poll_recv(cx)) else {
            return Poll::Pending;
        };
        let (len, stride) = (bytes.len(), bytes.len());
        buffers[0][..len].copy_from_slice(&bytes);
        metas[0] = RecvMeta { addr, len, stride, ecn: None, dst_ip: None };
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// A simulated socket takes everything at once.
#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Tokio with the clock of the simulation, and without sockets of its own.
#[derive(Debug)]
struct SimRuntime;

impl Runtime for SimRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(future);
    }

    fn wrap_udp_socket(&self, _: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}
