//! The link layer: accepts and dials, checks who the other side is, and keeps one link per region.
//!
//! It knows nothing of replication: links tell [`LinkEvent`]s on a bounded channel.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anabranch_crdt::ids::{ClusterId, RegionName};
use quinn::{ClientConfig, ConnectError, Connection, Endpoint, Incoming};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::Instrument;

use super::greeting::{Greeted, Introduction};
use super::guests::{AddressProof, Admission, Guest, Guests};
use super::leaf::LeafService;
use super::link::{Link, LinkEvent, LinkHandle};
use super::refusal::{CloseCode, Complaints, Failure, Loudness, explain};
use super::region::{Backoff, Dialled, Live, Region};
use super::roster::Roster;
use super::wire::Wire;
use super::{
    BootId, HANDSHAKE_TIMEOUT, TransportSettings, greeting, joining, leaf, pass_on_panic, tls,
};

use crate::error::{Error, ErrorKind};
use crate::pki::{ClientName, Credentials, Role, SERVER_NAME, Subject};
use crate::replication::{LinkId, Member, Members};

/// The link layer of a node.
#[derive(Debug)]
pub(crate) struct Links {
    pub(super) cluster: ClusterId,
    pub(super) own: RegionName,
    pub(super) boot: BootId,
    pub(super) endpoint: Endpoint,
    pub(super) client: ClientConfig,
    pub(super) roster: Roster,
    guests: Arc<Guests>,
    leaf: Option<Arc<dyn LeafService>>,
    pub(super) events: mpsc::Sender<LinkEvent>,
    room: Arc<Notify>,
    next_link: AtomicU64,
    complaints: Mutex<Complaints>,
    frame_bytes: usize,
}

impl Links {
    /// Starts to accept and to dial on `wire`; the tasks belong to `tasks`. `stored` is the member
    /// table of an earlier run.
    pub(crate) fn start(
        settings: &TransportSettings,
        (wire, stored): (io::Result<Wire>, Vec<Member>),
        leaf: Option<Arc<dyn LeafService>>,
        events: mpsc::Sender<LinkEvent>,
        tasks: &mut JoinSet<Result<(), Error>>,
    ) -> Result<Arc<Self>, Error> {
        let credentials = own_credentials(settings)?;
        let server = tls::server(&credentials)?;
        let endpoint = wire.and_then(|wire| wire.endpoint(server));
        let endpoint = endpoint.map_err(|error| cannot_listen(settings.bind, error))?;
        let bound = endpoint.local_addr().map_err(|error| no_socket(&error))?;
        let links = Arc::new(Self {
            cluster: settings.cluster,
            own: settings.region.clone(),
            boot: BootId::random(),
            client: tls::client(&credentials)?,
            endpoint,
            roster: Roster::new(settings, bound, stored),
            guests: Guests::new(settings.max_connections),
            leaf,
            events,
            room: Arc::default(),
            next_link: AtomicU64::new(1),
            complaints: Mutex::default(),
            frame_bytes: settings.max_frame_bytes,
        });
        tasks.spawn(accept_all(Arc::clone(&links)).in_current_span());
        tasks.spawn(keep_all(Arc::clone(&links)).in_current_span());
        Ok(links)
    }

    pub(crate) fn local_addr(&self) -> Result<SocketAddr, Error> {
        self.endpoint.local_addr().map_err(|error| no_socket(&error))
    }

    /// Told when a link has room again for what catches up.
    pub(crate) fn room(&self) -> Arc<Notify> {
        Arc::clone(&self.room)
    }

    pub(crate) fn region(&self, name: &RegionName) -> Option<Arc<Region>> {
        self.roster.region(name)
    }

    /// The member table: the driver replaces it, everybody may follow it.
    pub(crate) fn table(&self) -> &watch::Sender<Arc<Members>> {
        self.roster.table()
    }

    /// Closes every connection, tells the peers why, waits a moment for them to hear it, and
    /// frees the port.
    pub(crate) async fn close(&self) {
        self.endpoint.close(CloseCode::Shutdown.into(), b"the node is shutting down");
        // A peer that is gone does not matter: it notices by itself.
        let _ = timeout(CLOSE_TIMEOUT, self.endpoint.wait_idle()).await;
        if let Err(error) = self.free_port() {
            tracing::debug!("the port stays taken until the last handle is dropped: {error}");
        }
    }

    /// Gives the socket up while handles to the endpoint may still live, so that a node can start
    /// again on the same port at once. Twice, because quinn keeps the last socket but one.
    pub(super) fn free_port(&self) -> std::io::Result<()> {
        for _ in 0..2 {
            self.endpoint.rebind(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?)?;
        }
        Ok(())
    }

    pub(super) fn complain(&self, who: &str, failure: &Failure) {
        if failure.loudness == Loudness::Quiet {
            return tracing::debug!(peer = who, "{}", failure.reason);
        }
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        let due = complaints.due(who, &failure.reason, Instant::now());
        drop(complaints);
        if let Some(repeats) = due {
            tracing::warn!(peer = who, repeats, "{}", failure.reason);
        }
    }

    pub(super) fn forgive(&self, who: &str) {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).forget(who);
    }

    /// Registers a greeted connection as the link to its region.
    pub(super) fn register(
        &self,
        region: &Arc<Region>,
        connection: &Connection,
        greeted: Greeted,
        dialled: Dialled,
    ) -> Result<Link, Failure> {
        let id = LinkId(self.next_link.fetch_add(1, Ordering::Relaxed));
        let handle = LinkHandle::new(id, connection.clone(), region, &self.room, self.frame_bytes);
        let live = Live { handle, dialled, boot: greeted.boot };
        let registration = region.register(live).map_err(|(code, failure)| {
            connection.close(code.into(), failure.reason.as_bytes());
            failure
        })?;
        let Greeted { mut reader, mut writer, .. } = greeted;
        reader.set_limit(self.frame_bytes);
        writer.set_limit(self.frame_bytes);
        Ok(Link { registration, reader, writer })
    }
}

// Dialling.

/// Keeps a link to every region that the member table wants one with.
async fn keep_all(links: Arc<Links>) -> Result<(), Error> {
    let mut keeping = JoinSet::new();
    let mut table = links.table().subscribe();
    if links.roster.is_joining() {
        keeping.spawn(joining::ask_to_join(Arc::clone(&links)).in_current_span());
    }
    loop {
        table.mark_unchanged();
        links.roster.follow();
        for region in links.roster.newcomers() {
            keeping.spawn(keep_linked(Arc::clone(&links), region).in_current_span());
        }
        tokio::select! {
            changed = table.changed() => {
                // The links own the sender, so it cannot be gone.
                drop(changed);
            }
            Some(ended) = keeping.join_next() => pass_on_panic(ended),
        }
    }
}

/// Keeps a link to one region, as far as it is this node's turn to dial, until it is retired.
async fn keep_linked(links: Arc<Links>, region: Arc<Region>) {
    let mut backoff = Backoff::new();
    while let Some(turn) = region.turn().await {
        let attempt = tokio::select! {
            attempt = timeout(DIAL_TIMEOUT, links.dial(&region, turn.address)) => attempt,
            () = region.outdated(&turn) => continue,
        };
        match attempt.unwrap_or_else(|_| Err(silent(&region, turn.address))) {
            Ok(link) => {
                links.forgive(region.name.as_str());
                backoff.link_up();
                link.run(&links.events).await;
                backoff.link_down();
            }
            Err(failure) => {
                region.note_failure();
                links.tell_failed(&region, failure).await;
            }
        }
        region.pause(backoff.next()).await;
    }
}

impl Links {
    pub(super) async fn dial(
        &self,
        region: &Arc<Region>,
        address: SocketAddr,
    ) -> Result<Link, Failure> {
        let peer = region.name.as_str();
        let dialling = self.endpoint.connect_with(self.client.clone(), address, SERVER_NAME);
        let connecting = dialling.map_err(|error| {
            if error == ConnectError::EndpointStopping {
                return Failure::quiet("the node is stopping");
            }
            Failure::warn(format!("{peer} cannot be dialled at {address}: {error}"))
        })?;
        let connection = connecting.await.map_err(|error| explain(&error, peer))?;
        self.check_dialled(&connection, &region.name, address)?;
        let asks = self.roster.introduction();
        let greeted = greeting::hello(&connection, self.boot, &asks, peer).await?;
        self.hear(&connection, &region.name, &greeted, asks.joining).await?;
        self.register(region, &connection, greeted, Dialled::Here)
    }

    /// Checks that the node that answered is of the region that was dialled.
    fn check_dialled(
        &self,
        connection: &Connection,
        region: &RegionName,
        address: SocketAddr,
    ) -> Result<(), Failure> {
        let refuse = |theirs: String, ours: String| {
            connection.close(CloseCode::Refused.into(), theirs.as_bytes());
            Failure::warn(ours)
        };
        let found = tls::subject(connection)
            .map_err(|why| refuse(why.clone(), format!("{region} is refused: {why}")))?;
        let wanted = Subject { cluster: self.cluster, role: Role::Region(region.clone()) };
        if found == wanted {
            return Ok(());
        }
        Err(refuse(
            format!("we dialled {wanted}, and your certificate names {found}"),
            format!(
                "{region} is refused: at {address} answers {found}; check the addresses and the \
                 certificates"
            ),
        ))
    }

    async fn tell_failed(&self, region: &Region, failure: Failure) {
        self.complain(region.name.as_str(), &failure);
        if failure.loudness == Loudness::Warn {
            let (region, reason) = (region.name.clone(), failure.reason);
            // Without a driver there is nobody left to tell.
            let _ = self.events.send(LinkEvent::Failed { region, reason }).await;
        }
    }
}

fn silent(region: &Region, address: SocketAddr) -> Failure {
    Failure::warn(format!("{} does not answer at {address}", region.name))
}

// Accepting.

async fn accept_all(links: Arc<Links>) -> Result<(), Error> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            incoming = links.endpoint.accept() => match incoming {
                Some(incoming) => links.admit(incoming, &mut connections),
                // The endpoint is closed: see the connections out.
                None => break,
            },
            Some(ended) = connections.join_next() => pass_on_panic(ended),
        }
    }
    while let Some(ended) = connections.join_next().await {
        pass_on_panic(ended);
    }
    Ok(())
}

impl Links {
    fn admit(self: &Arc<Self>, incoming: Incoming, connections: &mut JoinSet<()>) {
        let address = incoming.remote_address().ip();
        let proven = incoming.remote_address_validated() || !incoming.may_retry();
        let proof = if proven { AddressProof::Given } else { AddressProof::Missing };
        match self.guests.admit(address, proof) {
            Admission::Accept(guest) => {
                connections.spawn(Arc::clone(self).receive(incoming, guest).in_current_span());
            }
            Admission::Refuse => {
                incoming.refuse();
                let why = "too many connections or handshakes at once: refused";
                self.complain(&address.to_string(), &Failure::warn(why));
            }
            // It fails only for a peer that has proved its address, and such a one is not asked.
            Admission::Retry => drop(incoming.retry()),
        }
    }

    /// Sees one connection through, from the handshake to its end.
    async fn receive(self: Arc<Self>, incoming: Incoming, mut guest: Guest) {
        let from = incoming.remote_address();
        let arrival = timeout(HANDSHAKE_TIMEOUT, self.welcome(incoming)).await;
        guest.settle();
        let failure = match arrival {
            Ok(Ok(Arrival::Region(link))) => {
                self.forgive(link.registration.region.name.as_str());
                return link.run(&self.events).await;
            }
            Ok(Ok(Arrival::Client(connection, client, service))) => {
                let ended = leaf::serve(&connection, &client, &service, self.frame_bytes).await;
                return tracing::debug!(client = %client, "{}", ended.reason);
            }
            Ok(Err(failure)) => failure,
            Err(_) => Failure::warn("the peer did not finish its handshake in time"),
        };
        self.complain(&from.ip().to_string(), &failure);
    }

    async fn welcome(&self, incoming: Incoming) -> Result<Arrival, Failure> {
        let peer = format!("the peer at {}", incoming.remote_address().ip());
        let connecting = incoming.accept().map_err(|error| explain(&error, &peer))?;
        let connection = connecting.await.map_err(|error| explain(&error, &peer))?;
        match self.identify(&connection) {
            Ok(Guise::Region(name)) => {
                let link = self.welcome_region(connection, &name).await?;
                Ok(Arrival::Region(link))
            }
            Ok(Guise::Client(client, service)) => {
                self.welcome_client(connection, client, service).await
            }
            Err(reason) => {
                connection.close(CloseCode::Refused.into(), reason.as_bytes());
                Err(Failure::warn(format!("{peer} is refused: {reason}")))
            }
        }
    }

    /// Reads from its certificate who the peer is, and decides whether it may come in.
    fn identify(&self, connection: &Connection) -> Result<Guise, String> {
        let subject = tls::subject(connection)?;
        if subject.cluster != self.cluster {
            let (theirs, ours) = (subject.cluster, self.cluster);
            return Err(format!("its certificate is of cluster {theirs}, this node is of {ours}"));
        }
        match subject.role {
            Role::Region(name) if name == self.own => {
                Err(format!("its certificate names {name}, which is this node's own region"))
            }
            Role::Region(name) => Ok(Guise::Region(name)),
            Role::Client(name) => match &self.leaf {
                Some(service) => Ok(Guise::Client(name, Arc::clone(service))),
                None => Err("this node takes no clients".to_owned()),
            },
            Role::Authority => Err("an authority's certificate cannot connect".to_owned()),
        }
    }

    async fn welcome_client(
        &self,
        connection: Connection,
        client: ClientName,
        service: Arc<dyn LeafService>,
    ) -> Result<Arrival, Failure> {
        let mut greeted = greeting::await_hello(&connection, client.as_str()).await?;
        let plain = Introduction::default();
        greeting::welcome(&mut greeted.writer, self.boot, &plain, client.as_str()).await?;
        greeted.writer.finish();
        Ok(Arrival::Client(connection, client, service))
    }
}

/// Who a certificate says the peer is.
enum Guise {
    Region(RegionName),
    Client(ClientName, Arc<dyn LeafService>),
}

/// A peer that was let in.
enum Arrival {
    Region(Link),
    Client(Connection, ClientName, Arc<dyn LeafService>),
}

// Starting.

fn own_credentials(settings: &TransportSettings) -> Result<Credentials, Error> {
    let credentials = Credentials::load(&settings.pki)?;
    let own = &credentials.summary().subject;
    let role = Role::Region(settings.region.clone());
    let wanted = Subject { cluster: settings.cluster, role };
    if *own != wanted {
        let file = settings.pki.certificate.display();
        let message = format!(
            "{file} is the certificate of {own}, and this node is {wanted}: issue the right one \
             with `anabranch pki issue --region {} --force`",
            settings.region
        );
        return Err(Error::new(ErrorKind::Invalid, "wrong_certificate", message));
    }
    warn_of_trouble(settings, &credentials);
    Ok(credentials)
}

/// Peers will refuse a bad certificate, but a node that stands alone still serves its region.
fn warn_of_trouble(settings: &TransportSettings, credentials: &Credentials) {
    let file = settings.pki.certificate.display();
    let region = &settings.region;
    let cure = format!("issue a new one with `anabranch pki issue --region {region} --force`");
    if let Err(reason) = credentials.check(Duration::ZERO) {
        tracing::warn!(%file, "peers will refuse this node's certificate: {reason}; {cure}");
    } else if credentials.check(EXPIRY_NOTICE).is_err() {
        let end = credentials.summary().validity.not_after;
        tracing::warn!(%file, "this node's certificate expires at {end}; {cure}");
    }
}

fn no_socket(error: &std::io::Error) -> Error {
    let message = format!("the UDP socket has no address: {error}");
    Error::new(ErrorKind::Unavailable, "no_socket", message)
}

fn cannot_listen(address: SocketAddr, error: std::io::Error) -> Error {
    let message = format!("cannot listen on {address} (UDP): {error}");
    Error::new(ErrorKind::Unavailable, "cannot_listen", message)
}

/// An attempt to dial that takes longer is begun afresh, before QUIC's own pauses grow long.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a node that stops waits for its peers to hear it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long before its certificate expires a node warns at its start.
const EXPIRY_NOTICE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
