//! Certificates for `anabranch dev`, made without being asked.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anabranch_crdt::ids::{ClusterId, RegionName};
use time::OffsetDateTime;

use super::{
    Authority, CertificateSummary, Credentials, LEAF_DAYS, Overwrite, PkiError, Role, Subject,
    Validity,
};
use crate::settings::PkiPaths;

/// Makes a development authority and a certificate for every region in `directory`, as far as
/// they are missing, have less than a day left, or belong to another cluster or authority.
///
/// # Errors
/// [`PkiError`] when files cannot be written.
pub fn ensure_development(
    directory: &Path,
    cluster: ClusterId,
    regions: &[RegionName],
) -> Result<BTreeMap<RegionName, PkiPaths>, PkiError> {
    let authority = ensure_authority(directory, cluster)?;
    let mut all = BTreeMap::new();
    for region in regions {
        let paths = super::paths(directory, region.as_str());
        if !serves(&paths, &Subject { cluster, role: Role::Region(region.clone()) }) {
            let issued = authority.issue_node(region, Validity::days(LEAF_DAYS))?;
            issued.store(directory, Overwrite::Replace)?;
        }
        all.insert(region.clone(), paths);
    }
    Ok(all)
}

fn ensure_authority(directory: &Path, cluster: ClusterId) -> Result<Authority, PkiError> {
    match Authority::load(directory) {
        Ok(authority) if authority.cluster() == cluster && lasts(directory) => Ok(authority),
        Ok(_) | Err(_) => {
            let authority = Authority::create(cluster, "development")?;
            authority.store(directory, Overwrite::Replace)?;
            Ok(authority)
        }
    }
}

/// Tells whether the authority is still valid tomorrow.
fn lasts(directory: &Path) -> bool {
    let authority = super::paths(directory, "ca").authority;
    CertificateSummary::of_file(&authority)
        .is_ok_and(|summary| summary.validity.not_after > OffsetDateTime::now_utc() + DAY)
}

/// Tells whether the files are the subject's and will still be accepted tomorrow.
fn serves(paths: &PkiPaths, subject: &Subject) -> bool {
    Credentials::load(paths).is_ok_and(|credentials| {
        credentials.summary().subject == *subject && credentials.check(DAY).is_ok()
    })
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
