//! Presence in Redis, by Redis' clock. Each channel has three keys; its name in braces puts them into one cluster
//! slot.

use std::time::Duration;

use redis::{FromRedisValue, Script, ScriptInvocation, Value};

use super::{Change, Member, Page, PresenceError, SWEEP_LIMIT};
use crate::protocol::{ChannelName, ConnectionId};
use crate::redis_link::{Commands, Needs, RedisFailure};

pub(super) struct RedisPresence {
    commands: Commands,
    /// `[engine.redis] key_prefix`.
    prefix: Box<str>,
    lease_ms: u64,
    renew: Script,
    leave: Script,
    list: Script,
}

impl From<RedisFailure> for PresenceError {
    fn from(failure: RedisFailure) -> Self {
        match failure {
            RedisFailure::Unavailable => Self::Unavailable,
            RedisFailure::Refused(_) => Self::Refused,
        }
    }
}

impl RedisPresence {
    pub(super) fn new(commands: Commands, prefix: &str, lease: Duration) -> Self {
        let script =
            |source: &str| Script::new(&format!("{}\n{source}", include_str!("channel.lua")));
        Self {
            commands,
            prefix: prefix.into(),
            lease_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
            renew: script(include_str!("renew.lua")),
            leave: script(include_str!("leave.lua")),
            list: script(include_str!("list.lua")),
        }
    }

    /// Declares what presence on channels such as `channel` sends to Redis; `None` if no channel has it.
    pub(super) fn declare_needs(&self, channel: Option<&str>) {
        let needs = channel.map_or(Needs::default(), |channel| {
            let key = self.commands.channel_key(&self.prefix, channel, "presence");
            let scripts = [
                include_str!("channel.lua"),
                include_str!("renew.lua"),
                include_str!("leave.lua"),
                include_str!("list.lua"),
            ];
            scripts
                .into_iter()
                .fold(Needs::default(), |needs, source| needs.script(source, &key, channel))
        });
        self.commands.declare("presence", needs);
    }

    /// Renews the leases of `members`, and adds missing members.
    pub(super) async fn renew(
        &self,
        channel: &ChannelName,
        members: &[&Member],
    ) -> Result<Vec<Change>, PresenceError> {
        let mut call = self.call(&self.renew, channel);
        call.arg(self.lease_ms).arg(SWEEP_LIMIT);
        members.iter().for_each(|member| {
            call.arg(member.to_text());
        });
        Ok(changes(self.commands.invoke(&call).await?))
    }

    pub(super) async fn leave(
        &self,
        channel: &ChannelName,
        members: &[&Member],
    ) -> Result<Vec<Change>, PresenceError> {
        let mut call = self.call(&self.leave, channel);
        call.arg(SWEEP_LIMIT);
        members.iter().for_each(|member| {
            call.arg(member.connection_id.to_string());
        });
        Ok(changes(self.commands.invoke(&call).await?))
    }

    /// Lists members. `None` if more expired members have to be removed first, by calling again.
    pub(super) async fn list(
        &self,
        channel: &ChannelName,
        after: Option<ConnectionId>,
        limit: usize,
    ) -> Result<(Vec<Change>, Option<Page>), PresenceError> {
        let mut call = self.call(&self.list, channel);
        call.arg(SWEEP_LIMIT).arg(after.map_or_else(String::new, String::from)).arg(limit);
        let answer: Vec<Value> = self.commands.invoke(&call).await?;
        let mut fields = answer.into_iter();
        let changed = changes(read(fields.next()).ok_or(PresenceError::Refused)?);
        Ok((changed, page(fields, limit)))
    }

    fn call<'a>(&self, script: &'a Script, channel: &ChannelName) -> ScriptInvocation<'a> {
        let mut call = script.prepare_invoke();
        let key = self.commands.channel_key(&self.prefix, channel.as_str(), "presence");
        call.key(&key).key(format!("{key}:members")).key(format!("{key}:users"));
        call
    }
}

fn read<T: FromRedisValue>(value: Option<Value>) -> Option<T> {
    T::from_redis_value(value?).ok()
}

/// Parses the changes in an answer. Texts that are not members were not written by a gateway and are ignored.
fn changes(answer: Vec<(u8, Vec<u8>)>) -> Vec<Change> {
    let change = |(joined, text): (u8, Vec<u8>)| {
        Some(Change { joined: joined == 1, member: Member::from_text(&text)? })
    };
    answer.into_iter().filter_map(change).collect()
}

fn page(mut fields: impl Iterator<Item = Value>, limit: usize) -> Option<Page> {
    let total_connections = read(fields.next())?;
    let total_users = read(fields.next())?;
    let mut listed: Vec<(Vec<u8>, u64)> = read(fields.next())?;
    let more = listed.len() > limit;
    listed.truncate(limit);
    let member =
        |(text, connections): (Vec<u8>, u64)| Some((Member::from_text(&text)?, connections));
    let members = listed.into_iter().filter_map(member).collect();
    Some(Page { members, more, total_connections, total_users })
}
