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
mod tests {
    use super::*;

    fn channel(name: &str) -> ChannelName {
        ChannelName::new(name).unwrap()
    }

    #[test]
    fn hosts_are_the_same_as_in_the_backend() {
        // The expected values were computed by channels_redis.
        let name = "asgi__group__chat_conv-1";
        for (hosts, host) in [(1, 0), (2, 0), (3, 0), (4, 1)] {
            assert_eq!(host_of(name, hosts), host, "{hosts}");
        }
        assert_eq!([2, 3, 5, 7].map(|hosts| host_of("chat_1", hosts)), [0, 0, 0, 0]);
        assert_eq!([2, 3, 5, 7].map(|hosts| host_of("chat_42", hosts)), [0, 1, 2, 3]);
        assert_eq!([2, 3, 5, 7].map(|hosts| host_of("asgi__group__chat_é", hosts)), [0, 0, 0, 0]);
        assert_eq!(
            [2, 3, 5, 7].map(|hosts| host_of("specific.0123456789abcdef0123456789abcdef!", hosts)),
            [0, 1, 1, 2]
        );
        assert_eq!([2, 3, 5, 7].map(|hosts| host_of("", hosts)), [0, 0, 0, 0]);
    }

    #[test]
    fn every_mailbox_is_on_the_first_host() {
        for hosts in 1..6 {
            let names = MailboxNames::random("asgi", hosts);
            assert_eq!(host_of(names.mailbox().strip_prefix("asgi").unwrap(), hosts), 0);
        }
    }

    #[test]
    fn names_of_the_core_layer() {
        let client = "specific.0123456789abcdef0123456789abcdef!";
        let names = MailboxNames { prefix: "asgi".into(), client: client.into() };
        assert_eq!(names.mailbox(), "asgispecific.0123456789abcdef0123456789abcdef!");
        assert_eq!(names.group(&channel("chat_1")), "asgi:group:chat_1");
        let member = names.member(&channel("chat_1"));
        assert_eq!(member, "specific.0123456789abcdef0123456789abcdef!tg.chat_1");
        assert_eq!(names.channel(&member), Some(channel("chat_1")));
        for other in ["", client, "specific.0!tg.chat_1", "chat_1", &format!("{client}tg.")] {
            assert_eq!(names.channel(other), None, "{other}");
        }
    }

    #[test]
    fn names_of_the_pubsub_layer() {
        let groups = GroupChannels::new("asgi");
        assert_eq!(groups.redis_channel(&channel("chat_1")), "asgi__group__chat_1");
        assert_eq!(groups.channel(b"asgi__group__chat_1"), Some(channel("chat_1")));
        for other in [&b"asgi__group__"[..], b"chat_1", b"asgi__group__\xff"] {
            assert_eq!(groups.channel(other), None);
        }
    }
}
