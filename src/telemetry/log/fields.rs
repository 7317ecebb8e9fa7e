//! Reading the fields of an event.

use std::fmt::{self, Write as _};

use tracing::Event;
use tracing::field::{Field, Visit};

/// Calls back with the name of each field, and how it is written.
pub(super) fn read(event: &Event<'_>, each: impl FnMut(&'static str, &dyn fmt::Display)) {
    event.record(&mut Fields(each));
}

struct Fields<F>(F);

impl<F: FnMut(&'static str, &dyn fmt::Display)> Visit for Fields<F> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        (self.0)(field.name(), &format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        (self.0)(field.name(), &value);
    }
}

/// Whether `value` is written as `text`. Allocates nothing.
pub(super) fn is_written_as(value: &dyn fmt::Display, text: &str) -> bool {
    struct Rest<'a>(&'a str);
    impl fmt::Write for Rest<'_> {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            self.0 = self.0.strip_prefix(part).ok_or(fmt::Error)?;
            Ok(())
        }
    }
    let mut rest = Rest(text);
    write!(rest, "{value}").is_ok() && rest.0.is_empty()
}

/// Text of at most `max` bytes; what comes after them is left out.
pub(super) struct Short {
    pub text: String,
    max: usize,
}

impl Short {
    pub fn new(max: usize) -> Self {
        Self { text: String::new(), max }
    }
}

impl fmt::Write for Short {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let mut room = part.len().min(self.max.saturating_sub(self.text.len()));
        while !part.is_char_boundary(room) {
            room -= 1;
        }
        self.text.push_str(&part[..room]);
        Ok(())
    }
}
