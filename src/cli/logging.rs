//! The log: on stderr, one line per event, with the region that it belongs to.

use std::fmt;
use std::io::{self, IsTerminal};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::cli::Failure;

/// What is logged, and how.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LogArgs {
    /// What to log: a level, or levels by module such as `info,anabranch::replication=debug`
    #[arg(long, env = "ANABRANCH_LOG", global = true, value_name = "FILTER", help_heading = "Log")]
    log: Option<String>,

    /// How to log
    #[arg(
        long,
        env = "ANABRANCH_LOG_FORMAT",
        global = true,
        default_value = "text",
        value_name = "FORMAT",
        help_heading = "Log"
    )]
    log_format: LogFormat,

    /// Never use colours, not even on a terminal
    #[arg(
        long,
        env = "NO_COLOR",
        global = true,
        value_parser = clap::builder::FalseyValueParser::new(),
        help_heading = "Log"
    )]
    no_color: bool,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    /// One line per event, for people
    Text,
    /// One JSON object per event, for programs
    Json,
}

impl LogArgs {
    /// Starts the log. `default` is the filter where none was given.
    ///
    /// # Errors
    /// `Usage` if the filter cannot be read.
    pub(crate) fn init(&self, default: &str) -> Result<(), Failure> {
        let filter = self.log.as_deref().unwrap_or(default);
        let filter = EnvFilter::try_new(filter).map_err(|error| {
            Failure::Usage(format!(
                "bad log filter '{filter}': {error}\n  help: write a level (error, warn, info, \
                 debug, trace), or levels by module such as info,anabranch::journal=debug"
            ))
        })?;
        let colours = !self.no_color && io::stderr().is_terminal();
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .with_ansi(colours);
        let started = match self.log_format {
            LogFormat::Text => log.event_format(Lines).try_init(),
            LogFormat::Json => log.json().flatten_event(true).try_init(),
        };
        started.map_err(|error| Failure::General(format!("cannot start the log: {error}")))
    }
}

/// One event per line: time, level, the fields of the spans around it (the region above all), and
/// the event itself.
#[derive(Debug, Clone, Copy)]
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let now = time::OffsetDateTime::now_utc();
        let (hour, minute, second, milli) = now.to_hms_milli();
        write!(writer, "{hour:02}:{minute:02}:{second:02}.{milli:03} ")?;
        write_level(&mut writer, *event.metadata().level())?;
        let spans = context.event_scope().into_iter().flat_map(|scope| scope.from_root());
        for span in spans {
            let extensions = span.extensions();
            if let Some(fields) = extensions.get::<FormattedFields<N>>()
                && !fields.is_empty()
            {
                write!(writer, "{fields} ")?;
            }
        }
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

fn write_level(writer: &mut Writer<'_>, level: Level) -> fmt::Result {
    let colour = if level == Level::ERROR {
        31
    } else if level == Level::WARN {
        33
    } else if level == Level::INFO {
        32
    } else {
        34
    };
    if writer.has_ansi_escapes() {
        write!(writer, "\u{1b}[{colour}m{level:>5}\u{1b}[0m ")
    } else {
        write!(writer, "{level:>5} ")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Buffer {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    fn logged(colours: bool, log: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(buffer.clone())
            .with_ansi(colours)
            .event_format(Lines)
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_has_level_region_message_and_fields() {
        let text = logged(false, || {
            let node = tracing::info_span!("node", region = "eu-west").entered();
            tracing::info_span!("peer", peer = "us-east").in_scope(|| {
                tracing::warn!(entries = 3, "fell behind");
            });
            drop(node);
            tracing::info!("outside");
        });
        let lines: Vec<&str> =
            text.lines().filter_map(|line| line.get("00:00:00.000 ".len()..)).collect();
        assert_eq!(
            lines,
            [" WARN region=\"eu-west\" peer=\"us-east\" fell behind entries=3", " INFO outside"]
        );
    }

    #[test]
    fn colours_are_used_only_where_they_are_wanted() {
        assert!(logged(true, || tracing::error!("x")).contains("\u{1b}[31m"));
        assert!(!logged(false, || tracing::error!("x")).contains('\u{1b}'));
    }
}
