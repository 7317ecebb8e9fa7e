//! Fills templates from one message: the keyword arguments of a task, and the body of a request.
//!
//! Invariant: the result is JSON, whatever the client and the configuration contain. Texts of the client become JSON
//! strings, and JSON of the client whole values, never parts of another one. It is written once, without a tree of values
//! in between, because a message may hold a whole conversation.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::Message;
use super::client_json::ClientObject;
use crate::config::{
    ClientField, FieldType, ListItem, Missing, ObjectTemplate, ReadBy, ValueTemplate,
};
use crate::protocol::Template;

/// Why a message cannot be sent, as a text for its client.
pub(super) type InvalidMessage = String;

/// Fills in the members of an object for Celery.
pub(super) fn fill_object(
    object: &ObjectTemplate,
    message: &Message,
) -> Result<Box<RawValue>, InvalidMessage> {
    let mut names = Vec::new();
    object.iter().for_each(|(_, value)| value.field_names(&mut names));
    let mut filler = Filler::new(message, ReadBy::Celery, names);
    filler.object(object)?;
    let json = String::from_utf8(filler.out).map_err(|error| error.to_string())?;
    RawValue::from_string(json).map_err(unwritten)
}

/// Fills in the body of a request.
pub(super) fn fill_body(
    body: &ValueTemplate,
    message: &Message,
) -> Result<Vec<u8>, InvalidMessage> {
    let mut names = Vec::new();
    body.field_names(&mut names);
    let mut filler = Filler::new(message, ReadBy::HttpServer, names);
    match filler.value("the body", body)? {
        Written::Value => Ok(filler.out),
        Written::Nothing => Err("the message has no body".to_owned()),
    }
}

fn unwritten(error: serde_json::Error) -> InvalidMessage {
    format!("the message cannot be written as JSON: {error}")
}

/// Whether a value was written, or left out.
#[derive(PartialEq)]
enum Written {
    Value,
    Nothing,
}

struct Filler<'a> {
    message: &'a Message,
    read_by: ReadBy,
    /// The names of all fields in the template.
    names: Vec<&'a str>,
    /// These fields of the client's object, once one is used.
    object: Option<ClientObject<'a>>,
    out: Vec<u8>,
}

impl<'a> Filler<'a> {
    fn new(message: &'a Message, read_by: ReadBy, names: Vec<&'a str>) -> Self {
        // Most of a large message is one field of it.
        let out = Vec::with_capacity(message.data.get().len() + 256);
        Self { message, read_by, names, object: None, out }
    }

    /// Writes a value. `name` is that of the member or list it belongs to, for the client.
    fn value(&mut self, name: &str, value: &ValueTemplate) -> Result<Written, InvalidMessage> {
        match value {
            ValueTemplate::Text(template) => self.write(&fill_text(template, self.message)?)?,
            ValueTemplate::Integer(template) => {
                self.write(&fill_integer(name, template, self.message)?)?;
            }
            ValueTemplate::Constant(value) => self.write(value)?,
            ValueTemplate::Object(members) => self.object(members)?,
            ValueTemplate::List(items) => self.list(name, items)?,
            ValueTemplate::Field(field) => match self.field(field)? {
                Some(json) => self.out.extend_from_slice(json.as_bytes()),
                None => return Ok(Written::Nothing),
            },
        }
        Ok(Written::Value)
    }

    fn object(&mut self, members: &ObjectTemplate) -> Result<(), InvalidMessage> {
        self.out.push(b'{');
        let mut is_first = true;
        for (name, value) in members {
            let before = self.out.len();
            self.separate(is_first);
            self.write(name)?;
            self.out.push(b':');
            match self.value(name, value)? {
                Written::Value => is_first = false,
                Written::Nothing => self.out.truncate(before),
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    fn list(&mut self, name: &str, items: &[ListItem]) -> Result<(), InvalidMessage> {
        self.out.push(b'[');
        let mut is_first = true;
        for item in items {
            let before = self.out.len();
            self.separate(is_first);
            let written = match item {
                ListItem::One(value) => self.value(name, value)?,
                ListItem::Spread(field) => self.spread(field)?,
            };
            match written {
                Written::Value => is_first = false,
                Written::Nothing => self.out.truncate(before),
            }
        }
        self.out.push(b']');
        Ok(())
    }

    /// Writes the elements of a list that the client sent.
    fn spread(&mut self, field: &ClientField) -> Result<Written, InvalidMessage> {
        let list = self.field(field)?.unwrap_or_default();
        let elements = list.strip_prefix('[').and_then(|list| list.strip_suffix(']'));
        match elements.map(str::trim_ascii) {
            None | Some("") => Ok(Written::Nothing),
            Some(elements) => {
                self.out.extend_from_slice(elements.as_bytes());
                Ok(Written::Value)
            }
        }
    }

    fn separate(&mut self, is_first: bool) {
        if !is_first {
            self.out.push(b',');
        }
    }

    fn write(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), InvalidMessage> {
        serde_json::to_writer(&mut self.out, value).map_err(unwritten)
    }

    /// Reads a field of the client's object; `None` = it is left out.
    fn field<'f>(&mut self, wanted: &'f ClientField) -> Result<Option<Cow<'f, str>>, InvalidMessage>
    where
        'a: 'f,
    {
        let name = &wanted.name;
        let object = match &self.object {
            Some(object) => object,
            None => self.object.insert(
                ClientObject::read(&self.message.data, &self.names)
                    .ok_or("the message holds a name that cannot be passed on")?,
            ),
        };
        let Some(json) = object.field(name, self.read_by) else {
            return match &wanted.missing {
                Missing::Refuse => Err(format!("{name} is required")),
                Missing::Omit => Ok(None),
                Missing::Default(value) => Ok(Some(Cow::Owned(value.to_string()))),
            };
        };
        let json = json.map_err(|problem| format!("{name} {problem}"))?;
        match check_type(json, wanted.kind) {
            Ok(()) => Ok(Some(Cow::Borrowed(json))),
            Err(expected) => Err(format!("{name} must be {expected}")),
        }
    }
}

/// Checks the type of a JSON value. `Err` says what it must be.
fn check_type(json: &str, kind: FieldType) -> Result<(), &'static str> {
    let is_number = json.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    let (is_valid, expected) = match kind {
        FieldType::Any => (true, ""),
        FieldType::Text => (json.starts_with('"'), "a text"),
        // `-0` is a number that integers do not have.
        FieldType::Int => {
            (is_number && json != "-0" && !json.contains(['.', 'e', 'E']), "an integer")
        }
        FieldType::Number => (is_number, "a number"),
        FieldType::Bool => (matches!(json, "true" | "false"), "true or false"),
        FieldType::Object => (json.starts_with('{'), "an object"),
        FieldType::List => (json.starts_with('['), "a list"),
    };
    if is_valid { Ok(()) } else { Err(expected) }
}

fn fill_text(template: &Template, message: &Message) -> Result<String, InvalidMessage> {
    template.fill_from(|name| {
        Ok(match name {
            "message" => Cow::Borrowed(&*message.text),
            "channel" => Cow::Borrowed(message.channel.as_str()),
            "user_id" => match &message.user_id {
                Some(id) => Cow::Owned(id.to_string()),
                None => return Err("only signed-in users may send here".to_owned()),
            },
            "username" => Cow::Borrowed(message.username.as_deref().unwrap_or_default()),
            "connection_id" => Cow::Owned(message.connection_id.to_string()),
            "message_id" => Cow::Borrowed(&*message.message_id),
            "task_id" => Cow::Borrowed(&*message.task_id),
            name => Cow::Borrowed(message.params.get(name).unwrap_or_default()),
        })
    })
}

fn fill_integer(name: &str, template: &Template, message: &Message) -> Result<i64, InvalidMessage> {
    let digits = fill_text(template, message)?;
    // `007` and `+7` are the names of others than 7: of another user, or of a channel that this client may not join.
    let is_canonical = |number: &i64| number.to_string() == digits;
    let number = digits.parse().ok().filter(is_canonical);
    number.ok_or_else(|| format!("{name} is not an integer"))
}

#[cfg(test)]
mod tests;
