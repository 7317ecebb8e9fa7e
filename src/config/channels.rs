//! Keys of `[engine.redis.channels]`: the Django Channels layer whose groups are the channels.

use std::time::Duration;

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

/// Whole seconds, as channels_redis has it.
const SECONDS: Kind<Duration> = Kind {
    name: "duration",
    right: r#"a duration of whole seconds such as "60s" or "24h""#,
    read: |value| match (kinds::POSITIVE_DURATION.read)(value)? {
        time if time.subsec_nanos() == 0 => Ok(time),
        _ => Err(kinds::Wrong::Kind),
    },
};

/// The settings without their wire, which stands in the table above.
pub(super) fn channels(s: &mut Section<'_>) -> Option<ChannelsLayer> {
    let hosts = s.redis_url_list(
        "hosts",
        kinds::REDIS_URL,
        "The backend's `hosts`, in its order, as redis:// or rediss:// URLs; [] = pubsub_url.",
    );
    let prefix =
        s.key("prefix", kinds::KEY_PREFIX, "asgi", "The backend's `prefix` of keys and channels.");
    let group_expiry = s.key(
        "group_expiry",
        SECONDS,
        "24h",
        "The backend's `group_expiry`: after it a member of a group is forgotten.",
    );
    let expiry = s.key(
        "expiry",
        SECONDS,
        "60s",
        "The backend's `expiry`: a mailbox that nobody reads for this long is gone.",
    );
    let capacity = s.key(
        "capacity",
        kinds::POSITIVE_COUNT,
        100,
        "The backend's `capacity`: what it sends to a mailbox that holds this many is lost. Only warned of.",
    );
    let keys = s.secret_list(
        "symmetric_encryption_keys",
        kinds::SECRET,
        "The backend's keys: each is tried. [] = not encrypted.",
    );
    let serializer =
        s.key("serializer", SERIALIZER, "msgpack", "The backend's `serializer_format`.");
    let random_prefix_length = s.key(
        "random_prefix_length",
        kinds::RANDOM_PREFIX,
        12,
        "The backend's `random_prefix_length` in bytes, with `wire = \"channels-core\"`.",
    );
    let types = s.list(
        "types",
        kinds::NAME,
        &[],
        "Message types that are forwarded, such as \"chat.message\"; others are counted and ignored. [] = all.",
    );
    let keep_type = s.key(
        "keep_type",
        kinds::BOOLEAN,
        true,
        "Clients see the message's `type` as its first field.",
    );
    let refresh = s.key(
        "refresh",
        SECONDS,
        "30s",
        "Memberships are renewed this often, and lost ones are noticed then. At most half of group_expiry.",
    );
    if let (Some(refresh), Some(expiry)) = (refresh, group_expiry)
        && refresh > expiry / 2
    {
        let right = "write at most half of group_expiry";
        s.mistake("refresh", Some(format!("{refresh:?}")), right);
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
