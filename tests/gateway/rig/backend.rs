//! What `group_send` of a Django backend writes to Redis, with either layer of channels_redis.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::aio::MultiplexedConnection;
use serde_json::Value;

use super::Redis;

/// The Lua script of `RedisChannelLayer`, which appends the message to each mailbox that is not full.
const GROUP_SEND: &str = "\
local over = 0
local now, expiry, capacity = ARGV[#ARGV - 2], ARGV[#ARGV - 1], tonumber(ARGV[#ARGV])
for i = 1, #KEYS do
    if redis.call('ZCOUNT', KEYS[i], '-inf', '+inf') < capacity then
        redis.call('ZADD', KEYS[i], now, ARGV[i])
        redis.call('EXPIRE', KEYS[i], expiry)
    else
        over = over + 1
    end
end
return over";

const EXPIRY: i64 = 60;
const GROUP_EXPIRY: i64 = 86_400;

/// A backend process that sends to groups.
pub struct Backend {
    redis: MultiplexedConnection,
    pub prefix: String,
    /// The largest number of messages in one mailbox.
    pub capacity: usize,
    /// Whether messages are written as JSON instead of MessagePack.
    pub json: bool,
    sent: u64,
}

impl Backend {
    pub async fn new(redis: &Redis) -> Self {
        let redis = redis.connection().await;
        Self { redis, prefix: "asgi".into(), capacity: 1500, json: false, sent: 0 }
    }

    /// Sends a chat message as `group_send` of the core layer does. Returns how many mailboxes were full.
    pub async fn send(&mut self, group: &str, message: &Value) -> usize {
        self.send_body(group, |backend, members| {
            let mut message = message.clone();
            message["__asgi_channel__"] = members.into();
            backend.serialized(&message)
        })
        .await
    }

    /// The same with a body that the test provides, behind the random prefix.
    pub async fn send_body(
        &mut self,
        group: &str,
        body: impl Fn(&Self, Vec<String>) -> Vec<u8>,
    ) -> usize {
        let key = format!("{}:group:{group}", self.prefix);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let mut redis = self.redis.clone();
        let (_, members): (i64, Vec<String>) = redis::pipe()
            .cmd("ZREMRANGEBYSCORE")
            .arg(&key)
            .arg(0)
            .arg(now as i64 - GROUP_EXPIRY)
            .cmd("ZRANGE")
            .arg(&key)
            .arg(0)
            .arg(-1)
            .query_async(&mut redis)
            .await
            .expect("redis answers");
        let mut mailboxes: Vec<(String, Vec<String>)> = Vec::new();
        for member in members {
            let end = member.find('!').map_or(member.len(), |at| at + 1);
            let mailbox = format!("{}{}", self.prefix, &member[..end]);
            match mailboxes.iter_mut().find(|(other, _)| *other == mailbox) {
                Some((_, members)) => members.push(member),
                None => mailboxes.push((mailbox, vec![member])),
            }
        }
        let mut trim = redis::pipe();
        let script = redis::Script::new(GROUP_SEND);
        let mut send = script.prepare_invoke();
        for (mailbox, members) in &mailboxes {
            trim.cmd("ZREMRANGEBYSCORE").arg(mailbox).arg(0).arg(now as i64 - EXPIRY).ignore();
            self.sent += 1;
            let mut payload = [&[0; 4][..], &self.sent.to_be_bytes()].concat();
            payload.extend(body(self, members.clone()));
            send.key(mailbox).arg(payload);
        }
        if mailboxes.is_empty() {
            return 0;
        }
        let () = trim.query_async(&mut redis).await.expect("redis answers");
        send.arg(now).arg(EXPIRY).arg(self.capacity);
        send.invoke_async(&mut redis).await.expect("redis answers")
    }

    /// Sends a chat message, and keeps Redis busy for this time before any other connection gets an answer.
    pub async fn send_and_block(&mut self, group: &str, message: &Value, blocked: Duration) {
        let key = format!("{}:group:{group}", self.prefix);
        let mut members = redis::cmd("ZRANGE");
        members.arg(&key).arg(0).arg(-1);
        let members: Vec<String> = members.query_async(&mut self.redis).await.expect("an answer");
        let [member] = &members[..] else { panic!("one member, not {members:?}") };
        let end = member.find('!').map_or(member.len(), |at| at + 1);
        let mut message = message.clone();
        message["__asgi_channel__"] = vec![member.clone()].into();
        let payload = [&[1; 12][..], &self.serialized(&message)].concat();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let script = redis::Script::new(
            "redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])\n\
             local function now() local t = redis.call('TIME') return t[1] * 1000 + t[2] / 1000 end\n\
             local ends = now() + ARGV[3]\n\
             while now() < ends do end",
        );
        let mut call = script.key(format!("{}{}", self.prefix, &member[..end]));
        call.arg(now).arg(payload).arg(blocked.as_millis() as u64);
        let mut redis = self.redis.clone();
        let () = call.invoke_async(&mut redis).await.expect("redis answers");
    }

    /// Appends a message for `member` to its mailbox, which is on this host.
    pub async fn put(&self, member: &str, message: &Value) {
        let mut message = message.clone();
        message["__asgi_channel__"] = vec![member].into();
        let payload = [&[0; 12][..], &self.serialized(&message)].concat();
        let end = member.find('!').map_or(member.len(), |at| at + 1);
        let mut add = redis::cmd("ZADD");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        add.arg(format!("{}{}", self.prefix, &member[..end])).arg(now).arg(payload);
        let () = add.query_async(&mut self.redis.clone()).await.expect("redis answers");
    }

    /// The same with the pub/sub layer. Returns how many subscribers received it.
    pub async fn publish(&mut self, group: &str, message: &Value) -> usize {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(format!("{}__group__{group}", self.prefix)).arg(self.serialized(message));
        publish.query_async(&mut self.redis).await.expect("redis answers")
    }

    fn serialized(&self, message: &Value) -> Vec<u8> {
        if self.json {
            return message.to_string().into_bytes();
        }
        let mut bytes = Vec::new();
        pack(message, &mut bytes);
        bytes
    }
}

/// Encodes a value as MessagePack, as far as the tests need it.
fn pack(value: &Value, bytes: &mut Vec<u8>) {
    let mut head = |kind: u8, length: usize| {
        bytes.push(kind);
        bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
    };
    match value {
        Value::Null => bytes.push(0xc0),
        Value::Bool(value) => bytes.push(0xc2 + u8::from(*value)),
        Value::Number(number) => {
            bytes.push(0xd3);
            bytes.extend(number.as_i64().expect("a small integer").to_be_bytes());
        }
        Value::String(text) => {
            head(0xdb, text.len());
            bytes.extend(text.as_bytes());
        }
        Value::Array(values) => {
            head(0xdd, values.len());
            values.iter().for_each(|value| pack(value, bytes));
        }
        Value::Object(members) => {
            head(0xdf, members.len());
            for (name, value) in members {
                pack(&Value::String(name.clone()), bytes);
                pack(value, bytes);
            }
        }
    }
}
