//! What a service manager is told (sd_notify); without one, nothing happens.

use sd_notify::NotifyState::{self, Ready, Reloading, Status, Stopping, Watchdog};

pub fn ready() {
    tell(&[Ready, Status("serving")]);
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
