use std::io::Write;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;

/// What was written.
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

/// Runs `test` with a log of its own.
fn logging(level: &str, test: impl FnOnce(&LogControl, &Lines)) {
    let (control, filter) = filter(level).unwrap();
    let lines = Lines::default();
    let writer = tracing_subscriber::fmt::layer().with_writer(lines.clone()).with_ansi(false);
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
        let said = write();
        assert!(said.contains("one") && !said.contains("two") && said.contains("three"), "{said}");
        control.set_level("tidegate=debug,warn").unwrap();
        let said = write();
        assert!(said.contains("one") && said.contains("two") && !said.contains("three"), "{said}");
        let wrong = control.set_level("tidegate=loud").unwrap_err();
        assert!(wrong.starts_with("log.level: \"tidegate=loud\""), "{wrong}");
        assert!(write().contains("two"));
        control.set_level("audit=info,warn").unwrap();
        let said = write();
        assert!(!said.contains("one") && said.contains("three"), "{said}");
        control.set_level("off").unwrap();
        assert_eq!(write(), "");
    });
}
