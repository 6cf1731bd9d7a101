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

use crate::document::ClockStatus;
use crate::journal::EpochCounts;
use crate::replication::PeerStatus;

use super::request::no_query;
use super::{Answer, ApiState};

/// `GET /metrics`.
pub(super) async fn metrics(state: ApiState, request: Request) -> Answer {
    no_query(request.uri().query())?;
    let peers = state.0.sources.peers.borrow().clone();
    let figures = Figures {
        region: state.0.region.as_str(),
        clock: state.0.sources.clock.status(),
        peers: &peers,
        epochs: state.documents().epoch_counts()?,
    };
    let mut response = Response::new(Body::from(figures.expose()));
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    Ok(response)
}

/// Every figure of a node at one moment.
struct Figures<'a> {
    region: &'a str,
    clock: ClockStatus,
    peers: &'a [PeerStatus],
    epochs: EpochCounts,
}

impl Figures<'_> {
    fn expose(&self) -> String {
        let mut text = Exposition(String::new());
        self.expose_clock(&mut text);
        self.expose_replication(&mut text);
        self.expose_epochs(&mut text);
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

    fn expose_epochs(&self, text: &mut Exposition) {
        let EpochCounts { compacted, purged, emptied, late, set_aside } = self.epochs;
        let name = "anabranch_epochs_closed";
        text.family(name, "gauge", "Epochs of documents that are closed, by how.");
        for (kind, count) in [("compact", compacted), ("purge", purged)] {
            text.sample(name, &[("kind", kind)], count);
        }
        let name = "anabranch_purged_documents_dropped";
        text.family(name, "gauge", "Purged documents of which only the purge itself is left.");
        text.sample(name, &[], emptied);
        let name = "anabranch_late_changes_left";
        text.family(name, "gauge", "Changes that came for a closed epoch and are merged nowhere.");
        text.sample(name, &[], late);
        let name = "anabranch_quarantined_entries";
        text.family(
            name,
            "gauge",
            "Entries that were set aside, because their document is purged.",
        );
        text.sample(name, &[], set_aside);
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

    #[test]
    fn figures_are_exposed_with_help_and_type() {
        let measured = MeasuredClock {
            offset: ClockOffset(-1_500_000),
            round_trip: Duration::from_millis(80),
        };
        let peer = PeerStatus {
            region: "ap-south".parse().unwrap(),
            connected: true,
            entries_behind: 12,
            seconds_behind: 1.5,
            entries_missing: 3,
            last_error: None,
            clock: Some(measured),
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
        let epochs = EpochCounts { compacted: 3, purged: 5, emptied: 4, late: 2, set_aside: 1 };
        let figures = Figures { region: "eu-west", clock, peers: &[peer, silent], epochs };
        let text = figures.expose();
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
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
            "anabranch_epochs_closed{kind=\"compact\"} 3",
            "anabranch_epochs_closed{kind=\"purge\"} 5",
            "anabranch_purged_documents_dropped 4",
            "anabranch_late_changes_left 2",
            "anabranch_quarantined_entries 1",
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
