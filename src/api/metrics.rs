//! `GET /metrics`: what the node counts, in the text format of Prometheus.
//!
//! Every figure is read from where it is kept when it is asked for; nothing is counted twice.

use std::fmt::{Display, Write};

use anabranch_crdt::clock::ClockOffset;
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;

use crate::document::{ClockStatus, JournalFigures};
use crate::replication::PeerStatus;
use crate::replication::reconcile::{ReconcileStatus, Totals};

use super::request::no_query;
use super::{Answer, ApiState};

/// `GET /metrics`.
pub(super) async fn metrics(state: ApiState, request: Request) -> Answer {
    no_query(request.uri().query())?;
    let peers = state.0.sources.peers.borrow().clone();
    let figures = Figures {
        region: state.0.region.as_str(),
        clock: state.0.sources.clock.status(),
        journal: state.documents().journal_figures(),
        ailing: [state.documents().damaged().len(), state.documents().quarantined().len()],
        peers: &peers,
        replicas: &state.0.sources.replicas.status(),
    };
    let mut response = Response::new(Body::from(figures.expose()));
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    Ok(response)
}

/// Every figure of a node at one moment.
struct Figures<'a> {
    region: &'a str,
    clock: ClockStatus,
    journal: JournalFigures,
    /// Documents that are damaged, and entries that cannot be applied.
    ailing: [usize; 2],
    peers: &'a [PeerStatus],
    replicas: &'a ReconcileStatus,
}

impl Figures<'_> {
    fn expose(&self) -> String {
        let mut text = Exposition(String::new());
        self.expose_clock(&mut text);
        self.expose_replication(&mut text);
        self.expose_replicas(&mut text);
        self.expose_journal(&mut text);
        text.family("anabranch_build_info", "gauge", "The release of this node; always 1.");
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("region", self.region)];
        text.sample("anabranch_build_info", &labels, 1);
        text.0
    }

    fn expose_clock(&self, text: &mut Exposition) {
        let measured = |peer: &PeerStatus| peer.clock.map(|clock| seconds(clock.offset));
        self.per_peer(
            text,
            "anabranch_clock_offset_seconds",
            "How far the wall clock of a region is ahead of this machine's.",
            measured,
        );
        self.per_peer(
            text,
            "anabranch_clock_round_trip_seconds",
            "The round trip over which that was measured; half of it is the error at most.",
            |peer| peer.clock.map(|clock| clock.round_trip.as_secs_f64()),
        );
        let name = "anabranch_clock_correction_seconds";
        text.family(name, "gauge", "By how much the wall clock is corrected; 0 while it is right.");
        text.sample(name, &[], seconds(self.clock.correction));
        let name = "anabranch_clock_clamped_changes_total";
        text.family(name, "counter", "Changes admitted here that claimed to be of the future.");
        text.sample(name, &[], self.clock.clamped);
        let name = "anabranch_clock_skew_warnings_total";
        text.family(name, "counter", "Warnings of a region's clock, one in ten minutes at most.");
        for peer in self.peers {
            let warnings = self.clock.warnings.get(&peer.region).copied().unwrap_or_default();
            text.sample(name, &[("peer_region", peer.region.as_str())], warnings);
        }
    }

    fn expose_journal(&self, text: &mut Exposition) {
        let JournalFigures { entries, bytes, dropped_entries, dropped_bytes, left_behind } =
            self.journal;
        let [damaged, quarantined] = self.ailing.map(|count| count as u64);
        let figures = [
            ("entries", "gauge", "Entries that a region can catch up by.", entries),
            ("bytes", "gauge", "Bytes of the changes in them.", bytes),
            (
                "dropped_entries_total",
                "counter",
                "Entries dropped since the start.",
                dropped_entries,
            ),
            ("dropped_bytes_total", "counter", "Bytes of their records.", dropped_bytes),
            (
                "regions_left_behind_total",
                "counter",
                "How often entries were dropped that a region lacked which was away.",
                left_behind,
            ),
            ("damaged_documents", "gauge", "Documents found damaged and not yet mended.", damaged),
            ("quarantined_entries", "gauge", "Entries that cannot be applied.", quarantined),
        ];
        for (name, kind, help, value) in figures {
            let name = format!("anabranch_journal_{name}");
            text.family(&name, kind, help);
            text.sample(&name, &[], value);
        }
    }

    fn expose_replication(&self, text: &mut Exposition) {
        self.per_peer(text, "anabranch_replication_connected", "1 while a link is up.", |peer| {
            Some(u8::from(peer.connected))
        });
        self.per_peer(
            text,
            "anabranch_replication_entries_behind",
            "Entries durable here that the region has not acknowledged.",
            |peer| Some(peer.entries_behind),
        );
        self.per_peer(
            text,
            "anabranch_replication_seconds_behind",
            "The age of the oldest such entry that this leader admitted.",
            |peer| Some(peer.seconds_behind),
        );
        self.per_peer(
            text,
            "anabranch_replication_entries_missing",
            "Entries that the region has, as far as known, and this node has not.",
            |peer| Some(peer.entries_missing),
        );
    }

    fn expose_replicas(&self, text: &mut Exposition) {
        let Totals { bootstraps, adopted, compared, verifications, broken, repaired, bytes } =
            self.replicas.totals;
        let totals = [
            ("bootstraps", "Bootstraps from another region that came to their end.", bootstraps),
            ("adopted_documents", "Documents taken over whole from other regions.", adopted),
            ("compared_documents", "Documents compared with another region's.", compared),
            ("verifications", "Comparisons of all documents with a region.", verifications),
            ("broken_documents", "Documents of which a replica was found broken.", broken),
            ("repaired_documents", "Documents found broken that are equal again.", repaired),
            ("bytes", "Bytes of frames that this took, in both directions.", bytes),
        ];
        for (name, help, value) in totals {
            let name = format!("anabranch_reconcile_{name}_total");
            text.family(&name, "counter", help);
            text.sample(&name, &[], value);
        }
        let bootstrap = self.replicas.bootstrap.as_ref();
        let gauges = [
            ("active", "1 while this region takes over what it lacks.", bootstrap.map(|_| 1.0)),
            ("progress_ratio", "How far it is, from 0 to 1.", bootstrap.map(|b| b.progress)),
            (
                "eta_seconds",
                "How long it will take from now on.",
                bootstrap.and_then(|bootstrap| bootstrap.eta_seconds),
            ),
        ];
        for (name, help, value) in gauges {
            let name = format!("anabranch_bootstrap_{name}");
            text.family(&name, "gauge", help);
            text.sample(&name, &[], value.unwrap_or_default());
        }
    }

    /// Adds a gauge with one sample for each peer that has it.
    fn per_peer<T: Display>(
        &self,
        text: &mut Exposition,
        name: &str,
        help: &str,
        value: impl Fn(&PeerStatus) -> Option<T>,
    ) {
        text.family(name, "gauge", help);
        for peer in self.peers {
            if let Some(value) = value(peer) {
                text.sample(name, &[("peer_region", peer.region.as_str())], value);
            }
        }
    }
}

/// Text in the exposition format 0.0.4. Label values are region names and versions, which hold
/// nothing that would have to be escaped.
struct Exposition(String);

impl Exposition {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        match labels.is_empty() {
            true => self.line(format_args!("{name} {value}")),
            false => self.line(format_args!("{name}{{{}}} {value}", labels.join(","))),
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("text is written to memory");
    }
}

fn seconds(offset: ClockOffset) -> f64 {
    offset.0 as f64 / 1e6
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anabranch_crdt::clock::MeasuredClock;

    use super::*;

    const MEASURED: MeasuredClock =
        MeasuredClock { offset: ClockOffset(-1_500_000), round_trip: Duration::from_millis(80) };

    const JOURNAL: JournalFigures = JournalFigures {
        entries: 10,
        bytes: 11,
        dropped_entries: 12,
        dropped_bytes: 13,
        left_behind: 14,
    };

    const OF_REPLICAS: [&str; 10] = [
        "anabranch_reconcile_bootstraps_total 0",
        "anabranch_reconcile_adopted_documents_total 5",
        "anabranch_reconcile_compared_documents_total 0",
        "anabranch_reconcile_verifications_total 0",
        "anabranch_reconcile_broken_documents_total 2",
        "anabranch_reconcile_repaired_documents_total 0",
        "anabranch_reconcile_bytes_total 0",
        "anabranch_bootstrap_active 0",
        "anabranch_bootstrap_progress_ratio 0",
        "anabranch_bootstrap_eta_seconds 0",
    ];

    #[test]
    fn figures_are_exposed_with_help_and_type() {
        let peer = PeerStatus {
            region: "ap-south".parse().unwrap(),
            connected: true,
            entries_behind: 12,
            seconds_behind: 1.5,
            entries_missing: 3,
            last_error: None,
            clock: Some(MEASURED),
        };
        let silent = PeerStatus {
            region: "us-east".parse().unwrap(),
            connected: false,
            clock: None,
            ..peer.clone()
        };
        let clock = ClockStatus {
            correction: ClockOffset(-2_000_000),
            clamped: 7,
            warnings: [(peer.region.clone(), 4)].into(),
        };
        let replicas = &ReconcileStatus {
            totals: Totals { adopted: 5, broken: 2, ..Totals::default() },
            ..ReconcileStatus::default()
        };
        let (ailing, peers) = ([15, 16], &[peer, silent]);
        let region = "eu-west";
        let figures = Figures { region, clock, journal: JOURNAL, ailing, peers, replicas };
        let text = figures.expose();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let (replicas, samples): (Vec<&str>, Vec<&str>) =
            samples.partition(|line| OF_REPLICAS.contains(line));
        assert_eq!(replicas, OF_REPLICAS);
        let build = format!(
            "anabranch_build_info{{version=\"{}\",region=\"eu-west\"}} 1",
            env!("CARGO_PKG_VERSION")
        );
        let expected = [
            "anabranch_clock_offset_seconds{peer_region=\"ap-south\"} -1.5",
            "anabranch_clock_round_trip_seconds{peer_region=\"ap-south\"} 0.08",
            "anabranch_clock_correction_seconds -2",
            "anabranch_clock_clamped_changes_total 7",
            "anabranch_clock_skew_warnings_total{peer_region=\"ap-south\"} 4",
            "anabranch_clock_skew_warnings_total{peer_region=\"us-east\"} 0",
            "anabranch_replication_connected{peer_region=\"ap-south\"} 1",
            "anabranch_replication_connected{peer_region=\"us-east\"} 0",
            "anabranch_replication_entries_behind{peer_region=\"ap-south\"} 12",
            "anabranch_replication_entries_behind{peer_region=\"us-east\"} 12",
            "anabranch_replication_seconds_behind{peer_region=\"ap-south\"} 1.5",
            "anabranch_replication_seconds_behind{peer_region=\"us-east\"} 1.5",
            "anabranch_replication_entries_missing{peer_region=\"ap-south\"} 3",
            "anabranch_replication_entries_missing{peer_region=\"us-east\"} 3",
            "anabranch_journal_entries 10",
            "anabranch_journal_bytes 11",
            "anabranch_journal_dropped_entries_total 12",
            "anabranch_journal_dropped_bytes_total 13",
            "anabranch_journal_regions_left_behind_total 14",
            "anabranch_journal_damaged_documents 15",
            "anabranch_journal_quarantined_entries 16",
            &build,
        ];
        assert_eq!(samples, expected);
        for sample in samples {
            let name = sample.split(['{', ' ']).next().unwrap();
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        }
    }
}
