//! What does a timeout cost around a future that is ready?

use std::time::Duration;

use crate::row::Limits;
use crate::shape::ok;
use crate::{Contender, Gate, Goal, Row, child};

const LIMIT: Duration = Duration::from_secs(60);

async fn bare(n: usize, _: Gate) -> u64 {
    let mut sum = 0;
    for i in 0..n {
        sum += child::value(i as u64).await;
    }
    sum
}

async fn tokio_timeout(n: usize, _: Gate) -> u64 {
    let mut sum = 0;
    for i in 0..n {
        sum += ok(tokio::time::timeout(LIMIT, child::value(i as u64)).await);
    }
    sum
}

async fn ours(n: usize, _: Gate) -> u64 {
    let mut sum = 0;
    for i in 0..n {
        sum += ok(ringfence::timeout(LIMIT, child::value(i as u64)).await);
    }
    sum
}

/// A million futures that are ready at their first poll, one after another, each in a timeout of a minute.
pub static ROW: Row = Row {
    name: "ready",
    question: "What does a timeout cost around a future that is ready?",
    unit: "awaits",
    units: 1_000_000,
    counted: (10_000, 20_000),
    round: |n| n,
    from_gate: false,
    checksum: |n| (n as u64 * (n as u64 - 1)) / 2,
    ended: |n| n,
    bases: ("bare await", None),
    contenders: &[
        Contender {
            name: "bare await",
            run: |n, gate| Box::pin(bare(n, gate)),
        },
        Contender {
            name: "tokio::time::timeout",
            run: |n, gate| Box::pin(tokio_timeout(n, gate)),
        },
        Contender {
            name: "ringfence",
            run: |n, gate| Box::pin(ours(n, gate)),
        },
    ],
    goals: &[Goal {
        who: "ringfence",
        against: "bare await",
        ct: None,
        mt: None,
        instructions: Some(1.3),
    }],
    limits: Limits {
        locked: None,
        allocations: Some(0.0),
        bytes: Some(0.0),
    },
};
