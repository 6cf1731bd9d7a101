//! Frames on a QUIC stream: four bytes of length, big-endian, then so many bytes.

use bytes::{Buf, Bytes, BytesMut};
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, WriteError};

/// Why a stream of frames has ended.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A frame is longer than allowed.
    #[error("a frame of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// One side gave up the stream, while the connection goes on.
    #[error("the stream was given up")]
    Stopped,
    /// The connection is gone.
    #[error("the connection is gone: {0}")]
    Connection(ConnectionError),
}

/// The receiving half of a stream of frames.
#[derive(Debug)]
pub struct FrameReader {
    stream: RecvStream,
    buffer: BytesMut,
    limit: usize,
}

/// The sending half of a stream of frames.
#[derive(Debug)]
pub struct FrameWriter {
    stream: SendStream,
    limit: usize,
}

impl FrameReader {
    pub(crate) fn new(stream: RecvStream, limit: usize) -> Self {
        Self { stream, buffer: BytesMut::new(), limit }
    }

    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Waits for the next frame; `None` when the peer has finished the stream between two frames.
    ///
    /// Memory follows the bytes that came, never a length that was only announced.
    ///
    /// # Errors
    /// See [`FrameError`].
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn receive(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            if let Some(frame) = take_frame(&mut self.buffer, self.limit)? {
                return Ok(Some(frame));
            }
            match self.stream.read_chunk(CHUNK_BYTES, true).await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk.bytes),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(FrameError::Truncated),
            }
        }
    }
}

impl FrameWriter {
    pub(crate) fn new(stream: SendStream, limit: usize) -> Self {
        Self { stream, limit }
    }

    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Sends a frame, waiting while the peer does not read.
    ///
    /// # Errors
    /// See [`FrameError`]; after [`FrameError::TooLarge`] nothing was sent.
    ///
    /// # Cancel safety
    /// A frame whose future is dropped may be sent in part; the stream is of no use then.
    pub async fn send(&mut self, frame: Bytes) -> Result<(), FrameError> {
        let header = self.header(&frame)?;
        Ok(self.stream.write_all_chunks(&mut [header, frame]).await?)
    }

    /// Returns the bytes of a frame as they go over the stream, to be sent piece by piece.
    pub(crate) fn begin(&self, frame: Bytes) -> Result<Bytes, FrameError> {
        let mut whole = BytesMut::with_capacity(HEADER_BYTES + frame.len());
        whole.extend_from_slice(&self.header(&frame)?);
        whole.extend_from_slice(&frame);
        Ok(whole.freeze())
    }

    /// Sends the next piece of what [`FrameWriter::begin`] returned.
    pub(crate) async fn go_on(&mut self, piece: Bytes) -> Result<(), FrameError> {
        Ok(self.stream.write_chunk(piece).await?)
    }

    fn header(&self, frame: &Bytes) -> Result<Bytes, FrameError> {
        match u32::try_from(frame.len()) {
            Ok(length) if frame.len() <= self.limit => {
                Ok(Bytes::copy_from_slice(&length.to_be_bytes()))
            }
            Ok(_) | Err(_) => Err(FrameError::TooLarge { bytes: frame.len(), limit: self.limit }),
        }
    }

    /// Says that no more frames follow. What was sent still arrives.
    pub fn finish(&mut self) {
        // It fails only when the stream has ended already, which is what is wanted.
        let _ = self.stream.finish();
    }
}

impl From<ReadError> for FrameError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(error) => Self::Connection(error),
            ReadError::Reset(_)
            | ReadError::ClosedStream
            | ReadError::IllegalOrderedRead
            | ReadError::ZeroRttRejected => Self::Stopped,
        }
    }
}

impl From<WriteError> for FrameError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => Self::Connection(error),
            WriteError::Stopped(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => {
                Self::Stopped
            }
        }
    }
}

fn take_frame(buffer: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(&header) = buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let bytes = u32::from_be_bytes(header) as usize;
    if bytes > limit {
        return Err(FrameError::TooLarge { bytes, limit });
    }
    if buffer.len() < HEADER_BYTES + bytes {
        return Ok(None);
    }
    buffer.advance(HEADER_BYTES);
    let frame = buffer.split_to(bytes);
    // A small frame is copied, because a slice would keep the whole buffer alive.
    let small = bytes <= COPY_BYTES;
    Ok(Some(if small { Bytes::copy_from_slice(&frame) } else { frame.freeze() }))
}

const HEADER_BYTES: usize = 4;

/// Bytes that one read takes from the stream at most.
const CHUNK_BYTES: usize = 64 << 10;

/// Frames up to this length are copied out of the read buffer.
const COPY_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_length_over_the_limit_is_refused_before_any_byte_of_it() {
        let mut buffer = BytesMut::from(&[0, 0, 1, 1][..]);
        let error = take_frame(&mut buffer, 256).unwrap_err();
        assert!(matches!(error, FrameError::TooLarge { bytes: 257, limit: 256 }));
    }

    proptest! {
        #[test]
        fn frames_come_out_whole_however_the_bytes_are_cut(
            frames in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..40), 0..20),
            cut in 1usize..50,
        ) {
            let mut wire = Vec::new();
            for frame in &frames {
                wire.extend_from_slice(&(frame.len() as u32).to_be_bytes());
                wire.extend_from_slice(frame);
            }
            let mut buffer = BytesMut::new();
            let mut seen: Vec<Vec<u8>> = Vec::new();
            for chunk in wire.chunks(cut) {
                buffer.extend_from_slice(chunk);
                while let Some(frame) = take_frame(&mut buffer, 64).unwrap() {
                    seen.push(frame.to_vec());
                }
            }
            prop_assert_eq!(seen, frames);
            prop_assert!(buffer.is_empty());
        }
    }
}
