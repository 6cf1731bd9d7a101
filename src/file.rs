//! Data files: how one comes into being without being seen half made, and how a copy is told from
//! the file it was made of.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Gives a complete file its name; after a crash there is either the whole file or none.
///
/// # Errors
/// The file cannot be synced or renamed, or the directory cannot be synced.
pub(crate) fn rename_durably(directory: &Path, from: &Path, to: &Path) -> io::Result<()> {
    File::open(from)?.sync_all()?;
    fs::rename(from, to)?;
    #[cfg(unix)]
    File::open(directory)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = directory;
    Ok(())
}

/// Returns what tells a file from a copy of it: device and inode.
///
/// # Errors
/// The file's metadata cannot be read.
#[cfg(unix)]
pub(crate) fn fingerprint(path: &Path) -> io::Result<String> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = fs::metadata(path)?;
    Ok(format!("{}:{}", metadata.dev(), metadata.ino()))
}

/// Returns what tells a file from a copy of it: the canonical path of its directory.
///
/// # Errors
/// The path cannot be resolved.
#[cfg(not(unix))]
pub(crate) fn fingerprint(path: &Path) -> io::Result<String> {
    let directory = path.parent().unwrap_or(path).canonicalize()?;
    Ok(directory.display().to_string())
}
