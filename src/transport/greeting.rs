//! The first two frames of a connection: the dialler's hello and the other side's welcome.
//!
//! In TLS 1.3 the dialler's handshake is over before the other side has looked at its
//! certificate. Only the welcome tells that it was accepted.

use bytes::Bytes;
use quinn::Connection;

use super::BootId;
use super::framing::{FrameError, FrameReader, FrameWriter};
use super::refusal::{Failure, explain};

/// A stream on which both sides have greeted, or are about to.
#[derive(Debug)]
pub(crate) struct Greeted {
    /// The other process.
    pub(crate) boot: BootId,
    pub(crate) reader: FrameReader,
    pub(crate) writer: FrameWriter,
}

/// Greets as the side that dialled, and waits for the welcome.
pub(crate) async fn hello(
    connection: &Connection,
    own: BootId,
    peer: &str,
) -> Result<Greeted, Failure> {
    let lost = |error: FrameError| failed(error, peer);
    let (send, receive) = connection.open_bi().await.map_err(|error| explain(&error, peer))?;
    let mut writer = FrameWriter::new(send, GREETING_BYTES);
    let mut reader = FrameReader::new(receive, GREETING_BYTES);
    writer.send(greeting(own)).await.map_err(lost)?;
    let boot = receive_greeting(&mut reader, peer).await?;
    Ok(Greeted { boot, reader, writer })
}

/// Waits for the hello of the side that dialled; [`welcome`] answers it.
pub(crate) async fn await_hello(connection: &Connection, peer: &str) -> Result<Greeted, Failure> {
    let (send, receive) = connection.accept_bi().await.map_err(|error| explain(&error, peer))?;
    let writer = FrameWriter::new(send, GREETING_BYTES);
    let mut reader = FrameReader::new(receive, GREETING_BYTES);
    let boot = receive_greeting(&mut reader, peer).await?;
    Ok(Greeted { boot, reader, writer })
}

/// Tells the side that dialled that it is accepted.
pub(crate) async fn welcome(
    writer: &mut FrameWriter,
    own: BootId,
    peer: &str,
) -> Result<(), Failure> {
    writer.send(greeting(own)).await.map_err(|error| failed(error, peer))
}

async fn receive_greeting(reader: &mut FrameReader, peer: &str) -> Result<BootId, Failure> {
    let frame = reader.receive().await.map_err(|error| failed(error, peer))?;
    frame
        .as_deref()
        .and_then(parse_greeting)
        .ok_or_else(|| Failure::warn(format!("{peer} does not greet as a node of Anabranch")))
}

fn failed(error: FrameError, peer: &str) -> Failure {
    match error {
        FrameError::Connection(error) => explain(&error, peer),
        FrameError::TooLarge { .. } | FrameError::Truncated | FrameError::Stopped => {
            Failure::warn(format!("{peer} does not greet as a node of Anabranch: {error}"))
        }
    }
}

fn greeting(own: BootId) -> Bytes {
    let mut frame = vec![FORMAT_VERSION];
    frame.extend_from_slice(&own.0);
    frame.into()
}

/// Later versions may append to the greeting; what this one knows stays in place.
fn parse_greeting(frame: &[u8]) -> Option<BootId> {
    let (version, rest) = frame.split_first()?;
    let boot = rest.first_chunk::<16>()?;
    (*version >= FORMAT_VERSION).then_some(BootId(*boot))
}

const FORMAT_VERSION: u8 = 1;

/// The limit of a greeting; enough for what later versions may append.
const GREETING_BYTES: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_are_read_with_what_later_versions_append() {
        let boot = BootId([7; 16]);
        let mut frame = greeting(boot).to_vec();
        assert_eq!(parse_greeting(&frame), Some(boot));
        frame.extend_from_slice(b"more");
        assert_eq!(parse_greeting(&frame), Some(boot));
        assert_eq!(parse_greeting(&frame[..16]), None);
        assert_eq!(parse_greeting(&[]), None);
        frame[0] = 0;
        assert_eq!(parse_greeting(&frame), None);
    }
}
