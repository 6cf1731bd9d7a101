//! The verdict on a node's own wall clock, by what it knows of the clocks of the other regions.
//!
//! The time of a cluster is the lower median of its regions' wall clocks: the one in the middle,
//! or the slower one of the two in the middle. A node whose wall clock is further from it than
//! the allowed skew corrects what it reads, and any other node believes its own clock.
//!
//! - With three regions, one that is ten years off in either direction follows the two others,
//!   and these never follow it. The same holds for every minority of a larger cluster.
//! - With two regions that disagree nobody can tell who is right. The faster one follows the
//!   slower one, because a fast clock does lasting harm: its writes would win every collision
//!   with what was written before it was set right. A clock that is slow for both shifts the
//!   timestamps of both alike, and collisions between them are still won by what was later.
//! - Clocks that were not heard yet could show anything, so a verdict is given only where it holds
//!   whatever they show. A region that has heard one of its two peers moves for nobody.
//!
//! A correction shifts timestamps and nothing else: which entries exist, what they hold and what
//! they depend on is the same with any clock.

use super::ClockOffset;

/// What to think of the own wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Too few clocks are known to tell: everything stays as it is.
    Undecided,
    /// The own clock agrees with the cluster's.
    Believed,
    /// The cluster's clock is so much ahead of the own one.
    Corrected(ClockOffset),
}

/// Judges the own wall clock.
///
/// `known` says how far the wall clocks of other regions are ahead of the own one, for those that
/// were heard, out of `regions` with the own one; `skew` is how far it may be off, in
/// microseconds. A clock that is being corrected (by `before`) is believed again when it is off by
/// half of that, so that one on the edge is not corrected off and on.
#[must_use]
pub fn judge(before: ClockOffset, known: &[ClockOffset], regions: usize, skew: u64) -> Verdict {
    if known.is_empty() {
        return Verdict::Undecided;
    }
    let mut clocks = known.to_vec();
    clocks.push(ClockOffset::default());
    clocks.sort_unstable();
    let skew = i64::try_from(skew).unwrap_or(i64::MAX);
    let allowed = if before == ClockOffset::default() { skew } else { skew / 2 };
    let regions = regions.max(clocks.len());
    let unheard = regions - clocks.len();
    let middle = (regions - 1) / 2;
    // Where the middle is if all that were not heard are fast, and if all of them are slow.
    let highest = clocks.get(middle).copied();
    let lowest = middle.checked_sub(unheard).and_then(|index| clocks.get(index)).copied();
    match (lowest, highest) {
        (_, Some(highest)) if highest.0 < -allowed => Verdict::Corrected(highest),
        (Some(lowest), _) if lowest.0 > allowed => Verdict::Corrected(lowest),
        (Some(lowest), Some(highest)) if lowest.0 >= -allowed && highest.0 <= allowed => {
            Verdict::Believed
        }
        (_, _) => Verdict::Undecided,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, subsequence};

    use super::*;

    const TEN_YEARS: i64 = 10 * 365 * 86_400 * 1_000_000;
    const SKEW: u64 = 1_000_000;

    fn verdict(known: &[i64], regions: usize) -> Verdict {
        let known: Vec<_> = known.iter().copied().map(ClockOffset).collect();
        judge(ClockOffset::default(), &known, regions, SKEW)
    }

    fn corrected(by: i64) -> Verdict {
        Verdict::Corrected(ClockOffset(by))
    }

    #[test]
    fn one_of_three_follows_the_two_others_in_either_direction() {
        assert_eq!(verdict(&[-TEN_YEARS, 20 - TEN_YEARS], 3), corrected(20 - TEN_YEARS));
        assert_eq!(verdict(&[TEN_YEARS, 20 + TEN_YEARS], 3), corrected(TEN_YEARS));
        assert_eq!(verdict(&[20, TEN_YEARS], 3), Verdict::Believed);
        assert_eq!(verdict(&[20, -TEN_YEARS], 3), Verdict::Believed);
    }

    #[test]
    fn the_faster_one_of_two_follows_the_slower_one() {
        assert_eq!(verdict(&[-TEN_YEARS], 2), corrected(-TEN_YEARS));
        assert_eq!(verdict(&[TEN_YEARS], 2), Verdict::Believed);
    }

    #[test]
    fn one_of_three_that_has_heard_one_other_moves_for_nobody() {
        assert_eq!(verdict(&[-TEN_YEARS], 3), Verdict::Undecided);
        assert_eq!(verdict(&[TEN_YEARS], 3), Verdict::Undecided);
        assert_eq!(verdict(&[20], 3), Verdict::Believed);
    }

    #[test]
    fn a_region_alone_is_not_judged() {
        assert_eq!(verdict(&[], 1), Verdict::Undecided);
        assert_eq!(verdict(&[], 3), Verdict::Undecided);
    }

    #[test]
    fn three_that_all_differ_meet_in_the_middle() {
        let ten_seconds = 10_000_000;
        assert_eq!(verdict(&[ten_seconds, 2 * ten_seconds], 3), corrected(ten_seconds));
        assert_eq!(verdict(&[-ten_seconds, ten_seconds], 3), Verdict::Believed);
        assert_eq!(verdict(&[-ten_seconds, -2 * ten_seconds], 3), corrected(-ten_seconds));
    }

    #[test]
    fn a_corrected_clock_is_believed_again_only_when_it_is_well_within_the_skew() {
        let known = [ClockOffset(-800_000), ClockOffset(-700_000)];
        assert_eq!(judge(ClockOffset::default(), &known, 3, SKEW), Verdict::Believed);
        assert_eq!(judge(ClockOffset(-2_000_000), &known, 3, SKEW), corrected(-700_000));
        let known = [ClockOffset(-400_000), ClockOffset(-300_000)];
        assert_eq!(judge(ClockOffset(-2_000_000), &known, 3, SKEW), Verdict::Believed);
    }

    /// A majority of clocks within the skew of each other, and the others anywhere.
    fn cluster() -> impl Strategy<Value = (Vec<i64>, Vec<i64>)> {
        (0_usize..4).prop_flat_map(|ill| {
            let healthy = vec(0..=SKEW as i64, ill + 2..ill + 4);
            (healthy, vec(-TEN_YEARS..=TEN_YEARS, ill))
        })
    }

    fn seen_from(own: i64, clocks: &[i64]) -> Vec<i64> {
        clocks.iter().map(|clock| clock - own).collect()
    }

    proptest! {
        #[test]
        fn a_healthy_majority_follows_nobody_whomever_it_has_heard(
            (healthy, ill) in cluster(),
            own in any::<Index>(),
            heard in any::<proptest::sample::Selector>(),
            most in any::<Index>(),
        ) {
            let mut others = healthy.clone();
            let own = others.swap_remove(own.index(others.len()));
            others.extend(&ill);
            let regions = others.len() + 1;
            let offsets = seen_from(own, &others);
            let mut known: Vec<i64> = Vec::new();
            for _ in 0..most.index(offsets.len() + 1) {
                let left: Vec<i64> =
                    offsets.iter().filter(|o| !known.contains(o)).copied().collect();
                known.extend(heard.try_select(&left));
            }
            let verdict = verdict(&known, regions);
            prop_assert!(!matches!(verdict, Verdict::Corrected(_)), "{:?}", verdict);
        }

        #[test]
        fn whoever_has_heard_everybody_shows_the_time_of_the_healthy_majority(
            (healthy, ill) in cluster(),
            own in any::<Index>(),
        ) {
            let mut others = healthy.clone();
            others.extend(&ill);
            let own = others.swap_remove(own.index(others.len()));
            let time = match verdict(&seen_from(own, &others), others.len() + 1) {
                Verdict::Undecided => return Err(TestCaseError::fail("it has heard everybody")),
                Verdict::Believed => own,
                Verdict::Corrected(by) => own + by.0,
            };
            // The healthy ones show 0 to the skew, and who is within the skew of them is believed.
            prop_assert!(time <= 2 * SKEW as i64 && time >= -(SKEW as i64));
        }

        #[test]
        fn a_clock_more_never_turns_a_verdict_around(
            clocks in vec(-4 * SKEW as i64..4 * SKEW as i64, 2..7),
            regions in 7_usize..9,
        ) {
            let (last, fewer) = clocks.split_last().unwrap();
            let before = verdict(fewer, regions);
            let mut more = fewer.to_vec();
            more.push(*last);
            let after = verdict(&more, regions);
            let direction = |verdict| match verdict {
                Verdict::Corrected(by) => Some(by.0.signum()),
                Verdict::Believed => Some(0),
                Verdict::Undecided => None,
            };
            if let Some(before) = direction(before) {
                prop_assert_eq!(direction(after), Some(before));
            }
        }

        #[test]
        fn the_order_in_which_clocks_are_told_changes_nothing(
            clocks in vec(-TEN_YEARS..TEN_YEARS, 1..7),
            sub in subsequence((0..7_usize).collect::<Vec<_>>(), 0..7),
        ) {
            let mut turned = clocks.clone();
            turned.rotate_left(sub.len() % clocks.len());
            prop_assert_eq!(verdict(&clocks, 7), verdict(&turned, 7));
        }
    }
}
