//! State notifications to systemd (`sd_notify(3)`), for units with `Type=notify`.
//!
//! Without `NOTIFY_SOCKET` in the environment nothing is sent. A notification that cannot be sent is ignored.

use sd_notify::NotifyState;

/// Reports that everything is served, with the current configuration.
pub fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Reports that the configuration is being read again; [`ready`] must follow.
pub fn reloading() {
    // `Type=notify-reload` requires the time.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// Reports that no more clients are accepted.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(state: &[NotifyState<'_>]) {
    // systemd may be gone or unable to read: the gateway works without it.
    let _ = sd_notify::notify(state);
}
