use super::*;

#[derive(Debug, Default, PartialEq)]
struct Entry {
    expires: Duration,
    bytes: usize,
}

impl Expiring for Entry {
    fn is_expired(&self, now: Duration) -> bool {
        self.expires <= now
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn entry(expires: Duration, bytes: usize) -> Entry {
    Entry { expires, bytes }
}

fn insert(map: &ExpiringMap<Box<str>, Entry>, key: &str, entry: Entry) -> Result<(), Full> {
    map.lock(key).insert(key.into(), entry, SECOND)
}

#[test]
fn expired_entries_are_swept() {
    let map = ExpiringMap::new(1_000_000);
    for n in 0..100_000 {
        insert(&map, &n.to_string(), entry(SECOND, 0)).unwrap();
    }
    assert!(map.len() <= 2 * SHARDS * SWEEP_FROM, "{}", map.len());
}

#[test]
fn entries_that_live_are_kept_up_to_the_bound() {
    let map = ExpiringMap::with_bounds(1, 1000, usize::MAX);
    for n in 0..1000 {
        insert(&map, &n.to_string(), entry(2 * SECOND, 0)).unwrap();
    }
    assert_eq!(insert(&map, "one more", entry(2 * SECOND, 0)), Err(Full));
    assert_eq!(insert(&map, "7", entry(SECOND, 0)), Ok(()), "it takes its own place");
    assert_eq!(insert(&map, "one more", entry(2 * SECOND, 0)), Ok(()), "7 has expired");
    assert_eq!(map.lock("7").get("7"), None);
}

#[test]
fn bytes_are_bounded_and_given_back() {
    let map = ExpiringMap::with_bounds(1, 1000, 10);
    insert(&map, "a", entry(2 * SECOND, 6)).unwrap();
    assert_eq!(insert(&map, "b", entry(2 * SECOND, 6)), Err(Full));
    assert_eq!(insert(&map, "a", entry(2 * SECOND, 10)), Ok(()));
    assert_eq!(map.lock("a").remove("a"), Some(entry(2 * SECOND, 10)));
    insert(&map, "b", entry(SECOND, 10)).unwrap();
    assert_eq!(insert(&map, "c", entry(SECOND, 10)), Ok(()), "b has expired");
    assert_eq!(insert(&map, "too large", entry(SECOND, 11)), Err(Full));
}

#[test]
fn a_default_entry_is_made_where_there_is_room() {
    let map = ExpiringMap::<Box<str>, Entry>::with_bounds(1, 1, usize::MAX);
    map.lock("a").get_or_default("a", SECOND).unwrap().expires = 2 * SECOND;
    assert_eq!(map.lock("a").get_or_default("a", SECOND).unwrap().expires, 2 * SECOND);
    assert_eq!(map.lock("b").get_or_default("b", SECOND), Err(Full));
}
