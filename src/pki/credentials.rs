//! What a node or a client shows to others, and what it checks others against.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use super::files::{self, unusable};
use super::{CertificateSummary, PkiError};
use crate::settings::PkiPaths;

/// The files of [`PkiPaths`], read.
#[derive(Debug)]
pub struct Credentials {
    /// The roots that others are checked against: the cluster's authority alone.
    pub(crate) roots: Arc<RootCertStore>,
    /// The own certificate.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub(crate) key: PrivateKeyDer<'static>,
    /// What the own certificate says.
    pub(crate) summary: CertificateSummary,
}

impl Credentials {
    /// Reads the files, without a look at the time: who has expired is told so by its peers, and
    /// goes on serving alone.
    ///
    /// # Errors
    /// [`PkiError`], naming the file and the cure.
    pub fn load(paths: &PkiPaths) -> Result<Self, PkiError> {
        let roots = roots(&paths.authority)?;
        let chain = files::read_chain(&paths.certificate, ISSUE)?;
        let key = files::read_key(&paths.key, ISSUE)?;
        let own = chain.first().ok_or_else(|| unusable(&paths.certificate, "is empty"))?;
        let summary = CertificateSummary::of_certificate(own)
            .map_err(|error| unusable(&paths.certificate, format!("is unusable: {error}")))?;
        Ok(Self { roots, chain, key, summary })
    }

    /// Returns what the own certificate says.
    #[must_use]
    pub fn summary(&self) -> &CertificateSummary {
        &self.summary
    }

    /// Checks the own certificate as a peer would, but `ahead` of the present.
    ///
    /// # Errors
    /// Says what a peer would object to.
    pub fn check(&self, ahead: Duration) -> Result<(), String> {
        let own = self.chain.first().ok_or("there is no certificate")?;
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let at = UnixTime::since_unix_epoch(since_epoch.unwrap_or_default() + ahead);
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), provider())
            .build()
            .map_err(|error| error.to_string())?
            .verify_client_cert(own, &[], at)
            .map(|_| ())
            .map_err(|error| error.to_string())
    }
}

/// The one provider of cryptography, passed explicitly so that nothing depends on which one the
/// process has installed.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(file: &Path) -> Result<Arc<RootCertStore>, PkiError> {
    let mut roots = RootCertStore::empty();
    for certificate in files::read_chain(file, "copy the cluster's ca.pem there")? {
        roots
            .add(certificate)
            .map_err(|error| unusable(file, format!("is no usable authority: {error}")))?;
    }
    Ok(Arc::new(roots))
}

const ISSUE: &str = "issue it with `anabranch pki issue`";
