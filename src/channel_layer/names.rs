//! The keys and channels of a Django Channels layer and their hosts, by the rules of channels_redis.

use crate::protocol::ChannelName;

/// The number of hash slots that are distributed over the hosts.
const RING_SIZE: u32 = 4096;

/// The prefix of the local part of a gateway's member, by which an operator recognizes it in a group.
const MEMBER_PREFIX: &str = "tg.";

/// The index of the host of `name`, which is the name of a group, the client of a mailbox including the `!`, or the
/// Redis channel of a group.
pub fn host_of(name: &str, hosts: usize) -> usize {
    if hosts < 2 {
        return 0;
    }
    // The backend calculates with doubles as well, which matters if the ring size is not a multiple of `hosts`.
    let part = f64::from(crc32fast::hash(name.as_bytes()) % RING_SIZE);
    let width = f64::from(RING_SIZE) / hosts as f64;
    ((part / width) as usize).min(hosts - 1)
}

/// The names of one node in a `RedisChannelLayer`.
#[derive(Debug, Clone)]
pub struct MailboxNames {
    prefix: Box<str>,
    /// `specific.<client>!`.
    client: Box<str>,
}

impl MailboxNames {
    /// Creates names with a random client. Every gateway's mailbox is on the first host, so that a group_send has the
    /// same score in all of them.
    pub fn random(prefix: &str, hosts: usize) -> Self {
        loop {
            let client = format!("specific.{}!", uuid::Uuid::new_v4().simple());
            if host_of(&client, hosts) == 0 {
                return Self { prefix: prefix.into(), client: client.into() };
            }
        }
    }

    /// The key of the sorted set that receives everything for this node.
    pub fn mailbox(&self) -> String {
        format!("{}{}", self.prefix, self.client)
    }

    /// The key of the sorted set of a group's members.
    pub fn group(&self, channel: &ChannelName) -> String {
        format!("{}:group:{channel}", self.prefix)
    }

    /// The member that represents this node in the group of `channel`.
    pub fn member(&self, channel: &ChannelName) -> String {
        format!("{}{MEMBER_PREFIX}{channel}", self.client)
    }

    /// The channel of a member; `None` if the member is not of this node.
    pub fn channel(&self, member: &str) -> Option<ChannelName> {
        let channel = member.strip_prefix(&*self.client)?.strip_prefix(MEMBER_PREFIX)?;
        ChannelName::new(channel).ok()
    }
}

/// The Redis channels of groups in a `RedisPubSubChannelLayer`.
#[derive(Debug, Clone)]
pub struct GroupChannels {
    /// The part before the group's name.
    prefix: Box<str>,
}

impl GroupChannels {
    pub fn new(prefix: &str) -> Self {
        Self { prefix: format!("{prefix}__group__").into() }
    }

    pub fn redis_channel(&self, channel: &ChannelName) -> String {
        format!("{}{channel}", self.prefix)
    }

    /// The channel whose group a Redis channel represents; `None` if it does not represent a group.
    pub fn channel(&self, name: &[u8]) -> Option<ChannelName> {
        let name = std::str::from_utf8(name).ok()?.strip_prefix(&*self.prefix)?;
        ChannelName::new(name).ok()
    }
}

#[cfg(test)]
mod tests;
