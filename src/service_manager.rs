//! What systemd is told of the process's state (`sd_notify(3)`), where it has started it with `Type=notify`.
//!
//! Without `NOTIFY_SOCKET` nothing is said. Nobody waits for an answer, and a manager that cannot be told is
//! no reason to stop.

use sd_notify::NotifyState;

/// Everything is served, by the config as it is.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The config is read again; [`ready`] follows.
pub fn reloading() {
    // `Type=notify-reload` wants the time of it.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// No more clients are taken.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    let _nobody_there = sd_notify::notify(state);
}
