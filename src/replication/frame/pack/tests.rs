use anabranch_crdt::entry::Entry;
use anabranch_crdt::ids::{DocumentId, Origin, Sequence, Timestamp};
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;

use super::super::{Batch, Frame, encode_batch};
use super::*;

fn origin(number: u8) -> Origin {
    Origin::from_bytes([number; 16])
}

fn entry() -> Entry {
    Entry {
        origin: origin(1),
        sequence: Sequence(1),
        document: DocumentId::from_bytes([9; 16]),
        name: None,
        admitted: Timestamp(1),
        change: Bytes::new(),
    }
}

/// A batch that packs well, as long as a batch of a hundred small edits.
fn large() -> Frame {
    let entries = (1..=100_u64).map(|sequence| Entry {
        origin: origin(1),
        sequence: Sequence(sequence),
        document: DocumentId::from_bytes([sequence as u8; 16]),
        name: Some("things/one".parse().unwrap()),
        admitted: Timestamp(sequence),
        change: Bytes::from(vec![sequence as u8; 90]),
    });
    Frame::Entries(Batch { origin: origin(1), first: Sequence(1), entries: entries.collect() })
}

fn packed(frame: &Frame) -> Bytes {
    Packer::new(Compression::On).pack(frame.encode())
}

#[test]
fn a_large_frame_travels_packed_and_a_small_one_as_it_is() {
    let raw = large().encode();
    let packed = packed(&large());
    assert!(packed.len() * 3 < raw.len(), "{} of {}", packed.len(), raw.len());
    assert_eq!(Frame::decode(&packed).unwrap(), large());
    assert_eq!(unpacked_bytes(&packed), raw.len());
    assert_eq!(Packer::new(Compression::Off).pack(raw.clone()), raw);

    let small = Frame::Ack { vector: VersionVector::new() }.encode();
    assert_eq!(Packer::new(Compression::On).pack(small.clone()), small);
    assert_eq!(unpacked_bytes(&small), small.len());
}

#[test]
fn what_does_not_become_shorter_travels_as_it_is() {
    // The low byte of a multiplicative sequence does not compress.
    let noise: Vec<u8> =
        (0..8_192_u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let noise: Vec<u8> = noise.iter().zip(twisted()).map(|(a, b)| a ^ b).collect();
    let entry = Entry { change: noise.into(), ..entry() };
    let frame = encode_batch(origin(1), Sequence(1), [entry].iter());
    assert_eq!(Packer::new(Compression::On).pack(frame.clone()), frame);
}

fn twisted() -> impl Iterator<Item = u8> {
    let mut state = 0x1234_5678_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
}

#[test]
fn a_great_ratio_is_no_reason_to_refuse_and_a_length_over_the_limit_is() {
    let entry = Entry { change: vec![0; 4 << 20].into(), ..entry() };
    let raw = encode_batch(origin(1), Sequence(1), [entry].iter());
    let packed = Packer::new(Compression::On).pack(raw.clone());
    assert!(packed.len() * 1_000 < raw.len(), "{}", packed.len());
    assert!(Frame::decode_within(&packed, raw.len()).is_ok());
    let refused = Frame::decode_within(&packed, raw.len() - 1);
    assert!(matches!(refused, Err(DecodeError::Range(_))), "{refused:?}");

    // A frame that holds more than it says is cut off there, however much that is.
    let mut liar = packed.to_vec();
    liar[3..7].copy_from_slice(&100_000_u32.to_be_bytes());
    assert!(Frame::decode(&liar.into()).is_err());
}

#[test]
fn a_packed_frame_that_is_damaged_is_refused_and_never_panics() {
    let good = packed(&large());
    for length in 0..good.len() {
        assert!(Frame::decode(&good.slice(..length)).is_err(), "cut at {length}");
    }
    for index in 2..good.len() {
        for bit in 0..8 {
            let mut bytes = good.to_vec();
            bytes[index] ^= 1 << bit;
            // What decodes all the same differs only in what the changes say.
            drop(Frame::decode(&bytes.into()));
        }
    }
    let mut longer = good.to_vec();
    longer.push(0);
    assert!(Frame::decode(&longer.into()).is_err());

    let mut inside = vec![FORMAT_VERSION, 17];
    inside.extend(vec![0; 9_000]);
    let nested = Packer::new(Compression::On).pack(inside.into());
    assert!(matches!(Frame::decode(&nested), Err(DecodeError::Form(_))));
}
