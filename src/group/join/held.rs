//! What a helper holds until it gives its answer.

use crate::observe::{DisplacedWhat, displace};
use crate::panic::catch;
use crate::state::{Core, Inherited};
use crate::sync::PlainArc;

/// What becomes of a thing that nobody takes: an error is given back to be told of, all else is dropped.
pub(super) type Untaken<T> = fn(T) -> Option<DisplacedWhat>;

/// Drops it: a value, and an error that borrows, or is not `Send`, so that it cannot go to an observer.
pub(super) fn dropped<T>(untaken: T) -> Option<DisplacedWhat> {
    drop(untaken);
    None
}

/// Drops a value, and displaces an error.
pub(super) fn displaced<T, X: Send + 'static>(untaken: Result<T, X>) -> Option<DisplacedWhat> {
    let error = untaken.err()?;
    Some(DisplacedWhat::Error(Box::new(error)))
}

/// Drops a value, and displaces an error as one of those that do not matter: that of a race which somebody else may win.
pub(super) fn overlooked<T, X: Send + 'static>(untaken: Result<T, X>) -> Option<DisplacedWhat> {
    let error = untaken.err()?;
    Some(DisplacedWhat::Overlooked(Box::new(error)))
}

/// A value, an error, an outcome or a user's iterator. Whoever holds several drops them one by one, and none of them throws:
/// what its destructor throws is displaced, as is an error that nobody takes.
pub(super) struct Held<T> {
    // None once it was taken.
    thing: Option<T>,
    observed: Option<PlainArc<Inherited>>,
    untaken: Untaken<T>,
}

impl<T> Held<T> {
    pub(super) fn new(
        thing: T,
        untaken: Untaken<T>,
        observed: Option<PlainArc<Inherited>>,
    ) -> Self {
        Self {
            thing: Some(thing),
            observed,
            untaken,
        }
    }

    /// Holds what is dropped if nobody takes it.
    pub(super) fn of(thing: T, core: &Core) -> Self {
        Self::new(thing, dropped, core.observed())
    }

    pub(super) fn take(mut self) -> Option<T> {
        self.thing.take()
    }

    pub(super) fn get(&self) -> Option<&T> {
        self.thing.as_ref()
    }

    pub(super) fn get_mut(&mut self) -> Option<&mut T> {
        self.thing.as_mut()
    }
}

// What is held is only moved, never pinned.
impl<T> Unpin for Held<T> {}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        let Some(thing) = self.thing.take() else {
            return;
        };
        let what = match catch(|| (self.untaken)(thing)) {
            Ok(None) => return,
            Ok(Some(what)) => what,
            Err(panic) => DisplacedWhat::Panic(panic),
        };
        let observer = self.observed.as_ref().and_then(|it| it.observer());
        displace(observer, None, what);
    }
}
