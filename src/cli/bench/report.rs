//! The figures, for people and for programs.

use serde_json::{Value, json};

use super::load::Measured;
use crate::cli::output::{render_table, thousands};

/// One workload with its ceilings.
#[derive(Debug)]
pub(super) struct Figures {
    /// What was done.
    pub(super) workload: &'static str,
    /// How it went.
    pub(super) measured: Measured,
    /// Plain HTTP with the same bodies.
    pub(super) http: Option<Measured>,
    /// Plain HTTP and a bare group commit of the same bytes.
    pub(super) commit: Option<Measured>,
}

/// Lays out a table.
pub(super) fn table(all: &[Figures], width: Option<u16>) -> String {
    let header = ["workload", "ops/s", "p50", "p99", "of http", "of http + commit"];
    let rows = all.iter().flat_map(Figures::rows).collect();
    render_table(&header, rows, width)
}

/// Returns the figures as JSON.
pub(super) fn json(all: &[Figures], settings: &Value) -> Value {
    let results: Vec<Value> = all.iter().map(Figures::json).collect();
    json!({ "settings": settings, "results": results })
}

impl Figures {
    fn rows(&self) -> Vec<Vec<String>> {
        let ratio = |ceiling: &Option<Measured>| {
            ceiling
                .as_ref()
                .map_or_else(|| "-".to_owned(), |c| percent(self.measured.rate / c.rate))
        };
        let own = row(self.workload, &self.measured, ratio(&self.http), ratio(&self.commit));
        let ceiling = |name: &str, measured: &Option<Measured>| {
            measured.as_ref().map(|m| row(name, m, String::new(), String::new()))
        };
        [Some(own), ceiling("  http", &self.http), ceiling("  http + commit", &self.commit)]
            .into_iter()
            .flatten()
            .collect()
    }

    fn json(&self) -> Value {
        let ratio =
            |ceiling: &Option<Measured>| ceiling.as_ref().map(|c| self.measured.rate / c.rate);
        json!({
            "workload": self.workload,
            "measured": measured_json(&self.measured),
            "http": self.http.as_ref().map(measured_json),
            "http_commit": self.commit.as_ref().map(measured_json),
            "ratio_to_http": ratio(&self.http),
            "ratio_to_http_commit": ratio(&self.commit),
        })
    }
}

fn row(name: &str, measured: &Measured, http: String, commit: String) -> Vec<String> {
    vec![
        name.to_owned(),
        thousands(measured.rate.round() as u64),
        millis(measured, 0.5),
        millis(measured, 0.99),
        http,
        commit,
    ]
}

fn measured_json(measured: &Measured) -> Value {
    json!({
        "ops_per_second": measured.rate,
        "operations": measured.latency.len(),
        "p50_ms": millis_of(measured, 0.5),
        "p99_ms": millis_of(measured, 0.99),
        "max_ms": measured.latency.max() as f64 / 1_000.0,
    })
}

fn millis_of(measured: &Measured, quantile: f64) -> f64 {
    measured.latency.value_at_quantile(quantile) as f64 / 1_000.0
}

fn millis(measured: &Measured, quantile: f64) -> String {
    format!("{:.2} ms", millis_of(measured, quantile))
}

fn percent(ratio: f64) -> String {
    format!("{:.0} %", ratio * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::load::histogram;

    fn measured(rate: f64, micros: &[u64]) -> Measured {
        let mut latency = histogram().unwrap();
        micros.iter().for_each(|m| latency.record(*m).unwrap());
        Measured { rate, latency }
    }

    fn figures() -> Vec<Figures> {
        vec![
            Figures {
                workload: "one-field updates",
                measured: measured(12_345.4, &[1_000, 2_000, 3_000]),
                http: Some(measured(49_381.6, &[100])),
                commit: Some(measured(24_690.8, &[900])),
            },
            Figures {
                workload: "propagation",
                measured: measured(500.0, &[1_500]),
                http: None,
                commit: None,
            },
        ]
    }

    #[test]
    fn figures_are_shown_with_their_ceilings() {
        let expected = "\
WORKLOAD           OPS/S   P50      P99      OF HTTP  OF HTTP + COMMIT
one-field updates  12,345  2.00 ms  3.00 ms  25 %     50 %
  http             49,382  0.10 ms  0.10 ms
  http + commit    24,691  0.90 ms  0.90 ms
propagation        500     1.50 ms  1.50 ms  -        -";
        assert_eq!(table(&figures(), Some(80)), expected);
    }

    #[test]
    fn programs_get_the_same_figures() {
        let value = json(&figures(), &json!({"connections": 32}));
        assert_eq!(value["settings"]["connections"], 32);
        assert_eq!(value["results"][0]["measured"]["operations"], 3);
        assert_eq!(value["results"][0]["ratio_to_http_commit"], 0.5);
        assert_eq!(value["results"][1]["http"], Value::Null);
    }
}
