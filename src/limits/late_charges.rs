//! Charges of replies that the engine could not take, because it was unavailable. They are tried again for some minutes.
//!
//! The call may have been executed although its answer was lost: then it counts twice.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use super::SharedLimits;
use crate::config::UserRate;
use crate::protocol::Params;
use crate::telemetry;

/// The most charges that wait; further ones are lost.
const MAX_WAITING: usize = 4096;

/// The pause between two attempts. While Redis is known to be unavailable, an attempt costs nothing.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a charge is tried. Most of what a later one would count is refilled by then.
const MAX_AGE: Duration = Duration::from_secs(10 * 60);

/// Bounds the charges that wait.
pub(super) struct LateCharges(Arc<Semaphore>);

impl Default for LateCharges {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_WAITING)))
    }
}

/// What a reply took, and who it is charged to.
pub(super) struct Charge {
    pub tokens: u64,
    pub route: Box<str>,
    pub params: Params,
    pub user: Box<str>,
    pub rate: UserRate,
}

impl LateCharges {
    /// Tries a charge again on a task of its own. It is counted as lost if there is no room, or the task ends before.
    pub fn add(&self, limits: &SharedLimits, charge: Charge) {
        let permit = Arc::clone(&self.0).try_acquire_owned().ok();
        let late = Late { charge, is_charged: false, _permit: permit };
        if late._permit.is_some() {
            tokio::spawn(late.run(limits.clone()));
        }
    }
}

struct Late {
    charge: Charge,
    is_charged: bool,
    /// `None` = there was no room.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Late {
    async fn run(mut self, limits: SharedLimits) {
        let began = Instant::now();
        while began.elapsed() < MAX_AGE {
            sleep(PAUSE).await;
            if limits.try_charge(&self.charge).await.is_ok() {
                self.is_charged = true;
                return;
            }
        }
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        if !self.is_charged {
            let Charge { tokens, route, user, .. } = &self.charge;
            telemetry::messages::usage_not_charged(route, user, *tokens);
        }
    }
}
