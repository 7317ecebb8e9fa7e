use super::*;
use crate::expiring_map::{SHARDS, SWEEP_FROM};

const MAX_PER_SHARD: usize = 4 * 1024;
const HOUR: Duration = Duration::from_secs(3600);

impl MemoryDedup {
    fn small() -> Self {
        Self { messages: ExpiringMap::with_bounds(1, MAX_PER_SHARD, usize::MAX) }
    }

    fn relayed(&self, message: &str, ttl: Duration) {
        self.relayed_of(0, message, ttl);
    }

    fn relayed_of(&self, client: u64, message: &str, ttl: Duration) {
        let key = MessageKey { client, ..key(message) };
        assert!(matches!(self.claim(&key, "t", HOUR), Ok(Held::Free)), "{message}");
        self.finish(&key, "t", Some((message, ttl)));
    }
}

fn key(message: &str) -> MessageKey {
    MessageKey { text: message.into(), client: 0, route_length: 0 }
}

#[test]
fn expired_answers_are_swept() {
    let dedup = MemoryDedup::new();
    for n in 0..100_000 {
        dedup.relayed(&n.to_string(), Duration::ZERO);
    }
    assert!(dedup.messages.len() <= 2 * SHARDS * SWEEP_FROM, "{}", dedup.messages.len());
}

#[test]
fn beyond_the_bound_the_answers_that_expire_soonest_are_removed() {
    let dedup = MemoryDedup::small();
    assert!(matches!(
        dedup.claim(&key("on its way"), "t", Duration::from_secs(60)),
        Ok(Held::Free)
    ));
    for n in 0..2 * MAX_PER_SHARD {
        dedup.relayed(&n.to_string(), HOUR);
    }
    assert!(dedup.messages.len() <= MAX_PER_SHARD, "{}", dedup.messages.len());
    assert!(matches!(dedup.claim(&key("on its way"), "u", HOUR), Ok(Held::Claimed)));
    let newest = (2 * MAX_PER_SHARD - 1).to_string();
    assert!(
        matches!(dedup.claim(&key(&newest), "u", HOUR), Ok(Held::Relayed(task)) if task == newest)
    );
    assert!(matches!(dedup.claim(&key("0"), "u", HOUR), Ok(Held::Free)));
}

#[test]
fn claims_make_no_room_for_more() {
    let dedup = MemoryDedup::small();
    for n in 0..MAX_PER_SHARD {
        assert!(matches!(dedup.claim(&key(&n.to_string()), "t", HOUR), Ok(Held::Free)));
    }
    assert!(matches!(dedup.claim(&key("one too many"), "t", HOUR), Err(EngineUnavailable)));
    dedup.finish(&key("0"), "t", None);
    assert!(matches!(dedup.claim(&key("one too many"), "t", HOUR), Ok(Held::Free)));
}

#[test]
fn one_client_with_many_ids_makes_no_others_forgotten() {
    let dedup = MemoryDedup::small();
    for n in 0..100 {
        dedup.relayed_of(1, &format!("own {n}"), HOUR);
    }
    for n in 0..4 * MAX_PER_SHARD {
        dedup.relayed_of(2, &n.to_string(), 2 * HOUR);
    }
    for n in 0..100 {
        let held = dedup.claim(&key(&format!("own {n}")), "u", HOUR);
        assert!(matches!(held, Ok(Held::Relayed(_))), "{n}");
    }
}

#[test]
fn of_many_clients_the_oldest_answers_are_forgotten() {
    let dedup = MemoryDedup::small();
    for n in 0..2 * MAX_PER_SHARD as u64 {
        dedup.relayed_of(n, &n.to_string(), HOUR);
    }
    assert!(dedup.messages.len() <= MAX_PER_SHARD, "{}", dedup.messages.len());
}
