//! What is dropped while a panic may be under way, or may begin one.
//!
//! K1. A destructor that throws then would end the process. What is the user's and may be left behind by a panic lies in a
//! [`Calm`], and what its destructor throws goes to the observer. K2. So it is with several that nobody may take, which lie in
//! an [`Each`]: of two that throw, dropped together, the second would end the process. K3. A result is
//! in a variable while what may throw is dropped: where it has been returned already, rustc would leak it (rust-lang/rust#47949).

use crate::observe::{DisplacedWhat, displace};
use crate::panic::catch;

/// Holds something of the user's that is dropped unless it is taken out.
pub(crate) struct Calm<T: Default>(pub(crate) T);

impl<T: Default> Calm<T> {
    #[inline]
    pub(crate) fn take(mut self) -> T {
        std::mem::take(&mut self.0)
    }
}

impl<T: Default> Drop for Calm<T> {
    #[inline]
    fn drop(&mut self) {
        if std::mem::needs_drop::<T>() {
            let value = std::mem::take(&mut self.0);
            calmly(|| drop(value));
        }
    }
}

/// Holds things of the user's, which are dropped one by one.
#[derive(Debug, Default)]
pub(crate) struct Each<C: Default + IntoIterator>(pub(crate) C);

impl<C: Default + IntoIterator> Each<C> {
    #[inline]
    pub(crate) fn take(mut self) -> C {
        std::mem::take(&mut self.0)
    }
}

impl<C: Default + IntoIterator> Drop for Each<C> {
    fn drop(&mut self) {
        if std::mem::needs_drop::<C::Item>() {
            for one in std::mem::take(&mut self.0) {
                calmly(|| drop(one));
            }
        }
    }
}

/// Drops `rest`, and returns `result` after that (K3). Where that throws, the panic goes on, and it is for `spare` to drop the result
/// (K1).
pub(crate) fn keeping<T, R>(result: T, rest: R, spare: impl FnOnce(T)) -> T {
    if let Err(panic) = catch(|| drop(rest)) {
        spare(result);
        panic.resume();
    }
    result
}

/// Drops something of the user's; what that throws goes to the observer.
pub(crate) fn calmly(drop: impl FnOnce()) {
    if let Err(panic) = catch(drop) {
        let place = crate::context::current();
        let observer = place.as_ref().and_then(|(core, _)| core.observer());
        displace(observer, None, DisplacedWhat::Panic(panic));
    }
}
