//! JWTs that were verified before, so that the signature of a client which comes back is not checked again.
//!
//! Only what was accepted is kept, under a hash, so that the memory has no token in it and a failure denies nothing. The
//! caller compares the times of the claims at each use, and asks whether the key is still published. The cache belongs
//! to one verifier: with other keys or rules there is another verifier, and another cache. It is a table of slots
//! that threads read and replace without a lock. Invariant: neither the number of entries nor their bytes grow beyond
//! their bounds.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use super::JwtRejection;
use super::claims::{Claims, parse_claims};
use crate::protocol::{ChannelPattern, UserId};
use crate::tokens::Identity;

/// The slots of the table: sets of a few slots, of which a token's hash selects one set.
const SETS: usize = 4096;
const SLOTS_PER_SET: usize = 4;

/// The most bytes of all entries together.
const MAX_BYTES: usize = 16 << 20;

/// A larger entry is not kept.
const MAX_ENTRY_BYTES: usize = 8 << 10;

/// A token's hash with the key of the cache, so that nobody can tell which tokens share a set.
pub(super) struct TokenHash([u8; 32]);

/// Which keys verified a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signer {
    Configured,
    /// A key of this fetch of the JWKS.
    Published(u64),
}

/// What a verified token says.
#[derive(Debug)]
pub struct VerifiedJwt {
    pub identity: Identity,
    /// The JSON object of the claims.
    pub(super) payload: Box<str>,
    /// From when the token is accepted, in Unix seconds.
    pub(super) not_before: u64,
    pub(super) signer: Signer,
}

impl VerifiedJwt {
    pub fn claims(&self) -> Result<Claims, JwtRejection> {
        parse_claims(&self.payload)
    }

    /// Whether its times allow its use at `now` (Unix seconds), by the rules of its first check.
    fn is_valid_at(&self, now: u64) -> bool {
        now >= self.not_before && self.identity.expires_at.is_some_and(|end| now < end)
    }

    /// About what it takes in memory.
    fn bytes(&self) -> usize {
        let Identity { user_id, username, channels, .. } = &self.identity;
        let user = match user_id {
            Some(UserId::Text(id)) => id.len(),
            Some(UserId::Integer(_)) | None => 0,
        };
        let of_pattern =
            |pattern: &ChannelPattern| size_of::<ChannelPattern>() + pattern.text_bytes();
        let patterns: usize = channels.iter().flatten().map(of_pattern).sum();
        let texts = user + username.as_ref().map_or(0, |name| name.len()) + self.payload.len();
        size_of::<Entry>() + size_of::<Self>() + texts + patterns
    }
}

struct Entry {
    hash: TokenHash,
    verified: Arc<VerifiedJwt>,
    bytes: usize,
}

type Slot = ArcSwapOption<Entry>;

/// The verified tokens of one verifier.
pub(super) struct VerifiedTokens {
    key: [u8; 32],
    /// `None` until the first token is kept.
    slots: OnceLock<Box<[Slot]>>,
    bytes: AtomicUsize,
}

impl VerifiedTokens {
    pub fn new() -> Self {
        let mut key = [0; 32];
        getrandom::fill(&mut key).expect("the operating system gives random bytes");
        Self { key, slots: OnceLock::new(), bytes: AtomicUsize::new(0) }
    }

    pub fn hash(&self, token: &str) -> TokenHash {
        TokenHash(Sha256::new().chain_update(self.key).chain_update(token).finalize().into())
    }

    /// Returns what the token of this hash says, if it is kept and its times allow its use at `now`. An entry that has
    /// expired is removed.
    pub fn get(&self, hash: &TokenHash, now: u64) -> Option<Arc<VerifiedJwt>> {
        for slot in self.set(hash)? {
            let entry = slot.load();
            let Some(entry) = entry.as_ref().filter(|entry| entry.is_of(hash)) else { continue };
            if entry.verified.is_valid_at(now) {
                return Some(Arc::clone(&entry.verified));
            }
            self.remove(slot, entry);
        }
        None
    }

    /// Keeps what the token of this hash says, if there is room. It takes the place of an older entry of the token, of
    /// an expired one, or of any.
    pub fn keep(&self, hash: TokenHash, verified: &Arc<VerifiedJwt>, now: u64) {
        let bytes = verified.bytes();
        if bytes > MAX_ENTRY_BYTES {
            return;
        }
        self.slots.get_or_init(|| (0..SETS * SLOTS_PER_SET).map(|_| Slot::empty()).collect());
        let Some(set) = self.set(&hash) else { return };
        let is_free = |slot: &&Slot| {
            let entry = slot.load();
            entry.as_ref().is_none_or(|one| one.is_of(&hash) || !one.verified.is_valid_at(now))
        };
        let any = usize::from(hash.0[31]) % SLOTS_PER_SET;
        let slot = set.iter().find(is_free).unwrap_or(&set[any]);
        if let Some(old) = slot.swap(None) {
            self.bytes.fetch_sub(old.bytes, Ordering::Relaxed);
        }
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > MAX_BYTES {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return;
        }
        let entry = Entry { hash, verified: Arc::clone(verified), bytes };
        if let Some(other) = slot.swap(Some(Arc::new(entry))) {
            // Another thread has filled the slot meanwhile.
            self.bytes.fetch_sub(other.bytes, Ordering::Relaxed);
        }
    }

    fn set(&self, hash: &TokenHash) -> Option<&[Slot]> {
        let index = usize::from(u16::from_le_bytes([hash.0[0], hash.0[1]])) % SETS;
        self.slots.get()?.chunks(SLOTS_PER_SET).nth(index)
    }

    /// Empties the slot, unless another thread has replaced `entry` meanwhile.
    fn remove(&self, slot: &Slot, entry: &Arc<Entry>) {
        let before = slot.compare_and_swap(entry, None);
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, entry)) {
            self.bytes.fetch_sub(entry.bytes, Ordering::Relaxed);
        }
    }
}

impl Entry {
    fn is_of(&self, hash: &TokenHash) -> bool {
        self.hash.0.ct_eq(&hash.0).into()
    }
}

#[cfg(test)]
mod tests;
