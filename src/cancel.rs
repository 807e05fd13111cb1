//! Tokens: how a task learns that it is asked to end.
//!
//! K1. A token is sticky and level-triggered: once cancelled, always cancelled, also when its task and its group are gone.
//! K2. It is cancelled when its own group is, or any group around it, or the child of one that it is in, or when its own
//! group has ended: nobody waits for ever. K3. Who waits is registered with each of them before it looks (S2).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::observe::CancelReason;
use crate::state::Core;
use crate::state::owner::Seat;
use crate::state::registry::Mark;
use crate::sync::Arc;

/// Tells a task that it, its group, or a group around it was asked to end; or that its group has ended.
///
/// A token only tells. What happens to a task that does not listen is up to the group: with no grace, which is the
/// default, it is dropped where it is parked at the moment of the cancel, so there is nothing to listen for.
///
/// *Comparison.* `tokio_util::sync::CancellationToken` can be cancelled by whoever holds it; this one belongs to a group
/// and can only be read. Use that one for a signal that is not the end of a scope.
#[derive(Clone)]
pub struct Token {
    place: Option<Place>,
}

#[derive(Clone)]
struct Place {
    core: Arc<Core>,
    serial: u64,
    /// That of the child whose token this is.
    seat: Option<Arc<Seat>>,
}

impl Place {
    /// Asks whether the child was cancelled alone.
    fn is_marked(&self) -> bool {
        match &self.seat {
            Some(seat) => seat.is_marked(),
            // In the child's own hands, so that its entry is there as long as this is.
            None => self.core.registry().mark(self.serial) > Mark::None,
        }
    }

    /// Returns the groups and members that this is in, its own first.
    fn around(&self) -> impl Iterator<Item = (&Core, u64)> {
        std::iter::successors(Some((&*self.core, self.serial)), |(core, _)| {
            core.exposed_in()
        })
    }
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
///
/// It is that of the task in which this is *called*. A future that goes to a task outside, such as the signal that a server is to
/// shut down on, finds none in there: make it here, and hand it over. `with_graceful_shutdown(token().cancelled())` is told of the
/// cancel; `with_graceful_shutdown(async { token().cancelled().await })` never is.
#[must_use]
pub fn token() -> Token {
    let is_exposed = !crate::context::is_inside_shield();
    let place = is_exposed.then(crate::context::place).flatten();
    Token {
        place: place.map(|(core, serial, seat)| Place { core, serial, seat }),
    }
}

impl Token {
    /// The token of a member, which stays in its hands; of a group, with the serial of its body.
    pub(crate) fn of(core: Arc<Core>, serial: u64) -> Self {
        Self {
            place: Some(Place {
                core,
                serial,
                seat: None,
            }),
        }
    }

    /// Asks whether it will never tell anything: outside every group, and inside a shield.
    pub(crate) const fn is_silent(&self) -> bool {
        self.place.is_none()
    }

    /// Asks whether it may tell of a cancel before the task is forced.
    pub(crate) fn may_come_first(&self) -> bool {
        let own = self.place.as_ref();
        own.is_some_and(|own| own.around().any(|(core, _)| core.may_signal()))
    }

    /// Asks whether the task was asked to end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.place.as_ref().is_some_and(|own| {
            own.core.is_signalled(own.serial, || own.is_marked())
                || own.core.word().read().live() == 0
                || own.core.signalled_around().is_some()
        })
    }

    /// Returns why, once it was asked to end; [`CancelReason::Closed`] if its group has ended without that.
    #[must_use]
    pub fn reason(&self) -> Option<CancelReason> {
        let own = self.place.as_ref()?;
        if own.core.is_signalled(own.serial, || own.is_marked()) {
            let why = own.core.why(own.serial, own.is_marked());
            return Some(own.core.reason_why(why));
        }
        let around = own.core.reason_around();
        let closed = || (own.core.word().read().live() == 0).then_some(CancelReason::Closed);
        around.or_else(closed)
    }

    /// Waits until the task is asked to end; for ever outside every group.
    ///
    /// The future borrows nothing: it can be awaited in another task.
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
        let around = me.token.place.iter().flat_map(Place::around);
        for (level, (core, serial)) in around.enumerate() {
            let number = core.listen(serial, me.listening.get(level).copied(), cx.waker());
            match me.listening.get_mut(level) {
                Some(known) => *known = number,
                None => me.listening.push(number),
            }
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
        let around = self.token.place.iter().flat_map(Place::around);
        for ((core, serial), number) in around.zip(&self.listening) {
            core.unlisten(serial, *number);
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
