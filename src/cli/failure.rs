//! How a command fails, and the exit code that says so.

use crate::cli::config::ConfigError;
use crate::error::{Error, ErrorKind};

/// Why a command did not do what it was asked; each kind has its own exit code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Something else went wrong.
    #[error("{0}")]
    General(String),
    /// The arguments or the configuration are wrong.
    #[error("{0}")]
    Usage(String),
    /// What was asked for is not there.
    #[error("{0}")]
    NotFound(String),
    /// There are open conflicts, and the caller asked to be told by the exit code.
    #[error("there are open conflicts")]
    ConflictsPresent,
    /// Settings would let other values win, and the caller asked to be told by the exit code.
    #[error("other values would win")]
    WouldFlip,
    /// The arguments are wrong, and the help that was printed says how they are written.
    #[error("see the help")]
    HelpShown,
    /// The node cannot be reached, or does not answer in time.
    #[error("{0}")]
    Unreachable(String),
    /// A signal stopped the command before it was done.
    #[error("interrupted")]
    Interrupted,
    /// Whoever read the output has gone; nothing is left to be done.
    #[error("the output is closed")]
    OutputClosed,
}

impl Failure {
    /// Returns the exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::General(_) => 1,
            Self::Usage(_) | Self::HelpShown => 2,
            Self::NotFound(_) => 3,
            Self::ConflictsPresent | Self::WouldFlip => 4,
            Self::Unreachable(_) => 5,
            Self::Interrupted => 130,
        }
    }

    /// Tells whether people need to be told more than the exit code.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        match self {
            Self::OutputClosed | Self::ConflictsPresent | Self::WouldFlip | Self::HelpShown => true,
            Self::General(_)
            | Self::Usage(_)
            | Self::NotFound(_)
            | Self::Unreachable(_)
            | Self::Interrupted => false,
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = with_sources(&error);
        match error.kind() {
            ErrorKind::NotFound => Self::NotFound(message),
            ErrorKind::Stale | ErrorKind::Unavailable | ErrorKind::Overloaded => {
                Self::Unreachable(message)
            }
            ErrorKind::Invalid
            | ErrorKind::Forbidden
            | ErrorKind::Gone
            | ErrorKind::Conflict
            | ErrorKind::Precondition
            | ErrorKind::TooLarge
            | ErrorKind::Corrupt
            | ErrorKind::Internal => Self::General(message),
        }
    }
}

/// Writes an error with the errors behind it.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

/// The exit codes, for `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failure
  2    wrong arguments or configuration
  3    not found
  4    with --exit-code: open conflicts are present, or other values would win
  5    the node cannot be reached, or does not answer in time
  130  interrupted";
