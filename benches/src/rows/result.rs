//! What does a child cost whose result is taken?

use std::convert::Infallible;

use crate::row::Limits;
use crate::shape::result;
use crate::{Contender, Goal, Row, child};

async fn fallible(i: u64) -> Result<u64, Infallible> {
    Ok(child::value(i).await)
}

/// 100,000 children that give a number; sum them.
pub static ROW: Row = Row {
    name: "result",
    question: "What does a child cost whose result is taken?",
    unit: "children",
    units: 100_000,
    counted: (10_000, 20_000),
    round: |n| n,
    from_gate: false,
    checksum: |n| (n as u64 * (n as u64 - 1)) / 2,
    ended: |n| n,
    bases: ("bare spawn + Vec of handles", Some("JoinSet")),
    contenders: &[
        Contender {
            name: "bare spawn + Vec of handles",
            run: |n, gate| Box::pin(async move { result::bare(n, &gate, child::value).await }),
        },
        Contender {
            name: "TaskTracker + Vec of handles",
            run: |n, gate| Box::pin(async move { result::tracker(n, &gate, child::value).await }),
        },
        Contender {
            name: "JoinSet",
            run: |n, gate| Box::pin(async move { result::join_set(n, &gate, child::value).await }),
        },
        Contender {
            name: "ringfence",
            run: |n, gate| Box::pin(async move { result::ours(n, &gate, fallible).await }),
        },
    ],
    goals: &[
        Goal {
            who: "ringfence",
            against: "bare spawn + Vec of handles",
            ct: Some(0.95),
            mt: Some(1.15),
            instructions: None,
        },
        Goal {
            who: "ringfence",
            against: "JoinSet",
            ct: Some(0.65),
            mt: Some(0.5),
            instructions: None,
        },
    ],
    limits: Limits {
        locked: None,
        allocations: Some(1.0),
        bytes: None,
    },
};
