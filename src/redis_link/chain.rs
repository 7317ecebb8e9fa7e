//! Several scripts in one round trip. Each runs only if all before it agreed, as if the caller had read each answer before
//! it sent the next.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use redis::{FromRedisValue, Script, ScriptInvocation, ToRedisArgs, Value};

use super::{Commands, RedisFailure};

/// In the keys of steps, stands for the text that a step before them has answered. No name has it. Only Redis knows such
/// keys, so that a cluster would need these steps one by one.
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
  if not agrees then break end
  answered = text or answered
end
return answers
";

/// The script of a chain, by the addresses of its steps' texts, which are shorter than the texts. A text that is in the
/// program twice only makes the same script twice.
type Chains = HashMap<Vec<(usize, usize)>, Arc<Script>>;

fn script(steps: &[Step]) -> Arc<Script> {
    /// As many as there are combinations of steps.
    static CHAINS: Mutex<Option<Chains>> = Mutex::new(None);

    let address = |step: &Step| (step.source.as_ptr().addr(), step.agrees.as_ptr().addr());
    let sources = steps.iter().map(address).collect();
    let mut chains = CHAINS.lock().unwrap_or_else(PoisonError::into_inner);
    let chains = chains.get_or_insert_default();
    Arc::clone(chains.entry(sources).or_insert_with(|| {
        let mut source = "local steps = {}\n".to_owned();
        for Step { source: step, agrees, .. } in steps {
            // Writing to a string cannot fail. The parameters hide the script's own KEYS and ARGV.
            let _ = writeln!(
                source,
                "steps[#steps + 1] = {{\nrun = function(KEYS, ARGV)\n{step}\nend,\n\
                 agrees = function(answer) return {agrees} end}}"
            );
        }
        Arc::new(Script::new(&(source + CHAIN)))
    }))
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

    /// Runs the steps in one round trip, for at most two seconds. Returns the answers of those that ran.
    pub async fn invoke_chain(&self, steps: &[Step]) -> Result<Vec<StepAnswer>, RedisFailure> {
        let script = script(steps);
        let mut call = script.prepare_invoke();
        for Step { keys, arguments, .. } in steps {
            keys.iter().for_each(|key| {
                call.key(key);
            });
            call.arg(keys.len()).arg(arguments.len());
            arguments.iter().for_each(|argument| {
                call.arg(&argument[..]);
            });
        }
        let answers: Vec<(bool, Value)> = self.invoke(&call).await?;
        let answer = |(ran, answer): (bool, Value)| {
            if !ran {
                let reason = String::from_redis_value(answer.clone()).unwrap_or_default();
                self.record_refusal(&reason);
            }
            ran.then_some(answer)
        };
        Ok(answers.into_iter().map(answer).collect())
    }
}

#[cfg(test)]
mod tests;
