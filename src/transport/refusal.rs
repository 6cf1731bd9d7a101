//! Why a connection was refused or lost, in sentences that name the cure, and how often that is
//! logged.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use quinn::{ConnectionError, VarInt};

/// The code with which a side closes a connection; the reason goes with it as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseCode {
    /// The node stops.
    Shutdown = 1,
    /// The certificate is genuine, but not of whom is wanted here.
    Refused = 2,
    /// Another link to the same region is kept.
    AlreadyLinked = 3,
    /// A newer link to the same region takes its place.
    Replaced = 4,
    /// An operator or a test has cut the link.
    Cut = 5,
    /// The peer does not read as fast as it is written to.
    TooSlow = 6,
    /// The peer broke the framing.
    BadFrame = 7,
    /// The replication protocol asked for it.
    Protocol = 8,
    /// The caller has no more use for the connection.
    Done = 9,
}

impl From<CloseCode> for VarInt {
    fn from(code: CloseCode) -> Self {
        Self::from_u32(code as u32)
    }
}

/// Why a connection was not made or is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) loudness: Loudness,
}

/// Whether an operator should hear of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loudness {
    /// It needs attention if it stays.
    Warn,
    /// It belongs to normal operation.
    Quiet,
}

impl Failure {
    pub(crate) fn warn(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), loudness: Loudness::Warn }
    }

    pub(crate) fn quiet(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), loudness: Loudness::Quiet }
    }
}

/// Says why a connection to `peer` failed.
pub(crate) fn explain(error: &ConnectionError, peer: &str) -> Failure {
    match error {
        ConnectionError::TransportError(error) => match alert(error.code.into()) {
            Some(alert) => Failure::warn(theirs(alert, &error.reason, peer)),
            None => Failure::warn(format!("{peer} broke the QUIC protocol: {error}")),
        },
        ConnectionError::ConnectionClosed(close) => match alert(close.error_code.into()) {
            Some(alert) => Failure::warn(ours(alert, &text(&close.reason), peer)),
            None => Failure::warn(format!("{peer} closed the connection: {}", text_of(close))),
        },
        ConnectionError::ApplicationClosed(close) => closed(close, peer),
        ConnectionError::TimedOut => Failure::warn(format!("{peer} does not answer")),
        ConnectionError::Reset => Failure::quiet(format!("{peer} has restarted")),
        ConnectionError::VersionMismatch => {
            Failure::warn(format!("{peer} speaks no version of QUIC that this node knows"))
        }
        ConnectionError::LocallyClosed => Failure::quiet("this node closed the connection"),
        ConnectionError::CidsExhausted => {
            Failure::warn("this node has no connection ids left: restart it")
        }
    }
}

fn closed(close: &quinn::ApplicationClose, peer: &str) -> Failure {
    let text = text(&close.reason);
    let is = |code: CloseCode| close.error_code == VarInt::from(code);
    if is(CloseCode::AlreadyLinked) || is(CloseCode::Replaced) || is(CloseCode::Done) {
        Failure::quiet(format!("{peer}: {text}"))
    } else if is(CloseCode::Refused) {
        Failure::warn(format!("{peer} refused us: {text}"))
    } else {
        Failure::warn(format!("{peer} closed the link: {text}"))
    }
}

/// What is wrong with the certificate that the peer showed.
fn theirs(alert: u8, detail: &str, peer: &str) -> String {
    match alert {
        EXPIRED if detail.contains("not valid yet") || detail.contains("NotValidYet") => {
            format!("{peer} shows a certificate that is not valid yet: check the clocks")
        }
        EXPIRED => format!(
            "{peer} shows a certificate that has expired: it needs a new one, issued with \
             `anabranch pki issue`"
        ),
        UNKNOWN_AUTHORITY | BAD_SIGNATURE => {
            format!("{peer} shows a certificate of another cluster's authority")
        }
        REQUIRED => format!("{peer} shows no certificate"),
        UNSUPPORTED => format!(
            "{peer} shows a certificate that is not for this use: a client's cannot serve as a \
             node's"
        ),
        NO_PROTOCOL => format!("{peer} speaks another protocol version"),
        _ => format!("the TLS handshake with {peer} failed: {}", clean(detail)),
    }
}

/// What the peer does not like about the certificate that this node showed.
fn ours(alert: u8, detail: &str, peer: &str) -> String {
    match alert {
        EXPIRED => format!(
            "{peer} refused our certificate: it has expired or is not valid yet; issue a new one \
             with `anabranch pki issue`"
        ),
        UNKNOWN_AUTHORITY | BAD_SIGNATURE => {
            format!("{peer} refused our certificate: it is of another cluster's authority")
        }
        REQUIRED => format!("{peer} refused us: we showed no certificate"),
        UNSUPPORTED => format!("{peer} refused our certificate: it is not for this use"),
        NO_PROTOCOL => format!("{peer} speaks another protocol version"),
        _ => format!("{peer} refused the TLS handshake: {detail}"),
    }
}

/// Returns the TLS alert in a QUIC error code (RFC 9001, 4.8).
fn alert(code: u64) -> Option<u8> {
    code.checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok())
}

fn text_of(close: &quinn::ConnectionClose) -> String {
    clean(&close.to_string())
}

/// What a peer wrote, made fit for a log line.
fn text(reason: &[u8]) -> String {
    clean(&String::from_utf8_lossy(reason))
}

pub(super) fn clean(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(MAX_REASON_CHARS).map(plain).collect()
}

/// Remembers what was logged, so that a failure that repeats is logged ever more rarely.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    entries: BTreeMap<(String, String), Complaint>,
}

#[derive(Debug, Clone, Copy)]
struct Complaint {
    due: Instant,
    pause: Duration,
    repeats: u64,
}

impl Complaints {
    /// Tells whether to log that `who` fails with `reason` now: then with how many repetitions
    /// since it was logged last.
    pub(crate) fn due(&mut self, who: &str, reason: &str, now: Instant) -> Option<u64> {
        let key = (who.to_owned(), reason.to_owned());
        if let Some(complaint) = self.entries.get_mut(&key) {
            return complaint.repeat(now);
        }
        if self.entries.len() >= MAX_COMPLAINTS {
            self.entries.retain(|_, complaint| complaint.due > now);
        }
        if self.entries.len() >= MAX_COMPLAINTS {
            return None;
        }
        let due = now + FIRST_PAUSE;
        self.entries.insert(key, Complaint { due, pause: FIRST_PAUSE, repeats: 0 });
        Some(0)
    }

    /// Forgets what `who` did, because all is well now.
    pub(crate) fn forget(&mut self, who: &str) {
        self.entries.retain(|(name, _), _| name != who);
    }
}

impl Complaint {
    fn repeat(&mut self, now: Instant) -> Option<u64> {
        self.repeats = self.repeats.saturating_add(1);
        if now < self.due {
            return None;
        }
        self.pause = (self.pause * 2).min(LAST_PAUSE);
        self.due = now + self.pause;
        Some(std::mem::take(&mut self.repeats))
    }
}

const EXPIRED: u8 = 45;
const UNSUPPORTED: u8 = 43;
const UNKNOWN_AUTHORITY: u8 = 48;
const BAD_SIGNATURE: u8 = 51;
const REQUIRED: u8 = 116;
const NO_PROTOCOL: u8 = 120;

/// Characters of a peer's reason that are logged.
const MAX_REASON_CHARS: usize = 200;

/// Failures that are remembered; with so many fresh ones, new ones are not logged at all.
const MAX_COMPLAINTS: usize = 256;

const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LAST_PAUSE: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_repeats_is_logged_ever_more_rarely() {
        let mut complaints = Complaints::default();
        let start = Instant::now();
        let mut logged = Vec::new();
        for second in 0..100 {
            let now = start + Duration::from_secs(second);
            if let Some(repeats) = complaints.due("eu", "expired", now) {
                logged.push((second, repeats));
            }
        }
        assert_eq!(logged, [(0, 0), (10, 10), (30, 20), (70, 40)]);
        assert_eq!(complaints.due("eu", "other", start), Some(0));
        complaints.forget("eu");
        assert_eq!(complaints.due("eu", "expired", start), Some(0));
    }

    #[test]
    fn a_flood_of_strangers_neither_grows_memory_nor_the_log() {
        let mut complaints = Complaints::default();
        let now = Instant::now();
        let logged = (0..10_000).filter_map(|n| complaints.due(&n.to_string(), "x", now)).count();
        assert_eq!(logged, MAX_COMPLAINTS);
        assert_eq!(complaints.entries.len(), MAX_COMPLAINTS);
        assert_eq!(complaints.due("later", "x", now + FIRST_PAUSE), Some(0));
    }

    #[test]
    fn what_a_peer_writes_cannot_forge_log_lines() {
        let close = quinn::ApplicationClose {
            error_code: CloseCode::Refused.into(),
            reason: bytes::Bytes::from("a\nWARN b".to_owned() + &"x".repeat(1_000)),
        };
        let failure = explain(&ConnectionError::ApplicationClosed(close), "eu");
        assert!(failure.reason.starts_with("eu refused us: a WARN b"), "{failure:?}");
        assert!(failure.reason.len() < 300 && !failure.reason.contains('\n'));
    }
}
