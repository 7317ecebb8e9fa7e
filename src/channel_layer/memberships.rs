//! The memberships of this node in groups of a `RedisChannelLayer`, which are joined, renewed and left on the
//! hosts of the groups.

use std::time::Duration;

use redis::Script;
use tokio::sync::watch;

use super::mailbox::TAKE;
use super::other_mailbox::{self, READ_ON};
use super::{MailboxNames, MailboxPosition, Unconfirmed, host_of};
use crate::clock;
use crate::config::ChannelsLayer;
use crate::protocol::ChannelName;
use crate::redis_link::{Commands, Needs, RedisFailure};
use crate::shutdown::Shutdown;

/// The most groups in one write.
const GROUPS_PER_WRITE: usize = 500;

/// The outcome of joining one group.
#[derive(Debug)]
pub struct Joined {
    pub channel: ChannelName,
    /// Whether the node was not a member before; `Err` if Redis refuses this group.
    pub is_new: Result<bool, RedisFailure>,
}

/// The memberships on all hosts of the layer.
pub struct Memberships {
    hosts: Vec<Commands>,
    names: MailboxNames,
    group_expiry: Duration,
    /// How long the layer keeps a message.
    expiry: Duration,
    /// The most messages that the backend puts into a mailbox.
    capacity: usize,
    read_on: Script,
}

impl Memberships {
    pub fn start(
        layer: &ChannelsLayer,
        names: MailboxNames,
        shutdown: &Shutdown,
    ) -> Result<Self, String> {
        let host = |(number, url)| {
            let name = match number {
                0 => "channel_layer".to_owned(),
                _ => format!("channel_layer_{}", number + 1),
            };
            Commands::start(url, &name, shutdown)
        };
        let hosts = layer.hosts.iter().enumerate().map(host).collect::<Result<_, _>>()?;
        let ChannelsLayer { group_expiry, expiry, capacity, .. } = *layer;
        let read_on = Script::new(READ_ON);
        let memberships = Self { hosts, names, group_expiry, expiry, capacity, read_on };
        memberships.declare_needs();
        Ok(memberships)
    }

    fn declare_needs(&self) {
        let Ok(example) = ChannelName::new("0") else { return };
        let (group, mailbox) = (self.names.group(&example), self.names.mailbox());
        let groups = ["ZADD", "EXPIRE", "ZREM"]
            .into_iter()
            .fold(Needs::default(), |needs, command| needs.command(command, &group));
        let all = ["ZCARD", "DEL"]
            .into_iter()
            .fold(groups.clone(), |needs, command| needs.command(command, &mailbox))
            .script(TAKE, &mailbox, "")
            .script(READ_ON, &mailbox, "");
        for (number, host) in self.hosts.iter().enumerate() {
            // The mailbox is on the first host.
            host.declare("memberships", if number == 0 { all.clone() } else { groups.clone() });
        }
    }

    /// Returns a receiver for each host that reports whether its connection is up.
    pub fn subscribe_up(&self) -> Vec<watch::Receiver<bool>> {
        self.hosts.iter().map(Commands::subscribe_up).collect()
    }

    /// Joins groups, or renews memberships. `Err` if a host does not answer; some groups may still have been joined.
    pub async fn join(&self, channels: &[ChannelName]) -> Result<Vec<Joined>, RedisFailure> {
        let mut joined = Vec::with_capacity(channels.len());
        for (host, channels) in self.by_host(channels) {
            for chunk in channels.chunks(GROUPS_PER_WRITE) {
                let mut pipeline = redis::pipe();
                let now = seconds(clock::since_unix_epoch());
                for channel in chunk {
                    let group = self.names.group(channel);
                    let (add, expire) = (redis::cmd("ZADD"), redis::cmd("EXPIRE"));
                    let member = self.names.member(channel);
                    pipeline.add_command(with(add, [&group, &now, &member]));
                    let seconds = self.group_expiry.as_secs().to_string();
                    pipeline.add_command(with(expire, [&group, &seconds]));
                }
                let mut answers = host.query_each::<i64>(pipeline).await?.into_iter();
                for channel in chunk {
                    let (added, _) = (answers.next(), answers.next());
                    let added = added.unwrap_or(Err(RedisFailure::Unavailable));
                    joined.push(Joined {
                        channel: channel.clone(),
                        is_new: added.map(|added| added > 0),
                    });
                }
            }
        }
        Ok(joined)
    }

    /// Leaves groups. If a host does not answer, the memberships expire after `group_expiry`.
    pub async fn leave(&self, channels: &[ChannelName]) -> Result<(), RedisFailure> {
        self.remove_members(&self.names, channels).await
    }

    /// Leaves groups after `expiry`, which is how long the layer keeps what is sent to the mailbox until then.
    pub async fn leave_after_expiry(&self, channels: &[ChannelName]) -> Result<(), RedisFailure> {
        // The backend removes members whose score is older than `group_expiry`.
        let left = self.group_expiry.saturating_sub(self.expiry);
        let score = seconds(clock::since_unix_epoch().saturating_sub(left));
        self.for_each_group(channels, |group, channel| {
            let member = self.names.member(channel);
            with(redis::cmd("ZADD"), [&group, &score, &member])
        })
        .await
    }

    /// Removes another node from the groups of `channels`.
    pub async fn remove_members_of(
        &self,
        node: &str,
        channels: &[ChannelName],
    ) -> Result<(), RedisFailure> {
        self.remove_members(&self.names.of_other(node), channels).await
    }

    /// Removes another node's mailbox, and what it has taken out of it.
    pub async fn remove_mailbox_of(&self, node: &str) -> Result<(), RedisFailure> {
        let names = self.names.of_other(node);
        let mut remove = redis::cmd("DEL");
        remove.arg(names.mailbox()).arg(names.taken());
        let _: i64 = self.mailbox_host()?.query(&remove).await?;
        Ok(())
    }

    /// Reads what each of `nodes` has not confirmed, from a position on.
    pub async fn read_mailboxes_of(
        &self,
        nodes: &[(String, MailboxPosition)],
    ) -> Result<Vec<Unconfirmed>, RedisFailure> {
        let call = |(node, position): &(String, MailboxPosition)| {
            let names = self.names.of_other(node);
            other_mailbox::call(&self.read_on, &names, position, self.capacity)
        };
        let calls: Vec<_> = nodes.iter().map(call).collect();
        let answers = self.mailbox_host()?.invoke_all(&self.read_on, &calls).await?;
        let read = |answer| other_mailbox::read(answer, self.capacity);
        answers.into_iter().map(|answer| answer.map(read)).collect()
    }

    async fn remove_members(
        &self,
        names: &MailboxNames,
        channels: &[ChannelName],
    ) -> Result<(), RedisFailure> {
        self.for_each_group(channels, |group, channel| {
            with(redis::cmd("ZREM"), [&group, &names.member(channel)])
        })
        .await
    }

    /// Sends a command for the group of each channel to the group's host.
    async fn for_each_group(
        &self,
        channels: &[ChannelName],
        command: impl Fn(String, &ChannelName) -> redis::Cmd,
    ) -> Result<(), RedisFailure> {
        for (host, channels) in self.by_host(channels) {
            for chunk in channels.chunks(GROUPS_PER_WRITE) {
                let mut pipeline = redis::pipe();
                for channel in chunk {
                    pipeline.add_command(command(self.names.group(channel), channel));
                }
                // Whether they were members does not matter.
                let _ = host.query_each::<i64>(pipeline).await?;
            }
        }
        Ok(())
    }

    /// The number of messages that wait in the mailbox.
    pub async fn waiting(&self) -> Result<usize, RedisFailure> {
        let mut count = redis::cmd("ZCARD");
        count.arg(self.names.mailbox());
        self.mailbox_host()?.query(&count).await
    }

    fn mailbox_host(&self) -> Result<&Commands, RedisFailure> {
        self.hosts.first().ok_or(RedisFailure::Unavailable)
    }

    fn by_host(&self, channels: &[ChannelName]) -> Vec<(&Commands, Vec<ChannelName>)> {
        let mut all: Vec<_> = self.hosts.iter().map(|host| (host, Vec::new())).collect();
        for channel in channels {
            if let Some((_, channels)) = all.get_mut(host_of(channel.as_str(), self.hosts.len())) {
                channels.push(channel.clone());
            }
        }
        all
    }
}

fn with<'a>(
    mut command: redis::Cmd,
    arguments: impl IntoIterator<Item = &'a String>,
) -> redis::Cmd {
    for argument in arguments {
        command.arg(argument);
    }
    command
}

/// A time since the Unix epoch in seconds, in the format of the backend's own members.
fn seconds(time: Duration) -> String {
    format!("{:.6}", time.as_secs_f64())
}
