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
    /// `specific.<node>!`.
    client: Box<str>,
}

/// The parts around the node in the client's name.
const CLIENT_START: &str = "specific.";
const CLIENT_END: &str = "!";

impl MailboxNames {
    /// Creates names with a random client. Every gateway's mailbox is on the first host, so that a group_send has the
    /// same score in all of them.
    pub fn random(prefix: &str, hosts: usize) -> Self {
        loop {
            let names = Self::of_node(prefix, &uuid::Uuid::new_v4().simple().to_string());
            if host_of(&names.client, hosts) == 0 {
                return names;
            }
        }
    }

    fn of_node(prefix: &str, node: &str) -> Self {
        let client = format!("{CLIENT_START}{node}{CLIENT_END}");
        Self { prefix: prefix.into(), client: client.into() }
    }

    /// The name by which other nodes know this one.
    pub fn node(&self) -> &str {
        let node = self.client.strip_prefix(CLIENT_START);
        node.and_then(|node| node.strip_suffix(CLIENT_END)).unwrap_or_default()
    }

    /// The names of another node of the same layer.
    pub fn of_other(&self, node: &str) -> Self {
        Self::of_node(&self.prefix, node)
    }

    /// The key of the messages that the node has taken out of its mailbox, and not appended yet.
    pub fn taken(&self) -> String {
        format!("{}taken.{}", self.prefix, self.client)
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
