//! How a region comes into the cluster, and what a region hears that is not let in.
//!
//! A certificate of the cluster's authority is the right to join; the member table says who is a
//! member. A node that was started with `--join` says in its greeting that it asks to be one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anabranch_crdt::ids::RegionName;
use quinn::{ConnectError, Connection};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::endpoint::{DIAL_TIMEOUT, Links};
use super::greeting::{Greeted, Introduction};
use super::link::{Link, LinkEvent};
use super::refusal::{CloseCode, Failure, Loudness, explain};
use super::region::{Backoff, Dialled};
use super::{greeting, tls};
use crate::pki::{Role, SERVER_NAME};
use crate::replication::{Member, NoLink};

/// Asks one address after the other to take this node in, until one has done so.
pub(super) async fn ask_to_join(links: Arc<Links>) {
    let mut backoff = Backoff::new();
    for &address in links.roster.ask().iter().cycle() {
        if !links.roster.is_joining() {
            return;
        }
        let attempt = timeout(DIAL_TIMEOUT, links.ask(address)).await;
        let silent = || Failure::warn("nobody answers there");
        match attempt.unwrap_or_else(|_| Err(silent())) {
            Ok(link) => return link.run(&links.events).await,
            Err(failure) => links.complain(&format!("--join {address}"), &failure),
        }
        sleep(backoff.next()).await;
    }
}

impl Links {
    /// Dials whoever is at an address, and asks to be taken in.
    async fn ask(&self, address: SocketAddr) -> Result<Link, Failure> {
        let peer = format!("the node at {address}");
        let dialling = self.endpoint.connect_with(self.client.clone(), address, SERVER_NAME);
        let connecting = dialling.map_err(|error| match error {
            ConnectError::EndpointStopping => Failure::quiet("the node is stopping"),
            other @ (ConnectError::CidsExhausted
            | ConnectError::InvalidServerName(_)
            | ConnectError::InvalidRemoteAddress(_)
            | ConnectError::NoDefaultClientConfig
            | ConnectError::UnsupportedVersion) => Failure::warn(other.to_string()),
        })?;
        let connection = connecting.await.map_err(|error| explain(&error, &peer))?;
        let name = self.region_of(&connection).map_err(|why| {
            connection.close(CloseCode::Refused.into(), why.as_bytes());
            Failure::warn(format!("{peer} is refused: {why}"))
        })?;
        let asks = self.roster.introduction();
        let greeted = greeting::hello(&connection, self.boot, &asks, name.as_str()).await?;
        self.hear(&connection, &name, &greeted, asks.joining).await?;
        let region = self.roster.region(&name).ok_or_else(|| {
            connection.close(CloseCode::Done.into(), b"the topology has no link between us");
            Failure::quiet(format!("{name} has taken this node in; there is no link to it"))
        })?;
        self.register(&region, &connection, greeted, Dialled::Here)
    }

    /// Reads from its certificate which region of this cluster a node is of.
    fn region_of(&self, connection: &Connection) -> Result<RegionName, String> {
        let subject = tls::subject(connection)?;
        if subject.cluster != self.cluster {
            let (theirs, ours) = (subject.cluster, self.cluster);
            return Err(format!("its certificate is of cluster {theirs}, this node is of {ours}"));
        }
        match subject.role {
            Role::Region(name) if name != self.own => Ok(name),
            Role::Region(name) => Err(format!("its certificate names {name}, as this node's does")),
            Role::Client(_) | Role::Authority => Err("it is no node of a region".to_owned()),
        }
    }

    /// Takes in what the side that was dialled says in its welcome.
    pub(super) async fn hear(
        &self,
        connection: &Connection,
        by: &RegionName,
        greeted: &Greeted,
        asked: bool,
    ) -> Result<(), Failure> {
        let Introduction { refusal, members, .. } = &greeted.introduction;
        if !members.is_empty() {
            let (heard, done) = oneshot::channel();
            let (by, members) = (by.clone(), members.clone());
            self.decide(LinkEvent::Told { by, members, heard }, done).await?;
        }
        if let Some(reason) = refusal {
            connection.close(CloseCode::Done.into(), b"refused");
            return Err(Failure::warn(format!("{by} refused us: {reason}")));
        }
        if asked {
            self.roster.joined();
        }
        Ok(())
    }

    /// Lets the region in whose certificate the peer has shown, if the member table has a link to
    /// it, or has one because it asks to join.
    pub(super) async fn welcome_region(
        &self,
        connection: Connection,
        name: &RegionName,
    ) -> Result<Link, Failure> {
        let greeted = greeting::await_hello(&connection, name.as_str()).await?;
        let joining = greeted.introduction.joining;
        if joining {
            self.take_in(name, &greeted.introduction).await?;
        }
        let Some(region) = self.roster.region(name) else {
            return Err(self.turn_away(&connection, name, greeted).await);
        };
        let mut link = self.register(&region, &connection, greeted, Dialled::There)?;
        let members = if joining { self.records(name) } else { Vec::new() };
        let answer = Introduction { joining: false, refusal: None, members };
        greeting::welcome(&mut link.writer, self.boot, &answer, name.as_str()).await?;
        Ok(link)
    }

    /// Passes on a region's wish to join; the state machine decides.
    async fn take_in(&self, name: &RegionName, asks: &Introduction) -> Result<(), Failure> {
        let Some(member) = asks.members.iter().find(|member| member.region == *name) else {
            return Ok(());
        };
        let (decided, done) = oneshot::channel();
        self.decide(LinkEvent::Joining { member: member.clone(), decided }, done).await
    }

    /// Gives the driver something to decide, waits until it has, and follows.
    async fn decide(&self, event: LinkEvent, done: oneshot::Receiver<()>) -> Result<(), Failure> {
        let stopping = |_| Failure::quiet("the node is stopping");
        self.events.send(event).await.map_err(stopping)?;
        // The other end is dropped when it is done.
        let _ = done.await;
        self.roster.follow();
        Ok(())
    }

    /// Tells a region that it is not let in, and why.
    async fn turn_away(
        &self,
        connection: &Connection,
        name: &RegionName,
        mut greeted: Greeted,
    ) -> Failure {
        let members = self.roster.members();
        let reason = match members.link_with(name) {
            Err(why) => why.explain(&self.own, name),
            Ok(()) => format!("{} has no room for another region", self.own),
        };
        // Only a region that is gone, or meets one, has something to learn.
        let told = match members.link_with(name) {
            Err(NoLink::Gone(_) | NoLink::OwnGone(_)) => self.records(name),
            Err(NoLink::Unknown | NoLink::Topology) | Ok(()) => Vec::new(),
        };
        let refusal = Some(reason.clone());
        let answer = Introduction { joining: false, refusal, members: told };
        let sent = greeting::welcome(&mut greeted.writer, self.boot, &answer, name.as_str()).await;
        if sent.is_ok() {
            greeted.writer.finish();
            // It closes when it has read why; one that does not is closed.
            drop(timeout(TURN_AWAY_TIMEOUT, connection.closed()).await);
        }
        connection.close(CloseCode::Refused.into(), reason.as_bytes());
        let loudness = if members.get(name).is_some() { Loudness::Quiet } else { Loudness::Warn };
        Failure { reason: format!("{name} is refused: {reason}"), loudness }
    }

    /// The records that a region has to know before there is a link: this node's, and its own.
    fn records(&self, name: &RegionName) -> Vec<Member> {
        let members = self.roster.members();
        let known = |member: &&Member| member.region == *name || member.region == self.own;
        members.iter().filter(known).cloned().collect()
    }
}

/// How long a region that is not let in may take to read why.
const TURN_AWAY_TIMEOUT: Duration = Duration::from_secs(1);
