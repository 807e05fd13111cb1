//! Groups whose children borrow: `borrow_scope`, `local_scope`, and their groups.
//!
//! The children are polled in the task that awaits the scope, so nothing can outlive it, and they may hold references to
//! whatever does. All else is as in `group`: the same word, reasons, errors, handles, contexts and observers, through the same
//! [`Core`](crate::state::Core) and the same [`Driver`].
//!
//! ```text
//!   BorrowGroup, BorrowSpawner ── Shared ── inbox ─┐ taken by
//!                                   │              ▼
//!   wakers ── Node ───rings at─── Ready ──────── Set ── table of parked children
//!                                                  │
//!                                                InTask ── Driver ── body, clock, end
//! ```
//!
//! Rooms: `ready` (who rings, pure) · `table` (places and keys, pure) · `slot` (an outcome on its way to the handle) · `child`
//! (the wrapper of one child) · `set` (the rounds) · `face` (the public types, for children that are `Send`, and for any).

mod child;
mod face;
mod ready;
mod set;
pub(crate) mod slot;
mod table;

use std::future::Future;

pub use self::face::{
    BorrowGroup, BorrowNamed, BorrowSpawner, LocalGroup, LocalNamed, LocalSpawner,
};
use crate::group::borrow::set::{InTask, Shared};
use crate::group::driver::Driver;
use crate::group::error::GroupError;
use crate::group::options::{Scope, open};

/// Runs `body` with a group of children that borrow from the caller, and comes back when the body and every child have ended
/// and are gone.
///
/// It keeps the promises of [`scope`](crate::scope), with one difference: the children run *concurrently in this task*, not in
/// parallel. In return, they may borrow whatever lives longer than the call, also mutably, and the whole is `Send`. Use
/// [`scope`](crate::scope) for work that is to use several cores, and [`local_scope`] for children that are not `Send`.
///
/// - The group is given to the body by value: `async |group| …` and `|group| async move { … }` both work. A child cannot borrow
///   what the body itself owns; make it before the call.
/// - Children are polled when they are woken, in turn: many that are always ready starve neither the body, nor one
///   another, nor the other tasks of the runtime.
/// - A child that blocks its thread, or computes for long without an await, stops all of them.
///
/// *Comparison.* `futures::join!` and `FuturesUnordered` poll borrowing futures in one task too; but a failure stops nobody,
/// children cannot be added from everywhere, and what is not polled to its end is forgotten without a word.
///
/// # Cancel safety
///
/// If the returned future is dropped before it is ready, its body and all its children are dropped with it, at once. A
/// [`scope`](crate::scope) opened inside one of them is adopted, as anywhere: by whatever encloses this scope.
///
/// # Errors
///
/// [`GroupError`] if the body or a child failed, or the group was cancelled.
///
/// # Panics
///
/// With the first panic of the body or a child, after all of them are gone.
///
/// # Fairness
///
/// Whoever was woken is polled once in each round, in the order of the wakes. After 128 polls the task yields.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// use ringfence::{BoxError, borrow_scope};
///
/// async fn sum(numbers: &[u64]) -> Result<u64, BoxError> {
///     Ok(numbers.iter().sum())
/// }
///
/// let (left, right) = (vec![1, 2, 3], vec![4, 5]);
/// let mut log = Vec::new();
/// let total = borrow_scope(async |group| {
///     let a = group.spawn(sum(&left)); // no `move`, no `Arc`
///     let b = group.spawn(sum(&right));
///     group.spawn(async { log.push("a child writes to the caller's stack") });
///     Ok(a.await + b.await)
/// })
/// .await?;
/// assert_eq!((total, log.len()), (15, 1));
/// # Ok(())
/// # }
/// ```
pub async fn borrow_scope<'env, E, T, F, Fut>(body: F) -> Result<T, GroupError<E>>
where
    E: Send + 'static,
    F: FnOnce(BorrowGroup<'env, E>) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    run(None, BorrowGroup::new, body).await
}

/// Runs `body` with a group of children that need not be `Send`: [`borrow_scope`] otherwise.
///
/// Children may hold an `Rc`, or a reference to a `Cell`. The future of the scope is therefore never `Send` itself: await it
/// in `main`, in a `LocalSet`, or anywhere on a `current_thread` runtime outside spawned tasks.
///
/// # Cancel safety
///
/// As [`borrow_scope`]: dropped before it is ready, it drops its body and all its children.
///
/// # Errors
///
/// [`GroupError`] if the body or a child failed, or the group was cancelled.
///
/// # Panics
///
/// With the first panic of the body or a child, after all of them are gone.
///
/// # Fairness
///
/// As [`borrow_scope`].
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), ringfence::GroupError<std::io::Error>> {
/// use std::{cell::Cell, rc::Rc};
/// use ringfence::local_scope;
///
/// let hits = Rc::new(Cell::new(0));
/// local_scope(async |group| {
///     for _ in 0..3 {
///         let hits = Rc::clone(&hits);
///         group.spawn(async move { hits.set(hits.get() + 1) });
///     }
///     Ok(())
/// })
/// .await?;
/// assert_eq!(hits.get(), 3);
/// # Ok(())
/// # }
/// ```
#[expect(clippy::future_not_send, reason = "its children need not be")]
pub async fn local_scope<'env, E, T, F, Fut>(body: F) -> Result<T, GroupError<E>>
where
    E: Send + 'static,
    F: FnOnce(LocalGroup<'env, E>) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    run(None, LocalGroup::new, body).await
}

impl Scope {
    /// Runs `body` with a group of borrowing children: see [`borrow_scope`].
    ///
    /// # Cancel safety
    ///
    /// As [`borrow_scope`]: dropped before it is ready, it drops its body and all its children.
    ///
    /// # Errors
    ///
    /// [`GroupError`] if the body or a child failed, or the group was cancelled, or its deadline passed.
    ///
    /// # Panics
    ///
    /// As [`run`](Self::run).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// use std::time::Duration;
    /// use ringfence::Scope;
    ///
    /// let words = vec!["one".to_string(), "two".to_string()];
    /// let error = Scope::new()
    ///     .deadline(Duration::from_secs(1))
    ///     .run_borrow(async |group| -> std::io::Result<()> {
    ///         for word in &words {
    ///             group.named(word.as_str()).spawn(async move {
    ///                 assert_eq!(word.len(), 3);
    ///                 std::future::pending::<()>().await;
    ///             });
    ///         }
    ///         Ok(())
    ///     })
    ///     .await
    ///     .unwrap_err();
    /// assert!(error.is_deadline_exceeded());
    /// # }
    /// ```
    pub async fn run_borrow<'env, E, T, F, Fut>(self, body: F) -> Result<T, GroupError<E>>
    where
        E: Send + 'static,
        F: FnOnce(BorrowGroup<'env, E>) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        run(Some(Box::new(self)), BorrowGroup::new, body).await
    }

    /// Runs `body` with a group of children that need not be `Send`: see [`local_scope`].
    ///
    /// # Cancel safety
    ///
    /// As [`borrow_scope`]: dropped before it is ready, it drops its body and all its children.
    ///
    /// # Errors
    ///
    /// [`GroupError`] if the body or a child failed, or the group was cancelled, or its deadline passed.
    ///
    /// # Panics
    ///
    /// As [`run`](Self::run).
    #[expect(clippy::future_not_send, reason = "its children need not be")]
    pub async fn run_local<'env, E, T, F, Fut>(self, body: F) -> Result<T, GroupError<E>>
    where
        E: Send + 'static,
        F: FnOnce(LocalGroup<'env, E>) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        run(Some(Box::new(self)), LocalGroup::new, body).await
    }
}

/// Runs a scope in this task; `group` gives what its children share its public face.
async fn run<C, G, E, T, F, Fut>(
    options: Option<Box<Scope>>,
    group: fn(crate::sync::Arc<Shared<C>>) -> G,
    body: F,
) -> Result<T, GroupError<E>>
where
    C: ?Sized + child::Child,
    E: Send + 'static,
    F: FnOnce(G) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let (holder, clock, panics_as_errors) = open::<E>(options);
    let shared = Shared::new(holder.core().clone());
    let lent = group(shared.clone());
    let driver = Driver::new(&holder, || body(lent), clock, panics_as_errors);
    InTask::new(shared, driver).await
}
