//! A cluster on this machine: a folder with regions.toml, certificates and data directories, and
//! ports that nothing else has.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::http::Http;
use super::support::{Running, anabranch, eventually};

/// The id of every cluster here that does not ask for another one.
pub(super) const CLUSTER: &str = "0d4f8a52-3c1e-4b7a-9f60-2b8c7d5e6a10";

/// A cluster that can be started.
#[derive(Debug)]
pub(super) struct Topology {
    folder: TempDir,
    regions: Vec<Region>,
}

/// Where a region listens.
#[derive(Debug, Clone)]
pub(super) struct Region {
    pub(super) name: &'static str,
    pub(super) http: SocketAddr,
    pub(super) quic: SocketAddr,
}

impl Topology {
    /// Writes a regions.toml for these regions, on free ports; `more` follows at its end.
    pub(super) fn new(names: &[&'static str], more: &str) -> Self {
        let region = |name: &&'static str| Region { name, http: free(), quic: free() };
        let regions: Vec<Region> = names.iter().map(region).collect();
        let folder = tempfile::tempdir().unwrap();
        let topology = Self { folder, regions };
        topology.write("regions.toml", &format!("{}{more}", topology.text()));
        topology
    }

    /// Makes the certificates by the commands that people use.
    pub(super) fn certified(names: &[&'static str], more: &str) -> Self {
        let topology = Self::new(names, more);
        topology.pki(&["init", "--cluster-id", CLUSTER]);
        names.iter().for_each(|name| topology.pki(&["issue", "--region", name]));
        topology
    }

    fn pki(&self, arguments: &[&str]) {
        let mut command = anabranch();
        command.arg("pki").args(arguments).arg("--dir").arg(self.path("pki"));
        Running::start(command).end().exits(0);
    }

    /// Returns what regions.toml says.
    pub(super) fn text(&self) -> String {
        let head = format!("[cluster]\nname = \"test\"\nid = \"{CLUSTER}\"\n");
        let regions = self.regions.iter().map(|region| {
            let Region { name, quic, http } = region;
            format!("\n[[region]]\nname = \"{name}\"\nquic = \"{quic}\"\nhttp = \"{http}\"\n")
        });
        std::iter::once(head).chain(regions).collect()
    }

    /// Returns a path in the folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file in the folder, and returns its path.
    pub(super) fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Returns a region.
    pub(super) fn region(&self, name: &str) -> &Region {
        self.regions.iter().find(|region| region.name == name).unwrap()
    }

    /// Returns a region's node as an URL.
    pub(super) fn url(&self, name: &str) -> String {
        format!("http://{}", self.region(name).http)
    }

    /// Connects to a region's node.
    pub(super) fn http(&self, name: &str) -> Http {
        Http::new(self.region(name).http)
    }

    /// Prepares the node of a region, as an init system would call it.
    pub(super) fn command(&self, name: &str) -> Command {
        let mut command = anabranch();
        command.current_dir(&self.folder);
        command.args(["serve", "--region", name, "--data", name]);
        command
    }

    /// Starts the node of a region, and waits until it takes requests.
    pub(super) fn serve(&self, name: &str) -> Running {
        let mut node = Running::start(self.command(name));
        ready(&mut node, self.region(name).http);
        node
    }
}

/// Waits until a node takes requests.
pub(super) fn ready(node: &mut Running, address: SocketAddr) {
    eventually("waiting for a node", || {
        if let Some(status) = node.ended() {
            panic!("the node ended with {status}: {}", node.said());
        }
        let reply = Http::new(address).send("GET", "/readyz", "", "");
        match reply.map_err(|error| error.to_string())?.status {
            200 => Ok(()),
            status => Err(format!("not ready: {status}")),
        }
    });
}

/// Waits until a node is linked with so many peers.
pub(super) fn linked(node: &mut Http, peers: usize) {
    eventually("waiting for links", || {
        let status = node.get("/v1/replication");
        let connected = status["peers"].as_array().unwrap().iter();
        match connected.filter(|peer| peer["connected"] == true).count() {
            count if count == peers => Ok(()),
            _ => Err(status.to_string()),
        }
    });
}

/// Returns an address that is free for TCP and UDP, and given out only once. It is below the
/// ports that systems give to outgoing connections: one of those could take the port of a node
/// between its end and its restart.
pub(super) fn free() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(97) % SPAN;
    let mut candidates = std::iter::repeat_with(|| {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % SPAN;
        SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()))
    });
    let free = |address: &SocketAddr| {
        TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
    };
    candidates.by_ref().take(SPAN as usize).find(free).expect("a machine has free ports")
}

const FIRST: u32 = 10_000;
const SPAN: u32 = 20_000;
