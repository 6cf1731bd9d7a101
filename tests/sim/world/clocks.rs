//! What nodes find out of each other's clocks, against the truth.

use std::time::Duration;

use anabranch::replication::PeerStatus;
use anabranch_crdt::clock::{ClockOffset, Verdict, judge};

use super::{ALLOWED_SKEW, World};
use crate::plan::Topology;

impl World {
    /// Tells whether a node knows a peer's clock as well as it must: to half the round trip.
    pub(super) fn is_measured_rightly(&self, node: usize, other: usize, peer: &PeerStatus) -> bool {
        peer.clock.is_some_and(|clock| {
            let truth = self.skews[other] - self.skews[node];
            let error = clock.round_trip / 2 + Duration::from_micros(2);
            u128::from(clock.offset.0.abs_diff(truth)) <= error.as_micros()
        })
    }

    /// Checks that nodes which have all heard each other go by one time, however wrong their wall
    /// clocks are.
    pub(super) fn judge_clocks(&self) {
        if self.plan.topology != Topology::Mesh || self.absent.is_some() {
            return;
        }
        let judged: Vec<(i64, Duration)> = (0..self.plan.nodes).map(|n| self.time_of(n)).collect();
        let times = || judged.iter().map(|(time, _)| time);
        let apart = times().max().unwrap().abs_diff(*times().min().unwrap());
        let slowest = judged.iter().map(|(_, round_trip)| *round_trip).max().unwrap();
        let allowed = u128::from(ALLOWED_SKEW) + slowest.as_micros();
        assert!(u128::from(apart) <= allowed, "{judged:?} of {:?}", self.skews);
    }

    /// Returns how far the corrected clock of a node is ahead of the truth, and the longest round
    /// trip over which it was judged.
    fn time_of(&self, node: usize) -> (i64, Duration) {
        let process = self.processes[node].as_ref().unwrap();
        let clocks = process.replication.status(self.clocks(node)).into_iter().map(|p| p.clock);
        let clocks: Vec<_> = clocks.map(|clock| clock.unwrap()).collect();
        let offsets: Vec<ClockOffset> = clocks.iter().map(|clock| clock.offset).collect();
        let longest = clocks.iter().map(|clock| clock.round_trip).max().unwrap();
        let verdict = judge(ClockOffset::default(), &offsets, self.plan.nodes, ALLOWED_SKEW);
        let time = match verdict {
            Verdict::Undecided => panic!("{node} has heard everybody"),
            Verdict::Believed => self.skews[node],
            Verdict::Corrected(by) => self.skews[node] + by.0,
        };
        (time, longest)
    }
}
