//! Session tokens: a version vector as text that a client hands back.
//!
//! The text is base64url without padding of: the format (one byte), the number of origins, for
//! each origin in ascending order its 16 bytes and its sequence, and a CRC-32 of all before.
//! Numbers are LEB128. One vector has exactly one token, and what is read back is checked to be
//! that one, so tokens can be compared as text. The checksum finds damage, not forgery: a token
//! says what a reader wants to wait for, and grants nothing.

use crate::entry::Dot;
use crate::ids::{Origin, Sequence};
use crate::version::VersionVector;

/// The longest token that is read, in characters; it has to fit into a header.
pub const MAX_TOKEN_CHARACTERS: usize = 4096;

/// The most origins in a token that is read: far more than a cluster has live leaders.
pub const MAX_TOKEN_ORIGINS: u64 = 128;

/// A text that is no session token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a session token: {0}")]
pub struct TokenError(String);

/// Writes a vector as an opaque token that is safe in headers and URLs.
#[must_use]
pub fn encode(vector: &VersionVector) -> String {
    let mut bytes = vec![FORMAT];
    write_number(&mut bytes, vector.len() as u64);
    for dot in vector.iter() {
        bytes.extend_from_slice(dot.origin.as_bytes());
        write_number(&mut bytes, dot.sequence.0);
    }
    let checksum = crc32(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    base64::encode(&bytes)
}

/// Reads a token.
///
/// # Errors
/// The text is no token, is damaged, or has a format that this release does not know.
pub fn decode(token: &str) -> Result<VersionVector, TokenError> {
    if token.len() > MAX_TOKEN_CHARACTERS {
        return refuse(format!(
            "it has {} characters, at most {MAX_TOKEN_CHARACTERS} are taken",
            token.len()
        ));
    }
    let bytes = base64::decode(token).map_err(|reason| TokenError(reason.to_owned()))?;
    match bytes.first() {
        None => return refuse("it is empty"),
        Some(&FORMAT) => {}
        Some(format) => return refuse(format!("format {format} is not known to this release")),
    }
    let Some((content, checksum)) = bytes.split_last_chunk() else { return refuse(CUT_OFF) };
    if crc32(content) != u32::from_le_bytes(*checksum) {
        return refuse("the checksum does not match: it was cut off or changed on the way");
    }
    let mut rest = content.get(1..).unwrap_or_default();
    let vector = read_vector(&mut rest)?;
    if rest.is_empty() { Ok(vector) } else { refuse("bytes follow after its end") }
}

fn read_vector(rest: &mut &[u8]) -> Result<VersionVector, TokenError> {
    let count = read_number(rest)?;
    if count > MAX_TOKEN_ORIGINS {
        return refuse(format!("it names {count} origins, at most {MAX_TOKEN_ORIGINS} are taken"));
    }
    let mut dots: Vec<Dot> = Vec::new();
    for _ in 0..count {
        let dot = read_dot(rest)?;
        match dots.last() {
            Some(last) if last.origin == dot.origin => {
                return refuse(format!("the origin {} is named twice", dot.origin));
            }
            Some(last) if last.origin > dot.origin => {
                return refuse("its origins are out of order");
            }
            Some(_) | None => dots.push(dot),
        }
    }
    Ok(dots.into_iter().collect())
}

fn read_dot(rest: &mut &[u8]) -> Result<Dot, TokenError> {
    let Some((origin, after)) = rest.split_first_chunk() else { return refuse(CUT_OFF) };
    *rest = after;
    let origin = Origin::from_bytes(*origin);
    match read_number(rest)? {
        0 => refuse(format!("the origin {origin} stands at zero")),
        sequence => Ok(Dot { origin, sequence: Sequence(sequence) }),
    }
}

fn write_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

fn read_number(rest: &mut &[u8]) -> Result<u64, TokenError> {
    let mut number = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let Some((&byte, after)) = rest.split_first() else { return refuse(CUT_OFF) };
        *rest = after;
        let part = u64::from(byte & 0x7f);
        if part << shift >> shift != part || (byte == 0 && shift > 0) {
            break;
        }
        number |= part << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    refuse("a number in it is too great or not in its shortest form")
}

fn refuse<T>(reason: impl Into<String>) -> Result<T, TokenError> {
    Err(TokenError(reason.into()))
}

/// The CRC-32 of IEEE 802.3, bit by bit: a token is short, and a table would not pay.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}

/// The format that this release writes and reads.
const FORMAT: u8 = 1;

const CUT_OFF: &str = "it is cut off";

mod base64;
#[cfg(test)]
mod tests;
