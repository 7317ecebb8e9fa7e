//! The history of one channel, and what of it a client is given.

use std::collections::VecDeque;
use std::sync::LazyLock;
use std::time::Instant;

use super::super::{PAGE_BYTES, PAGE_LENGTH, Page, ReadFrom};
use crate::protocol::{Epoch, Position};
use crate::socket::Delivery;

pub(super) struct Log {
    pub epoch: Epoch,
    /// The offset of the last publication; 0 before the first.
    pub offset: u64,
    /// `None` if nothing is stored and nothing is running, as in the channels that nobody writes to.
    pub kept: Option<Box<Kept>>,
    /// When the publications, or the log itself if it is empty, are dropped.
    pub deadline: Due,
    /// When the log is swept next, at the latest at its deadline.
    pub due: Due,
    /// Whether the log counts as one with publications.
    pub is_stored: bool,
}

#[derive(Default)]
pub(super) struct Kept {
    pub publications: VecDeque<Delivery>,
    pub bytes: usize,
    /// The oldest first. All are kept for the same time.
    pub running: VecDeque<Running>,
}

pub(super) struct Running {
    pub task_id: Box<str>,
    pub start: u64,
    pub expires_at: Instant,
}

/// A point in time in nanoseconds since the process began to keep histories: half the size of an [`Instant`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due(u64);

impl From<Instant> for Due {
    fn from(at: Instant) -> Self {
        static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
        let since = at.saturating_duration_since(*BEGAN);
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Log {
    pub fn kept(&mut self) -> &mut Kept {
        self.kept.get_or_insert_default()
    }

    /// Returns how many bytes the publications had.
    pub fn forget_publications(&mut self) -> usize {
        let Some(kept) = &mut self.kept else { return 0 };
        kept.publications = VecDeque::new();
        let bytes = std::mem::take(&mut kept.bytes);
        self.free_unused();
        bytes
    }

    pub fn free_unused(&mut self) {
        self.kept.take_if(|kept| kept.publications.is_empty() && kept.running.is_empty());
    }

    /// The offset of the oldest stored publication.
    pub fn oldest(&self) -> Option<u64> {
        let first = self.kept.as_ref()?.publications.front()?;
        first.position.map(|at| at.offset)
    }

    pub fn read(&self, from: ReadFrom, now: Instant) -> Page {
        let head = Position { epoch: self.epoch, offset: self.offset };
        // The oldest stored offset, or the next one if nothing is stored.
        let oldest = self.oldest().unwrap_or(self.offset + 1);
        let mut page = Page {
            now: head,
            after: None,
            publications: Vec::new(),
            complete: true,
            is_cut: false,
            cancelled: Vec::new(),
        };
        let after = match from {
            ReadFrom::Running => {
                let running = self.kept.iter().flat_map(|kept| &kept.running);
                let running = running.filter(|running| running.expires_at > now);
                let start = running.map(|running| running.start).min().unwrap_or(self.offset);
                page.is_cut = start < oldest - 1;
                start.max(oldest - 1)
            }
            ReadFrom::After(Position { epoch, offset })
                if epoch != self.epoch || offset > self.offset || offset + 1 < oldest =>
            {
                return page;
            }
            ReadFrom::After(Position { offset, .. }) => offset,
        };
        page.after = Some(after);
        let Some(kept) = &self.kept else { return page };
        let from = kept
            .publications
            .partition_point(|one| one.position.is_some_and(|position| position.offset <= after));
        let mut bytes = 0;
        for publication in kept.publications.range(from..) {
            if page.publications.len() >= PAGE_LENGTH || bytes >= PAGE_BYTES {
                page.complete = false;
                break;
            }
            bytes += publication.frame.len();
            page.publications.push(publication.clone());
        }
        page
    }
}
