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
