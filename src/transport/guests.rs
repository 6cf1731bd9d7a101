//! Who may come in: caps on connections, counted before anything is known of the peer.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What to do with a connection attempt.
#[derive(Debug)]
pub(crate) enum Admission {
    /// Go on with the handshake, and keep the guest as long as the connection.
    Accept(Guest),
    /// Make the peer prove its address first.
    Retry,
    /// Refuse it without a handshake.
    Refuse,
}

/// Counts the connections that others opened.
#[derive(Debug)]
pub(crate) struct Guests {
    counts: Mutex<Counts>,
    max_connections: usize,
}

#[derive(Debug, Default)]
struct Counts {
    connections: usize,
    handshakes: usize,
    by_address: BTreeMap<IpAddr, Share>,
}

/// What one address holds.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    connections: usize,
    handshakes: usize,
}

/// One connection that counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    guests: Arc<Guests>,
    address: IpAddr,
    handshaking: bool,
}

impl Guests {
    pub(crate) fn new(max_connections: usize) -> Arc<Self> {
        Arc::new(Self { counts: Mutex::default(), max_connections })
    }

    /// Decides on a connection attempt from `address`, which the peer has proved or not.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr, proof: AddressProof) -> Admission {
        let mut counts = self.lock();
        let share = counts.by_address.get(&address).copied().unwrap_or_default();
        let room = counts.connections < self.max_connections
            && counts.handshakes < MAX_HANDSHAKES
            && share.connections < MAX_PER_ADDRESS
            && share.handshakes < MAX_HANDSHAKES_PER_ADDRESS;
        if !room {
            return Admission::Refuse;
        }
        if proof == AddressProof::Missing && counts.handshakes >= RETRY_FROM {
            return Admission::Retry;
        }
        counts.connections += 1;
        counts.handshakes += 1;
        let share = counts.by_address.entry(address).or_default();
        share.connections += 1;
        share.handshakes += 1;
        Admission::Accept(Guest { guests: Arc::clone(self), address, handshaking: true })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a peer has shown that it receives what is sent to its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddressProof {
    /// It has.
    Given,
    /// Its address may be forged.
    Missing,
}

impl Guest {
    /// Says that the handshake is over.
    pub(crate) fn settle(&mut self) {
        if std::mem::take(&mut self.handshaking) {
            let mut counts = self.guests.lock();
            counts.handshakes = counts.handshakes.saturating_sub(1);
            if let Some(share) = counts.by_address.get_mut(&self.address) {
                share.handshakes = share.handshakes.saturating_sub(1);
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.settle();
        let mut counts = self.guests.lock();
        counts.connections = counts.connections.saturating_sub(1);
        if let Some(share) = counts.by_address.get_mut(&self.address) {
            share.connections = share.connections.saturating_sub(1);
        }
        if counts.by_address.get(&self.address).is_some_and(|share| share.connections == 0) {
            counts.by_address.remove(&self.address);
        }
    }
}

/// Handshakes under way at once; each costs a signature.
const MAX_HANDSHAKES: usize = 64;

/// From so many handshakes on, a peer must prove its address.
const RETRY_FROM: usize = 16;

/// Handshakes from one address at once, so that slow ones cannot keep everybody else out.
const MAX_HANDSHAKES_PER_ADDRESS: usize = 16;

/// Connections from one address at once; several clients may share one.
const MAX_PER_ADDRESS: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(n))
    }

    fn accept(guests: &Arc<Guests>, n: u32, proof: AddressProof) -> Option<Guest> {
        match guests.admit(address(n), proof) {
            Admission::Accept(guest) => Some(guest),
            Admission::Retry | Admission::Refuse => None,
        }
    }

    #[test]
    fn a_flood_of_handshakes_must_prove_its_addresses_and_ends_at_the_cap() {
        let guests = Guests::new(1_000);
        let mut held: Vec<_> =
            (0..16).map(|n| accept(&guests, n, AddressProof::Missing).unwrap()).collect();
        assert!(matches!(guests.admit(address(99), AddressProof::Missing), Admission::Retry));
        held.extend((16..64).map(|n| accept(&guests, n, AddressProof::Given).unwrap()));
        assert!(matches!(guests.admit(address(99), AddressProof::Given), Admission::Refuse));
        held.iter_mut().for_each(Guest::settle);
        assert!(accept(&guests, 99, AddressProof::Missing).is_some());
    }

    #[test]
    fn one_address_cannot_take_all_and_what_is_dropped_is_free_again() {
        let guests = Guests::new(1_000);
        let open = || {
            let mut guest = accept(&guests, 1, AddressProof::Given)?;
            guest.settle();
            Some(guest)
        };
        let held: Vec<_> = std::iter::from_fn(open).collect();
        assert_eq!(held.len(), MAX_PER_ADDRESS);
        assert!(accept(&guests, 2, AddressProof::Given).is_some());
        drop(held);
        assert!(open().is_some());

        let slow = std::iter::from_fn(|| accept(&guests, 1, AddressProof::Given));
        let slow: Vec<_> = slow.collect();
        assert_eq!(slow.len(), MAX_HANDSHAKES_PER_ADDRESS);
        assert!(accept(&guests, 2, AddressProof::Given).is_some());
        drop(slow);
        assert!(guests.lock().by_address.is_empty());
    }
}
