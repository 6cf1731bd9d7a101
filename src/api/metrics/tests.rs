//! What is exposed, to the letter.

use std::time::Duration;

use anabranch_crdt::clock::MeasuredClock;

use super::*;
use crate::replication::{Standing, Traffic};

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

/// Every sample but those of replicas, links and the build.
const SAMPLES: [&str; 39] = [
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
    "anabranch_replication_entry_bytes_sent_total{peer_region=\"ap-south\"} 70",
    "anabranch_replication_entry_bytes_sent_total{peer_region=\"us-east\"} 70",
    "anabranch_replication_entry_bytes_received_total{peer_region=\"ap-south\"} 90",
    "anabranch_replication_entry_bytes_received_total{peer_region=\"us-east\"} 90",
    "anabranch_replication_duplicate_bytes_received_total{peer_region=\"ap-south\"} 10",
    "anabranch_replication_duplicate_bytes_received_total{peer_region=\"us-east\"} 10",
    "anabranch_concerned_writes_total{outcome=\"met\"} 5",
    "anabranch_concerned_writes_total{outcome=\"unmet\"} 1",
    "anabranch_majority_reads_total{outcome=\"met\"} 2",
    "anabranch_majority_reads_total{outcome=\"refused\"} 0",
    "anabranch_data_lag_seconds 0.5",
    "anabranch_origin_settled 1",
    "anabranch_origin_renewals_total 2",
    "anabranch_journal_entries 10",
    "anabranch_journal_bytes 11",
    "anabranch_journal_dropped_entries_total 12",
    "anabranch_journal_dropped_bytes_total 13",
    "anabranch_journal_regions_left_behind_total 14",
    "anabranch_journal_damaged_documents 15",
    "anabranch_journal_quarantined_entries 16",
    "anabranch_epochs_closed{kind=\"compact\"} 3",
    "anabranch_epochs_closed{kind=\"purge\"} 5",
    "anabranch_purged_documents_dropped 4",
    "anabranch_late_changes_left 2",
    "anabranch_quarantined_entries 1",
];

#[test]
fn figures_are_exposed_with_help_and_type() {
    let peer = PeerStatus {
        region: "ap-south".parse().unwrap(),
        standing: Standing::ACTIVE,
        neighbour: true,
        connected: true,
        entries_behind: 12,
        seconds_behind: 1.5,
        entries_missing: 3,
        last_error: None,
        clock: Some(MEASURED),
        entries: EntryBytes {
            entry_bytes_sent: 70,
            entry_bytes_received: 90,
            duplicate_bytes_received: 10,
        },
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
    let epochs = EpochCounts { compacted: 3, purged: 5, emptied: 4, late: 2, set_aside: 1 };
    let consistency =
        Concerns { writes_met: 5, writes_unmet: 1, reads_met: 2, reads_unmet: 0, lag: Some(0.5) };
    let origin = OriginStatus { settled: true, renewals: 2 };
    let replicas = &ReconcileStatus {
        totals: Totals { adopted: 5, broken: 2, ..Totals::default() },
        ..ReconcileStatus::default()
    };
    let (ailing, peers) = ([15, 16], &[peer, silent]);
    let region = "eu-west";
    let journal = JOURNAL;
    let figures =
        Figures { region, clock, origin, consistency, journal, ailing, peers, replicas, epochs };
    let text = figures.expose();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let samples = samples.filter(|line| !line.starts_with("anabranch_link_"));
    let (replicas, samples): (Vec<&str>, Vec<&str>) =
        samples.partition(|line| OF_REPLICAS.contains(line));
    assert_eq!(replicas, OF_REPLICAS);
    let build = format!(
        "anabranch_build_info{{version=\"{}\",region=\"eu-west\"}} 1",
        env!("CARGO_PKG_VERSION")
    );
    let expected: Vec<&str> = SAMPLES.into_iter().chain([build.as_str()]).collect();
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
        entries: EntryBytes::default(),
        traffic,
        neighbour: true,
        standing: Standing::ACTIVE,
    };
    let clock = ClockStatus { correction: ClockOffset(0), clamped: 0, warnings: [].into() };
    let figures = Figures {
        region: "eu-west",
        clock,
        origin: OriginStatus { settled: true, renewals: 0 },
        consistency: Concerns::default(),
        journal: JOURNAL,
        ailing: [0, 0],
        peers: &[peer],
        replicas: &ReconcileStatus::default(),
        epochs: EpochCounts::default(),
    };
    let text = figures.expose();
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
