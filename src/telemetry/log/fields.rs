//! Reads the fields of an event, and formats them for text lines.

use std::fmt::{self, Write as _};

use tracing::Event;
use tracing::field::{Field, Visit};
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

/// Calls `each` with the name of every field and its value as it is written.
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

/// Whether `value` is written as `text`. Does not allocate.
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

/// Text that is truncated to `max` bytes.
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

/// Formats the fields of a text line on one line, whatever they contain.
pub fn on_one_line() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    debug_fn(|writer, field, value| {
        if field.name() != "message" {
            write!(writer, "{}=", field.name())?;
        }
        write!(OneLine(writer), "{value:?}")
    })
    .delimited(" ")
}

/// Escapes control characters and Unicode line breaks.
struct OneLine<'a, 'w>(&'a mut Writer<'w>);

impl fmt::Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        for part in text.split_inclusive(breaks) {
            let last = part.chars().next_back().filter(|c| breaks(*c));
            self.0.write_str(&part[..part.len() - last.map_or(0, char::len_utf8)])?;
            if let Some(last) = last {
                write!(self.0, "{}", last.escape_default())?;
            }
        }
        Ok(())
    }
}
