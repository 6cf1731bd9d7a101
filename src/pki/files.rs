//! Certificates and keys as PEM files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::PkiError;

/// What to do about files that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// Leave them, and say so.
    Refuse,
    /// Replace them.
    Replace,
}

/// Writes a certificate and its key. With [`Overwrite::Refuse`] neither is written when either
/// exists.
pub(super) fn store_pair(
    certificate: (&Path, &str),
    key: (&Path, &str),
    overwrite: Overwrite,
) -> Result<(), PkiError> {
    if overwrite == Overwrite::Refuse {
        for (file, _) in [certificate, key] {
            if file.exists() {
                return Err(PkiError::Exists { file: file.to_owned() });
            }
        }
    }
    if let Some(directory) = certificate.0.parent() {
        fs::create_dir_all(directory).map_err(|source| failed("create", directory, source))?;
    }
    // The key first: a certificate without its key would look usable.
    write_whole(key.0, key.1, Secrecy::Private)?;
    write_whole(certificate.0, certificate.1, Secrecy::Public)
}

/// Reads a text file; `cure` tells what to do when it is missing.
pub(super) fn read_text(file: &Path, cure: &str) -> Result<String, PkiError> {
    fs::read_to_string(file).map_err(|source| {
        if source.kind() == io::ErrorKind::NotFound {
            PkiError::Missing { file: file.to_owned(), cure: cure.to_owned() }
        } else if source.kind() == io::ErrorKind::InvalidData {
            unusable(file, "is no text, so it is not in PEM")
        } else {
            failed("read", file, source)
        }
    })
}

/// Reads the certificates of a PEM file, the holder's own first.
pub(super) fn read_chain(
    file: &Path,
    cure: &str,
) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let text = read_text(file, cure)?;
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| unusable(file, format!("is not well-formed PEM: {error}")))?;
    if chain.is_empty() {
        return Err(unusable(file, "holds no certificate in PEM"));
    }
    Ok(chain)
}

/// Reads the private key of a PEM file, and warns when others can read it too.
pub(super) fn read_key(file: &Path, cure: &str) -> Result<PrivateKeyDer<'static>, PkiError> {
    let text = read_text(file, cure)?;
    warn_if_shared(file);
    PrivateKeyDer::from_pem_slice(text.as_bytes())
        .map_err(|error| unusable(file, format!("holds no private key in PEM: {error}")))
}

pub(super) fn unusable(file: &Path, problem: impl Into<String>) -> PkiError {
    PkiError::Unusable { file: file.to_owned(), problem: problem.into() }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Secrecy {
    Public,
    Private,
}

/// Writes beside the file and renames, so that a reader sees the old or the new text, never half.
fn write_whole(file: &Path, text: &str, secrecy: Secrecy) -> Result<(), PkiError> {
    let draft = draft_of(file);
    let result = write_draft(&draft, text, secrecy).and_then(|()| fs::rename(&draft, file));
    result.map_err(|source| {
        let _ = fs::remove_file(&draft);
        failed("write", file, source)
    })
}

fn write_draft(draft: &Path, text: &str, secrecy: Secrecy) -> io::Result<()> {
    match fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = create(draft, secrecy)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn draft_of(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    file.with_file_name(name)
}

#[cfg(unix)]
fn create(file: &Path, secrecy: Secrecy) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mode = if secrecy == Secrecy::Private { 0o600 } else { 0o644 };
    OpenOptions::new().write(true).create_new(true).mode(mode).open(file)
}

#[cfg(not(unix))]
fn create(file: &Path, _: Secrecy) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(file)
}

#[cfg(unix)]
fn warn_if_shared(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(file).map(|metadata| metadata.permissions().mode()).unwrap_or(0);
    if mode & 0o077 != 0 {
        tracing::warn!(file = %file.display(), "other users can read this private key: chmod 600");
    }
}

#[cfg(not(unix))]
fn warn_if_shared(_: &Path) {}

fn failed(action: &'static str, file: &Path, cause: io::Error) -> PkiError {
    PkiError::Io { action, file: file.to_owned(), cause }
}
