//! Frames by which a process claims its origin, and is answered: a fixed layout, big-endian.
//!
//! Claim: origin (16), sequence (8), boot (16), and 0, or 1 and the boot before (16).
//! Verdict: origin (16), boot (16), judgement (1), then a sequence (8) if it is 1.

use anabranch_crdt::ids::{BootId, Origin, Sequence};
use bytes::{BufMut, Bytes, BytesMut};

use super::{DecodeError, FORMAT_VERSION, KIND_CLAIM, KIND_VERDICT};

/// What a process says of itself, to be confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The origin that it goes on with.
    pub origin: Origin,
    /// What it has of it.
    pub sequence: Sequence,
    /// The process.
    pub boot: BootId,
    /// The process that had the origin before; `None` if this one drew it.
    pub before: Option<BootId>,
}

/// What a peer says to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The origin that was claimed.
    pub origin: Origin,
    /// The process that claimed it.
    pub boot: BootId,
    /// The answer.
    pub judgement: Judgement,
}

/// Whether a process may go on with an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// As far as the peer knows, and it will not confirm anybody else but a successor.
    Confirmed,
    /// No: entries up to this one are known, and the claimant has not got them.
    Ahead(Sequence),
    /// No: another process went on with it.
    Taken,
}

pub(super) fn encode_claim(claim: &Claim) -> Bytes {
    let mut out = BytesMut::with_capacity(2 + 16 + 8 + 16 + 1 + 16);
    out.put_slice(&[FORMAT_VERSION, KIND_CLAIM]);
    out.put_slice(claim.origin.as_bytes());
    out.put_u64(claim.sequence.0);
    out.put_slice(&claim.boot.0);
    match claim.before {
        None => out.put_u8(0),
        Some(before) => {
            out.put_u8(1);
            out.put_slice(&before.0);
        }
    }
    out.freeze()
}

pub(super) fn decode_claim(mut body: &[u8]) -> Result<Claim, DecodeError> {
    let origin = Origin::from_bytes(take(&mut body)?);
    let sequence = Sequence(u64::from_be_bytes(take(&mut body)?));
    let boot = BootId(take(&mut body)?);
    let before = match take(&mut body)? {
        [0] => None,
        [1] => Some(BootId(take(&mut body)?)),
        [_] => return Err(DecodeError::Range("boot before")),
    };
    end(body)?;
    Ok(Claim { origin, sequence, boot, before })
}

pub(super) fn encode_verdict(verdict: &Verdict) -> Bytes {
    let mut out = BytesMut::with_capacity(2 + 16 + 16 + 1 + 8);
    out.put_slice(&[FORMAT_VERSION, KIND_VERDICT]);
    out.put_slice(verdict.origin.as_bytes());
    out.put_slice(&verdict.boot.0);
    match verdict.judgement {
        Judgement::Confirmed => out.put_u8(0),
        Judgement::Ahead(sequence) => {
            out.put_u8(1);
            out.put_u64(sequence.0);
        }
        Judgement::Taken => out.put_u8(2),
    }
    out.freeze()
}

pub(super) fn decode_verdict(mut body: &[u8]) -> Result<Verdict, DecodeError> {
    let origin = Origin::from_bytes(take(&mut body)?);
    let boot = BootId(take(&mut body)?);
    let judgement = match take(&mut body)? {
        [0] => Judgement::Confirmed,
        [1] => Judgement::Ahead(Sequence(u64::from_be_bytes(take(&mut body)?))),
        [2] => Judgement::Taken,
        [_] => return Err(DecodeError::Range("judgement")),
    };
    end(body)?;
    Ok(Verdict { origin, boot, judgement })
}

fn take<const N: usize>(body: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (taken, rest) = body.split_first_chunk().ok_or(DecodeError::Short)?;
    *body = rest;
    Ok(*taken)
}

fn end(body: &[u8]) -> Result<(), DecodeError> {
    if body.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
}
