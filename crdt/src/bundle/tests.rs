//! Bundles are read as they are written, and nothing else is taken for one.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::*;

fn bundle() -> impl Strategy<Value = Bundle> {
    let change = (vec(any::<u8>(), 1..40), 0..=Timestamp::MAX.0, any::<[u8; 16]>());
    let change = change.prop_map(|(bytes, at, by)| BundledChange {
        change: Bytes::from(bytes),
        admitted: Timestamp(at),
        by: Origin::from_bytes(by),
    });
    let name = prop::option::of("[a-z]{1,5}/\\PC{1,20}");
    let heads = btree_set(any::<[u8; 32]>(), 0..4);
    let dots = btree_map(any::<[u8; 16]>(), 1..u64::MAX, 0..4);
    let parts = (any::<[u8; 16]>(), name, heads, vec(change, 0..6), dots);
    parts.prop_filter_map("the name breaks a rule", |(id, name, heads, changes, dots)| {
        let name = name.map(|name| name.parse()).transpose().ok()?;
        let dot = |(origin, sequence)| Dot {
            origin: Origin::from_bytes(origin),
            sequence: Sequence(sequence),
        };
        Some(Bundle {
            document: DocumentId::from_bytes(id),
            name,
            heads: heads.into_iter().map(ChangeHash).collect(),
            changes,
            dots: dots.into_iter().map(dot).collect(),
        })
    })
}

fn encoded(bundle: &Bundle) -> Bytes {
    let mut out = BytesMut::new();
    bundle.encode(&mut out);
    out.freeze()
}

proptest! {
    #[test]
    fn a_bundle_is_read_as_it_was_written(bundle in bundle(), other in bundle()) {
        let bytes = encoded(&bundle);
        prop_assert_eq!(bytes.len(), bundle.encoded_bytes());
        prop_assert_eq!(&Bundle::decode(&bytes), &Ok(bundle.clone()));
        let mut two = BytesMut::new();
        bundle.encode(&mut two);
        other.encode(&mut two);
        let mut rest = two.freeze();
        prop_assert_eq!(Bundle::decode(&rest), Err(BundleError::Trailing));
        prop_assert_eq!(Bundle::take(&mut rest), Ok(bundle));
        prop_assert_eq!(Bundle::take(&mut rest), Ok(other));
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn a_bundle_that_ends_early_is_refused(bundle in bundle(), cut in any::<prop::sample::Index>()) {
        let bytes = encoded(&bundle);
        let cut = bytes.slice(..cut.index(bytes.len()));
        prop_assert!(Bundle::decode(&cut).is_err());
    }

    /// Whatever is taken for a bundle is the one encoding of it.
    #[test]
    fn other_bytes_are_refused(
        bundle in bundle(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = encoded(&bundle).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let bytes = Bytes::from(bytes);
        if let Ok(read) = Bundle::decode(&bytes) {
            prop_assert_eq!(encoded(&read), bytes);
        }
    }

    #[test]
    fn noise_never_panics(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Bundle::decode(&Bytes::from([vec![FORMAT], bytes].concat()));
    }
}

#[test]
fn lists_that_cannot_be_there_are_refused_before_anything_is_allocated() {
    let start = [vec![FORMAT], vec![7; 16], vec![0, 0]].concat();
    let decode = |rest: &[u8]| Bundle::decode(&Bytes::from([start.as_slice(), rest].concat()));
    assert_eq!(decode(&[0, 0, 0xff, 0xff]), Err(BundleError::Short));
    let range = Err(BundleError::Range("the count of heads"));
    assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff]), range);
    assert_eq!(Bundle::decode(&Bytes::from_static(&[2])), Err(BundleError::Format(2)));
    let heads = [[0, 0, 0, 2].as_slice(), &[5; 32], &[5; 32], &[0; 8]].concat();
    assert_eq!(decode(&heads), Err(BundleError::Form("the order of heads")));
}

#[test]
fn a_range_goes_on_behind_an_id_until_its_end() {
    let id = |number: u128| DocumentId::from_bytes(number.to_be_bytes());
    let range = IdRange { first: id(5), end: Some(id(8)) };
    assert!([5, 6, 7].into_iter().all(|number| range.contains(id(number))));
    assert!([4, 8].into_iter().all(|number| !range.contains(id(number))));
    assert_eq!(range.after(id(6)), Some(IdRange { first: id(7), end: Some(id(8)) }));
    assert_eq!(range.after(id(7)), None);
    assert_eq!(IdRange::all().after(id(u128::MAX)), None);
    assert!(IdRange::all().contains(id(u128::MAX)));
}
