//! Base64 with the alphabet that is safe in URLs, without padding (RFC 4648, section 5).

/// Writes bytes as text.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |group, &byte| group << 8 | u32::from(byte));
        let group = group << (8 * (3 - chunk.len()));
        text.extend((0..=chunk.len()).map(|place| letter(group >> (18 - 6 * place))));
    }
    text
}

/// Reads text back; every other spelling of the same bytes is refused.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, &'static str> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.as_bytes().chunks(4) {
        let mut group = 0_u32;
        for &letter in chunk {
            group = group << 6 | digit(letter)?;
        }
        let group = group << (6 * (4 - chunk.len()));
        let [_, all @ ..] = group.to_be_bytes();
        let (kept, left) = all.split_at_checked(chunk.len() - 1).unwrap_or((&all, &[]));
        if kept.is_empty() || left.iter().any(|&byte| byte != 0) {
            return Err("it is cut off");
        }
        bytes.extend_from_slice(kept);
    }
    Ok(bytes)
}

fn letter(group: u32) -> char {
    let digit = group & 0x3f;
    ALPHABET.get(digit as usize).map_or('_', |&letter| char::from(letter))
}

fn digit(letter: u8) -> Result<u32, &'static str> {
    let digit = match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return Err("it is made of A-Z a-z 0-9 - and _ only"),
    };
    Ok(u32::from(digit))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_standard_hold() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("fooba", "Zm9vYmE"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(encode(&[0xfb, 0xff, 0xfe]), "-__-");
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in ["Z", "Zm9vY", "Zh", "Zm9", "Zg==", "+/+/", "Zg\n", " Zg", "Zé"] {
            assert!(decode(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn bytes_come_back(bytes in any::<Vec<u8>>()) {
            prop_assert_eq!(decode(&encode(&bytes)), Ok(bytes));
        }

        #[test]
        fn text_that_is_read_is_the_only_spelling(text in "[A-Za-z0-9_-]{0,12}") {
            if let Ok(bytes) = decode(&text) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
