//! Who is warned of wrong clocks, and how often.

use std::collections::BTreeMap;
use std::time::Duration;

use anabranch_crdt::clock::{ClockOffset, MeasuredClock};
use anabranch_crdt::ids::RegionName;
use tracing::{info, warn};

/// What was said about clocks.
#[derive(Debug)]
pub(super) struct Watch {
    skew: u64,
    own: Said,
    peers: BTreeMap<RegionName, Said>,
}

/// What was said about one clock.
#[derive(Debug, Default)]
struct Said {
    wrong: bool,
    warned_at: Option<Duration>,
    warnings: u64,
}

impl Watch {
    pub(super) fn new(skew: u64) -> Self {
        Self { skew, own: Said::default(), peers: BTreeMap::new() }
    }

    /// Warns of clocks that are wrong, given by how much the own one is corrected.
    pub(super) fn look(
        &mut self,
        correction: ClockOffset,
        known: &[(&RegionName, MeasuredClock)],
        now: Duration,
    ) {
        self.look_at_own(correction, now);
        for (region, clock) in known {
            let ahead = clock.offset.0.saturating_sub(correction.0);
            let error = u64::try_from(clock.round_trip.as_micros() / 2).unwrap_or(u64::MAX);
            let wrong = ahead.unsigned_abs().saturating_sub(error) > self.skew;
            let said = self.peers.entry((*region).clone()).or_default();
            match said.next(wrong, now) {
                News::None => {}
                News::Right => info!(%region, "a region's clock agrees with the others again"),
                News::Wrong => warn!(
                    %region,
                    seconds_ahead = seconds(ahead),
                    "a region's clock is wrong: set it right there, and see that NTP runs"
                ),
            }
        }
    }

    fn look_at_own(&mut self, correction: ClockOffset, now: Duration) {
        match self.own.next(correction != ClockOffset::default(), now) {
            News::None => {}
            News::Right => info!("this machine's clock agrees with the other regions again"),
            News::Wrong => warn!(
                seconds_ahead = seconds(correction.0.saturating_neg()),
                "THE CLOCK OF THIS MACHINE IS WRONG by what the other regions' clocks show. \
                 Timestamps are corrected until it is set right: see that NTP runs \
                 (`timedatectl`, `chronyc tracking`)"
            ),
        }
    }

    /// Counts the warnings by region.
    pub(super) fn warnings(&self) -> BTreeMap<RegionName, u64> {
        self.peers.iter().map(|(region, said)| (region.clone(), said.warnings)).collect()
    }
}

/// What is to be said.
#[derive(Debug, PartialEq, Eq)]
enum News {
    None,
    Right,
    Wrong,
}

impl Said {
    fn next(&mut self, wrong: bool, now: Duration) -> News {
        let before = std::mem::replace(&mut self.wrong, wrong);
        let due = self.warned_at.is_none_or(|at| now >= at + REPEAT);
        if wrong && due {
            self.warned_at = Some(now);
            self.warnings += 1;
            return News::Wrong;
        }
        if before && !wrong { News::Right } else { News::None }
    }
}

fn seconds(micros: i64) -> f64 {
    Duration::from_micros(micros.unsigned_abs()).as_secs_f64() * if micros < 0 { -1.0 } else { 1.0 }
}

/// A clock that stays wrong, or is wrong now and then, is warned of so often.
const REPEAT: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_comes_at_once_and_is_repeated_every_ten_minutes() {
        let mut said = Said::default();
        let at = Duration::from_secs;
        assert_eq!(said.next(false, at(1)), News::None);
        assert_eq!(said.next(true, at(2)), News::Wrong);
        assert_eq!(said.next(true, at(3)), News::None);
        assert_eq!(said.next(false, at(4)), News::Right);
        assert_eq!(said.next(true, at(5)), News::None, "it flaps");
        assert_eq!(said.next(true, at(602)), News::Wrong);
        assert_eq!(said.warnings, 2);
    }

    #[test]
    fn a_peer_is_wrong_by_more_than_the_skew_from_the_corrected_clock() {
        let mut watch = Watch::new(1_000_000);
        let (near, far): (RegionName, RegionName) =
            ("near".parse().unwrap(), "far".parse().unwrap());
        let clock = |offset| MeasuredClock {
            offset: ClockOffset(offset),
            round_trip: Duration::from_millis(200),
        };
        let known = [(&near, clock(-60_900_000)), (&far, clock(500_000))];
        watch.look(ClockOffset(-60_000_000), &known, Duration::ZERO);
        assert_eq!((watch.warnings()[&near], watch.warnings()[&far]), (0, 1));
        assert_eq!(watch.own.warnings, 1);
    }
}
