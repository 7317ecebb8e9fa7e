//! What the lists over all nodes share.

use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::code::Code;
use super::{Answer, api};
use crate::control::{Reached, SendError};

/// Lists that this node gathers at the same time, and how long another call waits for one to end.
const MAX_AT_ONCE: usize = 4;
const PERMIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Bounds the lists that this node gathers at the same time.
pub struct Listings(Semaphore);

impl Default for Listings {
    fn default() -> Self {
        Self(Semaphore::new(MAX_AT_ONCE))
    }
}

impl Listings {
    pub(super) async fn permit(&self) -> Result<SemaphorePermit<'_>, Answer> {
        let permit = tokio::time::timeout(PERMIT_TIMEOUT, self.0.acquire()).await;
        permit.ok().and_then(Result::ok).ok_or_else(|| {
            let message = "too many lists are being gathered; try again";
            api::error(Code::Busy, message)
        })
    }
}

/// How many nodes a list comes from.
#[derive(Serialize)]
pub(super) struct Nodes {
    /// Nodes whose rows are in the list.
    answered: u64,
    asked: u64,
}

impl Nodes {
    /// The nodes that have answered in both.
    pub fn both(self, other: Self) -> Self {
        Self { answered: self.answered.min(other.answered), asked: self.asked.max(other.asked) }
    }

    pub fn is_complete(&self) -> bool {
        self.answered >= self.asked
    }
}

impl From<Reached> for Nodes {
    fn from(reached: Reached) -> Self {
        Self { answered: reached.answered, asked: reached.asked }
    }
}

pub(super) fn refusal(error: SendError) -> Answer {
    match error {
        SendError::EngineUnavailable => api::engine_down(),
        SendError::TooLarge => {
            let message = "the texts of a command have at most 16 KiB";
            api::error(Code::TooLarge, message)
        }
    }
}
