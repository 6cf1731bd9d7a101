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
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
    address: SocketAddr,
    link: LinkState,
    live: Option<Live>,
    /// Rises whenever waiting has become pointless.
    poked: u64,
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
        address: SocketAddr,
        delay: Duration,
        bandwidth: Option<u64>,
    ) -> Self {
        let state = RegionState { address, link: LinkState::Up, live: None, poked: 0 };
        let region = Self {
            dials_first: *own < name,
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
        self.state.send_modify(|state| {
            state.address = address;
            state.poked += 1;
        });
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
            outcome = if state.link == LinkState::Cut {
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

    /// Waits until a link is wanted and it is this node's turn to dial.
    pub(crate) async fn turn(&self) -> Turn {
        let mut state = self.state.subscribe();
        loop {
            let wanted = state.wait_for(RegionState::wants_link).await;
            let turn = wanted.map(|s| Turn { address: s.address, poked: s.poked });
            // The sender lives as long as `self`, so waiting cannot fail.
            let Ok(turn) = turn else { continue };
            if self.dials_first {
                return turn;
            }
            let other_came = state.wait_for(|s| !s.wants_link() || s.poked != turn.poked);
            if timeout(jittered(STANDBY), other_came).await.is_err() {
                return turn;
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
        self.link == LinkState::Up && self.live.is_none()
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
