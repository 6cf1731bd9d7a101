use proptest::collection::btree_map;
use proptest::prelude::*;

use super::*;
use crate::version::arbitrary;

fn origin(byte: u8) -> Origin {
    Origin::from_bytes([byte; 16])
}

fn vector(pairs: &[(u8, u64)]) -> VersionVector {
    let dot =
        |&(byte, number): &(u8, u64)| Dot { origin: origin(byte), sequence: Sequence(number) };
    pairs.iter().map(dot).collect()
}

/// Makes a token of content that [`encode`] would never write.
fn forged(content: &[u8]) -> String {
    let mut bytes = content.to_vec();
    bytes.extend_from_slice(&crc32(content).to_le_bytes());
    base64::encode(&bytes)
}

fn named(origin: u8, sequence: &[u8]) -> Vec<u8> {
    [[origin; 16].as_slice(), sequence].concat()
}

fn check_refused(token: &str, words: &str) {
    let refusal = decode(token).unwrap_err().to_string();
    assert!(refusal.starts_with("not a session token: ") && refusal.contains(words), "{refusal}");
}

#[test]
fn the_format_never_changes() {
    assert_eq!(encode(&vector(&[])), "AQC-I8JY");
    let token = "AQIBAQEBAQEBAQEBAQEBAQEBrAICAgICAgICAgICAgICAgICATyQk0E";
    assert_eq!(decode(token), Ok(vector(&[(1, 300), (2, 1)])));
    assert_eq!(encode(&vector(&[(2, 1), (1, 300)])), token);
}

#[test]
fn the_checksum_is_the_well_known_one() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
}

#[test]
fn what_is_no_token_is_refused_with_the_reason() {
    check_refused("", "it is empty");
    check_refused("A", "cut off");
    check_refused("AQ", "cut off");
    check_refused("AQB", "cut off");
    check_refused("hello, world", "A-Z a-z 0-9");
    check_refused(&forged(&[7, 0]), "format 7 is not known");
    check_refused(&forged(&[1]), "cut off");
    check_refused(&forged(&[1, 1]), "cut off");
    check_refused(&forged(&[1, 0, 0]), "bytes follow");
    check_refused(&"A".repeat(MAX_TOKEN_CHARACTERS + 1), "it has 4097 characters");
    check_refused(&forged(&[1, 0xff, 0xff, 0xff, 0x7f]), "names 268435455 origins");
}

#[test]
fn every_other_form_of_a_vector_is_refused() {
    let pair = |first: Vec<u8>, second: Vec<u8>| forged(&[vec![1, 2], first, second].concat());
    check_refused(&pair(named(3, &[1]), named(3, &[2])), "is named twice");
    check_refused(&pair(named(3, &[1]), named(2, &[2])), "out of order");
    check_refused(&pair(named(3, &[1]), named(4, &[0])), "stands at zero");
    check_refused(&pair(named(3, &[1]), named(4, &[0x81, 0x00])), "shortest form");
    check_refused(&pair(named(3, &[1]), named(4, &[0xff; 10])), "too great");
    let past = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
    check_refused(&pair(named(3, &[1]), named(4, &past)), "too great");
}

#[test]
fn a_token_of_the_most_origins_is_read() {
    let most: Vec<_> = (0..=127).map(|byte| (byte, 1 << 48)).collect();
    let token = encode(&vector(&most));
    assert!(token.len() <= MAX_TOKEN_CHARACTERS);
    assert_eq!(decode(&token), Ok(vector(&most)));
    let more: Vec<_> = (0..=128).map(|byte| (byte, 1)).collect();
    check_refused(&encode(&vector(&more)), "names 129 origins");
}

proptest! {
    #[test]
    fn vectors_come_back(vector in arbitrary::vector()) {
        prop_assert_eq!(decode(&encode(&vector)), Ok(vector));
    }

    #[test]
    fn tokens_are_equal_when_their_vectors_are(
        one in arbitrary::vector(), other in arbitrary::vector(),
    ) {
        prop_assert_eq!(encode(&one) == encode(&other), one == other);
    }

    #[test]
    fn the_order_of_origins_does_not_matter(
        pairs in btree_map(any::<u8>(), 1_u64.., 0..20),
    ) {
        let pairs: Vec<_> = pairs.into_iter().collect();
        let backwards: Vec<_> = pairs.iter().rev().copied().collect();
        prop_assert_eq!(encode(&vector(&pairs)), encode(&vector(&backwards)));
    }

    #[test]
    fn damage_is_found(
        vector in arbitrary::vector(),
        place in any::<prop::sample::Index>(),
        letter in "[A-Za-z0-9_-]",
    ) {
        let token = encode(&vector);
        let at = place.index(token.len());
        let damaged = [&token[..at], &letter, &token[at + 1..]].concat();
        prop_assert_eq!(decode(&damaged).is_ok(), damaged == token);
    }

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>(), bytes in any::<Vec<u8>>()) {
        let _ = decode(&text);
        let _ = decode(&base64::encode(&bytes));
        let _ = decode(&forged(&[vec![1], bytes].concat()));
    }
}
