//! What does a limit cost on how many children run at once?

#![expect(
    clippy::disallowed_methods,
    reason = "bare tasks are what a group is measured against"
)]

use std::convert::Infallible;
use std::sync::Arc;

use ringfence::{Slots, TaskGroup, scope};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::row::Limits;
use crate::shape::ok;
use crate::{Contender, Gate, Goal, Row, child};

const LIMIT: usize = 64;

/// A permit is taken before the task exists, and goes along with it.
async fn semaphore(n: usize, _: Gate) -> u64 {
    let permits = Arc::new(Semaphore::new(LIMIT));
    for _ in 0..n {
        let permit = ok(permits.clone().acquire_owned().await);
        drop(tokio::spawn(async move {
            let _permit = permit;
            child::noop().await;
        }));
    }
    drop(ok(permits.acquire_many(LIMIT as u32).await));
    n as u64
}

async fn join_set(n: usize, _: Gate) -> u64 {
    let permits = Arc::new(Semaphore::new(LIMIT));
    let mut tasks = JoinSet::new();
    for _ in 0..n {
        let permit = ok(permits.clone().acquire_owned().await);
        tasks.spawn(async move {
            let _permit = permit;
            child::noop().await;
        });
        while let Some(ended) = tasks.try_join_next() {
            ok(ended);
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ok(ended);
    }
    n as u64
}

async fn ours(n: usize, _: Gate) -> u64 {
    let done = scope(async |group: &TaskGroup<Infallible>| {
        let limited = group.limit(LIMIT);
        for _ in 0..n {
            drop(limited.spawn(child::noop()).await);
        }
        Ok(n as u64)
    });
    ok(done.await)
}

async fn ours_shared(n: usize, _: Gate) -> u64 {
    let slots = Slots::new(LIMIT);
    let done = scope(async |group: &TaskGroup<Infallible>| {
        let limited = group.limit(&slots);
        for _ in 0..n {
            drop(limited.spawn(child::noop()).await);
        }
        Ok(n as u64)
    });
    ok(done.await)
}

/// 100,000 children that do nothing, 64 at once.
pub static ROW: Row = Row {
    name: "slots",
    question: "What does a limit cost on how many children run at once?",
    unit: "children",
    units: 100_000,
    counted: (10_000, 20_000),
    round: |n| n,
    from_gate: false,
    checksum: |n| n as u64,
    ended: |n| n,
    bases: ("Semaphore + spawn", Some("Semaphore + JoinSet")),
    contenders: &[
        Contender {
            name: "Semaphore + spawn",
            run: |n, gate| Box::pin(semaphore(n, gate)),
        },
        Contender {
            name: "Semaphore + JoinSet",
            run: |n, gate| Box::pin(join_set(n, gate)),
        },
        Contender {
            name: "ringfence",
            run: |n, gate| Box::pin(ours(n, gate)),
        },
        Contender {
            name: "ringfence, a budget that groups share",
            run: |n, gate| Box::pin(ours_shared(n, gate)),
        },
    ],
    goals: &[Goal {
        who: "ringfence",
        against: "Semaphore + JoinSet",
        ct: Some(1.0),
        mt: Some(1.0),
        instructions: Some(1.0),
    }],
    limits: Limits {
        locked: None,
        allocations: Some(1.2),
        bytes: None,
    },
};
