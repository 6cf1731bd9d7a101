//! What an operator sees of reconciliation.

use std::time::Duration;

use anabranch_crdt::ids::RegionName;

use super::interface::{BootstrapStatus, ReconcileStatus, RequestId, VerifyReport, VerifyState};
use super::run::{Purpose, Run};
use super::{Reconcile, Request};
use crate::replication::{Now, Replication};

impl Replication {
    /// Returns what is known of the equality of this node's replicas.
    #[must_use]
    pub fn reconciliation(&self, now: Now) -> ReconcileStatus {
        let own = &self.reconcile;
        let run = own.run.as_ref();
        let running = run.filter(|run| !run.is_bootstrap() && run.whole);
        let running = running.map(|run| run.report(VerifyState::Running, now.monotonic));
        let waiting = own.requests.iter().map(|Request { id, region, .. }| {
            empty(Some(*id), region.clone(), VerifyState::Waiting)
        });
        let reports = own.reports.iter().cloned().chain(running).chain(waiting);
        ReconcileStatus {
            bootstrap: self.bootstrap_status(now.monotonic),
            last_bootstrap: own.last_bootstrap.clone(),
            reports: reports.collect(),
            broken: own.broken.iter().cloned().collect(),
            totals: own.totals,
        }
    }

    fn bootstrap_status(&self, now: Duration) -> Option<BootstrapStatus> {
        let own = &self.reconcile;
        let mut status = match own.run.as_ref().filter(|run| run.is_bootstrap()) {
            Some(run) => run.bootstrap_status(now),
            None => BootstrapStatus {
                source: None,
                finished: false,
                compared: 0,
                adopted: 0,
                bytes: 0,
                seconds: now.saturating_sub(own.blocked?).as_secs_f64(),
                progress: own
                    .resume
                    .as_ref()
                    .map_or(0.0, |(at, _)| super::range::share_before(*at)),
                eta_seconds: None,
                last_error: None,
            },
        };
        status.last_error.clone_from(&own.last_error);
        Some(status)
    }
}

impl Run {
    pub(super) fn bootstrap_status(&self, now: Duration) -> BootstrapStatus {
        let (seconds, progress) = (now.saturating_sub(self.began).as_secs_f64(), self.progress());
        let eta_seconds =
            (progress > LEAST_PROGRESS).then(|| seconds * (1.0 - progress) / progress);
        BootstrapStatus {
            source: Some(self.region.clone()),
            finished: false,
            compared: self.figures.compared,
            adopted: self.figures.adopted,
            bytes: self.figures.bytes,
            seconds,
            progress,
            eta_seconds,
            last_error: None,
        }
    }

    fn report(&self, state: VerifyState, now: Duration) -> VerifyReport {
        let request = match self.purpose {
            Purpose::Verify { request, .. } => request,
            Purpose::Bootstrap { .. } => None,
        };
        VerifyReport {
            request,
            region: self.region.clone(),
            state,
            compared: self.figures.compared,
            equal: self.figures.equal,
            in_flight: self.figures.in_flight,
            broken: self.figures.broken,
            repaired: self.figures.repaired,
            bytes: self.figures.bytes,
            seconds: now.saturating_sub(self.began).as_secs_f64(),
            progress: self.progress(),
        }
    }
}

impl Reconcile {
    /// Adds what a run has counted to what this process has.
    pub(super) fn count(&mut self, run: &Run) {
        self.totals.adopted += run.figures.adopted;
        self.totals.compared += run.figures.compared;
        self.totals.bytes += run.figures.bytes;
    }

    pub(super) fn report(&mut self, run: &Run, state: VerifyState, now: Duration) {
        if !run.whole {
            return;
        }
        self.totals.verifications += u64::from(state == VerifyState::Done);
        self.keep(run.report(state, now));
    }

    /// Reports a comparison that could not begin.
    pub(super) fn report_early(
        &mut self,
        request: Option<RequestId>,
        region: RegionName,
        reason: String,
    ) {
        self.keep(empty(request, region, VerifyState::Failed(reason)));
    }

    fn keep(&mut self, report: VerifyReport) {
        if self.reports.len() >= MAX_REPORTS {
            self.reports.pop_front();
        }
        self.reports.push_back(report);
    }
}

fn empty(request: Option<RequestId>, region: RegionName, state: VerifyState) -> VerifyReport {
    VerifyReport {
        request,
        region,
        state,
        compared: 0,
        equal: 0,
        in_flight: 0,
        broken: 0,
        repaired: 0,
        bytes: 0,
        seconds: 0.0,
        progress: 0.0,
    }
}

/// Reports that are kept: some rounds with every region of a large cluster.
const MAX_REPORTS: usize = 128;

/// How far something must be before its end can be guessed.
const LEAST_PROGRESS: f64 = 0.001;
