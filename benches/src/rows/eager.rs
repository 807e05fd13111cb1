//! What does a child cost that is ready at its first poll, where it is started in the spawner's turn?

#![expect(
    clippy::disallowed_methods,
    reason = "bare tasks are what a group is measured against"
)]

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use ringfence::{BorrowGroup, TaskGroup, borrow_scope, scope};

use crate::row::Limits;
use crate::shape::ok;
use crate::{Contender, Gate, Goal, Row, child};

/// Polls a future; spawns what is left of it if it is pending. Gives the value, or the task.
async fn poll_first(n: usize, _: Gate) -> u64 {
    let mut sum = 0;
    let mut tasks = Vec::new();
    for i in 0..n {
        let mut child = Box::pin(child::value(i as u64));
        std::hint::black_box(&mut child); // or the box is optimised away
        match Pin::new(&mut child).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => sum += value,
            Poll::Pending => tasks.push(tokio::spawn(child)),
        }
    }
    for task in tasks {
        sum += ok(task.await);
    }
    sum
}

async fn spawned(n: usize, _: Gate) -> u64 {
    let mut sum = 0;
    for i in 0..n {
        sum += ok(tokio::spawn(child::value(i as u64)).await);
    }
    sum
}

/// The handle is awaited.
async fn ours(n: usize, _: Gate) -> u64 {
    let sum = scope(async |group: &TaskGroup<Infallible>| {
        let mut sum = 0;
        for i in 0..n {
            let child = async move { Ok(child::value(i as u64).await) };
            sum += group.spawn_eager(child).await;
        }
        Ok(sum)
    });
    ok(sum.await)
}

/// The handle is dropped.
async fn ours_void(n: usize, _: Gate) -> u64 {
    let done = scope(async |group: &TaskGroup<Infallible>| {
        for i in 0..n {
            let child = async move {
                std::hint::black_box(child::value(i as u64).await);
            };
            drop(group.spawn_eager(child));
        }
        Ok((n as u64 * (n as u64 - 1)) / 2)
    });
    ok(done.await)
}

async fn ours_borrowing(n: usize, _: Gate) -> u64 {
    let sum = borrow_scope(|group: BorrowGroup<'_, Infallible>| async move {
        let mut sum = 0;
        for i in 0..n {
            let child = async move { Ok(child::value(i as u64).await) };
            sum += group.spawn_eager(child).await;
        }
        Ok(sum)
    });
    ok(sum.await)
}

/// A million children that are ready at their first poll, one after another.
pub static ROW: Row = Row {
    name: "eager",
    question: "What does a child cost that is ready at its first poll, where it is started in the spawner's turn?",
    unit: "children",
    units: 1_000_000,
    counted: (10_000, 20_000),
    round: |n| n,
    from_gate: false,
    checksum: |n| (n as u64 * (n as u64 - 1)) / 2,
    ended: |n| n,
    bases: ("poll first, spawn if pending", None),
    contenders: &[
        Contender {
            name: "poll first, spawn if pending",
            run: |n, gate| Box::pin(poll_first(n, gate)),
        },
        Contender {
            name: "spawn",
            run: |n, gate| Box::pin(spawned(n, gate)),
        },
        Contender {
            name: "ringfence",
            run: |n, gate| Box::pin(ours(n, gate)),
        },
        Contender {
            name: "ringfence, handle dropped",
            run: |n, gate| Box::pin(ours_void(n, gate)),
        },
        Contender {
            name: "ringfence, borrowing",
            run: |n, gate| Box::pin(ours_borrowing(n, gate)),
        },
    ],
    goals: &[Goal {
        who: "ringfence",
        against: "poll first, spawn if pending",
        ct: Some(2.0),
        mt: Some(2.0),
        instructions: Some(2.0),
    }],
    limits: Limits {
        locked: None,
        allocations: Some(1.0),
        bytes: None,
    },
};
