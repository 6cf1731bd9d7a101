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
}

impl Figures<'_> {
    fn expose(&self) -> String {
        let mut text = Exposition(String::new());
        self.expose_clock(&mut text);
        self.expose_replication(&mut text);
        self.expose_traffic(&mut text);
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

    fn expose_traffic(&self, text: &mut Exposition) {
        let name = "anabranch_link_waiting_bytes";
        text.family(name, "gauge", "Bytes that wait to go to a region: fresh ones go first.");
        for peer in self.peers {
            let region = ("peer_region", peer.region.as_str());
            text.sample(name, &[region, ("lane", "fresh")], peer.traffic.fresh_waiting);
            text.sample(name, &[region, ("lane", "bulk")], peer.traffic.bulk_waiting);
        }
        self.per_peer(
            text,
            "anabranch_link_round_trip_seconds",
            "The round trip of the connection to a region.",
            |peer| peer.traffic.round_trip.map(|time| time.as_secs_f64()),
        );
        let name = "anabranch_link_throttled_seconds_total";
        text.family(name, "counter", "How long frames to a region waited for its bandwidth cap.");
        for peer in self.peers {
            let throttled = peer.traffic.throttled.as_secs_f64();
            text.sample(name, &[("peer_region", peer.region.as_str())], throttled);
        }
        self.expose_bytes(
            text,
            ("anabranch_link_bytes_total", "Bytes of frames, as they travelled."),
            |peer| (peer.traffic.sent, peer.traffic.received),
        );
        self.expose_bytes(
            text,
            ("anabranch_link_unpacked_bytes_total", "Bytes of the same frames, not compressed."),
            |peer| (peer.traffic.sent_unpacked, peer.traffic.received_unpacked),
        );
    }

    /// Adds a counter of bytes sent to and received from each peer.
    fn expose_bytes(
        &self,
        text: &mut Exposition,
        (name, help): (&str, &str),
        bytes: impl Fn(&PeerStatus) -> (u64, u64),
    ) {
        text.family(name, "counter", help);
        for peer in self.peers {
            let (region, (sent, received)) = (("peer_region", peer.region.as_str()), bytes(peer));
            text.sample(name, &[region, ("direction", "sent")], sent);
            text.sample(name, &[region, ("direction", "received")], received);
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
    use crate::replication::Traffic;

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
            traffic: Traffic::default(),
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
        let figures = Figures { region: "eu-west", clock, peers: &[peer, silent] };
        let text = figures.expose();
        let samples: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter(|line| !line.starts_with("anabranch_link_"))
            .collect();
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
            &build,
        ];
        assert_eq!(samples, expected);
        for sample in samples {
            let name = sample.split(['{', ' ']).next().unwrap();
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        }
    }

    #[test]
    fn what_links_carry_is_exposed_by_region_lane_and_direction() {
        let traffic = Traffic {
            bulk_waiting: 5_000_000,
            throttled: Duration::from_millis(2_500),
            sent: 40,
            sent_unpacked: 90,
            ..Traffic::default()
        };
        let peer = PeerStatus {
            region: "ap-south".parse().unwrap(),
            connected: true,
            entries_behind: 0,
            seconds_behind: 0.0,
            entries_missing: 0,
            last_error: None,
            clock: None,
            traffic,
        };
        let clock = ClockStatus { correction: ClockOffset(0), clamped: 0, warnings: [].into() };
        let text = Figures { region: "eu-west", clock, peers: &[peer] }.expose();
        let samples: Vec<&str> =
            text.lines().filter(|line| line.starts_with("anabranch_link_")).collect();
        let expected = [
            "anabranch_link_waiting_bytes{peer_region=\"ap-south\",lane=\"fresh\"} 0",
            "anabranch_link_waiting_bytes{peer_region=\"ap-south\",lane=\"bulk\"} 5000000",
            "anabranch_link_throttled_seconds_total{peer_region=\"ap-south\"} 2.5",
            "anabranch_link_bytes_total{peer_region=\"ap-south\",direction=\"sent\"} 40",
            "anabranch_link_bytes_total{peer_region=\"ap-south\",direction=\"received\"} 0",
            "anabranch_link_unpacked_bytes_total{peer_region=\"ap-south\",direction=\"sent\"} 90",
            "anabranch_link_unpacked_bytes_total{peer_region=\"ap-south\",direction=\"received\"} 0",
        ];
        assert_eq!(samples, expected);
    }
}
