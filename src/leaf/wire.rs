//! The wire structs of the messages: CBOR with named fields.

use std::borrow::Cow;

use anabranch_crdt::token;
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::message::{DecodeError, Outlook, Refusal, Reply, Request, Since};
use crate::cbor::Packed;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum WireRequest<'a> {
    Hello {
        protocol: u32,
    },
    Push {
        #[serde(borrow)]
        name: Cow<'a, str>,
        #[serde(borrow)]
        changes: Vec<Packed<'a>>,
    },
    Pull {
        #[serde(borrow)]
        name: Cow<'a, str>,
        #[serde(borrow)]
        heads: Vec<Packed<'a>>,
    },
    List {
        #[serde(borrow)]
        collection: Cow<'a, str>,
        #[serde(borrow)]
        prefix: Cow<'a, str>,
        after: Option<Cow<'a, str>>,
        limit: u32,
    },
    Watch {
        collections: Vec<Cow<'a, str>>,
        names: Vec<Cow<'a, str>>,
        since: Option<Cow<'a, str>>,
    },
    Confirm {
        #[serde(borrow)]
        token: Cow<'a, str>,
        #[serde(borrow)]
        concern: Cow<'a, str>,
        wait: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum WireReply<'a> {
    Welcome {
        #[serde(borrow)]
        region: Cow<'a, str>,
        #[serde(borrow)]
        token: Cow<'a, str>,
    },
    Accepted {
        #[serde(borrow)]
        token: Cow<'a, str>,
    },
    Refused {
        #[serde(borrow)]
        code: Cow<'a, str>,
        #[serde(borrow)]
        message: Cow<'a, str>,
        later: bool,
    },
    Changes {
        #[serde(borrow)]
        document: Packed<'a>,
        #[serde(borrow)]
        changes: Vec<Packed<'a>>,
        exists: bool,
        more: bool,
        #[serde(borrow)]
        token: Cow<'a, str>,
    },
    Listed {
        #[serde(borrow)]
        documents: Vec<(Cow<'a, str>, Packed<'a>)>,
        more: bool,
    },
    Changed {
        #[serde(borrow)]
        name: Cow<'a, str>,
        #[serde(borrow)]
        token: Cow<'a, str>,
    },
    Heartbeat {
        #[serde(borrow)]
        token: Cow<'a, str>,
    },
    Confirmed {
        regions: Vec<Cow<'a, str>>,
        met: bool,
    },
}

impl<'a> From<&'a Request> for WireRequest<'a> {
    fn from(request: &'a Request) -> Self {
        match request {
            Request::Hello { protocol } => Self::Hello { protocol: *protocol },
            Request::Push { name, changes } => {
                Self::Push { name: name.to_string().into(), changes: pack(changes) }
            }
            Request::Pull { name, heads } => {
                let heads = heads.iter().map(|head| Packed(&head.0)).collect();
                Self::Pull { name: name.to_string().into(), heads }
            }
            Request::List { collection, prefix, after, limit } => Self::List {
                collection: collection.as_str().into(),
                prefix: prefix.into(),
                after: after.as_ref().map(|key| key.as_str().into()),
                limit: u32::try_from(*limit).unwrap_or(u32::MAX),
            },
            Request::Watch { collections, names, since } => Self::Watch {
                collections: collections.iter().map(|name| name.as_str().into()).collect(),
                names: names.iter().map(|name| name.to_string().into()).collect(),
                since: match since {
                    Since::Now => None,
                    Since::Vector(vector) => Some(token::encode(vector).into()),
                },
            },
            Request::Confirm { vector, concern, wait } => Self::Confirm {
                token: token::encode(vector).into(),
                concern: concern.to_string().into(),
                wait: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            },
        }
    }
}

impl<'a> From<&'a Reply> for WireReply<'a> {
    fn from(reply: &'a Reply) -> Self {
        let token = |vector: &VersionVector| token::encode(vector).into();
        match reply {
            Reply::Welcome { region, vector } => {
                Self::Welcome { region: region.as_str().into(), token: token(vector) }
            }
            Reply::Accepted { vector } => Self::Accepted { token: token(vector) },
            Reply::Refused(Refusal { code, message, outlook }) => {
                let shown = message.chars().take(MAX_REASON_CHARACTERS).collect::<String>();
                let later = *outlook == Outlook::Later;
                Self::Refused { code: code.into(), message: shown.into(), later }
            }
            Reply::Changes { document, changes, exists, more, vector } => Self::Changes {
                document: Packed(document.as_bytes()),
                changes: pack(changes),
                exists: *exists,
                more: *more,
                token: token(vector),
            },
            Reply::Listed { documents, more } => {
                let listed = documents.iter();
                let listed = listed.map(|(key, digest)| (key.as_str().into(), Packed(&digest.0)));
                Self::Listed { documents: listed.collect(), more: *more }
            }
            Reply::Changed { name, vector } => {
                Self::Changed { name: name.to_string().into(), token: token(vector) }
            }
            Reply::Heartbeat { vector } => Self::Heartbeat { token: token(vector) },
            Reply::Confirmed { regions, met } => Self::Confirmed {
                regions: regions.iter().map(|region| region.as_str().into()).collect(),
                met: *met,
            },
        }
    }
}

/// Takes a byte string that has a fixed length.
pub(super) fn array<const N: usize>(bytes: &Packed<'_>) -> Result<[u8; N], DecodeError> {
    bytes.0.try_into().map_err(|_| DecodeError::Form)
}

pub(super) fn write(wire: &impl Serialize) -> Bytes {
    serde_cbor::to_vec(wire).expect("plain structs encode into memory").into()
}

pub(super) fn read<'a, T: Serialize + Deserialize<'a>>(frame: &'a [u8]) -> Result<T, DecodeError> {
    let wire: T = serde_cbor::from_slice(frame)?;
    if serde_cbor::to_vec(&wire)? == frame { Ok(wire) } else { Err(DecodeError::Form) }
}

fn pack(changes: &[Bytes]) -> Vec<Packed<'_>> {
    changes.iter().map(|change| Packed(change)).collect()
}

/// Characters of the message of a refusal.
const MAX_REASON_CHARACTERS: usize = 1_024;
