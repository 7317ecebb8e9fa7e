//! The stack machine that executes a pickle: a stack with marks, and a memo.

use std::collections::HashMap;

use super::opcodes::*;
use super::{MAX_BYTES, MAX_DEPTH, MAX_REPEATED_BYTES, Malformed, Value};

/// Reads the one value in `bytes`.
pub fn read(bytes: &[u8]) -> Result<Value<'_>, Malformed> {
    if bytes.len() > MAX_BYTES {
        return Err(Malformed::TooLong);
    }
    let &[PROTO, 2..=5, ref program @ ..] = bytes else { return Err(Malformed::Protocol) };
    let mut machine = Machine {
        rest: program,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        repeated: 0,
    };
    loop {
        match machine.byte()? {
            STOP => return machine.finish(),
            opcode => machine.step(opcode)?,
        }
    }
}

/// A value on the stack.
struct Slot<'a> {
    value: Value<'a>,
    /// The nesting of dicts, lists and sets: 0 for a scalar, at most [`MAX_DEPTH`]. Dropping the value
    /// recurses that deep.
    depth: u8,
}

struct Machine<'a> {
    rest: &'a [u8],
    stack: Vec<Slot<'a>>,
    /// The stack lengths at which a MARK was read, ascending.
    marks: Vec<usize>,
    /// The texts and numbers that the pickle may refer to. Dicts, lists and sets are stored as `None`, since
    /// a reference to them is refused. The input chooses the numbers, so a `Vec` could grow without bound.
    memo: HashMap<u32, Option<Value<'a>>>,
    /// Bytes of text that memo references have given; at most [`MAX_REPEATED_BYTES`].
    repeated: usize,
}

impl<'a> Machine<'a> {
    fn step(&mut self, opcode: u8) -> Result<(), Malformed> {
        match opcode {
            // A frame only announces how many bytes to read ahead.
            FRAME => self.number::<8>().map(drop),
            NONE => self.push(Value::None),
            NEWTRUE => self.push(Value::Bool(true)),
            NEWFALSE => self.push(Value::Bool(false)),
            BININT1 | BININT2 | BININT | LONG1 => {
                let value = self.integer(opcode)?;
                self.push(Value::Int(value))
            }
            BINFLOAT => {
                let value = f64::from_be_bytes(self.number()?);
                self.push(Value::Float(value))
            }
            SHORT_BINUNICODE | BINUNICODE | BINUNICODE8 => {
                let text = self.text(opcode)?;
                self.push(Value::Text(text))
            }
            EMPTY_DICT => self.push(Value::Dict(Vec::new())),
            EMPTY_LIST => self.push(Value::List(Vec::new())),
            EMPTY_SET => self.push(Value::Set(Vec::new())),
            MARK => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            SETITEM => self.fill(opcode, self.stack.len().checked_sub(2)),
            APPEND => self.fill(opcode, self.stack.len().checked_sub(1)),
            SETITEMS | APPENDS | ADDITEMS => {
                let mark = self.marks.pop();
                self.fill(opcode, mark)
            }
            MEMOIZE => {
                let number = u32::try_from(self.memo.len()).map_err(|_| Malformed::Stack)?;
                self.remember(number)
            }
            BINPUT => {
                let number = u32::from(self.byte()?);
                self.remember(number)
            }
            LONG_BINPUT => {
                let number = u32::from_le_bytes(self.number()?);
                self.remember(number)
            }
            BINGET => {
                let number = u32::from(self.byte()?);
                self.recall(number)
            }
            LONG_BINGET => {
                let number = u32::from_le_bytes(self.number()?);
                self.recall(number)
            }
            other => Err(Malformed::Opcode(other)),
        }
    }

    /// Exactly one value must be left on the stack, and no input.
    fn finish(mut self) -> Result<Value<'a>, Malformed> {
        if !self.rest.is_empty() {
            return Err(Malformed::Trailing);
        }
        match (self.stack.pop(), self.stack.is_empty() && self.marks.is_empty()) {
            (Some(slot), true) => Ok(slot.value),
            _ => Err(Malformed::Stack),
        }
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), Malformed> {
        let depth = u8::from(!value.is_scalar());
        self.stack.push(Slot { value, depth });
        Ok(())
    }

    /// Moves the stack from `start` on into the dict, list or set right below it, which must be above the
    /// last mark.
    fn fill(&mut self, opcode: u8, start: Option<usize>) -> Result<(), Malformed> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let start = start.filter(|start| *start > floor).ok_or(Malformed::Stack)?;
        let items = self.stack.split_off(start);
        let target = self.stack.last_mut().ok_or(Malformed::Stack)?;
        let deepest = items.iter().map(|item| item.depth).max().unwrap_or(0);
        target.depth = target.depth.max(deepest + 1);
        if target.depth > MAX_DEPTH {
            return Err(Malformed::TooDeep);
        }
        let mut items = items.into_iter().map(|item| item.value);
        match (&mut target.value, opcode) {
            (Value::List(list), APPEND | APPENDS) => list.extend(items),
            (Value::Set(set), ADDITEMS) => {
                for item in items {
                    set.push(hashable(item)?);
                }
            }
            (Value::Dict(pairs), SETITEM | SETITEMS) => {
                while let Some(key) = items.next() {
                    pairs.push((hashable(key)?, items.next().ok_or(Malformed::Stack)?));
                }
            }
            _ => return Err(Malformed::Stack),
        }
        Ok(())
    }

    fn remember(&mut self, number: u32) -> Result<(), Malformed> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let top = self.stack.get(floor..).and_then(<[_]>::last).ok_or(Malformed::Stack)?;
        let value = top.value.is_scalar().then(|| top.value.clone());
        self.memo.insert(number, value);
        Ok(())
    }

    fn recall(&mut self, number: u32) -> Result<(), Malformed> {
        let value = self.memo.get(&number).cloned().flatten().ok_or(Malformed::Stack)?;
        if let Value::Text(text) = &value {
            self.repeated += text.len();
            if self.repeated > MAX_REPEATED_BYTES {
                return Err(Malformed::TooRepetitive);
            }
        }
        self.push(value)
    }

    fn integer(&mut self, opcode: u8) -> Result<i64, Malformed> {
        Ok(match opcode {
            BININT1 => i64::from(self.byte()?),
            BININT2 => i64::from(u16::from_le_bytes(self.number()?)),
            BININT => i64::from(i32::from_le_bytes(self.number()?)),
            _ => {
                let length = usize::from(self.byte()?);
                let digits = self.take(length)?;
                let is_negative = digits.last().is_some_and(|last| last & 0x80 != 0);
                let mut value = [if is_negative { 0xff } else { 0 }; 8];
                value.get_mut(..length).ok_or(Malformed::Integer)?.copy_from_slice(digits);
                i64::from_le_bytes(value)
            }
        })
    }

    fn text(&mut self, opcode: u8) -> Result<&'a str, Malformed> {
        let length = match opcode {
            SHORT_BINUNICODE => u64::from(self.byte()?),
            BINUNICODE => u64::from(u32::from_le_bytes(self.number()?)),
            _ => u64::from_le_bytes(self.number()?),
        };
        let length = usize::try_from(length).map_err(|_| Malformed::Truncated)?;
        str::from_utf8(self.take(length)?).map_err(|_| Malformed::Text)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.rest.split_off_first().copied().ok_or(Malformed::Truncated)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (number, rest) = self.rest.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*number)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        self.rest.split_off(..length).ok_or(Malformed::Truncated)
    }
}

fn hashable(value: Value<'_>) -> Result<Value<'_>, Malformed> {
    if value.is_scalar() { Ok(value) } else { Err(Malformed::Stack) }
}
