//! Control frames: CBOR maps with packed byte strings.

use anabranch_crdt::chain::MAX_AFTER;
use anabranch_crdt::entry::Dot;
use anabranch_crdt::ids::{Origin, RegionName, Sequence, Timestamp};
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::{
    DecodeError, Digest, Echo, FORMAT_VERSION, Frame, Hello, KIND_ACK, KIND_DIGEST, KIND_HELLO,
    KIND_MEMBERS, KIND_NAMES, KIND_PULL, MAX_ORIGINS, Named, Pull, Reading, Stamp,
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
        stamp: hello.stamp.0,
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
        stamp: unpack_stamp(wire.stamp)?,
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

pub(super) fn encode_names(names: &[Named]) -> Bytes {
    encode(KIND_NAMES, &NamesWire { names: Packed(&pack_names(names)) })
}

pub(super) fn decode_names(body: &[u8]) -> Result<Vec<Named>, DecodeError> {
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
    stamp: u64,
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

pub(super) fn encode(kind: u8, wire: &impl Serialize) -> Bytes {
    let mut bytes = vec![FORMAT_VERSION, kind];
    serde_cbor::to_writer(&mut bytes, wire).expect("plain structs encode into memory");
    bytes.into()
}

/// Decodes a body and refuses any but the one encoding: CBOR has many ways to write one value.
pub(super) fn decode<'a, T: Serialize + Deserialize<'a>>(body: &'a [u8]) -> Result<T, DecodeError> {
    let wire: T = serde_cbor::from_slice(body)?;
    if serde_cbor::to_vec(&wire)? != body {
        return Err(serde_cbor::Error::custom("another form than the one expected").into());
    }
    Ok(wire)
}

pub(super) fn pack_vector(vector: &VersionVector) -> Vec<u8> {
    let mut packed = Vec::with_capacity(vector.len() * DOT_BYTES);
    vector.iter().for_each(|dot| pack_dot(&mut packed, dot));
    packed
}

fn pack_dot(packed: &mut Vec<u8>, dot: Dot) {
    packed.extend_from_slice(dot.origin.as_bytes());
    packed.extend_from_slice(&dot.sequence.0.to_be_bytes());
}

pub(super) fn unpack_vector(packed: &[u8]) -> Result<VersionVector, DecodeError> {
    Ok(unpack_dots(packed)?.into_iter().collect())
}

fn unpack_dots(packed: &[u8]) -> Result<Vec<Dot>, DecodeError> {
    let (dots, rest) = packed.as_chunks::<DOT_BYTES>();
    check_count(dots.len(), rest)?;
    let dots: Vec<Dot> = dots.iter().map(unpack_dot).collect::<Result<_, _>>()?;
    check_ascending(dots.iter().map(|dot| dot.origin), "version vector")?;
    Ok(dots)
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

pub(super) fn unpack_origin(packed: &[u8]) -> Result<Origin, DecodeError> {
    packed.try_into().map(Origin::from_bytes).map_err(|_| DecodeError::Form("origin"))
}

/// Stamps are wall clocks, and little more than that after many have been refused.
pub(super) fn unpack_stamp(stamp: u64) -> Result<Stamp, DecodeError> {
    let within = stamp <= 2 * Timestamp::MAX.0;
    within.then_some(Stamp(stamp)).ok_or(DecodeError::Range("stamp"))
}

/// Each name: origin (16), length of the region (1), region, count of what stands before it (1),
/// that as in a vector.
fn pack_names(names: &[Named]) -> Vec<u8> {
    let mut packed = Vec::new();
    for Named { origin, region, after } in names {
        let text = region.as_ref().map_or("", RegionName::as_str).as_bytes();
        packed.extend_from_slice(origin.as_bytes());
        packed.push(u8::try_from(text.len()).expect("region names are at most 32 bytes"));
        packed.extend_from_slice(text);
        packed.push(u8::try_from(after.len()).expect("chains are bounded by MAX_AFTER"));
        after.iter().for_each(|dot| pack_dot(&mut packed, *dot));
    }
    packed
}

fn unpack_names(mut packed: &[u8]) -> Result<Vec<Named>, DecodeError> {
    let mut names = Vec::new();
    while let Some((origin, rest)) = packed.split_first_chunk::<16>() {
        let (&length, rest) = rest.split_first().ok_or(DecodeError::Short)?;
        let (name, rest) = rest.split_at_checked(length.into()).ok_or(DecodeError::Short)?;
        let name = std::str::from_utf8(name).map_err(|_| DecodeError::Form("name"))?;
        let (&count, rest) = rest.split_first().ok_or(DecodeError::Short)?;
        let count = usize::from(count);
        if count > MAX_AFTER {
            return Err(DecodeError::Range("count of earlier origins"));
        }
        let (after, rest) = rest.split_at_checked(count * DOT_BYTES).ok_or(DecodeError::Short)?;
        let region = if name.is_empty() { None } else { Some(name.parse()?) };
        let origin = Origin::from_bytes(*origin);
        names.push(Named { origin, region, after: unpack_dots(after)? });
        check_count(names.len(), &[])?;
        packed = rest;
    }
    check_count(names.len(), packed)?;
    check_ascending(names.iter().map(|name| name.origin), "list of names")?;
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
