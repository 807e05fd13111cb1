//! The shapes that several rows share: `n` children, results wanted or not, each way of looking after them.

#![expect(
    clippy::disallowed_methods,
    reason = "bare tasks are what a group is measured against"
)]

use std::convert::Infallible;

use ringfence::{Scope, TaskGroup, scope};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use crate::Gate;

/// Unwraps what cannot fail here.
#[inline]
#[expect(
    clippy::panic,
    reason = "a contender that lost a child is not measured"
)]
pub(crate) fn ok<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("a child was lost: {error:?}"),
    }
}

/// Children without a result: spawn all, wait for all.
pub(crate) mod void {
    use super::*;

    pub(crate) async fn bare<F>(n: usize, gate: &Gate, child: impl Fn() -> F + Send + Sync) -> u64
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut handles = Vec::with_capacity(n);
        for _ in 0..n {
            handles.push(tokio::spawn(child()));
        }
        gate.pass().await;
        for handle in handles {
            ok(handle.await);
        }
        n as u64
    }

    pub(crate) async fn tracker<F>(
        n: usize,
        gate: &Gate,
        child: impl Fn() -> F + Send + Sync,
    ) -> u64
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let tracker = TaskTracker::new();
        for _ in 0..n {
            drop(tracker.spawn(child()));
        }
        gate.pass().await;
        tracker.close();
        tracker.wait().await;
        n as u64
    }

    pub(crate) async fn join_set<F>(
        n: usize,
        gate: &Gate,
        child: impl Fn() -> F + Send + Sync,
    ) -> u64
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut set = JoinSet::new();
        for _ in 0..n {
            set.spawn(child());
        }
        gate.pass().await;
        while let Some(ended) = set.join_next().await {
            ok(ended);
        }
        n as u64
    }

    pub(crate) async fn ours<F>(n: usize, gate: &Gate, child: impl Fn() -> F + Send + Sync) -> u64
    where
        F: Future<Output = ()> + Send + 'static,
    {
        ours_in(Scope::new(), n, gate, child).await
    }

    pub(crate) async fn ours_in<F>(
        scope: Scope,
        n: usize,
        gate: &Gate,
        child: impl Fn() -> F,
    ) -> u64
    where
        F: Future<Output = ()> + Send + 'static,
    {
        ok(scope
            .run(async |group: &TaskGroup<Infallible>| {
                for _ in 0..n {
                    drop(group.spawn(child()));
                }
                gate.pass().await;
                Ok(n as u64)
            })
            .await)
    }

    /// Keeps the handles, so that the joiner frees what it allocated.
    pub(crate) async fn ours_kept<F>(
        n: usize,
        gate: &Gate,
        child: impl Fn() -> F + Send + Sync,
    ) -> u64
    where
        F: Future<Output = ()> + Send + 'static,
    {
        ok(scope(async |group: &TaskGroup<Infallible>| {
            let mut handles = Vec::with_capacity(n);
            for _ in 0..n {
                handles.push(group.spawn(child()));
            }
            gate.pass().await;
            for handle in handles {
                handle.await;
            }
            Ok(n as u64)
        })
        .await)
    }
}

/// Children with a result: spawn all, take every result.
pub(crate) mod result {
    use super::*;

    pub(crate) async fn bare<F>(
        n: usize,
        gate: &Gate,
        child: impl Fn(u64) -> F + Send + Sync,
    ) -> u64
    where
        F: Future<Output = u64> + Send + 'static,
    {
        let mut handles = Vec::with_capacity(n);
        for i in 0..n {
            handles.push(tokio::spawn(child(i as u64)));
        }
        gate.pass().await;
        let mut sum = 0;
        for handle in handles {
            sum += ok(handle.await);
        }
        sum
    }

    pub(crate) async fn tracker<F>(
        n: usize,
        gate: &Gate,
        child: impl Fn(u64) -> F + Send + Sync,
    ) -> u64
    where
        F: Future<Output = u64> + Send + 'static,
    {
        let tracker = TaskTracker::new();
        let mut handles = Vec::with_capacity(n);
        for i in 0..n {
            handles.push(tracker.spawn(child(i as u64)));
        }
        gate.pass().await;
        let mut sum = 0;
        for handle in handles {
            sum += ok(handle.await);
        }
        tracker.close();
        tracker.wait().await;
        sum
    }

    pub(crate) async fn join_set<F>(
        n: usize,
        gate: &Gate,
        child: impl Fn(u64) -> F + Send + Sync,
    ) -> u64
    where
        F: Future<Output = u64> + Send + 'static,
    {
        let mut set = JoinSet::new();
        for i in 0..n {
            set.spawn(child(i as u64));
        }
        gate.pass().await;
        let mut sum = 0;
        while let Some(ended) = set.join_next().await {
            sum += ok(ended);
        }
        sum
    }

    pub(crate) async fn ours<F>(
        n: usize,
        gate: &Gate,
        child: impl Fn(u64) -> F + Send + Sync,
    ) -> u64
    where
        F: Future<Output = Result<u64, Infallible>> + Send + 'static,
    {
        ok(scope(async |group: &TaskGroup<Infallible>| {
            let mut handles = Vec::with_capacity(n);
            for i in 0..n {
                handles.push(group.spawn(child(i as u64)));
            }
            gate.pass().await;
            let mut sum = 0;
            for handle in handles {
                sum += handle.await;
            }
            Ok(sum)
        })
        .await)
    }
}
