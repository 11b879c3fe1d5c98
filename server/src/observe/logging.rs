//! The log of the process: its form, and which lines it has, which can change while the server
//! runs.
//!
//! A process has one log, so this is the one place of the server with state of the process. A
//! program that embeds the server and has a subscriber of its own does not call [`start_log`].

use std::env;
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing::warn;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use super::settings::{LogFormat, LogSettings};

/// The filter of the log, if [`start_log`] was called.
static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// The reason why a filter of the log is not used.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// It cannot be parsed.
    #[error(
        "'{words}' is not a filter of the log ({source}): it is a level (error, warn, info, \
         debug, trace, off), or levels by module as in warn,strandline=debug"
    )]
    Invalid {
        /// The filter.
        words: String,
        /// The error of the parser.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A part of it without a module is no level: taken as the name of a module, it would turn the
    /// log off.
    #[error("'{word}' is no level (error, warn, info, debug, trace, off)")]
    NoLevel {
        /// The part.
        word: String,
    },
    /// The log was not started by this crate.
    #[error("the log of this process is not the server's, so its filter cannot be changed")]
    NotStarted,
}

/// The filter of these words.
pub(super) fn parse(words: &str) -> Result<Targets, FilterError> {
    let invalid = |source| FilterError::Invalid { words: words.into(), source };
    let is_level = |word: &&str| word.contains('=') || word.parse::<LevelFilter>().is_ok();
    if let Some(word) = words.split(',').map(str::trim).find(|word| !is_level(word)) {
        return Err(FilterError::NoLevel { word: word.into() });
    }
    words.trim().parse().map_err(invalid)
}

impl LogSettings {
    /// Refuses a filter that cannot be parsed.
    pub fn check(&self) -> Result<(), FilterError> {
        parse(&self.filter).map(drop)
    }
}

/// Starts the log of the process. The environment variable `RUST_LOG` overrides the filter of the
/// settings. Later calls have no effect.
pub fn start_log<W>(settings: &LogSettings, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let wanted = env::var("RUST_LOG").ok().filter(|words| !words.trim().is_empty());
    let of_environment = wanted.as_deref().map(parse).transpose();
    // The start of the server refuses such a filter, which must be seen.
    let of_settings =
        parse(&settings.filter).unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    let (filter, problem) = match of_environment {
        Ok(filter) => (filter.unwrap_or(of_settings), None),
        Err(problem) => {
            let text = format!("RUST_LOG is invalid, and log.filter is used: {problem}");
            (of_settings, Some(text))
        }
    };
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer().with_writer(writer).with_ansi(false);
    let lines = match settings.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    #[cfg(feature = "otel")]
    let (subscriber, problem) = match super::traces::layer() {
        Ok(spans) => (subscriber.with(spans), problem),
        Err(other) => (subscriber.with(None), problem.or(Some(other))),
    };
    let started = subscriber.try_init();
    if started.is_ok()
        && FILTER.set(handle).is_ok()
        && let Some(problem) = problem
    {
        warn!("{problem}");
    }
}

/// Changes the filter of the log while the server runs.
pub fn set_log_filter(words: &str) -> Result<(), FilterError> {
    let filter = parse(words)?;
    let handle = FILTER.get().ok_or(FilterError::NotStarted)?;
    handle.reload(filter).map_err(|_| FilterError::NotStarted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_levels_or_levels_by_module() {
        for words in ["info", "off", "warn,strandline=debug", " debug "] {
            assert!(parse(words).is_ok(), "{words}");
        }
        let refused = LogSettings { filter: "strandline=loud".into(), ..LogSettings::default() };
        let problem = refused.check().expect_err("loud is no level").to_string();
        assert!(problem.contains("strandline=loud"), "{problem}");
        assert!(LogSettings::default().check().is_ok());
        for (words, word) in [("debugg", "debugg"), ("warn,strandline", "strandline")] {
            let problem = parse(words).expect_err("it would turn the log off").to_string();
            assert_eq!(
                problem,
                format!("'{word}' is no level (error, warn, info, debug, trace, off)")
            );
        }
    }
}
