use std::io::Write;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;

/// The lines that were written.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

const INTERVAL: Duration = Duration::from_secs(10);

/// Runs `test` with a log of its own, which throttles after three lines.
fn logging(level: &str, test: impl FnOnce(&LogControl, &Lines)) {
    let throttle = LogThrottle { lines: 3, interval: INTERVAL };
    let (control, filter) = filter(level, Some(throttle)).unwrap();
    let lines = Lines::default();
    let writer = tracing_subscriber::fmt::layer()
        .with_writer(lines.clone())
        .with_ansi(false)
        .fmt_fields(on_one_line());
    let subscriber = tracing_subscriber::registry().with(filter).with(writer);
    tracing::subscriber::with_default(subscriber, || test(&control, &lines));
}

#[test]
fn the_level_changes_while_lines_are_written() {
    logging("info", |control, lines| {
        let write = || {
            tracing::info!(event = "one");
            tracing::debug!(event = "two");
            tracing::info!(target: "audit", event = "three");
            lines.take()
        };
        let written = write();
        assert!(
            written.contains("one") && !written.contains("two") && written.contains("three"),
            "{written}"
        );
        control.set_level("tidegate=debug,warn").unwrap();
        let written = write();
        assert!(
            written.contains("one") && written.contains("two") && !written.contains("three"),
            "{written}"
        );
        let wrong = control.set_level("tidegate=loud").unwrap_err();
        assert!(wrong.starts_with("log.level: \"tidegate=loud\""), "{wrong}");
        assert!(write().contains("two"));
        control.set_level("audit=info,warn").unwrap();
        let written = write();
        assert!(!written.contains("one") && written.contains("three"), "{written}");
        control.set_level("off").unwrap();
        assert_eq!(write(), "");
    });
}

#[test]
fn repeated_lines_are_counted_and_summarized_once() {
    logging("info", |control, lines| {
        let fail = |upstream: &str, attempt: u64| {
            tracing::warn!(event = "failed", upstream, attempt);
        };
        (0..10).for_each(|attempt| fail("one", attempt));
        fail("two", 0);
        let written = lines.take();
        assert_eq!(written.matches("\"one\"").count(), 3, "{written}");
        assert_eq!(written.matches("\"two\"").count(), 1, "{written}");

        let started = Instant::now();
        assert!(control.maintain(started).is_some_and(|due| due > started), "a summary is due");
        assert_eq!(lines.take(), "");
        assert_eq!(control.maintain(started + INTERVAL), None);
        let written = lines.take();
        assert_eq!(written.lines().count(), 1, "{written}");
        for part in ["WARN", "lines_suppressed", "of=\"failed\"", "suppressed=7", "upstream=one"] {
            assert!(written.contains(part), "{part}: {written}");
        }
        fail("one", 0);
        assert_eq!(lines.take().lines().count(), 1, "another interval");

        (0..5).for_each(|attempt| fail("two", attempt));
        lines.take();
        control.finish();
        assert!(lines.take().contains("suppressed=2"), "at the end of the process");

        control.set_throttle(None);
        (0..5).for_each(|attempt| fail("two", attempt));
        assert_eq!(lines.take().lines().count(), 5);
    });
}

#[test]
fn some_lines_are_never_throttled() {
    logging("debug", |_, lines| {
        for _ in 0..5 {
            tracing::info!(target: "audit", event = "token_issued");
            tracing::info!(event = "connection_closed");
            tracing::debug!(event = "detail");
        }
        assert_eq!(lines.take().lines().count(), 15);
    });
}

#[test]
fn many_kinds_of_lines_take_bounded_memory() {
    logging("info", |control, lines| {
        for reason in 0..5000 {
            let reason = format!("{reason} {}", "x".repeat(10_000));
            tracing::info!(event = "failed", reason);
        }
        assert!(control.0.throttler.kinds() <= 1025);
        lines.take();
        control.maintain(Instant::now() + INTERVAL);
        assert_eq!(control.0.throttler.kinds(), 0);
    });
}

#[test]
fn debug_lines_of_a_subject_are_written_for_a_limited_time() {
    logging("info", |control, lines| {
        let write = || {
            let id = 7;
            tracing::debug!(event = "number", user = %id, connection = "a");
            tracing::debug!(event = "text", user = "7", channel = "chat_1");
            tracing::debug!(event = "longer", user = "77", channel = "chat_11");
            tracing::debug!(event = "nobody");
            tracing::debug!(target: "hyper", event = "foreign", user = "7");
            let written = lines.take();
            let events = ["number", "text", "longer", "nobody", "foreign"];
            events.into_iter().filter(|event| written.contains(event)).collect::<Vec<_>>()
        };
        assert_eq!(write(), [""; 0]);
        let time = Duration::from_secs(60);
        control.debug(Subject::User("7".to_owned()), time).unwrap();
        assert_eq!(write(), ["number", "text"]);
        control.debug(Subject::Channel("chat_11".to_owned()), time).unwrap();
        assert_eq!(write(), ["number", "text", "longer"]);
        assert_eq!(control.debugged().len(), 2);
        control.debug(Subject::User("7".to_owned()), Duration::ZERO).unwrap();
        assert_eq!(write(), ["longer"]);
        control.debug(Subject::Connection("a".to_owned()), time / 2).unwrap();
        assert_eq!(write(), ["number", "longer"]);
        let now = Instant::now();
        assert!(control.maintain(now).is_some_and(|due| due <= now + time / 2));
        assert!(control.maintain(now + time / 2).is_some());
        assert_eq!(write(), ["longer"]);
        control.maintain(now + time);
        assert_eq!(write(), [""; 0]);
        assert_eq!(control.debugged(), []);
    });
}

#[test]
fn the_number_of_subjects_is_limited() {
    let (control, _filter) = filter("info", None).unwrap();
    let debug = |user: u64| control.debug(Subject::User(user.to_string()), Duration::from_secs(60));
    (0..32).for_each(|user| debug(user).unwrap());
    assert_eq!(debug(32), Err(TooMany));
    assert_eq!(debug(31), Ok(()));
}

#[test]
fn a_line_stays_on_one_line_whatever_it_contains() {
    logging("info", |_, lines| {
        let nasty = "one\ntwo\r\n\u{1b}[31mthree\u{85}\u{2028}four";
        let error = std::io::Error::other(nasty);
        tracing::info!(event = "nasty", nasty, %error, ?error, "text");
        tracing::info!(event = "nasty", "{nasty}");
        let written = lines.take();
        assert_eq!(
            written.trim_end().split(['\n', '\r', '\u{1b}', '\u{85}']).count(),
            2,
            "{written}"
        );
    });
}
