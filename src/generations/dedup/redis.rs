//! Claims and answers in Redis, shared by all nodes.

use std::time::Duration;

use redis::Script;

use super::{Held, MessageKey};
use crate::redis_link::{Commands, EngineUnavailable, Needs, Step};

/// The beginning of a key's value: an answer, which the task id follows, or a claim.
const ANSWER: &[u8] = b"=";
const CLAIM: char = '?';

/// Messages are strings that expire: claims with their lease, answers with the route's `dedup_ttl`.
pub(super) struct RedisDedup {
    commands: Commands,
    prefix: String,
    claim: Script,
    finish: Script,
}

impl RedisDedup {
    pub(super) fn new(commands: Commands, key_prefix: &str) -> Self {
        let prefix = format!("{key_prefix}message:");
        let needs = [include_str!("claim.lua"), include_str!("finish.lua")]
            .into_iter()
            .fold(Needs::default(), |needs, source| needs.script(source, &prefix, ""));
        commands.declare("dedup", needs);
        Self {
            commands,
            prefix,
            claim: Script::new(include_str!("claim.lua")),
            finish: Script::new(include_str!("finish.lua")),
        }
    }

    pub(super) async fn claim(
        &self,
        message: &MessageKey,
        token: &str,
        lease: Duration,
    ) -> Result<Held, EngineUnavailable> {
        let step = self.claim_step(message, token, lease);
        Ok(Self::held(self.commands.invoke_step(&self.claim, &step).await?))
    }

    /// A call of claim.lua. What comes after it in a chain runs if the message is claimed.
    pub(super) fn claim_step(&self, message: &MessageKey, token: &str, lease: Duration) -> Step {
        let step = Step::new(include_str!("claim.lua"), "answer == false").key(self.key(message));
        step.arg(format!("{CLAIM}{token}")).arg(milliseconds(lease))
    }

    /// What the answer of claim.lua means.
    pub(super) fn held(answer: Option<Vec<u8>>) -> Held {
        match answer.as_deref().map(|value| value.strip_prefix(ANSWER)) {
            None => Held::Free,
            Some(None) => Held::Claimed,
            Some(Some(task_id)) => Held::Relayed(String::from_utf8_lossy(task_id).into_owned()),
        }
    }

    pub(super) fn commands(&self) -> &Commands {
        &self.commands
    }

    pub(super) async fn finish(
        &self,
        message: &MessageKey,
        token: &str,
        answer: Option<(&str, Duration)>,
    ) -> Result<(), EngineUnavailable> {
        let mut call = self.finish.prepare_invoke();
        call.key(self.key(message)).arg(format!("{CLAIM}{token}"));
        if let Some((task_id, ttl)) = answer {
            call.arg([ANSWER, task_id.as_bytes()].concat()).arg(milliseconds(ttl));
        }
        // 0 = another claim is there.
        let _: i64 = self.commands.invoke(&call).await?;
        Ok(())
    }

    /// In a cluster the message is in the slot of its sender, as are the sender's limits.
    fn key(&self, message: &MessageKey) -> String {
        match self.commands.is_cluster() {
            false => format!("{}{}", self.prefix, message.text),
            true => format!("{}{{{}}}:{}", self.prefix, message.sender(), message.text),
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}
