//! How much shorter batches of real changes become, and in what time.

use std::time::Instant;

use anabranch::replication::frame::{Compression, Frame, Packer, encode_batch};
use anabranch_crdt::entry::Entry;
use anabranch_crdt::ids::{DocumentId, Origin, Sequence, Timestamp};
use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT};

fn origin() -> Origin {
    Origin::from_bytes([1; 16])
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

/// Changes as documents of ten fields make them, one field at a time: what a batch is full of.
fn realistic(count: u64) -> Vec<Entry> {
    let letters = b"abcdefghijklmnopqrstuvwxyz ";
    let text = |seed: u64| {
        let noise = twisted().skip(usize::try_from(seed % 500).unwrap());
        let letter = |byte: u8| char::from(letters[usize::from(byte) % letters.len()]);
        noise.take(60).map(letter).collect::<String>()
    };
    let mut documents: Vec<AutoCommit> = (0..16)
        .map(|n: u8| {
            let mut document = AutoCommit::new().with_actor(vec![n; 16].into());
            (0..10).for_each(|f| document.put(ROOT, format!("field{f}"), "").unwrap());
            document.commit();
            document
        })
        .collect();
    (1..=count)
        .map(|sequence| {
            let number = usize::try_from(sequence).unwrap() % documents.len();
            let document = &mut documents[number];
            document.put(ROOT, format!("field{}", sequence % 10), text(sequence)).unwrap();
            document.commit();
            let change = document.get_last_local_change().unwrap().raw_bytes().to_vec();
            Entry {
                origin: origin(),
                sequence: Sequence(sequence),
                document: DocumentId::from_bytes([u8::try_from(number).unwrap(); 16]),
                name: Some(format!("things/document-{number}").parse().unwrap()),
                admitted: Timestamp(1_790_000_000_000_000 + sequence * 731),
                change: change.into(),
            }
        })
        .collect()
}

/// Hashes do not compress, and every change names the one before it; the rest does.
#[test]
fn batches_of_real_changes_become_a_good_deal_shorter() {
    let mut packer = Packer::new(Compression::On);
    for count in [16, 100, 1_024] {
        let entries = realistic(count);
        let raw = encode_batch(origin(), Sequence(1), entries.iter());
        let began = Instant::now();
        let packed = packer.pack(raw.clone());
        let packing = began.elapsed();
        let began = Instant::now();
        let Frame::Entries(batch) = Frame::decode(&packed).unwrap() else { panic!("no entries") };
        let unpacking = began.elapsed();
        assert_eq!(batch.entries, entries);
        println!(
            "{count} entries: {} -> {} bytes, packed in {packing:?}, decoded in {unpacking:?}",
            raw.len(),
            packed.len()
        );
        assert!(packed.len() * 10 < raw.len() * 8, "{} of {}", packed.len(), raw.len());
    }
}
