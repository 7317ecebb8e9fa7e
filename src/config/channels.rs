//! Keys of `[engine.redis.channels]`: the Django Channels layer whose groups are the channels.

use super::kinds::{self, Kind, choice, words};
use super::section::Section;
use super::{ChannelsLayer, ChannelsWire, LayerSerializer};

pub(super) const WIRE: Kind<Option<ChannelsWire>> =
    words(r#""plain", "channels-core" or "channels-pubsub""#, |value| {
        choice(
            value,
            &[
                ("plain", None),
                ("channels-core", Some(ChannelsWire::Core)),
                ("channels-pubsub", Some(ChannelsWire::PubSub)),
            ],
        )
    });

const SERIALIZER: Kind<LayerSerializer> = words(r#""msgpack" or "json""#, |value| {
    choice(value, &[("msgpack", LayerSerializer::MsgPack), ("json", LayerSerializer::Json)])
});

/// The settings except for `wire`, a key of the table above.
pub(super) fn channels(s: &mut Section<'_>) -> Option<ChannelsLayer> {
    let hosts = s.redis_url_list(
        "hosts",
        kinds::REDIS_URL,
        "`hosts`, in the same order, as redis:// or rediss:// URLs; [] = pubsub_url.",
    );
    let prefix = s.key("prefix", kinds::KEY_PREFIX, "asgi", "`prefix` of keys and channels.");
    let group_expiry = s.key(
        "group_expiry",
        kinds::SECONDS,
        "24h",
        "`group_expiry`: how long a membership lasts.",
    );
    let expiry =
        s.key("expiry", kinds::SECONDS, "60s", "`expiry`: how long an unread mailbox lasts.");
    let capacity = s.key(
        "capacity",
        kinds::POSITIVE_COUNT,
        100,
        "`capacity`: messages that a full mailbox holds; the backend drops more. The gateway only warns.",
    );
    let keys = s.secret_list(
        "symmetric_encryption_keys",
        kinds::SECRET,
        "`symmetric_encryption_keys`; [] = not encrypted.",
    );
    let serializer = s.key("serializer", SERIALIZER, "msgpack", "`serializer_format`.");
    let random_prefix_length = s.key(
        "random_prefix_length",
        kinds::RANDOM_PREFIX,
        12,
        "`random_prefix_length` in bytes; `channels-core` only.",
    );
    let types = s.list(
        "types",
        kinds::NAME,
        &[],
        "Message types to forward, such as \"chat.message\"; others are ignored and counted. [] = all.",
    );
    let keep_type =
        s.key("keep_type", kinds::BOOLEAN, true, "Whether clients see `type`, as the first field.");
    let refresh = s.key(
        "refresh",
        kinds::SECONDS,
        "30s",
        "How often memberships are renewed and checked; at most half of group_expiry.",
    );
    if let (Some(refresh), Some(expiry)) = (refresh, group_expiry)
        && refresh > expiry / 2
    {
        let fix = "write at most half of group_expiry";
        s.mistake("refresh", Some(format!("{refresh:?}")), fix);
    }
    Some(ChannelsLayer {
        wire: ChannelsWire::Core,
        hosts: hosts?,
        prefix: prefix?,
        group_expiry: group_expiry?,
        expiry: expiry?,
        capacity: capacity?,
        symmetric_encryption_keys: keys?,
        serializer: serializer?,
        random_prefix_length: random_prefix_length?,
        types: types?,
        keep_type: keep_type?,
        refresh: refresh?,
    })
}
