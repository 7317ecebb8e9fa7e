//! The keyword arguments of a task, made from one message as configured.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::super::Message;
use super::client_json::ClientObject;
use crate::config::{ClientField, FieldType, Kwarg, Kwargs, Missing};
use crate::protocol::Template;

/// Why a message cannot become a task, as a text for its client.
pub(super) type InvalidMessage = String;

/// Fills in the arguments. Texts of the client become JSON strings, never parts of another value's JSON.
pub(super) fn fill(
    kwargs: &Kwargs,
    message: &Message,
) -> Result<Map<String, Value>, InvalidMessage> {
    let mut filled = Map::new();
    let mut object = None;
    for (name, kwarg) in kwargs {
        let value = match kwarg {
            Kwarg::Text(template) => fill_text(template, message)?.into(),
            Kwarg::Integer(template) => fill_integer(name, template, message)?.into(),
            Kwarg::Constant(value) => value.clone(),
            Kwarg::Field(wanted) => {
                let object = match &object {
                    Some(object) => object,
                    None => object.insert(
                        ClientObject::read(&message.data)
                            .ok_or("the message holds a name that cannot be passed on")?,
                    ),
                };
                match read_field(wanted, object)? {
                    Some(value) => value,
                    None => continue,
                }
            }
        };
        filled.insert(name.clone(), value);
    }
    Ok(filled)
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

/// Reads a field of the client's object; `None` = the task does not get the argument.
fn read_field(
    wanted: &ClientField,
    object: &ClientObject<'_>,
) -> Result<Option<Value>, InvalidMessage> {
    let name = &wanted.name;
    let Some(value) = object.field(name) else {
        return match &wanted.missing {
            Missing::Refuse => Err(format!("{name} is required")),
            Missing::Omit => Ok(None),
            Missing::Default(value) => Ok(Some(value.clone())),
        };
    };
    let value = value.map_err(|problem| format!("{name} {problem}"))?;
    let (is_valid, expected) = match wanted.kind {
        FieldType::Any => (true, ""),
        FieldType::Text => (value.is_string(), "a text"),
        FieldType::Int => (value.is_i64() || value.is_u64(), "an integer"),
        FieldType::Number => (value.is_number(), "a number"),
        FieldType::Bool => (value.is_boolean(), "true or false"),
        FieldType::Object => (value.is_object(), "an object"),
        FieldType::List => (value.is_array(), "a list"),
    };
    if is_valid { Ok(Some(value)) } else { Err(format!("{name} must be {expected}")) }
}
