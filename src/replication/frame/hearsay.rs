//! Frames about third regions: rows of what they have, and questions that are passed on to them.

use std::time::Duration;

use anabranch_crdt::ids::{Origin, RegionName, Timestamp};
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::control::{decode, encode, pack_vector, unpack_origin, unpack_stamp, unpack_vector};
use super::{DecodeError, KIND_KNOWLEDGE, KIND_PROBE, KIND_PROBE_ANSWER, Stamp};
use crate::cbor::Packed;

/// The most rows that one frame may hold: more than a cluster has regions.
pub const MAX_ROWS: usize = 1_024;

/// What a node knows of regions that the receiver does not hear itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Knowledge {
    /// What the sender's wall clock shows, uncorrected; ages count from then.
    pub wall: Timestamp,
    /// The rows.
    pub rows: Vec<KnownRow>,
}

/// What one region has, or what of it is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRow {
    /// The region.
    pub region: RegionName,
    /// Of the run of its process that the row is about.
    pub stamp: Stamp,
    /// Its present origin.
    pub origin: Origin,
    /// What is durable there.
    pub vector: VersionVector,
    /// How long ago the region said so, in microseconds; only if `vector` is everything that it
    /// had then.
    pub age: Option<Duration>,
}

/// Names one question, so that it is passed on once and its answers find the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProbeId {
    /// The origin of the node that asks.
    pub asker: Origin,
    /// Never used twice by that origin.
    pub number: u64,
}

/// Asks every region what is durable there now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Whose question it is.
    pub id: ProbeId,
}

/// What was durable in a region after it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeAnswer {
    /// The question.
    pub id: ProbeId,
    /// The region that answers.
    pub region: RegionName,
    /// Everything that is durable there.
    pub vector: VersionVector,
}

pub(super) fn encode_knowledge(knowledge: &Knowledge) -> Bytes {
    let vectors: Vec<Vec<u8>> = knowledge.rows.iter().map(|row| pack_vector(&row.vector)).collect();
    let rows = knowledge.rows.iter().zip(&vectors).map(|(row, vector)| RowWire {
        region: row.region.as_str(),
        stamp: row.stamp.0,
        origin: Packed(row.origin.as_bytes()),
        vector: Packed(vector),
        age: row.age.map(|age| u64::try_from(age.as_micros()).unwrap_or(u64::MAX)),
    });
    let wire = KnowledgeWire { wall: knowledge.wall.0, rows: rows.collect() };
    encode(KIND_KNOWLEDGE, &wire)
}

pub(super) fn decode_knowledge(body: &[u8]) -> Result<Knowledge, DecodeError> {
    let wire: KnowledgeWire<'_> = decode(body)?;
    if wire.wall > Timestamp::MAX.0 {
        return Err(DecodeError::Range("wall clock"));
    }
    if wire.rows.len() > MAX_ROWS {
        return Err(DecodeError::Range("count of rows"));
    }
    let rows = wire.rows.iter().map(|row| {
        Ok(KnownRow {
            region: row.region.parse()?,
            stamp: unpack_stamp(row.stamp)?,
            origin: unpack_origin(row.origin.0)?,
            vector: unpack_vector(row.vector.0)?,
            age: row.age.map(Duration::from_micros),
        })
    });
    let rows = rows.collect::<Result<_, DecodeError>>()?;
    Ok(Knowledge { wall: Timestamp(wire.wall), rows })
}

pub(super) fn encode_probe(probe: Probe) -> Bytes {
    let Probe { id: ProbeId { asker, number } } = probe;
    encode(KIND_PROBE, &ProbeWire { asker: Packed(asker.as_bytes()), number })
}

pub(super) fn decode_probe(body: &[u8]) -> Result<Probe, DecodeError> {
    let wire: ProbeWire<'_> = decode(body)?;
    let asker = unpack_origin(wire.asker.0)?;
    Ok(Probe { id: ProbeId { asker, number: wire.number } })
}

pub(super) fn encode_answer(answer: &ProbeAnswer) -> Bytes {
    let wire = AnswerWire {
        asker: Packed(answer.id.asker.as_bytes()),
        number: answer.id.number,
        region: answer.region.as_str(),
        vector: Packed(&pack_vector(&answer.vector)),
    };
    encode(KIND_PROBE_ANSWER, &wire)
}

pub(super) fn decode_answer(body: &[u8]) -> Result<ProbeAnswer, DecodeError> {
    let wire: AnswerWire<'_> = decode(body)?;
    let asker = unpack_origin(wire.asker.0)?;
    Ok(ProbeAnswer {
        id: ProbeId { asker, number: wire.number },
        region: wire.region.parse()?,
        vector: unpack_vector(wire.vector.0)?,
    })
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KnowledgeWire<'a> {
    wall: u64,
    #[serde(borrow)]
    rows: Vec<RowWire<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RowWire<'a> {
    region: &'a str,
    stamp: u64,
    #[serde(borrow)]
    origin: Packed<'a>,
    #[serde(borrow)]
    vector: Packed<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    age: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProbeWire<'a> {
    #[serde(borrow)]
    asker: Packed<'a>,
    number: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerWire<'a> {
    #[serde(borrow)]
    asker: Packed<'a>,
    number: u64,
    region: &'a str,
    #[serde(borrow)]
    vector: Packed<'a>,
}
