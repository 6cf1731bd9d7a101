//! What this node holds of one peer region: its address, its one live link, and whether an
//! operator has cut it.
//!
//! # Why one side dials first
//! Both regions know each other's address. If both dialled at once, each could close the link
//! that the other keeps. So the region whose name sorts lower dials; the other one stands by and
//! dials only when no link came about. Where two links meet all the same, both sides apply one
//! rule and agree: the link that the lower one dialled stays, except that a peer which has
//! restarted (its boot id tells) always gets its new link.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anabranch_crdt::ids::RegionName;
use rand::Rng;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::link::LinkHandle;
use super::pacer::Pacer;
use super::refusal::{CloseCode, Failure};
use super::traffic::Counters;
use super::{BootId, LinkState};
use crate::replication::LinkId;

/// One peer region.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) name: RegionName,
    /// Whether this node is the one to dial first.
    dials_first: bool,
    /// The addresses that the member table and the file named last.
    told: Mutex<Vec<SocketAddr>>,
    /// Whether it has waited for the other side since this process started.
    stood_by: AtomicBool,
    /// The artificial one-way delay of frames to it, in microseconds.
    delay: AtomicU64,
    /// The cap, which links that follow each other share.
    pacer: Pacer,
    /// What went over them.
    counters: Counters,
    state: watch::Sender<RegionState>,
}

#[derive(Debug, Clone)]
struct RegionState {
    /// Where its node may be: what the member table says, then what the own file says.
    addresses: Vec<SocketAddr>,
    /// Counts the attempts that failed; each takes the next address.
    failed: usize,
    link: LinkState,
    live: Option<Live>,
    /// Rises whenever waiting has become pointless.
    poked: u64,
    /// Whether there is to be no link any more, whatever else is said here.
    retired: bool,
}

/// Where to dial.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) address: SocketAddr,
    poked: u64,
}

/// A link that is up.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) handle: LinkHandle,
    pub(crate) dialled: Dialled,
    pub(crate) boot: BootId,
}

/// Which side opened a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialled {
    /// This node.
    Here,
    /// The peer.
    There,
}

impl Region {
    pub(crate) fn new(
        own: &RegionName,
        name: RegionName,
        addresses: Vec<SocketAddr>,
        delay: Duration,
        bandwidth: Option<u64>,
    ) -> Self {
        let state = RegionState {
            addresses: addresses.clone(),
            failed: 0,
            link: LinkState::Up,
            live: None,
            poked: 0,
            retired: false,
        };
        let region = Self {
            told: Mutex::new(addresses),
            dials_first: *own < name,
            stood_by: AtomicBool::new(false),
            name,
            delay: AtomicU64::new(0),
            pacer: Pacer::new(bandwidth),
            counters: Counters::default(),
            state: watch::channel(state).0,
        };
        region.set_delay(delay);
        region
    }

    pub(crate) fn delay(&self) -> Duration {
        Duration::from_micros(self.delay.load(Ordering::Relaxed))
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) fn pacer(&self) -> &Pacer {
        &self.pacer
    }

    pub(crate) fn set_delay(&self, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.delay.store(micros, Ordering::Relaxed);
    }

    pub(crate) fn set_address(&self, address: SocketAddr) {
        self.dial_at(vec![address]);
    }

    /// Takes the addresses that the member table and the file name; the same ones again change
    /// nothing.
    pub(crate) fn follow(&self, addresses: Vec<SocketAddr>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != addresses {
            told.clone_from(&addresses);
            drop(told);
            self.dial_at(addresses);
        }
    }

    fn dial_at(&self, addresses: Vec<SocketAddr>) {
        self.state.send_modify(|state| {
            state.addresses = addresses;
            state.failed = 0;
            state.poked += 1;
        });
    }

    /// Notes that an attempt failed; the next one takes the next address.
    pub(crate) fn note_failure(&self) {
        self.state.send_if_modified(|state| {
            state.failed = state.failed.wrapping_add(1);
            false
        });
    }

    /// Ends all dialling for good. The state machine closes the live link, if there is one, when
    /// the peer has heard why.
    pub(crate) fn retire(&self) {
        self.state.send_modify(|state| {
            state.retired = true;
            state.poked += 1;
        });
    }

    /// Counts the bytes of datagrams that the live link has sent and received.
    pub(crate) fn datagram_bytes(&self) -> Option<(u64, u64)> {
        self.state.borrow().live.as_ref().map(|live| live.handle.datagram_bytes())
    }

    /// Cuts the link or lets it come up again.
    pub(crate) fn set_link(&self, link: LinkState) {
        let mut cut = None;
        self.state.send_modify(|state| {
            state.link = link;
            state.poked += 1;
            cut = if link == LinkState::Cut { state.live.take() } else { None };
        });
        if let Some(live) = cut {
            live.handle.close(CloseCode::Cut, CUT);
        }
    }

    /// Makes `new` the live link, unless it is not wanted; an older one that gives way is closed.
    pub(crate) fn register(
        self: &Arc<Self>,
        new: Live,
    ) -> Result<Registration, (CloseCode, Failure)> {
        let handle = new.handle.clone();
        let mut outcome = Ok(None);
        self.state.send_modify(|state| {
            outcome = if state.retired {
                Err((CloseCode::Refused, Failure::quiet("the member table has changed")))
            } else if state.link == LinkState::Cut {
                Err((CloseCode::Cut, Failure::warn(CUT)))
            } else if state.live.as_ref().is_some_and(|old| self.keeps(old, &new)) {
                Err((CloseCode::AlreadyLinked, Failure::quiet("another link is kept")))
            } else {
                Ok(state.live.replace(new))
            };
        });
        if let Some(old) = outcome? {
            old.handle.close(CloseCode::Replaced, "a newer link takes its place");
        }
        Ok(Registration { region: Arc::clone(self), handle })
    }

    fn unregister(&self, link: LinkId) {
        self.state.send_if_modified(|state| {
            let gone = state.live.as_ref().is_some_and(|live| live.handle.id() == link);
            if gone {
                state.live = None;
            }
            gone
        });
    }

    fn keeps(&self, old: &Live, new: &Live) -> bool {
        let preferred = if self.dials_first { Dialled::Here } else { Dialled::There };
        old.boot == new.boot && old.dialled == preferred && new.dialled != preferred
    }

    /// Waits until a link is wanted and it is this node's turn to dial; `None` if none will ever
    /// be wanted.
    pub(crate) async fn turn(&self) -> Option<Turn> {
        let mut state = self.state.subscribe();
        loop {
            let wanted = state.wait_for(|s| s.retired || s.wants_link()).await;
            // The sender lives as long as `self`, so waiting cannot fail.
            let Ok(turn) = wanted.map(|s| s.turn()) else { continue };
            let turn = turn?;
            if self.dials_first {
                return Some(turn);
            }
            let other_came = state.wait_for(|s| !s.wants_link() || s.poked != turn.poked);
            // A process that has just started is awaited by nobody any more.
            let first = !self.stood_by.swap(true, Ordering::Relaxed);
            let standby = if first { FIRST_STANDBY } else { STANDBY };
            if timeout(jittered(standby), other_came).await.is_err() {
                return Some(turn);
            }
        }
    }

    /// Waits until an attempt that began with `turn` has become pointless.
    pub(crate) async fn outdated(&self, turn: &Turn) {
        let mut state = self.state.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = state.wait_for(|s| s.poked != turn.poked).await;
    }

    /// Waits out a pause, or until waiting has become pointless.
    pub(crate) async fn pause(&self, pause: Duration) {
        let mut state = self.state.subscribe();
        let poked = state.borrow().poked;
        let changed = state.wait_for(|s| s.poked != poked || s.live.is_some());
        // Both outcomes mean the same: look again.
        let _ = timeout(pause, changed).await;
    }
}

/// The place of a link as the live one of its region; the link closes when this is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) region: Arc<Region>,
    pub(crate) handle: LinkHandle,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.handle.close(CloseCode::Done, "the link has ended");
        self.region.unregister(self.handle.id());
    }
}

impl RegionState {
    fn wants_link(&self) -> bool {
        let free = self.link == LinkState::Up && self.live.is_none();
        free && !self.retired && !self.addresses.is_empty()
    }

    fn turn(&self) -> Option<Turn> {
        if self.retired {
            return None;
        }
        let next = self.failed.checked_rem(self.addresses.len())?;
        Some(Turn { address: *self.addresses.get(next)?, poked: self.poked })
    }
}

/// Pauses between attempts: doubling, with full jitter, so that regions which lost each other at
/// one moment do not come back at one moment.
#[derive(Debug)]
pub(crate) struct Backoff {
    ceiling: Duration,
    began: Instant,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { ceiling: FIRST_BACKOFF, began: Instant::now() }
    }

    /// Notes that a link came up.
    pub(crate) fn link_up(&mut self) {
        self.began = Instant::now();
    }

    /// Notes that the link went down; one that held for a while earns a fresh start.
    pub(crate) fn link_down(&mut self) {
        if self.began.elapsed() >= HEALTHY {
            self.ceiling = FIRST_BACKOFF;
        }
    }

    pub(crate) fn next(&mut self) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = (ceiling * 2).min(LAST_BACKOFF);
        ceiling.mul_f64(rand::rng().random_range(0.05..=1.0))
    }
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.8..=1.2))
}

const CUT: &str = "the link is cut by an operator";

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(5);

/// A link that held for so long was a good one.
const HEALTHY: Duration = Duration::from_secs(10);

/// How long the region that does not dial first waits for the other one after its start: its first
/// write may wait for the link.
const FIRST_STANDBY: Duration = Duration::from_millis(200);

/// How long the region that does not dial first waits for the other one.
const STANDBY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound() {
        let mut backoff = Backoff::new();
        for ceiling in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            let pause = backoff.next();
            assert!(pause <= Duration::from_millis(ceiling), "{pause:?} > {ceiling} ms");
        }
        backoff.link_up();
        backoff.link_down();
        assert_eq!(backoff.ceiling, LAST_BACKOFF, "a short link earns nothing");
    }
}
