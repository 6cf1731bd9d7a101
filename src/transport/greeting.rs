//! The first two frames of a connection: the dialler's hello and the other side's welcome.
//!
//! In TLS 1.3 the dialler's handshake is over before the other side has looked at its
//! certificate. Only the welcome tells that it was accepted.
//!
//! Both may carry an [`Introduction`]: a region that joins says who it is, and one that is refused
//! is told why, with the records of the member table that it does not know.

use bytes::Bytes;
use quinn::Connection;
use serde::{Deserialize, Serialize};

use super::BootId;
use super::framing::{FrameError, FrameReader, FrameWriter};
use super::refusal::{Failure, clean, explain};
use crate::cbor::Packed;
use crate::replication::{Member, decode_members, encode_members};

/// What a greeting says besides who the process is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Introduction {
    /// Whether the sender asks to become a region of the cluster, or one again.
    pub(crate) joining: bool,
    /// Why the sender does not take the link, which is over with this.
    pub(crate) refusal: Option<String>,
    /// Records of the member table that the receiver may not know.
    pub(crate) members: Vec<Member>,
}

/// A stream on which both sides have greeted, or are about to.
#[derive(Debug)]
pub(crate) struct Greeted {
    /// The other process.
    pub(crate) boot: BootId,
    pub(crate) introduction: Introduction,
    pub(crate) reader: FrameReader,
    pub(crate) writer: FrameWriter,
}

/// Greets as the side that dialled, and waits for the welcome.
pub(crate) async fn hello(
    connection: &Connection,
    own: BootId,
    introduction: &Introduction,
    peer: &str,
) -> Result<Greeted, Failure> {
    let lost = |error: FrameError| failed(error, peer);
    let (send, receive) = connection.open_bi().await.map_err(|error| explain(&error, peer))?;
    let mut writer = FrameWriter::new(send, GREETING_BYTES);
    let mut reader = FrameReader::new(receive, GREETING_BYTES);
    writer.send(greeting(own, introduction)).await.map_err(lost)?;
    let (boot, introduction) = receive_greeting(&mut reader, peer).await?;
    Ok(Greeted { boot, introduction, reader, writer })
}

/// Waits for the hello of the side that dialled; [`welcome`] answers it.
pub(crate) async fn await_hello(connection: &Connection, peer: &str) -> Result<Greeted, Failure> {
    let (send, receive) = connection.accept_bi().await.map_err(|error| explain(&error, peer))?;
    let writer = FrameWriter::new(send, GREETING_BYTES);
    let mut reader = FrameReader::new(receive, GREETING_BYTES);
    let (boot, introduction) = receive_greeting(&mut reader, peer).await?;
    Ok(Greeted { boot, introduction, reader, writer })
}

/// Tells the side that dialled that it is accepted, or in the introduction that it is not.
pub(crate) async fn welcome(
    writer: &mut FrameWriter,
    own: BootId,
    introduction: &Introduction,
    peer: &str,
) -> Result<(), Failure> {
    writer.send(greeting(own, introduction)).await.map_err(|error| failed(error, peer))
}

async fn receive_greeting(
    reader: &mut FrameReader,
    peer: &str,
) -> Result<(BootId, Introduction), Failure> {
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

fn greeting(own: BootId, introduction: &Introduction) -> Bytes {
    let mut frame = vec![FORMAT_VERSION];
    frame.extend_from_slice(&own.0);
    if *introduction != Introduction::default() {
        frame.extend_from_slice(&introduction.encode());
    }
    frame.into()
}

/// Later versions may append to the greeting; what this one knows stays in place.
fn parse_greeting(frame: &[u8]) -> Option<(BootId, Introduction)> {
    let (version, rest) = frame.split_first()?;
    let (boot, rest) = rest.split_first_chunk::<16>()?;
    let introduction = match rest {
        [] => Introduction::default(),
        rest => Introduction::decode(rest)?,
    };
    (*version >= FORMAT_VERSION).then_some((BootId(*boot), introduction))
}

impl Introduction {
    fn encode(&self) -> Vec<u8> {
        let members = encode_members(&self.members);
        let wire = IntroductionWire {
            joining: self.joining,
            refusal: self.refusal.as_deref(),
            members: Packed(&members),
        };
        serde_cbor::to_vec(&wire).expect("plain structs encode into memory")
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let wire: IntroductionWire<'_> = serde_cbor::from_slice(bytes).ok()?;
        Some(Self {
            joining: wire.joining,
            refusal: wire.refusal.map(clean),
            members: decode_members(wire.members.0).ok()?,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct IntroductionWire<'a> {
    joining: bool,
    refusal: Option<&'a str>,
    #[serde(borrow)]
    members: Packed<'a>,
}

const FORMAT_VERSION: u8 = 1;

/// The limit of a greeting; enough for records of members that name many peers.
const GREETING_BYTES: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_are_read_with_and_without_an_introduction() {
        let boot = BootId([7; 16]);
        let plain = Introduction::default();
        let mut frame = greeting(boot, &plain).to_vec();
        assert_eq!(frame.len(), 17, "most greetings say no more than who the process is");
        assert_eq!(parse_greeting(&frame), Some((boot, plain)));
        let joining = Introduction {
            joining: true,
            refusal: Some("no\nroom".to_owned()),
            members: vec![Member::seed("eu-west".parse().unwrap(), None)],
        };
        let spoken = parse_greeting(&greeting(boot, &joining)).unwrap().1;
        assert_eq!(spoken.refusal.as_deref(), Some("no room"), "it cannot forge log lines");
        assert_eq!(Introduction { refusal: joining.refusal.clone(), ..spoken }, joining);
        assert_eq!(parse_greeting(&[&frame[..], b"more"].concat()), None);
        assert_eq!(parse_greeting(&frame[..16]), None);
        assert_eq!(parse_greeting(&[]), None);
        frame[0] = 0;
        assert_eq!(parse_greeting(&frame), None);
    }
}
