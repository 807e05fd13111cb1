//! Capacities are what they are given as.

/// Returns the capacity to use where `given` is asked for.
#[inline]
pub(crate) const fn capacity(given: usize) -> usize {
    given
}
