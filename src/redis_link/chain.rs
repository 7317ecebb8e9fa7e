//! Several scripts in one round trip. Each runs only if all before it agreed, as if the caller had read each answer before
//! it sent the next. In a cluster they take a round trip for each slot that they have keys in, one after the other.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use redis::{FromRedisValue, Script, ScriptInvocation, ToRedisArgs, Value};

use super::slots::slot_of;
use super::{Commands, RedisFailure};

/// In the keys of steps, stands for the text that a step before them has answered. No name has it.
pub const ANSWERED: &str = "\0";

/// A call of a script.
pub struct Step {
    source: &'static str,
    /// A Lua expression about `answer`: whether the next step of a chain runs. It may have a second value, a text that
    /// stands for [`ANSWERED`] in the keys of the steps after it.
    agrees: &'static str,
    keys: Vec<String>,
    arguments: Vec<Vec<u8>>,
}

impl Step {
    /// `agrees` is a Lua expression about `answer`, which is what the script returned.
    pub fn new(source: &'static str, agrees: &'static str) -> Self {
        Self { source, agrees, keys: Vec::new(), arguments: Vec::new() }
    }

    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.keys.push(key.into());
        self
    }

    pub fn arg(mut self, argument: impl ToRedisArgs) -> Self {
        argument.write_redis_args(&mut self.arguments);
        self
    }

    fn call<'a>(&self, script: &'a Script) -> ScriptInvocation<'a> {
        let mut call = script.prepare_invoke();
        self.keys.iter().for_each(|key| {
            call.key(key);
        });
        self.arguments.iter().for_each(|argument| {
            call.arg(&argument[..]);
        });
        call
    }
}

/// The answer to a step of a chain. `None` = the step, which is not the first, failed in Redis, and none after it ran.
pub type StepAnswer = Option<Value>;

/// Around the steps, which come before it. ARGV: for each step the number of its keys, the number of its arguments, and
/// these. Returns for each step that ran 1 and its answer, or 0 and why it failed. The failure of the first step is that of
/// the call.
const CHAIN: &str = "
local answers, key, arg, answered = {}, 0, 0, nil
for number, step in ipairs(steps) do
  local keys, args = {}, {}
  for i = 1, tonumber(ARGV[arg + 1]) do keys[i] = KEYS[key + i] end
  for i = 1, tonumber(ARGV[arg + 2]) do args[i] = ARGV[arg + 2 + i] end
  key, arg = key + #keys, arg + 2 + #args
  if answered then
    for i, name in ipairs(keys) do
      keys[i] = string.gsub(name, '%z', function() return answered end)
    end
  end
  local ran, answer = true, nil
  if number == 1 then
    answer = step.run(keys, args)
  else
    ran, answer = pcall(step.run, keys, args)
  end
  if ran and type(answer) == 'table' and answer.err then
    if number == 1 then return answer end
    ran, answer = false, answer.err
  end
  if not ran then
    answers[number] = {0, type(answer) == 'table' and answer.err or tostring(answer)}
    break
  end
  answers[number] = {1, answer or false}
  local agrees, text = step.agrees(answer)
";

/// The end of the script: the answers.
const END: &str = "
  if not agrees then break end
  answered = text or answered
end
return answers
";

/// The end where more steps follow on other nodes of a cluster: the answers, whether they run, and the text that was
/// answered.
const END_OF_PART: &str = "
  answered = text or answered
  if not agrees then return {answers, false, false} end
end
return {answers, #answers == #steps and answers[#answers][1] == 1, answered or false}
";

/// The script of a chain, by the addresses of its steps' texts, which are shorter than the texts. A text that is in the
/// program twice only makes the same script twice.
type Chains = HashMap<(Vec<(usize, usize)>, usize), Arc<Script>>;

/// `end` is one of the two ends.
fn script(steps: &[Step], end: &'static str) -> Arc<Script> {
    /// As many as there are combinations of steps.
    static CHAINS: Mutex<Option<Chains>> = Mutex::new(None);

    let address = |step: &Step| (step.source.as_ptr().addr(), step.agrees.as_ptr().addr());
    let sources = steps.iter().map(address).collect();
    let mut chains = CHAINS.lock().unwrap_or_else(PoisonError::into_inner);
    let chains = chains.get_or_insert_default();
    Arc::clone(chains.entry((sources, end.as_ptr().addr())).or_insert_with(|| {
        let mut source = "local steps = {}\n".to_owned();
        for Step { source: step, agrees, .. } in steps {
            // Writing to a string cannot fail. The parameters hide the script's own KEYS and ARGV.
            let _ = writeln!(
                source,
                "steps[#steps + 1] = {{\nrun = function(KEYS, ARGV)\n{step}\nend,\n\
                 agrees = function(answer) return {agrees} end}}"
            );
        }
        Arc::new(Script::new(&(source + CHAIN + end)))
    }))
}

/// A call of the script of `steps`, in whose keys `answered` takes the place of [`ANSWERED`] if it is known.
fn call<'a>(script: &'a Script, steps: &[Step], answered: Option<&str>) -> ScriptInvocation<'a> {
    let mut call = script.prepare_invoke();
    for step @ Step { keys, arguments, .. } in steps {
        step.keys(answered).for_each(|key| {
            call.key(&*key);
        });
        call.arg(keys.len()).arg(arguments.len());
        arguments.iter().for_each(|argument| {
            call.arg(&argument[..]);
        });
    }
    call
}

impl Step {
    fn keys<'a>(&'a self, answered: Option<&'a str>) -> impl Iterator<Item = Cow<'a, str>> {
        self.keys.iter().map(move |key| match answered {
            Some(answered) if key.contains(ANSWERED) => Cow::Owned(key.replace(ANSWERED, answered)),
            _ => Cow::Borrowed(key.as_str()),
        })
    }

    /// The slot of the first key; all others must be in the same one.
    fn slot(&self, answered: Option<&str>) -> Option<u16> {
        self.keys(answered).next().map(|key| slot_of(key.as_bytes()))
    }

    fn needs_answer(&self) -> bool {
        self.keys.iter().any(|key| key.contains(ANSWERED))
    }

    /// Whether it may answer a text for the keys of the steps after it: `agrees` has a second value.
    fn gives_answer(&self) -> bool {
        self.agrees.contains(',')
    }
}

/// How many of `steps`, at least one, have their keys in one slot, as far as that is known before they run.
fn steps_in_one_slot(steps: &[Step], answered: Option<&str>) -> usize {
    let slot = steps.first().and_then(|first| first.slot(answered));
    let mut gives_answer = false;
    let is_with_first = |step: &&Step| {
        let is_known = !(gives_answer && step.needs_answer());
        gives_answer |= step.gives_answer();
        is_known && step.slot(answered) == slot
    };
    steps.iter().take_while(is_with_first).count().max(1)
}

impl Commands {
    /// Calls the script of one step.
    pub async fn invoke_step<T: FromRedisValue>(
        &self,
        script: &Script,
        step: &Step,
    ) -> Result<T, RedisFailure> {
        self.invoke(&step.call(script)).await
    }

    /// Runs the steps, in one round trip on one server, for at most two seconds. Returns the answers of those that ran.
    /// In a cluster each step is atomic by itself, and each slot has two seconds; what a failed step has done stays.
    pub async fn invoke_chain(&self, steps: &[Step]) -> Result<Vec<StepAnswer>, RedisFailure> {
        if self.is_cluster() {
            return Box::pin(self.invoke_parts(steps)).await;
        }
        let script = script(steps, END);
        let answers: Vec<(bool, Value)> = self.invoke(&call(&script, steps, None)).await?;
        Ok(answers.into_iter().map(|answer| self.step_answer(answer)).collect())
    }

    fn step_answer(&self, (ran, answer): (bool, Value)) -> StepAnswer {
        if !ran {
            let reason = String::from_redis_value(answer.clone()).unwrap_or_default();
            self.record_refusal(&reason);
        }
        ran.then_some(answer)
    }

    /// Runs the steps in as many calls as there are slots on the way.
    async fn invoke_parts(&self, mut steps: &[Step]) -> Result<Vec<StepAnswer>, RedisFailure> {
        type Part = (Vec<(bool, Value)>, bool, Option<String>);

        let mut answers: Vec<StepAnswer> = Vec::with_capacity(steps.len());
        let mut answered: Option<String> = None;
        while !steps.is_empty() {
            let length = steps_in_one_slot(steps, answered.as_deref());
            let (part, rest) = steps.split_at(length);
            let script = script(part, END_OF_PART);
            let called = self.invoke::<Part>(&call(&script, part, answered.as_deref())).await;
            let (of_part, goes_on, text) = match called {
                Ok(called) => called,
                Err(failure) if answers.is_empty() => return Err(failure),
                Err(_) => {
                    // As on one server, the step that failed is the last one with an answer.
                    answers.push(None);
                    return Ok(answers);
                }
            };
            answers.extend(of_part.into_iter().map(|answer| self.step_answer(answer)));
            if !goes_on {
                return Ok(answers);
            }
            answered = text.or(answered);
            steps = rest;
        }
        Ok(answers)
    }
}

#[cfg(test)]
mod tests;
