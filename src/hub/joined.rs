//! What the sockets of a turn are handed: the next publications from some cursor on, with their frames in one buffer for
//! one write. There is one for plain frames, and one for each form of compressed ones.

use crate::socket::{Delivery, Window};

/// A visit hands one socket at most this many publications, and this many bytes if they are several. So it fits into
/// the default `send_queue` of a connection to which nothing can be written just now.
pub(super) const MAX_JOINED: usize = 256;
pub(super) const MAX_JOINED_BYTES: usize = 256 * 1024;

/// The buffers of a thread. Empty between turns.
#[derive(Default)]
pub(super) struct JoinedForms {
    plain: Joined,
    /// One for each [`Window`]; `None` until a socket on this thread has that window.
    compressed: [Option<Box<Joined>>; 3],
}

/// A range of a pass's publications. `to` is 0 if there is none.
#[derive(Default)]
pub(super) struct Joined {
    from: usize,
    pub to: usize,
    /// The publications with their frames in this form; empty if they are the plain ones of the pass.
    deliveries: Vec<Delivery>,
    /// Their frames, of at most [`MAX_JOINED_BYTES`]. A single frame is not copied.
    frames: Vec<u8>,
}

impl JoinedForms {
    /// What sockets without compression get from the cursor `from` on.
    pub fn plain(&mut self, from: usize, publications: &[Delivery]) -> &Joined {
        let joined = &mut self.plain;
        if joined.begin(from, publications) {
            joined.join(&publications[from..joined.to]);
        }
        joined
    }

    /// What sockets with this window get. Publications are compressed here, unless another socket has had them before.
    pub fn compressed(
        &mut self,
        window: Window,
        from: usize,
        publications: &mut [Delivery],
    ) -> &Joined {
        let joined = self.compressed[window as usize].get_or_insert_default();
        if joined.begin(from, publications) {
            let mut deliveries = std::mem::take(&mut joined.deliveries);
            deliveries.clear();
            let range = publications[from..joined.to].iter_mut();
            deliveries.extend(range.map(|one| one.for_window(window)));
            joined.join(&deliveries);
            joined.deliveries = deliveries;
        }
        joined
    }

    /// Forgets what the turn has handed out, and keeps the buffers.
    pub fn clear(&mut self) {
        let compressed = self.compressed.iter_mut().flatten().map(|joined| &mut **joined);
        for joined in compressed.chain([&mut self.plain]) {
            joined.to = 0;
            joined.deliveries.clear();
        }
    }
}

impl Joined {
    /// Whether the range that begins at `from` is another one than the one before.
    fn begin(&mut self, from: usize, publications: &[Delivery]) -> bool {
        let is_other = from != self.from || self.to == 0;
        if is_other {
            (self.from, self.to) = (from, end_of_join(from, publications));
        }
        is_other
    }

    fn join(&mut self, publications: &[Delivery]) {
        self.frames.clear();
        if publications.len() > 1 {
            publications.iter().for_each(|one| self.frames.extend_from_slice(&one.frame));
        }
    }

    /// The publications of the range in this form; `all` are those of the pass.
    pub fn publications<'a>(&'a self, all: &'a [Delivery]) -> &'a [Delivery] {
        match self.deliveries.is_empty() {
            true => &all[self.from..self.to],
            false => &self.deliveries,
        }
    }

    /// Their frames in one buffer.
    pub fn frames<'a>(&'a self, publications: &'a [Delivery]) -> &'a [u8] {
        match publications {
            [single] => &single.frame,
            _ => &self.frames,
        }
    }
}

/// The end of the range from `from` whose frames fit into one write. It is empty only at the end.
fn end_of_join(from: usize, publications: &[Delivery]) -> usize {
    let mut bytes = 0;
    let next = publications[from..].iter().take(MAX_JOINED);
    let fitting = next.take_while(|one| {
        bytes += one.frame.len();
        bytes <= MAX_JOINED_BYTES
    });
    let least = from + usize::from(from < publications.len());
    (from + fitting.count()).max(least)
}
