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
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
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

/// The name of a collection: 1 to 64 bytes of `a-z A-Z 0-9 _ - .`, starting with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectionName(String);

impl CollectionName {
    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CollectionName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
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

/// The UUID namespace of named documents; it never changes, because document ids follow from it.
const NAMESPACE: Uuid = Uuid::from_bytes([
    0x5a, 0x1d, 0x0e, 0x6c, 0x94, 0x3b, 0x4f, 0x52, 0x9c, 0x77, 0x2e, 0x61, 0xa8, 0x0b, 0xd3, 0x4e,
]);
