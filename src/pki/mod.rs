//! The cluster's certificates: one private authority per cluster, one certificate per node and
//! per offline-first client.
//!
//! Who someone is stands in the certificate as a URI (see [`Subject`]), never in a message: what
//! a peer says about itself counts only as far as the authority has signed it. Keys are written
//! readable for their owner alone, and no file is replaced unless asked for.

mod authority;
mod credentials;
mod development;
mod files;
mod subject;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use time::{Duration, OffsetDateTime};

pub use authority::{Authority, Issued};
pub use credentials::Credentials;
pub(crate) use credentials::provider;
pub use development::ensure_development;
pub use files::Overwrite;
pub use subject::{CertificateSummary, ClientName, Role, Subject};

use crate::error::{Error, ErrorKind};
use crate::settings::PkiPaths;

/// The DNS name in every node's certificate. It is the same for all, because TLS wants a name to
/// check; which region a node is of is checked from its [`Subject`].
pub const SERVER_NAME: &str = "node.anabranch";

/// Days that an authority is valid for.
pub const AUTHORITY_DAYS: i64 = 3_650;

/// Days that the certificate of a node or a client is valid for, unless asked otherwise.
pub const LEAF_DAYS: i64 = 365;

/// Returns where the files of a region's node are in `directory`.
#[must_use]
pub fn paths(directory: &Path, stem: &str) -> PkiPaths {
    PkiPaths {
        authority: directory.join("ca.pem"),
        certificate: directory.join(format!("{stem}.pem")),
        key: directory.join(format!("{stem}.key")),
    }
}

/// From when until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: OffsetDateTime,
    /// The last moment.
    pub not_after: OffsetDateTime,
}

impl Validity {
    /// Makes a validity that ends in `days` days. It starts an hour ago, so that a peer whose
    /// clock is a little behind accepts a new certificate; with `days` below zero it is
    /// over already, which only tests want.
    #[must_use]
    pub fn days(days: i64) -> Self {
        let now = OffsetDateTime::now_utc();
        let not_after = now.saturating_add(Duration::days(days));
        let not_before = (now - Duration::HOUR).min(not_after.saturating_sub(Duration::DAY));
        Self { not_before, not_after }
    }
}

/// Why a certificate cannot be made, written or read; the message names the file and the cure.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The file is there, and replacing it was not asked for.
    #[error("{} exists already: pass --force to replace it", file.display())]
    Exists {
        /// The file.
        file: PathBuf,
    },
    /// The file is not there.
    #[error("{} is missing: {cure}", file.display())]
    Missing {
        /// The file.
        file: PathBuf,
        /// What to do.
        cure: String,
    },
    /// The file system failed.
    #[error("cannot {action} {}: {cause}", file.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        file: PathBuf,
        /// Why it failed.
        cause: io::Error,
    },
    /// The file holds something else than it should.
    #[error("{} {problem}", file.display())]
    Unusable {
        /// The file.
        file: PathBuf,
        /// What is wrong with it, and the cure.
        problem: String,
    },
    /// The certificate cannot be read, or does not name who it is for.
    #[error("{0}")]
    Certificate(String),
    /// The certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Generate(rcgen::Error),
}

impl From<rcgen::Error> for PkiError {
    fn from(error: rcgen::Error) -> Self {
        Self::Generate(error)
    }
}

impl From<PkiError> for Error {
    fn from(error: PkiError) -> Self {
        let (kind, code) = match &error {
            PkiError::Exists { .. } => (ErrorKind::Conflict, "file_exists"),
            PkiError::Missing { .. } => (ErrorKind::NotFound, "file_missing"),
            PkiError::Io { .. } => (ErrorKind::Unavailable, "file_unavailable"),
            PkiError::Unusable { .. } => (ErrorKind::Invalid, "file_unusable"),
            PkiError::Certificate(_) => (ErrorKind::Invalid, "certificate_invalid"),
            PkiError::Generate(_) => (ErrorKind::Internal, "certificate_not_made"),
        };
        Self::new(kind, code, error.to_string())
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.not_before, self.not_after)
    }
}

#[cfg(test)]
mod tests;
