//! The tool calls of a reply that have begun and not ended.

use std::borrow::Cow;

use super::escaped::Escaped;
use super::item::CallKey;
use crate::protocol::pair_surrogates;

/// The most calls that are open at once.
const MAX_OPEN: usize = 128;
/// The most bytes of the names and arguments of all open calls.
const MAX_BYTES: usize = 1024 * 1024;

/// More or larger calls than a reply may have.
#[derive(Debug)]
pub(super) struct TooManyCalls;

#[derive(Default)]
pub(super) struct ToolCalls {
    open: Vec<OpenCall>,
    /// The number of calls so far.
    count: u64,
    bytes: usize,
}

pub(super) struct OpenCall {
    key: Key,
    choice: u64,
    /// As it is escaped, like all texts of this module.
    pub id: String,
    pub name: String,
    /// The parts so far.
    pub arguments: String,
    /// The first half of a surrogate pair whose other half has not come.
    half: String,
}

#[derive(PartialEq)]
enum Key {
    Number(u64, u64),
    Id(Box<str>),
}

impl Key {
    fn new(key: CallKey<'_>) -> Self {
        match key {
            CallKey::Number(choice, number) => Self::Number(choice, number),
            CallKey::Id(id) => Self::Id(id.into()),
        }
    }

    fn is(&self, key: CallKey<'_>) -> bool {
        match (self, key) {
            (Self::Number(choice, number), CallKey::Number(other_choice, other)) => {
                (*choice, *number) == (other_choice, other)
            }
            (Self::Id(id), CallKey::Id(other)) => **id == *other,
            _ => false,
        }
    }
}

impl ToolCalls {
    fn position(&self, key: CallKey<'_>) -> Option<usize> {
        self.open.iter().position(|call| call.key.is(key))
    }

    /// Whether a start with this id is that of another call than the one that is open under the key.
    pub fn is_replaced(&self, key: CallKey<'_>, id: &Escaped<'_>) -> bool {
        let open = self.position(key).and_then(|at| self.open.get(at));
        open.is_some_and(|call| !id.is_empty() && call.id != pair_surrogates(id.as_str()).0)
    }

    /// Returns the call if it is a new one. One without an id gets one.
    pub fn start(
        &mut self,
        key: CallKey<'_>,
        id: &Escaped<'_>,
        name: &Escaped<'_>,
        choice: u64,
    ) -> Result<Option<&OpenCall>, TooManyCalls> {
        if let Some(call) = self.position(key).and_then(|at| self.open.get_mut(at)) {
            if call.name.is_empty() {
                call.name = name.as_str().to_owned();
            }
            return Ok(None);
        }
        self.bytes += id.as_str().len() + name.as_str().len();
        if self.open.len() == MAX_OPEN || self.bytes > MAX_BYTES {
            return Err(TooManyCalls);
        }
        self.count += 1;
        let id = match id.is_empty() {
            true => format!("call_{}", self.count),
            false => pair_surrogates(id.as_str()).0.into_owned(),
        };
        self.open.push(OpenCall {
            key: Key::new(key),
            choice,
            id,
            name: pair_surrogates(name.as_str()).0.into_owned(),
            arguments: String::new(),
            half: String::new(),
        });
        Ok(self.open.last())
    }

    /// Adds a part of the arguments. Returns what of it can be published, and the call.
    pub fn add<'a>(
        &mut self,
        key: CallKey<'_>,
        text: &'a Escaped<'_>,
    ) -> Result<Option<(Cow<'a, str>, &OpenCall)>, TooManyCalls> {
        let Some(call) = self.position(key).and_then(|at| self.open.get_mut(at)) else {
            return Ok(None);
        };
        let text = pair_with(&mut call.half, text.as_str());
        self.bytes += text.len();
        if self.bytes > MAX_BYTES {
            return Err(TooManyCalls);
        }
        call.arguments.push_str(&text);
        Ok((!text.is_empty()).then_some((text, call)))
    }

    /// Removes a call that has ended, and returns it with its whole arguments: `arguments`, or those of its parts.
    pub fn end(&mut self, key: CallKey<'_>, arguments: Option<Escaped<'_>>) -> Option<OpenCall> {
        let at = self.position(key)?;
        let mut call = self.open.remove(at);
        self.bytes = self.bytes.saturating_sub(call.size());
        if let Some(whole) = arguments.filter(|whole| !whole.is_empty()) {
            call.arguments = pair_surrogates(whole.as_str()).0.into_owned();
        } else if !call.half.is_empty() {
            call.arguments.push_str("\\ufffd");
        }
        // Some APIs write nothing for a call without arguments.
        if call.arguments.is_empty() {
            call.arguments = "{}".to_owned();
        }
        Some(call)
    }

    /// The keys of the open calls of a choice, or of all, the oldest first.
    pub fn end_next(&mut self, choice: Option<u64>) -> Option<OpenCall> {
        let of_choice = |call: &&OpenCall| choice.is_none_or(|choice| call.choice == choice);
        let key = match &self.open.iter().find(of_choice)?.key {
            Key::Number(choice, number) => CallKey::Number(*choice, *number),
            Key::Id(id) => {
                let id = id.clone();
                return self.end(CallKey::Id(&id), None);
            }
        };
        self.end(key, None)
    }
}

impl OpenCall {
    pub fn choice(&self) -> u64 {
        self.choice
    }

    fn size(&self) -> usize {
        self.id.len() + self.name.len() + self.arguments.len()
    }
}

/// Puts the half that the text before has left in front of this one, and keeps the half that this one leaves.
pub(super) fn pair_with<'a>(half: &mut String, text: &'a str) -> Cow<'a, str> {
    let joined = match half.is_empty() {
        true => Cow::Borrowed(text),
        false => Cow::Owned(std::mem::take(half) + text),
    };
    match joined {
        Cow::Borrowed(text) => {
            let (paired, rest) = pair_surrogates(text);
            half.push_str(rest);
            paired
        }
        Cow::Owned(text) => {
            let (paired, rest) = pair_surrogates(&text);
            half.push_str(rest);
            Cow::Owned(paired.into_owned())
        }
    }
}
