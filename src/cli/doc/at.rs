//! A point in the history of a document: a time, or the changes that led to it.

use anabranch_crdt::ids::DocumentName;
use time::OffsetDateTime;

use super::history::{self, Change};
use crate::cli::Failure;
use crate::cli::conflicts::{When, when};
use crate::cli::http::Client;

/// A point as people write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum At {
    /// A time.
    Time(When),
    /// Hashes of changes, or beginnings of them.
    Changes(Vec<String>),
}

impl At {
    /// Returns the point as the API takes it: the hashes in full, the time as RFC 3339.
    ///
    /// # Errors
    /// `Usage` if the beginning of a hash means no change of the document, or more than one.
    pub(super) async fn written(
        self,
        client: &mut Client,
        name: &DocumentName,
    ) -> Result<String, Failure> {
        let hashes = match self {
            Self::Time(when) => return when.rfc3339(OffsetDateTime::now_utc()),
            Self::Changes(hashes) => hashes,
        };
        if hashes.iter().all(|hash| hash.len() == HASH_DIGITS) {
            return Ok(hashes.join(","));
        }
        let (known, _) = history::fetch(client, name, None, None, SEARCHED).await?;
        let known = known.into_iter().map(Change::read).collect::<Result<Vec<_>, _>>()?;
        let whole = hashes.iter().map(|hash| complete(hash, &known));
        Ok(whole.collect::<Result<Vec<_>, _>>()?.join(","))
    }
}

/// Finds the one change whose hash starts so.
fn complete(beginning: &str, known: &[Change]) -> Result<String, Failure> {
    let mut matching = known.iter().filter(|change| change.hash.starts_with(beginning));
    match (matching.next(), matching.next()) {
        (Some(change), None) => Ok(change.hash.clone()),
        (Some(_), Some(_)) => Err(Failure::Usage(format!(
            "'{beginning}' is the beginning of more than one change: write more of it"
        ))),
        (None, _) => Err(Failure::NotFound(format!(
            "no change of the document starts with '{beginning}' (`anabranch doc history`)"
        ))),
    }
}

/// Reads a point.
pub(super) fn at(text: &str) -> Result<At, String> {
    if let Ok(when) = when(text) {
        return Ok(At::Time(when));
    }
    let hashes: Vec<String> = text.split(',').map(|hash| hash.trim().to_lowercase()).collect();
    let is_hash = |hash: &String| {
        (SHORTEST..=HASH_DIGITS).contains(&hash.len())
            && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    if hashes.iter().all(is_hash) {
        return Ok(At::Changes(hashes));
    }
    Err("write a time as 2026-03-01T10:15:30Z, how long ago as 90s, 30min, 2h, 3d, or hashes of \
         changes (at least 4 digits), joined by commas"
        .to_owned())
}

const HASH_DIGITS: usize = 64;

/// With fewer digits, a typing error means some change too easily.
const SHORTEST: usize = 4;

/// Changes that are searched for a hash of which only the beginning was given.
const SEARCHED: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::super::history::tests::change;
    use super::*;

    #[test]
    fn points_are_times_or_changes() {
        assert!(matches!(at("2h"), Ok(At::Time(_))));
        assert!(matches!(at("2026-03-01T10:15:30Z"), Ok(At::Time(_))));
        assert_eq!(at("AB12, ffee0"), Ok(At::Changes(vec!["ab12".into(), "ffee0".into()])));
        for bad in ["", "yesterday", "abc", "ab12,", &"a".repeat(65)] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_beginning_of_a_hash_is_enough_if_it_is_the_only_one() {
        let known = [change("aa11"), change("aa22")];
        assert_eq!(complete("aa1", &known).as_deref(), Ok(known[0].hash.as_str()));
        assert_eq!(complete("aa", &known).unwrap_err().code(), 2);
        assert_eq!(complete("bb", &known).unwrap_err().code(), 3);
    }
}
