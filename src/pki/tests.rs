use std::fs;
use std::time::Duration as StdDuration;

use anabranch_crdt::ids::{ClusterId, RegionName};
use uuid::Uuid;

use super::*;

fn cluster(n: u128) -> ClusterId {
    ClusterId(Uuid::from_u128(n))
}

fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

#[test]
fn subjects_are_written_and_read_alike() {
    let text = "anabranch://00000000-0000-0000-0000-000000000007/region/eu-west";
    let subject: Subject = text.parse().unwrap();
    assert_eq!(subject.cluster, cluster(7));
    assert_eq!(subject.role, Role::Region(region("eu-west")));
    assert_eq!(subject.to_string(), text);
    for wrong in [
        "https://00000000-0000-0000-0000-000000000007/region/eu-west",
        "anabranch://seven/region/eu-west",
        "anabranch://00000000-0000-0000-0000-000000000007",
        "anabranch://00000000-0000-0000-0000-000000000007/region/",
        "anabranch://00000000-0000-0000-0000-000000000007/region/a/b",
        "anabranch://00000000-0000-0000-0000-000000000007/client/..",
        "anabranch://00000000-0000-0000-0000-000000000007/admin/x",
    ] {
        assert!(wrong.parse::<Subject>().is_err(), "{wrong}");
    }
}

#[test]
fn a_stored_authority_goes_on_issuing() {
    let home = tempfile::tempdir().unwrap();
    Authority::create(cluster(1), "test").unwrap().store(home.path(), Overwrite::Refuse).unwrap();
    let authority = Authority::load(home.path()).unwrap();
    assert_eq!(authority.cluster(), cluster(1));
    let name: ClientName = "laptop".parse().unwrap();
    authority
        .issue_client(&name, Validity::days(3))
        .unwrap()
        .store(home.path(), Overwrite::Refuse)
        .unwrap();

    let credentials = Credentials::load(&paths(home.path(), "laptop")).unwrap();
    assert_eq!(credentials.summary().subject.role, Role::Client(name));
    assert!(credentials.check(StdDuration::ZERO).is_ok());
    let later = credentials.check(StdDuration::from_secs(4 * 86_400)).unwrap_err();
    assert!(later.contains("expired"), "{later}");
}

#[cfg(unix)]
#[test]
fn keys_are_readable_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    Authority::create(cluster(1), "test").unwrap().store(home.path(), Overwrite::Refuse).unwrap();
    let mode = fs::metadata(home.path().join("ca.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn nothing_is_overwritten_unasked() {
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::create(cluster(1), "test").unwrap();
    authority.store(home.path(), Overwrite::Refuse).unwrap();
    fs::remove_file(home.path().join("ca.pem")).unwrap();
    let key = fs::read(home.path().join("ca.key")).unwrap();

    let other = Authority::create(cluster(2), "other").unwrap();
    let refused = other.store(home.path(), Overwrite::Refuse).unwrap_err();
    assert!(matches!(&refused, PkiError::Exists { file } if file.ends_with("ca.key")));
    assert_eq!(fs::read(home.path().join("ca.key")).unwrap(), key);
    assert!(!home.path().join("ca.pem").exists());
}

#[test]
fn damaged_files_are_named_with_the_cure() {
    let home = tempfile::tempdir().unwrap();
    let missing = Credentials::load(&paths(home.path(), "eu")).unwrap_err().to_string();
    assert!(missing.contains("ca.pem is missing: copy the cluster's ca.pem"), "{missing}");
    fs::write(home.path().join("ca.pem"), "hello").unwrap();
    let damaged = Credentials::load(&paths(home.path(), "eu")).unwrap_err().to_string();
    assert!(damaged.contains("ca.pem holds no certificate in PEM"), "{damaged}");
    fs::write(home.path().join("ca.pem"), [0xff, 0xfe, 0x00]).unwrap();
    let damaged = Credentials::load(&paths(home.path(), "eu")).unwrap_err().to_string();
    assert!(damaged.contains("ca.pem is no text"), "{damaged}");
}

#[test]
fn development_certificates_are_kept_while_they_serve() {
    let home = tempfile::tempdir().unwrap();
    let (eu, us) = (region("eu-west"), region("us-east"));
    let read = |paths: &PkiPaths| fs::read_to_string(&paths.certificate).unwrap();
    let first = ensure_development(home.path(), cluster(1), std::slice::from_ref(&eu)).unwrap();
    let before = read(&first[&eu]);

    // A region more does not disturb the others.
    let both = ensure_development(home.path(), cluster(1), &[eu.clone(), us.clone()]).unwrap();
    assert_eq!(read(&both[&eu]), before);
    Credentials::load(&both[&us]).unwrap().check(StdDuration::ZERO).unwrap();

    // One that has expired is issued anew, and only that one.
    let authority = Authority::load(home.path()).unwrap();
    let expired = authority.issue_node(&us, Validity::days(0)).unwrap();
    expired.store(home.path(), Overwrite::Replace).unwrap();
    let again = ensure_development(home.path(), cluster(1), &[eu.clone(), us.clone()]).unwrap();
    assert_eq!(read(&again[&eu]), before);
    Credentials::load(&again[&us]).unwrap().check(StdDuration::ZERO).unwrap();

    // Another cluster gets another authority, and so new certificates.
    let other = ensure_development(home.path(), cluster(2), std::slice::from_ref(&eu)).unwrap();
    let credentials = Credentials::load(&other[&eu]).unwrap();
    credentials.check(StdDuration::ZERO).unwrap();
    assert_eq!(credentials.summary().subject.cluster, cluster(2));
}
