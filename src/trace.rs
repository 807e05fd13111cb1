//! `tracing` behind its feature, or nothing.

use std::fmt;
use std::time::Duration;

#[cfg(feature = "tracing")]
use crate::observe::DisplacedWhat;
use crate::observe::{Displaced, Straggler};

/// A span that children are polled in; none can exist without the feature.
#[cfg(feature = "tracing")]
pub(crate) type Span = tracing::Span;
#[cfg(not(feature = "tracing"))]
#[derive(Clone)]
pub(crate) enum Span {}

/// Enters a span until this is dropped. A subscriber is user code, and may throw.
#[cfg(feature = "tracing")]
pub(crate) struct Inside(Option<tracing::span::EnteredSpan>);

#[cfg(feature = "tracing")]
pub(crate) fn enter(span: Option<&Span>) -> Inside {
    let entered = span.map(|span| crate::panic::catch(|| span.clone().entered()));
    Inside(entered.and_then(Result::ok))
}

#[cfg(feature = "tracing")]
impl Drop for Inside {
    fn drop(&mut self) {
        if let Some(entered) = self.0.take() {
            drop(crate::panic::catch(|| drop(entered)));
        }
    }
}

#[cfg(not(feature = "tracing"))]
pub(crate) struct Inside;

#[cfg(not(feature = "tracing"))]
pub(crate) fn enter(_: Option<&Span>) -> Inside {
    Inside
}

#[cfg(feature = "tracing")]
pub(crate) fn displaced(displaced: &Displaced) {
    // A subscriber is user code: what it throws must not reach the destructor that we may be in.
    drop(crate::panic::catch(|| match displaced.what {
        DisplacedWhat::Overlooked(_) => tracing::debug!(target: "ringfence", "{displaced}"),
        _ => tracing::error!(target: "ringfence", "{displaced}"),
    }));
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

#[cfg(feature = "tracing")]
pub(crate) fn retrying(attempt: u32, delay: Duration, elapsed: impl FnOnce() -> Duration) {
    let (delay_ms, elapsed_ms) = (delay.as_millis() as u64, elapsed().as_millis() as u64);
    tracing::warn!(target: "ringfence", attempt, delay_ms, elapsed_ms, "an attempt failed; trying again");
}

#[cfg(feature = "tracing")]
pub(crate) fn gave_up(attempts: u32, elapsed: Duration, reason: &dyn fmt::Display) {
    let elapsed_ms = elapsed.as_millis() as u64;
    tracing::error!(target: "ringfence", attempt = attempts, elapsed_ms, %reason, "gave up");
}

#[cfg(feature = "tracing")]
pub(crate) fn hedged(copy: u32, elapsed: impl FnOnce() -> Duration) {
    let elapsed_ms = elapsed().as_millis() as u64;
    tracing::warn!(target: "ringfence", attempt = copy, elapsed_ms, "another copy was started");
}

#[cfg(feature = "tracing")]
pub(crate) fn suppressed(copy: u32, elapsed: impl FnOnce() -> Duration) {
    let elapsed_ms = elapsed().as_millis() as u64;
    tracing::warn!(target: "ringfence", attempt = copy, elapsed_ms, "no budget for another copy");
}

#[cfg(not(feature = "tracing"))]
pub(crate) fn displaced(_: &Displaced) {}

#[cfg(not(feature = "tracing"))]
pub(crate) fn forced(_: &Straggler) {}

#[cfg(not(feature = "tracing"))]
pub(crate) fn retrying(_: u32, _: Duration, _: impl FnOnce() -> Duration) {}

#[cfg(not(feature = "tracing"))]
pub(crate) fn gave_up(_: u32, _: Duration, _: &dyn fmt::Display) {}

#[cfg(not(feature = "tracing"))]
pub(crate) fn hedged(_: u32, _: impl FnOnce() -> Duration) {}

#[cfg(not(feature = "tracing"))]
pub(crate) fn suppressed(_: u32, _: impl FnOnce() -> Duration) {}
