//! The root of a runtime: it adopts what nobody else can.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::sync::Lock;
use crate::time::{Elapsed, timeout};

/// The scopes of one runtime that were dropped outside every group and still have children alive.
pub(crate) struct RootState(Lock<Orphans>);

#[derive(Default)]
struct Orphans {
    scopes: usize,
    wakers: Vec<Waker>,
}

impl RootState {
    fn new() -> Self {
        Self(Lock::new(Orphans::default()))
    }

    pub(crate) fn adopt(&self) {
        self.0.lock().scopes += 1;
    }

    pub(crate) fn settle(&self) {
        let wakers = {
            let mut orphans = self.0.lock();
            orphans.scopes -= 1;
            if orphans.scopes > 0 {
                return;
            }
            std::mem::take(&mut orphans.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn poll_empty(&self, waker: &Waker) -> Poll<()> {
        let waker = waker.clone();
        let mut orphans = self.0.lock();
        if orphans.scopes == 0 {
            drop(orphans);
            return Poll::Ready(());
        }
        if !orphans.wakers.iter().any(|known| known.will_wake(&waker)) {
            orphans.wakers.push(waker);
        }
        Poll::Pending
    }
}

type Roots = HashMap<Option<tokio::runtime::Id>, std::sync::Weak<RootState>>;

/// Finds or makes the root of a runtime. Only the adoption of an orphan and [`root`] come here, so one lock will do.
pub(crate) fn of(runtime: Option<tokio::runtime::Id>) -> Arc<RootState> {
    static ROOTS: OnceLock<std::sync::Mutex<Roots>> = OnceLock::new();
    let mut roots = ROOTS
        .get_or_init(Default::default)
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
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
pub fn root() -> Root {
    let runtime = tokio::runtime::Handle::try_current()
        .ok()
        .map(|handle| handle.id());
    Root(of(runtime))
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
        timeout(
            limit,
            std::future::poll_fn(|cx| self.0.poll_empty(cx.waker())),
        )
        .await
    }
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Root")
            .field("orphans", &self.orphans())
            .finish()
    }
}
