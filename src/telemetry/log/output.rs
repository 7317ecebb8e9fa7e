//! Where lines are written: stderr, which may be a pipe that nobody reads or a file on a full disk.
//!
//! Lines are written by the threads that serve connections, so a write never waits: what stderr does not take stays
//! here, and the maintenance thread of the log tries again. Invariants: whole lines in their order, except those that
//! are lost because [`MAX_WAITING`] is reached, which are counted; nothing is written while something waits.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How much waits for stderr at most, in bytes. Further lines are lost.
const MAX_WAITING: usize = 1024 * 1024;

/// A pipe that is reported as writable has room for this many bytes: `PIPE_BUF` of Linux.
const WRITTEN_AT_ONCE: usize = 4096;

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// The lines that were lost and have not been reported.
    lost: u64,
}

/// What a call has left behind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    /// Bytes wait here because of this call, and did not before.
    pub begins_to_wait: bool,
    pub is_lost: bool,
}

pub(super) struct Output<F> {
    file: F,
    waiting: Mutex<Waiting>,
}

impl<F: AsFd> Output<F> {
    pub fn new(file: F) -> Self {
        Self { file, waiting: Mutex::default() }
    }

    /// Writes a line, or keeps what cannot be written now.
    pub fn write(&self, line: &[u8]) -> Written {
        let mut waiting = self.waiting();
        let had_waiting = !waiting.bytes.is_empty();
        if had_waiting {
            self.write_waiting(&mut waiting);
        }
        let written = if waiting.bytes.is_empty() { self.write_now(line) } else { 0 };
        let rest = &line[written..];
        // The rest of a line that has begun is kept in any case, so that the next line begins on its own.
        if written == 0 && waiting.bytes.len() + rest.len() > MAX_WAITING {
            waiting.lost += 1;
            return Written { begins_to_wait: false, is_lost: true };
        }
        waiting.bytes.extend_from_slice(rest);
        Written { begins_to_wait: !had_waiting && !rest.is_empty(), is_lost: false }
    }

    /// Tries to write what waits. Returns whether something still does.
    pub fn retry(&self) -> bool {
        let mut waiting = self.waiting();
        self.write_waiting(&mut waiting);
        !waiting.bytes.is_empty()
    }

    /// The lines that were lost since the last call, once there is room for saying so.
    pub fn take_lost(&self) -> Option<u64> {
        let mut waiting = self.waiting();
        let lost = if waiting.bytes.is_empty() { std::mem::take(&mut waiting.lost) } else { 0 };
        (lost > 0).then_some(lost)
    }

    /// Waits until everything is written, for the end of the process, but no longer than `time`.
    pub fn drain(&self, time: Duration) {
        let deadline = Instant::now() + time;
        while self.retry() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !is_writable(self.file.as_fd(), left) {
                return;
            }
            // A full disk is reported as writable.
            std::thread::sleep(left.min(Duration::from_millis(10)));
        }
    }

    fn write_waiting(&self, waiting: &mut Waiting) {
        let written = self.write_now(&waiting.bytes);
        waiting.bytes.drain(..written);
        if waiting.bytes.is_empty() {
            waiting.bytes = Vec::new();
        }
    }

    /// Writes what can be written without waiting, and returns how many bytes that were. Any error is temporary as far as
    /// this can know: a disk may have space again, and a closed pipe takes what waits for the end of the process.
    fn write_now(&self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() && is_writable(self.file.as_fd(), Duration::ZERO) {
            let end = bytes.len().min(written + WRITTEN_AT_ONCE);
            match rustix::io::write(&self.file, &bytes[written..end]) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => break,
            }
        }
        written
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a write would not wait, or does not within `time`. Other processes that write to the same pipe could still fill
/// it in between.
fn is_writable(file: BorrowedFd<'_>, time: Duration) -> bool {
    let mut files = [PollFd::from_borrowed_fd(file, PollFlags::OUT)];
    let time = Timespec::try_from(time).ok();
    match poll(&mut files, time.as_ref()) {
        Ok(_) => files[0].revents().contains(PollFlags::OUT),
        // The write decides.
        Err(error) => io::Error::from(error).kind() != io::ErrorKind::Interrupted,
    }
}

#[cfg(test)]
mod tests;
