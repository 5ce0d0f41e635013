//! What a service manager is told (sd_notify); without one, nothing happens.

use sd_notify::NotifyState::{self, Ready, Reloading, Status, Stopping, Watchdog};

/// `current` says whether the configuration on disk is the one in use.
pub fn ready(current: bool) {
    let status = if current { "serving" } else { "serving an earlier configuration: the one on disk is faulty" };
    tell(&[Ready, Status(status)]);
}

/// Around a reload.
pub fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[Reloading, now]);
    }
}

pub fn stopping() {
    tell(&[Stopping, Status("draining")]);
}

/// The control loop is alive.
pub fn alive() {
    tell(&[Watchdog]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager was not told");
    }
}
