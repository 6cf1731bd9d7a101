//! What a request asks of other regions, as headers and flags say it.
//!
//! `Write-Concern: majority; timeout=500ms` and `Read-Concern: majority; timeout=2s`: a concern,
//! and how long to wait for it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anabranch_crdt::ids::RegionName;

use crate::error::{Error, ErrorKind};
use crate::replication::{ClusterView, RegionView};

/// Where a write has to be durable before it is answered with success. The region that takes it
/// always counts, because it answers no write that is not durable there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum WriteConcern {
    /// In the region that takes it.
    #[default]
    Local,
    /// In so many regions.
    Regions(usize),
    /// In each of these regions.
    Named(BTreeSet<RegionName>),
    /// In more than half of the regions.
    Majority,
    /// In every region.
    All,
}

impl WriteConcern {
    /// Checks that the cluster can meet it at all.
    ///
    /// # Errors
    /// `Invalid` with `unknown_region` or `concern_out_of_reach`.
    pub fn check(&self, view: &ClusterView) -> Result<(), Error> {
        let voters: Vec<&RegionName> = view.voters().map(|voter| &voter.region).collect();
        match self {
            Self::Local | Self::Majority | Self::All => Ok(()),
            Self::Regions(count) if *count <= voters.len() => Ok(()),
            Self::Regions(count) => {
                let message = format!(
                    "the write concern asks for {count} regions, and the cluster has {}",
                    voters.len()
                );
                Err(Error::new(ErrorKind::Invalid, "concern_out_of_reach", message))
            }
            Self::Named(names) => match names.iter().find(|name| !voters.contains(name)) {
                None => Ok(()),
                Some(stranger) => {
                    let known: Vec<&str> = voters.iter().map(|name| name.as_str()).collect();
                    let message = format!(
                        "the write concern names '{stranger}', and the regions of this cluster \
                         are {}",
                        known.join(", ")
                    );
                    Err(Error::new(ErrorKind::Invalid, "unknown_region", message))
                }
            },
        }
    }

    /// Tells whether it is met when these regions have the write. A region that has left the
    /// cluster meanwhile is no longer asked for.
    #[must_use]
    pub fn is_met(&self, view: &ClusterView, has: impl Fn(&RegionView) -> bool) -> bool {
        let voters = view.voters().count();
        let having = || view.voters().filter(|voter| has(voter)).count();
        match self {
            Self::Local => true,
            Self::Regions(count) => having() >= *count,
            Self::Named(names) => {
                let mut named = view.voters().filter(|voter| names.contains(&voter.region));
                named.all(has)
            }
            Self::Majority => having() > voters / 2,
            Self::All => having() == voters,
        }
    }
}

impl fmt::Display for WriteConcern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Regions(count) => write!(f, "regions={count}"),
            Self::Named(names) => {
                let names: Vec<&str> = names.iter().map(RegionName::as_str).collect();
                write!(f, "regions={}", names.join(","))
            }
            Self::Majority => f.write_str("majority"),
            Self::All => f.write_str("all"),
        }
    }
}

impl FromStr for WriteConcern {
    type Err = ConcernError;

    fn from_str(text: &str) -> Result<Self, ConcernError> {
        match text {
            "local" => return Ok(Self::Local),
            "majority" => return Ok(Self::Majority),
            "all" => return Ok(Self::All),
            _ => {}
        }
        let Some(wanted) = text.strip_prefix("regions=") else {
            return refuse(format!(
                "'{text}' is no write concern: write local, regions=2, regions=eu-west,us-east, \
                 majority or all"
            ));
        };
        if wanted.bytes().all(|byte| byte.is_ascii_digit()) && !wanted.is_empty() {
            return match wanted.parse() {
                Ok(count) if count > 0 => Ok(Self::Regions(count)),
                Ok(_) | Err(_) => refuse(format!("'{text}': ask for at least one region")),
            };
        }
        let mut names = BTreeSet::new();
        for name in wanted.split(',').map(str::trim) {
            let name: RegionName = name
                .parse()
                .map_err(|error| ConcernError(format!("'{text}': bad region '{name}': {error}")))?;
            if let Some(twice) = names.replace(name) {
                return refuse(format!("'{text}' names {twice} twice"));
            }
        }
        Ok(Self::Named(names))
    }
}

/// What a read has to reflect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadConcern {
    /// What is durable in the region that answers.
    #[default]
    Local,
    /// Besides, whatever was durable in a majority of the regions when the read began.
    Majority,
}

impl fmt::Display for ReadConcern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Majority => "majority",
        })
    }
}

impl FromStr for ReadConcern {
    type Err = ConcernError;

    fn from_str(text: &str) -> Result<Self, ConcernError> {
        match text {
            "local" => Ok(Self::Local),
            "majority" => Ok(Self::Majority),
            _ => refuse(format!("'{text}' is no read concern: write local or majority")),
        }
    }
}

/// A concern, and how long to wait for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asked<C> {
    /// The concern.
    pub concern: C,
    /// How long to wait for it, if the request says.
    pub timeout: Option<Duration>,
}

impl<C: fmt::Display> fmt::Display for Asked<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.concern)?;
        self.timeout.map_or(Ok(()), |timeout| write!(f, "; timeout={}ms", timeout.as_millis()))
    }
}

impl<C: FromStr<Err = ConcernError>> FromStr for Asked<C> {
    type Err = ConcernError;

    fn from_str(text: &str) -> Result<Self, ConcernError> {
        let mut parts = text.split(';').map(str::trim);
        let concern = parts.next().unwrap_or_default().parse()?;
        let mut timeout = None;
        for part in parts {
            let Some(value) = part.strip_prefix("timeout=") else {
                return refuse(format!(
                    "'{part}' is not known here: a concern takes one parameter, timeout=500ms"
                ));
            };
            if timeout.replace(parse_timeout(value)?).is_some() {
                return refuse("the timeout is given twice".to_owned());
            }
        }
        Ok(Self { concern, timeout })
    }
}

/// Reads a whole number with a unit: a bare number would leave open which is meant.
fn parse_timeout(text: &str) -> Result<Duration, ConcernError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).unwrap_or((text, ""));
    let factor: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "" if digits > 0 => {
            return refuse(format!("the timeout '{text}' has no unit: write {text}ms or {text}s"));
        }
        _ => return refuse(format!("'{text}' is no timeout: write 500ms, 5s or 1min")),
    };
    let millis = number.parse().ok().and_then(|number: u64| number.checked_mul(factor));
    match millis {
        Some(millis) if millis > 0 => Ok(Duration::from_millis(millis)),
        Some(_) => refuse("the timeout is at least 1ms".to_owned()),
        None => refuse(format!("'{text}' is no timeout: write 500ms, 5s or 1min")),
    }
}

/// A text that is no concern; the message says what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConcernError(String);

fn refuse<T>(message: String) -> Result<T, ConcernError> {
    Err(ConcernError(message))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::replication::MemberState;

    use super::*;

    fn view(regions: &[(&str, MemberState)]) -> ClusterView {
        let region = |(name, state): &(&str, MemberState)| RegionView {
            region: name.parse().unwrap(),
            state: *state,
            connected: true,
            origin: None,
            held: Arc::default(),
            as_of: None,
            current: None,
        };
        ClusterView { regions: regions.iter().map(region).collect() }
    }

    fn three() -> ClusterView {
        let active = MemberState::Active;
        view(&[("eu", active), ("us", active), ("ap", active), ("old", MemberState::Forgotten)])
    }

    /// Checks whether a concern is met when some regions have the write.
    fn check(concern: &str, having: &[&str], met: bool) {
        let concern: WriteConcern = concern.parse().unwrap();
        let has = |view: &RegionView| having.contains(&view.region.as_str());
        assert_eq!(concern.is_met(&three(), has), met, "{concern} with {having:?}");
    }

    #[test]
    fn a_concern_is_met_by_the_regions_that_count() {
        check("local", &["eu"], true);
        check("regions=1", &["eu"], true);
        check("regions=2", &["eu", "old"], false);
        check("regions=2", &["eu", "ap"], true);
        check("majority", &["eu"], false);
        check("majority", &["eu", "us"], true);
        check("all", &["eu", "us"], false);
        check("all", &["eu", "us", "ap"], true);
        check("regions=us", &["eu", "ap"], false);
        check("regions=us,eu", &["eu", "us"], true);
    }

    #[test]
    fn what_the_cluster_can_never_meet_is_refused() {
        let code = |concern: &str| {
            let concern: WriteConcern = concern.parse().unwrap();
            concern.check(&three()).err().map(|error| error.code())
        };
        assert_eq!(code("regions=3"), None);
        assert_eq!(code("regions=4"), Some("concern_out_of_reach"));
        assert_eq!(code("regions=eu,us"), None);
        assert_eq!(code("regions=mars"), Some("unknown_region"));
        assert_eq!(code("regions=old"), Some("unknown_region"));
    }

    #[test]
    fn concerns_are_written_as_they_are_read() {
        for text in ["local", "regions=2", "regions=ap,eu", "majority; timeout=500ms", "all"] {
            let asked: Asked<WriteConcern> = text.parse().unwrap();
            assert_eq!(asked.to_string(), text);
        }
        let asked: Asked<WriteConcern> = "majority;timeout=2s".parse().unwrap();
        assert_eq!(asked.timeout, Some(Duration::from_secs(2)));
        let asked: Asked<ReadConcern> = "majority ; timeout=1min".parse().unwrap();
        assert_eq!(asked.to_string(), "majority; timeout=60000ms");
    }

    #[test]
    fn anything_else_is_refused_with_what_to_write() {
        for (text, part) in [
            ("", "is no write concern"),
            ("Majority", "is no write concern"),
            ("regions=0", "at least one"),
            ("regions=", "bad region"),
            ("regions=eu,eu", "twice"),
            ("regions=eu,,us", "bad region"),
            ("regions=99999999999999999999999", "at least one"),
            ("majority; timeout=500", "no unit: write 500ms"),
            ("majority; timeout=0s", "at least 1ms"),
            ("majority; timeout=-1s", "is no timeout"),
            ("majority; timeout=1h", "is no timeout"),
            ("majority; timeout=", "is no timeout"),
            ("majority; timeout=1s; timeout=2s", "given twice"),
            ("majority; wait=1s", "not known here"),
            ("majority;", "not known here"),
        ] {
            let error = text.parse::<Asked<WriteConcern>>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!("all".parse::<Asked<ReadConcern>>().is_err());
    }
}
