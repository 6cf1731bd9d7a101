//! Progress on a terminal: how far, how fast, how long still. Where stderr is no terminal,
//! nothing is drawn.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::{plural, thousands};

/// Progress of a transfer of documents, measured in bytes or in documents, or of conflicts that
/// are settled.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    unit: Unit,
    started: Instant,
    /// Documents or conflicts so far.
    documents: u64,
}

/// What the bar counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Bytes,
    Documents,
    Conflicts,
}

impl Progress {
    /// Starts; `bytes` is the sum, if it is known, and without it there is no ETA.
    pub(crate) fn of_bytes(bytes: Option<u64>) -> Self {
        Self::start(bytes, Unit::Bytes)
    }

    /// Starts; the sum is told by [`Progress::expect`].
    pub(crate) fn of_documents() -> Self {
        Self::start(None, Unit::Documents)
    }

    /// Starts; the sum is told by [`Progress::expect`].
    pub(crate) fn of_conflicts() -> Self {
        Self::start(None, Unit::Conflicts)
    }

    /// Says how much there is in all, which brings an ETA.
    pub(crate) fn expect(&self, total: u64) {
        self.bar.set_length(total);
        self.dress(Some(total));
    }

    fn start(total: Option<u64>, unit: Unit) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        let progress = Self { bar, unit, started: Instant::now(), documents: 0 };
        progress.dress(total);
        progress.bar.enable_steady_tick(Duration::from_millis(200));
        progress
    }

    fn dress(&self, total: Option<u64>) {
        let template = match total {
            Some(_) => "{bar:30} {percent:>3}%  {msg}  ETA {eta}",
            None => "{spinner} {msg}",
        };
        // A template that cannot be read leaves the default look, which is no reason to fail.
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
    }

    /// Draws nothing from now on: data that is shown on the same terminal needs the space.
    pub(crate) fn hide(&self) {
        self.bar.set_draw_target(ProgressDrawTarget::hidden());
    }

    /// Counts one more document of so many bytes, or one more conflict.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.documents += 1;
        self.bar.inc(match self.unit {
            Unit::Bytes => bytes,
            Unit::Documents | Unit::Conflicts => 1,
        });
        if self.documents.is_multiple_of(REDRAW) && !self.bar.is_hidden() {
            self.bar.set_message(self.rate());
        }
    }

    /// Writes a line above the bar.
    pub(crate) fn note(&self, message: &str) {
        self.bar.suspend(|| super::output::note(message));
    }

    /// Takes the bar away and returns count, time and rate for the summary.
    pub(crate) fn finish(self) -> String {
        self.bar.finish_and_clear();
        format!("in {:.1} s, {}", self.started.elapsed().as_secs_f64(), self.rate())
    }

    fn rate(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        // The rate is shown to people: whole documents are enough.
        let rate = (self.documents as f64 / seconds).round() as u64;
        let noun = match self.unit {
            Unit::Bytes | Unit::Documents => "document",
            Unit::Conflicts => "conflict",
        };
        format!("{}, {}/s", plural(self.documents, noun), thousands(rate))
    }
}

/// Documents between two updates of the text, which cost more than counting.
const REDRAW: u64 = 64;
