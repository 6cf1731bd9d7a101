//! Nodes without replication, and a log that can be read.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anabranch_crdt::ids::{ClusterId, RegionName};
use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::subscriber::DefaultGuard;
use uuid::Uuid;

use crate::error::Error;
use crate::pki::{self, Authority, Overwrite, Validity};
use crate::replication::frame::Packing;
use crate::settings::{Joining, Neighbours, PkiPaths, RegionSettings};
use crate::transport::TransportSettings;
use crate::transport::endpoint::Links;
use crate::transport::leaf::LeafService;
use crate::transport::link::{Link, LinkEvent, LinkHandle};
use crate::transport::wire::Wire;

/// The limit of frames in these tests.
pub(super) const FRAME_BYTES: usize = 1 << 20;

/// An authority in a directory of its own.
pub(super) struct Pki {
    home: TempDir,
    pub(super) authority: Authority,
}

impl Pki {
    pub(super) fn new() -> Self {
        Self::of(1, "test")
    }

    pub(super) fn of(cluster: u128, name: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let authority = Authority::create(ClusterId(Uuid::from_u128(cluster)), name).unwrap();
        authority.store(home.path(), Overwrite::Refuse).unwrap();
        Self { home, authority }
    }

    pub(super) fn directory(&self) -> &Path {
        self.home.path()
    }

    pub(super) fn paths(&self, name: &str, days: i64) -> PkiPaths {
        let issued = self.authority.issue_node(&region(name), Validity::days(days)).unwrap();
        let directory = self.directory().join(format!("{days}-days"));
        issued.store(&directory, Overwrite::Replace).unwrap();
        let authority = self.directory().join("ca.pem");
        PkiPaths { authority, ..pki::paths(&directory, name) }
    }
}

/// The link layer of one node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) links: Arc<Links>,
    events: mpsc::Receiver<LinkEvent>,
    sender: mpsc::Sender<LinkEvent>,
    pub(super) tasks: JoinSet<Result<(), Error>>,
}

/// A node and its one link.
pub(super) struct End {
    pub(super) node: Node,
    pub(super) link: LinkHandle,
}

pub(super) fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

/// An address where nobody answers.
pub(super) fn nowhere() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 9).into()
}

pub(super) fn address(node: &Node) -> SocketAddr {
    node.links.local_addr().unwrap()
}

/// Starts `a` and `b`, linked.
pub(super) async fn linked(pki: &Pki) -> (End, End) {
    let mut b = Node::start(pki, "b", &[("a", nowhere())], |_| {});
    let mut a = Node::start(pki, "a", &[("b", address(&b))], |_| {});
    let (link_a, link_b) = (a.up("b").await, b.up("a").await);
    // From here on both know where the other one is.
    b.links.region(&region("a")).unwrap().set_address(address(&a));
    (End { node: a, link: link_a }, End { node: b, link: link_b })
}

/// Waits for what is sure to come, and fails instead of hanging.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), future).await.expect("it does not come")
}

impl Node {
    pub(super) fn start(
        pki: &Pki,
        name: &str,
        peers: &[(&str, SocketAddr)],
        adjust: impl FnOnce(&mut TransportSettings),
    ) -> Self {
        Self::try_start(pki, name, peers, adjust).unwrap()
    }

    pub(super) fn try_start(
        pki: &Pki,
        name: &str,
        peers: &[(&str, SocketAddr)],
        adjust: impl FnOnce(&mut TransportSettings),
    ) -> Result<Self, Error> {
        let mut settings = settings(pki, name, peers);
        adjust(&mut settings);
        Self::with_leaf(&settings, None)
    }

    pub(super) fn with_leaf(
        settings: &TransportSettings,
        leaf: Option<Arc<dyn LeafService>>,
    ) -> Result<Self, Error> {
        Self::on(Wire::bind(settings.bind), settings, leaf)
    }

    pub(super) fn on(
        wire: io::Result<Wire>,
        settings: &TransportSettings,
        leaf: Option<Arc<dyn LeafService>>,
    ) -> Result<Self, Error> {
        let (sender, events) = mpsc::channel(16);
        let mut tasks = JoinSet::new();
        let links = Links::start(settings, (wire, Vec::new()), leaf, sender.clone(), &mut tasks)?;
        Ok(Self { links, events, sender, tasks })
    }

    pub(super) async fn event(&mut self) -> LinkEvent {
        soon(self.events.recv()).await.unwrap()
    }

    /// Waits for a link to `name`; failed attempts before it do not matter.
    pub(super) async fn up(&mut self, name: &str) -> LinkHandle {
        loop {
            match self.event().await {
                LinkEvent::Up { region: up, link } if up == region(name) => return link,
                LinkEvent::Failed { .. } | LinkEvent::Joining { .. } | LinkEvent::Told { .. } => {}
                other @ (LinkEvent::Up { .. }
                | LinkEvent::Frame { .. }
                | LinkEvent::Down { .. }) => panic!("no link up but {other:?}"),
            }
        }
    }

    /// Waits for the end of a link; frames before it do not matter.
    pub(super) async fn down(&mut self) -> String {
        loop {
            match self.event().await {
                LinkEvent::Down { reason, .. } => return reason,
                LinkEvent::Frame { .. }
                | LinkEvent::Failed { .. }
                | LinkEvent::Joining { .. }
                | LinkEvent::Told { .. } => {}
                LinkEvent::Up { region, .. } => panic!("no link down but one up: {region}"),
            }
        }
    }

    /// Waits for one link to end and another to come up, in either order.
    pub(super) async fn next_is_down_and_up(&mut self) -> String {
        let mut ended = None;
        let mut up = false;
        while ended.is_none() || !up {
            match self.event().await {
                LinkEvent::Down { reason, .. } => ended = Some(reason),
                LinkEvent::Up { .. } => up = true,
                other @ (LinkEvent::Frame { .. }
                | LinkEvent::Failed { .. }
                | LinkEvent::Joining { .. }
                | LinkEvent::Told { .. }) => panic!("{other:?}"),
            }
        }
        ended.unwrap()
    }

    pub(super) fn try_down(&mut self) -> Option<String> {
        let event = self.events.try_recv().ok()?;
        let LinkEvent::Down { reason, .. } = event else { panic!("no link down but {event:?}") };
        Some(reason)
    }

    pub(super) async fn frame(&mut self) -> Bytes {
        let event = self.event().await;
        let LinkEvent::Frame { bytes, .. } = event else { panic!("no frame but {event:?}") };
        bytes
    }

    /// Carries the frames of a link that the test has dialled.
    pub(super) fn run(&mut self, link: Link) {
        let sender = self.sender.clone();
        self.tasks.spawn(async move {
            link.run(&sender).await;
            Ok(())
        });
    }

    pub(super) async fn stop(mut self) {
        self.links.close().await;
        self.tasks.shutdown().await;
    }
}

pub(super) fn settings(pki: &Pki, name: &str, peers: &[(&str, SocketAddr)]) -> TransportSettings {
    TransportSettings {
        settle_within: Duration::from_secs(2),
        cluster: pki.authority.cluster(),
        region: region(name),
        bind: (Ipv4Addr::LOCALHOST, 0).into(),
        regions: peers.iter().map(|&(name, address)| reached_at(name, address)).collect(),
        http: nowhere(),
        peers: Neighbours::All,
        joining: Joining::default(),
        pki: pki.paths(name, 30),
        frame_bytes: FRAME_BYTES,
        max_frame_bytes: FRAME_BYTES,
        batch_entries: 1_024,
        digest_interval: Duration::from_secs(1),
        reconcile: crate::replication::reconcile::ReconcileSettings::default(),
        delay: BTreeMap::new(),
        link_bandwidth: None,
        bandwidth: BTreeMap::new(),
        packing: Packing::default(),
        max_connections: 64,
    }
}

fn reached_at(name: &str, quic: SocketAddr) -> RegionSettings {
    RegionSettings { name: region(name), quic, http: nowhere(), peers: Neighbours::All }
}

/// The log of this test, from now on.
pub(super) struct Log {
    text: watch::Receiver<String>,
    _guard: DefaultGuard,
}

struct Lines(watch::Sender<String>);

impl Log {
    pub(super) fn capture() -> Self {
        let (sender, text) = watch::channel(String::new());
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || Lines(sender.clone()))
            .finish();
        Self { text, _guard: tracing::subscriber::set_default(subscriber) }
    }

    /// Waits for a warning that contains `text`.
    pub(super) async fn warning(&mut self, text: &str) {
        let found =
            |log: &String| log.lines().any(|line| line.contains("WARN") && line.contains(text));
        let waited = timeout(Duration::from_secs(20), self.text.wait_for(found)).await;
        let found = waited.is_ok_and(|outcome| outcome.is_ok());
        assert!(found, "no warning with '{text}' in:\n{}", *self.text.borrow());
    }

    pub(super) fn count(&self, text: &str) -> usize {
        self.text.borrow().matches(text).count()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send_modify(|log| log.push_str(&String::from_utf8_lossy(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
