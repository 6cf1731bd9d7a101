//! Wrong clocks: a region whose clock is years off neither wins everything nor poisons the others.

use std::time::{Duration, Instant};

use anabranch_crdt::clock::ClockOffset;
use anabranch_crdt::ids::Timestamp;
use anabranch_crdt::policy::Policy;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::cluster::true_time;
use crate::support::{Cluster, Plan, eventually, seen};

const ALL: [&str; 3] = ["ap", "eu", "us"];
const TEN_YEARS: i64 = 10 * 365 * 86_400 * 1_000_000;

/// How far timestamps may be from the true time: the allowed skew, and a machine that is slow.
const NEAR: Duration = Duration::from_secs(20);

fn plan(regions: &[&str], ahead: i64) -> Plan {
    Plan::new(regions).policy("latest", Policy::Lww, &[]).clock("us", ahead)
}

/// Waits until a region corrects its clock by about so much.
async fn corrects(cluster: &Cluster, name: &str, by: i64) {
    eventually(&format!("{name} corrects its clock by {by} µs"), async || {
        let status = cluster.at(name).get("/v1/replication").ok().await.value();
        let heard = |peer: &Value| peer["clock_offset_ms"].is_number();
        let correction = status["clock_correction_ms"].as_f64().unwrap();
        let right = (correction - by as f64 / 1e3).abs() < 1_000.0;
        let all = status["peers"].as_array().unwrap().iter().all(heard);
        seen(right && all, || format!("{status:#}"))
    })
    .await;
}

/// Lets so much time pass that no error of measurement turns two writes around.
async fn later() {
    let began = Instant::now();
    eventually("some time", async || seen(began.elapsed() > SOME_TIME, String::new)).await;
}

/// A clock is measured over a round trip of the allowed skew at most, so to half a second.
const SOME_TIME: Duration = Duration::from_millis(600);

/// Two regions write to one document while they are apart, each once before and once after the
/// other; the later write must win, and every time that the ledger tells must be near the truth.
async fn check_collision(cluster: &Cluster, key: &str, one: &str, other: &str) {
    let name = format!("latest/{key}");
    cluster.at(one).put(&name, &json!({"first": 0, "second": 0})).ok().await;
    cluster.agreed(&["latest"]).await;
    cluster.cut(one, other).await;
    for third in cluster.names().iter().filter(|third| *third != one && *third != other) {
        cluster.cut(one, third).await;
    }
    let write = async |region: &str, field: &str| {
        cluster.at(region).merge(&name, &json!({field: region})).ok().await;
    };
    write(one, "first").await;
    write(other, "second").await;
    later().await;
    write(other, "first").await;
    write(one, "second").await;
    cluster.rejoin(one);
    let picture = cluster.agreed(&["latest"]).await;
    let documents = picture.listed();
    let document = documents.iter().find(|document| document["key"] == key).unwrap();
    assert_eq!(document["value"], json!({"first": other, "second": one}), "the later ones win");
    let ledger = picture.conflicts();
    let rows: Vec<&Value> = ledger.iter().filter(|row| row["document"] == *name).collect();
    assert_eq!(rows.len(), 2, "{ledger:#?}");
    for candidate in rows.iter().flat_map(|row| row["candidates"].as_array().unwrap()) {
        check_near(&candidate["at"]);
    }
}

fn check_near(at: &Value) {
    let at = OffsetDateTime::parse(at.as_str().unwrap(), &Rfc3339).unwrap();
    let micros = u64::try_from(at.unix_timestamp_nanos() / 1_000).unwrap();
    let off = ClockOffset::between(Timestamp(micros), true_time()).0.unsigned_abs();
    assert!(Duration::from_micros(off) < NEAR, "{at} is not now");
}

/// Returns a figure of `GET /metrics`.
async fn metric(cluster: &Cluster, name: &str, metric: &str) -> f64 {
    let reply = cluster.at(name).get("/metrics").ok().await;
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {metric} in {text}")).parse().unwrap()
}

/// Three regions, and the clock of one is ten years off: it corrects itself by the two others, who
/// move for nobody; in every collision what was really later wins, also after restarts.
async fn one_of_three_is_off(ahead: i64) {
    let mut cluster = plan(&ALL, ahead).start().await;
    cluster.meshed().await;
    corrects(&cluster, "us", -ahead).await;
    corrects(&cluster, "eu", 0).await;
    corrects(&cluster, "ap", 0).await;
    check_collision(&cluster, "a", "us", "eu").await;
    check_collision(&cluster, "b", "ap", "eu").await;
    let offset = metric(&cluster, "eu", "anabranch_clock_offset_seconds{peer_region=\"us\"}").await;
    assert!((offset - ahead as f64 / 1e6).abs() < 1.0, "{offset}");
    let skewed = "anabranch_clock_skew_warnings_total{peer_region=\"us\"}";
    assert_eq!(metric(&cluster, "eu", skewed).await, 1.0);
    assert_eq!(metric(&cluster, "eu", "anabranch_clock_correction_seconds").await, 0.0);
    for name in ["us", "eu"] {
        cluster.restart(name).await;
    }
    cluster.meshed().await;
    corrects(&cluster, "us", -ahead).await;
    corrects(&cluster, "eu", 0).await;
    check_collision(&cluster, "c", "us", "eu").await;
    cluster.set_clock("us", 0);
    corrects(&cluster, "us", 0).await;
    check_collision(&cluster, "d", "us", "eu").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_ten_years_ahead_wins_only_what_it_wrote_later() {
    one_of_three_is_off(TEN_YEARS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_ten_years_behind_loses_only_what_it_wrote_earlier() {
    one_of_three_is_off(-TEN_YEARS).await;
}

/// A region admits writes with a wrong clock before it has ever heard another one. Its entries say
/// so for ever, but no clock follows them: not its own once it has heard the others, not theirs,
/// and not that of a region that starts again with such entries in its journal.
#[tokio::test(flavor = "multi_thread")]
async fn entries_of_the_future_move_no_clock() {
    let mut cluster = plan(&ALL, TEN_YEARS).start().await;
    cluster.meshed().await;
    cluster.stop_node("us").await;
    cluster.refuse("us");
    cluster.start_node("us").await;
    for n in 0..3 {
        cluster.at("us").put(&format!("latest/future-{n}"), &json!({"n": n})).ok().await;
    }
    cluster.admit("us");
    cluster.meshed().await;
    corrects(&cluster, "us", -TEN_YEARS).await;
    cluster.agreed(&["latest"]).await;
    check_collision(&cluster, "a", "us", "eu").await;
    check_collision(&cluster, "b", "ap", "eu").await;
    let collision = async |cluster: &Cluster, region: &str| {
        let title = json!({"title": region});
        cluster.at(region).put("latest/alone", &title).ok().await;
    };
    cluster.stop_node("eu").await;
    cluster.refuse("eu");
    cluster.start_node("eu").await;
    collision(&cluster, "eu").await;
    later().await;
    collision(&cluster, "ap").await;
    cluster.admit("eu");
    cluster.meshed().await;
    let picture = cluster.agreed(&["latest"]).await;
    let alone = picture.listed().into_iter().find(|d| d["key"] == "alone").unwrap();
    assert_eq!(alone["value"]["title"], "ap", "what eu has read from its journal moved no clock");
    cluster.set_clock("us", 0);
    cluster.restart("us").await;
    cluster.meshed().await;
    corrects(&cluster, "us", 0).await;
    check_collision(&cluster, "d", "us", "eu").await;
    cluster.stop().await;
}

/// Of two regions nobody can tell who is right: the faster one follows the slower one, so the fast
/// clock wins nothing, and the slow one, wrong or not, is common to both.
#[tokio::test(flavor = "multi_thread")]
async fn the_faster_one_of_two_regions_follows_the_slower_one() {
    let cluster = plan(&["eu", "us"], TEN_YEARS).start().await;
    cluster.meshed().await;
    corrects(&cluster, "us", -TEN_YEARS).await;
    corrects(&cluster, "eu", 0).await;
    check_collision(&cluster, "a", "us", "eu").await;
    cluster.set_clock("us", -TEN_YEARS);
    corrects(&cluster, "us", 0).await;
    corrects(&cluster, "eu", -TEN_YEARS).await;
    cluster.stop().await;
}
