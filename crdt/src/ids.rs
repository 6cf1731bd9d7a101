//! Identities: one type for each, parsed once at the edge and trusted from there on.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// The longest collection name, in bytes.
pub const MAX_COLLECTION_BYTES: usize = 64;

/// The longest document key, in bytes.
pub const MAX_KEY_BYTES: usize = 512;

/// The longest region name, in bytes.
pub const MAX_REGION_BYTES: usize = 32;

/// The longest name of an author, in bytes.
pub const MAX_AUTHOR_BYTES: usize = 256;

/// A name or an id that breaks its rules; the message says which rule, and for which name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(String);

impl NameError {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// One incarnation of one leader: a random UUID, which is also that leader's Automerge actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(pub Uuid);

impl Origin {
    /// Returns the 16 bytes of the id.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Takes the id from its 16 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Makes the id of a leader of a region from random bytes.
    ///
    /// Four of its bytes are a fingerprint of the region's name, so that whoever has a change knows
    /// whether its writer is of a given region, in every region alike and without asking anyone.
    /// It is a UUID of version 8 (RFC 9562), and the ids that clients draw are not.
    #[must_use]
    pub fn of_region(region: &RegionName, random: [u8; 16]) -> Self {
        let mut bytes = random;
        bytes.iter_mut().zip(region.fingerprint()).for_each(|(to, from)| *to = from);
        Self(Uuid::new_v8(bytes))
    }

    /// Tells whether the id was made by [`Origin::of_region`]. Vectors in their short form leave out
    /// the origins that a region left behind, so what they name are not all leaders there were.
    #[must_use]
    pub fn is_of_any_region(&self) -> bool {
        self.0.get_version_num() == 8
    }

    /// Tells whether the id was made by [`Origin::of_region`] for this region.
    #[must_use]
    pub fn is_of(&self, region: &RegionName) -> bool {
        self.is_of_any_region() && self.as_bytes().starts_with(&region.fingerprint())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One run of one leader's process, drawn at random when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId(pub [u8; 16]);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_bytes(self.0).fmt(f)
    }
}

/// The gap-free number that an origin gives to each entry it admits; the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The sequence before the first entry.
    pub const ZERO: Self = Self(0);

    /// Returns the sequence that follows.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Microseconds since 1970-01-01 UTC, advanced by one as logical part; always below 2^53.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The greatest timestamp: the greatest integer that a JavaScript number holds exactly.
    pub const MAX: Self = Self((1 << 53) - 1);
}

/// The SHA-256 hash that names one Automerge change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeHash(pub [u8; 32]);

impl fmt::Display for ChangeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChangeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ChangeHash {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let digit = |at: usize| text.get(at..at.saturating_add(2));
        let bytes: Option<Vec<u8>> =
            (0..32).map(|at| u8::from_str_radix(digit(at * 2)?, 16).ok()).collect();
        let bytes = bytes.filter(|_| text.len() == 64 && !text.contains('+'));
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or_else(|| {
            NameError::new(format!("'{text}' is no change hash: it has 64 hexadecimal digits"))
        })
    }
}

/// The 16-byte id of a document: UUID v5 of `collection/key` for named documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentId(pub Uuid);

impl DocumentId {
    /// Returns the 16 bytes of the id.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Takes the id from its 16 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Returns the id of the epoch that follows this one.
    ///
    /// It begins with the same four bytes ([`DocumentId::family`]), so that whoever divides
    /// documents among several workers gives all epochs of one to the same.
    #[must_use]
    pub fn next_epoch(self) -> Self {
        let mut bytes = *Uuid::new_v5(&EPOCH_NAMESPACE, self.as_bytes()).as_bytes();
        bytes.iter_mut().zip(self.family()).for_each(|(to, from)| *to = from);
        Self(Uuid::from_bytes(bytes))
    }

    /// Returns the bytes that the ids of all epochs of a document have in common.
    #[must_use]
    pub fn family(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = *self.as_bytes();
        [a, b, c, d]
    }
}

impl From<&DocumentName> for DocumentId {
    fn from(name: &DocumentName) -> Self {
        Self(Uuid::new_v5(&NAMESPACE, name.to_string().as_bytes()))
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a collection: 1 to 64 bytes of `a-z A-Z 0-9 _ - .`, starting with a letter or digit;
/// or the one that is reserved, [`CollectionName::settings`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectionName(String);

impl CollectionName {
    /// Returns the reserved collection, which holds the settings of all others: each as the
    /// document whose key is the name of its collection.
    #[must_use]
    pub fn settings() -> Self {
        Self(SETTINGS.to_owned())
    }

    /// Tells whether this is the reserved collection, which is read like any other and written by
    /// the store alone.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0 == SETTINGS
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CollectionName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == SETTINGS {
            return Ok(Self::settings());
        }
        plain_name("collection", text, MAX_COLLECTION_BYTES).map(Self)
    }
}

impl fmt::Display for CollectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key of a document inside its collection: 1 to 512 bytes of UTF-8 without control
/// characters. It may hold `/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentKey(String);

impl DocumentKey {
    /// Returns the key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DocumentKey {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::new("a document key has at least one character"));
        }
        if text.len() > MAX_KEY_BYTES {
            return Err(NameError::new(format!(
                "a document key has at most {MAX_KEY_BYTES} bytes, this one has {}",
                text.len()
            )));
        }
        if text.chars().any(char::is_control) {
            return Err(NameError::new(
                "a document key has no control characters (such as newline or NUL)",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for DocumentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a document is found: `collection/key`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentName {
    /// The collection that holds the document.
    pub collection: CollectionName,
    /// The key inside the collection.
    pub key: DocumentKey,
}

impl FromStr for DocumentName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (collection, key) = text.split_once('/').ok_or_else(|| {
            NameError::new(format!("'{text}' is no document name: write collection/key"))
        })?;
        Ok(Self { collection: collection.parse()?, key: key.parse()? })
    }
}

impl fmt::Display for DocumentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.collection, self.key)
    }
}

/// The name of a region: 1 to 32 bytes of `a-z A-Z 0-9 _ - .`, starting with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionName(String);

impl RegionName {
    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl RegionName {
    /// The bytes that mark the origins of the region's leaders.
    fn fingerprint(&self) -> [u8; 4] {
        let id = Uuid::new_v5(&REGION_NAMESPACE, self.0.as_bytes());
        let [a, b, c, d, ..] = *id.as_bytes();
        [a, b, c, d]
    }
}

impl FromStr for RegionName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        plain_name("region", text, MAX_REGION_BYTES).map(Self)
    }
}

impl fmt::Display for RegionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who makes a change, as the request that asked for it says: 1 to 256 bytes of UTF-8 without control
/// characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthorName(String);

impl AuthorName {
    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AuthorName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > MAX_AUTHOR_BYTES {
            return Err(NameError::new(format!(
                "an author's name has 1 to {MAX_AUTHOR_BYTES} bytes, this one has {}",
                text.len()
            )));
        }
        if text.chars().any(char::is_control) {
            return Err(NameError::new("an author's name has no control characters"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for AuthorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of a cluster; nodes of different clusters never talk to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub Uuid);

impl FromStr for ClusterId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Uuid::parse_str(text)
            .map(Self)
            .map_err(|_| NameError::new(format!("'{text}' is no cluster id: write a UUID")))
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn plain_name(what: &str, text: &str, longest: usize) -> Result<String, NameError> {
    let letter_or_digit = |c: char| c.is_ascii_alphanumeric();
    if !text.starts_with(letter_or_digit) {
        return Err(NameError::new(format!(
            "a {what} name starts with a letter or a digit, '{text}' does not"
        )));
    }
    if text.len() > longest {
        return Err(NameError::new(format!(
            "a {what} name has at most {longest} bytes, this one has {}",
            text.len()
        )));
    }
    match text.chars().find(|&c| !letter_or_digit(c) && !"_-.".contains(c)) {
        Some(c) => Err(NameError::new(format!(
            "a {what} name is made of a-z A-Z 0-9 _ - . and '{text}' has '{}'",
            c.escape_default()
        ))),
        None => Ok(text.to_owned()),
    }
}

/// The collection of settings: no other name starts so.
const SETTINGS: &str = "_collections";

/// The UUID namespace of named documents; it never changes, because document ids follow from it.
const NAMESPACE: Uuid = Uuid::from_bytes([
    0x5a, 0x1d, 0x0e, 0x6c, 0x94, 0x3b, 0x4f, 0x52, 0x9c, 0x77, 0x2e, 0x61, 0xa8, 0x0b, 0xd3, 0x4e,
]);

/// The UUID namespace of later epochs; it never changes, because document ids follow from it.
const EPOCH_NAMESPACE: Uuid = Uuid::from_bytes([
    0xd7, 0x42, 0x91, 0x3e, 0x08, 0xc5, 0x4b, 0x6f, 0xa3, 0x1c, 0x5e, 0xf0, 0x27, 0x8d, 0x64, 0xb9,
]);

/// The UUID namespace of regions; it never changes, because the origins of leaders follow from it.
const REGION_NAMESPACE: Uuid = Uuid::from_bytes([
    0xb3, 0x6a, 0x02, 0xd8, 0x4c, 0x11, 0x47, 0x9e, 0x8d, 0x05, 0x71, 0xf4, 0x1c, 0x9b, 0xe0, 0x38,
]);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_refused<T: FromStr<Err = NameError> + fmt::Debug>(text: &str, words: &str) {
        let refusal = text.parse::<T>().unwrap_err().to_string();
        assert!(refusal.contains(words), "{text}: {refusal}");
    }

    #[test]
    fn collection_and_region_names_keep_their_rules() {
        for text in ["a", "9", "Users", "a.b-c_d", &"x".repeat(MAX_COLLECTION_BYTES)] {
            assert_eq!(text.parse::<CollectionName>().unwrap().as_str(), text);
        }
        check_refused::<CollectionName>("", "starts with a letter or a digit");
        check_refused::<CollectionName>("_users", "starts with a letter or a digit");
        check_refused::<CollectionName>("_collections2", "starts with a letter or a digit");
        let reserved: CollectionName = "_collections".parse().unwrap();
        assert!(reserved == CollectionName::settings() && reserved.is_reserved());
        assert!(!"collections".parse::<CollectionName>().unwrap().is_reserved());
        check_refused::<CollectionName>("ü", "starts with a letter or a digit");
        check_refused::<CollectionName>("a/b", "'a/b' has '/'");
        check_refused::<CollectionName>("a\n", "has '\\n'");
        check_refused::<CollectionName>(&"x".repeat(65), "at most 64 bytes, this one has 65");
        assert_eq!("eu-west".parse::<RegionName>().unwrap().to_string(), "eu-west");
        check_refused::<RegionName>(&"x".repeat(33), "at most 32 bytes, this one has 33");
        check_refused::<RegionName>("eu west", "a region name is made of");
    }

    #[test]
    fn keys_keep_their_rules() {
        for text in ["a", "a/b/c", "/", " ", "ключ 🗝", &"k".repeat(MAX_KEY_BYTES)] {
            assert_eq!(text.parse::<DocumentKey>().unwrap().as_str(), text);
        }
        check_refused::<DocumentKey>("", "at least one character");
        check_refused::<DocumentKey>("a\0b", "control characters");
        check_refused::<DocumentKey>("a\u{85}", "control characters");
        check_refused::<DocumentKey>(&"é".repeat(257), "at most 512 bytes, this one has 514");
    }

    #[test]
    fn a_document_name_is_split_at_the_first_slash() {
        let name: DocumentName = "users/a/b".parse().unwrap();
        assert_eq!((name.collection.as_str(), name.key.as_str()), ("users", "a/b"));
        check_refused::<DocumentName>("users", "write collection/key");
        check_refused::<DocumentName>("users/", "at least one character");
        check_refused::<DocumentName>("/a", "a collection name starts with");
    }

    #[test]
    fn document_ids_never_change() {
        let id = |text: &str| DocumentId::from(&text.parse().unwrap()).to_string();
        assert_eq!(id("users/ada"), "c542f901-e333-52b5-a06e-8539ee270810");
        assert_ne!(id("users/ada"), id("users/ada "));
        let first = DocumentId::from(&"users/ada".parse().unwrap());
        let second = first.next_epoch();
        assert_eq!(second.family(), first.family());
        assert!(second != first && second.next_epoch() != first);
        assert_ne!(id("a/b/c"), id("a.b/c"));
    }

    #[test]
    fn an_author_has_a_name() {
        for text in ["ada", "Ada L.", "ада", &"a".repeat(MAX_AUTHOR_BYTES)] {
            assert_eq!(text.parse::<AuthorName>().unwrap().as_str(), text);
        }
        check_refused::<AuthorName>("", "1 to 256 bytes, this one has 0");
        check_refused::<AuthorName>(&"a".repeat(257), "this one has 257");
        check_refused::<AuthorName>("a\nb", "no control characters");
    }

    #[test]
    fn an_origin_tells_its_region_and_a_clients_id_tells_none() {
        let [east, west] = ["us-east", "eu-west"].map(|name| name.parse::<RegionName>().unwrap());
        let origin = Origin::of_region(&east, [7; 16]);
        assert!(origin.is_of(&east) && !origin.is_of(&west));
        assert_ne!(origin, Origin::of_region(&east, [8; 16]));
        let mut client = *origin.as_bytes();
        client[6] = client[6] & 0x0f | 0x40;
        assert!(!Origin::from_bytes(client).is_of(&east), "version 4 is a client's");
        assert!(origin.is_of_any_region() && !Origin::from_bytes(client).is_of_any_region());
    }

    #[test]
    fn a_cluster_id_is_a_uuid() {
        let text = "5a1d0e6c-943b-4f52-9c77-2e61a80bd34e";
        assert_eq!(text.parse::<ClusterId>().unwrap().to_string(), text);
        check_refused::<ClusterId>("main", "'main' is no cluster id: write a UUID");
    }

    #[test]
    fn the_sequence_after_the_last_is_the_last() {
        assert_eq!(Sequence::ZERO.next(), Sequence(1));
        assert_eq!(Sequence(u64::MAX).next(), Sequence(u64::MAX));
    }

    proptest! {
        #[test]
        fn names_that_are_taken_come_back_as_written(text in any::<String>()) {
            let printed = [
                text.parse::<CollectionName>().ok().map(|name| name.to_string()),
                text.parse::<RegionName>().ok().map(|name| name.to_string()),
                text.parse::<DocumentKey>().ok().map(|key| key.to_string()),
                text.parse::<DocumentName>().ok().map(|name| name.to_string()),
            ];
            prop_assert!(printed.into_iter().flatten().all(|printed| printed == text));
        }

        #[test]
        fn different_names_have_different_ids(
            one in "[a-c]{1,3}/[a-c/]{1,4}", other in "[a-c]{1,3}/[a-c/]{1,4}",
        ) {
            let [first, second] = [&one, &other].map(|text| text.parse::<DocumentName>().unwrap());
            prop_assert_eq!(DocumentId::from(&first) == DocumentId::from(&second), one == other);
        }

        #[test]
        fn ids_come_back_from_their_bytes(bytes in any::<[u8; 16]>(), hash in any::<[u8; 32]>()) {
            prop_assert_eq!(*Origin::from_bytes(bytes).as_bytes(), bytes);
            prop_assert_eq!(*DocumentId::from_bytes(bytes).as_bytes(), bytes);
            let digits = ChangeHash(hash).to_string();
            prop_assert_eq!(digits.len(), 64);
            prop_assert_eq!(format!("{:?}", ChangeHash(hash)), digits);
        }
    }
}
