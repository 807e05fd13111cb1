//! Tokens: how a task learns that it is asked to end.
//!
//! K1. A token is sticky and level-triggered: once cancelled, always cancelled; but the token of a child that
//! was cancelled alone only while that child is there (docs/ARCHITECTURE.md, known limits). K2. It is cancelled when its own group is,
//! or any group around it, or the child of one that it is in. K3. Who waits is registered with each of them before it looks (S2).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::observe::CancelReason;
use crate::state::Core;
use crate::sync::Arc;

/// Tells a task that it, its group, or a group around it was asked to end.
///
/// A token only tells. What happens to a task that does not listen is up to the group: with no grace, which is the
/// default, it is dropped where it is parked at the moment of the cancel, so there is nothing to listen for.
///
/// *Comparison.* `tokio_util::sync::CancellationToken` can be cancelled by whoever holds it; this one belongs to a group
/// and can only be read. Use that one for a signal that is not the end of a scope.
#[derive(Clone)]
pub struct Token {
    place: Option<(Arc<Core>, u64)>,
}

/// Returns the token of the task that the caller runs in; outside every group, one that is never cancelled.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), ringfence::GroupError<std::io::Error>> {
/// use std::time::Duration;
/// use ringfence::{Scope, token};
///
/// Scope::new().grace(Duration::from_secs(5)).run(async |group| {
///     group.spawn_background(async {
///         token().cancelled().await; // no token was passed in
///         // … say goodbye, within the grace …
///     });
///     Ok(())
/// }).await
/// # }
/// ```
#[must_use]
pub fn token() -> Token {
    Token {
        place: crate::context::current(),
    }
}

impl Token {
    pub(crate) fn of(core: Arc<Core>, serial: u64) -> Self {
        Self {
            place: Some((core, serial)),
        }
    }

    /// Asks whether the task was asked to end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled_in().is_some()
    }

    /// Returns why, once it was asked to end.
    #[must_use]
    pub fn reason(&self) -> Option<CancelReason> {
        let (core, serial) = self.cancelled_in()?;
        Some(core.reason_for(serial, core.registry().mark(serial)))
    }

    /// Finds the innermost member, of this group or of one around it, that was asked to end.
    fn cancelled_in(&self) -> Option<(&Core, u64)> {
        let (own, serial) = self.place.as_ref()?;
        std::iter::successors(Some((&**own, *serial)), |(core, _)| core.opened_in())
            .find(|(core, serial)| core.is_signalled(*serial))
    }

    /// Waits until the task is asked to end; for ever outside every group.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only waits.
    pub fn cancelled(&self) -> Cancelled {
        Cancelled {
            token: self.clone(),
            listening: Vec::new(),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("is_cancelled", &self.is_cancelled())
            .finish()
    }
}

/// The future of [`Token::cancelled`].
///
/// # Cancel safety
///
/// Cancel safe: it only waits.
#[must_use = "futures do nothing unless polled"]
pub struct Cancelled {
    token: Token,
    /// The numbers under which each group knows us, innermost first.
    listening: Vec<u64>,
}

impl Future for Cancelled {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let me = &mut *self;
        if me.token.is_cancelled() {
            return Poll::Ready(());
        }
        let mut group = me.token.place.as_ref().map(|(core, _)| core);
        let mut level = 0;
        while let Some(core) = group {
            let number = core.listen(me.listening.get(level).copied(), cx.waker());
            match me.listening.get_mut(level) {
                Some(known) => *known = number,
                None => me.listening.push(number),
            }
            level += 1;
            group = core.parent();
        }
        if me.token.is_cancelled() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Cancelled {
    fn drop(&mut self) {
        let mut group = self.token.place.as_ref().map(|(core, _)| core);
        for number in &self.listening {
            let Some(core) = group else { return };
            core.unlisten(*number);
            group = core.parent();
        }
    }
}

impl fmt::Debug for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancelled")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}
