//! `GET /metrics`: what the node counts, in the text format of Prometheus.
//!
//! Every figure is read from where it is kept when it is asked for; nothing is counted twice.

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering;

use anabranch_crdt::clock::ClockOffset;
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;

use crate::consistency::Lag;
use crate::document::{ClockStatus, JournalFigures, OriginStatus};
use crate::journal::EpochCounts;
use crate::replication::reconcile::{ReconcileStatus, Totals};
use crate::replication::{EntryBytes, PeerStatus};

use super::request::no_query;
use super::{Answer, ApiState};

/// `GET /metrics`.
pub(super) async fn metrics(state: ApiState, request: Request) -> Answer {
    no_query(request.uri().query())?;
    let peers = state.0.sources.peers.borrow().clone();
    let figures = Figures {
        region: state.0.region.as_str(),
        clock: state.0.sources.clock.status(),
        origin: state.documents().origin_status(),
        consistency: Concerns::of(&state),
        journal: state.documents().journal_figures(),
        ailing: [state.documents().damaged().len(), state.documents().quarantined().len()],
        peers: &peers,
        replicas: &state.0.sources.replicas.status(),
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
    origin: OriginStatus,
    consistency: Concerns,
    journal: JournalFigures,
    /// Documents that are damaged, and entries that cannot be applied.
    ailing: [usize; 2],
    peers: &'a [PeerStatus],
    replicas: &'a ReconcileStatus,
    epochs: EpochCounts,
}

/// What requests asked of other regions, and whether they got it.
#[derive(Debug, Default)]
struct Concerns {
    writes_met: u64,
    writes_unmet: u64,
    reads_met: u64,
    reads_unmet: u64,
    /// `None` while some region was never heard.
    lag: Option<f64>,
}

impl Concerns {
    fn of(state: &ApiState) -> Self {
        let counts = state.consistency().counts();
        Self {
            writes_met: counts.writes_met.load(Ordering::Relaxed),
            writes_unmet: counts.writes_unmet.load(Ordering::Relaxed),
            reads_met: counts.reads_met.load(Ordering::Relaxed),
            reads_unmet: counts.reads_unmet.load(Ordering::Relaxed),
            lag: match state.consistency().lag() {
                Lag::Known(lag) => Some(lag.as_secs_f64()),
                Lag::Unknown => None,
            },
        }
    }
}

impl Figures<'_> {
    fn expose(&self) -> String {
        let mut text = Exposition(String::new());
        self.expose_clock(&mut text);
        self.expose_replication(&mut text);
        self.expose_consistency(&mut text);
        self.expose_origin(&mut text);
        self.expose_replicas(&mut text);
        self.expose_journal(&mut text);
        self.expose_links(&mut text);
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
        self.expose_traffic(text);
    }

    fn expose_traffic(&self, text: &mut Exposition) {
        let counters: [Counter; 3] = [
            (
                "anabranch_replication_entry_bytes_sent_total",
                "Bytes of entries sent to the region.",
                |traffic| traffic.entry_bytes_sent,
            ),
            (
                "anabranch_replication_entry_bytes_received_total",
                "Bytes of entries that came from the region.",
                |traffic| traffic.entry_bytes_received,
            ),
            (
                "anabranch_replication_duplicate_bytes_received_total",
                "Those of them that were here already.",
                |traffic| traffic.duplicate_bytes_received,
            ),
        ];
        for (name, help, value) in counters {
            text.family(name, "counter", help);
            for peer in self.peers {
                text.sample(name, &[("peer_region", peer.region.as_str())], value(&peer.entries));
            }
        }
    }

    fn expose_consistency(&self, text: &mut Exposition) {
        let asked = &self.consistency;
        let name = "anabranch_concerned_writes_total";
        text.family(name, "counter", "Writes that asked for more regions than this one.");
        text.sample(name, &[("outcome", "met")], asked.writes_met);
        text.sample(name, &[("outcome", "unmet")], asked.writes_unmet);
        let name = "anabranch_majority_reads_total";
        text.family(name, "counter", "Requests that asked for what a majority of regions has.");
        text.sample(name, &[("outcome", "met")], asked.reads_met);
        text.sample(name, &[("outcome", "refused")], asked.reads_unmet);
        let name = "anabranch_data_lag_seconds";
        text.family(name, "gauge", "How old the data of the slowest region may be here.");
        if let Some(lag) = asked.lag {
            text.sample(name, &[], lag);
        }
    }

    fn expose_origin(&self, text: &mut Exposition) {
        let name = "anabranch_origin_settled";
        text.family(
            name,
            "gauge",
            "1 while writes are admitted, 0 until it is settled under whom.",
        );
        text.sample(name, &[], u8::from(self.origin.settled));
        let name = "anabranch_origin_renewals_total";
        text.family(name, "counter", "Origins that this region has left behind.");
        text.sample(name, &[], self.origin.renewals);
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

    fn expose_links(&self, text: &mut Exposition) {
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

/// A counter of traffic: its name, its help, and where it is kept.
type Counter = (&'static str, &'static str, fn(&EntryBytes) -> u64);

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
mod tests;
