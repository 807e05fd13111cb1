//! What does it cost to run a function on many items, 64 at once?
//!
//! "64 workers" is what can be had at all: tasks that share an atomic index, without results, errors, cancel or backpressure.

#![expect(
    clippy::disallowed_methods,
    reason = "bare tasks are what a fan-out is measured against"
)]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures_util::stream::{self, StreamExt};
use ringfence::fan_out;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::row::Limits;
use crate::shape::ok;
use crate::{Contender, Gate, Goal, Row, child};

const AT_ONCE: usize = 64;

async fn yielded(i: u64) -> u64 {
    tokio::task::yield_now().await;
    child::value(i).await
}

/// About 1.5 µs of work.
async fn spun(i: u64) -> u64 {
    let mut x = i | 1;
    for _ in 0..1_000 {
        x = std::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005).rotate_left(7));
    }
    std::hint::black_box(x);
    child::value(i).await
}

async fn workers<F, Fut>(n: usize, item: F) -> u64
where
    F: Fn(u64) -> Fut + Send + Copy + 'static,
    Fut: Future<Output = u64> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut handles = Vec::new();
    for _ in 0..AT_ONCE {
        let next = next.clone();
        handles.push(tokio::spawn(async move {
            let mut sum = 0;
            loop {
                let i = next.fetch_add(1, Relaxed);
                if i >= n {
                    return sum;
                }
                sum += item(i as u64).await;
            }
        }));
    }
    let mut sum = 0;
    for handle in handles {
        sum += ok(handle.await);
    }
    sum
}

async fn join_set<F, Fut>(n: usize, item: F) -> u64
where
    F: Fn(u64) -> Fut + Send + Copy + 'static,
    Fut: Future<Output = u64> + Send + 'static,
{
    let semaphore = Arc::new(Semaphore::new(AT_ONCE));
    let mut set = JoinSet::new();
    for i in 0..n {
        let semaphore = semaphore.clone();
        set.spawn(async move {
            let _permit = ok(semaphore.acquire().await);
            item(i as u64).await
        });
    }
    let mut sum = 0;
    while let Some(ended) = set.join_next().await {
        sum += ok(ended);
    }
    sum
}

async fn buffered<F, Fut>(n: usize, item: F) -> u64
where
    F: Fn(u64) -> Fut + Send + Copy + 'static,
    Fut: Future<Output = u64> + Send,
{
    let mut results = stream::iter(0..n as u64)
        .map(item)
        .buffer_unordered(AT_ONCE);
    let mut sum = 0;
    while let Some(i) = results.next().await {
        sum += i;
    }
    sum
}

async fn buffered_spawn<F, Fut>(n: usize, item: F) -> u64
where
    F: Fn(u64) -> Fut + Send + Copy + 'static,
    Fut: Future<Output = u64> + Send + 'static,
{
    let spawned = stream::iter(0..n as u64).map(move |i| tokio::spawn(item(i)));
    let mut results = spawned.buffer_unordered(AT_ONCE);
    let mut sum = 0;
    while let Some(i) = results.next().await {
        sum += ok(i);
    }
    sum
}

async fn futures_buffered<F, Fut>(n: usize, item: F) -> u64
where
    F: Fn(u64) -> Fut + Send + Copy + 'static,
    Fut: Future<Output = u64> + Send,
{
    use futures_buffered::BufferedStreamExt;
    let made = stream::iter(0..n as u64).map(item);
    let mut results = std::pin::pin!(made.buffered_unordered(AT_ONCE));
    let mut sum = 0;
    while let Some(i) = results.next().await {
        sum += i;
    }
    sum
}

async fn lanes<F, Fut>(n: usize, item: F) -> u64
where
    F: Fn(u64) -> Fut + Send + Copy + 'static,
    Fut: Future<Output = u64> + Send,
{
    let next = AtomicUsize::new(0);
    let next = &next;
    let lane = || async move {
        let mut sum = 0;
        loop {
            let i = next.fetch_add(1, Relaxed);
            if i >= n {
                return sum;
            }
            sum += item(i as u64).await;
        }
    };
    let mut lanes: stream::FuturesUnordered<_> = (0..AT_ONCE).map(|_| lane()).collect();
    let mut sum = 0;
    while let Some(part) = lanes.next().await {
        sum += part;
    }
    sum
}

async fn ours<F, Fut>(n: usize, item: F) -> u64
where
    F: Fn(u64) -> Fut + Send + Sync + Copy + 'static,
    Fut: Future<Output = u64> + Send + 'static,
{
    let each = fan_out(0..n as u64)
        .limit(AT_ONCE)
        .for_each(move |i| async move {
            item(i).await;
        });
    ok(each.await);
    sum(n)
}

async fn ours_collect<F, Fut>(n: usize, item: F) -> u64
where
    F: Fn(u64) -> Fut + Send + Sync + Copy + 'static,
    Fut: Future<Output = u64> + Send + 'static,
{
    let all = fan_out(0..n as u64)
        .limit(AT_ONCE)
        .collect(move |i| async move { Ok::<_, Infallible>(item(i).await) });
    ok(all.await).into_iter().sum()
}

async fn ours_local<F, Fut>(n: usize, item: F) -> u64
where
    F: Fn(u64) -> Fut + Send + Copy + 'static,
    Fut: Future<Output = u64> + Send,
{
    let all = fan_out(0..n as u64).limit(AT_ONCE).local().fold(
        0,
        async |i| Ok::<_, Infallible>(item(i).await),
        |a, b| a + b,
    );
    ok(all.await)
}

fn sum(n: usize) -> u64 {
    n as u64 * (n as u64 - 1) / 2
}

macro_rules! spawned {
    ($item:path) => {
        &[
            Contender {
                name: "64 workers",
                run: |n, _: Gate| Box::pin(workers(n, $item)),
            },
            Contender {
                name: "Semaphore + JoinSet",
                run: |n, _| Box::pin(join_set(n, $item)),
            },
            Contender {
                name: "buffer_unordered",
                run: |n, _| Box::pin(buffered(n, $item)),
            },
            Contender {
                name: "buffer_unordered over spawn",
                run: |n, _| Box::pin(buffered_spawn(n, $item)),
            },
            Contender {
                name: "ringfence",
                run: |n, _| Box::pin(ours(n, $item)),
            },
            Contender {
                name: "ringfence collect",
                run: |n, _| Box::pin(ours_collect(n, $item)),
            },
        ]
    };
}

macro_rules! local {
    ($item:path) => {
        &[
            Contender {
                name: "64 lanes",
                run: |n, _: Gate| Box::pin(lanes(n, $item)),
            },
            Contender {
                name: "futures-buffered",
                run: |n, _| Box::pin(futures_buffered(n, $item)),
            },
            Contender {
                name: "buffer_unordered",
                run: |n, _| Box::pin(buffered(n, $item)),
            },
            Contender {
                name: "ringfence",
                run: |n, _| Box::pin(ours_local(n, $item)),
            },
        ]
    };
}

const fn goal(who: &'static str, against: &'static str, ratio: f64) -> Goal {
    Goal {
        who,
        against,
        ct: Some(ratio),
        mt: Some(ratio),
        instructions: Some(ratio),
    }
}

const NOTHING: Limits = Limits {
    locked: None,
    allocations: Some(0.05),
    bytes: None,
};

const BASE: Row = Row {
    name: "",
    question: "What does it cost to run a function on many items, 64 at once?",
    unit: "items",
    units: 100_000,
    counted: (20_000, 40_000),
    round: |n| n,
    from_gate: false,
    checksum: sum,
    ended: |n| n,
    bases: ("64 workers", Some("Semaphore + JoinSet")),
    contenders: &[],
    goals: &[],
    limits: NOTHING,
};

/// Items that are ready at once, on the runtime.
pub static SPAWN: Row = Row {
    name: "fan-spawn",
    contenders: spawned!(child::value),
    goals: &[
        goal("ringfence", "64 workers", 3.0),
        goal("ringfence", "Semaphore + JoinSet", 0.05),
    ],
    ..BASE
};

/// Items that yield once, with the results in order.
pub static YIELD: Row = Row {
    name: "fan-yield",
    contenders: spawned!(yielded),
    goals: &[goal("ringfence collect", "64 workers", 1.5)],
    ..BASE
};

/// Items of 1.5 µs of work.
pub static SPIN: Row = Row {
    name: "fan-spin",
    units: 50_000,
    contenders: spawned!(spun),
    goals: &[goal("ringfence", "64 workers", 1.1)],
    ..BASE
};

/// Items that are ready at once, in the caller's task.
pub static LOCAL: Row = Row {
    name: "fan-local",
    contenders: local!(child::value),
    goals: &[goal("ringfence", "futures-buffered", 1.0)],
    bases: ("64 lanes", None),
    ..BASE
};

/// Items that yield once, in the caller's task.
pub static LOCAL_YIELD: Row = Row {
    name: "fan-local-yield",
    contenders: local!(yielded),
    goals: &[goal("ringfence", "futures-buffered", 1.0)],
    bases: ("64 lanes", None),
    ..BASE
};
