//! Reads the server-sent events of the gateway's own server API, in any pieces.
//!
//! Unlike what upstreams send, they have ids. Invariant: what is kept of an unfinished event never exceeds
//! [`MAX_EVENT_BYTES`].

/// Above the largest publication that a gateway may be set to, with its field names.
const MAX_EVENT_BYTES: usize = 1100 << 20;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Empty where it is not named.
    pub name: String,
    pub id: Option<u64>,
    pub data: String,
}

#[derive(Default)]
pub struct Events {
    /// What of a line has come.
    line: Vec<u8>,
    event: Event,
    has_data: bool,
}

/// The stream is not what it should be.
#[derive(Debug, PartialEq, Eq)]
pub struct NoEvents;

impl Events {
    /// Takes `part` of the stream; the events that it completes, in order. Lines end with LF.
    pub fn take(&mut self, part: &[u8]) -> Result<Vec<Event>, NoEvents> {
        let mut events = Vec::new();
        let mut rest = part;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            let line = String::from_utf8(std::mem::take(&mut self.line)).map_err(|_| NoEvents)?;
            events.extend(self.end_line(&line));
        }
        self.line.extend_from_slice(rest);
        if self.line.len() + self.event.data.len() > MAX_EVENT_BYTES {
            return Err(NoEvents);
        }
        Ok(events)
    }

    fn end_line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => value.clone_into(&mut self.event.name),
            "id" => self.event.id = value.parse().ok(),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                self.has_data = true;
            }
            // A comment, or what is not known.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, id: Option<u64>, data: &str) -> Event {
        Event { name: name.to_owned(), id, data: data.to_owned() }
    }

    const STREAM: &str =
        "event: live\ndata: {}\n\n: \n\nid: 7\ndata: {\"a\":\ndata: 1}\n\nid: x\ndata: \n\n";

    #[test]
    fn events_come_in_any_pieces() {
        let expected =
            [event("live", None, "{}"), event("", Some(7), "{\"a\":\n1}"), event("", None, "")];
        for size in 1..STREAM.len() {
            let mut events = Events::default();
            let parts = STREAM.as_bytes().chunks(size);
            let read: Vec<Event> = parts.flat_map(|part| events.take(part).unwrap()).collect();
            assert_eq!(read, expected, "in parts of {size}");
        }
        assert_eq!(Events::default().take(b"data: \xff\n"), Err(NoEvents));
    }
}
