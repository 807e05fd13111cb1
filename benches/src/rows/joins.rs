//! What does one answer from several futures cost?

#![expect(
    clippy::disallowed_methods,
    reason = "bare tasks are what a group is measured against"
)]

use std::convert::Infallible;

use futures_util::future::{select_ok, try_join_all};
use ringfence::{BorrowGroup, TaskGroup, borrow_scope, scope};

use crate::row::Limits;
use crate::shape::ok;
use crate::{Contender, Row, child};

/// Futures of one join.
const WIDTH: usize = 10;

fn value(i: usize) -> impl Future<Output = Result<u64, ()>> + Send + 'static {
    async move {
        tokio::task::yield_now().await;
        Ok(child::value(i as u64 % 2).await)
    }
}

/// The same as a task.
fn task(i: usize) -> impl Future<Output = Result<u64, ()>> + Send + 'static {
    let task = tokio::spawn(value(i));
    async move { task.await.unwrap_or(Err(())) }
}

macro_rules! in_groups {
    ($Group:ty, $scope:ident, $n:ident, |$group:ident| $join:expr) => {
        Box::pin(async move {
            ok($scope(|$group: $Group| async move {
                let mut sum = 0;
                for _ in 0..$n / WIDTH {
                    sum += $join;
                }
                Ok::<_, Infallible>(sum)
            })
            .await)
        })
    };
}

async fn ours(n: usize) -> u64 {
    ok(scope(async |group: &TaskGroup<Infallible>| {
        let mut sum = 0;
        for _ in 0..n / WIDTH {
            sum += ok(group.try_join_all((0..WIDTH).map(value)).await)
                .iter()
                .sum::<u64>();
        }
        Ok(sum)
    })
    .await)
}

/// Ten futures that yield once, all of them wanted; 1,000 times, one after another.
pub static ALL: Row = Row {
    name: "join",
    question: "What does one answer from ten futures cost?",
    unit: "futures",
    units: 10_000,
    counted: (5_000, 10_000),
    round: |n| (n / WIDTH).max(1) * WIDTH,
    from_gate: false,
    checksum: |n| n as u64 / 2,
    ended: |n| n,
    bases: ("try_join_all", Some("try_join_all of tasks")),
    contenders: &[
        Contender {
            name: "try_join_all",
            run: |n, _| {
                Box::pin(async move {
                    let mut sum = 0;
                    for _ in 0..n / WIDTH {
                        sum += ok(try_join_all((0..WIDTH).map(value)).await)
                            .iter()
                            .sum::<u64>();
                    }
                    sum
                })
            },
        },
        Contender {
            name: "try_join_all of tasks",
            run: |n, _| {
                Box::pin(async move {
                    let mut sum = 0;
                    for _ in 0..n / WIDTH {
                        sum += ok(try_join_all((0..WIDTH).map(task)).await)
                            .iter()
                            .sum::<u64>();
                    }
                    sum
                })
            },
        },
        Contender {
            name: "ringfence",
            run: |n, _| Box::pin(ours(n)),
        },
        Contender {
            name: "ringfence, borrowing",
            run: |n, _| {
                in_groups!(BorrowGroup<'_, Infallible>, borrow_scope, n, |group| {
                    let all = group.try_join_all((0..WIDTH).map(value));
                    ok(all.await).iter().sum::<u64>()
                })
            },
        },
    ],
    goals: &[],
    limits: Limits {
        locked: None,
        allocations: None,
        bytes: None,
    },
};

/// The second of ten is the first to succeed, and the others end in the same turn; 1,000 times, one after another.
pub static FIRST: Row = Row {
    name: "first_ok",
    question: "What does the first success of ten futures cost?",
    unit: "futures",
    units: 10_000,
    counted: (5_000, 10_000),
    round: |n| (n / WIDTH).max(1) * WIDTH,
    from_gate: false,
    checksum: |n| (n / WIDTH) as u64,
    ended: |n| n / WIDTH,
    bases: ("select_ok", None),
    contenders: &[
        Contender {
            name: "select_ok",
            run: |n, _| {
                Box::pin(async move {
                    let mut won = 0;
                    for _ in 0..n / WIDTH {
                        let race = (0..WIDTH).map(|place| Box::pin(racer(place)));
                        won += select_ok(race).await.map_or(0, |(value, _)| value);
                    }
                    won
                })
            },
        },
        Contender {
            name: "ringfence",
            run: |n, _| {
                Box::pin(async move {
                    ok(scope(async |group: &TaskGroup<Infallible>| {
                        let mut won = 0;
                        for _ in 0..n / WIDTH {
                            won += group.first_ok((0..WIDTH).map(racer)).await.unwrap_or(0);
                        }
                        Ok(won)
                    })
                    .await)
                })
            },
        },
        Contender {
            name: "ringfence, borrowing",
            run: |n, _| {
                in_groups!(BorrowGroup<'_, Infallible>, borrow_scope, n, |group| {
                    let race = group.first_ok((0..WIDTH).map(racer));
                    race.await.unwrap_or(0)
                })
            },
        },
    ],
    goals: &[],
    limits: Limits {
        locked: None,
        allocations: None,
        bytes: None,
    },
};

async fn racer(place: usize) -> Result<u64, ()> {
    if place == 1 {
        tokio::task::yield_now().await;
        return Ok(child::value(1).await);
    }
    std::future::pending().await
}
