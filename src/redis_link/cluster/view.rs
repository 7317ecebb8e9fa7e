//! What nodes of a cluster say about it, in their answers to CLUSTER NODES.

use crate::redis_link::slots::SLOTS;

/// The most masters of a cluster, as its specification has it.
const MAX_MASTERS: usize = 1000;

/// The cluster as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View(Vec<Seen>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    master: Master,
    is_master: bool,
    has_failed: bool,
    /// The epoch of the node's claim to its slots.
    epoch: u64,
}

/// A master, and the slots that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Master {
    pub host: String,
    pub port: u16,
    pub hostname: Option<String>,
    /// Ranges from the first to the last slot.
    pub ranges: Vec<(u16, u16)>,
}

impl Master {
    /// How many slots it has.
    pub fn slots(&self) -> usize {
        self.ranges.iter().map(|(first, last)| usize::from(last - first) + 1).sum()
    }

    fn is_at(&self, other: &Self) -> bool {
        self.host == other.host && self.port == other.port
    }
}

/// Reads an answer to CLUSTER NODES of the node at `host`. Lines that say nothing about a usable node are left out.
pub(super) fn parse(text: &str, host: &str) -> Result<View, String> {
    let seen: Vec<Seen> = text.lines().filter_map(|line| seen(line, host)).collect();
    match seen.is_empty() {
        false => Ok(View(seen)),
        true => Err("the answer to CLUSTER NODES names no node".to_owned()),
    }
}

/// Reads `<id> <ip:port@bus[,hostname[,…]]> <flags> <master> <ping> <pong> <epoch> <link> <slot> …`.
fn seen(line: &str, own_host: &str) -> Option<Seen> {
    let mut fields = line.split_ascii_whitespace();
    let (_id, address, flags) = (fields.next()?, fields.next()?, fields.next()?);
    let epoch = fields.nth(3)?.parse().ok()?;
    let has = |flag: &str| flags.split(',').any(|one| one == flag);
    if has("noaddr") || has("handshake") {
        return None;
    }
    let (address, more) = address.split_once('@').unwrap_or((address, ""));
    let (host, port) = address.rsplit_once(':')?;
    // A node does not know its own address before another one has told it.
    let host = if host.is_empty() { own_host } else { host };
    let hostname = more.split(',').nth(1).filter(|name| !name.is_empty() && !name.contains('='));
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let ranges = fields.skip(1).filter_map(range).collect();
    Some(Seen {
        master: Master {
            host: host.to_owned(),
            port,
            hostname: hostname.map(str::to_owned),
            ranges,
        },
        is_master: has("master"),
        has_failed: has("fail"),
        epoch,
    })
}

/// Reads `5` or `0-100`. A slot that is being moved is there once more, in brackets.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last < SLOTS).then_some((first, last))
}

/// Joins the views of several nodes: the masters, those with slots first in the order of these, and then those that every
/// view has as masters without slots, since slots may be on their way to them.
pub(super) fn merge(views: &[View]) -> Vec<Master> {
    let all = || views.iter().flat_map(|View(seen)| seen);
    let mut owners: Vec<Option<&Seen>> = vec![None; usize::from(SLOTS)];
    for seen in all().filter(|seen| seen.is_master) {
        for (first, last) in &seen.master.ranges {
            for owner in &mut owners[usize::from(*first)..=usize::from(*last)] {
                if owner.is_none_or(|other| other.epoch < seen.epoch) {
                    *owner = Some(seen);
                }
            }
        }
    }
    let mut masters: Vec<Master> = Vec::new();
    for (slot, owner) in (0..SLOTS).zip(&owners) {
        let Some(Seen { master, .. }) = owner else { continue };
        let at = masters.iter().position(|known| known.is_at(master)).unwrap_or_else(|| {
            masters.push(Master { ranges: Vec::new(), ..master.clone() });
            masters.len() - 1
        });
        match masters[at].ranges.last_mut() {
            Some((_, last)) if *last + 1 == slot => *last = slot,
            _ => masters[at].ranges.push((slot, slot)),
        }
    }
    for seen in all().filter(|seen| seen.is_master && !seen.has_failed) {
        let is_known = masters.iter().any(|known| known.is_at(&seen.master));
        let is_replica = all().any(|other| other.master.is_at(&seen.master) && !other.is_master);
        if !is_known && !is_replica {
            masters.push(Master { ranges: Vec::new(), ..seen.master.clone() });
        }
    }
    masters.truncate(MAX_MASTERS);
    masters
}

#[cfg(test)]
mod tests;
