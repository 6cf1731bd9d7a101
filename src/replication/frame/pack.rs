//! Packed frames: a frame inside a frame, compressed by zstd.
//!
//! Layout after the version and the kind: codec (1), length of the inner frame (4, big-endian), the
//! compressed inner frame. It is only made when it is shorter, so whatever is not shorter than its
//! inner frame is refused, and so is one inside another.
//!
//! # Why zstd, and why bindings
//! At its fastest level it packs several times faster than an ocean carries, and what it unpacks is
//! bounded by its own format. The reference implementation is in C and fuzzed without pause; the
//! implementations in Rust decode only, or compress a good deal worse.
//!
//! # Why no bound on the ratio
//! A million entries that differ in a counter pack a thousandfold, honestly. What protects the
//! receiver is the length of the longest frame, and that memory follows the bytes that came out.

use std::fmt;
use std::io::Read;

use bytes::{BufMut, Bytes, BytesMut};
use zstd::bulk::Compressor;
use zstd::stream::read::Decoder;

use super::{DecodeError, FORMAT_VERSION, KIND_PACKED};

/// How frames are packed and unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    /// Whether to pack. What comes packed is unpacked in any case. Default [`Compression::On`].
    pub compression: Compression,
    /// Bytes of the longest frame that is unpacked; that of the transport. Default 16 MiB.
    pub longest: usize,
}

/// Whether large frames travel compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// They do, where that makes them shorter.
    #[default]
    On,
    /// They do not: for links that are faster than the processor.
    Off,
}

impl Default for Packing {
    fn default() -> Self {
        Self { compression: Compression::On, longest: 16 << 20 }
    }
}

/// Packs frames, one after the other, with one workspace.
pub struct Packer(Option<Compressor<'static>>);

impl Packer {
    /// Makes one that packs, or one that leaves frames as they are.
    #[must_use]
    pub fn new(compression: Compression) -> Self {
        match compression {
            // Without memory for its workspace, frames travel as they are.
            Compression::On => Self(Compressor::new(LEVEL).ok()),
            Compression::Off => Self(None),
        }
    }

    /// Packs a frame if it is large and becomes shorter; else returns it as it is.
    pub fn pack(&mut self, frame: Bytes) -> Bytes {
        let Some(compressor) = self.0.as_mut().filter(|_| frame.len() >= PACK_FROM) else {
            return frame;
        };
        let Ok(length) = u32::try_from(frame.len()) else { return frame };
        // What does not fit into less than the frame is given up.
        let mut packed = vec![0; frame.len() - HEADER_BYTES - 1];
        let Ok(bytes) = compressor.compress_to_buffer(&frame, &mut packed) else { return frame };
        let mut out = BytesMut::with_capacity(HEADER_BYTES + bytes);
        out.put_slice(&[FORMAT_VERSION, KIND_PACKED, CODEC_ZSTD]);
        out.put_u32(length);
        out.put_slice(packed.get(..bytes).unwrap_or_default());
        out.freeze()
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Packer").field(&self.0.is_some()).finish()
    }
}

/// Returns the bytes that a frame has before it is packed.
#[must_use]
pub fn unpacked_bytes(frame: &[u8]) -> usize {
    match frame {
        [FORMAT_VERSION, KIND_PACKED, rest @ ..] => {
            split_header(rest).map_or(frame.len(), |(length, _)| length)
        }
        _ => frame.len(),
    }
}

/// Unpacks what follows the version and the kind of a packed frame.
pub(super) fn unpack(body: &[u8], longest: usize) -> Result<Bytes, DecodeError> {
    let (length, packed) = split_header(body)?;
    if length > longest || length < PACK_FROM || body.len() + 2 >= length {
        return Err(DecodeError::Range("length of a packed frame"));
    }
    let (frame, rest) = decompress(packed, length).map_err(|_| DecodeError::Packed)?;
    if !rest.is_empty() {
        return Err(DecodeError::Trailing);
    }
    match frame.get(..2) {
        Some([_, KIND_PACKED]) => Err(DecodeError::Form("a frame that is packed twice")),
        Some(_) if frame.len() == length => Ok(frame),
        Some(_) | None => Err(DecodeError::Form("length of a packed frame")),
    }
}

fn split_header(body: &[u8]) -> Result<(usize, &[u8]), DecodeError> {
    let (&codec, rest) = body.split_first().ok_or(DecodeError::Short)?;
    if codec != CODEC_ZSTD {
        return Err(DecodeError::Range("codec"));
    }
    let (length, packed) = rest.split_first_chunk::<4>().ok_or(DecodeError::Short)?;
    Ok((u32::from_be_bytes(*length) as usize, packed))
}

/// Decompresses one zstd frame, of which at most `length` bytes and one are looked at, and returns
/// what follows it.
fn decompress(packed: &[u8], length: usize) -> std::io::Result<(Bytes, &[u8])> {
    let mut decoder = Decoder::with_buffer(packed)?.single_frame();
    decoder.window_log_max(MAX_WINDOW_LOG)?;
    let mut frame = Vec::new();
    decoder.by_ref().take(length as u64 + 1).read_to_end(&mut frame)?;
    Ok((frame.into(), decoder.finish()))
}

const CODEC_ZSTD: u8 = 1;

/// Version, kind, codec and length.
const HEADER_BYTES: usize = 2 + 1 + 4;

/// Level 1: a quarter more bytes than the default level, in half of its time.
const LEVEL: i32 = 1;

/// Frames below this travel as they are: they are the ones that somebody waits for.
const PACK_FROM: usize = 2 << 10;

/// A decoder keeps this much of what it has unpacked, as a power of two: no level in use asks for
/// more, and a peer that does is refused.
const MAX_WINDOW_LOG: u32 = 22;

#[cfg(test)]
mod tests;
