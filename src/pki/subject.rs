//! Whom a certificate names.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anabranch_crdt::ids::{ClusterId, RegionName};
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::files;
use super::{PkiError, Validity};

/// The longest client name, in bytes.
const MAX_CLIENT_BYTES: usize = 64;

/// The name of an offline-first client: 1 to 64 bytes of `a-z A-Z 0-9 _ - .`, starting with a
/// letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientName(String);

impl ClientName {
    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClientName {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if starts_well && text.len() <= MAX_CLIENT_BYTES && text.chars().all(plain) {
            return Ok(Self(text.to_owned()));
        }
        Err(PkiError::Certificate(format!(
            "'{}' is no client name: 1 to {MAX_CLIENT_BYTES} bytes of a-z A-Z 0-9 _ - . that \
             start with a letter or a digit",
            text.escape_default()
        )))
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the holder of a certificate is in its cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The authority that signs the others.
    Authority,
    /// The node of a region.
    Region(RegionName),
    /// An offline-first client.
    Client(ClientName),
}

/// Whom a certificate names, written in it as the URI `anabranch://CLUSTER/region/NAME`,
/// `anabranch://CLUSTER/client/NAME` or `anabranch://CLUSTER/authority`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// The cluster.
    pub cluster: ClusterId,
    /// The role in it.
    pub role: Role,
}

impl Subject {
    /// Reads the subject of a certificate in DER.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] when it names nobody, or more than one.
    pub fn of_certificate(der: &[u8]) -> Result<Self, PkiError> {
        Self::of_parsed(&parse(der)?)
    }

    fn of_parsed(certificate: &X509Certificate<'_>) -> Result<Self, PkiError> {
        let uris = uris(certificate)?;
        match uris.as_slice() {
            [uri] => uri.parse(),
            [] => Err(PkiError::Certificate("the certificate names no member of a cluster".into())),
            _ => Err(PkiError::Certificate("the certificate names more than one member".into())),
        }
    }
}

impl FromStr for Subject {
    type Err = PkiError;

    fn from_str(uri: &str) -> Result<Self, PkiError> {
        let foreign = || {
            PkiError::Certificate(format!(
                "the certificate names '{}', which is no member of a cluster",
                uri.escape_default()
            ))
        };
        let rest = uri.strip_prefix(SCHEME).ok_or_else(foreign)?;
        let (cluster, member) = rest.split_once('/').ok_or_else(foreign)?;
        let cluster: ClusterId = cluster.parse().map_err(|_| foreign())?;
        let role = match member.split_once('/') {
            None if member == "authority" => Role::Authority,
            Some(("region", name)) => Role::Region(name.parse().map_err(|_| foreign())?),
            Some(("client", name)) => Role::Client(name.parse()?),
            _ => return Err(foreign()),
        };
        Ok(Self { cluster, role })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority => f.write_str("authority"),
            Self::Region(name) => write!(f, "region/{name}"),
            Self::Client(name) => write!(f, "client/{name}"),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.cluster, self.role)
    }
}

/// What a person wants to know of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSummary {
    /// Whom it names.
    pub subject: Subject,
    /// The distinguished name of who signed it.
    pub issuer: String,
    /// From when until when it is valid.
    pub validity: Validity,
}

impl CertificateSummary {
    /// Reads the first certificate of a PEM file.
    ///
    /// # Errors
    /// [`PkiError`], naming the file.
    pub fn of_file(file: &Path) -> Result<Self, PkiError> {
        let chain = files::read_chain(file, "name a certificate in PEM")?;
        let first = chain.first().ok_or_else(|| files::unusable(file, "is empty"))?;
        Self::of_certificate(first)
            .map_err(|error| files::unusable(file, format!("is unusable: {error}")))
    }

    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// [`PkiError::Certificate`].
    pub fn of_certificate(der: &[u8]) -> Result<Self, PkiError> {
        let parsed = parse(der)?;
        Ok(Self {
            subject: Subject::of_parsed(&parsed)?,
            issuer: parsed.issuer().to_string(),
            validity: Validity {
                not_before: moment(parsed.validity().not_before.timestamp()),
                not_after: moment(parsed.validity().not_after.timestamp()),
            },
        })
    }
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, PkiError> {
    match x509_parser::parse_x509_certificate(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(error) => {
            Err(PkiError::Certificate(format!("the certificate cannot be read: {error}")))
        }
    }
}

fn uris(certificate: &X509Certificate<'_>) -> Result<Vec<String>, PkiError> {
    let names = certificate.subject_alternative_name().map_err(|error| {
        PkiError::Certificate(format!("the names in the certificate cannot be read: {error}"))
    })?;
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    Ok(names.iter().filter_map(uri).collect())
}

fn uri(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::URI(uri) = name { Some((*uri).to_owned()) } else { None }
}

fn moment(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

const SCHEME: &str = "anabranch://";
