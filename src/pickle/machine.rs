//! The stack machine that executes a pickle: a stack with marks, and a memo. Nothing of Python is executed.

use std::collections::HashMap;

use super::opcodes::{self, *};
use super::operands::Input;
use super::standard::{Makes, Skipped, class};
use super::value::{Container, ContainerId};
use super::{MAX_BYTES, Malformed, Pickle, Refusal, Refused, Value};

/// Stands for what is refused, so that the field in which it stands can be found.
const REFUSED: Value<'static> = Value::Skipped(Skipped("a refused type"));

/// How many values are visited to find what is refused. It only makes an error text better.
const MAX_VISITED: usize = 1000;

/// The longest name in an error.
const MAX_NAME_CHARS: usize = 100;

/// Reads the one value in `bytes`.
pub fn read(bytes: &[u8]) -> Result<Pickle<'_>, Malformed> {
    if bytes.len() > MAX_BYTES {
        return Err(Malformed::TooLong);
    }
    let program = match bytes {
        [PROTO, 2..=5, program @ ..] => program,
        [PROTO, ..] => return Err(Malformed::Protocol),
        // The protocols 0 and 1 have no head.
        program => program,
    };
    let mut machine = Machine {
        input: Input(program),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        containers: Vec::new(),
        refused: None,
    };
    let outcome = machine.run();
    match (machine.refused.clone(), outcome) {
        (None, outcome) => outcome.map(|root| Pickle { containers: machine.containers, root }),
        (Some(what), outcome) => {
            let field = outcome.ok().and_then(|root| machine.refused_field(&root));
            Err(Malformed::Refused(Refusal { what, field }))
        }
    }
}

struct Machine<'a> {
    input: Input<'a>,
    stack: Vec<Value<'a>>,
    /// The stack lengths at which a MARK was read, ascending.
    marks: Vec<usize>,
    /// The values that the pickle may refer to. The input chooses the numbers, so a `Vec` could grow without bound.
    memo: HashMap<u32, Value<'a>>,
    containers: Vec<Container<'a>>,
    /// The first thing that is refused. The rest is only read to find out where it stands.
    refused: Option<Refused>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Value<'a>, Malformed> {
        loop {
            match self.input.byte()? {
                STOP => break,
                opcode => self.step(opcode)?,
            }
        }
        if !self.input.0.is_empty() {
            return Err(Malformed::Trailing);
        }
        match (self.stack.pop(), self.stack.is_empty() && self.marks.is_empty()) {
            (Some(root), true) => Ok(root),
            _ => Err(Malformed::Stack),
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), Malformed> {
        if let Some(scalar) = self.input.scalar(opcode)? {
            self.stack.push(scalar);
            return Ok(());
        }
        match opcode {
            // A frame only announces how many bytes to read ahead.
            FRAME => return self.input.number::<8>().map(drop),
            MARK => self.marks.push(self.stack.len()),
            EMPTY_DICT => self.push_container(Container::Dict(Vec::new())),
            EMPTY_LIST => self.push_container(Container::List(Vec::new())),
            EMPTY_SET => self.push_container(Container::Set(Vec::new())),
            EMPTY_TUPLE => self.push_container(Container::Tuple(Vec::new())),
            TUPLE1 | TUPLE2 | TUPLE3 => {
                let items = self.take_top(usize::from(opcode - TUPLE1) + 1)?;
                self.push_container(Container::Tuple(items));
            }
            TUPLE | LIST | FROZENSET | DICT => {
                let items = self.take_marked()?;
                self.push_container(match opcode {
                    TUPLE => Container::Tuple(items),
                    LIST => Container::List(items),
                    FROZENSET => Container::Set(self.hashable(items)?),
                    _ => Container::Dict(self.pairs(items)?),
                });
            }
            SETITEM | APPEND => {
                let items = self.take_top(if opcode == SETITEM { 2 } else { 1 })?;
                self.fill(opcode, items)?;
            }
            SETITEMS | APPENDS | ADDITEMS => {
                let items = self.take_marked()?;
                self.fill(opcode, items)?;
            }
            POP if self.marks.last() == Some(&self.stack.len()) => drop(self.marks.pop()),
            POP => drop(self.pop()?),
            POP_MARK => drop(self.take_marked()?),
            DUP => {
                let top = self.top()?.clone();
                self.stack.push(top);
            }
            MEMOIZE | PUT | BINPUT | LONG_BINPUT => {
                let number = match opcode {
                    MEMOIZE => u32::try_from(self.memo.len()).map_err(|_| Malformed::Stack)?,
                    _ => self.memo_number(opcode)?,
                };
                let top = self.top()?.clone();
                self.memo.insert(number, top);
            }
            GET | BINGET | LONG_BINGET => {
                let number = self.memo_number(opcode)?;
                let value = self.memo.get(&number).ok_or(Malformed::Stack)?;
                self.stack.push(value.clone());
            }
            GLOBAL => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                let (module, name) =
                    (String::from_utf8_lossy(module), String::from_utf8_lossy(name));
                self.push_class(&module, &name);
            }
            STACK_GLOBAL => {
                let names = self.take_top(2)?;
                let [module, name] = &names[..] else { return Err(Malformed::Stack) };
                let names = module.as_text().zip(name.as_text());
                let (module, name) = names.ok_or(Malformed::Operand)?;
                self.push_class(module, name);
            }
            REDUCE | NEWOBJ => {
                let call = self.take_top(2)?;
                self.construct(&call)?;
            }
            NEWOBJ_EX => {
                let call = self.take_top(3)?;
                self.construct(&call)?;
            }
            BUILD => {
                let state = self.pop()?;
                let is_refused = self.has_refused(&state);
                match self.top_mut()? {
                    top if is_refused => *top = REFUSED,
                    Value::Skipped(_) => {}
                    _ => return Err(Malformed::Stack),
                }
            }
            other => return self.refuse_opcode(other),
        }
        Ok(())
    }

    /// Skips the operands of an opcode that is never read past.
    fn refuse_opcode(&mut self, opcode: u8) -> Result<(), Malformed> {
        let name = opcodes::refused(opcode).ok_or(Malformed::Opcode(opcode))?;
        self.refuse(Refused::Opcode(name));
        match name {
            "INST" => {
                let _ = (self.input.line()?, self.input.line()?, self.take_marked()?);
            }
            "OBJ" => drop(self.take_marked()?),
            "PERSID" => drop(self.input.line()?),
            "EXT1" => drop(self.input.take(1)?),
            "EXT2" => drop(self.input.take(2)?),
            "EXT4" => drop(self.input.take(4)?),
            "BINPERSID" | "READONLY_BUFFER" => drop(self.pop()?),
            _ => {}
        }
        self.stack.push(REFUSED);
        Ok(())
    }

    fn refuse(&mut self, what: Refused) {
        self.refused.get_or_insert(what);
    }

    /// Pushes the class or function with this name.
    fn push_class(&mut self, module: &str, name: &str) {
        let value = match class(module, name) {
            Some(class) => Value::Class(class),
            None => {
                self.refuse(Refused::Global(shown(&format!("{module}.{name}"))));
                REFUSED
            }
        };
        self.stack.push(value);
    }

    /// Pushes what a call of `class` with `args` would make; `call` has both, and perhaps keyword arguments.
    fn construct(&mut self, call: &[Value<'a>]) -> Result<(), Malformed> {
        let [called, args, ..] = call else { return Err(Malformed::Stack) };
        if call.iter().any(|value| self.has_refused(value)) {
            self.stack.push(REFUSED);
            return Ok(());
        }
        let Value::Class(class) = *called else { return Err(Malformed::Stack) };
        let args = match self.container(args) {
            Some(Container::Tuple(args)) => &args[..],
            _ => return Err(Malformed::Stack),
        };
        let made = match (class.makes(), args) {
            // The list and its set are one container, so that no call copies anything.
            (Makes::Set, [items]) if self.container(items).is_some() => items.clone(),
            (Makes::Set, []) => {
                self.push_container(Container::Set(Vec::new()));
                return Ok(());
            }
            (Makes::Dict, []) => {
                self.push_container(Container::Dict(Vec::new()));
                return Ok(());
            }
            (Makes::FirstArgument, [Value::Class(made), ..]) => Value::Skipped(made.skipped()),
            (Makes::Attribute, [Value::Class(owner), name])
                if owner.skipped() == Skipped("ZoneInfo")
                    && name.as_text() == Some("_unpickle") =>
            {
                Value::Class(*owner)
            }
            (Makes::FirstArgument | Makes::Attribute, _) => {
                self.refuse(Refused::Global(class.skipped().0.to_owned()));
                REFUSED
            }
            (Makes::Value | Makes::Set | Makes::Dict, _) => Value::Skipped(class.skipped()),
        };
        self.stack.push(made);
        Ok(())
    }

    /// Moves `items` into the container on top of the stack. What is added to a value of which only the type is known
    /// is dropped.
    fn fill(&mut self, opcode: u8, items: Vec<Value<'a>>) -> Result<(), Malformed> {
        let id = match self.top()? {
            Value::Container(ContainerId(id)) => *id,
            Value::Skipped(_) => {
                if items.iter().any(|item| self.has_refused(item)) {
                    *self.top_mut()? = REFUSED;
                }
                return Ok(());
            }
            _ => return Err(Malformed::Stack),
        };
        match (opcode, self.containers.get(id)) {
            (SETITEM | SETITEMS, Some(Container::Dict(_))) => {
                let new = self.pairs(items)?;
                if let Some(Container::Dict(pairs)) = self.containers.get_mut(id) {
                    pairs.extend(new);
                }
            }
            (ADDITEMS, Some(Container::Set(_))) => {
                let new = self.hashable(items)?;
                if let Some(Container::Set(set)) = self.containers.get_mut(id) {
                    set.extend(new);
                }
            }
            (APPEND | APPENDS, Some(Container::List(_))) => {
                if let Some(Container::List(list)) = self.containers.get_mut(id) {
                    list.extend(items);
                }
            }
            _ => return Err(Malformed::Stack),
        }
        Ok(())
    }

    fn pairs(&self, items: Vec<Value<'a>>) -> Result<Vec<(Value<'a>, Value<'a>)>, Malformed> {
        let mut pairs = Vec::with_capacity(items.len() / 2);
        let mut items = items.into_iter();
        while let Some(key) = items.next() {
            let value = items.next().ok_or(Malformed::Stack)?;
            pairs.push((key, value));
        }
        match pairs.iter().all(|(key, _)| self.is_hashable(key)) {
            true => Ok(pairs),
            false => Err(Malformed::Stack),
        }
    }

    fn hashable(&self, items: Vec<Value<'a>>) -> Result<Vec<Value<'a>>, Malformed> {
        match items.iter().all(|item| self.is_hashable(item)) {
            true => Ok(items),
            false => Err(Malformed::Stack),
        }
    }

    /// Whether Python would accept the value as a dict's key. A frozenset is not told from a set.
    fn is_hashable(&self, value: &Value<'a>) -> bool {
        !matches!(self.container(value), Some(Container::List(_) | Container::Dict(_)))
    }

    fn container(&self, value: &Value<'a>) -> Option<&Container<'a>> {
        match value {
            Value::Container(ContainerId(id)) => self.containers.get(*id),
            _ => None,
        }
    }

    fn push_container(&mut self, container: Container<'a>) {
        self.stack.push(Value::Container(ContainerId(self.containers.len())));
        self.containers.push(container);
    }

    fn memo_number(&mut self, opcode: u8) -> Result<u32, Malformed> {
        Ok(match opcode {
            PUT | GET => self.input.number_line()?,
            BINPUT | BINGET => u32::from(self.input.byte()?),
            _ => u32::from_le_bytes(self.input.number()?),
        })
    }

    /// The stack length below which nothing is reached, because a mark stands there.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<&Value<'a>, Malformed> {
        self.stack.get(self.floor()..).and_then(<[_]>::last).ok_or(Malformed::Stack)
    }

    fn top_mut(&mut self) -> Result<&mut Value<'a>, Malformed> {
        let floor = self.floor();
        self.stack.get_mut(floor..).and_then(<[_]>::last_mut).ok_or(Malformed::Stack)
    }

    fn pop(&mut self) -> Result<Value<'a>, Malformed> {
        self.top()?;
        self.stack.pop().ok_or(Malformed::Stack)
    }

    fn take_top(&mut self, count: usize) -> Result<Vec<Value<'a>>, Malformed> {
        let start = self.stack.len().checked_sub(count).ok_or(Malformed::Stack)?;
        if start < self.floor() {
            return Err(Malformed::Stack);
        }
        Ok(self.stack.split_off(start))
    }

    fn take_marked(&mut self) -> Result<Vec<Value<'a>>, Malformed> {
        let mark = self.marks.pop().ok_or(Malformed::Stack)?;
        if mark > self.stack.len() {
            return Err(Malformed::Stack);
        }
        Ok(self.stack.split_off(mark))
    }

    /// The field of the outermost dict that has what is refused.
    fn refused_field(&self, root: &Value<'a>) -> Option<String> {
        let Some(Container::Dict(pairs)) = self.container(root) else { return None };
        let (name, _) = pairs.iter().find(|(_, value)| self.has_refused(value))?;
        name.as_text().map(shown)
    }

    /// Whether the value is or has what is refused, as far as that is found quickly.
    fn has_refused(&self, value: &Value<'a>) -> bool {
        if self.refused.is_none() {
            return false;
        }
        let mut waiting = vec![value];
        for _ in 0..MAX_VISITED {
            let Some(value) = waiting.pop() else { return false };
            if *value == REFUSED {
                return true;
            }
            match self.container(value) {
                Some(Container::Dict(pairs)) => {
                    waiting.extend(pairs.iter().take(MAX_VISITED).map(|(_, value)| value));
                }
                Some(Container::List(items) | Container::Tuple(items) | Container::Set(items)) => {
                    waiting.extend(items.iter().take(MAX_VISITED));
                }
                None => {}
            }
        }
        false
    }
}

/// A name from the input for an error text: without what is not part of a name, and short.
fn shown(name: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-');
    name.chars().take(MAX_NAME_CHARS).map(|c| if is_plain(c) { c } else { '?' }).collect()
}
