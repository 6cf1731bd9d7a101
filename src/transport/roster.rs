//! Which regions this node keeps links with: what follows from the member table.
//!
//! The driver replaces the table, because the state machine owns it; the link layer follows it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anabranch_crdt::ids::RegionName;
use tokio::sync::watch;

use super::TransportSettings;
use super::greeting::Introduction;
use super::region::Region;
use crate::replication::{Contact, Member, Members};
use crate::settings::RegionSettings;

/// The member table, and the regions that links are kept with.
#[derive(Debug)]
pub(crate) struct Roster {
    table: watch::Sender<Arc<Members>>,
    regions: Mutex<Regions>,
    /// Where the own file says that regions are: a way in when the table is out of date.
    filed: BTreeMap<RegionName, SocketAddr>,
    delays: BTreeMap<RegionName, Duration>,
    /// Bytes per second to regions that have a cap of their own, and to all others.
    caps: (BTreeMap<RegionName, u64>, Option<u64>),
    ask: Vec<SocketAddr>,
    /// Whether this node asks to be taken in, because nobody has done so since it started.
    joining: AtomicBool,
}

#[derive(Debug, Default)]
struct Regions {
    kept: BTreeMap<RegionName, Arc<Region>>,
    newcomers: Vec<Arc<Region>>,
}

impl Roster {
    /// Starts with what the settings say and an earlier run has `stored`; `bound` is where this
    /// node listens.
    pub(crate) fn new(
        settings: &TransportSettings,
        bound: SocketAddr,
        stored: Vec<Member>,
    ) -> Self {
        let others = settings.regions.iter();
        let filed = others.map(|region| (region.name.clone(), region.quic)).collect();
        let table = table(settings, bound, stored);
        let joining = !settings.joining.ask.is_empty();
        if !table.own_standing().state.counts() && !joining {
            tracing::warn!(
                "this region is {}: it takes no writes and has no links; it returns with \
                 `anabranch serve --join ADDRESS`",
                table.own_standing().as_str()
            );
        }
        let roster = Self {
            table: watch::Sender::new(Arc::new(table)),
            regions: Mutex::default(),
            filed,
            delays: settings.delay.clone(),
            caps: (settings.bandwidth.clone(), settings.link_bandwidth),
            ask: settings.joining.ask.clone(),
            joining: AtomicBool::new(joining),
        };
        roster.follow();
        roster
    }

    pub(crate) fn table(&self) -> &watch::Sender<Arc<Members>> {
        &self.table
    }

    pub(crate) fn members(&self) -> Arc<Members> {
        Arc::clone(&self.table.borrow())
    }

    pub(crate) fn region(&self, name: &RegionName) -> Option<Arc<Region>> {
        self.lock().kept.get(name).cloned()
    }

    /// Takes the regions that came since it was asked last.
    pub(crate) fn newcomers(&self) -> Vec<Arc<Region>> {
        std::mem::take(&mut self.lock().newcomers)
    }

    /// Where nodes are that this one asks to be taken in.
    pub(crate) fn ask(&self) -> &[SocketAddr] {
        &self.ask
    }

    pub(crate) fn is_joining(&self) -> bool {
        self.joining.load(Ordering::Relaxed)
    }

    /// Notes that this node was taken in.
    pub(crate) fn joined(&self) {
        if self.joining.swap(false, Ordering::Relaxed) {
            tracing::info!(members = %self.members(), "this node has joined the cluster");
        }
    }

    /// What this node says of itself when it dials.
    pub(crate) fn introduction(&self) -> Introduction {
        if !self.is_joining() {
            return Introduction::default();
        }
        let members = self.members().itself().cloned().into_iter().collect();
        Introduction { joining: true, refusal: None, members }
    }

    /// Brings the regions in line with the member table.
    pub(crate) fn follow(&self) {
        let members = self.members();
        let mut regions = self.lock();
        regions.kept.retain(|name, region| {
            let wanted = members.link_with(name).is_ok();
            if !wanted {
                region.retire();
            }
            wanted
        });
        for member in members.others().filter(|member| members.link_with(&member.region).is_ok()) {
            let addresses = self.addresses(member);
            match regions.kept.get(&member.region) {
                Some(region) => region.follow(addresses),
                None => {
                    let name = member.region.clone();
                    let delay = self.delays.get(&name).copied().unwrap_or_default();
                    let (single, general) = &self.caps;
                    let cap = single.get(&name).copied().or(*general);
                    let region = Region::new(members.own(), name.clone(), addresses, delay, cap);
                    let region = Arc::new(region);
                    regions.newcomers.push(Arc::clone(&region));
                    regions.kept.insert(name, region);
                }
            }
        }
    }

    fn addresses(&self, member: &Member) -> Vec<SocketAddr> {
        let told = member.contact.as_ref().map(|contact| contact.quic);
        let filed = self.filed.get(&member.region).copied();
        let mut addresses: Vec<SocketAddr> = told.into_iter().chain(filed).collect();
        addresses.dedup();
        addresses
    }

    /// A panic elsewhere cannot leave the regions half changed, so a poisoned lock is usable.
    fn lock(&self) -> MutexGuard<'_, Regions> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn table(settings: &TransportSettings, bound: SocketAddr, stored: Vec<Member>) -> Members {
    let contact = |region: &RegionSettings| Contact {
        quic: region.quic,
        http: region.http,
        peers: region.peers.clone(),
    };
    let seed = |region: &RegionSettings| Member::seed(region.name.clone(), Some(contact(region)));
    let advertised = settings.joining.advertised;
    let own = Contact {
        quic: advertised.quic.unwrap_or(bound),
        http: advertised.http.unwrap_or(settings.http),
        peers: settings.peers.clone(),
    };
    let mut seeds: Vec<Member> = settings.regions.iter().map(seed).collect();
    if !settings.joining.unlisted {
        seeds.push(Member::seed(settings.region.clone(), Some(own.clone())));
    }
    let mut table = Members::seeded(settings.region.clone(), seeds);
    table.restore(stored);
    table.announce(own);
    table
}
