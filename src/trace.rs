//! `tracing` behind its feature, or nothing.

use crate::observe::{Displaced, Straggler};

#[cfg(feature = "tracing")]
pub(crate) fn displaced(displaced: &Displaced) {
    // A subscriber is user code: what it throws must not reach the destructor that we may be in.
    drop(crate::panic::catch(
        || tracing::error!(target: "ringfence", "{displaced}"),
    ));
}

#[cfg(feature = "tracing")]
pub(crate) fn forced(straggler: &Straggler) {
    drop(crate::panic::catch(
        || tracing::warn!(target: "ringfence", "{straggler}"),
    ));
}

#[cfg(feature = "tracing")]
pub(crate) fn abandoned(straggler: &Straggler) {
    drop(crate::panic::catch(
        || tracing::warn!(target: "ringfence", "{straggler}, and was given up"),
    ));
}

#[cfg(not(feature = "tracing"))]
pub(crate) fn abandoned(_: &Straggler) {}

#[cfg(not(feature = "tracing"))]
pub(crate) fn displaced(_: &Displaced) {}

#[cfg(not(feature = "tracing"))]
pub(crate) fn forced(_: &Straggler) {}
