use super::*;

#[test]
fn a_part_is_reserved_whatever_the_limit_is() {
    let of = |limit| Descriptors { limit };
    for (limit, reserved_from) in [
        (Some(256), 192),
        (Some(1024), 768),
        (Some(20_000), 15_904),
        (Some(1_048_576), 1_044_480),
        (Some(u64::MAX), RawFd::MAX),
        (None, RawFd::MAX),
    ] {
        assert_eq!(of(limit).reserved_from(), reserved_from, "{limit:?}");
        let from_upstreams = of(limit).reserved_from_upstreams();
        assert!(reserved_from < from_upstreams || limit.is_none_or(|limit| limit == u64::MAX));
    }
}
