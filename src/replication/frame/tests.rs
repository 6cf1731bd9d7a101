use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anabranch_crdt::bundle::{Bundle, BundledChange, IdRange};
use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{BootId, ChangeHash, DocumentId};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::replication::members::arbitrary::tables;
use crate::replication::reconcile::{
    Ask, AskNumber, BatchNumber, Content, DocumentDigest, Fingerprint, Part, RunId, Want,
};

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

fn ids() -> impl Strategy<Value = DocumentId> {
    any::<[u8; 16]>().prop_map(DocumentId::from_bytes)
}

fn items() -> impl Strategy<Value = Vec<DocumentDigest>> {
    let item = (ids(), any::<[u8; 16]>(), any::<bool>());
    let item =
        item.prop_map(|(document, digest, pending)| DocumentDigest { document, digest, pending });
    vec(item, 0..6)
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let fingerprint = any::<[u8; 16]>().prop_map(Fingerprint);
    let content = prop_oneof![
        Just(Content::Equal),
        (any::<u32>(), fingerprint).prop_map(|(count, sum)| Content::Counted(count, sum)),
        items().prop_map(Content::Listed),
    ];
    let part = (proptest::option::of(ids()), content);
    vec(part.prop_map(|(end, content)| Part { end, content }), 0..5)
}

fn ranges() -> impl Strategy<Value = Ranges> {
    let ask = (ids(), ids(), any::<bool>(), any::<u32>(), any::<[u8; 16]>()).prop_map(
        |(one, other, open, count, sum)| {
            let (first, end) = (one.min(other), Some(one.max(other)));
            let end = end.filter(|end| !open && *end > first);
            Ask { range: IdRange { first, end }, count, fingerprint: Fingerprint(sum) }
        },
    );
    let ask = (any::<u64>(), any::<u32>(), ask).prop_map(|(run, number, ask)| Ranges::Ask {
        run: RunId(run),
        number: AskNumber(number),
        ask,
    });
    let answer = (any::<u64>(), any::<u32>(), parts()).prop_map(|(run, number, parts)| {
        Ranges::Answer { run: RunId(run), number: AskNumber(number), parts }
    });
    prop_oneof![ask, answer]
}

fn fetches() -> impl Strategy<Value = Fetch> {
    let have = vec(any::<[u8; 32]>().prop_map(ChangeHash), 0..3);
    let want = (ids(), have).prop_map(|(document, have)| Want { document, have });
    let want = (any::<u64>(), any::<u32>(), any::<u32>(), vec(want, 0..4)).prop_map(
        |(run, number, bytes, wants)| Fetch::Want {
            run: RunId(run),
            number: BatchNumber(number),
            bytes,
            wants,
        },
    );
    prop_oneof![want, vec(ids(), 0..4).prop_map(|documents| Fetch::Offer { documents })]
}

fn bundles() -> impl Strategy<Value = Bundles> {
    let name = proptest::option::of("[a-z0-9]{1,8}/[a-zé/ ]{1,20}");
    let change = (vec(any::<u8>(), 1..40), 0..=Timestamp::MAX.0, origins()).prop_map(
        |(change, admitted, by)| BundledChange {
            change: change.into(),
            admitted: Timestamp(admitted),
            by,
        },
    );
    let heads = btree_set(any::<[u8; 32]>().prop_map(ChangeHash), 0..3);
    let bundle = (ids(), name, heads, vectors(), vec(change, 0..4)).prop_map(
        |(document, name, heads, dots, changes)| {
            let name = name.map(|name| name.parse().unwrap());
            let (heads, dots) = (heads.into_iter().collect(), dots.iter().collect());
            Bundle { document, name, heads, changes, dots }
        },
    );
    let lists = (vec(bundle, 0..3), vec(ids(), 0..3), vec(ids(), 0..3));
    (any::<u64>(), any::<u32>(), lists).prop_map(|(run, number, (bundles, absent, unreadable))| {
        let (run, number) = (RunId(run), BatchNumber(number));
        Bundles { run, number, bundles, absent, unreadable }
    })
}

fn frames() -> impl Strategy<Value = Frame> {
    let floor = (origins(), 1..u64::MAX);
    let too_old = floor.prop_map(|(origin, floor)| TooOld { origin, floor: Sequence(floor) });
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
        too_old.prop_map(Frame::TooOld),
        ranges().prop_map(Frame::Ranges),
        fetches().prop_map(Frame::Fetch),
        bundles().prop_map(Frame::Bundles),
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

/// What a peer claims to list is not believed before it is there.
#[test]
fn a_claimed_list_without_its_items_is_refused_before_anything_is_allocated() {
    let lists = [
        (KIND_RANGES, vec![1; 13], vec![16_u32]),
        (KIND_FETCH, vec![1], vec![1_000]),
        (KIND_BUNDLES, vec![0; 12], vec![1_000]),
        (KIND_BUNDLES, vec![0; 12], vec![0, 0, 900]),
    ];
    for (kind, head, counts) in lists {
        let mut bytes = vec![FORMAT_VERSION, kind];
        bytes.extend_from_slice(&head);
        counts.iter().for_each(|count| bytes.extend_from_slice(&count.to_be_bytes()));
        assert!(matches!(Frame::decode(&bytes.into()), Err(DecodeError::Short)), "{kind}");
    }
    let mut bytes = vec![FORMAT_VERSION, KIND_FETCH, 1];
    bytes.extend_from_slice(&u32::MAX.to_be_bytes());
    assert!(matches!(Frame::decode(&bytes.into()), Err(DecodeError::Range("documents"))));
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
