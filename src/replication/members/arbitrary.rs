//! Any member tables, for tests.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;

use super::*;

/// Few names, so that tables meet.
fn names() -> impl Strategy<Value = RegionName> {
    "[a-e]".prop_map(|name| name.parse().unwrap())
}

fn contacts() -> impl Strategy<Value = Contact> {
    let peers = proptest::option::of(btree_set(names(), 0..3));
    (1_u16..4, 1_u16..3, peers).prop_map(|(quic, http, peers)| Contact {
        quic: ([127, 0, 0, 1], quic).into(),
        http: ([0, 0, 0, 0, 0, 0, 0, 1], http).into(),
        peers: peers.map_or(Neighbours::All, Neighbours::Only),
    })
}

pub(in crate::replication) fn standings() -> impl Strategy<Value = Standing> {
    prop_oneof![
        Just(Standing::ACTIVE),
        Just(Standing { state: MemberState::Draining, leaving: false }),
        Just(Standing { state: MemberState::Draining, leaving: true }),
        Just(Standing { state: MemberState::Left, leaving: false }),
        Just(Standing { state: MemberState::Forgotten, leaving: false }),
    ]
}

/// Records whose every half was changed by somebody at least once.
pub(in crate::replication) fn records() -> impl Strategy<Value = Vec<Member>> {
    let parts = (contacts(), 1_u64..4, standings(), 1_u64..4);
    btree_map(names(), parts, 0..5).prop_map(|map: BTreeMap<_, _>| {
        let member = |(region, (contact, contacts, standing, standings))| Member {
            region,
            contact: Some(contact),
            contact_version: MemberVersion(contacts),
            standing,
            standing_version: MemberVersion(standings),
        };
        map.into_iter().map(member).collect()
    })
}

/// Any list of records that a frame can hold.
pub(in crate::replication) fn tables() -> impl Strategy<Value = Vec<Member>> {
    (records(), any::<bool>()).prop_map(|(mut records, seeds)| {
        for member in records.iter_mut().filter(|_| seeds) {
            member.contact_version = MemberVersion::default();
            member.contact = None;
        }
        records
    })
}
