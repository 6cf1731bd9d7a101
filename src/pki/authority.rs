//! The cluster's authority: makes certificates.

use std::fmt;
use std::path::{Path, PathBuf};

use anabranch_crdt::ids::{ClusterId, RegionName};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::files::{self, Overwrite, unusable};
use super::{AUTHORITY_DAYS, ClientName, PkiError, Role, SERVER_NAME, Subject, Validity};

/// The authority of one cluster, able to sign.
pub struct Authority {
    cluster: ClusterId,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A new certificate and its key, not stored yet.
pub struct Issued {
    /// The certificate in PEM.
    pub certificate: String,
    /// The private key in PEM.
    pub key: String,
    stem: String,
}

impl Authority {
    /// Makes the authority of a cluster; `name` is for people.
    ///
    /// # Errors
    /// [`PkiError::Generate`].
    pub fn create(cluster: ClusterId, name: &str) -> Result<Self, PkiError> {
        let key = KeyPair::generate()?;
        let parameters = authority_parameters(cluster, name)?;
        let certificate = parameters.self_signed(&key)?.pem();
        Ok(Self { cluster, certificate, issuer: Issuer::new(parameters, key) })
    }

    /// Reads the authority from `ca.pem` and `ca.key` in `directory`.
    ///
    /// # Errors
    /// [`PkiError`], naming the file.
    pub fn load(directory: &Path) -> Result<Self, PkiError> {
        let (certificate_file, key_file) = files_in(directory);
        let certificate = files::read_text(&certificate_file, INIT)?;
        let key_text = files::read_text(&key_file, INIT)?;
        let key = KeyPair::from_pem(&key_text)
            .map_err(|error| unusable(&key_file, format!("holds no usable key: {error}")))?;
        let cluster = cluster_of(&certificate_file, &certificate)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(|error| {
            unusable(&certificate_file, format!("is no certificate of an authority: {error}"))
        })?;
        Ok(Self { cluster, certificate, issuer })
    }

    /// Writes `ca.pem` and `ca.key` into `directory`, which is created if needed.
    ///
    /// # Errors
    /// [`PkiError::Exists`], [`PkiError::Io`].
    pub fn store(&self, directory: &Path, overwrite: Overwrite) -> Result<(), PkiError> {
        let (certificate, key) = files_in(directory);
        let key_text = self.issuer.key().serialize_pem();
        files::store_pair((&certificate, &self.certificate), (&key, &key_text), overwrite)
    }

    /// Returns the cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Issues the certificate of a region's node. It serves and dials.
    ///
    /// # Errors
    /// [`PkiError::Generate`].
    pub fn issue_node(&self, region: &RegionName, validity: Validity) -> Result<Issued, PkiError> {
        let role = Role::Region(region.clone());
        self.issue(&Subject { cluster: self.cluster, role }, validity)
    }

    /// Issues the certificate of an offline-first client. It dials only.
    ///
    /// # Errors
    /// [`PkiError::Generate`].
    pub fn issue_client(
        &self,
        client: &ClientName,
        validity: Validity,
    ) -> Result<Issued, PkiError> {
        let role = Role::Client(client.clone());
        self.issue(&Subject { cluster: self.cluster, role }, validity)
    }

    pub(crate) fn issue(&self, subject: &Subject, validity: Validity) -> Result<Issued, PkiError> {
        let key = KeyPair::generate()?;
        let certificate = leaf_parameters(subject, validity)?.signed_by(&key, &self.issuer)?;
        let stem = match &subject.role {
            Role::Authority => "ca".to_owned(),
            Role::Region(name) => name.to_string(),
            Role::Client(name) => name.to_string(),
        };
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem(), stem })
    }
}

impl Issued {
    /// Writes the certificate as `NAME.pem` and the key as `NAME.key` into `directory`, and
    /// returns both paths.
    ///
    /// # Errors
    /// [`PkiError::Exists`], [`PkiError::Io`].
    pub fn store(
        &self,
        directory: &Path,
        overwrite: Overwrite,
    ) -> Result<(PathBuf, PathBuf), PkiError> {
        let paths = super::paths(directory, &self.stem);
        let certificate = (paths.certificate.as_path(), self.certificate.as_str());
        files::store_pair(certificate, (&paths.key, &self.key), overwrite)?;
        Ok((paths.certificate, paths.key))
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("stem", &self.stem).finish_non_exhaustive()
    }
}

fn authority_parameters(cluster: ClusterId, name: &str) -> Result<CertificateParams, PkiError> {
    let subject = Subject { cluster, role: Role::Authority };
    let mut parameters = parameters(&subject, name, Validity::days(AUTHORITY_DAYS))?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(parameters)
}

fn leaf_parameters(subject: &Subject, validity: Validity) -> Result<CertificateParams, PkiError> {
    let mut parameters = parameters(subject, &subject.role.to_string(), validity)?;
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    parameters.use_authority_key_identifier_extension = true;
    if matches!(subject.role, Role::Region(_)) {
        parameters.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        parameters.subject_alt_names.push(SanType::DnsName(SERVER_NAME.try_into()?));
    }
    Ok(parameters)
}

fn parameters(
    subject: &Subject,
    common_name: &str,
    validity: Validity,
) -> Result<CertificateParams, PkiError> {
    let mut parameters = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name.push(DnType::OrganizationName, format!("anabranch {}", subject.cluster));
    parameters.distinguished_name = name;
    parameters.not_before = validity.not_before;
    parameters.not_after = validity.not_after;
    parameters.subject_alt_names = vec![SanType::URI(subject.to_string().try_into()?)];
    Ok(parameters)
}

fn cluster_of(file: &Path, certificate: &str) -> Result<ClusterId, PkiError> {
    let der = CertificateDer::from_pem_slice(certificate.as_bytes())
        .map_err(|error| unusable(file, format!("holds no certificate in PEM: {error}")))?;
    let subject = Subject::of_certificate(&der)
        .map_err(|error| unusable(file, format!("is no authority of a cluster: {error}")))?;
    match subject.role {
        Role::Authority => Ok(subject.cluster),
        Role::Region(_) | Role::Client(_) => {
            Err(unusable(file, format!("belongs to {subject}, not to a cluster's authority")))
        }
    }
}

fn files_in(directory: &Path) -> (PathBuf, PathBuf) {
    (directory.join("ca.pem"), directory.join("ca.key"))
}

const INIT: &str = "make the cluster's authority with `anabranch pki init`";
