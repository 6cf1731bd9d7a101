//! Control frames: CBOR maps with packed byte strings.

use anabranch_crdt::entry::Dot;
use anabranch_crdt::ids::{Origin, RegionName, Sequence, Timestamp};
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::{
    DecodeError, Digest, Echo, FORMAT_VERSION, Frame, Hello, KIND_ACK, KIND_DIGEST, KIND_HELLO,
    KIND_MEMBERS, KIND_NAMES, KIND_PULL, MAX_ORIGINS, Pull, Reading,
};
use crate::cbor::Packed;
use crate::replication::members::{self, Member};

pub(super) fn encode_hello(hello: &Hello) -> Bytes {
    let wire = HelloWire {
        region: hello.region.as_str(),
        origin: Packed(hello.origin.as_bytes()),
        vector: Packed(&pack_vector(&hello.vector)),
        names: Packed(&pack_names(&hello.names)),
        direct: Packed(&pack_origins(&hello.direct)),
        heard: hello.heard,
        members: hello.members,
    };
    encode(KIND_HELLO, &wire)
}

pub(super) fn decode_hello(body: &[u8]) -> Result<Hello, DecodeError> {
    let wire: HelloWire<'_> = decode(body)?;
    Ok(Hello {
        region: wire.region.parse()?,
        origin: unpack_origin(wire.origin.0)?,
        vector: unpack_vector(wire.vector.0)?,
        names: unpack_names(wire.names.0)?,
        direct: unpack_origins(wire.direct.0)?,
        heard: wire.heard,
        members: wire.members,
    })
}

pub(super) fn encode_ack(vector: &VersionVector) -> Bytes {
    encode(KIND_ACK, &AckWire { vector: Packed(&pack_vector(vector)) })
}

pub(super) fn decode_ack(body: &[u8]) -> Result<Frame, DecodeError> {
    let wire: AckWire<'_> = decode(body)?;
    Ok(Frame::Ack { vector: unpack_vector(wire.vector.0)? })
}

pub(super) fn encode_digest(digest: &Digest) -> Bytes {
    let wire = DigestWire {
        vector: Packed(&pack_vector(&digest.vector)),
        clock: digest.clock.0,
        direct: Packed(&pack_origins(&digest.direct)),
        unnamed: Packed(&pack_origins(&digest.unnamed)),
        reading: digest.reading.map(ReadingWire::from),
        members: digest.members,
    };
    encode(KIND_DIGEST, &wire)
}

pub(super) fn decode_digest(body: &[u8]) -> Result<Digest, DecodeError> {
    let wire: DigestWire<'_> = decode(body)?;
    if wire.clock > Timestamp::MAX.0 {
        return Err(DecodeError::Range("clock"));
    }
    Ok(Digest {
        vector: unpack_vector(wire.vector.0)?,
        clock: Timestamp(wire.clock),
        direct: unpack_origins(wire.direct.0)?,
        unnamed: unpack_origins(wire.unnamed.0)?,
        reading: wire.reading.map(ReadingWire::check).transpose()?,
        members: wire.members,
    })
}

pub(super) fn encode_pull(pull: &Pull) -> Bytes {
    let wire = PullWire {
        origin: Packed(pull.origin.as_bytes()),
        after: pull.after.0,
        entries: pull.entries,
        bytes: pull.bytes,
    };
    encode(KIND_PULL, &wire)
}

pub(super) fn decode_pull(body: &[u8]) -> Result<Pull, DecodeError> {
    let wire: PullWire<'_> = decode(body)?;
    let origin = unpack_origin(wire.origin.0)?;
    Ok(Pull { origin, after: Sequence(wire.after), entries: wire.entries, bytes: wire.bytes })
}

pub(super) fn encode_names(names: &[(Origin, RegionName)]) -> Bytes {
    encode(KIND_NAMES, &NamesWire { names: Packed(&pack_names(names)) })
}

pub(super) fn decode_names(body: &[u8]) -> Result<Vec<(Origin, RegionName)>, DecodeError> {
    let wire: NamesWire<'_> = decode(body)?;
    unpack_names(wire.names.0)
}

pub(super) fn encode_members(records: &[Member]) -> Bytes {
    let mut bytes = vec![FORMAT_VERSION, KIND_MEMBERS];
    bytes.extend_from_slice(&members::encode_members(records));
    bytes.into()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HelloWire<'a> {
    region: &'a str,
    #[serde(borrow)]
    origin: Packed<'a>,
    #[serde(borrow)]
    vector: Packed<'a>,
    #[serde(borrow)]
    names: Packed<'a>,
    #[serde(borrow)]
    direct: Packed<'a>,
    heard: bool,
    #[serde(default, skip_serializing_if = "is_unsaid")]
    members: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AckWire<'a> {
    #[serde(borrow)]
    vector: Packed<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DigestWire<'a> {
    #[serde(borrow)]
    vector: Packed<'a>,
    clock: u64,
    #[serde(borrow)]
    direct: Packed<'a>,
    #[serde(borrow)]
    unnamed: Packed<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reading: Option<ReadingWire>,
    #[serde(default, skip_serializing_if = "is_unsaid")]
    members: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadingWire {
    wall: u64,
    mark: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    echo: Option<EchoWire>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EchoWire {
    mark: u64,
    held: u64,
}

impl From<Reading> for ReadingWire {
    fn from(reading: Reading) -> Self {
        let echo = reading.echo.map(|Echo { mark, held }| EchoWire { mark, held });
        Self { wall: reading.wall.0, mark: reading.mark, echo }
    }
}

impl ReadingWire {
    fn check(self) -> Result<Reading, DecodeError> {
        if self.wall > Timestamp::MAX.0 {
            return Err(DecodeError::Range("wall clock"));
        }
        let echo = self.echo.map(|EchoWire { mark, held }| Echo { mark, held });
        Ok(Reading { wall: Timestamp(self.wall), mark: self.mark, echo })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PullWire<'a> {
    #[serde(borrow)]
    origin: Packed<'a>,
    after: u64,
    entries: u32,
    bytes: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NamesWire<'a> {
    #[serde(borrow)]
    names: Packed<'a>,
}

fn encode(kind: u8, wire: &impl Serialize) -> Bytes {
    let mut bytes = vec![FORMAT_VERSION, kind];
    serde_cbor::to_writer(&mut bytes, wire).expect("plain structs encode into memory");
    bytes.into()
}

/// Decodes a body and refuses any but the one encoding: CBOR has many ways to write one value.
fn decode<'a, T: Serialize + Deserialize<'a>>(body: &'a [u8]) -> Result<T, DecodeError> {
    let wire: T = serde_cbor::from_slice(body)?;
    if serde_cbor::to_vec(&wire)? != body {
        return Err(serde_cbor::Error::custom("another form than the one expected").into());
    }
    Ok(wire)
}

fn pack_vector(vector: &VersionVector) -> Vec<u8> {
    let mut packed = Vec::with_capacity(vector.len() * DOT_BYTES);
    for dot in vector.iter() {
        packed.extend_from_slice(dot.origin.as_bytes());
        packed.extend_from_slice(&dot.sequence.0.to_be_bytes());
    }
    packed
}

fn unpack_vector(packed: &[u8]) -> Result<VersionVector, DecodeError> {
    let (dots, rest) = packed.as_chunks::<DOT_BYTES>();
    check_count(dots.len(), rest)?;
    let dots: Vec<Dot> = dots.iter().map(unpack_dot).collect::<Result<_, _>>()?;
    check_ascending(dots.iter().map(|dot| dot.origin), "version vector")?;
    Ok(dots.into_iter().collect())
}

fn unpack_dot(packed: &[u8; DOT_BYTES]) -> Result<Dot, DecodeError> {
    let (origin, sequence) = packed.split_first_chunk::<16>().ok_or(DecodeError::Short)?;
    let sequence = sequence.first_chunk::<8>().ok_or(DecodeError::Short)?;
    match u64::from_be_bytes(*sequence) {
        0 | u64::MAX => Err(DecodeError::Range("sequence")),
        sequence => Ok(Dot { origin: Origin::from_bytes(*origin), sequence: Sequence(sequence) }),
    }
}

fn pack_origins(origins: &[Origin]) -> Vec<u8> {
    origins.iter().flat_map(|origin| *origin.as_bytes()).collect()
}

fn unpack_origins(packed: &[u8]) -> Result<Vec<Origin>, DecodeError> {
    let (origins, rest) = packed.as_chunks::<16>();
    check_count(origins.len(), rest)?;
    let origins: Vec<Origin> = origins.iter().map(|id| Origin::from_bytes(*id)).collect();
    check_ascending(origins.iter().copied(), "set of origins")?;
    Ok(origins)
}

fn unpack_origin(packed: &[u8]) -> Result<Origin, DecodeError> {
    packed.try_into().map(Origin::from_bytes).map_err(|_| DecodeError::Form("origin"))
}

fn pack_names(names: &[(Origin, RegionName)]) -> Vec<u8> {
    let mut packed = Vec::new();
    for (origin, region) in names {
        let text = region.as_str().as_bytes();
        packed.extend_from_slice(origin.as_bytes());
        packed.push(u8::try_from(text.len()).expect("region names are at most 32 bytes"));
        packed.extend_from_slice(text);
    }
    packed
}

fn unpack_names(mut packed: &[u8]) -> Result<Vec<(Origin, RegionName)>, DecodeError> {
    let mut names = Vec::new();
    while let Some((origin, rest)) = packed.split_first_chunk::<16>() {
        let (&length, rest) = rest.split_first().ok_or(DecodeError::Short)?;
        let (name, rest) = rest.split_at_checked(length.into()).ok_or(DecodeError::Short)?;
        let name = std::str::from_utf8(name).map_err(|_| DecodeError::Form("name"))?;
        names.push((Origin::from_bytes(*origin), name.parse()?));
        check_count(names.len(), &[])?;
        packed = rest;
    }
    check_count(names.len(), packed)?;
    check_ascending(names.iter().map(|(origin, _)| *origin), "list of names")?;
    Ok(names)
}

fn check_count(count: usize, rest: &[u8]) -> Result<(), DecodeError> {
    match (count > MAX_ORIGINS, rest.is_empty()) {
        (true, _) => Err(DecodeError::Range("count of origins")),
        (false, false) => Err(DecodeError::Short),
        (false, true) => Ok(()),
    }
}

fn check_ascending(
    mut origins: impl Iterator<Item = Origin>,
    what: &'static str,
) -> Result<(), DecodeError> {
    let mut last = None;
    let ascending = origins.all(|origin| last.replace(origin).is_none_or(|last| last < origin));
    if ascending { Ok(()) } else { Err(DecodeError::Form(what)) }
}

/// A peer of an earlier release does not say it.
fn is_unsaid(digest: &u64) -> bool {
    *digest == 0
}

const DOT_BYTES: usize = 16 + 8;
