//! The messages between a leaf and a node, and their one encoding.
//!
//! What is read is checked against the bounds below, and must be the one encoding of what it says,
//! so nothing is half understood.

use std::borrow::Cow;

use anabranch_crdt::ids::{
    ChangeHash, CollectionName, DocumentKey, DocumentName, NameError, RegionName,
};
use anabranch_crdt::token::{self, TokenError};
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;

use super::wire::{WireReply, WireRequest, array, read, write};
use crate::cbor::Packed;
use crate::document::Digest;
use crate::error::{Error, ErrorKind};

/// The protocol that this release speaks; a node refuses a client that speaks another one.
pub const PROTOCOL: u32 = 1;

/// Bytes that a message with changes is filled up to; a larger change travels alone.
pub const PAGE_BYTES: usize = 1 << 20;

/// Changes of one message: so many that a page of tiny ones is full by its bytes first.
pub const MAX_CHANGES: usize = 8_192;

/// Heads of one [`Request::Pull`]: more concurrent writers than a document has.
pub const MAX_HEADS: usize = 1_024;

/// Documents of one [`Reply::Listed`]; with the longest keys they fit into a page.
pub const MAX_LISTED: usize = 1_000;

/// Collections of one [`Request::Watch`].
pub const MAX_WATCHED_COLLECTIONS: usize = 256;

/// Documents of one [`Request::Watch`]; with the longest names they fit into a page.
pub const MAX_WATCHED_NAMES: usize = 1_024;

/// What a leaf asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Opens a conversation; answered by [`Reply::Welcome`].
    Hello {
        /// The protocol of the client.
        protocol: u32,
    },
    /// Brings changes of one document, each after its dependencies; answered by
    /// [`Reply::Accepted`] or [`Reply::Refused`], for all of them.
    Push {
        /// The document.
        name: DocumentName,
        /// The changes.
        changes: Vec<Bytes>,
    },
    /// Asks for what a document has beyond `heads`; answered by [`Reply::Changes`], several times
    /// if there is much.
    Pull {
        /// The document.
        name: DocumentName,
        /// Changes that the client has with all their ancestors; unknown ones count as nothing.
        heads: Vec<ChangeHash>,
    },
    /// Asks which documents a collection has; answered by [`Reply::Listed`].
    List {
        /// The collection.
        collection: CollectionName,
        /// What keys start with.
        prefix: String,
        /// The key that the last page ended with.
        after: Option<DocumentKey>,
        /// Documents of the page, at most [`MAX_LISTED`].
        limit: usize,
    },
    /// Asks to be told of changes from now on; answered by [`Reply::Changed`] and
    /// [`Reply::Heartbeat`] until either side ends the conversation.
    Watch {
        /// Every document of these.
        collections: Vec<CollectionName>,
        /// These too.
        names: Vec<DocumentName>,
        /// Where to start.
        since: Since,
    },
}

/// From where on a leaf is told of changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    /// What is durable from now on.
    Now,
    /// Everything that this does not include.
    Vector(VersionVector),
}

/// What a node answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The node is ready. Of which cluster it is, its certificate has shown.
    Welcome {
        /// Its region.
        region: RegionName,
        /// What is durable there.
        vector: VersionVector,
    },
    /// What was pushed is durable.
    Accepted {
        /// What is durable there, the push included.
        vector: VersionVector,
    },
    /// The request was not done.
    Refused(Refusal),
    /// Changes of a document, each after its dependencies.
    Changes {
        /// The changes.
        changes: Vec<Bytes>,
        /// Whether the document exists there: it was written, and not deleted.
        exists: bool,
        /// Whether another message with changes of this document follows.
        more: bool,
        /// Includes every one of the changes.
        vector: VersionVector,
    },
    /// A page of the documents of a collection, in the order of their keys.
    Listed {
        /// The documents, with the digests of their heads.
        documents: Vec<(DocumentKey, Digest)>,
        /// Whether there are more.
        more: bool,
    },
    /// A document changed.
    Changed {
        /// The document.
        name: DocumentName,
        /// Includes this change and everything told before it.
        vector: VersionVector,
    },
    /// Nothing changed for a while; the node is still there.
    Heartbeat {
        /// Includes everything told before.
        vector: VersionVector,
    },
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// A stable code, such as `change_refused`.
    pub code: String,
    /// The reason, for people.
    pub message: String,
    /// Whether to try again.
    pub outlook: Outlook,
}

/// Whether a refused request may succeed another time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// It may, later or at another node.
    Later,
    /// Not as it is.
    Never,
}

/// Bytes that are no message of the protocol.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not the CBOR of a message.
    #[error("not a message: {0}")]
    Cbor(#[from] serde_cbor::Error),
    /// CBOR that says something in another way than its one encoding.
    #[error("not in the one encoding of its content")]
    Form,
    /// A list is longer than allowed.
    #[error("{what}: {count} are over the limit of {limit}")]
    TooMany {
        /// What is listed.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A name breaks its rules.
    #[error("{0}")]
    Name(#[from] NameError),
    /// A session token cannot be read.
    #[error("{0}")]
    Token(#[from] TokenError),
}

impl Refusal {
    /// Refuses what breaks the protocol.
    pub(super) fn violation(reason: impl Into<String>) -> Self {
        let (code, message) = ("protocol_violated".to_owned(), reason.into());
        Self { code, message, outlook: Outlook::Never }
    }
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        let outlook = match error.kind() {
            ErrorKind::Stale
            | ErrorKind::Gone
            | ErrorKind::Overloaded
            | ErrorKind::Unavailable
            | ErrorKind::Corrupt
            | ErrorKind::Internal => Outlook::Later,
            ErrorKind::Invalid
            | ErrorKind::Forbidden
            | ErrorKind::NotFound
            | ErrorKind::Conflict
            | ErrorKind::Precondition
            | ErrorKind::TooLarge => Outlook::Never,
        };
        Self { code: error.code().to_owned(), message: error.to_string(), outlook }
    }
}

impl Request {
    /// Writes the message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        write(&WireRequest::from(self))
    }

    /// Reads a message.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(frame: &Bytes) -> Result<Self, DecodeError> {
        match read(frame)? {
            WireRequest::Hello { protocol } => Ok(Self::Hello { protocol }),
            WireRequest::Push { name, changes } => {
                within("changes", changes.len(), MAX_CHANGES)?;
                Ok(Self::Push { name: name.parse()?, changes: unpack(frame, &changes) })
            }
            WireRequest::Pull { name, heads } => {
                within("heads", heads.len(), MAX_HEADS)?;
                let heads = heads.iter().map(array).collect::<Result<Vec<_>, _>>()?;
                let heads = heads.into_iter().map(ChangeHash).collect();
                Ok(Self::Pull { name: name.parse()?, heads })
            }
            WireRequest::List { collection, prefix, after, limit } => {
                let limit = limit as usize;
                within("listed documents", limit, MAX_LISTED)?;
                let after = after.map(|key| key.parse()).transpose()?;
                let (collection, prefix) = (collection.parse()?, prefix.into_owned());
                Ok(Self::List { collection, prefix, after, limit })
            }
            WireRequest::Watch { collections, names, since } => {
                within("collections", collections.len(), MAX_WATCHED_COLLECTIONS)?;
                within("documents", names.len(), MAX_WATCHED_NAMES)?;
                Ok(Self::Watch {
                    collections: parse_all(&collections)?,
                    names: parse_all(&names)?,
                    since: since
                        .map_or(Ok(Since::Now), |token| token::decode(&token).map(Since::Vector))?,
                })
            }
        }
    }
}

impl Reply {
    /// Writes the message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        write(&WireReply::from(self))
    }

    /// Reads a message.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(frame: &Bytes) -> Result<Self, DecodeError> {
        Ok(match read(frame)? {
            WireReply::Welcome { region, token } => {
                Self::Welcome { region: region.parse()?, vector: token::decode(&token)? }
            }
            WireReply::Accepted { token } => Self::Accepted { vector: token::decode(&token)? },
            WireReply::Refused { code, message, later } => Self::Refused(Refusal {
                code: code.into_owned(),
                message: message.into_owned(),
                outlook: if later { Outlook::Later } else { Outlook::Never },
            }),
            WireReply::Changes { changes, exists, more, token } => {
                within("changes", changes.len(), MAX_CHANGES)?;
                let (changes, vector) = (unpack(frame, &changes), token::decode(&token)?);
                Self::Changes { changes, exists, more, vector }
            }
            WireReply::Listed { documents, more } => {
                within("listed documents", documents.len(), MAX_LISTED)?;
                let read = |(key, digest): &(Cow<'_, str>, Packed<'_>)| {
                    Ok::<_, DecodeError>((key.parse()?, Digest(array(digest)?)))
                };
                let documents = documents.iter().map(read).collect::<Result<_, _>>()?;
                Self::Listed { documents, more }
            }
            WireReply::Changed { name, token } => {
                Self::Changed { name: name.parse()?, vector: token::decode(&token)? }
            }
            WireReply::Heartbeat { token } => Self::Heartbeat { vector: token::decode(&token)? },
        })
    }
}

/// Cuts changes into messages of at most `most` bytes and [`MAX_CHANGES`]; there is always one.
pub(crate) fn pages<T>(changes: Vec<T>, most: usize, bytes: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let (mut pages, mut page, mut filled) = (Vec::new(), Vec::new(), 0_usize);
    for change in changes {
        let size = bytes(&change);
        let full = filled.saturating_add(size) > most || page.len() >= MAX_CHANGES;
        if full && !page.is_empty() {
            pages.push(std::mem::take(&mut page));
            filled = 0;
        }
        filled = filled.saturating_add(size);
        page.push(change);
    }
    pages.push(page);
    pages
}

fn within(what: &'static str, count: usize, limit: usize) -> Result<(), DecodeError> {
    if count > limit { Err(DecodeError::TooMany { what, count, limit }) } else { Ok(()) }
}

/// Takes changes out of a frame without copying them.
fn unpack(frame: &Bytes, changes: &[Packed<'_>]) -> Vec<Bytes> {
    changes.iter().map(|change| frame.slice_ref(change.0)).collect()
}

fn parse_all<T: std::str::FromStr<Err = NameError>>(
    names: &[Cow<'_, str>],
) -> Result<Vec<T>, NameError> {
    names.iter().map(|name| name.parse()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{reply, request};
    use super::*;

    fn check_refused(request: &Request, words: &str) {
        let refusal = Request::decode(&request.encode()).unwrap_err().to_string();
        assert!(refusal.contains(words), "{refusal}");
    }

    #[test]
    fn more_than_the_limits_is_refused() {
        let name: DocumentName = "lists/shopping".parse().unwrap();
        let heads = vec![ChangeHash([1; 32]); MAX_HEADS + 1];
        check_refused(&Request::Pull { name: name.clone(), heads }, "heads: 1025 are over");
        let changes = vec![Bytes::new(); MAX_CHANGES + 1];
        check_refused(&Request::Push { name: name.clone(), changes }, "changes: 8193 are over");
        let names = vec![name.clone(); MAX_WATCHED_NAMES + 1];
        let watch = Request::Watch { collections: Vec::new(), names, since: Since::Now };
        check_refused(&watch, "documents: 1025 are over");
        let list = Request::List {
            collection: name.collection,
            prefix: String::new(),
            after: None,
            limit: MAX_LISTED + 1,
        };
        check_refused(&list, "listed documents: 1001 are over");
    }

    #[test]
    fn only_the_one_encoding_is_read() {
        let mut frame = Request::Hello { protocol: PROTOCOL }.encode().to_vec();
        frame.push(0);
        assert!(Request::decode(&frame.into()).is_err());
        // {"hello": {"protocol": 1}} with the 1 written in two bytes.
        let mut long = b"\xa1\x65hello\xa1\x68protocol\x18\x01".to_vec();
        let refused = Request::decode(&Bytes::from(long.clone())).unwrap_err();
        assert!(matches!(refused, DecodeError::Form), "{refused}");
        long.truncate(long.len() - 2);
        long.push(1);
        assert_eq!(Request::decode(&long.into()).unwrap(), Request::Hello { protocol: 1 });
    }

    #[test]
    fn pages_are_full_and_a_large_change_is_alone() {
        let sizes = |pages: Vec<Vec<usize>>| pages.iter().map(Vec::len).collect::<Vec<_>>();
        let half = PAGE_BYTES / 2;
        assert_eq!(sizes(pages(vec![half, half, half], PAGE_BYTES, |size| *size)), [2, 1]);
        assert_eq!(sizes(pages(vec![1, 3 * PAGE_BYTES, 1], PAGE_BYTES, |size| *size)), [1, 1, 1]);
        assert_eq!(
            sizes(pages(vec![0; MAX_CHANGES + 1], PAGE_BYTES, |size| *size)),
            [MAX_CHANGES, 1]
        );
        assert_eq!(sizes(pages(Vec::new(), PAGE_BYTES, |size| *size)), [0]);
    }

    proptest! {
        #[test]
        fn requests_come_back(request in request()) {
            prop_assert_eq!(Request::decode(&request.encode()).unwrap(), request);
        }

        #[test]
        fn replies_come_back(reply in reply()) {
            prop_assert_eq!(Reply::decode(&reply.encode()).unwrap(), reply);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let frame = Bytes::from(bytes);
            let _ = Request::decode(&frame);
            let _ = Reply::decode(&frame);
        }

        #[test]
        fn damaged_messages_are_read_or_refused(
            request in request(), reply in reply(), at in any::<prop::sample::Index>(), bits: u8,
        ) {
            for frame in [request.encode(), reply.encode()] {
                let mut bytes = frame.to_vec();
                let at = at.index(bytes.len());
                bytes[at] ^= bits;
                let frame = Bytes::from(bytes);
                if let Ok(read) = Request::decode(&frame) {
                    prop_assert_eq!(read.encode(), frame.clone());
                }
                if let Ok(read) = Reply::decode(&frame) {
                    prop_assert_eq!(read.encode(), frame);
                }
            }
        }
    }
}
