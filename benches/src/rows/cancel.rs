//! How long until 100,000 parked children are gone, once they are cancelled?

#![expect(
    clippy::disallowed_methods,
    reason = "bare tasks are what a group is measured against"
)]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel, Ordering::Acquire};

use ringfence::{TaskGroup, scope};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::row::Limits;
use crate::{Contender, Gate, Goal, Row, child};

async fn abort_each(n: usize, gate: Gate) -> u64 {
    let mut handles = Vec::with_capacity(n);
    for _ in 0..n {
        handles.push(tokio::spawn(child::parked()));
    }
    child::all_parked(n).await;
    gate.pass().await;
    for handle in &handles {
        handle.abort();
    }
    let mut gone = 0;
    for handle in handles {
        gone += u64::from(handle.await.is_err());
    }
    gone
}

async fn join_set(n: usize, gate: Gate) -> u64 {
    let mut set = JoinSet::new();
    for _ in 0..n {
        set.spawn(child::parked());
    }
    child::all_parked(n).await;
    gate.pass().await;
    set.shutdown().await;
    (n - set.len()) as u64
}

async fn token(n: usize, gate: Gate) -> u64 {
    let token = CancellationToken::new();
    let tracker = TaskTracker::new();
    for _ in 0..n {
        drop(tracker.spawn(token.clone().run_until_cancelled_owned(child::parked())));
    }
    child::all_parked(n).await;
    gate.pass().await;
    token.cancel();
    tracker.close();
    tracker.wait().await;
    (n - tracker.len()) as u64
}

/// Says so when the last one is dropped.
struct Counted(Arc<(AtomicUsize, Notify)>);

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.0.fetch_sub(1, AcqRel) == 1 {
            self.0.1.notify_one();
        }
    }
}

async fn abort_handles(n: usize, gate: Gate) -> u64 {
    let left = Arc::new((AtomicUsize::new(n), Notify::new()));
    let mut handles = Vec::with_capacity(n);
    for _ in 0..n {
        let counted = Counted(Arc::clone(&left));
        let task = tokio::spawn(async move {
            let _counted = counted;
            child::parked().await;
        });
        handles.push(task.abort_handle());
    }
    child::all_parked(n).await;
    gate.pass().await;
    for handle in handles {
        handle.abort();
    }
    left.1.notified().await;
    (n - left.0.load(Acquire)) as u64
}

async fn ours(n: usize, gate: Gate) -> u64 {
    let ended = scope(async |group: &TaskGroup<Infallible>| {
        for _ in 0..n {
            drop(group.spawn(child::parked()));
        }
        child::all_parked(n).await;
        gate.pass().await;
        group.cancel();
        Ok(())
    })
    .await;
    // A scope that was cancelled says so; it has come back, so its children are gone.
    if ended.is_err() { n as u64 } else { 0 }
}

/// 100,000 children wait for ever; the clock runs from the cancel until all of them are gone.
pub static ROW: Row = Row {
    name: "cancel",
    question: "How long until 100,000 parked children are gone, once they are cancelled?",
    unit: "children",
    units: 100_000,
    counted: (10_000, 20_000),
    round: |n| n,
    from_gate: true,
    checksum: |n| n as u64,
    ended: |_| 0,
    bases: ("abort each + await", Some("JoinSet::shutdown")),
    contenders: &[
        Contender {
            name: "abort each + await",
            run: |n, gate| Box::pin(abort_each(n, gate)),
        },
        Contender {
            name: "JoinSet::shutdown",
            run: |n, gate| Box::pin(join_set(n, gate)),
        },
        Contender {
            name: "token + TaskTracker",
            run: |n, gate| Box::pin(token(n, gate)),
        },
        Contender {
            name: "abort handles + counter",
            run: |n, gate| Box::pin(abort_handles(n, gate)),
        },
        Contender {
            name: "ringfence",
            run: |n, gate| Box::pin(ours(n, gate)),
        },
    ],
    goals: &[Goal {
        who: "ringfence",
        against: "JoinSet::shutdown",
        ct: Some(0.5),
        mt: Some(0.5),
        instructions: None,
    }],
    limits: Limits {
        locked: None,
        allocations: None,
        bytes: None,
    },
};
