//! What does a child cost that lives in the task of its scope, and may borrow?

use std::convert::Infallible;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ringfence::{BorrowGroup, LocalGroup, borrow_scope, local_scope};

use crate::row::Limits;
use crate::shape::ok;
use crate::{Contender, Goal, Row, child};

/// Runs what is not `Send` to its end, where a body has to be.
fn here<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
    }
}

async fn unordered<F: Future<Output = ()>>(n: usize, child: impl Fn() -> F) -> u64 {
    let mut children = FuturesUnordered::new();
    for _ in 0..n {
        children.push(child());
    }
    while children.next().await.is_some() {}
    n as u64
}

/// One allocation more, as any set has that takes children of all kinds.
async fn unordered_boxed<'a, F>(n: usize, child: impl Fn() -> F) -> u64
where
    F: Future<Output = ()> + Send + 'a,
{
    unordered(n, || -> futures_util::future::BoxFuture<'a, ()> {
        Box::pin(child())
    })
    .await
}

async fn buffered<F: Future<Output = ()>>(n: usize, child: impl Fn() -> F) -> u64 {
    let mut children = futures_buffered::FuturesUnordered::new();
    for _ in 0..n {
        children.push(child());
    }
    while children.next().await.is_some() {}
    n as u64
}

async fn borrow<F>(n: usize, child: impl Fn() -> F) -> u64
where
    F: Future<Output = ()> + Send,
{
    ok(
        borrow_scope(|group: BorrowGroup<'_, Infallible>| async move {
            for _ in 0..n {
                drop(group.spawn(child()));
            }
            Ok(n as u64)
        })
        .await,
    )
}

async fn local<F: Future<Output = ()>>(n: usize, child: impl Fn() -> F) -> u64 {
    ok(local_scope(|group: LocalGroup<'_, Infallible>| async move {
        for _ in 0..n {
            drop(group.spawn(child()));
        }
        Ok(n as u64)
    })
    .await)
}

macro_rules! contenders {
    ($child:path) => {
        &[
            Contender {
                name: "FuturesUnordered",
                run: |n, _| Box::pin(async move { unordered(n, $child).await }),
            },
            Contender {
                name: "FuturesUnordered of boxes",
                run: |n, _| Box::pin(async move { unordered_boxed(n, $child).await }),
            },
            Contender {
                name: "futures-buffered",
                run: |n, _| Box::pin(async move { buffered(n, $child).await }),
            },
            Contender {
                name: "moro-local",
                run: |n, _| {
                    Box::pin(async move {
                        here(moro_local::async_scope!(|scope| {
                            for _ in 0..n {
                                drop(scope.spawn($child()));
                            }
                            n as u64
                        }))
                    })
                },
            },
            Contender {
                name: "moro",
                run: |n, _| {
                    Box::pin(async move {
                        moro::async_scope!(|scope| {
                            for _ in 0..n {
                                drop(scope.spawn($child()));
                            }
                            n as u64
                        })
                        .await
                    })
                },
            },
            Contender {
                name: "ringfence",
                run: |n, _| Box::pin(async move { borrow(n, $child).await }),
            },
            Contender {
                name: "ringfence, local",
                run: |n, _| Box::pin(async move { here(local(n, $child)) }),
            },
        ]
    };
}

const GOALS: &[Goal] = &[
    Goal {
        who: "ringfence",
        against: "FuturesUnordered",
        ct: Some(1.0),
        mt: None,
        instructions: Some(1.0),
    },
    Goal {
        who: "ringfence, local",
        against: "FuturesUnordered",
        ct: Some(1.0),
        mt: None,
        instructions: Some(1.0),
    },
];

/// 100,000 children that do nothing.
pub static ROW: Row = Row {
    name: "local",
    question: "What does a child cost that lives in the task of its scope, and may borrow?",
    unit: "children",
    units: 100_000,
    counted: (10_000, 20_000),
    round: |n| n,
    from_gate: false,
    checksum: |n| n as u64,
    ended: |n| n,
    bases: ("FuturesUnordered", None),
    contenders: contenders!(child::noop),
    goals: GOALS,
    limits: Limits {
        locked: None,
        allocations: Some(2.0),
        bytes: None,
    },
};

/// 10,000 children that ring at themselves three times.
pub static YIELDS: Row = Row {
    name: "local_yields",
    question: "What does a poll cost of a child that lives in the task of its scope?",
    unit: "children",
    units: 10_000,
    counted: (5_000, 10_000),
    round: |n| n,
    from_gate: false,
    checksum: |n| n as u64,
    ended: |n| n,
    bases: ("FuturesUnordered", None),
    contenders: contenders!(child::rings),
    goals: GOALS,
    limits: Limits {
        locked: None,
        allocations: Some(4.0),
        bytes: None,
    },
};
