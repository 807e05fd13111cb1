//! What does a permit cost, alone and in a crowd?

#![expect(
    clippy::disallowed_methods,
    reason = "the crowd is of bare tasks, the same for all"
)]

use std::sync::Arc;

use crate::row::Limits;
use crate::shape::ok;
use crate::{Contender, Goal, Row, child};

const TASKS: usize = 64;
const PERMITS: usize = 8;

macro_rules! alone {
    ($name:literal, $make:expr, $acquire:ident) => {
        Contender {
            name: $name,
            run: |n, _| {
                Box::pin(async move {
                    let semaphore = $make(1);
                    for _ in 0..n {
                        let _permit = $acquire!(semaphore);
                        child::noop().await;
                    }
                    n as u64
                })
            },
        }
    };
}

macro_rules! crowd {
    ($name:literal, $make:expr, $acquire:ident) => {
        Contender {
            name: $name,
            run: |n, _| {
                Box::pin(async move {
                    let semaphore = Arc::new($make(PERMITS));
                    let mut handles = Vec::new();
                    for _ in 0..TASKS {
                        let semaphore = semaphore.clone();
                        handles.push(tokio::spawn(async move {
                            for _ in 0..n / TASKS {
                                let _permit = $acquire!(semaphore);
                                tokio::task::yield_now().await;
                                child::noop().await;
                            }
                        }));
                    }
                    for handle in handles {
                        ok(handle.await);
                    }
                    n as u64
                })
            },
        }
    };
}

macro_rules! fallible {
    ($semaphore:ident) => {
        ok($semaphore.acquire().await)
    };
}
macro_rules! plain {
    ($semaphore:ident) => {
        $semaphore.acquire().await
    };
}
macro_rules! of_one {
    ($semaphore:ident) => {
        $semaphore.acquire(1).await
    };
}

fn intrusive(n: usize) -> futures_intrusive::sync::Semaphore {
    futures_intrusive::sync::Semaphore::new(true, n)
}

const fn goal(against: &'static str) -> Goal {
    Goal {
        who: "ringfence",
        against,
        ct: Some(1.0),
        mt: Some(1.0),
        instructions: Some(1.0),
    }
}

const NOTHING: Limits = Limits {
    locked: None,
    allocations: Some(0.01),
    bytes: None,
};

/// One task, one permit: taken and given back.
pub static ALONE: Row = Row {
    name: "permit",
    question: "What does a permit cost that is free?",
    unit: "permits",
    units: 1_000_000,
    counted: (10_000, 20_000),
    round: |n| n,
    from_gate: false,
    checksum: |n| n as u64,
    ended: |n| n,
    bases: ("tokio", None),
    contenders: &[
        alone!("tokio", tokio::sync::Semaphore::new, fallible),
        alone!("async-lock", async_lock::Semaphore::new, plain),
        alone!("futures-intrusive", intrusive, of_one),
        alone!("ringfence", ringfence::Limiter::new, fallible),
    ],
    goals: &[goal("tokio"), goal("async-lock"), goal("futures-intrusive")],
    limits: NOTHING,
};

/// 64 tasks on 8 permits, each held for a turn.
pub static CROWD: Row = Row {
    name: "permit-crowd",
    question: "What does a permit cost that others hold?",
    unit: "permits",
    units: 256_000,
    counted: (12_800, 25_600),
    round: |n| (n / TASKS).max(1) * TASKS,
    from_gate: false,
    checksum: |n| n as u64,
    ended: |n| n,
    bases: ("tokio", None),
    contenders: &[
        crowd!("tokio", tokio::sync::Semaphore::new, fallible),
        crowd!("async-lock", async_lock::Semaphore::new, plain),
        crowd!("futures-intrusive", intrusive, of_one),
        crowd!("ringfence", ringfence::Limiter::new, fallible),
    ],
    goals: &[goal("tokio"), goal("async-lock"), goal("futures-intrusive")],
    limits: NOTHING,
};
