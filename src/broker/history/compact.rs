//! Merges consecutive `chunk` events in what is sent to a client that resumes or joins late.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::socket::{Delivery, frame};

/// Merges each run of `chunk` events of one text of a task (or without a task) into its last event, whose `chunk` becomes
/// the text of all of them; its other fields are kept. Any other event stays as it is and ends the run.
pub fn compact(publications: Vec<Delivery>) -> Vec<Delivery> {
    let mut compacted = Vec::new();
    let mut run: Option<Run> = None;
    for publication in publications {
        match Chunk::read(frame::payload(&publication.frame)) {
            Some(chunk) => match &mut run {
                Some(run) if run.of == chunk.of => {
                    run.text.push_str(&chunk.text);
                    run.last = publication;
                    run.merged = true;
                }
                _ => {
                    compacted.extend(run.take().map(Run::finish));
                    let Chunk { text, of } = chunk;
                    run = Some(Run { text, of, last: publication, merged: false });
                }
            },
            None => {
                compacted.extend(run.take().map(Run::finish));
                compacted.push(publication);
            }
        }
    }
    compacted.extend(run.map(Run::finish));
    compacted
}

struct Run {
    text: String,
    of: TextOf,
    last: Delivery,
    merged: bool,
}

impl Run {
    fn finish(self) -> Delivery {
        if !self.merged {
            return self.last;
        }
        let Ok(Fields(fields)) = serde_json::from_slice(frame::payload(&self.last.frame)) else {
            return self.last;
        };
        let mut json = String::with_capacity(self.text.len() + self.last.frame.len());
        for (name, value) in &fields {
            json.push(if json.is_empty() { '{' } else { ',' });
            json.push_str(&serde_json::Value::from(name.as_ref()).to_string());
            json.push(':');
            if name == "chunk" {
                json.push_str(&serde_json::Value::from(self.text.as_str()).to_string());
            } else {
                json.push_str(value.get());
            }
        }
        json.push('}');
        Delivery::new(frame::text(&json), self.last.position)
    }
}

/// Which text a chunk is a part of: the raw JSON of `task_id`, `choice` and `refusal`.
type TextOf = [Option<Box<str>>; 3];

/// A `chunk` event whose field `chunk` is a string.
struct Chunk {
    text: String,
    of: TextOf,
}

impl Chunk {
    fn read(json: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Event<'a> {
            #[serde(borrow)]
            event: Cow<'a, str>,
            chunk: String,
            #[serde(borrow)]
            task_id: Option<&'a RawValue>,
            #[serde(borrow)]
            choice: Option<&'a RawValue>,
            #[serde(borrow)]
            refusal: Option<&'a RawValue>,
        }
        let Event { event, chunk, task_id, choice, refusal } = serde_json::from_slice(json).ok()?;
        let of = [task_id, choice, refusal].map(|value| value.map(|value| value.get().into()));
        (event == "chunk").then_some(Self { text: chunk, of })
    }
}

/// The members of a JSON object in their order.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    members.push((Cow::Owned(name), value));
                }
                Ok(Fields(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests;
