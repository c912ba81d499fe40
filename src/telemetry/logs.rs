//! Log lines: their form, which are written, and what never is in one.
//!
//! Lines of the libraries below us are written from `info` up, whatever is asked for: below that they write what they see
//! on the wire, tungstenite every message. A panic becomes a line without its message if that was put together at run
//! time: what it was put together from may be a client's.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Display;
use std::io::{IsTerminal, stderr};
use std::panic::PanicHookInfo;

use plinth_storage::spans;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Directive;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, fmt, registry};

use super::traces::Traces;

/// What the targets of our own lines begin with.
const OURS: &str = "plinth";

/// The lines of requests that are answered, one each: `debug`, because at many requests they cost a third of them.
pub const ACCESS: &str = "plinth::access";

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// One JSON object each.
    Json,
}

/// Why log lines cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error("{filter:?} is not a filter of log lines: {why}")]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        why: String,
    },
    /// Something else writes log lines already.
    #[error("log lines are written by something else already")]
    Taken,
}

/// Writes the lines of this process that `filter` lets through to stderr from now on, panics too, and has `traces` follow
/// its spans.
///
/// # Errors
/// `Filter` when it cannot be read; `Taken` at the second call.
pub fn install(filter: &str, form: Form, traces: Option<&Traces>) -> Result<(), LogError> {
    let lines = fmt::layer().with_writer(stderr);
    let lines = match form {
        Form::Text => lines.with_ansi(stderr().is_terminal()).boxed(),
        Form::Json => lines.json().boxed(),
    };
    let lines = lines.with_filter(parse(filter)?);
    let installed = match traces {
        Some(traces) => registry().with(lines).with(traces.layer()).try_init(),
        None => registry().with(lines).try_init(),
    };
    installed.map_err(|_| LogError::Taken)?;
    std::panic::set_hook(Box::new(panicked));
    Ok(())
}

/// The filter that `text` stands for: as for RUST_LOG, but no line of a library below `info`.
fn parse(text: &str) -> Result<EnvFilter, LogError> {
    let refused = |why: &dyn Display| LogError::Filter { filter: text.to_owned(), why: why.to_string() };
    let (mut all, mut rest) = (LevelFilter::OFF, Vec::new());
    for directive in text.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        if let Ok(level) = directive.parse::<LevelFilter>() {
            all = level;
            continue;
        }
        let ours = directive.trim_start_matches('[').starts_with(OURS);
        let is_low = ["debug", "trace"].iter().any(|level| directive.to_ascii_lowercase().ends_with(level));
        if !ours && (is_low || !directive.contains('=')) {
            return Err(refused(
                &"lines of libraries are written from `info` up; only a target `plinth…` may be lower",
            ));
        }
        rest.push(directive.parse::<Directive>().map_err(|error| refused(&error))?);
    }
    let filter = EnvFilter::default().add_directive(all.min(LevelFilter::INFO).into());
    let ours = format!("{OURS}={all}").parse().map_err(|error| refused(&error))?;
    let filter = rest.into_iter().fold(filter.add_directive(ours), EnvFilter::add_directive);
    // They are not for lines; a request that is not traced is to cost nothing for them.
    Ok(filter.add_directive(format!("{}=off", spans::TARGET).parse().map_err(|error| refused(&error))?))
}

/// The line of a panic. A message that is part of the program is repeated; another one may hold what a client sent.
fn panicked(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("see the place");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!(place, %backtrace, "panic: {message}");
    } else {
        tracing::error!(place, "panic: {message}");
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::panic::{catch_unwind, set_hook, take_hook};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_level_is_for_our_own_lines_and_those_of_libraries_stay_at_info() {
        for (text, expected) in [
            ("info", vec!["info", "plinth=info"]),
            ("trace", vec!["info", "plinth=trace"]),
            ("warn", vec!["warn", "plinth=warn"]),
            ("warn,plinth=debug", vec!["warn", "plinth=debug"]),
            (
                "debug, plinth_storage=trace,hyper=warn",
                vec!["info", "plinth=debug", "plinth_storage=trace", "hyper=warn"],
            ),
        ] {
            let filter = parse(text).unwrap().to_string();
            let mut directives: Vec<_> = filter.split(',').collect();
            directives.sort_unstable();
            let mut expected = expected;
            expected.push("plinth::spans=off");
            expected.sort_unstable();
            assert_eq!(directives, expected, "{text}");
        }
    }

    #[test]
    fn a_library_cannot_be_made_to_say_more_than_info() {
        for text in ["hyper=debug", "info,tungstenite=trace", "h2", "info,rustls=DEBUG", "plinth=loud"] {
            assert!(matches!(parse(text), Err(LogError::Filter { .. })), "{text}");
        }
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_line_of_a_panic_says_where_and_repeats_only_a_message_of_the_program() {
        let written = Written::default();
        let sink = written.clone();
        let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || sink.clone()).finish();
        let before = take_hook();
        set_hook(Box::new(panicked));
        tracing::subscriber::with_default(lines, || {
            let body = String::from("secret");
            assert!(catch_unwind(|| panic!("a rule is broken")).is_err());
            assert!(catch_unwind(|| panic!("cannot read {body}")).is_err());
        });
        set_hook(before);
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("a rule is broken") && !text.contains("secret"), "{text}");
        assert_eq!(text.matches("place=\"src/telemetry/logs.rs:").count(), 2, "{text}");
    }
}
