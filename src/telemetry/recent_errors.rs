//! The latest errors of this thread's connections, for `tidegate explain`.
//!
//! Only errors write here, so that a connection without errors costs nothing. A thread remembers [`MAX_ERRORS`], of
//! which one connection or user has a share: whoever causes many errors displaces its own. Neither texts of messages
//! nor credentials are kept: only ids, names and labels.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

use crate::clock;
use crate::protocol::{ChannelName, ConnectionId, UserId, label_enum};

/// The most errors that a thread remembers, about 60 KB with ordinary ids.
const MAX_ERRORS: usize = 256;

/// The most of them of one connection, of the handshakes of one user, or of the replies of one channel.
const MAX_OF_ONE: usize = 16;

/// Errors of users with longer ids are remembered without them.
const MAX_USER_BYTES: usize = 512;

label_enum! {
    /// What an error is about.
    pub enum ErrorScope {
        /// A client was not admitted.
        Handshake => "handshake",
        /// A client was answered with an error event.
        Answer => "answer",
        /// The reply to a message failed.
        Reply => "reply",
        /// The gateway, or a server through its API, closed a connection.
        Close => "close",
    }
}

/// One error. The connection may be closed by now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecentError {
    /// The time since the Unix epoch.
    pub at: Duration,
    /// The number of the error on its thread.
    pub number: u64,
    pub scope: ErrorScope,
    /// The error code, or the label of the cause.
    pub code: &'static str,
    pub connection: Option<ConnectionId>,
    pub user: Option<UserId>,
    pub channel: Option<ChannelName>,
    /// The task of a reply, at most a few hundred bytes.
    pub task: Option<Box<str>>,
}

#[derive(Default)]
struct Ring {
    errors: VecDeque<RecentError>,
    count: u64,
}

thread_local! {
    static RING: RefCell<Ring> = RefCell::default();
}

/// An error that is to be remembered.
#[derive(Clone, Copy)]
pub(super) struct Occurrence<'a> {
    pub scope: ErrorScope,
    pub code: &'static str,
    pub connection: Option<ConnectionId>,
    pub user: Option<&'a UserId>,
    pub channel: Option<&'a str>,
    pub task: Option<&'a str>,
}

/// Remembers an error of this thread.
pub(super) fn record(occurrence: Occurrence<'_>) {
    let Occurrence { scope, code, connection, user, channel, task } = occurrence;
    let user = user.filter(|user| match user {
        UserId::Integer(_) => true,
        UserId::Text(text) => text.len() <= MAX_USER_BYTES,
    });
    RING.with_borrow_mut(|ring| {
        ring.count += 1;
        ring.add(RecentError {
            at: clock::since_unix_epoch(),
            number: ring.count,
            scope,
            code,
            connection,
            user: user.cloned(),
            channel: channel.and_then(|name| ChannelName::new(name).ok()),
            task: task.map(Into::into),
        });
    });
}

/// This thread's errors for which `is_wanted` returns true, the latest first.
pub fn find(is_wanted: impl Fn(&RecentError) -> bool) -> Vec<RecentError> {
    RING.with_borrow(|ring| {
        ring.errors.iter().rev().filter(|error| is_wanted(error)).cloned().collect()
    })
}

impl Ring {
    fn add(&mut self, error: RecentError) {
        let mut of_same = self.errors.iter().enumerate().filter(|(_, one)| is_same(one, &error));
        let oldest = of_same.next().map(|(index, _)| index);
        let is_share_used = of_same.count() + 1 >= MAX_OF_ONE;
        match oldest {
            Some(oldest) if is_share_used => drop(self.errors.remove(oldest)),
            _ if self.errors.len() >= MAX_ERRORS => drop(self.errors.pop_front()),
            _ => {}
        }
        self.errors.push_back(error);
    }
}

/// Whether both errors take the same share. Each handshake has a connection id of its own, and is its user's.
fn is_same(one: &RecentError, other: &RecentError) -> bool {
    one.scope == other.scope
        && match one.scope {
            ErrorScope::Answer | ErrorScope::Close if one.user.is_none() => {
                one.connection == other.connection
            }
            ErrorScope::Answer | ErrorScope::Close | ErrorScope::Handshake => {
                one.user == other.user && (one.user.is_some() || one.channel == other.channel)
            }
            ErrorScope::Reply => one.channel == other.channel,
        }
}

#[cfg(test)]
mod tests;
