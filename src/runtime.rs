//! The one door to the runtime.

use std::future::Future;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};

/// Returns the runtime that the caller is in.
pub(crate) fn current() -> Option<Handle> {
    Handle::try_current().ok()
}

/// Asks whether a runtime may run two tasks at a time.
pub(crate) fn is_parallel(handle: Option<&Handle>) -> bool {
    handle.is_some_and(|handle| handle.runtime_flavor() != RuntimeFlavor::CurrentThread)
}

/// Starts a task on the group's runtime; on the caller's, if the scope was opened outside every runtime.
///
/// # Panics
///
/// Where there is neither.
#[track_caller]
pub(crate) fn spawn<F>(handle: Option<&Handle>, future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    match handle {
        Some(handle) => handle.spawn(future),
        None => match current() {
            Some(handle) => handle.spawn(future),
            None => panic!("ringfence: cannot spawn a child outside a tokio runtime"),
        },
    }
}

/// Makes a timer.
///
/// # Panics
///
/// Outside a runtime.
#[track_caller]
pub(crate) fn sleep_until(at: Instant) -> Sleep {
    assert!(
        current().is_some(),
        "ringfence: cannot wait for time outside a tokio runtime"
    );
    tokio::time::sleep_until(at)
}
