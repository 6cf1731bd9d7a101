use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{BootId, DocumentId};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::replication::members::arbitrary::tables;

fn origins() -> impl Strategy<Value = Origin> {
    any::<[u8; 16]>().prop_map(Origin::from_bytes)
}

fn vectors() -> impl Strategy<Value = VersionVector> {
    let dot = |(origin, sequence)| Dot { origin, sequence: Sequence(sequence) };
    btree_map(origins(), 1..u64::MAX, 0..6).prop_map(move |map| map.into_iter().map(dot).collect())
}

fn names() -> impl Strategy<Value = Vec<Named>> {
    let named = (proptest::option::of("[a-zA-Z0-9][a-z0-9_.-]{0,31}"), vectors());
    btree_map(origins(), named, 0..5).prop_map(|map: BTreeMap<_, _>| {
        let named = |(origin, (region, after)): (_, (Option<String>, VersionVector))| Named {
            origin,
            region: region.map(|name| name.parse().unwrap()),
            after: after.iter().collect(),
        };
        map.into_iter().map(named).collect()
    })
}

fn claims() -> impl Strategy<Value = Claim> {
    let boots = || any::<[u8; 16]>().prop_map(BootId);
    let claim = (origins(), any::<u64>(), boots(), proptest::option::of(boots()));
    claim.prop_map(|(origin, sequence, boot, before)| {
        let sequence = Sequence(sequence);
        Claim { origin, sequence, boot, before }
    })
}

fn verdicts() -> impl Strategy<Value = Verdict> {
    let judgement = prop_oneof![
        Just(Judgement::Confirmed),
        any::<u64>().prop_map(|known| Judgement::Ahead(Sequence(known))),
        Just(Judgement::Taken),
    ];
    (origins(), any::<[u8; 16]>(), judgement).prop_map(|(origin, boot, judgement)| Verdict {
        origin,
        boot: BootId(boot),
        judgement,
    })
}

fn sets() -> impl Strategy<Value = Vec<Origin>> {
    btree_set(origins(), 0..5).prop_map(|set: BTreeSet<_>| set.into_iter().collect())
}

fn batches() -> impl Strategy<Value = Batch> {
    let name = proptest::option::of("[a-z0-9]{1,8}/[a-zé/ ]{1,20}");
    let entry = (any::<[u8; 16]>(), name, 0..=Timestamp::MAX.0, vec(any::<u8>(), 0..60));
    let batch = (origins(), 1..u64::MAX / 2, vec(entry, 0..8));
    batch.prop_map(|(origin, first, entries)| {
        let entries = (first..).zip(entries).map(|(sequence, (document, name, time, change))| {
            let name = name.map(|name| name.parse().unwrap());
            let document = DocumentId::from_bytes(document);
            let (sequence, admitted) = (Sequence(sequence), Timestamp(time));
            Entry { origin, sequence, document, name, admitted, change: change.into() }
        });
        Batch { origin, first: Sequence(first), entries: entries.collect() }
    })
}

fn readings() -> impl Strategy<Value = Reading> {
    let echo = (any::<u64>(), any::<u64>()).prop_map(|(mark, held)| Echo { mark, held });
    let reading = (0..=Timestamp::MAX.0, any::<u64>(), proptest::option::of(echo));
    reading.prop_map(|(wall, mark, echo)| Reading { wall: Timestamp(wall), mark, echo })
}

fn stamps() -> impl Strategy<Value = Stamp> {
    (0..=2 * Timestamp::MAX.0).prop_map(Stamp)
}

fn regions() -> impl Strategy<Value = RegionName> {
    "[a-zA-Z0-9][a-z0-9_.-]{0,31}".prop_map(|name| name.parse().unwrap())
}

/// Frames about third regions.
fn hearsay() -> impl Strategy<Value = Frame> {
    let age = proptest::option::of(any::<u64>().prop_map(Duration::from_micros));
    let row = (regions(), stamps(), origins(), vectors(), age).prop_map(
        |(region, stamp, origin, vector, age)| KnownRow { region, stamp, origin, vector, age },
    );
    let knowledge = (0..=Timestamp::MAX.0, vec(row, 0..4))
        .prop_map(|(wall, rows)| Frame::Knowledge(Knowledge { wall: Timestamp(wall), rows }));
    let id = || (origins(), any::<u64>()).prop_map(|(asker, number)| ProbeId { asker, number });
    let answer = (id(), regions(), vectors())
        .prop_map(|(id, region, vector)| Frame::ProbeAnswer(ProbeAnswer { id, region, vector }));
    prop_oneof![knowledge, id().prop_map(|id| Frame::Probe(Probe { id })), answer]
}

fn frames() -> impl Strategy<Value = Frame> {
    let region = "[a-zA-Z0-9][a-z0-9_.-]{0,31}".prop_map(|name| name.parse().unwrap());
    let said = (any::<bool>(), stamps(), any::<u64>());
    let hello = (region, origins(), vectors(), names(), sets(), said).prop_map(
        |(region, origin, vector, names, direct, (heard, stamp, members))| {
            Frame::Hello(Hello { region, origin, vector, names, direct, heard, stamp, members })
        },
    );
    let reading = proptest::option::of(readings());
    let digest = (vectors(), 0..=Timestamp::MAX.0, sets(), sets(), reading, any::<u64>()).prop_map(
        |(vector, clock, direct, unnamed, reading, members)| {
            let clock = Timestamp(clock);
            Frame::Digest(Digest { vector, clock, direct, unnamed, reading, members })
        },
    );
    let pull = (origins(), any::<u64>(), any::<u32>(), any::<u32>()).prop_map(
        |(origin, after, entries, bytes)| {
            Frame::Pull(Pull { origin, after: Sequence(after), entries, bytes })
        },
    );
    prop_oneof![
        hello,
        batches().prop_map(Frame::Entries),
        vectors().prop_map(|vector| Frame::Ack { vector }),
        digest,
        pull,
        names().prop_map(Frame::Names),
        hearsay(),
        tables().prop_map(Frame::Members),
        claims().prop_map(Frame::Claim),
        verdicts().prop_map(Frame::Verdict),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_frame_survives_the_wire(frame in frames()) {
        prop_assert_eq!(Frame::decode(&frame.encode()).unwrap(), frame);
    }

    #[test]
    fn an_entry_takes_the_bytes_that_are_counted_for_it(batch in batches()) {
        let counted: usize = batch.entries.iter().map(encoded_entry_bytes).sum();
        let bytes = Frame::Entries(batch).encode();
        prop_assert_eq!(bytes.len(), BATCH_HEADER_BYTES + counted);
    }

    #[test]
    fn what_decodes_has_one_encoding(
        frame in frames(),
        flips in vec((any::<Index>(), any::<u8>()), 1..4),
        cut in proptest::option::of(any::<Index>()),
    ) {
        let mut bytes = frame.encode().to_vec();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let bytes = Bytes::from(bytes);
        if let Ok(frame) = Frame::decode(&bytes) {
            prop_assert_eq!(frame.encode(), bytes);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(kind in 0_u8..20, body in vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from([&[FORMAT_VERSION, kind], &body[..]].concat());
        if let Ok(frame) = Frame::decode(&bytes) {
            prop_assert_eq!(frame.encode(), bytes);
        }
    }

    #[test]
    fn a_frame_that_is_cut_or_goes_on_is_refused(frame in frames(), at in any::<Index>()) {
        let bytes = frame.encode();
        prop_assert!(Frame::decode(&bytes.slice(..at.index(bytes.len()))).is_err());
        let longer = Bytes::from([&bytes[..], &[0]].concat());
        prop_assert!(Frame::decode(&longer).is_err());
    }
}

#[test]
fn a_claimed_count_without_bytes_is_refused_before_anything_is_allocated() {
    let mut bytes = vec![FORMAT_VERSION, KIND_ENTRIES];
    bytes.extend_from_slice(&[7; 16]);
    bytes.extend_from_slice(&1_u64.to_be_bytes());
    bytes.extend_from_slice(&60_000_u32.to_be_bytes());
    assert!(matches!(Frame::decode(&bytes.into()), Err(DecodeError::Short)));
}

#[test]
fn a_vector_out_of_order_is_refused() {
    let vector: VersionVector = (1..=2)
        .map(|id| Dot { origin: Origin::from_bytes([id; 16]), sequence: Sequence(5) })
        .collect();
    let mut bytes = Frame::Ack { vector }.encode().to_vec();
    let end = bytes.len();
    bytes[end - 48..].rotate_left(24);
    assert!(matches!(Frame::decode(&bytes.into()), Err(DecodeError::Form("version vector"))));
}

/// A digest of the first release, which said nothing of wall clocks.
#[test]
fn a_digest_without_a_reading_is_understood() {
    let body = "a466766563746f724065636c6f636b05666469726563744067756e6e616d656440";
    let body = body.as_bytes().chunks(2).map(|hex| std::str::from_utf8(hex).unwrap());
    let mut bytes = vec![FORMAT_VERSION, KIND_DIGEST];
    bytes.extend(body.map(|hex| u8::from_str_radix(hex, 16).unwrap()));
    let digest = Digest {
        vector: VersionVector::new(),
        clock: Timestamp(5),
        direct: Vec::new(),
        unnamed: Vec::new(),
        reading: None,
        members: 0,
    };
    assert_eq!(Frame::decode(&bytes.into()).unwrap(), Frame::Digest(digest));
}

#[test]
fn another_format_is_refused_by_name() {
    let bytes = Bytes::from_static(&[9, KIND_ACK]);
    assert_eq!(Frame::decode(&bytes).unwrap_err().to_string(), "unknown frame format 9");
}
