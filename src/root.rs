//! The root of a runtime: it adopts what nobody else can.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::observe::wake;
use crate::sync::Lock;
use crate::time::{Elapsed, timeout};

/// The scopes of one runtime that were dropped outside every group and still have children alive.
pub(crate) struct RootState(Lock<Orphans>);

#[derive(Default)]
struct Orphans {
    scopes: usize,
    /// One for each wait, under its number.
    waiters: HashMap<u64, Waker>,
    next_waiter: u64,
}

impl RootState {
    fn new() -> Self {
        Self(Lock::new(Orphans::default()))
    }

    pub(crate) fn adopt(&self) {
        self.0.lock().scopes += 1;
    }

    /// Waits until no orphan is left.
    pub(crate) fn emptied(&self) -> Waiting<'_> {
        Waiting {
            state: self,
            number: None,
        }
    }

    pub(crate) fn settle(&self) {
        let waiters = {
            let mut orphans = self.0.lock();
            orphans.scopes -= 1;
            if orphans.scopes > 0 {
                return;
            }
            std::mem::take(&mut orphans.waiters)
        };
        // A waker may throw: that must not cost the others their turn.
        waiters.into_values().for_each(|waiter| wake(Some(waiter)));
    }
}

/// See [`RootState::emptied`].
pub(crate) struct Waiting<'a> {
    state: &'a RootState,
    number: Option<u64>,
}

impl Future for Waiting<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        // Wakers are dropped outside the lock.
        let (number, _old) = {
            let mut orphans = self.state.0.lock();
            if orphans.scopes == 0 {
                return Poll::Ready(());
            }
            let number = self.number.unwrap_or(orphans.next_waiter);
            orphans.next_waiter = orphans.next_waiter.max(number + 1);
            (number, orphans.waiters.insert(number, waker))
        };
        self.number = Some(number);
        Poll::Pending
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let _old = self.state.0.lock().waiters.remove(&number);
        }
    }
}

type Roots = HashMap<Option<tokio::runtime::Id>, std::sync::Weak<RootState>>;

fn roots() -> std::sync::MutexGuard<'static, Roots> {
    static ROOTS: OnceLock<crate::sync::PlainMutex<Roots>> = OnceLock::new();
    ROOTS
        .get_or_init(Default::default)
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Finds or makes the root of a runtime. Only the adoption of an orphan and [`root`] come here, so one lock will do.
pub(crate) fn of(runtime: Option<tokio::runtime::Id>) -> Arc<RootState> {
    let mut roots = roots();
    if let Some(root) = roots.get(&runtime).and_then(std::sync::Weak::upgrade) {
        return root;
    }
    // A root lives as long as somebody holds it: with the last orphan and the last `Root` its entry is stale.
    roots.retain(|_, root| root.strong_count() > 0);
    let root = Arc::new(RootState::new());
    roots.insert(runtime, Arc::downgrade(&root));
    root
}

/// The last owner of every scope of a runtime: see [`root`].
#[derive(Clone)]
pub struct Root(Arc<RootState>);

/// Returns the root of the runtime that the caller is in.
///
/// A scope that is dropped before it is ready is adopted by the task that dropped it. Where there is none of ours (a
/// plain `block_on`, a raw tokio task), its children are cancelled all the same, and the root of the runtime holds them
/// until they are gone. A `main` that wants to be sure waits for it before it returns.
///
/// # Panics
///
/// Outside a tokio runtime.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), ringfence::Elapsed> {
/// use std::time::Duration;
/// use ringfence::{root, scope, timeout};
///
/// let work = scope(async |group| -> std::io::Result<()> {
///     group.spawn(std::future::pending::<()>());
///     std::future::pending().await
/// });
/// assert!(timeout(Duration::from_millis(10), work).await.is_err());
/// root().wait(Duration::from_secs(1)).await?; // whatever the dropped scope left behind is gone now
/// # Ok(())
/// # }
/// ```
#[must_use]
#[track_caller]
pub fn root() -> Root {
    match crate::runtime::current() {
        Some(handle) => Root(of(Some(handle.id()))),
        None => panic!("ringfence: a root belongs to a tokio runtime, and there is none here"),
    }
}

impl Root {
    /// Returns how many orphaned scopes still have children alive.
    #[must_use]
    pub fn orphans(&self) -> usize {
        self.0.0.lock().scopes
    }

    /// Waits until no orphaned scope has children alive, for `limit` at most.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only waits.
    ///
    /// # Errors
    ///
    /// [`Elapsed`] if children are still alive when the time is up: they are in the middle of a poll, or blocked.
    pub async fn wait(&self, limit: Duration) -> Result<(), Elapsed> {
        timeout(limit, self.0.emptied()).await
    }
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Root")
            .field("orphans", &self.orphans())
            .finish()
    }
}

#[cfg(all(test, not(any(ringfence_loom, ringfence_shuttle))))]
mod tests {
    use std::sync::Arc;

    use tokio::runtime::{Builder, Runtime};

    use super::{of, roots};

    #[test]
    fn a_root_that_nobody_holds_is_forgotten_when_the_next_one_is_made() {
        let runtimes = [(); 3].map(|()| Builder::new_current_thread().build().expect("a runtime"));
        let [first, second, third] = runtimes
            .each_ref()
            .map(|runtime: &Runtime| Some(runtime.handle().id()));
        drop(of(first));
        let held = of(second);
        assert!(!roots().contains_key(&first));
        let _next = of(third);
        assert!(roots().contains_key(&second), "somebody holds it");
        assert!(Arc::ptr_eq(&held, &of(second)));
    }
}
