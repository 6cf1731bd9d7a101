//! The member table: which regions the cluster has, where each is reached, and where it stands.
//!
//! It is seeded from the configuration, changed by operators and by regions that join or move,
//! and kept equal everywhere by gossip. It decides which links there are ([`Members::link_with`])
//! and who counts ([`Members::voters`]). It is pure data: nothing here sends or stores anything.
//!
//! # Why two versions in one record
//!
//! A region's *contact* (addresses, and the links it wants) is its own business, its *standing*
//! (active, draining, gone) is an operator's, who may act on any node. Had a record one version,
//! an operator who drains a region while it moves to another address would undo the move. So each
//! half has a counter of its own; of two halves with one counter the greater content wins. Both
//! halves are joins of a semilattice, so the order and number of messages do not matter.
//!
//! # Why a seed has version 0 and stays at home
//!
//! A configuration file may name an address that only its own machine can use, such as a tunnel's.
//! A contact of version 0 is therefore never taken from others by a node whose own file has one;
//! it is told only to those who know nothing of the region.

#[cfg(test)]
pub(super) mod arbitrary;
mod record;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

// The addresses are data here; nothing is dialled.
use core::net::SocketAddr;

use anabranch_crdt::ids::RegionName;
use twox_hash::XxHash3_64;

use super::MemberState;

pub use record::{MemberDecodeError, decode_members, encode_members};

/// The most regions that a table holds, those that are gone included.
pub const MAX_MEMBERS: usize = 256;

/// The most regions that can be members at one time: a vector of what each has is kept by each.
pub const MAX_ACTIVE_MEMBERS: usize = 64;

/// Which other regions a region wants links with.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Neighbours {
    /// Every region.
    #[default]
    All,
    /// These alone.
    Only(BTreeSet<RegionName>),
}

impl Neighbours {
    /// Tells whether a region is among them.
    #[must_use]
    pub fn contains(&self, region: &RegionName) -> bool {
        match self {
            Self::All => true,
            Self::Only(regions) => regions.contains(region),
        }
    }
}

/// How a region is reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Contact {
    /// Where other regions and offline-first clients reach its node (UDP).
    pub quic: SocketAddr,
    /// Where applications reach its node (TCP).
    pub http: SocketAddr,
    /// The regions that it wants links with.
    pub peers: Neighbours,
}

/// Where a region stands, and whether it is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Standing {
    /// Where it stands.
    pub state: MemberState,
    /// Whether it is to leave as soon as every other region has all that it has. Only a draining
    /// region can be.
    pub leaving: bool,
}

impl Standing {
    /// The standing of a region in normal service.
    pub const ACTIVE: Self = Self { state: MemberState::Active, leaving: false };

    /// Returns one word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match (self.state, self.leaving) {
            (MemberState::Active, _) => "active",
            (MemberState::Draining, false) => "draining",
            (MemberState::Draining, true) => "leaving",
            (MemberState::Left, _) => "left",
            (MemberState::Forgotten, _) => "forgotten",
        }
    }
}

/// Counts the changes of one half of a record; 0 is what a configuration file says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberVersion(pub u64);

impl MemberVersion {
    fn next(self) -> Self {
        Self(self.0.saturating_add(1).min(MAX_VERSION))
    }
}

/// What is known of one region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The region.
    pub region: RegionName,
    /// How it is reached, if that is known.
    pub contact: Option<Contact>,
    /// How often the contact has changed.
    pub contact_version: MemberVersion,
    /// Where it stands.
    pub standing: Standing,
    /// How often the standing has changed.
    pub standing_version: MemberVersion,
}

impl Member {
    /// Makes the record of an active region as a configuration file names it.
    #[must_use]
    pub fn seed(region: RegionName, contact: Option<Contact>) -> Self {
        Self {
            region,
            contact,
            contact_version: MemberVersion::default(),
            standing: Standing::ACTIVE,
            standing_version: MemberVersion::default(),
        }
    }

    fn wants(&self, region: &RegionName) -> bool {
        self.contact.as_ref().is_none_or(|contact| contact.peers.contains(region))
    }
}

/// What an operator does to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberAct {
    /// It takes no more writes, and goes on with everything else.
    Drain,
    /// It takes writes again.
    Undrain,
    /// It takes no more writes, and leaves once every other region has all that it has.
    Leave,
    /// It is given up: the others go on without it.
    Forget,
}

/// Why a member cannot be dealt with like that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SteerError {
    /// No such region.
    #[error("there is no region {0} in this cluster")]
    Unknown(RegionName),
    /// No region would be left to take writes.
    #[error("{0} is the last region that takes writes")]
    Last(RegionName),
    /// The region is gone.
    #[error("{0} is {1}: it returns by `anabranch serve --join`")]
    Gone(RegionName, &'static str),
    /// A node cannot forget the region that it serves.
    #[error("{0} is this node's own region: let it leave, or ask another region to forget it")]
    Own(RegionName),
}

/// Why there is no link between this node and a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoLink {
    /// This node's own region is gone.
    OwnGone(Standing),
    /// The region is not in the table.
    Unknown,
    /// The region is gone.
    Gone(Standing),
    /// One of the two wants links with others only.
    Topology,
}

impl NoLink {
    /// Says it to the region that is refused.
    #[must_use]
    pub fn explain(&self, own: &RegionName, region: &RegionName) -> String {
        match self {
            Self::OwnGone(standing) => {
                format!("{own} is no longer a region of this cluster: it is {}", standing.as_str())
            }
            Self::Unknown => format!(
                "{region} is not in this cluster's list of regions; a new region joins with \
                 `anabranch serve --join ADDRESS`"
            ),
            Self::Gone(standing) => format!(
                "{region} is no longer a region of this cluster: it is {}; it returns with \
                 `anabranch serve --join ADDRESS`",
                standing.as_str()
            ),
            Self::Topology => {
                format!("the topology has no link between {own} and {region} (see `peers`)")
            }
        }
    }
}

/// Whose word a contact of version 0 is; the greater one is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    Hearsay,
    Itself,
    File,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    member: Member,
    word: Word,
}

/// The member table of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    own: RegionName,
    rows: BTreeMap<RegionName, Row>,
}

impl Members {
    /// Makes a table of what a configuration says; the own region is in it in any case.
    #[must_use]
    pub fn seeded(own: RegionName, seeds: impl IntoIterator<Item = Member>) -> Self {
        let row = |member: Member| (member.region.clone(), Row { member, word: Word::File });
        let mut rows: BTreeMap<_, _> = seeds.into_iter().map(row).collect();
        let itself = || Row { member: Member::seed(own.clone(), None), word: Word::Hearsay };
        rows.entry(own.clone()).or_insert_with(itself);
        Self { own, rows }
    }

    /// Makes a table of names alone, all active and linked.
    #[must_use]
    pub fn named(own: RegionName, peers: &[RegionName]) -> Self {
        Self::seeded(own, peers.iter().map(|peer| Member::seed(peer.clone(), None)))
    }

    /// Adds what an earlier run has stored. A contact that the configuration names holds against
    /// a stored one that never changed.
    pub fn restore(&mut self, stored: Vec<Member>) {
        for member in stored {
            if member.region != self.own {
                self.absorb(member, Word::Hearsay);
            } else if let Some(row) = self.rows.get_mut(&self.own) {
                // What others were told of it; `announce` compares it with what is true now.
                *row = Row { member, word: Word::Itself };
            }
        }
    }

    /// Says how the own region is reached in this run; a change is one that all others hear of.
    pub fn announce(&mut self, contact: Contact) {
        let own = self.own.clone();
        let Some(row) = self.rows.get_mut(&own) else { return };
        let member = &mut row.member;
        if member.contact.as_ref() != Some(&contact) && row.word != Word::File {
            member.contact_version = member.contact_version.next();
        }
        member.contact = Some(contact);
        row.word = Word::Itself;
    }

    /// Returns the own region.
    #[must_use]
    pub fn own(&self) -> &RegionName {
        &self.own
    }

    /// Returns the record of the own region.
    #[must_use]
    pub fn itself(&self) -> Option<&Member> {
        self.get(&self.own)
    }

    /// Returns where the own region stands.
    #[must_use]
    pub fn own_standing(&self) -> Standing {
        self.itself().map_or(Standing::ACTIVE, |member| member.standing)
    }

    /// Returns the record of a region.
    #[must_use]
    pub fn get(&self, region: &RegionName) -> Option<&Member> {
        self.rows.get(region).map(|row| &row.member)
    }

    /// Iterates over every record, those of gone regions included, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.rows.values().map(|row| &row.member)
    }

    /// Iterates over the regions that count, the own one included: active ones and draining ones.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.iter().filter(|member| member.standing.state.counts())
    }

    /// Iterates over the other regions that count.
    pub fn others(&self) -> impl Iterator<Item = &Member> {
        self.voters().filter(|member| member.region != self.own)
    }

    /// Tells whether there is to be a link to a region.
    ///
    /// # Errors
    /// Why not.
    pub fn link_with(&self, region: &RegionName) -> Result<(), NoLink> {
        let own = self.own_standing();
        if !own.state.counts() {
            return Err(NoLink::OwnGone(own));
        }
        let member = self.get(region).ok_or(NoLink::Unknown)?;
        if !member.standing.state.counts() {
            return Err(NoLink::Gone(member.standing));
        }
        let wanted = self.itself().is_none_or(|itself| itself.wants(region));
        if wanted && member.wants(&self.own) { Ok(()) } else { Err(NoLink::Topology) }
    }

    /// Returns a hash over what all nodes have to agree on.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let agreed = |member: &Member| {
            let mut member = member.clone();
            // What a file says is the business of its node.
            if member.contact_version == MemberVersion::default() {
                member.contact = None;
            }
            member
        };
        let agreed: Vec<Member> = self.iter().map(agreed).collect();
        XxHash3_64::oneshot(&encode_members(&agreed))
    }

    /// Encodes the table for storage.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let all: Vec<Member> = self.iter().cloned().collect();
        encode_members(&all)
    }

    /// Takes in what another region says; returns what is new by it.
    pub fn merge(&mut self, told: Vec<Member>, by: &RegionName) -> Vec<Member> {
        let mut changed = Vec::new();
        for member in told {
            let region = member.region.clone();
            let word = if region == *by { Word::Itself } else { Word::Hearsay };
            if self.absorb(member, word) {
                changed.extend(self.get(&region).cloned());
            }
        }
        changed
    }

    /// Takes in a region that asks to join, or to return, under its own name.
    pub fn admit(&mut self, joining: Member) -> Vec<Member> {
        let region = joining.region.clone();
        let standing = self.get(&region).map(|known| known.standing);
        let standing_version = self.get(&region).map_or(joining.standing_version, |known| {
            known.standing_version.max(joining.standing_version)
        });
        let mut changed = self.absorb(joining, Word::Itself);
        let Some(row) = self.rows.get_mut(&region) else { return Vec::new() };
        if standing.is_none_or(|standing| !standing.state.counts()) {
            row.member.standing = Standing::ACTIVE;
            row.member.standing_version = standing_version.next();
            changed = true;
        }
        if changed { vec![row.member.clone()] } else { Vec::new() }
    }

    /// Tells whether one more region can join.
    #[must_use]
    pub fn has_room_for(&self, region: &RegionName) -> bool {
        let known = self.rows.contains_key(region) || self.rows.len() < MAX_MEMBERS;
        let counts = self.voters().any(|member| member.region == *region);
        known && (counts || self.voters().count() < MAX_ACTIVE_MEMBERS)
    }

    /// Does what an operator asks for; returns what is new by it.
    ///
    /// # Errors
    /// See [`SteerError`]; nothing is changed then.
    pub fn steer(
        &mut self,
        region: &RegionName,
        act: MemberAct,
    ) -> Result<Vec<Member>, SteerError> {
        let standing = self.judge(region, act)?;
        Ok(self.set_standing(region, standing))
    }

    /// Tells what an act would lead to.
    ///
    /// # Errors
    /// See [`SteerError`].
    pub fn judge(&self, region: &RegionName, act: MemberAct) -> Result<Standing, SteerError> {
        let member = self.get(region).ok_or_else(|| SteerError::Unknown(region.clone()))?;
        let now = member.standing;
        let gone = !now.state.counts();
        if gone && act != MemberAct::Forget {
            return Err(SteerError::Gone(region.clone(), now.as_str()));
        }
        let active = |member: &&Member| member.standing.state == MemberState::Active;
        let others_write = self.iter().filter(active).any(|member| member.region != *region);
        let draining = |leaving| Standing { state: MemberState::Draining, leaving };
        match act {
            MemberAct::Undrain => Ok(Standing::ACTIVE),
            MemberAct::Forget if *region == self.own => Err(SteerError::Own(region.clone())),
            MemberAct::Drain | MemberAct::Leave | MemberAct::Forget if !gone && !others_write => {
                Err(SteerError::Last(region.clone()))
            }
            MemberAct::Drain => Ok(draining(now.leaving)),
            MemberAct::Leave => Ok(draining(true)),
            MemberAct::Forget => Ok(Standing { state: MemberState::Forgotten, leaving: false }),
        }
    }

    /// Notes that the own region, which was on its way out, has left.
    pub(super) fn leave(&mut self) -> Vec<Member> {
        let own = self.own.clone();
        self.set_standing(&own, Standing { state: MemberState::Left, leaving: false })
    }

    fn set_standing(&mut self, region: &RegionName, standing: Standing) -> Vec<Member> {
        let Some(row) = self.rows.get_mut(region) else { return Vec::new() };
        if row.member.standing == standing {
            return Vec::new();
        }
        row.member.standing = standing;
        row.member.standing_version = row.member.standing_version.next();
        vec![row.member.clone()]
    }

    /// Joins a record into the table; tells whether that changed it.
    fn absorb(&mut self, told: Member, word: Word) -> bool {
        if !self.rows.contains_key(&told.region) {
            if self.rows.len() >= MAX_MEMBERS {
                return false;
            }
            self.rows.insert(told.region.clone(), Row { member: told, word });
            return true;
        }
        let defends = told.region == self.own;
        let Some(row) = self.rows.get_mut(&told.region) else { return false };
        let known = &mut row.member;
        let standing = (told.standing_version, told.standing);
        let newer = standing > (known.standing_version, known.standing);
        if newer {
            (known.standing_version, known.standing) = standing;
        }
        if defends && row.word == Word::Itself {
            row.defend(told) | newer
        } else {
            row.take(told, word) | newer
        }
    }
}

impl Row {
    /// Takes a contact that is newer, or of a better source.
    fn take(&mut self, told: Member, word: Word) -> bool {
        let known = &mut self.member;
        let first = MemberVersion::default();
        let newer = if told.contact_version == first && known.contact_version == first {
            told.contact.is_some() && (known.contact.is_none() || word > self.word)
        } else {
            (told.contact_version, &told.contact) > (known.contact_version, &known.contact)
        };
        let changed = newer && known.contact != told.contact;
        if newer {
            changed.then(|| known.contact.clone_from(&told.contact));
            known.contact_version = told.contact_version;
            self.word = word;
        }
        newer
    }

    /// Holds the own contact against what others say: they have it from an earlier run.
    fn defend(&mut self, told: Member) -> bool {
        let known = &mut self.member;
        if told.contact_version == MemberVersion::default()
            || told.contact_version < known.contact_version
            || (told.contact_version == known.contact_version && told.contact == known.contact)
        {
            return false;
        }
        known.contact_version = match told.contact == known.contact {
            true => told.contact_version,
            false => told.contact_version.next(),
        };
        true
    }
}

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self
            .iter()
            .map(|member| format!("{} ({})", member.region, member.standing.as_str()))
            .collect();
        f.write_str(&words.join(", "))
    }
}

/// The greatest version; far more than a cluster changes in its lifetime.
const MAX_VERSION: u64 = 1 << 53;
