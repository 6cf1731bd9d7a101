//! Records: how values are written, with a hash over table, key and value.
//!
//! redb checks its pages only when it repairs a file, so bits that rot would be read as they are.
//! Each value here ends with the XXH3-64 of the table's name, the key and the bytes before it,
//! and nothing of a value is looked at before that hash was compared.
//!
//! ```text
//! format (1) | body | hash (8)
//! ```

use std::borrow::Cow;

use anabranch_crdt::ids::{ChangeHash, DocumentId, DocumentName};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use crate::cbor::Packed;
use crate::document::Digest;
use crate::error::{Error, ErrorKind};
use crate::leaf::{Outlook, Refusal};

/// What is known of a document without loading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) name: DocumentName,
    pub(super) digest: Digest,
    /// Changes that a node had with all their ancestors.
    pub(super) known: Vec<ChangeHash>,
    /// The epoch that it holds, if it is not the first.
    pub(super) epoch: Option<DocumentId>,
    /// Canonical JSON; `None` for a document that is deleted.
    pub(super) json: Option<Bytes>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireRow<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    digest: Packed<'a>,
    #[serde(borrow)]
    known: Vec<Packed<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    epoch: Option<Packed<'a>>,
    #[serde(borrow)]
    json: Option<Packed<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireRefusal<'a> {
    #[serde(borrow)]
    code: Cow<'a, str>,
    #[serde(borrow)]
    message: Cow<'a, str>,
    later: bool,
}

impl Row {
    pub(super) fn encode(&self) -> Vec<u8> {
        encode(&WireRow {
            name: self.name.to_string().into(),
            digest: Packed(&self.digest.0),
            known: self.known.iter().map(|hash| Packed(&hash.0)).collect(),
            epoch: self.epoch.as_ref().map(|epoch| Packed(epoch.as_bytes())),
            json: self.json.as_deref().map(Packed),
        })
    }

    pub(super) fn decode(table: &'static str, body: &[u8]) -> Result<Self, Error> {
        let damaged = || damaged(table);
        let wire: WireRow<'_> = serde_cbor::from_slice(body).map_err(|_| damaged())?;
        let hash = |known: Packed<'_>| known.0.try_into().map(ChangeHash).map_err(|_| damaged());
        let epoch = |epoch: Packed<'_>| {
            epoch.0.try_into().map(DocumentId::from_bytes).map_err(|_| damaged())
        };
        Ok(Self {
            name: wire.name.parse().map_err(|_| damaged())?,
            digest: Digest(wire.digest.0.try_into().map_err(|_| damaged())?),
            known: wire.known.into_iter().map(hash).collect::<Result<_, _>>()?,
            epoch: wire.epoch.map(epoch).transpose()?,
            json: wire.json.map(|json| Bytes::copy_from_slice(json.0)),
        })
    }
}

pub(super) fn encode_refusal(refusal: &Refusal) -> Vec<u8> {
    let later = refusal.outlook == Outlook::Later;
    let (code, message) = (refusal.code.as_str().into(), refusal.message.as_str().into());
    encode(&WireRefusal { code, message, later })
}

pub(super) fn decode_refusal(table: &'static str, body: &[u8]) -> Result<Refusal, Error> {
    let wire: WireRefusal<'_> = serde_cbor::from_slice(body).map_err(|_| damaged(table))?;
    let outlook = if wire.later { Outlook::Later } else { Outlook::Never };
    Ok(Refusal { code: wire.code.into_owned(), message: wire.message.into_owned(), outlook })
}

/// Makes a record of a body.
pub(super) fn seal(table: &str, key: &[u8], body: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(body.len() + 9);
    record.push(FORMAT);
    record.extend_from_slice(body);
    let hash = hash(table, key, &record);
    record.extend_from_slice(&hash.to_be_bytes());
    record
}

/// Compares the hash of a record, and returns its body.
pub(super) fn unseal<'a>(
    table: &'static str,
    key: &[u8],
    record: &'a [u8],
) -> Result<&'a [u8], Error> {
    let (sealed, stored) = record.split_last_chunk().ok_or_else(|| damaged(table))?;
    if hash(table, key, sealed) != u64::from_be_bytes(*stored) {
        return Err(damaged(table));
    }
    match sealed.split_first() {
        Some((&FORMAT, body)) => Ok(body),
        Some(_) | None => Err(damaged(table)),
    }
}

pub(super) fn damaged(table: &'static str) -> Error {
    let message = format!(
        "a record of table {table} of the replica is damaged: keep the file, and open a new \
         replica in another directory"
    );
    Error::new(ErrorKind::Corrupt, "replica_damaged", message)
}

fn encode(wire: &impl Serialize) -> Vec<u8> {
    serde_cbor::to_vec(wire).expect("plain structs encode into memory")
}

fn hash(table: &str, key: &[u8], body: &[u8]) -> u64 {
    let seed = XxHash3_64::oneshot(table.as_bytes());
    let seed = XxHash3_64::oneshot_with_seed(seed, key);
    XxHash3_64::oneshot_with_seed(seed, body)
}

/// The layout of records that this release writes and reads.
const FORMAT: u8 = 1;
