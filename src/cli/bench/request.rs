//! The requests of the workloads: made once, with numbers written over their slots.

use std::ops::Range;

/// A request whose slots take numbers.
#[derive(Debug, Clone)]
pub(super) struct Template {
    bytes: Vec<u8>,
    slots: Vec<Range<usize>>,
}

impl Template {
    /// Makes a request; every [`SLOT`] in `path` and `body` takes a number.
    pub(super) fn new(method: &str, path: &str, media_type: &str, body: &str) -> Self {
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: bench\r\n");
        if !body.is_empty() {
            text.push_str(&format!("Content-Type: {media_type}\r\n"));
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        text.push_str(body);
        let slots = text.match_indices(SLOT).map(|(at, slot)| at..at + slot.len()).collect();
        Self { bytes: text.into_bytes(), slots }
    }

    /// Writes numbers into the slots, in their order.
    pub(super) fn fill(&mut self, numbers: &[u64]) -> &[u8] {
        for (slot, number) in self.slots.iter().zip(numbers) {
            if let Some(place) = self.bytes.get_mut(slot.clone()) {
                write_number(place, *number);
            }
        }
        &self.bytes
    }
}

/// What a connection asks for, again and again.
#[derive(Debug, Clone)]
pub(super) struct Requests {
    template: Template,
    keys: Keys,
    counter: u64,
    stride: u64,
}

#[derive(Debug, Clone)]
enum Keys {
    /// Any of so many, at random: the seed is the state of a generator.
    Random { among: u64, seed: u64 },
    /// A new one each time.
    New,
}

impl Requests {
    /// Asks for existing documents at random.
    pub(super) fn random(template: Template, among: u64, connection: u64, stride: u64) -> Self {
        let seed = connection.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { template, keys: Keys::Random { among, seed }, counter: connection, stride }
    }

    /// Asks for a new document each time; no two connections ask for the same one.
    pub(super) fn new_keys(template: Template, connection: u64, stride: u64) -> Self {
        Self { template, keys: Keys::New, counter: connection, stride }
    }

    /// Returns the next request.
    pub(super) fn next(&mut self) -> &[u8] {
        self.counter += self.stride;
        let key = match &mut self.keys {
            Keys::New => self.counter,
            Keys::Random { among, seed } => {
                *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (*seed >> 33) % (*among).max(1)
            }
        };
        self.template.fill(&[key, self.counter])
    }
}

/// Returns the path of a document whose number is a slot.
pub(super) fn document_path(collection: &str) -> String {
    format!("/v1/docs/{collection}/d{SLOT}")
}

/// Returns a document of about 1 KB: ten fields of ninety letters, one of them with a slot.
pub(super) fn document() -> String {
    let fields: Vec<String> =
        (0..10).map(|i| format!("\"f{i}\":\"{}\"", letters(i == 3))).collect();
    format!("{{{}}}", fields.join(","))
}

/// Returns a merge patch of one field of such a document.
pub(super) fn one_field() -> String {
    format!("{{\"f3\":\"{}\"}}", letters(true))
}

/// Writes a number as it stands in a slot.
pub(super) fn number(number: u64) -> Vec<u8> {
    let mut text = vec![b'0'; SLOT.len()];
    write_number(&mut text, number);
    text
}

fn letters(with_slot: bool) -> String {
    let start = if with_slot { SLOT } else { "" };
    let rest = "the quick brown fox jumps over the lazy dog and runs on ".chars().cycle();
    let rest: String = rest.take(FIELD - start.len()).collect();
    format!("{start}{rest}")
}

fn write_number(place: &mut [u8], number: u64) {
    let mut rest = number;
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
}

/// Stands where a number comes: it has no other use in a request.
pub(super) const SLOT: &str = "############";

const FIELD: usize = 90;

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn documents_have_a_kilobyte_in_ten_fields() {
        let value: Value = serde_json::from_str(&document()).unwrap();
        let fields = value.as_object().unwrap();
        assert_eq!(fields.len(), 10);
        assert!(fields.values().all(|field| field.as_str().unwrap().len() == 90));
        assert!((950..1_050).contains(&document().len()), "{}", document().len());
    }

    #[test]
    fn slots_are_filled_in_place() {
        let mut template =
            Template::new("PATCH", &document_path("c"), "application/x", &one_field());
        let length = template.bytes.len();
        let text = String::from_utf8(template.fill(&[7, 123_456]).to_vec()).unwrap();
        assert!(text.starts_with("PATCH /v1/docs/c/d000000000007 HTTP/1.1\r\n"), "{text}");
        assert!(text.contains("{\"f3\":\"000000123456the quick"), "{text}");
        assert!(text.contains(&format!("Content-Length: {}\r\n", one_field().len())), "{text}");
        assert_eq!(text.len(), length);
    }

    #[test]
    fn no_two_connections_make_the_same_key() {
        let template = Template::new("PUT", &document_path("c"), "application/json", "{}");
        let mut seen = std::collections::BTreeSet::new();
        for connection in 0..4 {
            let mut requests = Requests::new_keys(template.clone(), connection, 4);
            for _ in 0..100 {
                assert!(seen.insert(requests.next().to_vec()));
            }
        }
    }

    #[test]
    fn random_keys_stay_among_the_documents() {
        let template = Template::new("GET", &document_path("c"), "", "");
        let mut requests = Requests::random(template, 3, 1, 1);
        let keys: std::collections::BTreeSet<Vec<u8>> =
            (0..100).map(|_| requests.next().to_vec()).collect();
        assert_eq!(keys.len(), 3);
    }
}
