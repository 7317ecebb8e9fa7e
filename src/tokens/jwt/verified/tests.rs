//! What the cache of verified tokens keeps, and for how long.

use serde_json::json;

use super::*;

fn verified(expires_at: u64, payload: &str) -> Arc<VerifiedJwt> {
    let identity = Identity { expires_at: Some(expires_at), ..Identity::anonymous() };
    Arc::new(VerifiedJwt {
        identity,
        payload: payload.into(),
        not_before: 10,
        signer: Signer::Configured,
    })
}

fn count(tokens: &VerifiedTokens) -> usize {
    tokens.slots.get().into_iter().flatten().filter(|slot| slot.load().is_some()).count()
}

fn counted_bytes(tokens: &VerifiedTokens) -> usize {
    let entries = tokens.slots.get().into_iter().flatten().filter_map(|slot| slot.load_full());
    entries.map(|entry| entry.bytes).sum()
}

#[test]
fn a_token_is_found_while_its_times_allow_it() {
    let tokens = VerifiedTokens::new();
    assert!(tokens.get(&tokens.hash("one"), 20).is_none());
    tokens.keep(tokens.hash("one"), &verified(100, r#"{"a":1}"#), 20);
    for (token, now, is_found) in [
        ("one", 10, true),
        ("one", 99, true),
        ("two", 20, false),
        ("one ", 20, false),
        ("on", 20, false),
        // The clock has been set back.
        ("one", 9, false),
        ("one", 20, false),
    ] {
        assert_eq!(tokens.get(&tokens.hash(token), now).is_some(), is_found, "{token:?} {now}");
    }
    tokens.keep(tokens.hash("one"), &verified(100, "{}"), 20);
    assert!(tokens.get(&tokens.hash("one"), 100).is_none());
    assert_eq!((count(&tokens), tokens.bytes.load(Ordering::Relaxed)), (0, 0), "it was removed");
}

#[test]
fn each_cache_hashes_in_its_own_way() {
    let (one, other) = (VerifiedTokens::new(), VerifiedTokens::new());
    assert_eq!(one.hash("token").0, one.hash("token").0);
    assert_ne!(one.hash("token").0, other.hash("token").0);
}

#[test]
fn the_number_of_entries_is_bounded_and_the_newest_is_kept() {
    let tokens = VerifiedTokens::new();
    for number in 0..3 * SETS * SLOTS_PER_SET {
        let token = number.to_string();
        tokens.keep(tokens.hash(&token), &verified(100, "{}"), 20);
        assert!(tokens.get(&tokens.hash(&token), 20).is_some(), "{number}");
    }
    assert!(count(&tokens) > SETS * SLOTS_PER_SET / 2);
    assert_eq!(counted_bytes(&tokens), tokens.bytes.load(Ordering::Relaxed));
}

#[test]
fn an_expired_entry_makes_room_before_one_that_is_valid() {
    let tokens = VerifiedTokens::new();
    // Twice as many as there is room for, all expired.
    for number in 0..2 * SETS * SLOTS_PER_SET {
        tokens.keep(tokens.hash(&format!("old {number}")), &verified(30, "{}"), 20);
    }
    let recent: Vec<_> = (0..SETS / 64).map(|number| format!("new {number}")).collect();
    for token in &recent {
        tokens.keep(tokens.hash(token), &verified(100, "{}"), 50);
    }
    let kept = recent.iter().filter(|token| tokens.get(&tokens.hash(token), 50).is_some()).count();
    assert_eq!(kept, recent.len(), "a set of {SLOTS_PER_SET} slots has room for a few");
}

#[test]
fn the_bytes_of_all_entries_are_bounded() {
    let tokens = VerifiedTokens::new();
    let large = json!({"a": "x".repeat(7 << 10)}).to_string();
    for number in 0..2 * MAX_BYTES / large.len() {
        tokens.keep(tokens.hash(&number.to_string()), &verified(100, &large), 20);
        assert!(tokens.bytes.load(Ordering::Relaxed) <= MAX_BYTES);
    }
    assert_eq!(counted_bytes(&tokens), tokens.bytes.load(Ordering::Relaxed));
    assert!(counted_bytes(&tokens) > MAX_BYTES / 2);

    let too_large = json!({"a": "x".repeat(MAX_ENTRY_BYTES)}).to_string();
    tokens.keep(tokens.hash("large"), &verified(100, &too_large), 20);
    assert!(tokens.get(&tokens.hash("large"), 20).is_none());
}

#[test]
fn what_a_token_names_counts_as_well() {
    let patterns = vec![ChannelPattern::new("a"); 100];
    let with = |channels| {
        let identity = Identity { channels, ..Identity::anonymous() };
        let payload = "{}".into();
        VerifiedJwt { identity, payload, not_before: 0, signer: Signer::Configured }.bytes()
    };
    assert!(with(Some(patterns.into())) >= with(None) + 100 * size_of::<ChannelPattern>());
}

#[test]
fn threads_that_keep_and_look_up_at_once_leave_the_count_of_bytes_right() {
    let tokens = VerifiedTokens::new();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let tokens = &tokens;
            scope.spawn(move || {
                for number in 0..20_000_u64 {
                    let hash = || tokens.hash(&(number % 500).to_string());
                    // Some expire while another thread looks them up.
                    tokens.keep(hash(), &verified(20 + (number + thread) % 3, "{}"), 20);
                    let _ = tokens.get(&hash(), 20 + number % 3);
                }
            });
        }
    });
    assert_eq!(counted_bytes(&tokens), tokens.bytes.load(Ordering::Relaxed));
}
