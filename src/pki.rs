//! Certificates of a cluster.

use std::collections::BTreeMap;
use std::path::Path;

use anabranch_crdt::ids::{ClusterId, RegionName};

use crate::error::Error;
use crate::settings::PkiPaths;

/// Returns where the files of a node or a client are below `dir`.
#[must_use]
pub fn paths(dir: &Path, stem: &str) -> PkiPaths {
    PkiPaths {
        authority: dir.join("ca.pem"),
        certificate: dir.join(format!("{stem}.pem")),
        key: dir.join(format!("{stem}.key")),
    }
}

/// Makes an authority and certificates for development where they are missing.
///
/// # Errors
/// The files cannot be written.
pub fn ensure_development(
    dir: &Path,
    cluster: ClusterId,
    regions: &[RegionName],
) -> Result<BTreeMap<RegionName, PkiPaths>, Error> {
    let _ = (dir, cluster, regions);
    todo!()
}
