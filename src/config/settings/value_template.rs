//! Values that are filled from a message: the keyword arguments of Celery tasks and the bodies of HTTP requests.

use crate::protocol::Template;

/// The members of a JSON object, in the order of their names.
pub type ObjectTemplate = Vec<(String, ValueTemplate)>;

/// Where a JSON value comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueTemplate {
    /// A text with placeholders.
    Text(Template),
    /// A text with placeholders that must result in an integer.
    Integer(Template),
    Constant(serde_json::Value),
    /// A field of the object that the client sent.
    Field(ClientField),
    Object(ObjectTemplate),
    List(Vec<ListItem>),
}

/// Who reads the JSON that templates are filled into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadBy {
    /// A Celery worker, whose decoder gives objects with `__type__` and `__value__` a special meaning.
    Celery,
    HttpServer,
}

/// What stands in a list.
#[derive(Debug, Clone, PartialEq)]
pub enum ListItem {
    One(ValueTemplate),
    /// All elements of a list that the client sent.
    Spread(ClientField),
}

#[derive(Debug, Clone, PartialEq)]
pub struct ClientField {
    pub name: Box<str>,
    pub kind: FieldType,
    pub missing: Missing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    Any,
    Text,
    Int,
    Number,
    Bool,
    Object,
    List,
}

/// What happens if a field is missing or null.
#[derive(Debug, Clone, PartialEq)]
pub enum Missing {
    /// The message is refused.
    Refuse,
    /// The member or element is left out.
    Omit,
    Default(serde_json::Value),
}

impl ValueTemplate {
    /// Calls `check` for each text with placeholders, with its key. `key` is that of this value.
    pub fn for_each_text(&self, key: &str, check: &mut impl FnMut(&str, &Template)) {
        match self {
            Self::Text(template) | Self::Integer(template) => check(key, template),
            Self::Object(members) => {
                for (name, value) in members {
                    value.for_each_text(&format!("{key}.{name}"), check);
                }
            }
            Self::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    if let ListItem::One(value) = item {
                        value.for_each_text(&format!("{key}[{index}]"), check);
                    }
                }
            }
            Self::Constant(_) | Self::Field(_) => {}
        }
    }

    /// Adds the names of all fields of the client's object that are used, some of them several times.
    pub fn field_names<'a>(&'a self, names: &mut Vec<&'a str>) {
        match self {
            Self::Field(field) => names.push(&field.name),
            Self::Object(members) => {
                members.iter().for_each(|(_, value)| value.field_names(names));
            }
            Self::List(items) => items.iter().for_each(|item| match item {
                ListItem::One(value) => value.field_names(names),
                ListItem::Spread(field) => names.push(&field.name),
            }),
            Self::Text(_) | Self::Integer(_) | Self::Constant(_) => {}
        }
    }
}
