//! Records of members as bytes: one encoding, for frames, for greetings and for the disk.

use core::net::SocketAddr;
use std::collections::BTreeSet;

use anabranch_crdt::ids::{NameError, RegionName};
use serde::{Deserialize, Serialize};

use super::super::MemberState;
use super::{Contact, MAX_MEMBERS, MAX_VERSION, Member, MemberVersion, Neighbours, Standing};

/// Why bytes are no list of members.
#[derive(Debug, thiserror::Error)]
pub enum MemberDecodeError {
    /// The bytes are no CBOR of the expected shape.
    #[error("malformed list of members: {0}")]
    Cbor(#[from] serde_cbor::Error),
    /// A name breaks its rules.
    #[error("bad name: {0}")]
    Name(#[from] NameError),
    /// A value is out of its range.
    #[error("{0} is out of range")]
    Range(&'static str),
    /// The bytes are not the one encoding of what they say.
    #[error("{0} is not in its one form")]
    Form(&'static str),
}

/// Encodes records, in the order of their names.
///
/// # Panics
/// Never: plain structs encode into memory.
#[must_use]
pub fn encode_members(members: &[Member]) -> Vec<u8> {
    let wire: Vec<MemberWire> = members.iter().map(MemberWire::from).collect();
    serde_cbor::to_vec(&wire).expect("plain structs encode into memory")
}

/// Decodes records: strictly ascending by name, each in its one form.
///
/// # Errors
/// See [`MemberDecodeError`].
pub fn decode_members(bytes: &[u8]) -> Result<Vec<Member>, MemberDecodeError> {
    if bytes.len() > MAX_BYTES {
        return Err(MemberDecodeError::Range("size of a list of members"));
    }
    let wire: Vec<MemberWire> = serde_cbor::from_slice(bytes)?;
    if wire.len() > MAX_MEMBERS {
        return Err(MemberDecodeError::Range("count of members"));
    }
    let members = wire.into_iter().map(MemberWire::check).collect::<Result<Vec<_>, _>>()?;
    if !members.is_sorted_by(|a, b| a.region < b.region) {
        return Err(MemberDecodeError::Form("order of members"));
    }
    if encode_members(&members) != bytes {
        return Err(MemberDecodeError::Form("list of members"));
    }
    Ok(members)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberWire {
    region: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    contact: Option<ContactWire>,
    contact_version: u64,
    standing: u8,
    standing_version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContactWire {
    quic: String,
    http: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    peers: Option<Vec<String>>,
}

impl From<&Member> for MemberWire {
    fn from(member: &Member) -> Self {
        Self {
            region: member.region.to_string(),
            contact: member.contact.as_ref().map(ContactWire::from),
            contact_version: member.contact_version.0,
            standing: number(member.standing),
            standing_version: member.standing_version.0,
        }
    }
}

impl From<&Contact> for ContactWire {
    fn from(contact: &Contact) -> Self {
        let peers = match &contact.peers {
            Neighbours::All => None,
            Neighbours::Only(names) => Some(names.iter().map(ToString::to_string).collect()),
        };
        Self { quic: contact.quic.to_string(), http: contact.http.to_string(), peers }
    }
}

impl MemberWire {
    fn check(self) -> Result<Member, MemberDecodeError> {
        if self.contact_version > MAX_VERSION || self.standing_version > MAX_VERSION {
            return Err(MemberDecodeError::Range("version of a member"));
        }
        Ok(Member {
            region: self.region.parse()?,
            contact: self.contact.map(ContactWire::check).transpose()?,
            contact_version: MemberVersion(self.contact_version),
            standing: standing(self.standing)?,
            standing_version: MemberVersion(self.standing_version),
        })
    }
}

impl ContactWire {
    fn check(self) -> Result<Contact, MemberDecodeError> {
        let peers = match self.peers {
            None => Neighbours::All,
            Some(names) if names.len() > MAX_MEMBERS => {
                return Err(MemberDecodeError::Range("count of peers"));
            }
            Some(names) => {
                let names = names.iter().map(|name| name.parse());
                Neighbours::Only(names.collect::<Result<BTreeSet<RegionName>, _>>()?)
            }
        };
        Ok(Contact { quic: address(&self.quic)?, http: address(&self.http)?, peers })
    }
}

fn address(text: &str) -> Result<SocketAddr, MemberDecodeError> {
    text.parse().map_err(|_| MemberDecodeError::Form("address"))
}

fn number(standing: Standing) -> u8 {
    match (standing.state, standing.leaving) {
        (MemberState::Active, _) => 0,
        (MemberState::Draining, false) => 1,
        (MemberState::Draining, true) => 2,
        (MemberState::Left, _) => 3,
        (MemberState::Forgotten, _) => 4,
    }
}

fn standing(number: u8) -> Result<Standing, MemberDecodeError> {
    let (state, leaving) = match number {
        0 => (MemberState::Active, false),
        1 => (MemberState::Draining, false),
        2 => (MemberState::Draining, true),
        3 => (MemberState::Left, false),
        4 => (MemberState::Forgotten, false),
        _ => return Err(MemberDecodeError::Range("standing")),
    };
    Ok(Standing { state, leaving })
}

/// Bytes of a list of members at most: each may name many peers, hardly any does.
const MAX_BYTES: usize = 1 << 20;
