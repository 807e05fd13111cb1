//! The one door to the runtime.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::runtime::{Handle, Id, RuntimeFlavor};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};

/// Returns the runtime that the caller is in.
pub(crate) fn current() -> Option<Handle> {
    Handle::try_current().ok()
}

/// Returns the id of the runtime that the caller is in.
#[cfg(feature = "testing")]
pub(crate) fn id() -> Option<Id> {
    current().map(|runtime| runtime.id())
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
    spawn_from(Location::caller(), handle, future)
}

/// The same for a call that was made at `location`: who waits before it spawns is not called from there any more.
///
/// # Panics
///
/// As [`spawn`].
#[track_caller]
pub(crate) fn spawn_from<F>(
    location: &Location<'_>,
    handle: Option<&Handle>,
    future: F,
) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    match handle {
        Some(handle) => handle.spawn(future),
        None => match current() {
            Some(handle) => handle.spawn(future),
            None if Location::caller() == location => {
                panic!("ringfence: cannot spawn a child outside a tokio runtime")
            }
            None => {
                panic!("ringfence: cannot spawn a child outside a tokio runtime, at {location}")
            }
        },
    }
}

/// Starts a task that stays in its thread.
///
/// # Panics
///
/// Outside a `LocalSet` and a `LocalRuntime`.
#[cfg(not(ringfence_shuttle))]
pub(crate) use tokio::task::spawn_local;

/// There are no such tasks there.
#[cfg(ringfence_shuttle)]
pub(crate) fn spawn_local<F: Future>(_: F) -> JoinHandle<F::Output> {
    panic!("ringfence: no local children in this lane")
}

/// Hands a closure to the threads that may block, of the group's runtime or else of the caller's.
pub(crate) fn spawn_blocking(handle: Option<&Handle>, job: impl FnOnce() + Send + 'static) {
    match handle {
        Some(handle) => drop(handle.spawn_blocking(job)),
        None => drop(tokio::task::spawn_blocking(job)),
    }
}

/// Runs a future on a thread of its own, which has its own clock and hears signals: for what has to go on although all other
/// threads are blocked.
///
/// # Panics
///
/// If there is no thread to be had.
#[cfg(feature = "signal")]
pub(crate) fn aside<F: Future<Output = ()> + Send>(
    name: &str,
    make: impl FnOnce() -> F + Send + 'static,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => panic!("ringfence: no clock for the watch of the process: {error}"),
    };
    let started = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || runtime.block_on(async { make().await }));
    if let Err(error) = started {
        panic!("ringfence: no thread for the watch of the process: {error}");
    }
}

/// Takes a step of the task's budget, given back unless it is said to have made progress; pending if the budget is spent.
#[cfg(not(ringfence_shuttle))]
pub(crate) use tokio::task::coop::poll_proceed as poll_step;

/// Tasks have no budget there.
#[cfg(ringfence_shuttle)]
pub(crate) fn poll_step(_: &mut Context<'_>) -> Poll<NoBudget> {
    Poll::Ready(NoBudget)
}

#[cfg(ringfence_shuttle)]
pub(crate) struct NoBudget;

#[cfg(ringfence_shuttle)]
impl NoBudget {
    pub(crate) fn made_progress(&self) {}
}

/// Takes a step of the task's budget. If that is spent, waits until others have had their turn.
///
/// # Cancel safety
///
/// Cancel safe.
pub(crate) async fn step() {
    std::future::poll_fn(|cx| poll_step(cx).map(|step| step.made_progress())).await;
}

pin_project! {
    /// A timer that goes along when its future moves to another runtime: the one it came from may be gone, or stand still.
    pub(crate) struct Timer {
        #[pin]
        sleep: Sleep,
        home: Option<Id>,
    }
}

impl Timer {
    /// # Panics
    ///
    /// Outside a runtime, and in one without a time driver.
    #[track_caller]
    pub(crate) fn at(at: Instant) -> Self {
        let home = current().map(|runtime| runtime.id());
        assert!(
            home.is_some(),
            "ringfence: cannot wait for time outside a tokio runtime"
        );
        Self {
            sleep: tokio::time::sleep_until(at),
            home,
        }
    }

    pub(crate) fn end(&self) -> Instant {
        self.sleep.deadline()
    }

    pub(crate) fn reset(self: Pin<&mut Self>, at: Instant) {
        self.project().sleep.reset(at);
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let here = current().map(|runtime| runtime.id());
        if here.is_some() && here != self.home {
            let at = self.end();
            self.set(Self::at(at));
        }
        self.project().sleep.poll(cx)
    }
}
