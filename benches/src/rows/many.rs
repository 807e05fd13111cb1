//! What does one deadline cost, over 100,000 children?

#![expect(
    clippy::disallowed_methods,
    reason = "bare tasks are what a group is measured against"
)]

use std::time::Duration;

use ringfence::{Deadline, Scope};

use crate::row::Limits;
use crate::shape::{ok, void};
use crate::{Contender, Gate, Goal, Row, child};

const LIMIT: Duration = Duration::from_secs(60);

async fn timeout_each(n: usize, gate: Gate) -> u64 {
    let mut handles = Vec::with_capacity(n);
    for _ in 0..n {
        handles.push(tokio::spawn(tokio::time::timeout(LIMIT, child::noop())));
    }
    gate.pass().await;
    for handle in handles {
        ok(ok(handle.await));
    }
    n as u64
}

/// 100,000 children that do nothing, none of which may take longer than a minute.
pub static ROW: Row = Row {
    name: "many",
    question: "What does one deadline cost, over 100,000 children?",
    unit: "children",
    units: 100_000,
    counted: (10_000, 20_000),
    round: |n| n,
    from_gate: false,
    checksum: |n| n as u64,
    ended: |n| n,
    bases: ("bare spawn + Vec of handles", None),
    contenders: &[
        Contender {
            name: "bare spawn + Vec of handles",
            run: |n, gate| Box::pin(async move { void::bare(n, &gate, child::noop).await }),
        },
        Contender {
            name: "a timeout each",
            run: |n, gate| Box::pin(timeout_each(n, gate)),
        },
        Contender {
            name: "one tokio timeout around all",
            run: |n, gate| {
                Box::pin(async move {
                    ok(tokio::time::timeout(LIMIT, void::bare(n, &gate, child::noop)).await)
                })
            },
        },
        Contender {
            name: "ringfence",
            run: |n, gate| {
                Box::pin(async move {
                    let scope = Scope::new().deadline(Deadline::after(LIMIT));
                    void::ours_in(scope, n, &gate, child::noop).await
                })
            },
        },
        Contender {
            name: "ringfence, no deadline",
            run: |n, gate| Box::pin(async move { void::ours(n, &gate, child::noop).await }),
        },
    ],
    goals: &[
        Goal {
            who: "ringfence",
            against: "bare spawn + Vec of handles",
            ct: Some(1.05),
            mt: Some(1.05),
            instructions: None,
        },
        Goal {
            who: "ringfence",
            against: "ringfence, no deadline",
            ct: Some(1.05),
            mt: Some(1.05),
            instructions: Some(1.01),
        },
    ],
    limits: Limits {
        locked: None,
        allocations: Some(1.0),
        bytes: Some(264.0),
    },
};
